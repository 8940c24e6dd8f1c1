"""One set-up for all runs: inputs by seed, and a table of ratios when they end."""

import numpy as np
import pytest
import torch


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.fixture
def measure(benchmark):
    """measure(contender, run, rounds): medians; the best peer of a group is the ratio's base."""

    def run(contender: str, shape: object, function, rounds: int = 5, **facts) -> None:
        benchmark.group = f"{benchmark.name.removeprefix('test_').split('[')[0]}: {shape}"
        benchmark.extra_info |= {"contender": contender, "threads": torch.get_num_threads(), **facts}
        benchmark.pedantic(function, rounds=rounds, warmup_rounds=1)

    return run


def zipf_counts(items: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).zipf(1.8, items).clip(max=10**6).astype(np.float64)


def pytest_terminal_summary(terminalreporter, config):
    """One table: median time of every contender, and how many times faster than it ours is."""
    session = getattr(config, "_benchmarksession", None)
    if session is None or not session.benchmarks:
        return
    groups: dict[str, list] = {}
    for bench in session.benchmarks:
        if bench.has_error or "contender" not in bench.extra_info:
            continue
        groups.setdefault(bench.group, []).append(bench)
    write = terminalreporter.write_line
    terminalreporter.section("medians in one run; peer / ours > 1 means ours is faster")
    for group, benches in groups.items():
        write(group)
        ours = [b.stats.median for b in benches if b.extra_info["contender"].startswith("fastpop")]
        for bench in sorted(benches, key=lambda b: b.stats.median):
            name = bench.extra_info["contender"]
            ratio = "" if name.startswith("fastpop") or not ours else \
                f"{bench.stats.median / min(ours):8.2f} x ours"
            error = bench.extra_info.get("error")
            shown = "" if error is None else f"  error {error:.1e}"
            write(f"    {name:34}{bench.stats.median * 1e3:12.3f} ms{ratio}{shown}")
