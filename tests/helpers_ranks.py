"""Tests of several processes: a worker file of this folder, once a process, on gloo, met in a file."""

import subprocess
import sys
from pathlib import Path

import torch
import torch.distributed as dist


def run_workers(worker: str, world: int, folder: Path, *words: str, timeout: float = 240) -> list[str]:
    """What each process of `python WORKER RANK WORLD STORE WORDS` printed, which ends with "fine"."""
    path = Path(__file__).with_name(worker)
    started = [
        subprocess.Popen(
            [sys.executable, str(path), str(rank), str(world), str(folder / "store"), *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(world)
    ]
    try:
        said = [process.communicate(timeout=timeout)[0] for process in started]
    finally:
        for process in started:
            process.kill()
    for process, words_of in zip(started, said):
        assert process.returncode == 0, "\n---\n".join(said)
        assert words_of.endswith("fine\n"), words_of
    return said


def join(argv: list[str]) -> tuple[int, int]:
    """(rank, world) of a worker, in its process group."""
    rank, world, store = int(argv[1]), int(argv[2]), argv[3]
    torch.set_num_threads(1)
    dist.init_process_group("gloo", rank=rank, world_size=world, store=dist.FileStore(store, world))
    return rank, world
