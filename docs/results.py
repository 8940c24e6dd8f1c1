"""docs/results.md with its pictures, and the table of runs in README, from the comparisons in docs/runs.

    python docs/results.py keep NAME REPORT_FOLDER   # a comparison.json, less what the page does not show
    python docs/results.py                           # write page, pictures and README's table anew

Numbers of the page are the runs' own, and sentences are made of them each time it is written.
"""

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastpop.experiments import reworded
from fastpop.experiments.numbers import WORDED
from fastpop.report import comparison_text
from fastpop.report.compare_plots import sheets
from fastpop.report.drawing import save_figure

HERE = Path(__file__).parent
README = HERE.parent / "README.md"
MARKS = ("<!-- docs/results.py writes this table -->\n", "<!-- as far as here -->\n")
RUNS, PICTURES = HERE / "runs", HERE / "pictures"
SCATTER_POINTS = 1000
DIGITS = 6
SHOWN_BETAS = (None, 0, 0.5, 1)


@dataclass(frozen=True)
class Run:
    """name: of docs/runs/NAME.json. command: what made it; LOGS is the folder of the logs."""

    name: str
    title: str
    command: str


REPORTS = [
    Run("demo", "MovieTweetings 100K, a small SASRec", "fastpop demo --out demo"),
    Run(
        "movietweetings-sasrec",
        "MovieTweetings 100K, SASRec",
        "fastpop compare bundled --encoder sasrec --epochs 8 --max-epochs 20 --valid-cases 2000 --seeds 5 "
        "--out reports/movietweetings-sasrec",
    ),
    Run(
        "movietweetings-factor",
        "MovieTweetings 100K, matrix factorisation with a shared vector",
        "fastpop compare bundled --encoder factor --learning-rate 0.003 --epochs 8 --max-epochs 20 "
        "--valid-cases 2000 --seeds 5 --out reports/movietweetings-factor",
    ),
    Run(
        "movietweetings-factor-plain",
        "MovieTweetings 100K, plain matrix factorisation",
        "fastpop compare bundled --encoder factor --no-base --learning-rate 0.003 --epochs 12 "
        "--max-epochs 30 --valid-cases 2000 --seeds 5 --arms standard frozen learned-from-log-p "
        "--out reports/movietweetings-factor-plain",
    ),
    Run(
        "ciao",
        "Ciao (105,114 items), matrix factorisation with a shared vector",
        "fastpop compare LOGS/ciao.ratings.csv.gz --preset ciao --encoder factor --learning-rate 0.003 "
        "--epochs 6 --max-epochs 12 --valid-cases 1000 --max-cases 2000 --seeds 5 --name Ciao "
        "--out reports/ciao",
    ),
    Run(
        "lastfm",
        "LastFM, SASRec",
        "fastpop compare LOGS/lastfm-s3rec.seq.txt.gz --preset sequence --encoder sasrec --epochs 20 "
        "--max-epochs 60 --seeds 5 --name LastFM --out reports/lastfm",
    ),
    Run(
        "coat",
        "Coat, matrix factorisation, with a randomised test part",
        "fastpop compare LOGS/coat.biased.csv.gz --preset coat --min-rating 4 "
        "--test LOGS/coat.random.csv.gz --test-is-randomised --encoder factor --dim 16 "
        "--learning-rate 0.005 --batch-size 256 "
        "--num-negatives 64 --epochs 10 --max-epochs 40 --seeds 8 --name Coat --out reports/coat",
    ),
    Run(
        "beauty",
        "Amazon Beauty, SASRec",
        "fastpop compare LOGS/amazon-beauty-5core.seq.txt.gz --preset sequence --encoder sasrec "
        "--dropout 0.4 --max-length 20 --epochs 15 --max-epochs 40 --valid-cases 2000 --max-cases 5000 "
        "--arms standard frozen --seeds 3 --name 'Amazon Beauty' --out reports/beauty",
    ),
]

INTRODUCTION = """# What we measured

Two CPU cores, torch 2.13, no GPU. Each block names the command that made it; `bundled` is the MovieTweetings
100K log that comes with the package, the other logs are public, and `LOGS` stands for the folder they lie in.
This page is written by `python docs/results.py` from the runs in `docs/runs`, and never by hand. What the
rows and columns are, and when each sentence is printed: [docs/comparison.md](comparison.md). In the pictures
blue is standard, orange frozen, purple a bias that starts at log p, green post-hoc, grey any other arm; thin
lines are seeds, and dots stand at an arm's best epoch.

The paper (arXiv 2606.21275) reports 98.6 % less context-shared energy on its logs, which are not public in
full; on the generator of `fastpop.synthetic.paper_headline()` 98.600 % is the exact answer, and the tests
reproduce it. On real logs that number hangs on the epoch, and says little: a subtraction that is fitted
leaves nothing in any model.
"""


def keep(name: str, folder: Path) -> None:
    """Write docs/runs/NAME.json: what the page shows of a comparison."""
    comparison = json.loads((folder / "comparison.json").read_text(encoding="utf-8"))
    for scatter in comparison.get("scatter", []):
        step = -(-len(scatter["log_prior"]) // SCATTER_POINTS)
        for axis in ("log_prior", "mean_score", "served_score"):
            if axis in scatter:
                scatter[axis] = scatter[axis][::step]
    comparison.pop("nulls", None)  # thousands of draws
    comparison = {key: value for key, value in comparison.items() if key not in ("seal", "sha256")}
    comparison["rows"] = [row for row in map(_worded, comparison["rows"]) if row["values"]]
    del comparison["headline"], comparison["sentences"]
    comparison["summary"] = [
        entry if entry["popularity_weight"] in SHOWN_BETAS else _points(entry)
        for entry in comparison["summary"]
    ]
    RUNS.mkdir(exist_ok=True)
    text = json.dumps(_rounded(comparison), separators=(",", ":"), ensure_ascii=False)
    (RUNS / f"{name}.json").write_text(text + "\n", encoding="utf-8")


def _worded(row: dict[str, Any]) -> dict[str, Any]:
    """What the frontier and the sentences need of each seed."""
    needed = ("ndcg@10", "arp@10", *WORDED.get(row["popularity_weight"], ()))
    return row | {"values": {metric: row["values"][metric] for metric in needed if metric in row["values"]}}


def _points(entry: dict[str, Any]) -> dict[str, Any]:
    """What the frontier needs of a row."""
    return entry | {
        "values": {
            metric: entry["values"][metric] for metric in ("ndcg@10", "arp@10") if metric in entry["values"]
        }
    }


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.{DIGITS}g}")
    if isinstance(value, dict):
        return {key: _rounded(inner) for key, inner in value.items()}
    return [_rounded(inner) for inner in value] if isinstance(value, list) else value


def page() -> str:
    """The page, of the runs that are there."""
    parts = [INTRODUCTION, "## What the runs say together", _together()]
    for run in REPORTS:
        if (RUNS / f"{run.name}.json").exists():
            parts.append(_section(run))
    return "\n".join(parts)


def _read(run: Run) -> dict[str, Any]:
    """A kept run with its sentences, which are made anew: no page says what the rules of today would not."""
    return reworded(json.loads((RUNS / f"{run.name}.json").read_text(encoding="utf-8")))


def readme_table() -> str:
    """What README shows of the runs but the demo, whose numbers stand in its text."""
    lines = [
        "| log, encoder | seeds | epochs: standard, separated | separated has standard's best NLL after | "
        "NLL, separated - standard | NDCG@10, likewise |",
        "|---|---|---|---|---|---|",
    ]
    for run in REPORTS:
        if run.name == "demo" or not (RUNS / f"{run.name}.json").exists():
            continue
        found = _read(run)
        at = {arm["name"]: arm["readings"][0]["epoch"] for arm in found["arms"] if arm.get("readings")}
        differences = {
            d["metric"]: d
            for d in found["differences"]
            if d["arm"] == "frozen" and d["epochs"] == "best" and d["popularity_weight"] == 1
        }
        lines.append(
            f"| {run.title} | {len(found['made_by']['seeds'])} | {_epochs(found, at)} | "
            f"{_sooner(found)} | {_difference(differences['nll'], 3)} | "
            f"{_difference(differences['ndcg@10'], 4)} |"
        )
    return "\n".join(lines) + "\n"


def _epochs(found: dict[str, Any], at: dict[str, float]) -> str:
    """The mean best epochs of standard and frozen, and whether more of them could move one."""
    both = ("standard", "frozen")
    late = [arm for arm in both if arm in found["facts"]["still_improving"]]
    ended = f" (training ended first: {', '.join(late)})" if late else ""
    return ", ".join(f"{at[arm]:.3g}" for arm in both) + ended


def _sooner(found: dict[str, Any]) -> str:
    """After how many epochs frozen has the validation NLL that standard has at its best one."""
    curves = {(curve["arm"], curve["seed"]): curve for curve in found["curves"]}
    epochs = []
    for seed in found["made_by"]["seeds"]:
        goal = min(curves["standard", seed]["nll"])
        frozen = curves["frozen", seed]
        epochs.append(
            next((epoch for epoch, nll in zip(frozen["epoch"], frozen["nll"]) if nll <= goal), None)
        )
    there = [epoch for epoch in epochs if epoch is not None]
    if not there:
        return "never"
    seen = f"{min(there)}" if min(there) == max(there) else f"{min(there)} to {max(there)}"
    return seen if len(there) == len(epochs) else f"{seen} in {len(there)} of {len(epochs)} seeds"


def _together() -> str:
    """A line a run: what decides."""
    lines = [
        "| log, encoder | best epoch: standard, frozen | frozen has standard's best validation NLL after | "
        "NLL, frozen - standard, each at its best epoch | NDCG@10, likewise | NDCG@10 at equal ARP, frozen - "
        "post-hoc | cos² of the change | NDCG@10: best arm, best row without a model |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for run in REPORTS:
        if not (RUNS / f"{run.name}.json").exists():
            continue
        found = _read(run)
        main = found["readings"][0]
        flat = {
            arm["name"]: reading
            for arm in found["arms"]
            for reading in arm["readings"]
            if reading["epochs"] == main
        }
        differences = {
            d["metric"]: d
            for d in found["differences"]
            if d["arm"] == "frozen" and d["epochs"] == main and d["popularity_weight"] == 1
        }
        matched = [
            m
            for m in found["matched"]
            if m["arm"] == "frozen" and m["metric"] == "ndcg@10" and m["epochs"] == main
        ]
        middle = _difference(matched[1], 4) if len(matched) == 3 else "-"
        trained = {
            arm["name"]
            for arm in found["arms"]
            if arm["name"] in ("standard", "frozen", "learned", "learned-from-log-p", "disjoint")
        }
        rows = {
            arm["name"]
            for arm in found["arms"]
            if arm["kind"] == "reference" and "ndcg@10" in flat[arm["name"]]
        }
        best, rival = (max(names, key=lambda name: flat[name]["ndcg@10"]) for names in (trained, rows))
        lines.append(
            f"| [{run.title}](#{_anchor(run.title)}) | "
            f"{_epochs(found, {name: reading['epoch'] for name, reading in flat.items()})} | "
            f"{_sooner(found)} | {_difference(differences.get('nll'), 3)} | "
            f"{_difference(differences.get('ndcg@10'), 4)} | {middle} | "
            f"{flat['frozen']['cos2_change']:.2f} | {best} "
            f"{flat[best]['ndcg@10']:.4f}, {rival} {flat[rival]['ndcg@10']:.4f} |"
        )
    return "\n".join(lines) + "\n\nDifferences are means over seeds with 95 % t intervals.\n"


def _difference(found: dict[str, Any] | None, digits: int) -> str:
    if found is None:
        return "-"
    text = f"{found['mean']:+.{digits}f}"
    if found["low"] is None:
        return text
    return f"{text} [{found['low']:+.{digits}f}, {found['high']:+.{digits}f}]"


def _anchor(title: str) -> str:
    kept = "".join(c for c in title.lower() if c.isalnum() or c in " -")
    return kept.replace(" ", "-")


def _section(run: Run) -> str:
    found = _read(run)
    minutes = found["made_by"]["seconds"] / 60
    lines = [
        f"## {run.title}\n",
        f"```bash\n{run.command}\n```\n",
        f"{found['made_by'].get('processor', 'two cores')}; {minutes:.0f} minutes.\n",
    ]
    for name, figure in sheets(found).items():  # type: ignore[arg-type]
        path = PICTURES / f"{run.name}-{name}.png"
        save_figure(figure, path)
        lines.append(f"![{name.replace('-', ' ')}, {run.title}](pictures/{path.name})\n")
    lines += [f"- {sentence}" for sentence in (found["headline"], *found["sentences"])]
    text = comparison_text(found).rstrip()  # type: ignore[arg-type]
    lines.append(f"\n<details><summary>All tables</summary>\n\n```text\n{text}\n```\n\n</details>\n")
    return "\n".join(lines)


def main(arguments: list[str]) -> None:
    if arguments[:1] == ["keep"]:
        keep(arguments[1], Path(arguments[2]))
    else:
        (HERE / "results.md").write_text(page(), encoding="utf-8")
        README.write_text(with_table(README.read_text(encoding="utf-8")), encoding="utf-8")


def with_table(text: str) -> str:
    """README with its table of runs."""
    before, _, rest = text.partition(MARKS[0])
    _, _, after = rest.partition(MARKS[1])
    return before + MARKS[0] + readme_table() + MARKS[1] + after


if __name__ == "__main__":
    main(sys.argv[1:])
