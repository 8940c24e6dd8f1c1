"""How much of a score matrix lies along log popularity, without forming the matrix."""

import functools
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from fastpop import checks
from fastpop.kernels.row_moments.reference import Inputs as Rows
from fastpop.kernels.score_energy.reference import Inputs
from fastpop.ops import _dispatch, collectives, row_shard
from fastpop.ops.energies import (
    CANCELS,
    ScoreEnergy,
    as_float64,
    energies_of_sums,
    gram_energies,
    joined,
    projected_energy,
    tile_energies,
)
from fastpop.ops.row_shard import RowShard
from fastpop.stats import popularity_direction
from fastpop.types import Impl

__all__ = ["GramStream", "ScoreEnergy", "score_energy", "streamed_score_energy"]


class GramStream:
    """Weight, mean and covariance of query rows that arrive in chunks of any size.

    dim: D. impl: "auto" or a name; "cpu" reduces host arrays in C++, "reference" takes torch rows
    on their own device. Cost: C D² FLOPs in float64, O(D²) memory.
    """

    def __init__(self, dim: int, impl: Impl = "auto"):
        self.dim, self.impl = dim, impl
        self.num_contexts = 0
        self.weight = 0.0
        self.mean_D = np.zeros(dim)
        self.scatter_DD = np.zeros((dim, dim))

    @property
    def covariance(self) -> np.ndarray:
        """Weighted covariance of the rows seen so far."""
        return self.scatter_DD / self.weight

    def add(self, query_CD: Any, weight_C: Any = None) -> "GramStream":
        """Add rows [C, D] with weights [C] >= 0 (1 each by default). Not checked here."""
        self.num_contexts += len(query_CD)
        if len(query_CD):
            self._join(_moments(query_CD, weight_C, None, self.impl))
        return self

    def merge(self, other: "GramStream") -> "GramStream":
        """Add everything another stream has seen."""
        self.num_contexts += other.num_contexts
        self._join((other.weight, other.mean_D, other.scatter_DD))
        return self

    def merge_over(self, group: Any = None) -> "GramStream":
        """Add everything the streams of all other processes have seen: each then has it all.

        group: a torch.distributed process group; None: all processes. Bits are the same on each.
        """
        found = _moments_over((self.weight, self.mean_D, self.scatter_DD), group)
        self.weight, self.mean_D, self.scatter_DD = found
        self.num_contexts = sum(collectives.counts(self.num_contexts, group, collectives.home(group)))
        return self

    def _join(self, moments: tuple) -> None:
        # NaN and inf run through to the sums, where callers check for them.
        with np.errstate(invalid="ignore", over="ignore"):
            self.weight, self.mean_D, self.scatter_DD = joined(
                (self.weight, self.mean_D, self.scatter_DD), moments
            )


def energies(
    mean_D: np.ndarray,
    cov_DD: np.ndarray,
    items: Any,
    bias_V: np.ndarray | None,
    scale: float,
    log_prior_V: np.ndarray,
    centring_V: np.ndarray | None = None,
    impl: Impl = "auto",
    shard: RowShard | None = None,
) -> ScoreEnergy:
    """The energies of scale * Q Eᵀ + 1 aᵀ from mean and covariance of Q: one pass over the items,
    and three more where all but a millionth of the energy lies along log p.

    items [V, D] numpy or torch; centring_V a distribution over items, None for uniform. shard: items and
    bias_V are this process's, the other vectors whole. Not checked here.
    """
    b_V, norm = popularity_direction(log_prior_V, centring_V)
    if shard is not None:
        here = shard.slice_of(len(items))
        b_V, centring_V = b_V[here], None if centring_V is None else centring_V[here]
    extra = [one for one in (bias_V, centring_V, b_V) if one is not None]
    moments = _moments(items, None, np.column_stack(extra), impl)
    over: dict[str, Any] = {}
    if shard is not None:
        moments = _moments_over(moments, shard.group)
        over = {
            "num_items": shard.num_items,
            "total": functools.partial(collectives.total_of_array, group=shard.group),
        }
    energy = gram_energies(
        mean_D, cov_DD, moments, bias_V is not None, scale, norm, centred=centring_V is not None
    )
    if energy.off_direction >= CANCELS * energy.total or not np.isfinite(energy.total):
        return energy
    off = projected_energy(mean_D, cov_DD, items, bias_V, scale, b_V, centring_V, **over)
    return replace(energy, off_direction=off)


def _moments(rows: Any, weight: Any, extra: np.ndarray | None, impl: str) -> tuple:
    device = "cuda" if str(getattr(rows, "device", "cpu")).startswith("cuda") else "cpu"
    inputs = Rows(rows, weight, extra)
    return _dispatch.choose("row_moments", impl, device, inputs).forward(inputs)


def _moments_over(moments: tuple, group: Any) -> tuple:
    """The moments of all processes' rows, merged in order of rank."""
    weight, mean_R, scatter_RR = moments
    flat = np.concatenate([[weight], mean_R, scatter_RR.ravel()])
    size = len(mean_R)
    merged: tuple = (0.0, np.zeros(size), np.zeros((size, size)))
    for one in collectives.gathered_arrays(flat, group):
        merged = joined(merged, (float(one[0]), one[1 : size + 1], one[size + 1 :].reshape(size, size)))
    return merged


def weights(argument: str, value: Any, num_contexts: int) -> np.ndarray:
    """Context weights [C]: finite, >= 0, not all zero; ones for None."""
    if value is None:
        return np.ones(num_contexts)
    weight_C = checks.float_array(argument, value, 1)
    checks.shape(argument, weight_C, (num_contexts,))
    if (weight_C < 0).any():
        at = int(np.argmax(weight_C < 0))
        raise checks.wrong(argument, "weights >= 0", text=f"{weight_C[at]:g} at position {at}")
    if num_contexts and weight_C.sum() == 0:
        raise checks.wrong(argument, "at least one weight > 0", text="all zero")
    return weight_C


def score_energy(
    query: Any,
    items: Any,
    log_prior: Any,
    *,
    bias: Any = None,
    scale: float = 1.0,
    context_weight: Any = None,
    centring: str = "uniform",
    soft_cap: float | None = None,
    cosine: bool = False,
    form: str = "auto",
    shard: RowShard | None = None,
    impl: Impl = "auto",
) -> ScoreEnergy:
    """numpy: S = scale * query @ items.T + bias; S = soft_cap * tanh(S / soft_cap)
              S -= S.mean(1, keepdims=True); t = S @ b
              total, direction, shared = w @ (S**2).sum(1), w @ t**2, (w @ t)**2
              off_direction = w @ ((S - outer(t, b))**2).sum(1)

    with b the unit vector along centred log_prior and w the weights over their sum.

    Args:
        query: [C, D] real, numpy or torch; read in chunks, reduced in float64.
        items: [V, D] real. bias: [V] real or None, nats.
        log_prior: [V] real, nats; a constant added to it changes nothing.
        scale: multiplies the dot product only.
        context_weight: [C] >= 0, None for uniform.
        centring: "uniform" (scores minus their mean over items) or "prior" (minus their mean
            under the prior; log_prior must then be the log of a distribution).
        soft_cap: > 0, scores squashed into (-soft_cap, soft_cap); None: as they are.
        cosine: query and items divided by their norms first (a row of zeros stays zero); scale is
            then the inverse temperature.
        form: "gram" (exact, for scores that factorise), "streamed" (every score is computed once,
            none is kept), or "auto": streamed where there is a soft_cap, else Gram.
        shard: items are this process's rows of a catalogue that several share; log_prior is of all items,
            bias of these rows or of all. Contexts may be on all processes alike, or each has its own: their
            moments are merged. A DTensor with Shard(0) says so itself. For the Gram form.
        impl: "auto" or a name. The streamed form of "cpu" and "triton" has float32 scores, whose
            sums are merged in float64; the rest is float64.
    Returns:
        ScoreEnergy, float64.
    Raises:
        ValueError, TypeError: says the argument, the expected and the got; a uniform prior has
            no direction and raises.
    Cost: Gram (C + V) D² FLOPs and O(D²) memory; streamed 2 C V D FLOPs and O(C D) memory.
    Source: arXiv:2606.21275.
    """
    items, shard = row_shard.part_of(items, shard, "each")
    query, items = checks.array_like("query", query), checks.array_like("items", items)
    for name, value in (("query", query), ("items", items)):
        checks.real_array(name, value)
    checks.shape("items", items, ("V", "D"))
    num_items, dim = items.shape[0] if shard is None else shard.num_items, items.shape[1]
    log_prior_V = checks.float_array("log_prior", log_prior, 1)
    checks.shape("log_prior", log_prior_V, (num_items,))
    bias_V = None if bias is None else checks.float_array("bias", bias, 1)
    if bias_V is not None and shard is not None and len(bias_V) == num_items:
        bias_V = bias_V[shard.slice_of(len(items))]
    if bias_V is not None:
        checks.shape("bias", bias_V, (len(items),))
    checks.number("scale", scale)
    checks.one_of("centring", centring, ("uniform", "prior"))
    checks.one_of("form", form, ("auto", "gram", "streamed"))
    if soft_cap is not None:
        checks.number("soft_cap", soft_cap, gt=0)
        if form == "gram":
            raise checks.wrong("form", "'streamed' with a soft_cap: capped scores do not factorise", form)
    checks.shape("query", query, ("C", dim))
    if len(query) == 0:
        raise checks.wrong("query", "at least one context", query)
    weight_C = weights("context_weight", context_weight, len(query))
    if cosine:
        query, items = _unit_rows(query), _unit_rows(items)
    if form == "streamed" or soft_cap is not None:
        if shard is not None:
            raise checks.wrong("shard", "None with the streamed form", shard)
        if centring != "uniform":
            raise checks.wrong("centring", "'uniform' with the streamed form", centring)
        return _streamed(
            query, items, bias_V, float(scale), float(soft_cap or 0), log_prior_V, weight_C, impl
        )
    stream = GramStream(dim, impl).add(query, None if context_weight is None else weight_C)
    if shard is not None:
        stream.merge_over(shard.group)
    _require_finite("query", query, stream.scatter_DD)
    centring_V = None
    if centring == "prior":
        centring_V = np.exp(log_prior_V - log_prior_V.max())
        centring_V /= centring_V.sum()
    energy = energies(
        stream.mean_D, stream.covariance, items, bias_V, float(scale), log_prior_V, centring_V, impl, shard
    )
    _require_finite("items", items, energy.total)
    return energy


def _require_finite(argument: str, value: Any, sums: Any) -> None:
    """Sums show any NaN or inf; only then is the place looked for."""
    if not np.isfinite(sums).all():
        checks.float_array(argument, value, 2)
        raise checks.wrong(argument, "numbers whose squares fit in float64", text="an overflow")


def _unit_rows(value: Any) -> Any:
    value = as_float64(value)
    norm = (value * value).sum(1)[:, None] ** 0.5
    return value / (norm + (norm == 0))


def _streamed(
    query: Any,
    items: Any,
    bias_V: Any,
    scale: float,
    soft_cap: float | None,
    log_prior_V: np.ndarray,
    weight_C: np.ndarray,
    impl: str,
) -> ScoreEnergy:
    b_V, norm = popularity_direction(log_prior_V)
    device = "cuda" if str(getattr(query, "device", "cpu")).startswith("cuda") else "cpu"
    inputs = Inputs(query, items, b_V, scale, soft_cap, bias_V)
    square_C, along_C = _dispatch.choose("score_energy", impl, device, inputs).forward(inputs)
    for argument, value in (("query", query), ("items", items)):
        _require_finite(argument, value, square_C)
    total = float(weight_C @ square_C) / float(weight_C.sum())
    return energies_of_sums(total, along_C, weight_C, norm)


def streamed_score_energy(
    score_tile: Callable[[slice, slice], Any],
    num_contexts: int,
    log_prior: Any,
    *,
    context_weight: Any = None,
    rows: int = 256,
    columns: int = 8192,
) -> ScoreEnergy:
    """score_energy of scores that do not factorise (cosine, capped, MLP), a tile at a time.

    Args:
        score_tile: called with (contexts, items), two slices; returns their scores, numpy or
            torch [rows, columns]. Called once for every tile, contexts outer.
        num_contexts: C. log_prior: [V], nats. context_weight: [C] >= 0, None for uniform.
        rows, columns: the tile; only one is alive at a time.
    Returns:
        ScoreEnergy, float64, uniform centring.
    Raises:
        ValueError, TypeError: says the argument, the expected and the got.
    Cost: one evaluation of every score; O(rows * columns + C) memory.
    """
    log_prior_V = checks.float_array("log_prior", log_prior, 1)
    checks.number("num_contexts", num_contexts, ge=1, integer=True)
    checks.number("rows", rows, ge=1, integer=True)
    checks.number("columns", columns, ge=1, integer=True)
    weight_C = weights("context_weight", context_weight, num_contexts)

    def checked_tile(context: slice, item: slice) -> Any:
        tile = score_tile(context, item)
        checks.shape("score_tile(...)", tile, (context.stop - context.start, item.stop - item.start))
        return tile

    energy = tile_energies(checked_tile, num_contexts, log_prior_V, weight_C, rows, columns)
    if not np.isfinite(energy.total):
        raise checks.wrong("score_tile(...)", "finite scores", text="nan or inf")
    return energy
