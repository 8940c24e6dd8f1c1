"""Which way of removing popularity is the most accurate where the lists are equally popular?"""

from dataclasses import dataclass
from typing import Any, ClassVar

from fastpop import checks
from fastpop.objectives import DICE, Pda
from fastpop.regularizers import ReSN
from fastpop.studies.curves import NDCG, Curves
from fastpop.studies.methods import (
    POWERS,
    Arena,
    Method,
    Row,
    afterwards,
    halves,
    injected,
    over_beta,
    run_of,
    validated,
)
from fastpop.studies.models import factor_options
from fastpop.studies.study import Answer, Setting, Study, exactly

OF_TRAINING = ("frozen", "PDA", "ReSN", "IPS", "DICE")
OTHERS = ("post-hoc-fitted", "projected", *OF_TRAINING)
TRAINED = ("standard", *OF_TRAINING)
TRIED = {
    "pda": "PDA's power of popularity",
    "resn": "ReSN's weight",
    "ips": "the power of IPS",
    "dice": "DICE's margin",
}


@dataclass(frozen=True)
class Frontier(Study):
    """NDCG@10 against the popularity of the lists over beta: what is made of a standard model afterwards,
    log p outside in training, and PDA, ReSN, IPS and DICE, all with matrix factorisation or with the encoder
    that is asked for. What a method has of its own to choose is tried with the first seed, and the
    validation part takes the best as trained.

    resn: weights of the regulariser. ips: powers of the propensities (count / largest count)^power. pda:
    powers of popularity in training. dice: margins, in events.
    """

    name: ClassVar[str] = "frontier"
    sets: ClassVar[tuple[str, ...]] = ("prior", "metric")
    question: ClassVar[str] = (
        "Which way of removing popularity is most accurate at equal popularity of lists?"
    )
    resn: tuple[float, ...] = (1e-4, 1e-3, 1e-2)
    ips: tuple[float, ...] = (0.5, 0.25, 1.0)
    pda: tuple[float, ...] = (0.1, 0.05, 0.2)
    dice: tuple[float, ...] = (40.0, 10.0, 3.0)

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in TRIED:
            values = getattr(self, name)
            if not values:
                raise checks.wrong(f"frontier.{name}", "at least one number", values)
            for value in values:
                checks.number(f"frontier.{name}", value, ge=0)

    def methods(self, powers: tuple[float, ...] = POWERS) -> dict[str, dict[float, Method]]:
        """Of each name, by what is tried."""
        none: dict[str, Any] = {"prior": "none"}

        def pda(power: float) -> Method:
            serve = injected("PDA", tuple(sorted({*powers, power})), power)
            return Method("pda", none | {"loss": Pda(power=power), "proposal": "uniform"}, serve, judge=serve)

        def resn(weight: float) -> Method:
            return Method("resn", none | {"regularizers": (ReSN(weight=weight),)}, over_beta("ReSN"))

        def dice(margin: float) -> Method:
            loss = DICE(margin=margin)
            return Method("dice", none | {"loss": loss, "proposal": "uniform"}, halves("DICE"))

        return {
            "standard": {0.0: Method("standard", none, afterwards)},
            "frozen": {0.0: Method("frozen", {"prior": "frozen"}, over_beta("frozen"))},
            "pda": {power: pda(power) for power in self.pda},
            "resn": {weight: resn(weight) for weight in self.resn},
            "ips": {power: Method("ips", none, over_beta("IPS"), power) for power in self.ips},
            "dice": {margin: dice(margin) for margin in self.dice},
        }

    def run(self, setting: Setting) -> Answer:
        arena = Arena.of(setting, metric=NDCG, **factor_options(setting))
        rows: list[Row] = []
        chosen: dict[str, float] = {}
        for name, tries in self.methods(arena.powers).items():
            if setting.quick:
                tries = dict(list(tries.items())[:1])
            first = {
                value: run_of(setting, arena, tries[value], 0, f"{name}-{exactly(value)}") for value in tries
            }
            best = max(first, key=lambda value: validated(first[value]))
            rows += first[best]
            for seed in range(1, setting.seeds):
                rows += run_of(setting, arena, tries[best], seed, f"{name}-{exactly(best)}")
            if name in TRIED:
                chosen[f"{name}.chosen"] = best
        title = f"{setting.log_name}, {setting.seeds} seeds"
        curves = Curves(rows, arena.references(), OTHERS, TRAINED, title)
        values = curves.values() | chosen
        said = ", ".join(f"{what} {exactly(values[f'{name}.chosen'])}" for name, what in TRIED.items())
        sentences = (*curves.sentences(values), f"Chosen by the validation part with the first seed: {said}.")
        return Answer(values, sentences, tuple(curves.tables(values)), curves.charts("frontier"))
