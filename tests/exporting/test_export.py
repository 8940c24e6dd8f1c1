"""What is exported serves what the run serves, at any size of batch, in every format; whole or not at all."""

import dataclasses
import json
import pickle
import subprocess
import sys
import zipfile

import numpy as np
import pytest
import torch
from helpers_logs import small_log
from safetensors.numpy import load_file

import fastpop
from fastpop.exporting import FORMATS
from fastpop.exporting import draft as writing

QUICK = {"epochs": 1, "dim": 8, "num_layers": 1, "max_length": 6, "num_negatives": 16, "progress": False}
# Every encoder of ours; in the default run with ONNX those whose graphs have something of their own.
ENCODERS = ("factor", "bag", "sasrec", "bert4rec", "gru4rec", "lightgcn")
WITH_ONNX = ("factor", "sasrec", "gru4rec")


def some(encoder, format):
    slow = format == "onnx" and encoder not in WITH_ONNX
    return pytest.param(encoder, format, marks=[pytest.mark.slow] if slow else [], id=f"{encoder} {format}")


def trained(encoder, **options):
    torch.set_num_threads(1)
    loss = {"loss": "full_softmax"} if encoder == "lightgcn" else {}
    return fastpop.train(small_log(), encoder=encoder, **(QUICK | loss | options))


@pytest.fixture(scope="module")
def runs():
    """Runs by encoder, with a temperature, so that the scale is not 1."""
    made = {}

    def run(encoder):
        if encoder not in made:
            made[encoder] = trained(encoder, temperature=0.5, seed=3)
        return made[encoder]

    return run


def asked_of(result, rng, rows):
    """(what `recommend` and an export are both asked with, what the graph is asked with)."""
    log = result.log
    if result.model.encoder.reads == "events":
        known = np.flatnonzero(np.diff(result.split.train.offsets))
        at = rng.integers(0, len(known), rows)
        return {"users": log.user_ids[known[at]]}, at
    length = int(rng.integers(1, 7))
    history = rng.integers(0, log.num_items, (rows, length))
    if result.model.encoder.one_length:
        history = np.pad(history, ((0, 0), (0, 6 - length)), constant_values=-1)
    for row in range(rows):
        history[row, 1 + row % length :] = -1
    return {"histories": [log.item_ids[one[one >= 0]] for one in history]}, history


@pytest.mark.parametrize(("encoder", "format"), [some(e, f) for e in ENCODERS for f in FORMATS])
def test_every_format_serves_what_the_run_serves(runs, encoder, format, tmp_path):
    result, rng = runs(encoder), np.random.default_rng(0)
    opened = fastpop.open_export(fastpop.export(result, tmp_path / "out", format))
    decoder = result.model.decoder
    fresh_V = rng.standard_normal(result.log.num_items).astype(np.float32)
    for rows in (1, 2, 5, 64, 257):
        names, places = asked_of(result, rng, rows)
        beta_B, lam_B = rng.uniform(-1, 2, rows), rng.uniform(0, 2, rows)
        for log_prior in (None, fresh_V):
            score_BV, query_BD = opened.scores(places, beta_B, lam_B, log_prior)
            asked = result if log_prior is None else result.refresh_prior(prior_of(fresh_V, result))
            exclude = {"exclude_seen": False, "k": result.log.num_items}
            for row in sorted({0, rows // 2, rows - 1}):
                one = {name: value[row : row + 1] for name, value in names.items()}
                want = asked.recommend(
                    popularity_weight=beta_B[row], personal_weight=lam_B[row], **one, **exclude
                )
                at = result.log.encode_items(want.item[0].tolist())
                np.testing.assert_allclose(score_BV[row, at], want.score[0], rtol=2e-5, atol=2e-5)
        with torch.no_grad():
            made = query_BD @ decoder.item_vectors().numpy().T * float(decoder.scale)
        want_BV = made * lam_B[:, None] + (beta_B[:, None] - decoder.prior.offset) * fresh_V
        np.testing.assert_allclose(score_BV, want_BV, rtol=2e-5, atol=2e-5)


def fitted(result):
    """The run as if these weights had been found."""
    found = fastpop.training.Serving(
        popularity_weight=0.7,
        personal_weight=1.4,
        popularity_error=0.1,
        personal_error=0.1,
        correlation=0.0,
        nll=1.0,
        nll_as_trained=2.0,
        nll_popularity=3.0,
        num_cases=9,
        num_targets=9,
        fitted_on="nothing",
    )
    return dataclasses.replace(result, serving=found)


def prior_of(log_prior_V, result):
    """A prior of exactly this log p."""
    return dataclasses.replace(result.prior, log_prior_V=log_prior_V.astype(np.float64))


@pytest.mark.parametrize("format", ["safetensors", "torch.export"])
def test_lists_are_those_of_the_run(runs, format, tmp_path):
    result = runs("sasrec")
    ids = result.log.item_ids
    opened = fastpop.open_export(fastpop.export(result, tmp_path / "out", format))
    asked = {
        "histories": {"a": ids[[1, 5]], "b": [], "c": ids[:20]},
        "k": 5,
        "titles": {int(one): f"Film {one}" for one in ids},
    }
    for more in (
        {},
        {"popularity_weight": 0.5, "personal_weight": 2.0, "exclude_seen": False},
        {"allow": ids[:9], "deny": ids[[2]]},
        {"candidates": [ids[:4], ids[3:9], ids[20:]]},
        {"log_p": np.linspace(-9, -1, len(ids))},
    ):
        got, want = opened.recommend(**asked, **more), result.recommend(**asked, **more)
        assert got.item.tolist() == want.item.tolist(), more
        np.testing.assert_allclose(got.score, want.score, rtol=1e-5, atol=1e-5)
        assert got.table() == want.table()
        assert got.facts == want.facts
    with pytest.raises(ValueError, match="histories: expected lists of item ids: an export has no log"):
        opened.recommend(["a"])
    with pytest.raises(ValueError, match="popularity_weight: expected another number than 0"):
        opened.recommend(histories=[[]], popularity_weight=0)
    with pytest.warns(UserWarning, match="histories: 1 of 1 ids left out, 777"):
        opened.recommend(histories=[[777]])


def test_fitted_weights_and_a_prior_without_counts_go_along(tmp_path):
    result = fitted(trained("bag", prior="none"))
    opened = fastpop.open_export(fastpop.export(result, tmp_path / "out"))
    asked = {"histories": [[], result.log.item_ids[:3]], "k": 6}
    got, want = opened.recommend(**asked), result.recommend(**asked)
    assert got.item.tolist() == want.item.tolist()
    assert (got.popularity_weight, got.personal_weight) == (want.popularity_weight, want.personal_weight)
    learned = trained("bag", prior="learned")
    opened = fastpop.open_export(fastpop.export(learned, tmp_path / "learned"))
    assert opened.recommend(**asked).item.tolist() == learned.recommend(**asked).item.tolist()
    with pytest.raises(ValueError, match="log_p: expected a model with prior 'none', 'frozen'"):
        opened.recommend(**asked, log_p=np.zeros(result.log.num_items))


def test_a_dot_product_of_your_own_is_all_that_users_need(runs, tmp_path):
    """numpy, safetensors and json, as docs/serving.md has it."""
    result = runs("factor")
    folder = fastpop.export(result, tmp_path / "out")
    about, tensors = (
        json.loads((folder / "model.json").read_text()),
        load_file(folder / "tensors.safetensors"),
    )
    user = about["user_ids"].index(int(result.log.user_ids[4]))
    s_V = about["scale"] * tensors["item_vectors"] @ tensors["queries"][user]
    score_V = about["personal_weight"] * s_V
    score_V = score_V + (about["popularity_weight"] - about["offset"]) * tensors["log_prior"]
    want = result.recommend(result.log.user_ids[[4]], k=5, exclude_seen=False).item[0].tolist()
    assert [about["item_ids"][i] for i in np.argsort(-score_V, kind="stable")[:5]] == want


def test_torch_export_is_read_without_fastpop_and_holds_no_pickle(runs, tmp_path, monkeypatch):
    result = runs("gru4rec")
    folder = fastpop.export(result, tmp_path / "out", "torch.export")
    code = f"""
import sys
import torch
module = torch.export.load({str(folder / "model.pt2")!r}).module()
history = torch.full((4, 6), -1)
history[:, 0] = torch.arange(4)
score, query = module(history, torch.ones(4), torch.ones(4), torch.zeros({result.log.num_items}))
print(list(score.shape), "fastpop" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[0] == f"[4, {result.log.num_items}] False"
    with zipfile.ZipFile(folder / "model.pt2") as archive:
        for name in archive.namelist():
            raw = archive.read(name)
            assert not (name.endswith(".pt") and raw), name
            assert b"csystem" not in raw

    def refuse(*_, **__):
        raise AssertionError("unpickled")

    monkeypatch.setattr(pickle, "load", refuse)
    monkeypatch.setattr(pickle, "loads", refuse)
    monkeypatch.setattr(pickle, "Unpickler", refuse)
    monkeypatch.setattr(torch, "load", refuse)
    fastpop.open_export(folder)


def test_a_graph_that_asks_to_be_unpickled_is_refused(runs, tmp_path):
    folder = fastpop.export(runs("factor"), tmp_path / "out", "torch.export")
    about = json.loads((folder / "model.json").read_text())
    with zipfile.ZipFile(folder / "model.pt2", "a") as archive:
        archive.writestr("model/data/sample_inputs/other.pt", pickle.dumps(1))
    with pytest.raises(ValueError, match=r"expected the bytes that were written; got .*model\.pt2, others"):
        fastpop.open_export(folder)
    about["sha256"]["model.pt2"] = writing.files.sha256(folder / "model.pt2")
    about.pop("seal")
    (folder / "model.json").write_text(writing.sealed.sealed_text(about))
    with pytest.raises(ValueError, match=r"expected a graph without pickled parts; got .*other\.pt"):
        fastpop.open_export(folder)


def test_an_export_is_whole_or_not_there(runs, tmp_path, monkeypatch):
    out = fastpop.export(runs("bag"), tmp_path / "out")
    before = {one.name: one.read_bytes() for one in out.iterdir()}

    def fails(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(writing, "_write_graph", fails)
        with pytest.raises(fastpop.training.CheckpointError, match="No space left on device"):
            fastpop.export(runs("bag"), out, "torch.export")
    assert {one.name: one.read_bytes() for one in out.iterdir()} == before
    assert [one.name for one in tmp_path.iterdir()] == ["out"]
    assert (
        fastpop.open_export(fastpop.export(runs("bag"), out, "torch.export")).about["format"]
        == "torch.export"
    )
    assert sorted(one.name for one in out.iterdir()) == ["model.json", "model.pt2", "tensors.safetensors"]


def test_bytes_that_changed_are_named(runs, tmp_path):
    for name in ("model.json", "tensors.safetensors"):
        out = fastpop.export(runs("bag"), tmp_path / name)
        raw = bytearray((out / name).read_bytes())
        raw[-9] ^= 1
        (out / name).write_bytes(raw)
        with pytest.raises(ValueError, match=f"{name}"):
            fastpop.open_export(out)


def test_what_is_wrong_is_named(runs, tmp_path):
    with pytest.raises(ValueError, match=r"format: expected one of 'safetensors', 'onnx', 'torch\.export'"):
        fastpop.export(runs("bag"), tmp_path / "out", "pickle")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("x")
    with pytest.raises(FileExistsError, match="mine, which holds something else"):
        fastpop.export(runs("bag"), tmp_path / "mine")
    with pytest.raises(ValueError, match=r"path: expected a folder that fastpop\.export wrote"):
        fastpop.open_export(tmp_path / "mine")
    opened = fastpop.open_export(fastpop.export(runs("sasrec"), tmp_path / "out"))
    for asked, message in (
        (np.zeros((2, 7), int), "asked: expected at most 6 items a history"),
        (np.zeros(2, int), r"asked: expected shape \[B, L\]"),
        (np.full((2, 3), 1000), r"asked: expected ids in \[0, 39\)"),
    ):
        with pytest.raises(ValueError, match=message):
            opened.scores(asked)
    users = fastpop.open_export(fastpop.export(runs("factor"), tmp_path / "users"))
    with pytest.raises(ValueError, match="users: expected ids of users, whose vectors the encoder has"):
        users.recommend(histories=[[3]])


def test_an_encoder_that_no_graph_holds_says_why(tmp_path):
    result = trained("bag")
    result.model.encoder.forward = lambda user_B, history_BL, item_VD: item_VD[history_BL.tolist()[0]][None]
    with pytest.raises(NotImplementedError, match="format: expected one that can hold the encoder 'bag'"):
        fastpop.export(result, tmp_path / "out", "torch.export")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("package", ["onnx", "onnxscript"])
def test_onnx_is_asked_for_before_any_work(package, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match=rf"needs the package '{package}', .*pip install 'fastpop\[onnx\]'"):
        fastpop.export("no run", tmp_path / "out", "onnx")
