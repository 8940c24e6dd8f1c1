"""The sections of the two commands, in order, and the seconds that each may take. Standard library only."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Section:
    """name: of its module in sections/. does: for --plan. seconds: its budget. item_seconds: after which
    one item of it is taken for hanging."""

    name: str
    does: str
    seconds: float
    item_seconds: float = 0.0

    @property
    def item_limit(self) -> float:
        return self.item_seconds or 0.6 * self.seconds


DAY = (
    Section(
        "install",
        "a compiled module that loads and launches: carried, installed, or built here "
        "for this card alone; what the machine is",
        75,
        70,
    ),
    Section("compile", "every Triton kernel of the day into the cache, on all cores", 30, 28),
    Section("ceilings", "GEMM in bf16, tf32 and fp32, copy, gather of 256-byte rows, exponentials", 15),
    Section(
        "softmax",
        "shared negatives B=65,536 K=8,192 D=64, 128, 256, forward and with backward; "
        "graph replay at B=4,096",
        70,
        25,
    ),
    Section(
        "rows",
        "a set of negatives for each row, B=65,536 K=1,024 D=128; row updates of 20,000 and 1,000,000 rows",
        45,
        20,
    ),
    Section("catalogue", "score energies, top items, ranks of targets", 40, 20),
    Section("tests", "the tests marked gpu, a line each", 75, 74),
    Section(
        "training",
        "fastpop.train on the bundled log: factor and SASRec, fp32 and bf16, against "
        "the processor's losses; evaluate, resume",
        50,
        30,
    ),
    Section("step", "one training step, V=1,000,000: wall time, as a graph, launches, trace", 25, 20),
    Section("peers", "torch eager, torch.compile, Liger and cut-cross-entropy on the same shapes", 50, 35),
    Section("sanitizer", "compute-sanitizer memcheck and racecheck, on tests for 20 seconds each", 50, 27),
    Section("again", "the ceilings again: was the card quiet?", 10),
)
PROFILE = (
    Section("install", DAY[0].does, 75, 70),
    Section("baseline", "ceilings, and shared negatives at D=64 and 128 as they are", 30, 15),
    Section("counters", "six kernels under ncu: pipes, issue slots, memory, occupancy", 60, 14),
    Section("tiles", "other tiles of the three passes at D=64 and 128, each compiled beforehand", 60, 40),
    Section("baseline_again", "the baseline once more", 15, 10),
)
# The first within nine minutes, the second within what is then left of fifteen.
LIMIT_SECONDS = {"gpu-day": 540.0, "gpu-profile": 240.0}


def table(sections: tuple[Section, ...]) -> str:
    """At most 100 columns."""
    lines = [f"{'section':16}{'until':>7}{'budget':>9}  does"]
    until = 0.0
    for section in sections:
        until += section.seconds
        words, line = section.does.split(), ""
        rows = []
        for word in words:
            if len(line) + len(word) + 1 > 64:
                rows.append(line)
                line = ""
            line = f"{line} {word}".strip()
        rows.append(line)
        lines.append(f"{section.name:16}{until:6.0f}s{section.seconds:8.0f}s  {rows[0]}")
        lines += [" " * 34 + row for row in rows[1:]]
    lines.append(f"{'in all':16}{until:6.0f}s; a section that ends early leaves its time to the next ones")
    return "\n".join(lines)
