"""docs/scaling.md with its picture, of the record that `python -P bench/scaling.py` wrote.

    python docs/scaling.py            # the page and the picture anew

Numbers of the page are the record's; a test holds the page to it.
"""

import json
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
RECORD = HERE.parent / "bench" / "records" / "epyc-zen4-2-cores-2026-11-28-scaling.json"
PAGE, PICTURE = HERE / "scaling.md", HERE / "pictures" / "scaling.png"
GIB = 1 << 30

PAGE_TEXT = """# Large catalogues

What a log of many events and a catalogue of many items take: measured by `python -P bench/scaling.py
RECORD`, written by `python docs/scaling.py`.
{machine}.
**The load of the machine meanwhile**: {load}. Above two, the number of cores, the clock says little: compare
processor seconds, of steps those of one thread, the lower quartile of many that were taken in turn, and
bytes, which are exact. What others do on the cores empties caches, too.

![Processor time of a step against V, and memory of training against events](pictures/scaling.png)

## A log to work with

```python
from fastpop import data, synthetic

made = synthetic.large_log(200_000, 50_000, "large.parquet", seed=1)
log = data.prepare("large.parquet", "large", user="user", item="item", time="time")
print(made.entropy, made.entropy - made.mutual_information)  # NLL of log p alone; the least of any model
```

`synthetic.large_log` draws items from a Zipf distribution and then who meets them, so that the marginal is
the table's own distribution to the last bit and log p(item | user) is known for every pair. Event n is a
function of the seed and of n: the bytes of the file are the same whatever it is drawn in pieces of.
`fastpop prepare` and `fastpop train` read the file.

{log}

Items that no event met are in no catalogue. Peak RSS is that beside the process before; of `large_log` it
is the alias table while it is made (24 bytes an item and what surrounds it), of `prepare` at most its
`memory_limit` (2 GB, or what is free where that is less) and, beside it, 96 MiB and 32 MiB for each thread
that reads. Within the limit are, one after the other: DuckDB, which writes the table out as text and stays
below it; the distinct ids, 32 bytes a slot of tables that are at most three fifths full, with 28 bytes an id
to sort them, and columns of events, of which no more are in memory than ids leave room for; and a range of
users that is sorted. A log whose ids alone do not fit is refused as soon as that is seen.

## Training: memory as it was counted

`fastpop.train` counts what it will take and refuses what does not fit ([the
formula](performance.md#memory-of-a-training-run)). D = {dim}, `factor`, sampled softmax, B = 8,192, K =
2,048, log p frozen. Of longer logs the first {most_steps} steps ran; the last column is those times the
steps of an epoch, and says so by "~".

{train}

## A step against V

B = K = 4,096, D = {dim}, row-wise Adam, caches emptied before each step, beside a step at V = {base} in
turn. Negatives are uniform. Of 4,096 draws 3,361 differ at V = 10,000, 4,013 at 100,000 and 4,095 at ten
million (V (1 - (1 - 1/V)^4096)), and each different one is a column of the product: that alone is 0.84× and
1.02×.

{steps}

What binds a step on a cold table of many rows is no longer the product alone. Each row that is read lies on
another page: on pages of 4 KiB the walk to it goes through page tables that are out of cache themselves (8
bytes for each 4 KiB: 5 MB for a table of ten million rows of 64 numbers, as much again for the first
moment). Large tables, what optimisers keep of them, log p and log q therefore lie on pages of 2 MiB
(`fastpop/pages.py`, `madvise(MADV_HUGEPAGE)`), which Linux gives where
/sys/kernel/mm/transparent_hugepage/enabled says `madvise` or `always`. In a virtual machine, as here, the
host's page tables are walked, too, and whether it has huge pages is not ours to say.
{steps_words}

Nothing of a step goes over all items: a step's ids are marked in a bit an item only where they are many
beside V (`csrc/row_index.h`), otherwise sorted. That was 1.9 MB at V = 10,000,000, written and read at
every step.

## Tables of another kind

`table_dtype="bfloat16"` holds tables in half the bytes; row-wise optimisers then round up or down at random
(`kernels/row_update/reference.py` has the words), since a step below half of a number's last place, 1/256
of it, would otherwise be lost, always. `table_storage="disk"` maps tables and state from files without a
name. Row-wise Adagrad, a step beside one of plain tables in turn:

{kinds}

"None in memory" asks the system to give all pages back to the disk before each step (`MADV_PAGEOUT`), so
that each row is a page that has to be found again. A table that is larger than memory lies between the two
lines, by how much of what a step reads is still in memory, and the rest is up to the disk, 4 KiB a row.

## Evaluation: exact, and its time told before

Every item is ranked for every case, without writing scores down: 4 C V D operations. A bar says how long
the rest will take; `evaluation.predicted_seconds(score, cases)` says so before, from 32 and 288 cases, or
more where these take no time. Nothing is sampled unless `sample_cases=` asks for it: means over cases then
come with 95 % intervals, the rule names sample and seed, and coverage and its like, which have no unbiased
estimate in some of the cases, are left out.

{evaluate}
{whole}
What an evaluation costs once, whatever the cases, is finding head and tail by counts and ranking exposure:
by counting where counts are whole numbers, as they are, without a sort of the catalogue.

## Audit and comparison

An audit takes the table as it lies, float32, and is float64 a block of items at a time; permutations go
over parts of the columns, at most 2 GiB of float64 at once, which have the bits of the whole.

{audit}

A comparison keeps each arm's table as it was when it was read. Large ones lie in files without a name
meanwhile (TMPDIR says where). Two arms, one seed, one epoch:

{compare}

## An index of items

`result.export_index("faiss-hnsw")` ([docs/design.md](design.md)) makes one index for every popularity
weight: log p is one more column, and the weight is in the query. Vectors of rank 12 and noise, a Zipf log
p, recall of the exact ten best of 500 queries by weight, and once log p has moved by half a nat an item:

{index}

Another log p is written into the column in place, but for inverted lists, which hang on it and are built
anew. A graph keeps the neighbours of the log p that it was built with; the second recall says what that
costs.

## What falls short

{short}
"""


def table(head: list[str], rows: list[list[str]]) -> str:
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)])


def gib(size: float) -> str:
    return f"{size / GIB:.2f}"


def seconds(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 else f"{value:.2g}"


def good(record: dict[str, Any], section: str) -> list[dict[str, Any]]:
    return [row for row in record["sections"].get(section, []) if "failed" not in row]


def failed(record: dict[str, Any]) -> list[str]:
    """What was tried and did not end, in words."""
    return [
        f"`{section} {' '.join(map(str, row['arguments']))}`: {row['failed']}"
        for section, rows in record["sections"].items()
        for row in rows
        if "failed" in row
    ]


def parts(record: dict[str, Any]) -> dict[str, str]:
    """What stands in the page, by name."""
    log = table(
        [
            "events",
            "items met",
            "users",
            "file, MB",
            "write: s of cores",
            "peak, MiB",
            "prepare: s of cores",
            "peak, MiB",
        ],
        [
            [
                f"{row['events']:,}",
                f"{row['items']:,}",
                f"{row['users']:,}",
                f"{row['file_bytes'] / 1e6:,.0f}",
                seconds(row["write"]["processor_seconds"]),
                f"{row['write']['peak_bytes'] / 2**20:,.0f}",
                seconds(row["prepare"]["processor_seconds"]),
                f"{row['prepare']['peak_bytes'] / 2**20:,.0f}",
            ]
            for row in good(record, "log")
        ],
    )
    train = table(
        [
            "events",
            "items",
            "users",
            "optimiser",
            "counted, GiB",
            "took, GiB",
            "off",
            "ms of cores a step",
            "epoch, s of cores",
        ],
        [
            [
                f"{row['events']:,}",
                f"{row['items']:,}",
                f"{row['users']:,}",
                row["optimizer"],
                gib(row["counted_bytes"]),
                gib(row["peak_bytes"]),
                f"{row['counted_bytes'] / row['peak_bytes'] - 1:+.0%}",
                f"{1e3 * row['processor_seconds_per_step']:.0f}",
                epoch_of(row, record["most_steps"]),
            ]
            for row in good(record, "train")
        ],
    )
    steps = table(
        ["items V", "pages", "ms of cores", "of that at V = " + f"{base_of(record):,}"],
        [
            [
                f"{row['items']:,}",
                row["pages"],
                f"{1e3 * row['processor_seconds']:.1f}",
                f"**{row['processor_seconds'] / row['base_processor_seconds']:.2f}×**",
            ]
            for row in good(record, "steps")
        ],
    )
    kinds = table(
        ["items V", "tables", "table, GiB", "ms of cores: plain", "these", "ms by the clock: plain", "these"],
        [
            [
                f"{row['items']:,}",
                row["kind"],
                gib(row["table_bytes"]),
                f"{1e3 * row['plain_processor_seconds']:.1f}",
                f"{1e3 * row['processor_seconds']:.1f}",
                f"{1e3 * row['plain_seconds']:,.0f}",
                f"{1e3 * row['seconds']:,.0f}",
            ]
            for row in good(record, "kinds")
        ],
    )
    evaluate = table(
        ["items V", "cases", "predicted, s", "took, s", "peak, MiB", "predicted of 100,000 cases, minutes"],
        [
            [
                f"{row['items']:,}",
                f"{row['cases']:,}",
                seconds(row["predicted_seconds"]),
                seconds(row["seconds"]),
                f"{row['peak_bytes'] / 2**20:,.0f}",
                seconds(row["predicted_seconds_of_100k_cases"] / 60),
            ]
            for row in good(record, "evaluate")
        ],
    )
    audit = table(
        ["items V", "permutations", "table, GiB", "s of cores", "peak beside the table, GiB"],
        [
            [
                f"{row['items']:,}",
                f"{row['permutations']:,}",
                gib(row["table_bytes"]),
                seconds(row["processor_seconds"]),
                gib(row["peak_bytes"]),
            ]
            for row in good(record, "audit")
        ],
    )
    compare = table(
        ["events", "items", "users", "s of cores", "peak, GiB"],
        [
            [
                f"{row['events']:,}",
                f"{row['items']:,}",
                f"{row['users']:,}",
                seconds(row["processor_seconds"]),
                gib(row["peak_bytes"]),
            ]
            for row in good(record, "compare")
        ],
    )
    index = table(
        [
            "index",
            "items",
            "built, s of cores",
            "recall at 0, .25, .5, .75, 1",
            "moved log p",
            "refreshed",
            "recall then",
        ],
        [
            [
                row["kind"],
                f"{row['items']:,}",
                seconds(row["processor_seconds"]),
                recalls(row["recall"]),
                f"{1e3 * row['refresh_seconds']:,.1f} ms",
                "in place" if row["in_place"] else "built anew",
                recalls(row["recall_after"]),
            ]
            for row in good(record, "index")
        ],
    )
    return {
        "machine": f"{record['cores']} cores of an AMD EPYC (Zen 4), {record['memory_bytes'] / GIB:.0f} GiB, "
        f"{record['system']}, torch {record['torch']}",
        "load": ", ".join(f"{name} {loads(rows)}" for name, rows in record["sections"].items()),
        "dim": str(record["dim"]),
        "most_steps": str(record["most_steps"]),
        "base": f"{base_of(record):,}",
        "log": log,
        "train": train,
        "steps": steps,
        "steps_words": steps_words(record),
        "kinds": kinds,
        "evaluate": evaluate,
        "whole": "".join(whole_words(row, record["cores"]) for row in good(record, "whole")),
        "audit": audit,
        "compare": compare,
        "index": index,
        "short": "\n".join(f"- {line}" for line in falls_short(record)),
    }


def loads(rows: list[dict[str, Any]]) -> str:
    """The least and the most of a section."""
    found = sorted(row["load"] for row in rows)
    return f"{found[0]:.1f} to {found[-1]:.1f}" if found else "none"


def base_of(record: dict[str, Any]) -> int:
    return next((row["base_items"] for row in good(record, "steps")), 0)


def epoch_of(row: dict[str, Any], most_steps: int) -> str:
    return ("~" if row["steps"] > most_steps else "") + seconds(
        row["processor_seconds_per_step"] * row["steps"]
    )


def recalls(by_weight: dict[str, float]) -> str:
    return ", ".join(f"{value:.3f}".lstrip("0") if value < 1 else "1" for value in by_weight.values())


def steps_words(record: dict[str, Any]) -> str:
    """What huge pages give at the largest catalogue, and whether a step holds to 1.05 of the base."""
    rows = good(record, "steps")
    if not rows:
        return ""
    most = max(row["items"] for row in rows)
    ratio = {
        row["pages"]: row["processor_seconds"] / row["base_processor_seconds"]
        for row in rows
        if row["items"] == most
    }
    words = [f"{name} {value:.2f}×" for name, value in ratio.items()]
    text = f"At V = {most:,} a step takes, beside one at V = {base_of(record):,}: {', '.join(words)}."
    if "2 MiB" in ratio:
        held = "holds" if ratio["2 MiB"] <= 1.05 else "**does not hold**"
        text += f" That a step from cold caches takes at most 1.05× {held} here."
    return text


def whole_words(row: dict[str, Any], cores: int) -> str:
    """Of an evaluation of many cases to its end, on one thread: what was told, and what it took."""

    def minutes(value: float) -> str:
        return f"{value / 60:.0f}"

    said = [
        f"at {share:.0%} {minutes(total)}"
        for share, total in (
            next((share, total) for share, _, total, _ in row["shown"] if share >= least)
            for least in (0, 0.1, 0.25, 0.5, 0.75)
        )
    ]
    loads_met = sorted(load for *_, load in row["shown"])
    metrics = ", ".join(f"{name} {value:.4g}" for name, value in row["metrics"].items())
    core = minutes(row["processor_seconds"])
    asked = seconds(row["asking_processor_seconds"])
    all_of_them = minutes(row["processor_seconds"] / row["cases"] * 1e5)
    return (
        f"\nTo its end, on one thread: {row['cases']:,} cases of {row['items']:,} items took "
        f"{minutes(row['seconds'])} minutes by the clock, {core} of the core, at a load of "
        f"{loads_met[0]:.0f} to {loads_met[-1]:.0f} on {cores} cores. `predicted_seconds` had said "
        f"{minutes(row['predicted_seconds'])} minutes, asked for {asked} s of the core before; the bar's "
        f"whole, passed and left, was {', '.join(said)} minutes. A prediction is of the load that it is made "
        f"at. By the core's time 100,000 cases are {all_of_them} minutes. Peak beside the tables: "
        f"{row['peak_bytes'] / 2**20:,.0f} MiB. Vectors are random, so lists are no better than chance "
        f"({metrics}).\n"
    )


def falls_short(record: dict[str, Any]) -> list[str]:
    most = max((row["events"] for row in good(record, "train")), default=0)
    lines = [
        f"Logs of up to {most:,} events were trained on, and no epoch of the longest was run to its end.",
        "Where the load was above two, no time by the clock says what a quiet machine takes.",
        "Seconds of the cores of training steps count threads that wait for each other by spinning, which "
        "beside other work is a large part of them.",
        "Of 100,000 cases of ten million items no evaluation was run to its end. That of 8,000 was predicted "
        "from 160 cases, and its bar began with half of what it begins with now, too long by a half.",
        "What `prepare` takes beside its limit is a number that was measured: 64 MiB were counted, and a "
        "hundred million events, 2,062 MiB, were 27 above that; 96 are counted now.",
        "How a training run behaves whose tables are larger than memory was not seen: the two lines of "
        "tables on disk are its ends.",
    ]
    off = [row for row in good(record, "train") if abs(row["counted_bytes"] / row["peak_bytes"] - 1) > 0.1]
    lines += [
        f"Counted memory is off by more than 10 % at {row['events']:,} events with {row['optimizer']}."
        for row in off
    ]
    return lines + [f"Not finished: {line}." for line in failed(record)]


def page(record: dict[str, Any]) -> str:
    return PAGE_TEXT.format(**parts(record))


def picture(record: dict[str, Any], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(11, 3.2), layout="constrained")
    for pages, color, marker in (("2 MiB", "#1f5fa8", "o"), ("4 KiB", "#d1702a", "s")):
        rows = [row for row in good(record, "steps") if row["pages"] == pages]
        ratio = [(row["items"], row["processor_seconds"] / row["base_processor_seconds"]) for row in rows]
        if ratio:
            left.plot(
                *zip(*sorted([*ratio, (base_of(record), 1.0)])),
                color=color,
                marker=marker,
                label=f"pages of {pages}",
            )
    left.set(xscale="log", xlabel="items V", ylabel=f"step, of V = {base_of(record):,}")
    left.legend(frameon=False)
    for optimizer, color, marker in (("row_adam", "#1f5fa8", "o"), ("row_adagrad", "#d1702a", "s")):
        rows = [row for row in good(record, "train") if row["optimizer"] == optimizer]
        if rows:
            events = [row["events"] for row in rows]
            middle.plot(
                events, [row["peak_bytes"] / GIB for row in rows], color=color, marker=marker, label=optimizer
            )
            middle.plot(events, [row["counted_bytes"] / GIB for row in rows], color=color, linestyle=":")
            right.plot(
                events,
                [row["processor_seconds_per_step"] * row["steps"] for row in rows],
                color=color,
                marker=marker,
                label=optimizer,
            )
    middle.set(xscale="log", yscale="log", xlabel="events", ylabel="GiB (dotted: counted)")
    right.set(xscale="log", yscale="log", xlabel="events", ylabel="an epoch, s of cores")
    for panel in (middle, right):
        panel.legend(frameon=False)
    for panel in (left, middle, right):
        panel.grid(alpha=0.3)
        panel.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def main() -> None:
    record = json.loads(RECORD.read_text())
    PAGE.write_text(page(record), encoding="utf-8")
    picture(record, PICTURE)


if __name__ == "__main__":
    main()
