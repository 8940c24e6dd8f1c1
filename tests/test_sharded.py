"""Tables sharded over processes by FSDP2: steps on parts, clipping, and what refuses them."""

import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.parametrize("world", [1, 2])
def test_processes_with_parts_of_a_table(world, tmp_path):
    worker = Path(__file__).with_name("helpers_sharded.py")
    started = [
        subprocess.Popen(
            [sys.executable, str(worker), str(rank), str(world), str(tmp_path / "store")],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(world)
    ]
    try:
        said = [process.communicate(timeout=240)[0] for process in started]
    finally:
        for process in started:
            process.kill()
    for process, words in zip(started, said):
        assert process.returncode == 0, words
        assert words.endswith("fine\n"), words
