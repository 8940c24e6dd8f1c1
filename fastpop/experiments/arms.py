"""What stands in the table of a comparison: arms that train, and what is made of `standard` afterwards."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from fastpop import checks, registry
from fastpop.data import columns
from fastpop.diagnostics import ScoreMoments
from fastpop.popularity.prior import unit_direction

STANDARD, POST_HOC = "standard", "post-hoc"


@dataclass(frozen=True)
class Arm:
    """One row of the table: one that trains, one that is made of the trained standard model afterwards, or
    (ours alone) one that needs no model. `fastpop.register("arm", Arm(...))` makes one known to `compare`.

    name: of the row. trained_on, served_as: in words, s the learned part: "s + tau log p".
    prior: of one that trains: what stands beside the dot product, as in TrainConfig; "" for the others.
    log_prior: which popularity that is: "A", from the events that the arms train on; "B", from the other
    half; "permuted", A's on randomly relabelled items. bias_start: of a learned bias, as in TrainConfig.
    make: of one made afterwards: from the moments of the standard scores and log p [V] of half A to the
    moments of its own at beta 0, over the same queries; beta log p is added when it is served.
    """

    name: str
    trained_on: str
    served_as: str
    prior: str = ""
    log_prior: str = "A"
    bias_start: str = "zero"
    make: Callable[[ScoreMoments, np.ndarray], ScoreMoments] | None = None

    def __post_init__(self) -> None:
        for name in ("name", "trained_on", "served_as", "prior"):
            if not isinstance(getattr(self, name), str):
                raise checks.wrong_type(f"arm.{name}", "a string", getattr(self, name))
        checks.one_of("arm.log_prior", self.log_prior, ("A", "B", "permuted"))
        checks.one_of("arm.bias_start", self.bias_start, ("zero", "log-prior"))
        if self.make is not None and (self.prior or not callable(self.make)):
            raise checks.wrong("arm.make", "a function, of an arm that does not train", self.make)

    @property
    def kind(self) -> str:
        """ "trained", "afterwards" or "reference"."""
        return "trained" if self.prior else "afterwards" if self.make is not None else "reference"

    def options(self) -> dict[str, Any]:
        """Of TrainConfig, of one that trains."""
        return {"prior": self.prior} | ({"bias_start": self.bias_start} if self.bias_start != "zero" else {})

    def made(self, moments: ScoreMoments, log_prior_V: np.ndarray) -> ScoreMoments:
        """`make`, checked. Raises TypeError, ValueError for no score of the same queries and items."""
        assert self.make is not None
        found = self.make(moments, log_prior_V)
        if not isinstance(found, ScoreMoments):
            raise checks.wrong_type(f"make of the arm {self.name!r}", "ScoreMoments", found)
        if found.item_VD.shape != moments.item_VD.shape:
            raise checks.wrong(
                f"make of the arm {self.name!r}",
                f"an item table [{moments.num_items}, {moments.dim}]",
                found.item_VD,
            )
        if not np.array_equal(found.query_mean_D, moments.query_mean_D):
            raise checks.wrong(
                f"make of the arm {self.name!r}", "the standard model's queries", text="others"
            )
        return found


def subtracted(moments: ScoreMoments, log_prior_V: np.ndarray) -> ScoreMoments:
    """The scores minus log p."""
    return moments.with_popularity(-1, log_prior_V)


def subtracted_as_fitted(moments: ScoreMoments, log_prior_V: np.ndarray) -> ScoreMoments:
    """The scores minus their mean slope times log p."""
    return moments.with_popularity(-moments.energy(log_prior_V).slope_mean, log_prior_V)


def projected(moments: ScoreMoments, log_prior_V: np.ndarray) -> ScoreMoments:
    """The scores of an item table without the direction of log p."""
    b_V = unit_direction(log_prior_V)
    along_D = sum(b_V[at] @ item_vD for at, item_vD in moments.tables())
    item_VD = columns.DISK.empty_rows(moments.item_VD.shape, np.float64)
    for at, item_vD in moments.tables():
        item_VD[at] = item_vD - np.outer(b_V[at], along_D)
    return replace(moments, item_VD=item_VD)


def _named(*arms: Arm) -> dict[str, Arm]:
    return {arm.name: arm for arm in arms}


ARMS = _named(
    Arm(STANDARD, "s", "s", "none"),
    Arm("frozen", "s + tau log p", "s + beta log p", "frozen"),
    Arm("learned", "s + a, a learned from 0", "s + beta a", "learned"),
    Arm("learned-from-log-p", "s + a, a learned from log p", "s + beta a", "learned", bias_start="log-prior"),
    Arm(
        "permuted",
        "s + tau log p of shuffled items",
        "s + beta log p of shuffled items",
        "permuted",
        "permuted",
    ),
    Arm("disjoint", "s + tau log p from the other half", "s + beta log p from the other half", "frozen", "B"),
)
# Trained on request alone: not every log lets them train.
FURTHER = _named(
    Arm("by-period", "s + tau log p of the row's period", "s + beta log p of the newest period", "by-period")
)
# Made of the trained standard model, without training.
AFTERWARDS = _named(
    Arm(POST_HOC, "not trained: standard minus log p", "s + (beta - 1) log p", make=subtracted),
    Arm(
        "post-hoc-fitted",
        "not trained: standard minus its mean slope times log p",
        "s + (beta - slope) log p",
        make=subtracted_as_fitted,
    ),
    Arm(
        "projected",
        "not trained: standard, its item table without the direction of log p",
        "s without log p + beta log p",
        make=projected,
    ),
)
ITEM_MEAN = "item-mean"  # the row beside a randomised test part, where there are ratings
ALL = ARMS | FURTHER | AFTERWARDS | _named(Arm(ITEM_MEAN, "mean rating of the item", "ratings"))
registry.ours("arm", *ARMS.values(), *FURTHER.values(), *AFTERWARDS.values())
EQUAL, BEST = "equal", "best"  # readings of a trained arm: at one epoch for all, at its own best one


def arm_of(name: str) -> Arm:
    """The arm of a row, ours or one that was registered. Raises ValueError where there is none."""
    if isinstance(name, str) and name in ALL:
        return ALL[name]
    found = registry.find("arm", name, "arms")
    return replace(found() if isinstance(found, type) else found, name=name)
