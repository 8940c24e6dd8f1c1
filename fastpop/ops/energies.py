"""Energies of a score matrix along log popularity, without the matrix.

Scores S = scale * Q Eᵀ + 1 aᵀ, contexts weighted by w (sum 1), f = log p. A centring c (sum 1;
uniform 1/V or the prior itself) acts from the right: H = I - c 1ᵀ, f~ = f - <c, f>,
b = f~ / ||f~||, t_c = <S_c H, b>.

    total          sum_c w_c ||S_c H||²
    direction      sum_c w_c t_c²
    shared         (sum_c w_c t_c)²
    heterogeneous  Var_w(t): from the covariance of the queries, never by the difference
    off_direction  sum_c w_c ||S_c H (I - b bᵀ)||² = total - direction

Everything is float64 from (mean, covariance) of the queries: O((C + V) D²) once, O(D²) memory
beyond the item table. The second half of the file is the form for scores that do not factorise:
tiles in, per-context sums out. Nothing is checked here: `score_energy` is the entry point, and checks.
Source: arXiv:2606.21275; merging of moments, Chan, Golub & LeVeque 1979.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastpop.blas import one_thread
from fastpop.kernels.row_moments.reference import ROWS as ROWS
from fastpop.kernels.row_moments.reference import as_float64 as as_float64
from fastpop.kernels.row_moments.reference import joined as joined
from fastpop.kernels.row_moments.reference import on_host as on_host
from fastpop.stats import popularity_direction

CANCELS = 1e-6  # share of the total below which a difference of energies keeps under ten digits


@dataclass(frozen=True)
class ScoreEnergy:
    """Energies in squared nats, summed over items and averaged over contexts.

    slope_mean and slope_std are the mean and spread over contexts of the least-squares slope of
    a context's scores on log p; direction_norm is ||f~||, so shared = (slope_mean * norm)².
    off_direction is total - direction: what log p has no part in. The Gram form takes log p out of
    the rows first where the difference would cancel; the streamed form knows sums only.
    """

    total: float
    direction: float
    shared: float
    heterogeneous: float
    off_direction: float
    slope_mean: float
    slope_std: float
    direction_norm: float

    @property
    def fraction_direction(self) -> float:
        """direction / total; nan for scores that do not vary over items."""
        return self.direction / self.total if self.total > 0 else float("nan")

    @property
    def fraction_shared(self) -> float:
        """shared / total; nan for scores that do not vary over items."""
        return self.shared / self.total if self.total > 0 else float("nan")

    def amplitude_ratio(self, other: "ScoreEnergy") -> float:
        """|slope_mean / other.slope_mean|."""
        if other.slope_mean == 0:
            return float("nan") if self.slope_mean == 0 else float("inf")
        return abs(self.slope_mean / other.slope_mean)


def centre_rows(item_VD: np.ndarray, centring_V: np.ndarray | None = None) -> np.ndarray:
    """E - 1 (cᵀE). Always before a product: EᵀE minus its mean part would cancel digits."""
    if centring_V is None:
        return item_VD - item_VD.mean(axis=0, dtype=np.float64)
    return item_VD - centring_V @ item_VD


def gram_energies(
    mean_D: np.ndarray,
    cov_DD: np.ndarray,
    item_moments: tuple,
    has_bias: bool,
    scale: float,
    norm: float,
    centred: bool = False,
) -> ScoreEnergy:
    """The energies of scale * Q Eᵀ + 1 aᵀ from mean and covariance of Q, in O(D²).

    item_moments: of the rows [E, a, c, b] over items, a (where there is a bias), c (a centring
    other than uniform, where `centred`) and b as the extra columns; norm: ||f~||.
    """
    num_items, _, gram_RR = item_moments
    if centred:
        # Of the item mean under c, uniform mean minus it: c sums to 1, so cov(x, c) gives it.
        step_R = gram_RR[:, -2]
        gram_RR = gram_RR + num_items * np.outer(step_R, step_R)
    dim = len(mean_D)
    gram_DD, along_R = gram_RR[:dim, :dim], gram_RR[:, -1]
    u_D, a_b, g_D, aa = along_R[:dim], 0.0, np.zeros(dim), 0.0
    if has_bias:
        g_D, aa, a_b = gram_RR[:dim, dim], gram_RR[dim, dim], along_R[dim]
    heterogeneous = max(0.0, scale**2 * float(u_D @ cov_DD @ u_D))
    mean_t = scale * float(mean_D @ u_D) + float(a_b)

    def squares(gram_DD: np.ndarray, g_D: np.ndarray, aa: float) -> float:
        shared = scale**2 * (mean_D @ gram_DD @ mean_D) + 2 * scale * (mean_D @ g_D) + aa
        spread = scale**2 * float(np.sum(cov_DD * gram_DD))
        return float(np.maximum(0.0, shared) + np.maximum(0.0, spread))  # a NaN stays one

    return ScoreEnergy(
        total=squares(gram_DD, g_D, aa),
        direction=mean_t**2 + heterogeneous,
        shared=mean_t**2,
        heterogeneous=heterogeneous,
        off_direction=squares(gram_DD - np.outer(u_D, u_D), g_D - u_D * a_b, aa - a_b**2),
        slope_mean=mean_t / norm,
        slope_std=heterogeneous**0.5 / norm,
        direction_norm=norm,
    )


def projected_energy(
    mean_D: np.ndarray,
    cov_DD: np.ndarray,
    items: Any,
    bias_V: np.ndarray | None,
    scale: float,
    b_V: np.ndarray,
    centring_V: np.ndarray | None = None,
    num_items: int | None = None,
    total: Callable[[np.ndarray], np.ndarray] = np.asarray,
) -> float:
    """off_direction, with b taken out of the rows before they are squared: exact where nearly all
    energy lies along b and a difference of Gram matrices has no digits left. Three passes over the
    items, a block of float64 rows at a time. total: of what parts of num_items items sum to."""
    num_rows, dim = items.shape
    c_V = np.full(num_rows, 1 / (num_items or num_rows)) if centring_V is None else centring_V
    blocks = [slice(low, low + ROWS) for low in range(0, num_rows, ROWS)]

    def rows(at: slice) -> np.ndarray:
        item_vD = scale * on_host(as_float64(items[at]))
        return item_vD if bias_V is None else np.column_stack([item_vD, bias_V[at]])

    none_R = np.zeros(dim if bias_V is None else dim + 1)  # where a part has no rows
    centre_R = total(sum((c_V[at] @ rows(at) for at in blocks), none_R))
    along_R = total(sum((b_V[at] @ (rows(at) - centre_R) for at in blocks), none_R))
    query_R = mean_D if bias_V is None else np.append(mean_D, 1.0)
    shared, gram_DD = 0.0, np.zeros((dim, dim))
    for at in blocks:
        off_vR = rows(at) - centre_R - np.outer(b_V[at], along_R)
        shared += float(np.square(off_vR @ query_R).sum())
        gram_DD += off_vR[:, :dim].T @ off_vR[:, :dim]
    shared, gram_DD = float(total(np.array(shared))), total(gram_DD)
    return shared + float(np.maximum(0.0, np.sum(cov_DD * gram_DD)))


@one_thread
def gram_spectrum(
    mean_D: np.ndarray, cov_DD: np.ndarray, item_VD: np.ndarray, bias_V: np.ndarray | None, scale: float
) -> np.ndarray:
    """Singular values of W^{1/2} S H, largest first, [min(D + 1, V)].

    W^{1/2} S H = [√W (Q - 1 q̄ᵀ), √w] [scale E_c, H m]ᵀ with m = scale E q̄ + a; the left factor
    has Gram matrix diag(Cov, 1), so its root stands for its R factor.
    """
    centre_D, centre = item_VD.mean(axis=0, dtype=np.float64), 0.0 if bias_V is None else bias_V.mean()

    def rows(at: slice) -> np.ndarray:
        item_vR = np.empty((len(item_VD[at]), len(mean_D) + 1))
        np.multiply(item_VD[at] - centre_D, scale, out=item_vR[:, :-1])
        item_vR[:, -1] = item_vR[:, :-1] @ mean_D
        if bias_V is not None:
            item_vR[:, -1] += bias_V[at] - centre
        return item_vR

    right_RR = triangle(rows, len(item_VD))
    value_D, vector_DD = np.linalg.eigh(cov_DD)
    root_DD = (vector_DD * np.sqrt(np.clip(value_D, 0, None))).T
    core = np.vstack([root_DD @ right_RR[:, :-1].T, right_RR[:, -1]])
    return np.linalg.svd(core, compute_uv=False)


def triangle(rows: Callable[[slice], np.ndarray], num_rows: int) -> Any:
    """The R factor of a tall matrix, from the R factors of blocks of rows that fit in cache."""
    part_RR = [np.linalg.qr(rows(slice(low, low + 2048)), mode="r") for low in range(0, num_rows, 2048)]
    return part_RR[0] if len(part_RR) == 1 else np.linalg.qr(np.concatenate(part_RR), mode="r")


def tile_energies(
    score_tile: Callable[[slice, slice], Any],
    num_contexts: int,
    log_prior_V: np.ndarray,
    weight_C: np.ndarray,
    rows: int,
    columns: int,
) -> ScoreEnergy:
    """The energies of any scores, tile by tile: score_tile(contexts, items) -> [rows, columns].

    Per context: running mean, centred sum of squares (tiles merged as Chan does) and
    sum (s - shift) b, with shift the mean of the context's first tile: b sums to zero, so the
    shift cancels, and large row offsets lose no digits.
    """
    num_items = len(log_prior_V)
    b_V, norm = popularity_direction(log_prior_V)
    weight = float(weight_C.sum())
    total = 0.0
    t_C = np.empty(num_contexts)
    for low in range(0, num_contexts, rows):
        context = slice(low, min(low + rows, num_contexts))
        seen = 0
        for left in range(0, num_items, columns):
            item = slice(left, min(left + columns, num_items))
            tile_CV = on_host(as_float64(score_tile(context, item)))
            width = tile_CV.shape[1]
            if seen == 0:
                shift_C = tile_CV.mean(axis=1)
                mean_C = np.zeros(len(shift_C))
                square_C = np.zeros(len(shift_C))
                along_C = np.zeros(len(shift_C))
            tile_CV = tile_CV - shift_C[:, None]
            along_C += tile_CV @ b_V[item]
            tile_mean_C = tile_CV.mean(axis=1)
            step_C = tile_mean_C - mean_C
            square_C += ((tile_CV - tile_mean_C[:, None]) ** 2).sum(axis=1)
            square_C += step_C**2 * (seen * width / (seen + width))
            mean_C += step_C * (width / (seen + width))
            seen += width
        t_C[context] = along_C
        total += float(weight_C[context] @ square_C) / weight
    return energies_of_sums(total, t_C, weight_C, norm)


def energies_of_sums(total: float, t_C: np.ndarray, weight_C: np.ndarray, norm: float) -> ScoreEnergy:
    """From the mean over contexts of ||S_c H||² and each context's t."""
    weight = float(weight_C.sum())
    mean_t = float(weight_C @ t_C) / weight
    heterogeneous = float(weight_C @ (t_C - mean_t) ** 2) / weight
    return ScoreEnergy(
        total=total,
        direction=mean_t**2 + heterogeneous,
        shared=mean_t**2,
        heterogeneous=heterogeneous,
        off_direction=float(np.maximum(0.0, total - mean_t**2 - heterogeneous)),
        slope_mean=mean_t / norm,
        slope_std=heterogeneous**0.5 / norm,
        direction_norm=norm,
    )
