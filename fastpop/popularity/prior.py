"""The popularity prior: counts of training events to log p(i), once, frozen."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fastpop import checks
from fastpop.frozen import freeze
from fastpop.ops.alias_draw import words
from fastpop.popularity.smoothing import (
    Events,
    additive,
    apply_min_count,
    check_counts,
    loo_range,
    smooth_counts,
)
from fastpop.popularity.store import read_arrays, write_arrays
from fastpop.stats import popularity_direction
from fastpop.text import aligned

if TYPE_CHECKING:
    from fastpop.data import Interactions

DEFAULT_ALPHAS = (0.01, 0.1, 0.5, 1.0, 2.0, 10.0)
# A step that no training run reaches: relabelling shares no words with draws of the same seed.
_PERMUTE_STEP = 2**64 - 1


@dataclass(frozen=True, eq=False, repr=False)
class PopularityPrior:
    """log p(i) of every item, with the counts it came from. Arrays are read-only.

    counts_V: float64 [V], as given. prior_V: float64 [V], > 0, sums to 1. log_prior_V: float64 [V],
    nats. smoothing: "loo", "additive", "good-turing", or "hierarchical" (`TemporalPrior.newest`). alpha:
    pseudo-count of each item, of all together for hierarchical, None for good-turing. min_count: items with
    fewer events were taken as unseen. facts: JSON-able.
    """

    counts_V: np.ndarray
    prior_V: np.ndarray
    log_prior_V: np.ndarray
    alpha: float | None
    smoothing: str
    min_count: float = 0.0
    facts: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        freeze(self, "counts_V", "prior_V", "log_prior_V", "facts")

    @classmethod
    def from_counts(
        cls, counts: Any, smoothing: str | float = "loo", min_count: float = 0
    ) -> "PopularityPrior":
        """log((counts + alpha) / (counts.sum() + alpha * V)).

        counts: [V] numbers >= 0, not all zero (weighted events may be fractional).
        smoothing: alpha >= 0; "loo" takes the alpha under which each event is best predicted from
            the others (`loo_alpha`: an event weighs 1, and what a count has beyond a whole number is
            one event of that weight); "good-turing" is Simple Good-Turing.
        min_count: items with fewer events count as unseen.
        Raises: ValueError for negative, NaN, infinite or all-zero counts, for a zero count with
            alpha = 0, and where good-turing has too little to go by.
        Cost: O(V log V).
        """
        return cls._of(check_counts(counts), smoothing, min_count, None)

    @classmethod
    def _of(
        cls, count_V: np.ndarray, smoothing: str | float, min_count: float, events: Events | None
    ) -> "PopularityPrior":
        prior_V, alpha = smooth_counts(count_V, smoothing, min_count, events)
        kind = smoothing if isinstance(smoothing, str) else "additive"
        rare = (count_V > 0) & (count_V < min_count)
        facts: dict[str, Any] = {
            "num_events": float(count_V.sum()),
            "num_unseen": int((count_V == 0).sum()),
            "num_below_min_count": int(rare.sum()),
            "unseen_mass": float(prior_V[(count_V == 0) | rare].sum()),
        }
        if smoothing == "loo":
            facts["alpha_range"] = list(loo_range(apply_min_count(count_V, min_count), events))
        return cls(count_V, prior_V, np.log(prior_V), alpha, kind, float(min_count), facts)

    @classmethod
    def from_interactions(
        cls,
        log: "Interactions",
        smoothing: str | float = "loo",
        min_count: float = 0,
        *,
        first_events: bool = True,
    ) -> "PopularityPrior":
        """from_counts(log.item_counts(first_events=...), ...): give it the training part, never the
        whole log.

        Where events have weights "loo" leaves out each by its own weight, so that alpha is in their
        unit. first_events=False leaves out each user's first event, which no sequence encoder predicts.
        """
        count_V = check_counts(log.item_counts(first_events=first_events))
        if log.weight is None or smoothing != "loo":
            return cls._of(count_V, smoothing, min_count, None)
        item_N, weight_N = log.item, log.weight
        if not first_events:
            later = np.ones(log.num_events, dtype=bool)
            later[log.offsets[:-1][np.diff(log.offsets) > 0]] = False
            item_N, weight_N = item_N[later], weight_N[later]
        return cls._of(count_V, smoothing, min_count, Events.of(item_N, weight_N))

    @property
    def num_items(self) -> int:
        return self.counts_V.shape[0]

    @property
    def num_events(self) -> float:
        return float(self.counts_V.sum())

    @property
    def num_unseen(self) -> int:
        """Items without any event."""
        return int((self.counts_V == 0).sum())

    @property
    def is_flat(self) -> bool:
        """Whether log p differs by less than 0.001 nats over all items: counts that are equal, or so
        nearly that smoothing by leave-one-out makes them so. It has no direction worth the name."""
        return bool(np.ptp(self.log_prior_V) < 1e-3)

    @property
    def at_bound(self) -> str | None:
        """Where a fitted alpha ran to an end of its range, with which log p then moves: "upper" (counts
        differ by no more than chance, so nothing says which items are popular) or "lower" (no item was
        seen just once, so nothing says how likely the unseen ones are). Else None; so also at the
        lower end where every item was seen, since log p hardly hangs on alpha there."""
        if self.smoothing != "loo" or self.alpha is None or "alpha_range" not in self.facts:
            return None
        used_V = apply_min_count(self.counts_V, self.min_count)
        low, high = self.facts["alpha_range"]
        if self.alpha >= high * (1 - 1e-9):
            return "upper"
        if self.alpha <= low * (1 + 1e-9) and not used_V.all():
            return "lower"
        return None

    def direction(self) -> np.ndarray:
        """b = H log p / ||H log p||, H = I - 11'/V: float64 [V], sums to 0, norm 1.

        Raises: ValueError when p is uniform, which has no direction.
        """
        return unit_direction(self.log_prior_V)

    def sensitivity(self, alphas: Any = None) -> "AlphaSensitivity":
        """How far the direction of log p turns with the smoothing: cosines with this prior's own.

        alphas: pseudo-counts >= 0 to try (default .01 to 10, without 0).
        """
        alpha_A = checks.float_array("alphas", DEFAULT_ALPHAS if alphas is None else alphas, 1)
        used_V = apply_min_count(self.counts_V, self.min_count)
        own_V = self.direction()
        cosines = []
        for alpha in alpha_A.tolist():
            checks.number("alphas", alpha, ge=0)
            b_V = unit_direction(np.log(additive(used_V, alpha)))
            cosines.append(float(own_V @ b_V))
        unseen_share = float((used_V == 0).mean())
        return AlphaSensitivity(tuple(alpha_A.tolist()), tuple(cosines), self.alpha, unseen_share)

    def permuted(self, seed: int) -> "PopularityPrior":
        """The same probabilities on other items: a fixed random relabelling of this prior.

        The relabelling depends on the seed and V alone (not on numpy's version).
        """
        checks.number("seed", seed, ge=0, le=2**64 - 1, integer=True)
        key_V2 = words(int(seed), _PERMUTE_STEP, 0, 0, self.num_items).astype(np.uint64)
        order = np.argsort((key_V2[:, 0] << np.uint64(32)) | key_V2[:, 1], kind="stable")
        facts = {**self.facts, "permuted_seed": int(seed)}
        return PopularityPrior(
            self.counts_V[order],
            self.prior_V[order],
            self.log_prior_V[order],
            self.alpha,
            self.smoothing,
            self.min_count,
            facts,
        )

    def save(self, path: str | Path) -> None:
        """One safetensors file, written beside and then moved into place."""
        arrays, about = self.to_arrays()
        write_arrays(path, arrays, "popularity-prior", json.dumps(about))

    def to_arrays(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """(arrays by name, what JSON holds of the rest): all that `of_arrays` needs."""
        arrays = {name: getattr(self, name) for name in ("counts_V", "prior_V", "log_prior_V")}
        return arrays, {
            "alpha": self.alpha,
            "smoothing": self.smoothing,
            "min_count": self.min_count,
            "facts": self.facts,
        }

    @classmethod
    def of_arrays(cls, arrays: dict[str, np.ndarray], about: dict[str, Any]) -> "PopularityPrior":
        """Inverse of `to_arrays`, bit for bit."""
        return cls(
            arrays["counts_V"],
            arrays["prior_V"],
            arrays["log_prior_V"],
            about["alpha"],
            about["smoothing"],
            about["min_count"],
            about["facts"],
        )

    @classmethod
    def load(cls, path: str | Path) -> "PopularityPrior":
        """What `save` wrote, bit for bit.

        Raises: FileNotFoundError; ValueError for a file that is not one, or is damaged.
        """
        arrays, text = read_arrays(path, "popularity-prior")
        return cls.of_arrays(arrays, json.loads(text))

    def __repr__(self) -> str:
        alpha = "" if self.alpha is None else f", alpha={self.alpha:.4g}"
        return (
            f"PopularityPrior(num_items={self.num_items}, num_events={self.num_events:g}, "
            f"num_unseen={self.num_unseen}, smoothing={self.smoothing!r}{alpha})"
        )


@dataclass(frozen=True)
class AlphaSensitivity:
    """Cosines between the direction of log p at other alphas and the one chosen.

    alphas, cosines: one each. chosen_alpha: None for good-turing. unseen_share: items without
    (enough) events, as a share of the catalogue; the larger, the more the direction turns.
    """

    alphas: tuple[float, ...]
    cosines: tuple[float, ...]
    chosen_alpha: float | None
    unseen_share: float

    def table(self) -> str:
        """Plain text, at most 80 columns."""
        chosen = "good-turing" if self.chosen_alpha is None else f"alpha {self.chosen_alpha:.4g}"
        title = f"direction of log p against the one used ({chosen}, {self.unseen_share:.1%} unseen)"
        cells = [["alpha", "cosine"], *([f"{a:.4g}", f"{c:.4f}"] for a, c in zip(self.alphas, self.cosines))]
        return "\n".join([title, *aligned(cells, least=(10, 8), left=0)])


def unit_direction(log_prior_V: np.ndarray) -> np.ndarray:
    """Centred and of unit length. Raises ValueError where nothing is left after centring."""
    return popularity_direction(log_prior_V)[0]
