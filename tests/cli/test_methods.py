"""Every loss and regulariser of ours on the bundled log, from the command line to a loaded run."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

import fastpop
from fastpop import registry

# Options that make a step small; the rest is as it comes.
SMALLER = {
    "gbce": ["--loss.negatives", "16"],
    "bpr_max": ["--loss.negatives", "64"],
    "top1": ["--loss.negatives", "64"],
    "top1_max": ["--loss.negatives", "64"],
    "importance_sampling": ["--loss.most", "512"],
}
OURS = [
    (kind, name)
    for kind in ("loss", "regularizer")
    for name in registry.all_of(kind)
    if registry.is_ours(kind, name)
]


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "name"), OURS, ids=[name for _, name in OURS])
def test_it_trains_on_the_bundled_log(kind, name, tmp_path):
    pytest.importorskip("duckdb", reason="duckdb, which reads logs, is not installed")
    option = "--loss" if kind == "loss" else "--regularizers"
    words = [option, name, *SMALLER.get(name, []), "--encoder", "bag", "--prior", "none"]
    size = ["--epochs", "1", "--dim", "8", "--batch-size", "512", "--num-negatives", "64"]
    done = subprocess.run(
        [
            Path(sys.executable).parent / "fastpop",
            "train",
            "bundled",
            "--out",
            tmp_path / "run",
            *words,
            *size,
        ],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    kept = json.loads((tmp_path / "run" / "config.json").read_text())
    assert name in json.dumps(kept)
    loaded = fastpop.load(tmp_path / "run")
    assert 0 < loaded.metrics["ndcg@10"] < 1
