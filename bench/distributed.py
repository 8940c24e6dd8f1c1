"""What processes that share a catalogue send, how long it takes here, and what that gives for many.

    python -P bench/distributed.py --out bench/records/NAME.json    # measures 2 and 4 processes here
    python -P bench/distributed.py --count bench/records/NAME.json  # its bytes alone, counted anew
    python -P bench/distributed.py --read bench/records/NAME.json   # the tables of docs/distributed.md

1. Bytes that a process sends in a training step, counted (`ops.collectives.counted`) and by formula.
2. Seconds of each collective over sizes; alpha (a message) and beta (a byte) by least squares.
3. The plan: a step on N processes by the model  t = alpha * messages + beta * bytes + FLOPs / rate.

Collectives here are gloo's over the loopback of one machine, whose cores the processes share: their alpha
and beta say how the fit is made, not what a network does. `--alpha --beta --rate` of another give its plan.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

COUNT_ALONE = "FASTPOP_COUNT_ALONE"  # in a worker's environment: nothing is timed
SIZES = [1 << power for power in (10, 13, 16, 18, 20, 22)]  # bytes a process brings
ROUNDS = {
    "sum": lambda n: 2 * (n - 1),
    "gather": lambda n: n - 1,
    "own sums": lambda n: n - 1,
    "exchange": lambda n: n - 1,
}
ORDER = ("gather", "max", "sum", "own sums", "exchange")
# What is counted beside the sampled softmax, whose rows are 64 a process.
CASES: dict[str, dict[str, Any]] = {
    "bpr": {"loss": "bpr"},
    "gbce": {"loss": "gbce"},
    "top1": {"loss": "top1"},
    "l2": {"regularizers": "l2", "num_negatives": 64},
    "uniformity": {"regularizers": "uniformity", "num_negatives": 64},
    "entmax": {"loss": "entmax"},
    "importance": {"loss": "importance_sampling"},
    "cosreg": {"regularizers": "cosreg", "num_negatives": 64},
    "resn": {"regularizers": "resn", "num_negatives": 64},
    "linear": {"item_tower": "linear", "num_negatives": 64},
    "lightgcn": {"encoder": "lightgcn", "num_negatives": 64},
}
NAMES_IDS = ("bpr", "gbce", "top1", "l2", "uniformity")
BESIDE_A_SOFTMAX = ("l2", "uniformity", "cosreg", "resn", "linear", "lightgcn")
LAYERS = 3  # of lightgcn
BLOCK = 256  # of importance sampling, which takes one at a model's start
SHAPE = {"V": 10_000_000, "D": 64, "b": 512, "K": 8192, "P": 200_000}  # the plan's; b rows a process


def sent(n: int, size: float, name: str) -> float:
    """Bytes that each of n processes sends, ring algorithms; size: of what one brings."""
    ring = (n - 1) / n
    return {"sum": 2 * ring, "gather": n - 1, "own sums": ring, "exchange": ring}[name] * size


def step_bytes(n: int, b: int, dim: int, encoder: int, rows: int = 0) -> dict[str, float]:
    """Of a step with b queries of each of n processes, float32: by collective. encoder: its dense parameters.
    rows: gradient rows that a process brings to tables that are whole everywhere (users)."""
    return {
        # queries, targets, numbers of rows; the upstream gradients of lse and positive
        "gather": (n - 1) * (4 * b * dim + 8 * b + 8 + 8 * b + (rows and 8 + rows * (8 + 4 * dim))),
        "max": sent(n, 4 * n * b, "sum"),  # of every row the largest,
        # the sums; the encoder's gradient; the loss, told
        "sum": sent(n, 8 * n * b, "sum") + sent(n, 4 * encoder, "sum") + sent(n, 8, "sum"),
        "own sums": sent(n, 4 * n * b * dim, "own sums"),  # gradients of queries
    }


def other_step_bytes(
    n: int, b: int, dim: int, encoder: int, case: str, elsewhere: float, *, users: int = 0, rounds: int = 0
) -> dict[str, float]:
    """As `step_bytes`, of a loss, a regulariser, an item tower or an encoder of `CASES`. elsewhere: different
    ids that a process names and others have the rows of, the mean over processes. users: those of the log,
    whose gradients are then dense, and counted in `encoder`; 0: they are rows. rounds: of entmax."""
    rows = 0 if users else b
    found = {
        "gather": (n - 1) * (rows and 8 + rows * (8 + 4 * dim)),
        "max": 0.0,
        "sum": sent(n, 4 * encoder, "sum") + sent(n, 8, "sum"),
        "own sums": 0.0,
        # ids there, rows back, gradients there; how many
        "exchange": elsewhere * (8 + 8 * dim) + 8 * (n - 1) if case in NAMES_IDS else 0.0,
    }
    if case in BESIDE_A_SOFTMAX:
        found = step_bytes(n, b, dim, encoder, rows=rows) | {"exchange": found["exchange"]}
    if case in ("bpr", "gbce"):
        found["gather"] += (n - 1) * 8  # numbers of rows
    if case == "top1":
        found["gather"] += (n - 1) * (8 + 8 * b + 8)  # positives, and where this process's stand
    if case == "uniformity":
        found["gather"] += (n - 1) * (8 + 4 * b * dim + 8 + 8 * b)  # queries and positives
        found["own sums"] += sent(n, 4 * n * b * dim, "own sums")
    if case in ("entmax", "importance"):
        # queries, positives, numbers of rows; what comes from above of each row
        found["gather"] += (n - 1) * (4 * b * dim + 8 * b + 8 + 4 * b)
        found["own sums"] += sent(n, 4 * n * b * dim, "own sums")
    if case == "entmax":
        found["max"] += sent(n, 4 * n * b, "sum")
        # two numbers a round, float64, and the positive's score; the loss
        found["sum"] += sent(n, 8 * (2 * rounds + 1) * n * b, "sum") + sent(n, 4 * n * b, "sum")
    if case == "importance":  # of a block: the largest and two sums; the loss likewise; the draws' shares
        found["max"] += 2 * sent(n, 4 * n * b, "sum")
        found["sum"] += 2 * sent(n, 8 * n * b, "sum") + sent(n, 8 * BLOCK, "sum")
    if case == "cosreg":
        found["sum"] += 2 * sent(n, 4 * dim, "sum")
    if case == "resn":
        found["gather"] += (n - 1) * 8
        found["sum"] += 2 * sent(n, 8 * dim * dim, "sum")
    if case == "lightgcn":
        found["sum"] += 2 * LAYERS * sent(n, 4 * users * dim, "sum")
    return found


def messages(n: int) -> int:
    """Of a step's collectives one after the other, rings."""
    return 4 * (n - 1) + 4 * ROUNDS["sum"](n) + ROUNDS["own sums"](n)


def worker(rank: int, world: int, store: str, out: str) -> None:
    import torch
    import torch.distributed as dist

    from fastpop.ops import collectives

    torch.set_num_threads(1)
    dist.init_process_group("gloo", rank=rank, world_size=world, store=dist.FileStore(store, world))
    found: dict[str, Any] = {"seconds": [], "bytes": counted_step(world)}
    found["cases"] = [counted_case(world, rank, case) for case in CASES]
    equal = [1] * world
    for size in SIZES if world > 1 and not os.environ.get(COUNT_ALONE) else ():
        row = torch.zeros(1, size // 4)
        many = torch.zeros(world, max(size // 4 // world, 1))
        for name, call, given in (
            ("sum", collectives.total, (row, None)),
            ("gather", collectives.gathered, (row, None, None)),
            ("own sums", collectives.own_sums, (many, equal, None)),
            ("exchange", collectives.exchanged, (many, equal, equal, None)),
        ):
            took = []
            for _ in range(12):
                dist.barrier()
                start = time.perf_counter()
                call(*given)
                took.append(time.perf_counter() - start)
            found["seconds"].append([world, name, size, statistics.median(took[2:])])
    if rank == 0:
        Path(out).write_text(json.dumps(found))
    dist.destroy_process_group()


def counted_step(world: int) -> dict[str, Any]:
    """A step of the trainer, its bytes counted, beside the formula."""
    import numpy as np

    import fastpop
    from fastpop.ops import collectives
    from fastpop.training import TrainConfig, assemble, train_step

    rng = np.random.default_rng(0)
    log = fastpop.Interactions.from_arrays(rng.integers(0, 300, 4000), rng.integers(0, 500, 4000))
    config = TrainConfig(encoder="factor", dim=16, batch_size=64 * world, num_negatives=64)
    parts = assemble(config, log, log, np.log(log.item_counts() / 4000))
    batch = next(iter(parts.batches.epoch(0)))
    train_step(parts, batch, 0)
    with collectives.counted() as traffic:
        train_step(parts, batch, 1)
    dense = sum(p.numel() for p in parts.model.parameters() if p.grad is not None and not p.grad.is_sparse)
    formula = step_bytes(world, 64, 16, dense, rows=64)
    return {
        "processes": world,
        "counted": dict(traffic.bytes),
        "formula": {k: round(v) for k, v in formula.items()},
    }


def counted_case(world: int, rank: int, case: str) -> dict[str, Any]:
    """A step of the trainer with one of `CASES`: the mean over processes of its bytes, beside the formula."""
    import numpy as np
    import torch

    import fastpop
    from fastpop.ops import collectives
    from fastpop.ops.draw import Draw
    from fastpop.ops.row_shard import even_rows
    from fastpop.training import TrainConfig, assemble, train_step

    rng, num_items = np.random.default_rng(0), 500
    log = fastpop.Interactions.from_arrays(rng.integers(0, 300, 4000), rng.integers(0, num_items, 4000))
    num_items = log.num_items
    config = TrainConfig(**{"encoder": "factor"} | CASES[case], dim=16, batch_size=64 * world)
    parts = assemble(config, log, log, np.log(log.item_counts() / 4000))
    batch = next(iter(parts.batches.epoch(0)))
    train_step(parts, batch, 0)
    with collectives.counted() as traffic:
        train_step(parts, batch, 1)
    first, last = even_rows(len(batch.target), world, rank)
    own = torch.from_numpy(batch.target[first:last].astype(np.int64))
    named = {"l2": [own], "uniformity": [torch.from_numpy(batch.target.astype(np.int64))]}.get(case, [own])
    if case in ("bpr", "gbce", "top1"):
        loss, shared = parts.loss, case == "top1"
        draw = Draw(loss.drawn, loss.seed, 1, loss.num_negatives, None if shared else 1)
        ids = draw.tensor(len(batch.target))
        named.append(ids if shared else ids[first:last])
        named += [torch.from_numpy(batch.target.astype(np.int64))] if shared else []
    ids = torch.cat([one.reshape(-1) for one in named]).unique()
    low, high = even_rows(num_items, world, rank)
    elsewhere = collectives.counts(int(((ids < low) | (ids >= high)).sum()), None)
    sent_here = collectives.gathered(torch.tensor([[traffic.bytes[name] for name in ORDER]]), None, None)
    dense = [p for p in parts.model.parameters() if p.grad is not None and not p.grad.is_sparse]
    dense = [p for p in dense if world == 1 or not parts.ranks.is_shared(parts.model, p)]
    more = {
        "encoder": sum(p.numel() for p in dense),
        "users": log.num_users if any(len(p) == log.num_users for p in dense) else 0,
        "rounds": traffic.calls["sum"] - 3 if case == "entmax" else 0,  # beside the loss's and the step's
    }
    formula = other_step_bytes(
        world, 64, 16, case=case, elsewhere=sum(elsewhere) / world if case in NAMES_IDS else 0, **more
    )
    return {
        "processes": world,
        "case": case,
        "elsewhere": sum(elsewhere) / world if case in NAMES_IDS else 0,
        **more,
        "counted": dict(zip(ORDER, sent_here.double().mean(0).round().int().tolist())),
        "formula": {name: round(formula.get(name, 0)) for name in ORDER},
    }


def measure(worlds: list[int]) -> dict[str, Any]:
    record: dict[str, Any] = {
        "machine": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "load": os.getloadavg()[0],
        "seconds": [],
        "bytes": [],
        "cases": [],
    }
    for world in worlds:
        with tempfile.TemporaryDirectory() as folder:
            out = f"{folder}/found.json"
            command = [sys.executable, "-P", __file__, "--worker", str(world), f"{folder}/store", out]
            started = [
                subprocess.Popen(command, env=os.environ | {"RANK": str(rank)}) for rank in range(world)
            ]
            try:
                for process in started:
                    if process.wait(timeout=300):
                        raise SystemExit("a process failed")
            finally:
                for process in started:
                    process.kill()
            found = json.loads(Path(out).read_text())
        record["seconds"] += found["seconds"]
        record["bytes"].append(found["bytes"])
        record["cases"] += found["cases"]
    if record["seconds"]:
        record["fit"] = fitted(record["seconds"])
    return record


def fitted(seconds: list[list[Any]]) -> dict[str, float]:
    """alpha in seconds a message, beta in seconds a byte, and the median relative error of the model."""
    import numpy as np

    table = np.array([[ROUNDS[name](n), sent(n, size, name)] for n, name, size, _ in seconds])
    took = np.array([one[3] for one in seconds])
    weight = 1 / took  # relative errors count
    solution = np.linalg.lstsq(table * weight[:, None], took * weight, rcond=None)[0]
    alpha, beta = (max(float(one), 0.0) for one in solution)
    error = np.abs(table @ [alpha, beta] / took - 1)
    return {"alpha": alpha, "beta": beta, "error": float(np.median(error))}


def plan(alpha: float, beta: float, rate: float, shape: dict[str, int] = SHAPE) -> list[dict[str, float]]:
    """A step of N processes with b rows each: the catalogue over all of them, or over groups of 8."""
    lines = []
    for power in range(11):
        n = 1 << power
        group = min(n, 8)
        line: dict[str, float] = {"processes": n}
        for name, size in (("all", n), ("groups of 8", group)):
            traffic = sum(step_bytes(size, shape["b"], shape["D"], shape["P"] if size == n else 0).values())
            count = messages(size)
            if size < n:  # between groups: the encoder's gradient, and gradient rows of a part
                rows = min(shape["K"] + shape["b"] * size, shape["V"]) / size
                traffic += sent(n, 4 * shape["P"], "sum") + (n // size - 1) * rows * (8 + 4 * shape["D"])
                count += ROUNDS["sum"](n) + n // size - 1
            flops = 8 * shape["b"] * shape["K"] * shape["D"]  # forward and backward, b n rows times K / n
            line |= {
                f"bytes, {name}": traffic,
                f"seconds, {name}": alpha * count + beta * traffic + flops / rate,
                f"table bytes, {name}": 4 * shape["V"] * (shape["D"] + shape["D"] + 3) / size,
            }
        lines.append(line)
    return lines


def tables(record: dict[str, Any], alpha: float | None, beta: float | None, rate: float) -> str:
    text = ["| processes | collective | bytes sent, counted | by formula |", "|---|---|---|---|"]
    for one in record["bytes"]:
        for name, value in one["formula"].items():
            if one["processes"] > 1:
                text.append(f"| {one['processes']} | {name} | {one['counted'].get(name, 0):,} | {value:,} |")
    text += [
        "",
        "| processes | with | ids elsewhere | bytes sent, counted | by formula |",
        "|---|---|---|---|---|",
    ]
    for one in record["cases"]:
        if one["processes"] > 1:
            counted, formula = sum(one["counted"].values()), sum(one["formula"].values())
            name = one["case"] + (f", {one['rounds']} rounds" if one["rounds"] else "")
            line = f"{one['processes']} | {name} | {one['elsewhere']:,.1f} | {counted:,} | {formula:,}"
            text.append(f"| {line} |")
    fit = record["fit"]
    text += [
        "",
        f"alpha {fit['alpha'] * 1e6:.0f} us a message, beta {1e-9 / fit['beta']:.2f} GB/s, "
        f"median error of the model {fit['error']:.0%}",
        "",
    ]
    text += [
        "| processes | MB a step, all | ms | MB, groups of 8 | ms | GB of table, all | groups of 8 |",
        "|---|---|---|---|---|---|---|",
    ]
    for line in plan(fit["alpha"] if alpha is None else alpha, fit["beta"] if beta is None else beta, rate):
        cells = [f"{line['processes']:,.0f}"]
        for name in ("all", "groups of 8"):
            cells += [f"{line[f'bytes, {name}'] / 1e6:,.1f}", f"{line[f'seconds, {name}'] * 1e3:,.2f}"]
        cells += [f"{line[f'table bytes, {name}'] / 1e9:,.2f}" for name in ("all", "groups of 8")]
        text.append("| " + " | ".join(cells) + " |")
    return "\n".join(text)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--worker", nargs=3, help=argparse.SUPPRESS)
    parser.add_argument("--processes", type=int, nargs="+", default=[2, 4])
    parser.add_argument("--out", type=Path)
    parser.add_argument("--read", type=Path)
    parser.add_argument("--count", type=Path, help="a record, whose bytes are counted anew")
    parser.add_argument("--alpha", type=float, help="seconds a message; default: as fitted")
    parser.add_argument("--beta", type=float, help="seconds a byte")
    parser.add_argument("--rate", type=float, default=50e12, help="FLOP/s of a process")
    given = parser.parse_args()
    if given.worker:
        world, store, out = given.worker
        worker(int(os.environ["RANK"]), int(world), store, out)
        return
    if given.count:
        os.environ[COUNT_ALONE] = "1"
        counted = measure(given.processes)
        fresh = {name: counted[name] for name in ("bytes", "cases")}
        given.count.write_text(json.dumps(json.loads(given.count.read_text()) | fresh, indent=1) + "\n")
        given.read = given.count
    record = json.loads(given.read.read_text()) if given.read else measure(given.processes)
    if given.out:
        given.out.write_text(json.dumps(record, indent=1) + "\n")
    print(tables(record, given.alpha, given.beta, given.rate))


if __name__ == "__main__":
    main()
