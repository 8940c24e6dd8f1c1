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
tiles in, per-context sums out.
Source: arXiv:2606.21275; merging of moments, Chan, Golub & LeVeque 1979.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastpop import checks

ROWS = 16384  # contexts converted to float64 at once
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


def unsupported(rows: Any) -> str | None:
    return None


def row_moments(
    rows_ND: Any, weight_N: Any = None, extra_NM: np.ndarray | None = None
) -> tuple[float, np.ndarray, np.ndarray]:
    """(W, mean [R], scatter [R, R]) of the rows [rows, extra], R = D + M, weighted by w (1 each):
    W = sum w, mean = sum w x / W, scatter = sum w (x - mean)(x - mean)ᵀ; float64.

    Torch rows are reduced on their own device (on the host where it has no float64). NaN and inf
    run through to the sums, where callers look for them.
    """
    found = (0.0, np.zeros(rows_ND.shape[1] + (0 if extra_NM is None else extra_NM.shape[1])))
    total = (*found, np.zeros((len(found[1]), len(found[1]))))
    for low in range(0, len(rows_ND), ROWS):
        x_CR = as_float64(rows_ND[low : low + ROWS])
        if extra_NM is not None:
            x_CR = np.column_stack([on_host(x_CR), extra_NM[low : low + ROWS]])
        given = np.ones(len(x_CR)) if weight_N is None else weight_N[low : low + ROWS]
        w_C = as_float64(given, like=x_CR)
        weight = float(w_C.sum())
        if weight == 0.0:
            continue
        with np.errstate(invalid="ignore", over="ignore"):
            mean_R = w_C @ x_CR / weight
            # Rounding of the mean enters the scatter squared: centring once is enough.
            x_CR = x_CR - mean_R
            scatter_RR = x_CR.T @ (x_CR * w_C[:, None])
            total = joined(total, (weight, on_host(mean_R), on_host(scatter_RR)))
    return total


def joined(one: tuple, other: tuple) -> tuple[float, np.ndarray, np.ndarray]:
    """The moments of two sets of rows together."""
    (weight_1, mean_1, scatter_1), (weight_2, mean_2, scatter_2) = one, other
    weight = weight_1 + weight_2
    if weight == 0.0:
        return one
    step_R = mean_2 - mean_1
    between_RR = np.outer(step_R, step_R) * (weight_1 * weight_2 / weight)
    return (weight, mean_1 + step_R * (weight_2 / weight),
            scatter_1 + (scatter_2 + scatter_2.T) / 2 + between_RR)


def as_float64(value: Any, like: Any = None) -> Any:
    """Numpy or torch as float64 of the kind (and device) of `like`."""
    if like is not None and hasattr(like, "detach") and not hasattr(value, "detach"):
        import torch

        return torch.as_tensor(np.asarray(value, np.float64), device=like.device)
    if hasattr(value, "detach"):
        if like is not None and not hasattr(like, "detach"):
            return value.detach().cpu().double().numpy()
        value = value.detach()
        if value.device.type == "mps":
            value = value.cpu()
        return value.to(device=like.device if like is not None else value.device).double()
    return np.asarray(value, np.float64)


def on_host(value: Any) -> np.ndarray:
    return value.cpu().numpy() if hasattr(value, "cpu") else value


def centre_rows(item_VD: np.ndarray, centring_V: np.ndarray | None = None) -> np.ndarray:
    """E - 1 (cᵀE). Always before a product: EᵀE minus its mean part would cancel digits."""
    if centring_V is None:
        return item_VD - item_VD.mean(axis=0)
    return item_VD - centring_V @ item_VD


def popularity_direction(
    log_prior_V: np.ndarray, centring_V: np.ndarray | None = None
) -> tuple[np.ndarray, float]:
    """b [V], a unit vector along centred log p, and ||f~||. Uniform popularity raises."""
    if np.ptp(log_prior_V) <= 1e-12 * max(1.0, float(np.abs(log_prior_V).max())):
        raise checks.wrong(
            "log_prior", "a popularity that varies over items",
            "=a uniform one, whose direction is not defined",
        )
    centred_V = centre_rows(log_prior_V[:, None], centring_V)[:, 0]
    # Not by BLAS, whose threads spin on for a while in the way of a kernel's.
    norm = float(np.sqrt(np.square(centred_V).sum()))
    return centred_V / norm, norm


def gram_energies(
    mean_D: np.ndarray, cov_DD: np.ndarray, item_moments: tuple, has_bias: bool, scale: float,
    norm: float, centred: bool = False,
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
    mean_D: np.ndarray, cov_DD: np.ndarray, items: Any, bias_V: np.ndarray | None, scale: float,
    b_V: np.ndarray, centring_V: np.ndarray | None = None,
) -> float:
    """off_direction, with b taken out of the rows before they are squared: exact where nearly all
    energy lies along b and a difference of Gram matrices has no digits left. Three passes over the
    items, a block of float64 rows at a time."""
    num_items, dim = items.shape
    c_V = np.full(num_items, 1 / num_items) if centring_V is None else centring_V
    blocks = [slice(low, low + ROWS) for low in range(0, num_items, ROWS)]

    def rows(at: slice) -> np.ndarray:
        item_vD = scale * on_host(as_float64(items[at]))
        return item_vD if bias_V is None else np.column_stack([item_vD, bias_V[at]])

    centre_R = sum(c_V[at] @ rows(at) for at in blocks)
    along_R = sum(b_V[at] @ (rows(at) - centre_R) for at in blocks)
    query_R = mean_D if bias_V is None else np.append(mean_D, 1.0)
    shared, gram_DD = 0.0, np.zeros((dim, dim))
    for at in blocks:
        off_vR = rows(at) - centre_R - np.outer(b_V[at], along_R)
        shared += float(np.square(off_vR @ query_R).sum())
        gram_DD += off_vR[:, :dim].T @ off_vR[:, :dim]
    return shared + float(np.maximum(0.0, np.sum(cov_DD * gram_DD)))


def gram_spectrum(
    mean_D: np.ndarray, cov_DD: np.ndarray, item_VD: np.ndarray, bias_V: np.ndarray | None,
    scale: float,
) -> np.ndarray:
    """Singular values of W^{1/2} S H, largest first, [min(D + 1, V)].

    W^{1/2} S H = [√W (Q - 1 q̄ᵀ), √w] [scale E_c, H m]ᵀ with m = scale E q̄ + a; the left factor
    has Gram matrix diag(Cov, 1), so its root stands for its R factor.
    """
    item_VD = centre_rows(item_VD)
    shared_V = scale * (item_VD @ mean_D)
    if bias_V is not None:
        shared_V = shared_V + centre_rows(bias_V[:, None])[:, 0]
    right_RR = triangle(np.column_stack([scale * item_VD, shared_V]))
    value_D, vector_DD = np.linalg.eigh(cov_DD)
    root_DD = (vector_DD * np.sqrt(np.clip(value_D, 0, None))).T
    core = np.vstack([root_DD @ right_RR[:, :-1].T, right_RR[:, -1]])
    return np.linalg.svd(core, compute_uv=False)


def triangle(item_VR: np.ndarray) -> Any:
    """The R factor of a tall matrix, from the R factors of blocks of rows that fit in cache."""
    part_RR = [
        np.linalg.qr(item_VR[low : low + 2048], mode="r") for low in range(0, len(item_VR), 2048)
    ]
    return part_RR[0] if len(part_RR) == 1 else np.linalg.qr(np.concatenate(part_RR), mode="r")


def tile_energies(
    score_tile: Callable[[slice, slice], Any], num_contexts: int, log_prior_V: np.ndarray,
    weight_C: np.ndarray, rows: int, columns: int,
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


def energies_of_sums(
    total: float, t_C: np.ndarray, weight_C: np.ndarray, norm: float
) -> ScoreEnergy:
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


def score_sums(
    query_CD: Any, item_VD: Any, bias_V: np.ndarray | None, b_V: np.ndarray, scale: float,
    cap: float,
) -> tuple[np.ndarray, np.ndarray]:
    """(sum over items of (s - mean)², of s * b), [C] each, for s = f(scale * q.e + bias), f(z) = z
    or, where cap is not 0, cap * tanh(z / cap). Tiles of float64 scores, on the host."""
    query_CD, item_VD = (on_host(as_float64(one)) for one in (query_CD, item_VD))
    square_C, along_C = np.empty(len(query_CD)), np.empty(len(query_CD))
    step = max(1, (1 << 21) // len(item_VD))
    for low in range(0, len(query_CD), step):
        rows = slice(low, low + step)
        score_CV = scale * (query_CD[rows] @ item_VD.T)
        if bias_V is not None:
            score_CV += bias_V
        if cap:
            score_CV = cap * np.tanh(score_CV / cap)
        score_CV -= score_CV.mean(1, keepdims=True)
        square_C[rows] = np.square(score_CV).sum(1)
        along_C[rows] = score_CV @ b_V
    return square_C, along_C
