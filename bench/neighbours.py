"""Ours and torch's best beside other busy processes: how much of the quiet ratio is left.

    python bench/neighbours.py                          # all cases, some ten minutes
    python bench/neighbours.py --cases sampled,top --rounds 3 --record bench/records/neighbours.json
    python bench/neighbours.py --before FOLDER          # and another build, of pip install --target FOLDER

A round takes every neighbour in turn (none, one process that spins, two, a training run of torch on all of
its threads), and beside each every contender in turn. A figure is the median over rounds of a round's mean:
beside neighbours time comes in slices, of which a median of calls would see some and not others. Contenders
run in processes of their own, one at a time, as does what stands beside them; those that wait are stopped.
"""

import argparse
import json
import os
import platform
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

NEIGHBOURS = ("none", "spinning", "two spinning", "training")
SPIN = "while True: pass"
TRAIN = """
import torch
model = torch.nn.Sequential(torch.nn.Linear(512, 2048), torch.nn.ReLU(), torch.nn.Linear(2048, 512))
optimizer = torch.optim.Adam(model.parameters())
rows = torch.randn(1024, 512)
while True:
    optimizer.zero_grad()
    (model(rows) - rows).square().mean().backward()
    optimizer.step()
"""
SECONDS = 0.4  # of calls a contender has in a round, at least one


def cases() -> dict[str, Callable[[], dict[str, Callable[[], object]]]]:
    """A name -> what makes its contenders. Ours have names that begin with fastpop."""
    import bench_full_softmax
    import bench_row_update
    import bench_sampled_softmax
    import bench_score_energy
    import bench_target_ranks
    import bench_top_items
    import torch
    from shapes import SMALL, Energy, RowUpdate, Softmax, TargetRanks, TopItems

    def softmax(module, shape, compiled, chosen):
        case = module.case_of(shape)

        def step(function):
            query, items = case.query.detach().requires_grad_(), case.items.detach().requires_grad_()

            def run():
                query.grad = items.grad = None
                function(case, query, items).sum().backward()

            return run

        found = {name: step(module.CONTENDERS[name]) for name in chosen}
        if not SMALL:
            found["torch.compile"] = step(compiled())
        return found

    def compiled_sampled():
        function = torch.compile(partial(bench_sampled_softmax.eager, sparse=False), dynamic=False)
        groups = torch.compile(partial(bench_sampled_softmax.eager_groups, sparse=False), dynamic=False)
        return partial(bench_sampled_softmax.torch_way, shared=function, grouped=groups)

    def sampled(shape):
        chosen = ("fastpop cpu", "torch eager, sparse gradient")
        return softmax(bench_sampled_softmax, shape, compiled_sampled, chosen)

    def full(shape):
        case = bench_full_softmax.case_of(shape)
        found = {}
        for name in ("fastpop cpu", "torch eager", "torch.compile"):
            if SMALL and name == "torch.compile":
                continue
            function = bench_full_softmax.CONTENDERS[name]
            if function == "compile":
                function = partial(bench_full_softmax.eager, function=torch.compile(bench_full_softmax.plain))
            query, items = case.query.detach().requires_grad_(), case.items.detach().requires_grad_()

            def run(function=function, query=query, items=items):
                query.grad = items.grad = None
                function(case, query, items)

            found[name] = run
        return found

    def rows(shape):
        ids, gradient, _, _ = bench_row_update.gradient_of(shape)
        contenders = bench_row_update.CONTENDERS["adagrad"]
        return {
            name: contenders[name][0](torch.ones(shape.items, shape.dim), ids, gradient)
            for name in ("fastpop cpu", "torch Adagrad, sparse")
        }

    def top(shape):
        query, items, offsets, seen = bench_top_items.arrays_of(shape)
        return {
            name: partial(bench_top_items.CONTENDERS[name], query, items, shape.k, offsets, seen)
            for name in ("fastpop cpu", "torch matmul and topk, 256 rows")
        }

    def ranks(shape):
        inputs = bench_target_ranks.arrays_of(shape)
        return {
            name: partial(bench_target_ranks.CONTENDERS[name], *inputs)
            for name in ("fastpop cpu", "torch eager, 64 rows")
        }

    def energy(shape):
        inputs = bench_score_energy.arrays_of(shape)
        names = ("fastpop cpu, every score", "torch eager, 256 rows at a time")
        return {name: partial(bench_score_energy.CONTENDERS[name], *inputs) for name in names}

    if SMALL:
        tiny = Softmax(96, 200, 16, 3_000)
        return {
            "sampled fp32": partial(sampled, tiny),
            "top items": partial(top, TopItems(64, 1_000, 8, 10, 5)),
        }
    return {
        "sampled fp32": partial(sampled, Softmax(4096, 8192, 64, 100_000)),
        "sampled bf16": partial(sampled, Softmax(4096, 8192, 64, 100_000, "bfloat16")),
        "small sampled fp32": partial(sampled, Softmax(1024, 2048, 64, 100_000)),
        "sampled fp32, groups": partial(sampled, Softmax(4096, 8192, 64, 100_000, group=128)),
        "full fp32": partial(full, Softmax(1024, 0, 64, 50_000)),
        "full bf16": partial(full, Softmax(1024, 0, 64, 50_000, "bfloat16")),
        "row-wise Adagrad": partial(rows, RowUpdate(40_000, 20_000, 2_000_000, 64)),
        "top items": partial(top, TopItems(1024, 100_000, 64, 100, 20)),
        "target ranks": partial(ranks, TargetRanks(1024, 100_000, 64, 20)),
        "score energy": partial(energy, Energy(4_000, 100_000, 64)),
    }


def worker() -> None:
    """Answers lines of input: [case] with its contenders, [case, contender] with the seconds of a call."""
    import torch

    torch.set_num_threads(len(os.sched_getaffinity(0)))
    known, made = cases(), {}
    for line in sys.stdin:
        name, *contender = json.loads(line)
        if name not in made:
            made.clear()
            made[name] = known[name]()
            for function in made[name].values():
                for _ in range(3):
                    function()
        answer: object = list(made[name])
        if contender:
            function = made[name][contender[0]]
            start, calls = time.perf_counter(), 0
            while calls == 0 or time.perf_counter() - start < SECONDS:
                function()
                calls += 1
            answer = (time.perf_counter() - start) / calls
        print(json.dumps(answer), flush=True)


class Child:
    """A process that is stopped while nothing is asked of it."""

    def __init__(self, *command: str, path: str = "", **more):
        environment = dict(os.environ)
        if path:
            environment["PYTHONPATH"] = path
        self.process = subprocess.Popen([sys.executable, *command], env=environment, text=True, **more)

    def resume(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    def stop(self) -> None:
        self.process.send_signal(signal.SIGSTOP)

    def ask(self, *words: str):
        self.resume()
        self.process.stdin.write(json.dumps(words) + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        self.stop()
        if not answer:
            raise RuntimeError(f"{words}: the process ended")
        return json.loads(answer)

    def end(self) -> None:
        self.process.kill()
        self.process.wait()


def measure(
    names: list[str], rounds: int, before: str | None
) -> dict[str, dict[str, dict[str, list[float]]]]:
    """Seconds of each case, neighbour and contender, a number a round."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    asked = {"": Child(__file__, "--worker", **pipes)}
    if before:
        asked["before"] = Child(__file__, "--worker", path=before, **pipes)
    spinning, other, training = Child("-c", SPIN), Child("-c", SPIN), Child("-c", TRAIN)
    beside = {"none": [], "spinning": [spinning], "two spinning": [spinning, other], "training": [training]}
    children = [*asked.values(), spinning, other, training]
    try:
        time.sleep(10)  # until all have imported what they need
        for child in children:
            child.stop()
        found: dict[str, dict] = {}
        for name in names:
            contenders = [(label, one) for label, child in asked.items() for one in child.ask(name)
                          if not label or one.startswith("fastpop")]  # fmt: skip
            found[name] = {neighbour: {} for neighbour in NEIGHBOURS}
            for turn in range(rounds):
                for neighbour, busy in beside.items():
                    for child in busy:
                        child.resume()
                    time.sleep(0.1)
                    for label, one in contenders if turn % 2 else reversed(contenders):
                        seconds = asked[label].ask(name, one)
                        found[name][neighbour].setdefault(f"{one} {label}".strip(), []).append(seconds)
                    for child in busy:
                        child.stop()
            print(render(name, found[name]), flush=True)
        return found
    finally:
        for child in children:
            child.end()


def render(name: str, of_case: dict[str, dict[str, list[float]]]) -> str:
    """Milliseconds, the ratio of the best peer to ours, and how much of the quiet one that is."""
    lines, quiet = [f"{name}"], {}
    for neighbour, seconds in of_case.items():
        middle = {one: statistics.median(rounds) for one, rounds in seconds.items()}
        best = min((one for one in middle if not one.startswith("fastpop")), key=middle.__getitem__)
        shown = [f"{best} {1e3 * middle[best]:.4g} ms"]
        for one in middle:
            if one.startswith("fastpop"):
                ratio = middle[best] / middle[one]
                kept = ratio / quiet.setdefault(one, ratio)
                shown.append(f"{one} {1e3 * middle[one]:.4g} ms, {ratio:.3g}x ({100 * kept:.0f} %)")
        lines.append(f"  {neighbour:13} " + "; ".join(shown))
    return "\n".join(lines)


def processor() -> str:
    """Its name, and the numbers that tell which one has it."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    known = dict(line.split("\t", 1) for line in lines if "\t" in line)
    fields = {name: value.split(":", 1)[-1].strip() for name, value in known.items()}
    if "model name" not in fields:
        return platform.processor() or platform.machine()
    return f"{fields['model name']} (family {fields['cpu family']}, model {fields['model']})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--cases", help="words that the names of cases begin with, by commas")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--before", help="a folder with another build of fastpop")
    parser.add_argument("--record", type=Path)
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.worker:
        return worker()
    wanted = tuple(given.cases.split(",")) if given.cases else ("",)
    names = [name for name in cases() if name.startswith(wanted)]
    machine = {"processor": processor(), "cores": len(os.sched_getaffinity(0)), "load": os.getloadavg()}
    print(machine, flush=True)
    found = measure(names, given.rounds, given.before)
    if given.record:
        given.record.write_text(json.dumps({"machine": machine, "seconds": found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
