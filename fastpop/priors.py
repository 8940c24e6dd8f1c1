"""How popularity stands beside the learned part s, in training and at serving. One contract, `Prior`."""

from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import numpy as np
from torch import Tensor

from fastpop import checks, deprecated, registry
from fastpop.components import Component
from fastpop.popularity import PopularityPrior, TemporalPrior


@dataclass(frozen=True)
class Prior(Component):
    """The base of popularity terms: trained on s + τ f, served as s + (β - offset) f, with τ = prior_weight
    and β = popularity_weight.

    f is a vector over items: log p, or what is learned in its place.
    offset: the β at which nothing is added to s: 1 where s itself holds popularity, since nothing was added
    in training.
    trained: whether f was added in training. refreshable: whether f is log p of counts, which today's may
    replace. bias_learning_rate: the step size of a learned f; 0: that of the tables. by_period: whether f is
    another for rows of another time: `temporal` says which in training, and the newest is served.
    """

    kind: ClassVar[str] = "prior"
    offset: ClassVar[float] = 0.0
    trained: ClassVar[bool] = True
    refreshable: ClassVar[bool] = False
    by_period: ClassVar[bool] = False

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if "tau" in cls.__dict__:  # overrides what is called prior_weight now
            deprecated.warn(f"{cls.__name__}.tau", f"{cls.__name__}.prior_weight")
            setattr(cls, "prior_weight", cls.__dict__["tau"])  # noqa: B010

    @property
    def prior_weight(self) -> float:
        """τ, the weight of f in training."""
        return 1.0

    tau = deprecated.attribute("tau", "prior_weight")

    @property
    def bias_learning_rate(self) -> float:
        return 0.0

    @property
    def trained_popularity_weight(self) -> float:
        """The β at which what is served is what was trained."""
        return self.prior_weight if self.trained else 1.0

    served_as_trained = deprecated.attribute("served_as_trained", "trained_popularity_weight")

    def log_prior(self, prior: PopularityPrior, seed: int) -> np.ndarray:
        """[V] nats: the log p that the model keeps."""
        return prior.log_prior_V

    def temporal(
        self,
        item_N: np.ndarray,
        time_N: np.ndarray,
        weight_N: np.ndarray | None,
        pooled: PopularityPrior,
        smoothing: str | float,
    ) -> TemporalPrior:
        """log p_t of the events that are trained on, where by_period is true.

        item_N: ids. time_N: seconds. weight_N: None: one each. pooled: log p of them all, by this smoothing.
        """
        raise NotImplementedError

    def served(self, temporal: TemporalPrior) -> PopularityPrior:
        """log p that stands beside the product until a fresher one replaces it, where by_period is true."""
        return temporal.newest()

    def bias(self, log_prior_V: Tensor) -> Tensor | None:
        """[V] where a learned f begins; None: nothing is learned, f is log p."""
        return None

    def term(self, log_prior_V: Tensor, bias_V: Tensor | None) -> Tensor:
        """[V] f."""
        return log_prior_V if bias_V is None else bias_V


@dataclass(frozen=True)
class NoPrior(Prior):
    """Trained on s, served as s + (β - 1) log p: β = 1 as trained, β = 0 post-hoc subtraction."""

    name: ClassVar[str] = "none"
    offset: ClassVar[float] = 1.0
    trained: ClassVar[bool] = False
    refreshable: ClassVar[bool] = True


@dataclass(frozen=True)
class _Weighted(Prior):
    weight: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.score_weight("prior.weight", self.weight)

    @property
    def prior_weight(self) -> float:
        return float(self.weight)


@dataclass(frozen=True)
class Frozen(_Weighted):
    """Trained on s + τ log p, served as s + β log p. weight: τ."""

    name: ClassVar[str] = "frozen"
    refreshable: ClassVar[bool] = True


@dataclass(frozen=True)
class ByPeriod(_Weighted):
    """Each row is trained on s + τ log p_t, t the period of the event that it predicts; served as
    s + β log p_T, T the newest period, until a fresher log p replaces it.

    log p_t shrinks the counts of a period towards those of all (`TemporalPrior`). Where histories tell the
    time, one log p for all periods leaves log p_t - log p for s to learn; this leaves nothing of it.
    weight: τ. periods: how many, of about equally many events; 1 is frozen. width: instead, the seconds of a
    period, counted from 1970 (UTC); 0: by periods. alpha: events that the pooled p is worth in each period;
    0: as leave-one-out finds, or, with half_life, the next period's likelihood.
    half_life: seconds. The counts of a period are then of all events up to its end, each halved in weight for
    every half_life of its age there, so that many short periods do not starve; 0: of its own events alone.
    `recency_counts` chooses one. drift: what is served goes on as it went from the last period but one to the
    last, this much of that step again (`TemporalPrior.newest`); 0: log p_T.
    Rows of every period see the draws of the same step; with group_size, groups are of one period's rows.
    Raises (of a run): ValueError for a log without times, for rows that do not say when their targets are,
    and for losses that compare the rows of a batch.
    Cost: the loss once for each period in a batch; [T, V] float32, and 16 T V bytes while counting.
    """

    name: ClassVar[str] = "by-period"
    refreshable: ClassVar[bool] = True
    by_period: ClassVar[bool] = True
    periods: int = 12
    width: int = 0
    alpha: float = 0.0
    half_life: float = 0.0
    drift: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.number("prior.periods", self.periods, ge=1, integer=True)
        checks.number("prior.width", self.width, ge=0, integer=True)
        for name in ("alpha", "half_life", "drift"):
            checks.number(f"prior.{name}", getattr(self, name), ge=0)

    def temporal(
        self,
        item_N: np.ndarray,
        time_N: np.ndarray,
        weight_N: np.ndarray | None,
        pooled: PopularityPrior,
        smoothing: str | float,
    ) -> TemporalPrior:
        checks.number("prior.periods", self.periods, ge=1, le=len(item_N), integer=True)
        cut: dict[str, Any] = {"bucket": self.width} if self.width else {"num_buckets": self.periods}
        cut |= {"alpha": self.alpha or "loo", "half_life": self.half_life or None}
        found = TemporalPrior.from_events(
            item_N, time_N, pooled.num_items, weight=weight_N, smoothing=smoothing, **cut
        )
        if found.num_buckets > 1 or self.half_life:
            return found
        return replace(found, log_prior_TV=pooled.log_prior_V[None])  # nothing to shrink to beside itself

    def served(self, temporal: TemporalPrior) -> PopularityPrior:
        return temporal.newest(self.drift)


@dataclass(frozen=True)
class Permuted(_Weighted):
    """As frozen, with log p of randomly relabelled items: a control. weight: τ."""

    name: ClassVar[str] = "permuted"

    def log_prior(self, prior: PopularityPrior, seed: int) -> np.ndarray:
        return prior.permuted(seed).log_prior_V


@dataclass(frozen=True)
class Learned(Prior):
    """Trained on s + a, served as s + β a, a free item bias.

    start: where a begins. learning_rate: its step size; 0: that of the tables.
    """

    name: ClassVar[str] = "learned"
    start: Literal["zero", "log-prior"] = "zero"
    learning_rate: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.number("prior.learning_rate", self.learning_rate, ge=0)
        checks.float32("prior.learning_rate", self.learning_rate)

    @property
    def bias_learning_rate(self) -> float:
        return self.learning_rate

    def bias(self, log_prior_V: Tensor) -> Tensor:
        return log_prior_V.new_zeros(len(log_prior_V)) if self.start == "zero" else log_prior_V.clone()


registry.ours("prior", NoPrior, Frozen, ByPeriod, Permuted, Learned)
