"""The shape of an embedding table, beside the energies: exact, streaming, O(V D²).

Rank-one scores need not mean a collapsed table, nor the reverse: Q -> Q A, E -> E A^-T changes
nothing in the scores and everything here, and E + 1 e0ᵀ moves the raw mean cosine from 0 to .99
with identical probabilities. So every quantity is given raw and centred, and the raw mean cosine
alone is no sign of degeneration.
Sources: effective rank, Roy & Vetterli 2007; IsoScore, Rudman et al. 2022; alignment and
uniformity, Wang & Isola 2020.
"""

from dataclasses import asdict, dataclass
from math import isfinite
from typing import Any

import numpy as np

from fastpop import checks
from fastpop.blas import one_thread
from fastpop.diagnostics.moments import ScoreMoments
from fastpop.stats import correlation


@dataclass(frozen=True)
class Spectrum:
    """Shape of singular values s, with rho = s² / sum s². All nan for a zero matrix.

    r1: share of the first, max rho. effective_rank: exp(-sum rho log rho).
    stable_rank: 1 / r1. participation_ratio: 1 / sum rho².
    isoscore: (participation_ratio - 1) / (D - 1), 0 on one axis, 1 when all directions weigh the
    same; nan for D = 1.
    """

    r1: float
    effective_rank: float
    stable_rank: float
    participation_ratio: float
    isoscore: float

    __repr__ = checks.brief

    @classmethod
    def of(cls, square_D: np.ndarray) -> "Spectrum":
        """From squared singular values (eigenvalues of a Gram or covariance matrix)."""
        square_D = np.clip(square_D, 0, None)
        total = float(square_D.sum())
        if not total > 0:
            return cls(*[float("nan")] * 5)
        rho_D = square_D / total
        seen_D = rho_D[rho_D > 0]
        ratio = 1 / float(np.sum(rho_D**2))
        iso = (ratio - 1) / (len(rho_D) - 1) if len(rho_D) > 1 else float("nan")
        r1 = float(rho_D.max())
        return cls(r1, float(np.exp(-np.sum(seen_D * np.log(seen_D)))), 1 / r1, ratio, iso)


@dataclass(frozen=True)
class Geometry:
    """Item table, queries and scores in numbers.

    items_raw, items_centred: Spectrum of E and of E minus its mean row. queries_raw,
    queries_centred: of the weighted queries. scores: of the weighted centred scores.
    balanced_r1: sigma_1 / sum sigma of those scores: the r1 that a balanced (minimum-norm)
        factorisation would show in its item table.
    balance_error: ||QᵀQ - EᵀE|| / (||QᵀQ|| + ||EᵀE||), Frobenius, QᵀQ = C * (weighted mean of
        q qᵀ); 0 for a balanced pair, 1 for orthogonal or very unequal ones.
    mean_vector_ratio: ||mean e|| / sqrt(mean ||e||²).
    average_cosine_raw, average_cosine_centred: mean over pairs of different items; zero rows
        are left out.
    norm_correlation: corr(||e||, log p). pc1_correlation: |corr(first principal component of
        centred E, log p)|.
    popularity_r2: R² of log p on the columns of E (with intercept); popularity_r2_null is what
        a permuted log p reaches on average, rank(centred E) / (V - 1).
    """

    items_raw: Spectrum
    items_centred: Spectrum
    queries_raw: Spectrum
    queries_centred: Spectrum
    scores: Spectrum
    balanced_r1: float
    balance_error: float
    mean_vector_ratio: float
    average_cosine_raw: float
    average_cosine_centred: float
    norm_correlation: float
    pc1_correlation: float
    popularity_r2: float
    popularity_r2_null: float

    __repr__ = checks.brief

    def to_dict(self) -> dict:
        """JSON-able: undefined numbers are None."""
        return _plain(asdict(self))


@one_thread
def geometry(moments: ScoreMoments, log_prior: Any) -> Geometry:
    """Geometry of a model's tables against log_prior [V].

    Raises: ValueError, TypeError for a log_prior of another length or not finite.
    Cost: O(V D² + D³) time, O(V) memory.
    """
    log_prior_V = checks.float_array("log_prior", log_prior, 1)
    checks.shape("log_prior", log_prior_V, (moments.num_items,))
    f_V = log_prior_V - log_prior_V.mean()
    gram_DD: Any = 0.0
    gram_c_DD: Any = 0.0
    along_f_D: Any = 0.0
    norm_V = np.empty(moments.num_items)
    cosines, cosines_c = _Cosines(), _Cosines()
    for at, item_vD in moments.tables():
        centred_vD = item_vD - moments.item_mean_D
        gram_DD = gram_DD + item_vD.T @ item_vD
        gram_c_DD = gram_c_DD + centred_vD.T @ centred_vD
        along_f_D = along_f_D + centred_vD.T @ f_V[at]
        norm_V[at] = np.linalg.norm(item_vD, axis=1)
        cosines.add(item_vD)
        cosines_c.add(centred_vD)
    value_D, vector_DD = np.linalg.eigh(gram_c_DD)
    first_V = np.empty(moments.num_items)
    for at, item_vD in moments.tables():
        first_V[at] = (item_vD - moments.item_mean_D) @ vector_DD[:, -1]
    mean_D = moments.query_mean_D
    query_DD = moments.query_cov_DD + np.outer(mean_D, mean_D)
    sigma_R = moments.spectrum()

    kept = value_D > 1e-12 * max(value_D.max(), 0)
    along_D = vector_DD[:, kept].T @ along_f_D
    explained = float(np.sum(along_D**2 / value_D[kept]))
    energy = float(f_V @ f_V)
    rank = int(kept.sum()) if value_D.max() > 0 else 0

    qq_DD = moments.num_contexts * query_DD
    sizes = float(np.linalg.norm(qq_DD) + np.linalg.norm(gram_DD))
    second = float(np.trace(gram_DD)) / moments.num_items
    return Geometry(
        items_raw=Spectrum.of(np.linalg.eigvalsh(gram_DD)),
        items_centred=Spectrum.of(value_D),
        queries_raw=Spectrum.of(np.linalg.eigvalsh(query_DD)),
        queries_centred=Spectrum.of(np.linalg.eigvalsh(moments.query_cov_DD)),
        scores=Spectrum.of(sigma_R**2),
        balanced_r1=_ratio(float(sigma_R.max()), float(sigma_R.sum())),
        balance_error=_ratio(float(np.linalg.norm(qq_DD - gram_DD)), sizes),
        mean_vector_ratio=_ratio(float(np.linalg.norm(moments.item_mean_D)), second**0.5),
        average_cosine_raw=cosines.mean(),
        average_cosine_centred=cosines_c.mean(),
        norm_correlation=correlation(norm_V, f_V),
        pc1_correlation=abs(correlation(first_V, f_V)),
        popularity_r2=_ratio(explained, energy),
        popularity_r2_null=rank / (moments.num_items - 1),
    )


def score_pc1_correlation(moments: ScoreMoments, log_prior: Any) -> float:
    """|corr(v, log p)| with v [V] the first right singular vector of the weighted centred scores: how
    much the scores' own first direction is popularity. nan where scores or log p do not differ.

    Unlike the first component of an item table it is the same for every factorisation of the scores.
    Cost: O(V D² + D³).
    """
    log_prior_V = checks.float_array("log_prior", log_prior, 1)
    checks.shape("log_prior", log_prior_V, (moments.num_items,))
    mean_R = moments.mean()
    value_R, vector_RR = np.linalg.eigh(moments.covariance() + np.outer(mean_R, mean_R))
    root_RR = vector_RR * np.sqrt(np.clip(value_R, 0, None))
    gram_RR: Any = 0.0
    for _, item_vR in moments.blocks():
        weighted_vR = item_vR @ root_RR
        gram_RR = gram_RR + weighted_vR.T @ weighted_vR
    _, axis_RR = np.linalg.eigh(gram_RR)
    first_V = np.empty(moments.num_items)
    for at, item_vR in moments.blocks():
        first_V[at] = (item_vR @ root_RR) @ axis_RR[:, -1]
    return abs(correlation(first_V, log_prior_V))


def average_cosine(item_VD: np.ndarray) -> float:
    """Mean cosine over pairs of different rows, (||sum of unit rows||² - n) / (n (n - 1))."""
    cosines = _Cosines()
    cosines.add(item_VD)
    return cosines.mean()


class _Cosines:
    """`average_cosine` of rows that come in blocks."""

    def __init__(self) -> None:
        self.total: Any = 0.0
        self.num = 0

    def add(self, item_vD: np.ndarray) -> None:
        norm_v = np.sqrt(np.einsum("vd,vd->v", item_vD, item_vD))
        seen_v = norm_v > 0
        self.num += int(seen_v.sum())
        self.total = self.total + np.divide(1.0, norm_v, out=np.zeros_like(norm_v), where=seen_v) @ item_vD

    def mean(self) -> float:
        if self.num < 2:
            return float("nan")
        return (float(self.total @ self.total) - self.num) / (self.num * (self.num - 1))


def uniformity(items: Any, t: float = 2.0) -> float:
    """log mean over pairs i != j of exp(-t ||u_i - u_j||²), u the unit rows of items [V, D].

    Exact, so O(V² D) time (a block of rows at a time in memory): not part of an audit. Lower is
    more uniform. Raises: ValueError for fewer than 2 items, a zero row or t <= 0.
    """
    item_VD = checks.float_array("items", items, 2)
    checks.number("t", t, gt=0)
    unit_VD = _unit("items", item_VD)
    num = len(unit_VD)
    if num < 2:
        raise checks.wrong("items", "at least 2 items", item_VD)
    rows = max(1, (1 << 22) // num)
    log_sum = -np.inf
    for low in range(0, num, rows):
        # ||u - v||² = 2 - 2 cos; the pair of a row with itself is taken out by place.
        power = -2 * t * (1 - np.minimum(unit_VD[low : low + rows] @ unit_VD.T, 1.0))
        power[np.arange(len(power)), np.arange(low, low + len(power))] = -np.inf
        top = float(power.max())
        log_sum = np.logaddexp(log_sum, top + np.log(np.exp(power - top).sum()))
    return float(log_sum - np.log(num * (num - 1)))


def alignment(query: Any, items: Any, pos_id: Any) -> float:
    """Mean over contexts of ||u_c - v_pos||², unit query and unit item of each positive pair.

    query [C, D], items [V, D], pos_id [C]. 0 when every pair coincides, 4 when opposed.
    Raises: ValueError, TypeError for shapes, ids out of range or a zero row.
    """
    query_CD = checks.float_array("query", query, 2)
    item_VD = checks.float_array("items", items, 2)
    checks.shape("query", query_CD, ("C", item_VD.shape[1]))
    pos_C = checks.int_array("pos_id", pos_id)
    checks.shape("pos_id", pos_C, (len(query_CD),))
    checks.ids_in_range("pos_id", pos_C, len(item_VD))
    if len(pos_C) == 0:
        raise checks.wrong("query", "at least one context", query_CD)
    gap_CD = _unit("query", query_CD) - _unit("items", item_VD[pos_C])
    return float(np.mean((gap_CD**2).sum(axis=1)))


def _unit(name: str, rows: np.ndarray) -> np.ndarray:
    norm = np.linalg.norm(rows, axis=1)
    if (norm == 0).any():
        raise checks.wrong(name, "rows that are not zero", text=f"zero row {int(norm.argmin())}")
    return rows / norm[:, None]


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole > 0 else float("nan")


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return value if isfinite(value) else None
