"""From the measured seeds to one comparison: means, differences, the frontier, words and rules."""

from typing import Any

from fastpop import registry, report
from fastpop.components import Component
from fastpop.experiments import findings
from fastpop.experiments.arms import AFTERWARDS, ARMS, BEST, EQUAL, ITEM_MEAN, POST_HOC, STANDARD, Arm, arm_of
from fastpop.experiments.frontier import matched
from fastpop.experiments.one_arm import best_by_words
from fastpop.experiments.wording import reworded

# What stands for a row in `readings`: of the learned part, and of the score that is served.
LEARNED = (
    "energy_total",
    "energy_direction",
    "energy_off_direction",
    "energy_shared",
    "slope",
    "amplitude",
    "cos2_change",
    "r1_items",
    "r1_scores",
    "effective_rank_items",
    "effective_rank_scores",
    "cosine_items",
    "pc1_items",
    "pc1_scores",
    "epoch",
)


def comparison(
    found: list[dict[str, Any]],
    question: Any,
    log: Any,
    parts: Any,
    cases: Any,
    shown: Any,
    made_by: dict[str, Any],
) -> report.schema.Comparison:
    """found: what each seed gave, in the order of the seeds."""
    rows = [row for seed in found for row in seed["rows"]]
    pairs = [pair for seed in found for pair in seed["pairs"]]
    readings = [name for name in (BEST, EQUAL) if any(row["epochs"] == name for row in rows)]
    names = [name for name in _in_order(question) if any(row["arm"] == name for row in rows)]
    told = [_told(question, name) for name in names]
    priors = [seed["prior"] for seed in found]
    weak = next((prior["weak"] for prior in priors if prior["weak"]), None)
    drawn = dict(found[0]["pictures"])
    summary = findings.summarise(rows)
    if weak is not None:  # as an audit: no test along a direction that is noise; the rows keep theirs
        pairs, drawn = [], drawn | {"nulls": []}
        for entry in summary:
            entry["values"] = {
                name: value for name, value in entry["values"].items() if not name.startswith("p_value")
            }
    further = question.further.told(rows)
    learned, served = (
        [one["key"] for one in further if one["view"] == view] for view in ("learned", "served")
    )
    frontier = [
        entry
        for epochs in readings
        for entry in matched(rows, POST_HOC, [arm for arm in names if arm != POST_HOC], epochs)
    ]
    late = dict.fromkeys(arm for seed in found for arm in seed["still_improving"])
    unseen = sum(prior["unseen"] for prior in priors) / len(priors)
    left_out = max(seed["left_out"] for seed in found)
    name = question.name
    made: Any = {
        "title": f"Popularity separation, {question.config.encoder}" + (f", {name}" if name else ""),
        "readings": readings,
        "best_by": best_by_words(question.config),
        "permutations": question.permutations,
        "arms": [
            arm | {"readings": [_reading(summary, arm, epochs, learned, served) for epochs in readings]}
            for arm in told
        ],
        "rows": rows,
        "summary": summary,
        "differences": findings.paired_differences(rows, names, learned, served),
        "matched": frontier,
        "pairs": pairs,
        "rules": _rules(question, parts, rows, priors),
        **({"further": further} if further else {}),
        "data": {
            "name": name or "log",
            "num_users": log.num_users,
            "num_items": log.num_items,
            "num_events": log.num_events,
            "num_cases": 0 if cases is None else cases.num_cases - left_out,
            "note": f"The arms train on {priors[0]['num_events']:,} events (half A of the training part, "
            f"halved anew for each seed); {left_out:,} test cases left out because the encoder "
            "cannot read them",
        },
        "facts": {
            "weak": weak,
            "unseen": unseen,
            "median_events": priors[0]["median_events"],
            "still_improving": list(late),
            "shown": shown is not None,
        },
        "curves": [curve for seed in found for curve in seed["curves"]],
        **drawn,
        "made_by": made_by,
    }
    return reworded(made)


def _in_order(question: Any) -> list[str]:
    """Every arm that may have rows: ours of each kind before others."""
    others = {
        kind: [name for name, arm in question.others.items() if arm.kind == kind]
        for kind in ("trained", "afterwards")
    }
    return [
        *ARMS,
        *others["trained"],
        *AFTERWARDS,
        *others["afterwards"],
        *map(str, question.references),
        ITEM_MEAN,
    ]


def _told(question: Any, name: str) -> dict[str, str]:
    """What a row is, in words."""
    reference = {str(one): one for one in question.references}.get(name)
    row: Any = arm_of(name) if reference is None else Arm(name, reference.trained_on, reference.served_as)
    counted = {} if reference is None else {"counted": reference.counted}
    return {
        "name": name,
        "kind": row.kind,
        "trained_on": row.trained_on,
        "served_as": row.served_as,
    } | counted


def _reading(
    summary: list[dict[str, Any]], arm: dict[str, str], epochs: str, learned: list[str], served: list[str]
) -> dict[str, Any]:
    """One arm at one reading in flat numbers, means over seeds: energies of its learned part; lists as
    served, at beta 1, or 0 where popularity was taken out afterwards; NLL at beta 1. None: not defined.

    learned, served: further numbers that were asked for.
    """
    beta = 0.0 if arm["kind"] == "afterwards" else 1.0
    found: dict[str, Any] = {"epochs": epochs, "popularity_weight": beta}
    values = {
        entry["popularity_weight"]: entry["values"]
        for entry in summary
        if entry["arm"] == arm["name"] and entry["epochs"] == epochs
    }
    of_lists, of_learned = values.get(beta, {}), values.get(None, values.get(beta, {}))
    found |= {name: of_learned[name]["mean"] if name in of_learned else None for name in (*LEARNED, *learned)}
    found |= {
        name: entry["mean"]
        for name, entry in of_lists.items()
        if "@" in name or name in ("auc_shown", *served)
    }
    found["nll"] = values[1.0]["nll"]["mean"] if "nll" in values.get(1.0, {}) else None
    return found


def _rules(
    question: Any, parts: Any, rows: list[dict[str, Any]], priors: list[dict[str, Any]]
) -> dict[str, str]:
    config = question.config
    sampled = config.loss_part.needs == "negatives"
    rules = {
        "encoder": f"{config.encoder}, dim {config.dim}{_options_told(config.encoder_part)}",
        "decoder": f"dot product, temperature {config.temperature:g}"
        + (" (learned)" if config.learn_temperature else "")
        + f", prior weight {config.prior_weight:g}, log p smoothed by {config.smoothing}",
        "loss": str(config.loss).replace("_", " ")
        + (f", logq={logq}" if (logq := getattr(config.loss_part, "logq", None)) else ""),
        "context_weighting": "one context per training event of half A",
        "popularity_weight": "beta in {"
        + ", ".join(f"{w:g}" for w in question.betas)
        + "}; learned part s: scores without the popularity term",
        "split": f"{parts.facts['rule']}; all arms train on a random half A of the training events, log p "
        "from A (disjoint: from the other half B); halved anew for each seed",
        "readings": f"equal: {config.epochs} epochs for all; "
        + (
            f"best: each arm's epoch of best {best_by_words(config)}, at most {question.last_epoch}, "
            f"stopped after {question.patience} epochs without a better one"
            if BEST in {row["epochs"] for row in rows}
            else "no validation part, so no best epoch"
        ),
        "optimizer": f"{config.table_optimizer_part}, learning rate {config.learning_rate:g}, "
        f"batch {config.batch_size}",
        "null": ", and ".join(
            f"{null.words.replace(' of centred log p', '')} ({null})" for null in question.nulls
        )
        + f"; {question.permutations} draws",
        "intervals": f"95 % t over seeds, from {findings.MIN_SEEDS} seeds on; of fewer, their range",
    }
    if sampled:
        of_loss = config.loss_part.options()
        group, number = of_loss.get("group_size"), of_loss.get("num_negatives", of_loss.get("negatives"))
        how = {None: "", 0: " shared by the batch", 1: " for each row"}.get(group, f" shared by {group} rows")
        rules["sampler"] = f"{config.proposal}" + (
            ", the other rows' positives"
            if config.proposal_part.in_batch
            else f", {number} negatives{how}"
            if number
            else ""
        )
    with_choice = dict.fromkeys(name for prior in priors for name in prior["chosen"])
    if with_choice:
        rules["references"] = "; ".join(
            f"{name}: " + _choice([prior["chosen"][name] for prior in priors if name in prior["chosen"]])
            for name in with_choice
        )
    if any("nll" in row["values"] for row in rows):
        rules["calibration"] = "NLL of the test targets under the full softmax at beta 1, in the table"
    if set(question.arms) - {STANDARD}:
        rules["words"] = "docs/comparison.md says when each sentence is printed"
    return rules


TOLD = {"num_layers": "{} layers", "num_heads": "{} heads", "dropout": "dropout {:g}"}


def _options_told(part: Component) -> str:
    """Of an encoder of layers, those that everybody asks for; where others are not at their defaults, the
    line that makes the part."""
    options, defaults = part.options(), registry.defaults(part)
    told = [form.format(options[name]) for name, form in TOLD.items() if name in options]
    told = told if "num_layers" in options else []
    left = [name for name in options if name not in TOLD or not told]
    if any(options[name] != defaults[name] for name in left):
        told.append(repr(part))
    return "".join(f", {one}" for one in told)


def _choice(chosen: list[dict[str, Any]]) -> str:
    """Options of a row that no model needs, as the seeds chose them, and by what."""
    said = []
    for option in chosen[0]["options"]:
        values = dict.fromkeys(one["options"][option] for one in chosen)
        told = " or ".join(f"{value:.3g}" if isinstance(value, float) else str(value) for value in values)
        said.append(f"{option.replace('_', ' ')} {told}")
    return f"{', '.join(said)}, chosen by {chosen[0]['by']}"
