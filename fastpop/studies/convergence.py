"""How soon does a model know what it will know, with and without log p outside?"""

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from fastpop import checks
from fastpop.data.interactions import Interactions
from fastpop.data.split import event_halves
from fastpop.experiments import compare
from fastpop.studies.models import model_options
from fastpop.studies.study import Answer, Chart, Series, Setting, Study, Table, excludes, of_seeds, told
from fastpop.training import TrainConfig, build
from fastpop.training.run import make_split

ARMS = ("standard", "frozen", "learned-from-log-p")
GAIN = 0.95


@dataclass(frozen=True)
class Convergence(Study):
    """Epochs until an arm's validation NLL has 95 % of the best gain over log p alone, by share of the log.

    shares: of the log's users, in percent.
    """

    name: ClassVar[str] = "convergence"
    sets: ClassVar[tuple[str, ...]] = ("prior", "patience", "evaluate_every")
    question: ClassVar[str] = "How long does a model take to learn popularity, and what does giving it save?"
    shares: tuple[int, ...] = (10, 30, 100)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.shares:
            raise checks.wrong("convergence.shares", "at least one number", self.shares)
        for share in self.shares:
            checks.number("convergence.shares", share, ge=1, le=100, integer=True)

    def run(self, setting: Setting) -> Answer:
        values: dict[str, float] = {}
        charts, rows, sentences = [], [], []
        for share in (100,) if setting.quick else self.shares:
            log = some_users(setting.log, share)
            compared = self._compared(setting, log, share)
            floors = [_popularity_nll(log, compared, seed) for seed in range(setting.seeds)]
            best = _best(compared)
            values[f"{share}.gained"] = float(sum(best[seed] < floor for seed, floor in enumerate(floors)))
            needed = {arm: _needed(compared, arm, floors, best) for arm in ARMS}
            for arm, each in needed.items():
                values |= _known(f"{share}.epochs.{arm}", each)
            ratio = [a / b for a, b in zip(needed["standard"], needed["frozen"])]
            values |= _known(f"{share}.ratio", ratio)
            rows.append((f"{share} %", *(_epochs(values, f"{share}.epochs.{arm}") for arm in ARMS)))
            charts.append(_chart(compared, floors, share))
            sentences.append(_sentence(values, share, setting.seeds))
        table = Table(
            f"Epochs until log p alone + {GAIN:.0%} of the best gain, {setting.log_name}, "
            f"means of {setting.seeds} seeds",
            ("share of users", *ARMS),
            tuple(rows),
        )
        return Answer(values, tuple(sentences), (table,), tuple(charts))

    def _compared(self, setting: Setting, log: Interactions, share: int) -> dict[str, Any]:
        options = {**model_options(setting), "patience": 3, "evaluate_every": 1}
        loss = options.get("loss", TrainConfig.loss)
        if not TrainConfig(loss=loss).loss_part.logits:
            raise checks.wrong(
                "loss", "one whose scores are logits, for convergence is read off the NLL", loss
            )
        epochs = options["epochs"]
        place = setting.part(f"share-{share}")
        found = compare(
            log,
            arms=ARMS,
            seeds=setting.seeds,
            popularity_weights=(0.0, 0.5, 1.0),
            permutations=10,
            max_epochs=max(epochs, 2 * epochs if setting.quick else 3 * epochs),
            max_cases=50,
            name=f"{setting.log_name}, {share} % of the users",
            out=place,
            progress=setting.progress,
            **options,
        )
        setting.lap()
        return dict(found.comparison)


def some_users(log: Interactions, percent: int) -> Interactions:
    """Every event of a share of the users, spread evenly; the catalogue stays."""
    if percent >= 100:
        return log
    kept_U = np.floor(np.arange(1, log.num_users + 1) * percent / 100) > np.floor(
        np.arange(log.num_users) * percent / 100
    )
    return log.take(np.repeat(kept_U, np.diff(log.offsets)))


def _popularity_nll(log: Interactions, compared: dict[str, Any], seed: int) -> float:
    """NLL of log p alone, of the half that the seed's arms trained on, over the validation part."""
    config = TrainConfig.from_dict(compared["made_by"]["config"]).replace(seed=seed)
    parts = make_split(log, None, config)
    half = event_halves(parts.train, seed)[0]
    log_prior_V = build.target_prior(half, config.encoder_part, config.smoothing).log_prior_V
    assert parts.valid is not None
    target = np.asarray(parts.valid.target_item)
    return float(-log_prior_V[target].mean())


def _best(compared: dict[str, Any]) -> dict[int, float]:
    """By seed, the lowest validation NLL of any arm."""
    best: dict[int, float] = {}
    for curve in compared["curves"]:
        best[curve["seed"]] = min(best.get(curve["seed"], math.inf), *curve["nll"])
    return best


def _needed(compared: dict[str, Any], arm: str, floors: list[float], best: dict[int, float]) -> list[float]:
    """By seed, the epoch, with a fraction between two of them, at which an arm first gets there; infinite
    where it does not, or where no arm gains anything over log p alone."""
    found = []
    for curve in compared["curves"]:
        if curve["arm"] != arm:
            continue
        seed = curve["seed"]
        goal = floors[seed] - GAIN * (floors[seed] - best[seed])
        gained = best[seed] < floors[seed]
        found.append(first_below(curve["epoch"], curve["nll"], goal) if gained else math.inf)
    return found


def first_below(epoch: list[int], nll: list[float], goal: float) -> float:
    """Where a line through the points first reaches a goal from above; the first may be there already."""
    for place, value in enumerate(nll):
        if value <= goal:
            if place == 0:
                return float(epoch[0])
            before = nll[place - 1]
            return epoch[place - 1] + (before - goal) / (before - value) * (epoch[place] - epoch[place - 1])
    return math.inf


def _known(name: str, each: list[float]) -> dict[str, float]:
    """Means over seeds, where every seed got there."""
    reached = sum(map(math.isfinite, each))
    found = {f"{name}.reached": float(reached)}
    return found | (of_seeds(name, each) if reached == len(each) else {})


def _epochs(values: dict[str, float], name: str) -> str:
    return told(values, name, 1) if name in values else f"{values[name + '.reached']:.0f} runs got there"


_VERDICTS = {
    1: "more epochs than frozen",
    -1: "fewer epochs than frozen",
    0: "epochs that cannot be told from frozen's",
    None: "(too few runs to tell)",
}


def _sentence(values: dict[str, float], share: int, runs: int) -> str:
    name = f"{share}.ratio"
    if name not in values:
        names = {arm: f"{share}.epochs.{arm}" for arm in ARMS}
        there = ", ".join(
            f"{arm} in {values[f'{name}.reached']:.0f} of {runs} runs"
            + (f" after {told(values, name, 1)} epochs" if name in values else "")
            for arm, name in names.items()
        )
        gained = values.get(f"{share}.gained", runs)
        if gained < runs:
            return (
                f"{share} % of the users: in {runs - gained:.0f} of {runs} runs no arm has a lower "
                "validation NLL than log p alone, so that there is no gain to reach."
            )
        return (
            f"{share} % of the users: 95 % of the best arm's gain over popularity is reached, before "
            f"patience or three times the epochs end a run, by {there}."
        )
    verdict = _VERDICTS[excludes(values, name, 1.0)]
    return (
        f"{share} % of the users: to know 95 % of the best gain over popularity standard needs {verdict}, "
        f"{told(values, name, 2)} times as many."
    )


def _chart(compared: dict[str, Any], floors: list[float], share: int) -> Chart:
    lines = []
    for arm in ARMS:
        curves = [curve for curve in compared["curves"] if curve["arm"] == arm]
        length = min(len(curve["epoch"]) for curve in curves)
        mean = np.mean([curve["nll"][:length] for curve in curves], axis=0)
        lines.append(Series(arm, tuple(map(float, curves[0]["epoch"][:length])), tuple(mean.tolist())))
    ends = (min(line.x[0] for line in lines), max(line.x[-1] for line in lines))
    lines.append(Series("log p alone", ends, (float(np.mean(floors)),) * 2, dashed=True))
    title = f"Validation NLL, {share} % of the users"
    return Chart(f"convergence-{share}", title, "epoch", "NLL, nats", tuple(lines))
