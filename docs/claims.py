"""docs/claims.md: each claim of the paper and of its neighbours, the exact answer, what logs say, a verdict.

    python docs/claims.py keep NAME FOLDER [AS]   # the answer in FOLDER (--out of `fastpop experiment`)
    python docs/claims.py                         # write the page and its pictures anew

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
from fastpop.studies.curves import DIFFERENCES
from fastpop.studies.curves import verdict as of_curves
from fastpop.studies.periods import again, low_rank
from fastpop.studies.study import excludes, give_or_take, told

HERE = Path(__file__).parent
ANSWERS, RUNS, PICTURES = HERE / "answers", HERE / "runs", HERE / "pictures"
IDENTITY, UNTESTABLE = "**identity**", "untestable here"
DIGITS = 6
# Of answers on other logs than the bundled one. LOGS stands for the folder that they lie in.
COMMANDS = {
    "baselines-beauty": "fastpop experiment baselines LOGS/amazon-beauty-5core.seq.txt.gz --preset sequence "
    "--title 'Amazon Beauty' --seeds 3 --train max_length=20 --baselines.only sasrec gru4rec bert4rec "
    "lightgcn --out beauty",
    "baselines-coat": "fastpop experiment baselines LOGS/coat.biased.csv.gz --preset coat --min-rating 4 "
    "--test LOGS/coat.random.csv.gz --test-is-randomised --title Coat --out coat",
    "baselines-lastfm": "fastpop experiment baselines LOGS/lastfm-s3rec.seq.txt.gz --preset sequence "
    "--title LastFM --out lastfm",
    "unbiased-coat": "fastpop experiment unbiased LOGS/coat.biased.csv.gz --preset coat --min-rating 4 "
    "--test LOGS/coat.random.csv.gz --test-is-randomised --title Coat --out coat",
    "unbiased-lastfm": "fastpop experiment unbiased LOGS/lastfm-s3rec.seq.txt.gz --preset sequence "
    "--title LastFM --out lastfm",
}
Values = dict[str, float]
Judge = Callable[[Values], tuple[str, str]]


@dataclass(frozen=True)
class Claim:
    """says: the claim. source: who says it, and how we know. exact: the population's answer, and its test.
    experiment: whose answer judges it; "" where none can. judge: of its values, (number, verdict). moves:
    what would change the verdict. answer: which of the experiment's kept answers; "": that of its name."""

    says: str
    source: str
    exact: str
    experiment: str
    judge: Judge
    moves: str
    answer: str = ""


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
    text = f"d={dims[0]}: {told(values, first)}; d={dims[-1]}: {told(values, last)}"
    if f"{first}.low" not in values or f"{last}.low" not in values:
        return text, "too few runs"
    if values[f"{first}.low"] > max(0.0, values[f"{last}.high"]):
        return text, "agrees"
    is_not = values[f"{first}.high"] < max(0.0, values[f"{last}.low"])
    return text, "disagrees" if is_not else "not told apart"


def at_equal_popularity(arm: str) -> Judge:
    """An arm of the frontier against log p subtracted from a standard model, at its best epoch."""

    def judge(values: Values) -> tuple[str, str]:
        text = ", ".join(give_or_take(values, f"best.{arm}.{short}") for short in DIFFERENCES)
        said = {
            "better": "agrees",
            "worse": "disagrees",
            "cannot be told apart": "not told apart",
            "better in part": "agrees in part, elsewhere not told apart",
            "worse in part": "disagrees in part, elsewhere not told apart",
            "better in part and worse in part": "agrees and disagrees in part",
        }
        verdict = of_curves(values, "best", arm)
        return f"mean, and at 25, 50, 75 % of the range: {text}", said.get(verdict, verdict)

    return judge


def _every_encoder(values: Values) -> tuple[str, str]:
    encoders = sorted({name.split(".")[1] for name in values if name.startswith("best.")})
    said: dict[str, list[str]] = {}
    for encoder in encoders:
        said.setdefault(of_curves(values, "best", encoder), []).append(encoder)
    text = "; ".join(f"{what}: {', '.join(names)}" for what, names in said.items())
    if "too few runs to say" in said:
        return text, "too few runs"
    if set(said) == {"better"}:
        return text, "agrees"
    if said.keys() & {"worse", "worse in part"}:
        return text, "disagrees"
    better = said.keys() & {"better", "better in part"}
    return text, "agrees in part, elsewhere not told apart" if better else "not told apart"


def _above_counts(values: Values) -> tuple[str, str]:
    """Recipes with the whole interval above the best of the rows that no model needs."""
    rows = [name for name in ("popularity", "recency", "markov", "ease") if f"{name}.ndcg" in values]
    best = max(rows, key=lambda name: values[f"{name}.ndcg"])
    names = [name[: -len(".rate")] for name in values if name.endswith(".rate")]
    sides = [excludes(values, f"best.{name}.ndcg", values[f"{best}.ndcg"]) for name in names]
    text = f"{sides.count(1)} of {len(names)} above {best}, {values[f'{best}.ndcg']:.4f}"
    if None in sides:
        return text, "too few runs"
    return text, "agrees" if sides.count(1) == len(sides) else "disagrees"


def _few_directions(values: Values) -> tuple[str, str]:
    """The rank among items with an event a period or more decides; that among items of five says the rest."""
    said = {"few": "agrees", "one": "disagrees", "many": "disagrees", "open": "not told apart"}
    verdicts = [said.get(low_rank(values, name), low_rank(values, name)) for name in ("rank", "rank.dense")]
    text = (
        f"rank {told(values, 'rank', 1)} of {values['periods']:.0f} periods over "
        f"{values['rank.items']:.0f} items, {told(values, 'rank.dense', 1)} over the "
        f"{values['rank.dense.items']:.0f} most frequent; found in both halves: {again(values)} of "
        f"{values['directions']:.0f} directions"
    )
    same = verdicts[0] == verdicts[1]
    return text, verdicts[0] if same else f"{verdicts[0]}; over the most frequent items, {verdicts[1]}"


def _taken_out(values: Values) -> tuple[str, str]:
    """Of the energy in the directions of time: less with log p of each period outside, and what is left."""
    verdict = of_sign("by-period - frozen.energy", -1)(values)[1]
    if verdict == "agrees" and excludes(values, "by-period.share", values["null_share"]) == 1:
        verdict = "agrees in part: less is left, and more than chance would leave"
    text = ", ".join(
        f"{arm} {told(values, f'{arm}.energy', 2)}" for arm in ("standard", "frozen", "by-period")
    )
    return f"squared nats: {text}", verdict


def _weekly(values: Values) -> tuple[str, str]:
    name = "retrained - frozen.recency"
    return of_sign(name, -1)(values) if name in values else ("-", "not run yet: the answer kept is older")


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
        "Beside a fresh log p, training anew every week still lowers the NLL.",
        "ours",
        "none",
        "drift",
        _weekly,
        "an interval of the difference that holds 0",
    ),
    Claim(
        "At equal popularity of the lists, log p outside in training is more accurate than log p subtracted.",
        "arXiv 2606.21275, second-hand; ours",
        "none; that beta subtracts (1 - beta) log p: tests/studies/test_curves.py",
        "frontier",
        at_equal_popularity("frozen"),
        "a difference of NDCG@10 of another sign at three levels of ARP",
    ),
    Claim(
        "At equal popularity of the lists, PDA is more accurate than log p subtracted.",
        "arXiv 2105.06067, which compares with others",
        "none",
        "frontier",
        at_equal_popularity("PDA"),
        "the same; popularity of each period, and its own step size",
    ),
    Claim(
        "At equal popularity of the lists, a spectral penalty (ReSN) is more accurate than log p subtracted.",
        "arXiv 2404.12008, which compares with others",
        "none",
        "frontier",
        at_equal_popularity("ReSN"),
        "the same; other weights than the three that were tried, and its own step size",
    ),
    Claim(
        "At equal popularity of the lists, DICE is more accurate than log p subtracted.",
        "arXiv 2006.11011, which compares with others",
        "none",
        "frontier",
        at_equal_popularity("DICE"),
        "the same; its alpha and beta tuned, and its margin made smaller by epochs",
    ),
    Claim(
        "At equal popularity of the lists, events weighted 1/p are more accurate than log p subtracted.",
        "Yang et al., RecSys 2018 (propensities of this form), which compares with others",
        "none",
        "frontier",
        at_equal_popularity("IPS"),
        "the same; other clips",
    ),
    Claim(
        "With true propensities the mean of losses weighted 1/p is the risk of all pairs.",
        "Horvitz & Thompson 1952; Schnabel et al., ICML 2016",
        "exact, over every way of seeing; tests/propensity/test_estimators.py",
        "unbiased",
        lambda v: (
            f"bias {v['ips.bias']:+.4f} ± {v['ips.bias_se']:.4f} (1 SE) over {v['draws']:.0f} draws, of the "
            f"plain mean {v['naive.bias']:+.4f}",
            IDENTITY,
        ),
        "nothing, where propensities are true; a log does not say whether they are",
        "unbiased-coat",
    ),
    Claim(
        "Training events weighted 1/p, p from popularity, recommend better where items are shown at random.",
        "Yang et al., RecSys 2018; Saito et al., WSDM 2020 (propensities of this form)",
        "none",
        "unbiased",
        of_sign("best.IPS 0.5 - standard.auc", 1),
        "an AUC of the shown items above that of the same model without weights; other propensities",
        "unbiased-coat",
    ),
    Claim(
        "A model of biased events beats the mean rating of the item where items are shown at random.",
        "what a debiased recommender has to do",
        "none",
        "unbiased",
        of_sign("best.frozen - item-mean.auc", 1),
        "an AUC of the shown items above that of mean ratings, which models of clicks do not see",
        "unbiased-coat",
    ),
    Claim(
        "What log p outside does at equal popularity of the lists holds for every encoder.",
        "ours",
        "none",
        "encoders",
        _every_encoder,
        "frozen better than post-hoc at three levels of ARP with all of them",
    ),
    Claim(
        "Trained recommenders are more accurate than counts and closed forms.",
        "the field, silently",
        "none",
        "baselines",
        _above_counts,
        "NDCG@10 of every recipe above the best row without a model; a larger budget",
    ),
    Claim(
        "Trained recommenders are more accurate than counts and closed forms, on a log without an order.",
        "the field, silently",
        "none",
        "baselines",
        _above_counts,
        "the same",
        "baselines-coat",
    ),
    Claim(
        "Models of sequences and of graphs are more accurate than counts and closed forms, on a sparse log.",
        "the field, silently",
        "none",
        "baselines",
        _above_counts,
        "the same; more epochs, with which SASRec's full softmax passes Markov counts (docs/metrics.md)",
        "baselines-beauty",
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
        "its rank is 1 + the number of independent drifts, if there are few; low rank is an assumption; "
        "tests/diagnostics/test_time_rank.py",
        "periods",
        _few_directions,
        "a rank of half the periods or more, or of 1; for the rest, an item's events: more of them tell more "
        "directions",
    ),
    Claim(
        "One log p for all periods leaves the time subspace to the scores; one for each period takes it out.",
        "ours",
        "where contexts tell the time: the pooled one leaves sum w_t |H(log p_t - log p)|^2, by period 0; "
        "tests/diagnostics/test_subspace.py, tests/training/test_by_period.py",
        "periods",
        _taken_out,
        "an energy of the scores in the directions of time that falls to chance, or not at all",
    ),
]


def keep(name: str, folder: Path, kept_as: str = "") -> None:
    """Write docs/answers/NAME.json, or that of another name."""
    answer = json.loads((folder / name / "answer.json").read_text(encoding="utf-8"))
    if answer["made_by"]["quick"]:
        raise ValueError(f"{folder}: expected the answer of a full run; got a quick one")
    answer = {key: value for key, value in answer.items() if key not in ("seal", "sha256")}
    ANSWERS.mkdir(exist_ok=True)
    text = json.dumps(_rounded(answer), separators=(",", ":"), ensure_ascii=False)
    (ANSWERS / f"{kept_as or name}.json").write_text(text + "\n", encoding="utf-8")


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
        elif (claim.answer or claim.experiment) in found:
            answer = found[claim.answer or claim.experiment]
            value, verdict = claim.judge(answer["values"])
            made = f"`fastpop experiment {claim.experiment}`, {answer['log']}, {answer['made_by']['seeds']}"
        else:
            made, verdict = f"`fastpop experiment {claim.experiment}`", "not run yet"
        cells = (claim.says, claim.source, claim.exact, made, value, verdict, claim.moves)
        lines.append(_row(cells))
    return "\n".join(lines) + "\n"


def _minutes(seconds: float) -> str:
    minutes = max(round(seconds / 60), 1)
    return f"{minutes} minute{'s' * (minutes != 1)}"


def _row(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _section(name: str, answer: dict[str, Any]) -> str:
    made = answer["made_by"]
    lines = [
        f"### {name}\n",
        f"{answer['question']} {answer['log']}, {made['seeds']} seeds, {_minutes(made['seconds'])} on "
        f"{made['cpu_count']} cores beside other work: `{command(name)}`\n",
        *(f"- {sentence}" for sentence in answer["sentences"]),
        "",
    ]
    for table in answer["tables"]:
        lines += [f"{table['title']}:\n", _row(table["columns"]), "|" + "---|" * len(table["columns"])]
        for row in table["rows"]:
            cells = [cell if isinstance(cell, str) else f"{cell:.4g}" for cell in row]
            lines.append(_row(cells))
        lines.append("")
    lines += [f"![{chart['title']}](pictures/{picture(name, chart)})\n" for chart in answer["charts"]]
    return "\n".join(lines)


def command(name: str) -> str:
    return COMMANDS.get(name, f"fastpop experiment {name} --out experiments")


def picture(name: str, chart: dict[str, Any]) -> str:
    """The file of a chart of the answer that is kept under a name."""
    return f"claims-{name + '-' if name in COMMANDS else ''}{chart['name']}.svg"


def write() -> None:
    (HERE / "claims.md").write_text(page(), encoding="utf-8")
    for name, answer in answers().items():
        drawn = study_pictures(answer)
        for chart in answer["charts"]:
            (PICTURES / picture(name, chart)).write_text(drawn[chart["name"]], encoding="utf-8")


if __name__ == "__main__":
    if sys.argv[1:2] == ["keep"]:
        keep(sys.argv[2], Path(sys.argv[3]), *sys.argv[4:])
    else:
        write()
