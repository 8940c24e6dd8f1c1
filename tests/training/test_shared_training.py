"""Runs that several processes make together are those of one process."""

import json

import helpers_shared_training
import numpy as np
import pytest
from helpers_ranks import run_workers

import fastpop
from fastpop.training import checkpoint

WORKER = "helpers_shared_training.py"


def told(said):
    """name -> (history, metrics), which every process has alike."""
    every = [json.loads(words.splitlines()[-2]) for words in said]
    for found in every:
        for name, one in found.items():
            assert strip(one["history"]) == strip(every[0][name]["history"])
            assert one["metrics"] == every[0][name]["metrics"]
    return every[0]


def strip(history):
    return [{k: v for k, v in row.items() if k not in ("seconds", "examples_per_second")} for row in history]


def assert_alike(found, expected, rtol, name=""):
    assert len(found) == len(expected)
    for row, wanted in zip(strip(found), strip(expected)):
        assert row.keys() == wanted.keys()
        np.testing.assert_allclose(row["loss"], wanted["loss"], rtol=rtol, err_msg=name)
        assert row["step"] == wanted["step"]


def test_two_processes_make_the_runs_of_one(tmp_path, one_thread):
    names, out = list(helpers_shared_training.RUNS), tmp_path / "out"
    runs = told(run_workers(WORKER, 2, tmp_path, str(out), "2", *names))
    for name in names:
        alone = helpers_shared_training.run(name, None, 2)
        history, metrics = runs[name]["history"], runs[name]["metrics"]
        assert_alike(history[:1], alone.history[:1], rtol=1e-6)
        assert_alike(history, alone.history, rtol=1e-5)
        assert metrics.keys() == alone.metrics.keys()
        np.testing.assert_allclose(metrics["nll"], alone.metrics["nll"], rtol=1e-4)
        # What was written is a run like any other, and judges as it was judged.
        loaded = fastpop.load(out / name)
        found = loaded.evaluate().metrics
        for metric, value in metrics.items():
            rtol = 1e-5 if metric in ("nll", "perplexity") else 1e-12
            np.testing.assert_allclose(found[metric], value, rtol=rtol, err_msg=metric)
        items = [run.model.decoder.item_embedding.detach() for run in (loaded, alone)]
        np.testing.assert_allclose(*items, atol=2e-4)
        assert loaded.audit(permutations=20).energy_total > 0
    # One process goes on from what two wrote.
    name = "sasrec"
    assert len(list(checkpoint.latest(out / name).glob("shard-*.safetensors"))) == 2
    alone = helpers_shared_training.run(name, out / name, 3, resume=True)
    assert_alike(alone.history, helpers_shared_training.run(name, None, 3).history, rtol=1e-5)
    assert not list(checkpoint.latest(out / name).glob("shard-*"))


QUICK = (
    "bpr",
    "dice",
    "gbce",
    "pda",
    "top1_max",
    "in batch",
    "importance",
    "by-period-full",
    "partitioned",
    "of a batch",
    "with noise",
    "stepped factor",
    "of all items",
    "linear",
    "lightgcn",
)
OTHERS = [
    *helpers_shared_training.LOSSES,
    *helpers_shared_training.REGULARIZERS,
    *helpers_shared_training.IN_BACKWARD,
    *helpers_shared_training.WHOLE_TABLES,
]


@pytest.mark.parametrize(
    ("world", "names"),
    [
        (3, QUICK[:7]),
        (2, QUICK[7:]),
        *(pytest.param(n, tuple(OTHERS), marks=pytest.mark.slow) for n in (2, 3)),
    ],
    ids=["losses", "rows", "all of two", "all of three"],
)
def test_losses_and_regularizers_are_those_of_one_process(world, names, tmp_path, one_thread):
    runs = told(run_workers(WORKER, world, tmp_path, str(tmp_path / "out"), "1", *names, timeout=900))
    for name in names:
        alone = helpers_shared_training.run(name, None, 1)
        history, metrics = runs[name]["history"], runs[name]["metrics"]
        assert_alike(history, alone.history, rtol=1e-6, name=name)
        assert metrics.keys() == alone.metrics.keys()
        loaded = fastpop.load(tmp_path / "out" / name)
        items = [run.model.decoder.item_embedding.detach() for run in (loaded, alone)]
        np.testing.assert_allclose(*items, atol=2e-4, err_msg=name)


@pytest.mark.slow
def test_views_that_differ_in_dropout_are_contrasted_over_all_rows(tmp_path, one_thread):
    """Masks are a process's own, so the loss is near that of one process, and alike on both."""
    found = told(run_workers(WORKER, 2, tmp_path, str(tmp_path / "out"), "1", "duorec"))["duorec"]
    alone = helpers_shared_training.run("duorec", None, 1)
    assert_alike(found["history"], alone.history, rtol=0.01)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["sasrec", "importance", "lightgcn"])
def test_a_run_goes_on_with_another_number_of_processes(name, tmp_path, one_thread):
    out = tmp_path / "out"
    whole = helpers_shared_training.run(name, None, 4)
    for epochs, world in ((1, 2), (2, 3)):
        (tmp_path / str(world)).mkdir()
        run_workers(WORKER, world, tmp_path / str(world), str(out), str(epochs), name)
        assert len(list(checkpoint.latest(out / name).glob("shard-*.safetensors"))) == world
    alone = helpers_shared_training.run(name, out / name, 3, resume=True)
    assert_alike(alone.history, whole.history[:3], rtol=1e-5)
    runs = told(run_workers(WORKER, 2, tmp_path, str(out), "4", name))
    assert_alike(runs[name]["history"], whole.history, rtol=1e-5)
