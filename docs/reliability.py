"""docs/reliability.md: what was done to work in progress, how often, and what was lost.

    python docs/reliability.py    # write the page anew of bench/records/faults.json

The record is of `python tests/faults.py --times N --record bench/records/faults.json`; a test holds the
page to it.
"""

import json
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
RECORD = HERE.parent / "bench" / "records" / "faults.json"
HEAD = """# Reliability, counted

What happens to `fastpop prepare`, `train`, `compare` and `experiment` when they are killed, stopped,
starved of disk, run twice in one folder, or find their files damaged. Every trial does one fault at a
moment, a place or a size drawn at random, gives the same command again, and compares what is left with what
the command leaves undisturbed: **every byte of every file**, less what a clock says (seconds, examples per
second) and less which two checkpoints of a finished run were kept. A trial is lost where anything differs,
or where a fault was passed over in silence.

This page is written by `python docs/reliability.py` from bench/records/faults.json, never by hand.

"""
TAIL = """
One command repeats a row, and one trial of it:

```
python tests/faults.py --times 50 "kill train"
python tests/faults.py "kill train" --only 17
```

`python tests/faults.py --times 50 --record bench/records/faults.json` repeats all of them; `make test`
takes a trial of each quick one. The models are tiny (1,500 events, 8 dimensions), so that a trial takes
seconds: what is tested is what is written, when, and how it is found again, which no size changes.

## What is promised, and by what
- **Whole or not at all.** Every file and folder is written as a hidden draft, flushed, and renamed in one
  step (`fastpop/files.py`). A draft is locked by its writer: the next one tells a dead process's from a
  living one's, and sweeps it. A draft that was killed in the microseconds before it was locked is empty,
  and is swept when it is a minute old.
- **Every byte under a checksum.** `config.json`, `state.json`, `asked.json`, `audit.json`,
  `comparison.json` and `answer.json` close with the checksum of what stands before it; tensors, columns,
  pages and pictures have theirs in the JSON beside them. `train.csv` and `metrics.json` are held against
  the model's own state.
- **What is damaged is said, and what is sound is used.** A damaged checkpoint gives way to the one before;
  damaged best weights, which no checkpoint holds, have the run trained anew; a damaged log, page, table or
  picture is written anew; a damaged model is made anew of its checkpoint (`fastpop train --resume`), and of
  a damaged `config.json` an experiment, which knows it, trains the model anew. What nothing else holds (the
  `config.json` of a run by itself, the question of a comparison, the numbers of a finished one, both
  checkpoints) is refused by its name, and nothing is touched.
- **One writer a folder**, by a lock of the operating system that ends with its process. On a file system
  without locks a warning says so.
- **Clocks.** Only the monotonic clock decides anything while training; the clock of the day is looked at
  for the age of drafts alone.

## What is not promised
- Bits are equal on the same kind of machine with the same number of threads, not between machines.
- A disk that reports a write as done and loses it (no power-loss test was made: `fsync` is called on every
  file and on its folder, and what the disk makes of that is the disk's).
- Several machines that write one folder over a network file system whose locks are not shared.
- The seconds that a killed process had not told yet.
"""


def page(record: dict[str, Any]) -> str:
    rows = [
        "| what | trials | lost | how they went | again: `python tests/faults.py --times N ...` |",
        "|---|---|---|---|---|",
    ]
    done = [one for one in record["faults"] if one["times"]]
    for one in done:
        went = ", ".join(f"{words} {count}" for words, count in one["went"].items())
        rows.append(f'| {one["what"]} | {one["times"]} | {len(one["lost"])} | {went} | `"{one["name"]}"` |')
    trials, lost = sum(one["times"] for one in done), sum(len(one["lost"]) for one in done)
    made = record["made_by"]
    text = HEAD
    text += f"**{trials:,} trials, {'nothing' if not lost else f'{lost} times something'} was lost.** Python "
    text += f"{made['python']}, torch {made['torch']}, {made['system']}, {made['cpu_count']} cores, "
    text += "beside other work.\n\n"
    text += "\n".join(rows) + "\n"
    told = [f"- {one['name']}, trial {words}" for one in done for words in one["lost"]]
    text += "\nLost:\n\n" + "\n".join(told) + "\n" if told else ""
    cannot = [f"- {one['what']}: {one['cannot']}" for one in record["faults"] if not one["times"]]
    text += "\nNot tried there:\n\n" + "\n".join(cannot) + "\n" if cannot else ""
    return text + TAIL


def main() -> None:
    (HERE / "reliability.md").write_text(page(json.loads(RECORD.read_text())), encoding="utf-8")


if __name__ == "__main__":
    main()
