"""`fastpop recommend` for histories, similar items, filters, titles; `fastpop export`; titles in an audit."""

import json
import re

import numpy as np
import pytest
import torch

import fastpop

pytest.importorskip("tyro", reason="tyro, which reads a command line, is not installed")


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """A run of an encoder that reads histories, whose items are words, and a table of its items."""
    torch.set_num_threads(1)
    place = tmp_path_factory.mktemp("served")
    rng = np.random.default_rng(0)
    item = np.array([f"i{min(int(rng.zipf(1.4)), 30)}" for _ in range(900)], dtype=object)
    log = fastpop.Interactions.from_arrays(rng.integers(0, 40, 900), item, np.arange(900))
    fastpop.train(log, encoder="bag", epochs=1, dim=8, num_negatives=16, progress=False, out=place / "run")
    lines = ["item_id,title", *(f'{one},"The {one}, a film"' for one in log.item_ids[:-1])]
    (place / "items.csv").write_text("\n".join(lines) + "\n")
    return place


def test_histories_with_titles_and_filters(served, commands, tmp_path):
    (tmp_path / "stock.txt").write_text("i1\ni2\ni3\ni4\ni5\ni99\n\n")
    (tmp_path / "sold.txt").write_text("i4\n")
    words = ["--history", "i1,i2, nothing", "i7", "--k", 3, "--allow", tmp_path / "stock.txt"]
    words += [
        "--deny",
        tmp_path / "sold.txt",
        "--titles",
        served / "items.csv",
        "--out",
        tmp_path / "top.csv",
    ]
    done = commands.run("recommend", served / "run", *words)
    result = fastpop.load(served / "run")
    want = result.recommend(
        histories=[["i1", "i2"], ["i7"]], k=3, allow=["i1", "i2", "i3", "i4", "i5"], deny=["i4"]
    )
    lines = done.stdout.splitlines()
    assert lines[1] == "  i1,i2, nothing"
    assert lines[2] == f"    The {want.item[0][0]}, a film ({want.item[0][0]})"
    assert "histories: 1 of 4 ids left out, 'nothing'" in done.stderr
    assert "allow: 1 of 6 ids left out, 'i99'" in done.stderr
    rows = (tmp_path / "top.csv").read_text().splitlines()
    assert rows[0] == "user,rank,item,score,title"
    assert len(rows) == 1 + sum(one is not None for one in want.item.ravel())


def test_similar_items(served, commands):
    text = commands.run("recommend", served / "run", "--similar-to", "i1", "i2", "--k", 2).stdout
    want = fastpop.load(served / "run").similar_items(["i1", "i2"], k=2)
    assert text == want.table() + "\n"


def test_a_run_is_exported(served, commands, tmp_path):
    done = commands.run("export", served / "run", "--out", tmp_path / "out")
    assert done.stdout == f"model.json, tensors.safetensors are in {tmp_path / 'out'}\n"
    opened, run = fastpop.open_export(tmp_path / "out"), fastpop.load(served / "run")
    asked = {"histories": [["i1", "i2"]], "k": 3}
    assert opened.recommend(**asked).item.tolist() == run.recommend(**asked).item.tolist()
    done = commands.run("export", served / "run", "--out", tmp_path / "x", "--format", "pickle", code=2)
    assert "format: expected one of 'safetensors', 'onnx', 'torch.export'; got 'pickle'" in done.stderr
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("x")
    done = commands.run("export", served / "run", "--out", tmp_path / "mine", code=2)
    assert "mine, which holds something else" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_items_of_a_run_are_exported_as_an_index(served, commands, tmp_path):
    out = tmp_path / "index"
    done = commands.run("export", served / "run", "--out", out, "--index", "flat")
    assert done.stdout.startswith(
        f"flat: {len(fastpop.load(served / 'run').log.item_ids)} items, 8 numbers and"
    )
    assert re.search(r"popularity weight +recall@10\n +0 +1\.0000", done.stdout)
    loaded = fastpop.training.ItemIndex.load(out)
    assert loaded.recall.recall[1.0] == 1.0
    decoder = fastpop.load(served / "run").model.decoder
    query = np.ones((1, 8), np.float32)
    want_V = (query @ decoder.item_vectors().detach().numpy().T)[0] * float(decoder.scale)
    assert loaded.search(query, 3, popularity_weight=0)[0][0].tolist() == np.argsort(-want_V)[:3].tolist()
    found = json.loads(
        commands.run("export", served / "run", "--out", out, "--index", "flat", "--json").stdout
    )
    assert (found["index"], found["k"], found["recall"]["1"]) == ("flat", 10, 1.0)
    for words, message in (
        (["--index", "annoy"], "index: expected one of 'flat', 'faiss-flat', 'faiss-hnsw', 'faiss-ivf'; got"),
        (["--index", "flat", "--format", "onnx"], "format: expected none beside --index; got 'onnx'"),
        (["--index", "flat", "--format", "safetensors"], "format: expected none beside --index; got 'safe"),
        (["--format", ""], "format: expected one of"),
    ):
        assert message in commands.run("export", served / "run", "--out", out, *words, code=2).stderr


def test_what_somebody_put_into_a_folder_is_not_replaced_with_it(served, commands, tmp_path):
    index = ["export", served / "run", "--out", tmp_path / "index", "--index", "flat"]
    export = ["export", served / "run", "--out", tmp_path / "served"]
    log = tmp_path / "log.csv"
    log.write_text("user,item\n" + "".join(f"{n % 7},{n % 5}\n" for n in range(60)))
    prepare = ["prepare", log, "--user", "user", "--item", "item", "--out", tmp_path / "prepared"]
    for command, folder in ((index, "index"), (export, "served"), (prepare, "prepared")):
        commands.run(*command)
        commands.run(*command)  # an older one of its kind is replaced
        (tmp_path / folder / "notes.txt").write_text("mine")
        done = commands.run(*command, code=2)
        assert f"{folder}, which holds something else" in done.stderr
        assert (tmp_path / folder / "notes.txt").read_text() == "mine"


def test_an_evaluation_of_some_cases_says_so_and_has_intervals(served, commands, tmp_path):
    out = tmp_path / "some.json"
    words = ["--sample-cases", 10, "--sample-seed", 3, "--out", out]
    done = commands.run("evaluate", served / "run", *words)
    assert "estimates from 10 of" in " ".join(done.stdout.split())
    [found] = json.loads(out.read_text())
    run = fastpop.load(served / "run").evaluate(sample_cases=10, sample_seed=3)
    assert found["metrics"]["ndcg@10"] == run.metrics["ndcg@10"]
    low, high = run.intervals["ndcg@10"]
    assert found["intervals"]["ndcg@10"] == [low, high]
    for words, message in (
        (["--sample-cases", 1], "sample_cases: expected"),
        (["--sample-seed", 1], "sample_seed: expected none without --sample-cases; got 1"),
    ):
        assert message in commands.run("evaluate", served / "run", *words, code=2).stderr


def test_an_audit_names_the_items_that_are_furthest_off(served, commands, tmp_path):
    words = ["--titles", served / "items.csv", "--out", tmp_path / "audit", "--permutations", 20]
    commands.run("audit", served / "run", *words)
    result = fastpop.load(served / "run")
    found = result.audit(permutations=0).extremes()
    page = (tmp_path / "audit" / "report.html").read_text()
    last = result.log.item_ids[-1]  # which the table of titles lacks
    for kind in ("largest", "above", "below"):
        for one in found[kind]:
            name = result.log.item_ids[one["item"]]
            shown = name if name == last else f"The {name}, a film ({name})"
            assert f'<th scope="row">{shown}</th>' in page
    done = commands.run("audit", served / "run", "--titles", served / "items.csv", code=2)
    assert "titles: expected none without RUN and --out" in done.stderr


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "users: expected at least one id, or --history, or --similar-to; got none"),
        (["--history", "i1", "--users", "3"], "history: expected none beside --users"),
        (["--history", "i1", "--titles", "none.csv"], "none.csv"),
        (["--history", "i1", "--title-columns", "a", "b"], "title_columns: expected none without --titles"),
        (["--similar-to", "nothing"], "items: expected ids of this log"),
        (["--similar-to", "i1", "--include-seen"], "similar_to: expected no --personal-weight and no --inc"),
        (["--users", "x"], "users: expected whole numbers, as the log's users are; got 'x'"),
    ],
)
def test_what_is_wrong_is_named(served, commands, words, message):
    done = commands.run("recommend", served / "run", *words, code=2)
    assert message in done.stderr
    assert "Traceback" not in done.stderr
