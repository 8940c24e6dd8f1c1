"""The popularity audit of a score matrix: how much of what a model says is just popularity."""

import json
from dataclasses import asdict, dataclass
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from fastpop import checks, files
from fastpop.data.paths import local_path
from fastpop.diagnostics.calibration import score_nll
from fastpop.diagnostics.geometry import Geometry, geometry
from fastpop.diagnostics.many import audit_many
from fastpop.diagnostics.moments import ScoreMoments
from fastpop.diagnostics.significance import PermutationTest
from fastpop.diagnostics.table import audit_table
from fastpop.frozen import freeze
from fastpop.kernels.score_energy.reference import ScoreEnergy
from fastpop.popularity.prior import AlphaSensitivity, PopularityPrior

NOT_CALIBRATED = "calibration not computed"


@dataclass(frozen=True, eq=False, repr=False)
class Audit:
    """What `audit` found. Energies are squared nats, averaged over contexts.

    energy: along log p with uniform centring; energy_prior_centred: with scores and log p
    centred under the prior. test_direction, test_shared: permutation tests of the first.
    nll: nats, None when no targets were given ("calibration not computed"); nll_of: of what.
    mean_score_V: mean score of each item over contexts, centred; log_prior_V: nats.
    """

    energy: ScoreEnergy
    energy_prior_centred: ScoreEnergy
    test_direction: PermutationTest
    test_shared: PermutationTest
    geometry: Geometry
    sensitivity: AlphaSensitivity
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
    mean_score_V: np.ndarray
    log_prior_V: np.ndarray

    def __post_init__(self) -> None:
        freeze(self, "mean_score_V", "log_prior_V")

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
    def num_permutations(self) -> int:
        return self.test_direction.num_permutations

    @property
    def calibration(self) -> str:
        """In words: the NLL, or that it was not computed."""
        return NOT_CALIBRATED if self.nll is None else f"NLL {self.nll:.4f} nats, {self.nll_of}"

    def amplitude_ratio(self, other: "Audit") -> float:
        """|slope_mean / other.slope_mean|."""
        return self.energy.amplitude_ratio(other.energy)

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
            "direction_norm": self.energy.direction_norm,
            "p_value_direction": self.p_value_direction,
            "p_value_shared": self.p_value_shared,
            "test_direction": self.test_direction.to_dict(samples),
            "test_shared": self.test_shared.to_dict(samples),
            "centring": "uniform",
            "energy_prior_centred": asdict(self.energy_prior_centred),
            "num_permutations": self.num_permutations,
            "seed": self.seed,
            "null": self.null,
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
        }
        if samples:
            out["mean_score"] = self.mean_score_V.tolist()
            out["log_prior"] = self.log_prior_V.tolist()
            out["table"] = self.table()
        return out

    def save(self, path: str | Path) -> None:
        """json.dump(self.to_dict(samples=True)), written beside `path` and moved into place."""
        text = json.dumps(self.to_dict(samples=True), indent=1, allow_nan=False)
        files.write_text(local_path(path), text)

    def _repr_html_(self) -> str:
        return f"<pre>{escape(self.table())}</pre>"

    def __repr__(self) -> str:
        return (
            f"Audit(energy_shared={self.energy_shared:.6g}, "
            f"fraction_shared={self.fraction_shared:.4g}, "
            f"p_value_shared={self.p_value_shared}, num_contexts={self.num_contexts}, "
            f"num_items={self.num_items})"
        )


def audit(
    query: Any, items: Any, counts: Any, *, bias: Any = None, scale: float = 1.0,
    context_weight: Any = None, smoothing: str | float = "loo", permutations: int = 2000,
    seed: int = 0, pos_id: Any = None, null: str = "label", strata: Any = None,
    threads: int | None = None,
) -> Audit:
    """numpy: S = scale * query @ items.T + bias; how much of it lies along log p, and is that
    more than for log p shuffled over the items?

    Args:
        query: [C, D] context vectors, numpy or torch of any real dtype; or an iterable of chunks
            [c, D] or ([c, D], weights [c]); or a GramStream. Only D² numbers of it are kept.
        items: [V, D] item table, V >= 4.
        counts: [V] real >= 0: training events of each item; not all equal.
        bias: [V] nats, what the model adds to the dot product; None for nothing.
        scale: multiplies the dot product only.
        context_weight: [C] >= 0; None counts every row once.
        smoothing: of log p: alpha >= 0, "loo" (by leave-one-out likelihood) or "good-turing".
        permutations: P; 0 leaves the p-values None.
        seed: of the permutations. pos_id: [C] int64 target of each context, with an array of
            queries: adds the NLL under the full softmax of these scores.
        null: "label" permutes log p over all items; "stratified" within `strata` [V]; "sign"
            turns signs at random. See `fastpop.ops.permutation`.
        threads: of the permutations; changes no result.
    Returns:
        Audit.
    Raises:
        ValueError, TypeError: says the argument, the expected and the got. Uniform popularity has
            no direction and raises.
    Cost: O((C + V) D²) and P passes over the item table (0.3 ms each at V = 200,000, D = 64 on
        two cores); memory O(D²) beyond inputs, two float64 item tables and the permutations'
        codes. With pos_id also C*V*D products.
    Source: arXiv:2606.21275.
    """
    prior = PopularityPrior.from_counts(counts, smoothing=smoothing)
    moments = ScoreMoments.of(
        query, items, bias=bias, scale=scale, context_weight=context_weight
    )
    if prior.num_items != moments.num_items:
        raise checks.wrong("counts", f"shape [{moments.num_items}], one count an item",
                           prior.counts_V)
    nll = None
    if pos_id is not None:
        nll = score_nll(query, items, pos_id, bias=bias, scale=scale,
                        context_weight=context_weight)
    return audit_moments(moments, prior, permutations=permutations, seed=seed, null=null,
                         strata=strata, threads=threads, nll=nll)


def audit_moments(
    moments: ScoreMoments, prior: PopularityPrior, *, permutations: int = 2000, seed: int = 0,
    null: str = "label", strata: Any = None, threads: int | None = None,
    nll: float | None = None, nll_of: str = "mean over the contexts given",
) -> Audit:
    """`audit` for a model already reduced to its moments, and a prior already smoothed.

    nll: calibration of the model, if known; nll_of: what it was taken over, in words.
    """
    sensitivity = prior.sensitivity()
    tests = audit_many({"scores": moments}, prior.log_prior_V, permutations=permutations,
                       seed=seed, null=null, strata=strata, threads=threads)
    return Audit(
        energy=tests.energy["scores"],
        energy_prior_centred=moments.energy(prior.log_prior_V, prior.prior_V),
        test_direction=tests.direction["scores"],
        test_shared=tests.shared["scores"],
        geometry=geometry(moments, prior.log_prior_V),
        sensitivity=sensitivity,
        nll=nll,
        nll_of=nll_of,
        num_contexts=moments.num_contexts,
        num_items=moments.num_items,
        dim=moments.dim,
        weighting=moments.weighting,
        smoothing=prior.smoothing,
        alpha=prior.alpha,
        seed=seed,
        null=null,
        mean_score_V=moments.mean_score(),
        log_prior_V=prior.log_prior_V,
    )


def _number(value: float) -> float | None:
    return value if np.isfinite(value) else None
