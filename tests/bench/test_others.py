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
        "length": 50,
        "clock": 3.0,
        "cores": 2.0,
        "peak_mib": 700.0,
    }
    runs = [{**run, "seed": seed, "quality": 0.09 + seed / 1000} for seed in range(3)]
    text = others.render({"popularity": 0.0757, "runs": runs})
    # 4.303 (t of two degrees of freedom) * .001 / sqrt(3)
    assert "| replay-sasrec | own | 3, 2, 50 | NDCG@10 0.0910 ± 0.0025 | 3.0 | 2.0 | - | 700 |" in text
    for each, load in zip(runs, (7.0, 2.5, 1.0)):
        each["load"] = load
    assert "| 2.0 | 2.5 | 700 |" in others.render({"popularity": 0.0757, "runs": runs})
    assert "NDCG@10 0.0900 |" in others.render({"popularity": 0.0757, "runs": runs[:1]})


def record_of(trainer, **machine):
    made = {"processor": "a", "cores": 2, "threads": "1", "versions": {}, "load": [1.0, 1.0, 1.0], **machine}
    run = {"trainer": trainer, "epochs": 5, "clock": 3.0}
    runs = [
        {
            **run,
            "loss": loss,
            "seed": seed,
            "quality": 0.08 + place / 100 + seed / 1e4,
            "cores": 9.0 - place,
            "peak_mib": 1000.0 - place,
        }
        for place, loss in enumerate(("own", "full", "log p", "own sampled", "sampled, log p"))
        for seed in range(3)
    ]
    return {"machine": made, "sizes": {"dim": 64, "length": 50}, "popularity": 0.0757, "runs": runs}


def test_the_summary_has_a_line_for_each_trainer(others):
    given = [record_of("replay-sasrec", load=[3.0, 1.0, 1.0]), record_of("rectools-sasrec")]
    given.append(record_of("transformers-gpt2"))
    record = others.merged(given)
    assert record["machine"]["load"] == [3.0, 1.0, 1.0]
    lines = others.summary(record).splitlines()
    names = ["RecTools SASRec", "RePlay SasRec", "Hugging Face Trainer, a small GPT-2"]
    assert [line.split(" |")[0] for line in lines[2:]] == [f"| {name}" for name in names]
    # 4.303 * .0001 / sqrt(3) = .0002
    wanted = "| 5, 50 | NDCG@10 | 0.0801 ± 0.0002 | 0.0901 ± 0.0002 | **0.1001 ± 0.0002** | 0.1101 ± 0.0002 "
    assert lines[2] == f"| RecTools SASRec {wanted}| **0.1201 ± 0.0002** | 9.0 → 7.0 | 1,000 → 998 |"
    assert "NLL | 0.0801 ± 0.0002 | 0.0901 ± 0.0002 | 0.1001 ± 0.0002 |" in lines[4]  # less is better there
    given[0]["runs"] = [run for run in given[0]["runs"] if run["loss"] not in ("own sampled", "full")]
    assert "| - | **0.1001 ± 0.0002** | - | 0.1201 ± 0.0002 |" in others.summary(given[0])


def test_bold_is_what_no_seed_hides(others):
    own = [0.10, 0.11, 0.12]  # ± .0248
    assert others.is_better("NDCG@10", [0.17, 0.17, 0.17], own)
    assert not others.is_better("NDCG@10", [0.13, 0.13, 0.13], own)
    assert not others.is_better("NDCG@10", [0.17, 0.17], own)
    assert others.is_better("NLL", [0.05, 0.05, 0.05], own)
    assert not others.is_better("NLL", [0.17, 0.17, 0.17], own)
    assert not others.is_better("NDCG@10", [], own)


def test_records_keep_what_each_was_made_with(others):
    older, newer = record_of("replay-sasrec"), record_of("recbole-sasrec", versions={"recbole": "1.2.1"})
    del newer["sizes"]["length"]
    for run in newer["runs"]:
        run["length"] = 20
    record = others.merged([older, newer])
    assert {run["trainer"]: run["length"] for run in record["runs"]} == {
        "replay-sasrec": 50,
        "recbole-sasrec": 20,
    }
    assert record["machine"]["versions"] == {"recbole": "1.2.1"}
    another = record_of("rectools-sasrec", versions={"recbole": "1.2.0"})
    with pytest.raises(SystemExit, match=r"version of recbole is 1\.2\.1 of the first, 1\.2\.0 of another"):
        others.merged([newer, another])


def test_a_record_goes_on_where_it_was(others, tmp_path, monkeypatch, capsys):
    made = []

    def run_of(trainer, loss, seed, epochs, length):
        made.append((trainer, loss, seed, epochs, length))
        run = {"trainer": trainer, "loss": loss, "seed": seed, "epochs": epochs, "length": length}
        return run | {"quality": 0.1, "clock": 1.0, "cores": 1.0, "peak_mib": 1.0, "load": 1.0}

    path = tmp_path / "others.json"
    monkeypatch.setattr(others, "run_of", run_of)
    monkeypatch.setattr(others, "popularity", lambda: 0.0757)
    monkeypatch.setattr(others, "PACKAGES", ())
    monkeypatch.syspath_prepend(ROOT / "bench")
    made_of = others.machine()
    assert made_of == json.loads(json.dumps(made_of))  # as a record that is read has it
    same = {name: made_of[name] for name in ("processor", "cores", "threads")}
    path.write_text(json.dumps({**record_of("replay-sasrec", **same), "popularity": 0.0757}))
    words = ["--trainers", "replay-sasrec,recbole-sasrec", "--seeds", "4", "--losses", "own;log p"]
    monkeypatch.setattr("sys.argv", ["others.py", *words, "--length", "20", "--record", str(path), "--go-on"])
    others.main()
    assert made[:2] == [("replay-sasrec", loss, 3, 10, 20) for loss in ("own", "log p")]
    assert len(made) == 2 + 4 * 2
    kept = json.loads(path.read_text())["runs"]
    assert len(kept) == 15 + len(made)
    assert {run["length"] for run in kept} == {20, 50}
    assert "| recbole-sasrec | own | 4, 10, 20 |" in capsys.readouterr().out


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
        assert len({(run["epochs"], run["length"]) for each in by_loss.values() for run in each}) == 1
