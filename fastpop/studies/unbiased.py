"""Do weights of 1/p make a recommender better where nobody chose what was shown?"""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from fastpop import propensity
from fastpop.experiments.arms import BEST, EQUAL, ITEM_MEAN, POST_HOC, STANDARD
from fastpop.studies.curves import NDCG, READINGS, Curves, listed
from fastpop.studies.methods import Arena, Method, Row, afterwards, over_beta, run_of
from fastpop.studies.models import factor_options
from fastpop.studies.study import (
    Answer,
    Chart,
    Series,
    Setting,
    Study,
    Table,
    exactly,
    excludes,
    give_or_take,
    of_seeds,
    told,
)
from fastpop.synthetic import Exposure, exposed_ratings

DRAWS, QUICK_DRAWS = 400, 40
ESTIMATORS = ("naive", "ips", "snips", "dr")
# What the comparison on Coat runs with: few events, of which nine tenths train.
FEW: dict[str, Any] = {
    "encoder": "factor",
    "dim": 16,
    "learning_rate": 0.005,
    "batch_size": 256,
    "num_negatives": 64,
    "epochs": 10,
}
SHOWN = {"auc": "auc_shown", "ndcg5": "ndcg_shown@5"}
WITHOUT = ("popularity", "recency", "markov", ITEM_MEAN)


@dataclass(frozen=True)
class Unbiased(Study):
    """Risks with true propensities on a world where all is known; then events weighted 1/p, p = (count /
    largest count)^power, in training: judged on a randomised test part where the log brings one, chosen by
    the biased held-out NLL, and otherwise where lists are equally popular.

    powers: of the propensities.
    """

    name: ClassVar[str] = "unbiased"
    sets: ClassVar[tuple[str, ...]] = ("prior", "metric")
    question: ClassVar[str] = "Do weights of 1/p help where nobody chose what was shown?"
    default_seeds: ClassVar[int] = 8
    reads_shown: ClassVar[bool] = True
    powers: tuple[float, ...] = (0.25, 0.5, 1.0)

    def run(self, setting: Setting) -> Answer:
        values, risks = exact_risks(world(), QUICK_DRAWS if setting.quick else DRAWS)
        sentence = _risk_words(values)
        if setting.shown is not None:
            more, said, tables, charts = self._on_shown(setting)
            return Answer(values | more, (sentence, *said), (risks, *tables), charts)
        curves = self._on_log(setting)
        more = curves.values()
        return Answer(
            values | more,
            (sentence, f"{setting.log_name} has no part that was shown at random.", *curves.sentences(more)),
            (risks, *curves.tables(more)),
            curves.charts("unbiased"),
        )

    def _methods(self) -> list[Method]:
        none = {"prior": "none"}
        return [
            Method("standard", none, afterwards),
            Method("frozen", {"prior": "frozen"}, over_beta("frozen")),
            *(Method(name, none, over_beta(name), power) for name, power in self._weighted().items()),
        ]

    def _weighted(self) -> dict[str, float]:
        return {f"IPS {exactly(power)}": power for power in self.powers}

    def _rows(self, setting: Setting, arena: Arena) -> list[Row]:
        rows: list[Row] = []
        for method in self._methods():
            for seed in range(setting.seeds):
                rows += run_of(setting, arena, method, seed, method.name.replace(" ", "-"))
        return rows

    def _on_log(self, setting: Setting) -> Curves:
        arena = Arena.of(setting, metric=NDCG, **factor_options(setting))
        arms = ("frozen", *self._weighted())
        title = f"{setting.log_name}, {setting.seeds} seeds"
        rows = self._rows(setting, arena)
        return Curves(rows, arena.references(), arms, (STANDARD, *arms), title)

    def _on_shown(
        self, setting: Setting
    ) -> tuple[dict[str, float], tuple[str, ...], tuple[Table, ...], tuple[Chart, ...]]:
        few = {} if setting.quick else {key: FEW[key] for key in FEW if key not in setting.options}
        arena = Arena.of(setting, metric="nll", **few)
        rows = self._rows(setting, arena)
        references = arena.references()
        arms = {STANDARD: 1.0, POST_HOC: 0.0, "frozen": 1.0, "frozen, beta 0": 0.0} | dict.fromkeys(
            self._weighted(), 1.0
        )
        values: dict[str, float] = {}
        for name, found in references.items():
            values |= {f"{name}.{short}": found[key] for short, key in SHOWN.items() if key in found}
        for epochs in READINGS:
            for label, weight in arms.items():
                arm = label.partition(",")[0]
                served = [
                    row["values"]
                    for row in rows
                    if (row["arm"], row["epochs"], row["popularity_weight"]) == (arm, epochs, weight)
                ]
                for short, key in {**SHOWN, "epoch": "epoch"}.items():
                    found_here = [one[key] for one in served]
                    values |= of_seeds(f"{epochs}.{label}.{short}", found_here)
                    if short in SHOWN and f"{ITEM_MEAN}.{short}" in values:
                        mean = values[f"{ITEM_MEAN}.{short}"]
                        values |= of_seeds(
                            f"{epochs}.{label} - {ITEM_MEAN}.{short}", [x - mean for x in found_here]
                        )
                    if short in SHOWN and label != STANDARD:
                        base = [
                            row["values"][key]
                            for row in rows
                            if (row["arm"], row["epochs"]) == (STANDARD, epochs)
                        ]
                        values |= of_seeds(
                            f"{epochs}.{label} - standard.{short}", np.subtract(found_here, base).tolist()
                        )
        said = tuple(_shown_words(values, references, list(arms), setting))
        tables = tuple(_shown_table(values, references, list(arms), epochs, setting) for epochs in READINGS)
        return values, said, tables, (_shown_chart(values, references, list(arms), setting),)


def world() -> Exposure:
    """Ratings of which some are seen, liked and favoured ones more, each with a chance that is known."""
    return exposed_ratings(by_value=0.8, by_item=0.7, seed=1)


def exact_risks(exposure: Exposure, draws: int) -> tuple[dict[str, float], Table]:
    """Over many draws of what is seen: how far each estimator's mean is from the risk of all pairs, in
    standard errors of one draw, and how often its 95 % interval holds that risk.

    The loss is the squared error of a model that says 3.4 of everything; what a doubly robust estimate
    imputes is 1 for every pair, so that the propensities alone have to be right.
    """
    loss_UV, p_UV = (exposure.rating_UV - 3.4) ** 2, exposure.propensity_UV
    full = float(loss_UV.mean())
    found: dict[str, list[propensity.RiskEstimate]] = {name: [] for name in ESTIMATORS}
    for seed in range(draws):
        seen = exposure.draw(seed)
        loss, p = loss_UV[seen], p_UV[seen]
        found["naive"].append(propensity.naive_risk(loss))
        found["ips"].append(propensity.ips_risk(loss, p, loss_UV.size))
        found["snips"].append(propensity.snips_risk(loss, p))
        found["dr"].append(propensity.doubly_robust_risk(loss, np.ones_like(loss), p, 1.0, loss_UV.size))
    values = {"risk": full, "draws": float(draws)}
    rows = []
    for name, each in found.items():
        error = np.array([one.value for one in each]) - full
        off = error / np.array([one.standard_error for one in each])
        inside = [low <= full <= high for low, high in (one.interval() for one in each)]
        values |= {
            f"{name}.bias": float(error.mean()),
            f"{name}.bias_se": float(error.std(ddof=1) / np.sqrt(draws)),
            f"{name}.off": float(off.mean()),
            f"{name}.covered": float(np.mean(inside)),
        }
        cells = (values[f"{name}.{short}"] for short in ("bias", "bias_se", "off", "covered"))
        rows.append((name, *(f"{cell:.3f}" for cell in cells)))
    return values, Table(
        f"Risk of all pairs ({full:.4f}) from those seen, true propensities, {draws} draws",
        ("estimator", "bias", "+- (1 SE)", "off in SE of a draw", "95 % intervals hold it"),
        tuple(rows),
    )


def _risk_words(values: dict[str, float]) -> str:
    right = [name for name in ESTIMATORS if abs(values[f"{name}.bias"]) < 3 * values[f"{name}.bias_se"]]
    wrong = [name for name in ESTIMATORS if name not in right]
    return (
        f"With true propensities, over {values['draws']:.0f} draws: within 3 standard errors of the risk of "
        f"all pairs on average: {listed(right) if right else 'none'}; further off: "
        f"{listed(wrong) if wrong else 'none'}. In standard errors of one draw naive is off by "
        f"{values['naive.off']:+.1f}, ips by {values['ips.off']:+.2f}."
    )


def _shown_words(
    values: dict[str, float], references: dict[str, dict[str, float]], arms: list[str], setting: Setting
) -> list[str]:
    found = []
    for short, metric in (("auc", "AUC"), ("ndcg5", "NDCG@5")):
        for base, words in ((ITEM_MEAN, "the mean rating of the item"), (STANDARD, "the standard model")):
            others = [arm for arm in arms if f"{BEST}.{arm} - {base}.{short}" in values]
            if not others:
                continue
            sides = {arm: excludes(values, f"{BEST}.{arm} - {base}.{short}") for arm in others}
            if None in sides.values():
                found.append(f"Items shown at random, {metric} against {words}: too few runs to say more.")
                continue
            said = [
                f"{what}: {listed([arm for arm in others if sides[arm] == side])}"
                for side, what in ((1, "above"), (0, "not told apart"), (-1, "below"))
                if side in sides.values()
            ]
            found.append(
                f"Items shown at random, {metric} against {words}, each at its own best epoch by the biased "
                f"held-out NLL: {'; '.join(said)}."
            )
    return found


def _shown_table(
    values: dict[str, float],
    references: dict[str, dict[str, float]],
    arms: list[str],
    epochs: str,
    setting: Setting,
) -> Table:
    rows: list[tuple[Any, ...]] = [
        (
            arm,
            f"{values[f'{epochs}.{arm}.epoch']:.1f}",
            *(told(values, f"{epochs}.{arm}.{short}") for short in SHOWN),
            give_or_take(values, f"{epochs}.{arm} - standard.auc", 3),
        )
        for arm in arms
    ]
    rows += [
        (name, "-", *(values.get(f"{name}.{short}", "-") for short in SHOWN), "-")
        for name in WITHOUT
        if name in references
    ]
    chosen = ", by the biased held-out NLL" if epochs != EQUAL else ""
    return Table(
        f"Items shown at random, with the difference of AUC to standard, {READINGS[epochs]}{chosen}: "
        f"{setting.log_name}, {setting.seeds} seeds",
        ("arm", "epoch", "AUC", "NDCG@5", "to standard"),
        tuple(rows),
    )


def _shown_chart(
    values: dict[str, float], references: dict[str, dict[str, float]], arms: list[str], setting: Setting
) -> Chart:
    lines = []
    for place, (epochs, words) in enumerate(READINGS.items()):
        y, low, high = (
            tuple(values[name + end] for arm in arms if (name := f"{epochs}.{arm}.auc") + end in values)
            for end in ("", ".low", ".high")
        )
        x = tuple(number + 0.2 * place - 0.1 for number in range(len(arms)))
        lines.append(Series(words, x, y, low, high))
    ends = (-0.4, len(arms) - 0.6)
    lines += [
        Series(name, ends, (values[f"{name}.auc"],) * 2, dashed=True)
        for name in WITHOUT
        if f"{name}.auc" in values
    ]
    return Chart(
        "unbiased-shown",
        f"Items shown at random, {setting.log_name}, {setting.seeds} seeds",
        "trained as",
        "pooled AUC",
        tuple(lines),
        ticks=tuple(arms),
        joined=False,
    )
