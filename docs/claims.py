"""docs/claims.md: each claim of the paper and of its neighbours, the exact answer, what logs say, a verdict.

    python docs/claims.py keep NAME FOLDER   # the answer in FOLDER (--out of `fastpop experiment`)
    python docs/claims.py                    # write the page and its pictures anew

Numbers and verdicts come from docs/answers; a test holds the page to them. A verdict is a rule on an
interval: agrees, disagrees, not told apart, untestable here, or identity, which no data could contradict.
"""

import json
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastpop.report.study import study_pictures
from fastpop.studies.study import excludes, told

HERE = Path(__file__).parent
ANSWERS, RUNS, PICTURES = HERE / "answers", HERE / "runs", HERE / "pictures"
IDENTITY, UNTESTABLE = "**identity**", "untestable here"
DIGITS = 6
Values = dict[str, float]
Judge = Callable[[Values], tuple[str, str]]


@dataclass(frozen=True)
class Claim:
    """says: the claim. source: who says it, and how we know. exact: the population's answer, and its test.
    experiment: whose answer judges it; "" where none can. judge: of its values, (number, verdict). moves:
    what would change the verdict."""

    says: str
    source: str
    exact: str
    experiment: str
    judge: Judge
    moves: str


def of_sign(
    name: str, wanted: int, decimals: int = 3, number: float = 0.0
) -> Callable[[Values], tuple[str, str]]:
    """Agrees where the whole interval is on the wanted side of a number."""

    def judge(values: Values) -> tuple[str, str]:
        side = excludes(values, name, number)
        verdict = {None: "too few runs", 0: "not told apart", wanted: "agrees"}.get(side, "disagrees")
        return told(values, name, decimals), verdict

    return judge


def always(number: str, verdict: str) -> Judge:
    return lambda values: (number, verdict)


def _refreshed(values: Values) -> tuple[str, str]:
    """NLL beside a fresh log p, trained with one or not; and what log p alone has."""
    number, verdict = of_sign("frozen - post-hoc.recency", -1)(values)
    alone, beside = values["popularity.recency"], values["frozen.recency"]
    if alone < beside:
        verdict += f"; but log p alone has {alone:.3f} nats, the model beside it {beside:.3f}"
    return number, verdict


def _sooner(values: Values) -> tuple[str, str]:
    """Of the whole log: epochs to 95 % of the best gain, or in how many runs it was reached at all."""
    if "100.ratio" in values:
        return of_sign("100.ratio", 1, 2, 1.0)(values)
    there = {arm: values[f"100.epochs.{arm}.reached"] for arm in ("standard", "frozen", "learned-from-log-p")}
    text = ", ".join(f"{arm} {number:.0f}" for arm, number in there.items())
    runs = max(there.values())
    sure = there["frozen"] == runs >= 3 and there["standard"] == 0
    verdict = "agrees" if sure else "not told apart"
    if sure and there["learned-from-log-p"] == runs:
        verdict += "; a bias that starts at log p gets there, too"
    return f"runs that got there before patience or the last epoch: {text}", verdict


def _gains(values: Values) -> tuple[str, str]:
    """The claim is of few dimensions: the gain at the fewest against that at the most."""
    dims = sorted(
        int(name.partition(".d")[2]) for name in values if name.startswith("gain.d") and name.count(".") == 1
    )
    first, last = f"gain.d{dims[0]}", f"gain.d{dims[-1]}"
    low, high = values.get(f"{first}.low"), values.get(f"{last}.high")
    text = f"d={dims[0]}: {told(values, first)}; d={dims[-1]}: {told(values, last)}"
    if low is None or high is None:
        return text, "too few runs"
    return text, "agrees" if low > max(0.0, high) else "disagrees"


CLAIMS = [
    Claim(
        "The best score of a dot-product softmax is PMI + log p + an offset.",
        "arXiv 2606.21275, abstract",
        "exact; tests/synthetic/test_twin_block.py",
        "decomposition",
        lambda v: (f"error {v['identity_error']:.0e} nats", IDENTITY),
        "nothing: it is the definition of PMI, and needs only that the scores can be the best ones",
    ),
    Claim(
        "After centring, log p is a component of rank one that all contexts share.",
        "arXiv 2606.21275, abstract",
        "the first singular vector is within Wedin's bound of log p; tests/studies/test_exact.py",
        "decomposition",
        lambda v: (
            f"generator: sine {v['sine']:.3f}, bound {v['sine_bound']:.2f}; trained: |corr(v1, log p)| "
            f"{told(v, 'none.pc1')}",
            IDENTITY + " of best scores",
        ),
        "nothing; whether it is the *first* direction of a trained model's scores is measured beside it",
    ),
    Claim(
        "Separating log p removes 98.6 % of the popularity-aligned energy, which shows the mechanism.",
        "arXiv 2606.21275, abstract",
        "98.600 % on `paper_headline()`, 100 % where the association is the same for all levels; "
        "tests/synthetic/test_twin_block.py",
        "decomposition",
        lambda v: (f"{100 * v['reduction']:.3f} % on the generator", "agrees, and says little"),
        "a statistic that a fitted subtraction does not set to exactly 0 in any model (docs/comparison.md)",
    ),
    Claim(
        "Permutation tests show that the reduction is specific to popularity.",
        "arXiv 2606.21275, abstract",
        "two arms that differ only along a direction of correlation .2 to log p: both tests reject; "
        "tests/experiments/test_wording.py",
        "",
        always("-", "disagrees, by that example"),
        "a test whose null holds for any direction that is correlated with log p",
    ),
    Claim(
        "Representation anisotropy is an effect of long-tailed marginals.",
        "arXiv 2606.21275, abstract",
        "none: the gauge moves the raw cosine and no probability; tests/diagnostics/test_geometry.py",
        "transfer",
        of_sign("flat marginals - standard.r1_items", -1),
        "R1 of item tables that falls when the same log is resampled to flat marginals",
    ),
    Claim(
        "A fresh log p serves better beside a model that was trained with it outside.",
        "PDA, arXiv 2105.06067, and the paper, second-hand",
        "the excess NLL of a stale log p is KL(z_t || z) whatever the PMI",
        "drift",
        _refreshed,
        "an NLL with a fresh log p below that of a standard model whose log p is exchanged",
    ),
    Claim(
        "A fresh, decayed log p predicts later events better than that of the training log.",
        "recency popularity; docs/metrics.md",
        "tests/popularity/test_recency.py",
        "drift",
        lambda v: (
            f"{v['recency - static']:.3f} nats over the log at the cut, {v['recency - cumulative']:.3f} over "
            "all counts",
            "agrees on this log (one number of all later events, no seeds)"
            if min(v["recency - cumulative"], v["recency - static"]) > 0
            else "disagrees",
        ),
        "a log without drift",
    ),
    Claim(
        "A SASRec with log p outside has 95 % of the best arm's gain over popularity in fewer epochs.",
        "ours",
        "none",
        "convergence",
        _sooner,
        "a standard model that gets there in as few epochs, as on LastFM and Beauty (README); more epochs",
    ),
    Claim(
        "Few dimensions force a dot product towards popularity; log p outside frees them.",
        "arXiv 2305.13597; ours",
        "d = 2: .1035 nats left with it inside, 0 outside; tests/studies/test_exact.py",
        "dimension",
        _gains,
        "a gain of log p outside that does not shrink as dimensions are added",
    ),
    Claim(
        "Time-varying marginals give a low-rank subspace.",
        "arXiv 2606.21275, abstract",
        "its rank is 1 + the number of independent drifts, if there are few; low rank is an assumption",
        "",
        always("-", "not run yet"),
        "`diagnostics.time_rank` on a log of many periods; no experiment runs it yet",
    ),
]


def keep(name: str, folder: Path) -> None:
    """Write docs/answers/NAME.json."""
    answer = json.loads((folder / name / "answer.json").read_text(encoding="utf-8"))
    if answer["made_by"]["quick"]:
        raise ValueError(f"{folder}: expected the answer of a full run; got a quick one")
    ANSWERS.mkdir(exist_ok=True)
    text = json.dumps(_rounded(answer), separators=(",", ":"), ensure_ascii=False)
    (ANSWERS / f"{name}.json").write_text(text + "\n", encoding="utf-8")


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.{DIGITS}g}")
    if isinstance(value, dict):
        return {key: _rounded(inner) for key, inner in value.items()}
    return [_rounded(inner) for inner in value] if isinstance(value, list) else value


def answers() -> dict[str, dict[str, Any]]:
    return {
        path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(ANSWERS.glob("*.json"))
    }


def page() -> str:
    found = answers()
    parts = [INTRODUCTION, _table(found), "## The experiments"]
    parts += [_section(name, answer) for name, answer in found.items()]
    return "\n".join(parts) + "\n"


INTRODUCTION = """# Claims

What the paper (arXiv 2606.21275) and its neighbours say, what the exact answer is, what a log says. The
paper's text is not public in full; what is marked second-hand is from a review of it. This page is written by
`python docs/claims.py` from docs/answers, which `fastpop experiment` made, and never by hand. An interval is
95 %, over seeds. **Identity**: no data could contradict it, so that agreement is no finding.
"""


def _table(found: dict[str, dict[str, Any]]) -> str:
    lines = [
        "| claim | source | exact answer, its test | experiment, log, seeds | value | verdict | "
        "what would change it |",
        "|---|---|---|---|---|---|---|",
    ]
    for claim in CLAIMS:
        value, verdict, made = "-", UNTESTABLE, "-"
        if not claim.experiment:
            value, verdict = claim.judge({})
        elif claim.experiment in found:
            answer = found[claim.experiment]
            value, verdict = claim.judge(answer["values"])
            made = f"`fastpop experiment {claim.experiment}`, {answer['log']}, {answer['made_by']['seeds']}"
        else:
            made, verdict = f"`fastpop experiment {claim.experiment}`", "not run yet"
        cells = (claim.says, claim.source, claim.exact, made, value, verdict, claim.moves)
        lines.append(_row(cells))
    return "\n".join(lines) + "\n"


def _row(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _section(name: str, answer: dict[str, Any]) -> str:
    made = answer["made_by"]
    lines = [
        f"### {name}\n",
        f"{answer['question']} {answer['log']}, {made['seeds']} seeds, {made['seconds'] / 60:.0f} minutes on "
        f"{made['cpu_count']} cores beside other work: `fastpop experiment {name} --out experiments`\n",
        *(f"- {sentence}" for sentence in answer["sentences"]),
        "",
    ]
    for table in answer["tables"]:
        lines += [f"{table['title']}:\n", _row(table["columns"]), "|" + "---|" * len(table["columns"])]
        for row in table["rows"]:
            cells = [cell if isinstance(cell, str) else f"{cell:.4g}" for cell in row]
            lines.append(_row(cells))
        lines.append("")
    lines += [f"![{chart['title']}](pictures/claims-{chart['name']}.svg)\n" for chart in answer["charts"]]
    return "\n".join(lines)


def write() -> None:
    (HERE / "claims.md").write_text(page(), encoding="utf-8")
    for answer in answers().values():
        for name, svg in study_pictures(answer).items():
            (PICTURES / f"claims-{name}.svg").write_text(svg, encoding="utf-8")


if __name__ == "__main__":
    if sys.argv[1:2] == ["keep"]:
        keep(sys.argv[2], Path(sys.argv[3]))
    else:
        write()
