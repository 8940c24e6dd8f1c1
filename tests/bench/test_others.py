"""bench/others.py: what it takes of docs/embedding.md, and its table; no package of others is needed."""

import importlib.util
import json
import math
from pathlib import Path

import helpers_embedding
import numpy as np
import pytest
import torch

import fastpop

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def others():
    spec = importlib.util.spec_from_file_location("bench_others", ROOT / "bench" / "others.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_ndcg_is_of_the_one_target_s_place(others):
    shown = [[5, 7, 9], [5, 7, 9], [5, 7, 9], []]
    assert others.ndcg(shown, [5, 9, 1, 2]) == pytest.approx((1 + 1 / math.log2(4)) / 4)


def test_adapters_are_those_of_the_page(others, monkeypatch, tmp_path):
    page = tmp_path / "docs" / "embedding.md"
    page.parent.mkdir()
    adapter = "```python mine adapter\nclass One:\n    head = FullSoftmaxLoss\n```\n"
    page.write_text(adapter + "```python mine\n1 / 0\n```\n")
    monkeypatch.setattr(others, "ROOT", tmp_path)
    names = others.adapters("mine")
    assert names["One"].head is names["FullSoftmaxLoss"]
    assert {name.partition("-")[0] for name in others.TRAINERS} <= set(helpers_embedding.packages())


def test_the_head_is_of_the_loss_that_is_asked_for(others):
    counts = [3, 1, 2]
    weights = {
        loss: others.head_of(loss, counts).prior_weight for loss in ("full", "log p", "sampled, log p")
    }
    assert weights == {"full": 0.0, "log p": 1.0, "sampled, log p": 1.0}
    assert others.head_of("sampled, log p", counts).num_negatives == others.NEGATIVES["ours"]


def test_popularity_alone_is_what_the_package_measures(others):
    split = fastpop.data.split(fastpop.data.bundled_log(), "leave-last-out")
    place_V = np.argsort(np.argsort(-split.train.item_counts(), kind="stable"))  # ties: smaller id
    cases = split.test.with_targets()
    scores = fastpop.evaluation.DotScores(
        torch.zeros(len(cases), 1), torch.zeros(len(place_V), 1), bias=-torch.from_numpy(place_V).float()
    )
    found = fastpop.evaluate(scores, cases, counts=split.train.item_counts())
    assert others.popularity() == pytest.approx(found.metrics["ndcg@10"], rel=1e-6)


def test_the_table_has_an_interval_from_three_seeds_on(others):
    run = {
        "trainer": "replay-sasrec",
        "loss": "own",
        "epochs": 2,
        "clock": 3.0,
        "cores": 2.0,
        "peak_mib": 700.0,
    }
    runs = [{**run, "seed": seed, "quality": 0.09 + seed / 1000} for seed in range(3)]
    text = others.render({"popularity": 0.0757, "runs": runs})
    # 4.303 (t of two degrees of freedom) * .001 / sqrt(3)
    assert "| replay-sasrec | own | 3, 2 | NDCG@10 0.0910 ± 0.0025 | 3.0 | 2.0 | 700 |" in text
    assert "NDCG@10 0.0900 |" in others.render({"popularity": 0.0757, "runs": runs[:1]})


def record_of(trainer, **machine):
    made = {"processor": "a", "cores": 2, "threads": "1", "versions": {}, "load": [1.0, 1.0, 1.0], **machine}
    run = {"trainer": trainer, "epochs": 5, "clock": 3.0, "seed": 0}
    runs = [
        {**run, "loss": loss, "quality": 0.08 + place / 100, "cores": 9.0 - place, "peak_mib": 1000.0 - place}
        for place, loss in enumerate(("own", "full", "log p", "own sampled", "sampled, log p"))
    ]
    return {"machine": made, "popularity": 0.0757, "runs": runs}


def test_the_summary_has_a_line_for_each_trainer_that_ranks_items(others):
    given = [record_of("replay-sasrec", load=[3.0, 1.0, 1.0]), record_of("rectools-sasrec")]
    given.append(record_of("transformers-gpt2"))
    record = others.merged(given)
    assert record["machine"]["load"] == [3.0, 1.0, 1.0]
    lines = others.summary(record).splitlines()
    assert [line.split(" |")[0] for line in lines[2:]] == ["| RecTools SASRec", "| RePlay SasRec"]
    wanted = "| 0.0800 | 0.0900 | **0.1000** | 0.1100 | **0.1200** | 9.0 → 7.0 | 1,000 → 998 |"
    assert lines[2] == "| RecTools SASRec " + wanted
    given[0]["runs"] = given[0]["runs"][:4]
    assert "| 0.1100 | **-** |" in others.summary(given[0])


def test_records_of_two_machines_are_not_merged(others):
    with pytest.raises(SystemExit, match="processor is a of the first, b of another"):
        others.merged([record_of("replay-sasrec"), record_of("rectools-sasrec", processor="b")])


def test_the_pages_have_the_tables_of_the_record_that_is_kept(others):
    [path] = (ROOT / "bench" / "records").glob("*-others.json")
    record = json.loads(path.read_text())
    assert set(others.NAMES) == set(others.TRAINERS)
    for page, table in (("README.md", others.summary(record)), ("docs/embedding.md", others.render(record))):
        shown = (ROOT / page).read_text().partition("<!-- others -->")[2].partition("<!-- /others -->")[0]
        assert shown.strip() == table
    runs = others.grouped(record)
    for by_loss in runs.values():
        assert {len(each) for each in by_loss.values()} == {3}
        assert {run["epochs"] for each in by_loss.values() for run in each} == {5}
