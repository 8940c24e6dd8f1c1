"""The large log: what it says of itself holds of its events, whatever pieces they are made in."""

import numpy as np
import pytest
from scipy import stats

import fastpop
from fastpop import data, synthetic
from fastpop.synthetic import LargeLog
from fastpop.synthetic.large_log import BLOCK, ROW_GROUP

SMALL = LargeLog(400_000, 103, 4_000, zipf=0.8, groups=6, strength=1.5, seed=5)


@pytest.fixture(scope="module")
def small():
    return SMALL.events()


def test_the_file_has_the_same_bytes_whatever_the_chunk(tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    num_events = ROW_GROUP + BLOCK + 17
    files = []
    for chunk in (300_001, ROW_GROUP):
        files.append(tmp_path / f"{chunk}.parquet")
        made = synthetic.large_log(num_events, 5_000, files[-1], seed=3, chunk=chunk)
    assert files[0].read_bytes() == files[1].read_bytes()
    assert parquet.ParquetFile(files[0]).metadata.num_row_groups == 2
    table = parquet.read_table(files[0])
    for name, column in made.events().items():
        assert (table[name].to_numpy() == column).all(), name
    synthetic.large_log(num_events, 5_000, files[0], seed=4)
    assert files[0].read_bytes() != files[1].read_bytes()


@pytest.mark.parametrize(("start", "stop"), [(0, 0), (0, 9), (BLOCK - 3, BLOCK + 3), (399_990, 400_000)])
def test_a_part_of_the_events_is_that_part(small, start, stop):
    part = SMALL.events(start, stop)
    for name, column in small.items():
        assert part[name].dtype == np.int64
        assert (part[name] == column[start:stop]).all(), name


def test_items_have_the_marginal_that_is_said(small):
    expected = np.exp(SMALL.log_prior_V) * SMALL.num_events
    assert expected.sum() == pytest.approx(SMALL.num_events)
    got = np.bincount(small["item"], minlength=SMALL.num_items)
    assert stats.chisquare(got, expected).pvalue > 1e-3
    by_rank = expected[SMALL.item(np.arange(SMALL.num_items))]
    assert by_rank == pytest.approx(expected.max() * np.arange(1, 104.0) ** -0.8)
    assert (SMALL.rank(SMALL.item(np.arange(103))) == np.arange(103)).all()


def test_users_meet_items_as_the_pmi_says(small):
    groups = np.arange(SMALL.groups)
    pmi_GV = SMALL.pmi(groups[:, None], np.arange(SMALL.num_items))
    joint_GV = np.exp(pmi_GV + SMALL.log_prior_V) * SMALL.user_group_probability_G[:, None]
    assert joint_GV.sum() == pytest.approx(1, abs=1e-12)
    assert joint_GV.sum(0) == pytest.approx(np.exp(SMALL.log_prior_V))
    got_GV = np.zeros_like(joint_GV)
    np.add.at(got_GV, (small["user"] % SMALL.groups, small["item"]), 1)
    assert stats.chisquare(got_GV.ravel(), joint_GV.ravel() * SMALL.num_events).pvalue > 1e-3
    assert (joint_GV * pmi_GV).sum() == pytest.approx(SMALL.mutual_information, abs=1e-12)
    per_user = np.bincount(small["user"], minlength=SMALL.num_users)
    of_group = SMALL.user_group_probability_G[np.arange(SMALL.num_users) % SMALL.groups]
    of_group /= np.bincount(np.arange(SMALL.num_users) % SMALL.groups)[np.arange(4_000) % SMALL.groups]
    assert stats.chisquare(per_user, of_group * SMALL.num_events).pvalue > 1e-3


def test_the_best_scores_have_the_least_nll(tmp_path):
    pytest.importorskip("pyarrow")
    made = synthetic.large_log(60_000, 300, tmp_path / "log.parquet", num_users=600, groups=5, seed=1)
    log = data.prepare(tmp_path / "log.parquet", tmp_path / "log", user="user", item="item", time="time")
    assert (log.num_events, log.num_users, log.num_items) == (60_000, 600, 300)
    cases = data.split(log).test
    best = fastpop.evaluate(
        lambda asked: made.pmi(asked.user[:, None], np.arange(300)) + made.log_prior_V, cases, mask_seen=False
    ).metrics["nll"]
    error = 4 * 1.5 / cases.num_cases**0.5
    assert best == pytest.approx(made.entropy - made.mutual_information, abs=error)
    alone = fastpop.evaluate(np.tile(made.log_prior_V, (cases.num_cases, 1)), cases).metrics["nll"]
    assert alone == pytest.approx(made.entropy, abs=error)
    got = fastpop.train(
        tmp_path / "log", dim=8, epochs=12, num_negatives=256, batch_size=1024, learning_rate=0.02
    ).metrics["nll"]
    assert best - 0.02 < got < made.entropy - 0.8 * made.mutual_information


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_events": 0}, "num_events"),
        ({"num_items": 1}, "num_items"),
        ({"num_users": 31}, "num_users"),
        ({"zipf": -1}, "zipf"),
        ({"groups": 1}, "groups"),
        ({"strength": np.inf}, "strength"),
        ({"chunk": 0}, "chunk"),
        ({"seed": -1}, "seed"),
    ],
)
def test_bad_arguments_are_named(tmp_path, options, message):
    given = {"num_events": 100, "num_items": 10, "out": tmp_path / "log.parquet", **options}
    with pytest.raises(ValueError, match=message):
        synthetic.large_log(**given)
    assert not list(tmp_path.iterdir())
