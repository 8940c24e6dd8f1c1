"""How time and memory of a sampled-softmax step grow with V, B, K and D: python bench/sweep.py [FILE].

Writes one record (bench/records/sweep.json by default), which docs/performance_pictures.py draws. Ours
and the peers take turns within each point; a point is the median of several rounds.
"""

import json
import platform
import sys
import time
from functools import partial
from pathlib import Path

import torch
from bench_sampled_softmax import eager, torch_way
from measuring import ceilings, memory_of
from tqdm import tqdm

from fastpop import Draw, ops, popularity

BASE = {"items": 1_000_000, "rows": 4096, "negatives": 4096, "dim": 64}
AXES = {
    "items": (10_000, 100_000, 1_000_000, 10_000_000),
    "rows": (256, 1024, 4096, 16_384),
    "negatives": (256, 1024, 4096, 16_384),
    "dim": (16, 32, 64, 128, 256),
}
ROUNDS = 7
# A dense gradient of a larger table takes seconds and gigabytes a step.
MOST_DENSE = 70_000_000


class Point:
    """One size, and what each contender does there."""

    def __init__(self, items: int, rows: int, negatives: int, dim: int):
        generator = torch.Generator().manual_seed(0)
        self.query = (0.3 * torch.randn(rows, dim, generator=generator)).requires_grad_()
        self.items = (0.3 * torch.randn(items, dim, generator=generator)).requires_grad_()
        self.pos_id = torch.randint(items, (rows,), generator=generator)
        self.draw = Draw(popularity.uniform(items), 0, 0, negatives)
        self.neg_id = self.draw.tensor(rows)[0]
        self.log_proposal = self.draw.proposal.log_proposal_on("cpu", torch.float32)
        self.group = None
        self.contenders = {
            "fastpop": self.ours,
            "torch eager, sparse gradient": partial(self.theirs, sparse=True),
        }
        if items * dim <= MOST_DENSE:
            self.contenders["torch eager, dense gradient"] = partial(self.theirs, sparse=False)

    def ours(self):
        return ops.sampled_softmax(
            self.query,
            self.items,
            self.pos_id,
            self.draw,
            accidental_hits="drop",
            sparse_grad=True,
            reduction="mean",
        )

    def theirs(self, sparse):
        function = partial(eager, sparse=sparse)
        return torch_way(self, self.query, self.items, shared=function, grouped=None).mean()

    def step(self, contender):
        self.contenders[contender]().backward()

    def forget(self):
        self.query.grad = self.items.grad = None


def measured(point: Point) -> list[dict]:
    seconds: dict[str, list[float]] = {name: [] for name in point.contenders}
    for round_number in range(ROUNDS + 1):
        for name in point.contenders:
            point.forget()  # not in the next contender's time
            start = time.perf_counter()
            point.step(name)
            if round_number:
                seconds[name].append(time.perf_counter() - start)
    found = []
    for name, values in seconds.items():
        point.forget()
        memory = memory_of(partial(point.step, name))
        found.append(
            {
                "contender": name,
                "seconds": sorted(values)[len(values) // 2],
                "peak_bytes": None if memory is None else memory[0],
            }
        )
    return found


def main(path: str) -> None:
    record = {
        "machine": platform.machine(),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "base": BASE,
        "ceilings": [ceilings()],
        "axes": {},
    }
    sizes = [(axis, size) for axis, values in AXES.items() for size in values]
    for axis, size in tqdm(sizes, desc="sizes"):
        rows = measured(Point(**BASE | {axis: size}))
        record["axes"].setdefault(axis, []).append({"size": size, "contenders": rows})
    record["ceilings"].append(ceilings())
    Path(path).write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else str(Path(__file__).parent / "records" / "sweep.json"))
