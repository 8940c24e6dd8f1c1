"""Every method of the field that has a recipe, on one log: accuracy against the popularity of the lists."""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from fastpop import recipes, registry
from fastpop.experiments.arms import BEST
from fastpop.experiments.findings import MIN_SEEDS
from fastpop.objectives import Pda
from fastpop.stats import mean_interval
from fastpop.studies.curves import AS_TRAINED, NDCG, READINGS, listed
from fastpop.studies.methods import Arena, Method, Row, as_trained, injected, run_of, validated
from fastpop.studies.study import Answer, Chart, Series, Setting, Study, Table, excludes, of_seeds, told
from fastpop.training import TrainConfig, TrainingDiverged

REFERENCES = ("popularity", "recency", "markov", "ease")
# The same for all: epochs, what is read of histories, and how many step sizes are tried with one seed.
BUDGET: dict[str, Any] = {"epochs": 10, "valid_cases": 2000}
QUICK_BUDGET: dict[str, Any] = {"epochs": 1, "dim": 8, "max_length": 20, "batch_size": 256}
TRIES, QUICK_TRIES = (1.0, 3.0, 10.0), (1.0,)  # times the recipe's own step size


@dataclass(frozen=True)
class Baselines(Study):
    """All recipes that a log lets train, each with the same budget: three step sizes, its own times 1, 3 and
    10, the best by the validation part with one seed, then all seeds.

    only: names of recipes; none: all that there are.
    """

    name: ClassVar[str] = "baselines"
    sets: ClassVar[tuple[str, ...]] = ("prior", "encoder", "loss", "learning_rate", "metric")
    question: ClassVar[str] = (
        "How accurate and how popular are the lists of the field's methods, and of counts?"
    )
    reads_shown: ClassVar[bool] = True
    only: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in self.only:
            registry.find("recipe", name, "baselines.only")

    def run(self, setting: Setting) -> Answer:
        arena = Arena.of(setting, metric=NDCG)
        found: dict[str, list[Row]] = {}
        values: dict[str, float] = {}
        left_out: dict[str, list[str]] = {}
        for name in self.only or tuple(registry.available("recipes")):
            try:
                rate, rows = _of_recipe(setting, arena, name)
            except (ValueError, TrainingDiverged) as error:
                left_out.setdefault(str(error).partition(";")[0], []).append(name)
                continue
            found[name] = rows
            values[f"{name}.rate"] = rate
        references = {name: row for name, row in arena.references(REFERENCES).items() if NDCG in row}
        values |= _values(found, references)
        sentences = _sentences(values, found, references)
        if left_out:
            said = "; ".join(f"{listed(names)} ({why})" for why, names in left_out.items())
            sentences.append(f"Left out, for they diverged or this log lacks what they need: {said}.")
        return Answer(
            values,
            tuple(sentences),
            tuple(_table(values, list(found), list(references), epochs, setting) for epochs in READINGS),
            tuple(_chart(values, list(found), list(references), epochs, setting) for epochs in READINGS),
        )


def _of_recipe(setting: Setting, arena: Arena, name: str) -> tuple[float, list[Row]]:
    """(the step size that the validation part chose with the first seed, rows of all seeds)."""
    options = dict(recipes.find(name).options)
    budget = QUICK_BUDGET if setting.quick else BUDGET
    config = TrainConfig.from_dict(options).replace(**{**budget, **setting.options}, metric=NDCG)
    loss = config.loss_part
    serve, judge = as_trained(name), None
    if isinstance(loss, Pda):
        prior = config.prior_part
        power = loss.power + (prior.prior_weight if prior.trained else 0.0)
        serve = judge = injected(name, (power,), power)
    tried: dict[float, list[Row]] = {}
    failed: TrainingDiverged | None = None
    for times in QUICK_TRIES if setting.quick else TRIES:
        rate = config.learning_rate * times
        method = Method(name, {"learning_rate": rate}, serve, judge=judge, config=config)
        try:
            tried[rate] = run_of(setting, arena, method, 0, f"{name}-times-{times:g}")
        except TrainingDiverged as error:
            failed = error
    if not tried:
        assert failed is not None
        raise failed
    best = max(tried, key=lambda rate: validated(tried[rate]))
    method = Method(name, {"learning_rate": best}, serve, judge=judge, config=config)
    rows = list(tried[best])
    for seed in range(1, setting.seeds):
        rows += run_of(setting, arena, method, seed)
    return best, rows


def _served(rows: list[Row], epochs: str, key: str) -> list[float]:
    return [row["values"][key] for row in rows if row["epochs"] == epochs and key in row["values"]]


def _values(found: dict[str, list[Row]], references: dict[str, dict[str, float]]) -> dict[str, float]:
    """As trained: "best.sasrec.ndcg", .arp, .coverage, .epoch; on a randomised test part .auc and .ndcg5."""
    keys = {**AS_TRAINED, "epoch": "epoch", "auc": "auc_shown", "ndcg5": "ndcg_shown@5"}
    values: dict[str, float] = {}
    for name, row in references.items():
        values |= {f"{name}.{short}": row[key] for short, key in keys.items() if key in row}
    for epochs in READINGS:
        for name, rows in found.items():
            for short, key in keys.items():
                each = _served(rows, epochs, key)
                if each:
                    values |= of_seeds(f"{epochs}.{name}.{short}", each)
    return values


def undominated(found: dict[str, list[Row]], epochs: str = BEST) -> list[str] | None:
    """Methods that no other beats in both, a higher NDCG@10 and a lower ARP, each with the whole interval of
    the difference paired over seeds. None: too few runs."""
    names = list(found)
    ndcg, arp = ({name: np.array(_served(found[name], epochs, key)) for name in names} for key in _AXES)
    if any(len(each) < MIN_SEEDS for each in ndcg.values()):
        return None

    def beats(one: str, other: str) -> bool:
        _, low, _ = mean_interval(ndcg[one] - ndcg[other])
        _, _, high = mean_interval(arp[one] - arp[other])
        return low > 0 and high < 0

    return [name for name in names if not any(beats(other, name) for other in names if other != name)]


_AXES = (NDCG, "arp@10")


def _sentences(
    values: dict[str, float], found: dict[str, list[Row]], references: dict[str, dict[str, float]]
) -> list[str]:
    top = max(found, key=lambda name: values[f"{BEST}.{name}.ndcg"])
    said = [
        f"Of {len(found)} recipes, each at its own best epoch, {top} has the highest mean NDCG@10, "
        f"{told(values, f'{BEST}.{top}.ndcg', 4)}."
    ]
    kept = undominated(found)
    if kept is None:
        said.append("Too few runs to say which recipes no other beats.")
    else:
        said.append(f"No other recipe shows less popular lists and is more accurate than {listed(kept)}.")
    if references:
        best = max(references, key=lambda name: values[f"{name}.ndcg"])
        counts = values[f"{best}.ndcg"]
        sides = {name: excludes(values, f"{BEST}.{name}.ndcg", counts) for name in found}
        above = [name for name, side in sides.items() if side == 1]
        more = f"with the whole interval above it: {listed(above) if above else 'none'}"
        if None in sides.values():
            more = "too few runs to say what is above it"
        said.append(f"Of the rows that no model needs {best} has the highest NDCG@10, {counts:.4f}; {more}.")
    return said


def _table(
    values: dict[str, float], names: list[str], references: list[str], epochs: str, setting: Setting
) -> Table:
    shown = f"{epochs}.{names[0]}.auc" in values
    more = ("auc", "ndcg5") if shown else ("coverage",)
    order = sorted(names, key=lambda name: -values[f"{epochs}.{name}.ndcg"])
    rows: list[tuple[Any, ...]] = [
        (
            name,
            f"{values[f'{name}.rate']:g}",
            f"{values[f'{epochs}.{name}.epoch']:.1f}",
            told(values, f"{epochs}.{name}.ndcg", 4),
            *(values[f"{epochs}.{name}.{short}"] for short in ("arp", *more)),
        )
        for name in order
    ]
    rows += [
        (
            name,
            "-",
            "-",
            f"{values[f'{name}.ndcg']:.4f}",
            *(values.get(f"{name}.{s}", "-") for s in ("arp", *more)),
        )
        for name in references
    ]
    return Table(
        f"As trained, {READINGS[epochs]}: {setting.log_name}, {setting.seeds} seeds",
        ("method", "step", "epoch", "NDCG@10", "ARP", *(("AUC", "NDCG@5") if shown else ("coverage",))),
        tuple(rows),
    )


def _chart(
    values: dict[str, float], names: list[str], references: list[str], epochs: str, setting: Setting
) -> Chart:
    points = []
    for name in names:
        key = f"{epochs}.{name}"
        low, high = (
            (values[f"{key}.ndcg{end}"],) if f"{key}.ndcg{end}" in values else () for end in (".low", ".high")
        )
        points.append(Series(name, (values[f"{key}.arp"],), (values[f"{key}.ndcg"],), low, high))
    points += [
        Series(name, (values[f"{name}.arp"],), (values[f"{name}.ndcg"],), dashed=True) for name in references
    ]
    return Chart(
        f"baselines-{epochs}",
        f"{setting.log_name}, {READINGS[epochs]}, {setting.seeds} seeds",
        "ARP@10: mean training events of the items shown",
        "NDCG@10",
        tuple(points),
        log_x=True,
        joined=False,
    )
