"""What an audit needs to know of a model's scores, and no more: O(D²) numbers and the item table.

`ScoreMoments` is what models, streams and comparisons hand to the diagnostics.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from fastpop import checks
from fastpop.frozen import freeze
from fastpop.ops.energies import ROWS, ScoreEnergy, gram_spectrum
from fastpop.ops.score_energy import GramStream, energies, weights

BLOCK = 1 << 16  # items whose rows are float64 at once


@dataclass(frozen=True, eq=False)
class ScoreMoments:
    """The scores scale * Q Eᵀ + 1 aᵀ, with Q known by its weighted mean and covariance only.

    query_mean_D, query_cov_DD: float64. item_VD: [V, D] float64, or float32 where the table is: it may be
    large, so nothing copies it whole. What is computed is float64, of a block of items at a time (`blocks`,
    `part`). bias_V: float64 [V] or None. num_contexts: rows seen. weighting: how contexts were weighted, in
    words.
    """

    query_mean_D: np.ndarray
    query_cov_DD: np.ndarray
    item_VD: np.ndarray
    bias_V: np.ndarray | None = None
    scale: float = 1.0
    num_contexts: int = 0
    weighting: str = "uniform over the contexts given"

    __repr__ = checks.brief

    def __post_init__(self) -> None:
        freeze(self, "query_mean_D", "query_cov_DD", "item_VD", "bias_V")

    @classmethod
    def of(
        cls, query: Any, items: Any, *, bias: Any = None, scale: float = 1.0, context_weight: Any = None
    ) -> "ScoreMoments":
        """numpy: (w @ query, np.cov(query.T, aweights=w, bias=True)), with items and bias kept.

        Args:
            query: [C, D] numpy or torch of any real dtype; or an iterable of chunks, each
                [c, D] or a pair ([c, D], weights [c]); or a GramStream filled before.
            items: [V, D], V >= 4; kept as it lies where it is float32 or float64 on the host, so a table that
                changes afterwards changes the moments. bias: [V] or None, nats. scale: of the dot product.
            context_weight: [C] >= 0, with an array of queries only.
        Raises:
            ValueError, TypeError: says the argument, the expected and the got.
        Cost: O(C D²), one chunk of float64 rows at a time.
        """
        item_VD = item_table("items", items)
        num_items, dim = item_VD.shape
        if num_items < 4:
            raise checks.wrong("items", "at least 4 items", item_VD)
        if dim < 1:
            raise checks.wrong("items", "at least 1 dimension", item_VD)
        bias_V = None if bias is None else checks.float_array("bias", bias, 1)
        if bias_V is not None:
            checks.shape("bias", bias_V, (num_items,))
        checks.number("scale", scale)
        stream, weighted = read_queries(query, dim, context_weight)
        return cls(
            stream.mean_D,
            stream.covariance,
            item_VD,
            bias_V,
            float(scale),
            stream.num_contexts,
            "by the weights given" if weighted else cls.weighting,
        )

    @property
    def num_items(self) -> int:
        return len(self.item_VD)

    @property
    def dim(self) -> int:
        return self.item_VD.shape[1]

    def mean_score(self) -> np.ndarray:
        """[V] float64: the mean over contexts of the scores, centred over items."""
        score_V = np.empty(self.num_items)
        for low in range(0, self.num_items, ROWS):
            at = slice(low, low + ROWS)
            score_V[at] = (self.item_VD[at] - self.item_mean_D) @ self.query_mean_D
        score_V *= self.scale
        return score_V if self.bias_V is None else score_V + (self.bias_V - self.bias_V.mean())

    def with_popularity(self, weight: float, log_prior: Any) -> "ScoreMoments":
        """The same scores plus weight * log_prior: the score served at that popularity weight."""
        log_prior_V = checks.float_array("log_prior", log_prior, 1)
        checks.shape("log_prior", log_prior_V, (self.num_items,))
        checks.number("weight", weight)
        if weight == 0:
            return self
        bias_V = np.zeros(self.num_items) if self.bias_V is None else self.bias_V
        return replace(self, bias_V=bias_V + float(weight) * log_prior_V)

    def of_items(self, ids: np.ndarray) -> "ScoreMoments":
        """The same scores of some items only: ids [n] in [0, V), at least 4. Centred over those."""
        bias_V = None if self.bias_V is None else self.bias_V[ids]
        return replace(self, item_VD=self.item_VD[ids], bias_V=bias_V)

    def energy(self, log_prior_V: np.ndarray, centring_V: np.ndarray | None = None) -> ScoreEnergy:
        """Energies along log_prior_V; centring_V is a distribution over items, None for uniform."""
        return energies(
            self.query_mean_D,
            self.query_cov_DD,
            self.item_VD,
            self.bias_V,
            self.scale,
            log_prior_V,
            centring_V,
        )

    def spectrum(self) -> np.ndarray:
        """Singular values of the weighted centred scores, largest first."""
        return gram_spectrum(self.query_mean_D, self.query_cov_DD, self.item_VD, self.bias_V, self.scale)

    @property
    def num_columns(self) -> int:
        """R of `rows`."""
        return self.dim + (self.bias_V is not None)

    def rows(self, columns: slice = slice(None)) -> np.ndarray:
        """Z [V, R] with centred scores = [query, 1] Zᵀ; R = D, plus 1 where there is a bias. columns: these
        alone: all of them are twice a float32 table."""
        first, last, _ = columns.indices(self.num_columns)
        item_VR = np.empty((self.num_items, last - first))
        for at in self._places():
            item_VR[at] = self.part(at, columns)
        return item_VR

    def part(self, at: Any, columns: slice = slice(None)) -> np.ndarray:
        """`rows()[at]`, of a slice or of ids [n], without the others."""
        return self._scaled(at, columns) - self._centre_R[columns]

    def blocks(self) -> Iterator[tuple[slice, np.ndarray]]:
        """(items, their `part`), the catalogue once."""
        for at in self._places():
            yield at, self.part(at)

    def tables(self) -> Iterator[tuple[slice, np.ndarray]]:
        """(items, their rows of item_VD in float64), the catalogue once."""
        for at in self._places():
            yield at, self.item_VD[at].astype(np.float64, copy=False)

    def _places(self) -> Iterator[slice]:
        for low in range(0, self.num_items, BLOCK):
            yield slice(low, min(low + BLOCK, self.num_items))

    def _scaled(self, at: Any, columns: slice) -> np.ndarray:
        first, last, _ = columns.indices(self.num_columns)
        item_vR = self.scale * self.item_VD[at, first : min(last, self.dim)].astype(np.float64, copy=False)
        if self.bias_V is None or last <= self.dim:
            return item_vR
        return np.column_stack([item_vR, self.bias_V[at]])

    @cached_property
    def item_mean_D(self) -> np.ndarray:  # noqa: N802
        """[D] float64: the mean row of item_VD."""
        return sum(item_vD.sum(axis=0) for _, item_vD in self.tables()) / self.num_items

    @cached_property
    def _centre_R(self) -> np.ndarray:  # noqa: N802
        total_R = sum(self._scaled(at, slice(None)).sum(axis=0) for at in self._places())
        return total_R / self.num_items

    def mean(self) -> np.ndarray:
        """The mean of [query, 1], to go with `rows`."""
        return self.query_mean_D if self.bias_V is None else np.append(self.query_mean_D, 1.0)

    def covariance(self) -> np.ndarray:
        """The covariance of [query, 1], to go with `rows`."""
        return self.query_cov_DD if self.bias_V is None else np.pad(self.query_cov_DD, (0, 1))


def item_table(argument: str, items: Any) -> np.ndarray:
    """[V, D] finite numbers on the host: as it lies where it is float32 or float64, half rows in float32."""
    items = checks.array_like(argument, items)
    narrow = str(items.dtype).removeprefix("torch.") in ("float32", "float16", "bfloat16")
    return checks.float_array(argument, items, 2, np.float32 if narrow else np.float64)


def read_queries(query: Any, dim: int, context_weight: Any) -> tuple[GramStream, bool]:
    """All queries in one stream, and whether any weights were given."""
    if isinstance(query, GramStream):
        if context_weight is not None:
            raise checks.wrong("context_weight", "None: a GramStream holds its weights", context_weight)
        if query.dim != dim:
            raise checks.wrong("query", f"a GramStream of dim {dim}, as items", text=f"{query.dim}")
        stream, weighted = query, query.weight != query.num_contexts
    elif hasattr(query, "shape") or is_nested_numbers(query):
        array = checks.array_like("query", query)
        check_queries("query", array, dim)
        weight_C = None
        if context_weight is not None:
            weight_C = weights("context_weight", context_weight, len(array))
        stream, weighted = GramStream(dim).add(array, weight_C), weight_C is not None
        require_finite("query", stream, array)
    elif isinstance(query, Iterable) and not isinstance(query, (str, bytes, dict)):
        if context_weight is not None:
            raise checks.wrong(
                "context_weight", "None: chunks bring theirs as (query, weight)", context_weight
            )
        stream, weighted = read_chunks(query, dim)
    else:
        raise checks.wrong_type(
            "query", "an array [C, D], an iterable of chunks of it, or a GramStream", query
        )
    if stream.num_contexts == 0:
        raise checks.wrong("query", "at least one context", text="none")
    if stream.weight <= 0:
        raise checks.wrong("context_weight", "at least one weight > 0", text="all zero")
    return stream, weighted


def read_chunks(chunks: Iterable[Any], dim: int) -> tuple[GramStream, bool]:
    stream, weighted = GramStream(dim), False
    for n, chunk in enumerate(chunks):
        rows, weight = chunk if isinstance(chunk, (tuple, list)) and len(chunk) == 2 else (chunk, None)
        name = f"query chunk {n}"
        if not hasattr(rows, "shape"):
            raise checks.wrong_type(name, f"an array [c, {dim}] or a pair (array, weights)", chunk)
        rows = checks.array_like(name, rows)
        check_queries(name, rows, dim)
        weight_C = None
        if weight is not None:
            weight_C = checks.float_array(f"weights of {name}", weight, 1)
            checks.shape(f"weights of {name}", weight_C, (len(rows),))
            if (weight_C < 0).any():
                raise checks.wrong(f"weights of {name}", "weights >= 0", text=f"{weight_C.min():g}")
            weighted = True
        stream.add(rows, weight_C)
        require_finite(name, stream, rows)
    return stream, weighted


def is_nested_numbers(value: Any) -> bool:
    """A list of rows of plain numbers."""
    if not isinstance(value, (list, tuple)) or not value:
        return False
    row = value[0]
    return isinstance(row, (list, tuple)) and all(isinstance(x, (int, float)) for x in row)


def check_queries(name: str, rows: Any, dim: int) -> None:
    checks.shape(name, rows, ("C", dim))
    kind = str(rows.dtype).removeprefix("torch.")
    if not kind.startswith(("float", "bfloat", "int", "uint")):
        raise checks.wrong_type(name, "real numbers [C, D]", rows)


def require_finite(name: str, stream: GramStream, rows: Any) -> None:
    """Sums show any NaN or inf; only then is the row looked for."""
    if np.isfinite(stream.scatter_DD).all() and np.isfinite(stream.mean_D).all():
        return
    for low in range(0, len(rows), ROWS):
        checks.float_array(name, rows[low : low + ROWS], 2)
    raise checks.wrong(name, "numbers whose squares fit in float64", text="an overflow")
