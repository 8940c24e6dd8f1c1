"""What an audit found: frozen data, as text, as JSON, as a page."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from fastpop import checks, files
from fastpop.data.paths import local_path
from fastpop.diagnostics.diagnostic import Measured
from fastpop.diagnostics.direction import chance_under_p
from fastpop.diagnostics.geometry import Geometry
from fastpop.diagnostics.lists import TopLists
from fastpop.diagnostics.part import PartShare
from fastpop.diagnostics.significance import PermutationTest
from fastpop.diagnostics.table import audit_table
from fastpop.frozen import freeze
from fastpop.ops.energies import ScoreEnergy
from fastpop.popularity.prior import AlphaSensitivity
from fastpop.text import Tabled

NOT_CALIBRATED = "calibration not computed"


@dataclass(frozen=True, eq=False, repr=False)
class Audit(Tabled):
    """What `audit` found, over the items audited. Energies are squared scores, averaged over contexts:
    nats² where scores are logits.

    energy: along log p with uniform centring; energy_prior_centred: with scores and log p
    centred under the prior. test_direction, test_shared: permutation tests of the first.
    correlation: of the mean score with log p, in [-1, 1]; has no unit, so it can be read for scores
    that are no logits. logits: whether they are.
    lists: of the highest scores; None where not asked for or not to be had. lists_why: says which.
    shares: by least count of the items. unseen_energy: share of the total in scores of items without
    events.
    no_direction: why log p has no direction; None where it has. unseen: why unseen items carry the
    geometry; None where they do not.
    nll: nats, None when no targets were given ("calibration not computed"); nll_of: of what.
    mean_score_V: mean score of each item over contexts, centred; log_prior_V: nats.
    null: its name; null_words, null_note: what it draws, and what a small p does not say. measured: what the
    diagnostics that were asked for found.
    item_ids: [V] places of the items audited, None for the whole catalogue; part: in words.
    """

    energy: ScoreEnergy
    energy_prior_centred: ScoreEnergy
    test_direction: PermutationTest
    test_shared: PermutationTest
    geometry: Geometry
    sensitivity: AlphaSensitivity
    correlation: float
    logits: bool
    lists: TopLists | None
    lists_why: str | None
    shares: tuple[PartShare, ...]
    unseen_energy: float
    no_direction: str | None
    unseen: str | None
    nll: float | None
    nll_of: str
    num_contexts: int
    num_items: int
    dim: int
    weighting: str
    smoothing: str
    alpha: float | None
    seed: int
    null: str
    null_words: str
    null_note: str
    measured: tuple[Measured, ...]
    mean_score_V: np.ndarray
    log_prior_V: np.ndarray
    part: str
    item_ids: np.ndarray | None

    def __post_init__(self) -> None:
        freeze(self, "mean_score_V", "log_prior_V", "item_ids")

    @property
    def energy_total(self) -> float:
        """E_tot: mean squared norm of the centred scores of a context."""
        return self.energy.total

    @property
    def energy_direction(self) -> float:
        """E_dir: the part of it along log p; = energy_shared + energy_heterogeneous."""
        return self.energy.direction

    @property
    def energy_shared(self) -> float:
        """E_sh: the part of E_dir that all contexts share (square of the mean)."""
        return self.energy.shared

    @property
    def energy_heterogeneous(self) -> float:
        """E_het: the part of E_dir that differs between contexts (variance)."""
        return self.energy.heterogeneous

    @property
    def energy_off_direction(self) -> float:
        """E_off: what of E_tot log p has no part in; = energy_total - energy_direction."""
        return self.energy.off_direction

    @property
    def fraction_direction(self) -> float:
        """E_dir / E_tot."""
        return self.energy.fraction_direction

    @property
    def fraction_shared(self) -> float:
        """E_sh / E_tot."""
        return self.energy.fraction_shared

    @property
    def chance_level(self) -> float:
        """1 / (V - 1): exact mean of fraction_direction for a permuted log p."""
        return 1 / (self.num_items - 1)

    @property
    def chance_level_prior_centred(self) -> float:
        """The same for energy_prior_centred, whose share is larger by chance: see `chance_under_p`."""
        return chance_under_p(np.exp(self.log_prior_V), self.log_prior_V)

    @property
    def slope_mean(self) -> float:
        """Mean over contexts of the slope of the scores on log p."""
        return self.energy.slope_mean

    @property
    def slope_std(self) -> float:
        """Standard deviation over contexts of that slope."""
        return self.energy.slope_std

    @property
    def p_value_direction(self) -> float | None:
        """Permutation p-value of E_dir; None when no permutations were asked for."""
        return self.test_direction.p_value

    @property
    def p_value_shared(self) -> float | None:
        """Permutation p-value of E_sh; None when no permutations were asked for."""
        return self.test_shared.p_value

    @property
    def p_value_interval_direction(self) -> tuple[float, float] | None:
        """95 % Monte-Carlo interval of p_value_direction."""
        return self.test_direction.p_value_interval

    @property
    def p_value_interval_shared(self) -> tuple[float, float] | None:
        """95 % Monte-Carlo interval of p_value_shared."""
        return self.test_shared.p_value_interval

    @property
    def cautions(self) -> list[str]:
        """What to know before reading the numbers, one sentence each."""
        return [text for text in (self.no_direction, self.unseen) if text]

    @property
    def num_permutations(self) -> int:
        return self.test_direction.num_permutations

    @property
    def calibration(self) -> str:
        """In words: the NLL, or that it was not computed."""
        return NOT_CALIBRATED if self.nll is None else f"NLL {self.nll:.4f} nats, {self.nll_of}"

    def amplitude_ratio(self, other: "Audit") -> float:
        """|slope_mean / other.slope_mean|."""
        return self.energy.amplitude_ratio(other.energy)

    def extremes(self, k: int = 10) -> dict[str, list[dict[str, float]]]:
        """Items of the largest mean score, and those furthest above and below the line of the slope on log p:
        "largest", "above", "below", the furthest first, k of each.

        An item is its place in the item table, its log p, its mean score, and how far off the line it is:
        mean score - slope_mean * log p, both centred over the items audited.
        """
        checks.number("k", k, ge=1, integer=True)
        score_V, log_p_V = (one - one.mean() for one in (self.mean_score_V, self.log_prior_V))
        off_V = score_V - self.slope_mean * log_p_V
        place_V = np.arange(self.num_items) if self.item_ids is None else self.item_ids
        orders = {"largest": -self.mean_score_V, "above": -off_V, "below": off_V}
        return {
            name: [
                {
                    "item": int(place_V[at]),
                    "log_prior": float(self.log_prior_V[at]),
                    "mean_score": float(self.mean_score_V[at]),
                    "off_line": float(off_V[at]),
                }
                for at in np.argsort(order_V, kind="stable")[:k]
            ]
            for name, order_V in orders.items()
        }

    def table(self) -> str:
        """Plain text, at most 80 columns."""
        return audit_table(self)

    def to_dict(self, samples: bool = False) -> dict:
        """JSON-able; undefined numbers are None. `samples` adds the drawn nulls, mean scores,
        log p and the text table, from which a page is made."""
        out = {
            "energy_total": self.energy_total,
            "energy_direction": self.energy_direction,
            "energy_shared": self.energy_shared,
            "energy_heterogeneous": self.energy_heterogeneous,
            "energy_off_direction": self.energy_off_direction,
            "fraction_direction": _number(self.fraction_direction),
            "fraction_shared": _number(self.fraction_shared),
            "chance_level": self.chance_level,
            "slope_mean": self.slope_mean,
            "slope_std": self.slope_std,
            "correlation": _number(self.correlation),
            "logits": self.logits,
            "direction_norm": self.energy.direction_norm,
            "no_direction": self.no_direction,
            "top_lists": None if self.lists is None else asdict(self.lists),
            "top_lists_missing": self.lists_why,
            "items": self.part,
            "shares_by_count": [{k: _number(v) for k, v in asdict(one).items()} for one in self.shares],
            "unseen_energy": _number(self.unseen_energy),
            "unseen": self.unseen,
            "p_value_direction": self.p_value_direction,
            "p_value_shared": self.p_value_shared,
            "test_direction": self.test_direction.to_dict(samples),
            "test_shared": self.test_shared.to_dict(samples),
            "centring": "uniform",
            "energy_prior_centred": {
                **asdict(self.energy_prior_centred),
                "fraction_direction": _number(self.energy_prior_centred.fraction_direction),
                "chance_level": self.chance_level_prior_centred,
                "fraction_shared": _number(self.energy_prior_centred.fraction_shared),
            },
            "num_permutations": self.num_permutations,
            "seed": self.seed,
            "null": self.null,
            "null_words": self.null_words,
            "nll": self.nll,
            "calibration": self.calibration,
            "num_contexts": self.num_contexts,
            "num_items": self.num_items,
            "dim": self.dim,
            "weighting": self.weighting,
            "smoothing": self.smoothing,
            "alpha": self.alpha,
            "alpha_sensitivity": {
                "alphas": list(self.sensitivity.alphas),
                "cosines": list(self.sensitivity.cosines),
                "unseen_share": self.sensitivity.unseen_share,
            },
            "geometry": self.geometry.to_dict(),
            "measured": [one.to_dict() for one in self.measured],
        }
        if samples:
            out["mean_score"] = self.mean_score_V.tolist()
            out["log_prior"] = self.log_prior_V.tolist()
            out["item_ids"] = None if self.item_ids is None else self.item_ids.tolist()
            out["table"] = self.table()
        return out

    def save(self, path: str | Path) -> None:
        """json.dump(self.to_dict(samples=True)), written beside `path` and moved into place."""
        text = json.dumps(self.to_dict(samples=True), indent=1, allow_nan=False)
        files.write_text(local_path(path), text)

    def __repr__(self) -> str:
        return (
            f"Audit(energy_shared={self.energy_shared:.6g}, "
            f"fraction_shared={self.fraction_shared:.4g}, "
            f"p_value_shared={self.p_value_shared}, num_contexts={self.num_contexts}, "
            f"num_items={self.num_items})"
        )


def _number(value: float) -> float | None:
    return value if np.isfinite(value) else None
