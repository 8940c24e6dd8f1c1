"""Distributions of negatives to choose from. One contract, `ProposalOptions`; what draws is a `Proposal`."""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from fastpop import checks, registry
from fastpop.components import Component
from fastpop.popularity.proposal import InBatch, Proposal, log_uniform, mixture, power, uniform
from fastpop.popularity.smoothing import check_counts


@dataclass(frozen=True)
class ProposalOptions(Component):
    """The base of proposals to choose from.

    in_batch: the negatives of a row are the other rows' positives, and `build` gives an InBatch; its counts
    are then those of an epoch's targets.
    """

    kind: ClassVar[str] = "proposal"
    in_batch: ClassVar[bool] = False

    @property
    def exponent(self) -> float | None:
        """α where negatives are drawn by p^α and nothing else, which a loss without log Q correction takes
        out of the scores; None for any other distribution."""
        return None

    def build(self, count_V: np.ndarray) -> Proposal | InBatch:
        """The distribution, of training counts [V]."""
        raise NotImplementedError


@dataclass(frozen=True)
class UniformProposal(ProposalOptions):
    """Every item alike."""

    name: ClassVar[str] = "uniform"

    def build(self, count_V: np.ndarray) -> Proposal:
        return uniform(len(count_V))


@dataclass(frozen=True)
class PopularityProposal(ProposalOptions):
    """By counts to the power `power`."""

    name: ClassVar[str] = "popularity"
    power: float = 0.75

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.float32("proposal.power", self.power)

    @property
    def exponent(self) -> float:
        return self.power

    def build(self, count_V: np.ndarray) -> Proposal:
        return power(count_V, self.power)


@dataclass(frozen=True)
class LogUniformProposal(ProposalOptions):
    """By the rank of popularity, as TensorFlow's candidate sampler draws."""

    name: ClassVar[str] = "log_uniform"

    def build(self, count_V: np.ndarray) -> Proposal:
        return log_uniform(count_V)


@dataclass(frozen=True)
class InBatchProposal(ProposalOptions):
    """The other rows' positives."""

    name: ClassVar[str] = "in_batch"
    in_batch: ClassVar[bool] = True

    @property
    def exponent(self) -> float:
        return 1.0

    def build(self, count_V: np.ndarray) -> InBatch:
        return InBatch.from_counts(count_V)


@dataclass(frozen=True)
class MixtureProposal(ProposalOptions):
    """Some of several distributions, as one with the mixture's true probabilities.

    parts, weights: which, and how much of each; without any, `uniform_share` uniform and the rest by
    counts to the power `power`, so that every item can be drawn and the head still often.
    """

    name: ClassVar[str] = "mixture"
    power: float = 0.75
    uniform_share: float = 0.5
    parts: tuple[ProposalOptions, ...] = ()
    weights: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.float32("proposal.power", self.power)
        checks.number("proposal.uniform_share", self.uniform_share, gt=0, le=1)
        for name in ("power", "uniform_share"):
            if self.parts and getattr(self, name) != getattr(type(self), name):
                raise checks.wrong(
                    f"proposal.{name}", "none beside parts, which have their own", getattr(self, name)
                )
        for at, part in enumerate(self.parts):
            if part.in_batch:
                raise checks.wrong_type(f"proposal.parts[{at}]", "a proposal that draws", text=f"{part}")
        if len(self.weights) != len(self.parts):
            raise checks.wrong(
                "proposal.weights", f"{len(self.parts)} numbers, one for each of parts", self.weights
            )
        for at, weight in enumerate(self.weights):
            checks.number(f"proposal.weights[{at}]", weight, gt=0)

    def build(self, count_V: np.ndarray) -> Proposal:
        parts: list[tuple[Any, float]] = [
            (part.build(count_V), weight) for part, weight in zip(self.parts, self.weights)
        ]
        if not parts:
            parts = [(uniform(len(count_V)), self.uniform_share)]
            if self.uniform_share < 1:
                parts.append((power(count_V, self.power), 1 - self.uniform_share))
        return mixture(parts)


registry.ours(
    "proposal", UniformProposal, PopularityProposal, LogUniformProposal, InBatchProposal, MixtureProposal
)


def proposal_from_name(
    name: str, counts: Any, *, alpha: float = 1.0, uniform_share: float = 0.5
) -> Proposal | InBatch:
    """The proposal that a configuration names, from training counts [V]: "uniform", "popularity"
    (counts**alpha), "log_uniform", "in_batch", "mixture" (uniform with chance `uniform_share`, else
    counts**alpha), or one that was registered, which takes of these options those that it has, where they are
    not at the defaults here."""
    part = registry.made(
        "proposal",
        name,
        options={"power": alpha, "uniform_share": uniform_share},
        defaults={"power": 1.0, "uniform_share": 0.5},
    )
    return part.build(check_counts(counts))
