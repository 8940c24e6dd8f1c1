"""Real logs, from the raw file to metrics, audit and recommendations, through the public face."""

import contextlib

import numpy as np
import pytest
import torch

import fastpop

pytest.importorskip("duckdb", reason="duckdb, which reads logs, is not installed")

QUICK = {
    "epochs": 1,
    "dim": 8,
    "num_negatives": 128,
    "batch_size": 2048,
    "max_length": 20,
    "num_layers": 1,
    "progress": False,
}
LOGS = {
    "tianchi-mobile-2k.csv.gz": ({"preset": "alibaba-mobile"}, {"encoder": "bag"}),
    "taobao-userbehavior-10k.csv.gz": (
        {"preset": "taobao-userbehavior"},
        {"encoder": "sasrec", "mask_seen": False},
    ),
    "movietweetings-100k.ratings.dat.gz": (
        {"preset": "movietweetings"},
        {"encoder": "factor", "split": "global-time"},
    ),
    "ciao.ratings.csv.gz": (
        {"preset": "ciao", "min_user_events": 5, "min_item_events": 5},
        {"encoder": "factor", "prior": "learned"},
    ),
    "ml-latest-small-2016.ratings.csv.gz": (
        {"preset": "movielens-csv", "min_rating": 4.0},
        {"encoder": "bag", "loss": "full_softmax"},
    ),
    "lastfm-s3rec.seq.txt.gz": ({"preset": "sequence"}, {"encoder": "sasrec", "logq": "corrected"}),
    "steam200k.game_purchase.dat.gz": ({"preset": "steam"}, {"encoder": "factor", "split": "random-by-user"}),
}
SHORT = ("tianchi-mobile-2k.csv.gz", "taobao-userbehavior-10k.csv.gz")
DIRECTIONLESS = "audit: log p has no direction here"


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize("file", LOGS)
def test_from_raw_file_to_audit_and_recommendations(shared_data, tmp_path, file):
    reading, training = LOGS[file]
    log = fastpop.read_log(shared_data / file, **reading)
    result = fastpop.train(log, out=tmp_path / "run", **QUICK | training)
    assert np.isfinite(result.metrics["nll"])
    assert 0 <= result.metrics["ndcg@10"] <= 1
    with pytest.warns(UserWarning, match=DIRECTIONLESS) if file in SHORT else contextlib.nullcontext():
        audit = result.audit(permutations=30)
    assert audit.energy_direction == pytest.approx(audit.energy_shared + audit.energy_heterogeneous)
    loaded = fastpop.load(tmp_path / "run")
    user = log.decode_users(result.split.train.user[-1:])
    found = loaded.recommend(user, k=5, popularity_weight=0.5)
    assert len(set(found.item[0])) == 5
    assert set(found.item[0]) <= set(log.item_ids.tolist())


def test_nowplaying_with_its_own_test_part(shared_data, tmp_path):
    log = fastpop.read_log(shared_data / "nowplaying.train_sessions.txt.gz", preset="sessions")
    cases = fastpop.data.read_cases(shared_data / "nowplaying.test_prefix_target.tsv.gz", log)
    few = log.take(log.user < 4000)
    result = fastpop.train(
        few, test=cases.take(slice(0, 300)), encoder="sasrec", out=tmp_path / "run", **QUICK
    )
    assert result.facts["test_cases"] > 250
    assert np.isfinite(result.metrics["nll"])


def test_coat_trains_on_the_biased_part_and_is_judged_on_the_random_one(shared_data):
    biased, random = (
        fastpop.read_log(shared_data / f"coat.{part}.csv.gz", preset="coat", min_rating=4)
        for part in ("biased", "random")
    )
    result = fastpop.train(biased, test=random, **QUICK | {"epochs": 5})
    assert result.facts["test_cases"] > 200
    assert result.metrics["auc"] > 0.5


@pytest.mark.slow
def test_sasrec_on_beauty_reaches_the_known_results(shared_data):
    """Full softmax NDCG@10 >= .052; sampled softmax with log Q at K = 1024 within 7 % of it."""
    torch.set_num_threads(2)
    log = fastpop.read_log(shared_data / "amazon-beauty-5core.seq.txt.gz", preset="sequence")
    options = {"encoder": "sasrec", "prior": "none", "dropout": 0.4}
    full = fastpop.train(log, loss="full_softmax", epochs=30, **options)
    sampled = fastpop.train(
        log, loss="sampled_softmax", num_negatives=1024, logq="corrected", epochs=40, **options
    )
    assert full.metrics["ndcg@10"] >= 0.052
    assert sampled.metrics["ndcg@10"] >= 0.93 * full.metrics["ndcg@10"]
