"""A log for the command line."""

import numpy as np
import pytest


@pytest.fixture(scope="session")
def clicks(tmp_path_factory):
    """A log of 1,500 events with columns who, what, when, as words of a command line."""
    path = tmp_path_factory.mktemp("clicks") / "log.csv"
    rng = np.random.default_rng(0)
    lines = ["who,what,when"]
    for n in range(1500):
        lines.append(f"u{rng.integers(40)},{min(int(rng.zipf(1.5)), 50)},{1_500_000_000 + n}")
    path.write_text("\n".join(lines) + "\n")
    return [path, "--user", "who", "--item", "what", "--time", "when"]
