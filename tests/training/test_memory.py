"""A run that does not fit is refused before anything is made, by numbers that a run then takes."""

import json
import re
import subprocess
import sys

import numpy as np
import pytest
import torch
from helpers_logs import small_log
from helpers_ranks import run_workers

import fastpop
from fastpop import pages, registry
from fastpop.data import Interactions
from fastpop.priors import ByPeriod
from fastpop.training import TrainConfig, build, memory

GIB = 1 << 30
QUICK = {"dim": 8, "epochs": 1, "num_negatives": 16, "batch_size": 128, "progress": False}
MEASURE = """
import json, sys
import numpy as np
import fastpop
from fastpop.data import Interactions
from fastpop.training import TrainConfig, memory

asked = json.loads(sys.argv[1])
num_items, num_users, num_events = (asked.pop(name) for name in ("items", "users", "events"))
rng = np.random.default_rng(0)
user = np.sort(rng.integers(0, num_users, num_events))
item = (num_items * rng.random(num_events) ** 3).astype(np.int64)
ids = {"user_ids": np.arange(num_users), "item_ids": np.arange(num_items)}
log = Interactions.from_arrays(user, item, np.arange(num_events), **ids)
few = Interactions.from_arrays(user[:100], item[:100] % 50, np.arange(100))
options = {"epochs": 1, "split": "none", "num_negatives": 256, "progress": False, **asked}
fastpop.train(few, **{**options, "dim": 8})  # what is loaded and compiled once


def status(name):
    lines = open("/proc/self/status").read().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(name))


before = status("VmRSS")
open("/proc/self/clear_refs", "w").write("5")  # the high-water mark starts anew
fastpop.train(log, **options)
took = status("VmHWM") - before
config = TrainConfig(**{key: value for key, value in options.items() if key != "progress"})
print(json.dumps([took, memory.needed(config, log).total]))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads the high-water mark of Linux")
@pytest.mark.parametrize(
    "asked",
    [
        {"items": 600_000, "users": 20_000, "events": 100_000, "dim": 64},
        {"items": 800_000, "users": 20_000, "events": 100_000, "dim": 64, "table_optimizer": "row_adagrad"},
        pytest.param(
            {"items": 100_000, "users": 600_000, "events": 600_000, "dim": 64, "batch_size": 8192},
            marks=pytest.mark.slow,
        ),
        pytest.param(
            {"items": 800_000, "users": 20_000, "events": 100_000, "dim": 64, "table_optimizer": "adam"},
            marks=pytest.mark.slow,
        ),
        pytest.param(
            {"items": 4_000_000, "users": 20_000, "events": 200_000, "dim": 64}, marks=pytest.mark.slow
        ),
        pytest.param(
            {"items": 4_000_000, "users": 20_000, "events": 200_000, "dim": 16}, marks=pytest.mark.slow
        ),
    ],
    ids=lambda asked: " ".join(map(str, asked.values())),
)
def test_what_a_run_takes_is_what_was_counted(asked):
    done = subprocess.run(
        [sys.executable, "-P", "-c", MEASURE, json.dumps(asked)], capture_output=True, text=True, check=True
    )
    took, needed = json.loads(done.stdout)
    print(f"{asked}: counted {needed >> 20:,} MiB, took {took >> 20:,}")  # pytest -s: docs/performance.md
    assert needed == pytest.approx(took, rel=0.1)


@pytest.mark.skipif(sys.platform != "linux", reason="reads the high-water mark of Linux")
@pytest.mark.parametrize(
    ("optimizer", "has_folder"),
    [
        ("row_adam", True),
        *(pytest.param(*one, marks=pytest.mark.slow) for one in (("row_adagrad", True), ("row_adam", False))),
    ],
)
def test_each_of_two_processes_takes_what_was_counted(optimizer, has_folder, tmp_path):
    """Its rows of the table, never all of them: with a folder not when it is written, either."""
    asked = {"items": 1_200_000, "users": 20_000, "events": 100_000, "dim": 64, "table_optimizer": optimizer}
    folder = str(tmp_path / "out") if has_folder else "none"
    for words in run_workers("helpers_shared_memory.py", 2, tmp_path, folder, json.dumps(asked)):
        took, needed = json.loads(words.splitlines()[-2].partition("]")[0] + "]")
        print(f"{asked}: counted {needed >> 20:,} MiB, took {took >> 20:,}")
        assert needed == pytest.approx(took, rel=0.1)


def test_several_processes_share_what_their_host_has(monkeypatch):
    log = small_log()
    config = TrainConfig(dim=1024)
    alone, of_three = memory.needed(config, log).parts, memory.needed(config, log, processes=3).parts
    rows = memory.table_rows(config, log)
    assert alone["tables"] == 4 * 1024 * sum(rows.values())
    assert of_three["tables"] == 4 * 1024 * (-(-rows["items"] // 3) + rows["encoder"])
    assert (alone["result"], of_three["result"]) == (0, 4 * 1024 * rows["items"])
    need = memory.needed(config, log, kept_in_memory=False, processes=3)
    monkeypatch.setattr(memory, "free", lambda device: 2 * (need.total + memory.SPARE))
    given = {"kept_in_memory": False, "processes": 3}
    memory.check(config, log, beside=2, **given)
    with pytest.raises(MemoryError, match="GiB are free on cpu for each of 3 processes here"):
        memory.check(config, log, beside=3, **given)


def test_a_run_that_does_not_fit_is_refused_with_what_to_change(monkeypatch, tmp_path):
    monkeypatch.setattr(memory, "free", lambda device: int(2.4 * GIB))
    log = small_log()
    num_items = 4_000_000
    large = Interactions.from_arrays(
        np.asarray(log.user), np.asarray(log.item) * 1000, log.time, item_ids=np.arange(num_items)
    )
    out = tmp_path / "run"
    with pytest.raises(MemoryError) as error:
        fastpop.train(large, dim=64, split="none", out=out, progress=False)
    said = str(error.value)
    assert re.match(
        r"memory: training needs 2\.4\d GiB \(tables 0\.95, optimizer 1\.00, counts 0\.46, ", said
    )
    assert said.endswith("2.40 GiB are free on cpu. With table_optimizer='row_adagrad' it needs 1.44")
    assert not out.exists()
    with pytest.raises(MemoryError, match=r"With dim=32 it needs 1\."):
        fastpop.train(large, dim=1024, split="none", progress=False)
    monkeypatch.setattr(memory, "free", lambda device: 1)
    with pytest.raises(MemoryError, match="needs a larger machine, or fewer items"):
        fastpop.compare(log, seeds=1, **QUICK)
    monkeypatch.setattr(memory, "free", lambda device: None)  # where the system does not say
    fastpop.train(log, **QUICK)


@pytest.mark.parametrize("encoder", ["factor", "bag", "sasrec", "gru4rec", "lightgcn", "bert4rec"])
def test_rows_of_tables_are_those_of_the_model(encoder):
    log = small_log()
    config = build.bounded(TrainConfig(encoder=encoder, dim=8), log)
    with torch.random.fork_rng():
        before = torch.random.get_rng_state()
        counted = memory.table_rows(config, log)
        assert torch.equal(torch.random.get_rng_state(), before)
    model = build.build_model(config, log, np.zeros(log.num_items), log)
    made = sum(table.shape[0] for table in model.encoder.tables())
    assert counted == {"items": log.num_items, "encoder": made}


def test_no_advice_is_given_that_the_encoder_does_not_take(monkeypatch):
    monkeypatch.setattr(memory, "free", lambda device: memory.SPARE)
    three = TrainConfig(encoder=registry.made("encoder", "sasrec", options={"num_heads": 3}), dim=96)
    with pytest.raises(MemoryError, match="It needs a larger machine"):
        memory.check(three, small_log())


@pytest.mark.parametrize(("options", "periods"), [({"periods": 7}, 7), ({"width": 100}, 9), ({}, 12)])
def test_periods_of_log_p_are_counted(options, periods):
    log = small_log()  # 900 events, a second apart
    counted = memory.needed(TrainConfig(prior=ByPeriod(**options)), log).parts["periods"]
    assert counted == memory.PERIOD * log.num_items * periods
    assert memory.needed(TrainConfig(), log).parts["periods"] == 0


def test_a_container_s_limit_counts(tmp_path):
    files = {"memory.max": "1000\n", "memory.current": "700\n", "memory.stat": "anon 1\ninactive_file 50\n"}
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    assert pages._group(tmp_path) == [350]
    (tmp_path / "memory.max").write_text("max\n")
    assert pages._group(tmp_path) == []
    assert pages._group(tmp_path / "none") == []
