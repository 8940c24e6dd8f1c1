"""Which way of removing popularity is the most accurate where the lists are equally popular?"""

from dataclasses import dataclass
from typing import Any, ClassVar

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
)
from fastpop.studies.models import factor_options
from fastpop.studies.study import Answer, Setting, Study

OF_TRAINING = ("frozen", "PDA", "ReSN", "IPS", "DICE")
OTHERS = ("post-hoc-fitted", "projected", *OF_TRAINING)
TRAINED = ("standard", *OF_TRAINING)


@dataclass(frozen=True)
class Frontier(Study):
    """NDCG@10 against the popularity of the lists over beta: what is made of a standard model afterwards,
    log p outside in training, and PDA, ReSN, IPS and DICE, all with matrix factorisation or with the encoder
    that is asked for.

    resn: weight of the regulariser. power: of the propensities (count / largest count)^power of IPS.
    """

    name: ClassVar[str] = "frontier"
    question: ClassVar[str] = (
        "Which way of removing popularity is most accurate at equal popularity of lists?"
    )
    resn: float = 1e-4
    power: float = 0.5

    def methods(self, powers: tuple[float, ...] = POWERS) -> list[Method]:
        none: dict[str, Any] = {"prior": "none"}
        pda = injected("PDA", powers)
        return [
            Method("standard", none, afterwards),
            Method("frozen", {"prior": "frozen"}, over_beta("frozen")),
            Method("pda", none | {"loss": Pda(), "proposal": "uniform"}, pda, judge=pda),
            Method("resn", none | {"regularizers": (ReSN(weight=self.resn),)}, over_beta("ReSN")),
            Method("ips", none, over_beta("IPS"), self.power),
            Method("dice", none | {"loss": DICE(), "proposal": "uniform"}, halves("DICE")),
        ]

    def run(self, setting: Setting) -> Answer:
        arena = Arena.of(setting, metric=NDCG, **factor_options(setting))
        rows: list[Row] = []
        for method in self.methods(arena.powers):
            for seed in range(setting.seeds):
                rows += run_of(setting, arena, method, seed)
        title = f"{setting.log_name}, {setting.seeds} seeds"
        curves = Curves(rows, arena.references(), OTHERS, TRAINED, title)
        values = curves.values()
        return Answer(
            values, tuple(curves.sentences(values)), tuple(curves.tables(values)), curves.charts("frontier")
        )
