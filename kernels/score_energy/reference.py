"""Energies of a score matrix along log popularity, without the matrix.

Scores S = scale * Q Eᵀ + 1 aᵀ, contexts weighted by w (sum 1), f = log p. A centring c (sum 1;
uniform 1/V or the prior itself) acts from the right: H = I - c 1ᵀ, f~ = f - <c, f>,
b = f~ / ||f~||, t_c = <S_c H, b>.

    total          sum_c w_c ||S_c H||²
    direction      sum_c w_c t_c²
    shared         (sum_c w_c t_c)²
    heterogeneous  Var_w(t): from the covariance of the queries, never by the difference

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


@dataclass(frozen=True)
class ScoreEnergy:
    """Energies in squared nats, summed over items and averaged over contexts.

    slope_mean and slope_std are the mean and spread over contexts of the least-squares slope of
    a context's scores on log p; direction_norm is ||f~||, so shared = (slope_mean * norm)².
    """

    total: float
    direction: float
    shared: float
    heterogeneous: float
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


class GramStream:
    """Weight, mean and covariance of query rows that arrive in chunks of any size.

    Torch chunks are reduced on their own device (on the host where it has no float64).
    """

    def __init__(self, dim: int):
        self.dim = dim
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
        for low in range(0, len(query_CD), ROWS):
            rows_CD = as_float64(query_CD[low : low + ROWS])
            if weight_C is None:
                w_C = as_float64(np.ones(len(rows_CD)), like=rows_CD)
            else:
                w_C = as_float64(weight_C[low : low + ROWS], like=rows_CD)
            self.num_contexts += len(rows_CD)
            weight = float(w_C.sum())
            if weight == 0.0:
                continue
            # NaN and inf run through to the sums, where callers look for them.
            with np.errstate(invalid="ignore", over="ignore"):
                mean_D = w_C @ rows_CD / weight
                # Rounding of the mean enters the scatter squared: centring once is enough.
                rows_CD = rows_CD - mean_D
                scatter_DD = rows_CD.T @ (rows_CD * w_C[:, None])
                self._join(weight, on_host(mean_D), on_host(scatter_DD))
        return self

    def merge(self, other: "GramStream") -> "GramStream":
        """Add everything another stream has seen."""
        self.num_contexts += other.num_contexts
        if other.weight > 0:
            self._join(other.weight, other.mean_D, other.scatter_DD)
        return self

    def _join(self, weight: float, mean_D: np.ndarray, scatter_DD: np.ndarray) -> None:
        total = self.weight + weight
        step_D = mean_D - self.mean_D
        between_DD = np.outer(step_D, step_D) * (self.weight * weight / total)
        self.scatter_DD = self.scatter_DD + (scatter_DD + scatter_DD.T) / 2 + between_DD
        self.mean_D = self.mean_D + step_D * (weight / total)
        self.weight = total


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
    norm = float(np.linalg.norm(centred_V))
    return centred_V / norm, norm


def gram_energies(
    mean_D: np.ndarray, cov_DD: np.ndarray, item_VD: np.ndarray, bias_V: np.ndarray | None,
    scale: float, log_prior_V: np.ndarray, centring_V: np.ndarray | None = None,
) -> ScoreEnergy:
    """The energies of scale * Q Eᵀ + 1 aᵀ from mean and covariance of Q."""
    b_V, norm = popularity_direction(log_prior_V, centring_V)
    item_VD = centre_rows(item_VD, centring_V)
    shared_V = scale * (item_VD @ mean_D)
    if bias_V is not None:
        shared_V = shared_V + centre_rows(bias_V[:, None], centring_V)[:, 0]
    u_D = item_VD.T @ b_V
    heterogeneous = max(0.0, scale**2 * float(u_D @ cov_DD @ u_D))
    mean_t = float(shared_V @ b_V)
    spread = scale**2 * float(np.sum(cov_DD * (item_VD.T @ item_VD)))
    return ScoreEnergy(
        total=float(shared_V @ shared_V) + max(0.0, spread),
        direction=mean_t**2 + heterogeneous,
        shared=mean_t**2,
        heterogeneous=heterogeneous,
        slope_mean=mean_t / norm,
        slope_std=heterogeneous**0.5 / norm,
        direction_norm=norm,
    )


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
    mean_t = float(weight_C @ t_C) / weight
    heterogeneous = float(weight_C @ (t_C - mean_t) ** 2) / weight
    return ScoreEnergy(
        total=total,
        direction=mean_t**2 + heterogeneous,
        shared=mean_t**2,
        heterogeneous=heterogeneous,
        slope_mean=mean_t / norm,
        slope_std=heterogeneous**0.5 / norm,
        direction_norm=norm,
    )
