"""Subspaces of items: the one that popularity moves in, how near two are, what scores have in one."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from fastpop import checks
from fastpop.diagnostics.moments import ScoreMoments
from fastpop.ops.energies import popularity_direction

LEAST = 1e-10  # singular values below this share of the largest are rounding


@dataclass(frozen=True)
class SubspaceEnergy:
    """energy: the mean over contexts of the squared length of centred scores within the subspace. total: that
    of the whole scores. dim: k, of the subspace. null_share: k / (V - 1), the share that a subspace has on
    average that knows nothing of the scores."""

    energy: float
    total: float
    dim: int
    null_share: float

    @property
    def share(self) -> float:
        """energy / total; nan for scores that do not vary over items."""
        return self.energy / self.total if self.total > 0 else float("nan")


def time_subspace(log_prior: Any, dim: int, *, weight: Any = None, beside: Any = None) -> np.ndarray:
    """[V, k] orthonormal, each column summing to 0: where log p_t differs most over periods.

    The right singular vectors of diag(√w) H log p_t of the k largest singular values.

    Args:
        log_prior: [T, V] nats, a row a period. dim: k.
        weight: [T] >= 0 or None for equal ones.
        beside: [V] nats, say the pooled log p: its direction is taken out first, so that what is left is what
            one log p for all periods cannot be. None: nothing is, and the first direction is about that one.
    Raises: ValueError, TypeError; where log p_t has fewer than k directions.
    Cost: O(T² V).
    """
    log_prior_TV = checks.float_array("log_prior", log_prior, 2)
    checks.number("dim", dim, ge=1, integer=True)
    weight_T = np.ones(len(log_prior_TV)) if weight is None else checks.float_array("weight", weight, 1)
    checks.shape("weight", weight_T, (len(log_prior_TV),))
    if (weight_T < 0).any() or weight_T.sum() == 0:
        raise checks.wrong("weight", "numbers >= 0, not all zero", weight_T)
    row_TV = log_prior_TV - log_prior_TV.mean(axis=1, keepdims=True)
    scale = np.linalg.norm(row_TV)
    if beside is not None:
        beside_V = checks.float_array("beside", beside, 1)
        checks.shape("beside", beside_V, (log_prior_TV.shape[1],))
        b_V = popularity_direction(beside_V)[0]
        row_TV = row_TV - np.outer(row_TV @ b_V, b_V)
    _, sigma, right = np.linalg.svd(np.sqrt(weight_T / weight_T.sum())[:, None] * row_TV, full_matrices=False)
    there = int((sigma > LEAST * scale).sum())
    if there < dim:
        raise checks.wrong("dim", f"at most {there}, the directions that log_prior has", dim)
    return right[:dim].T


def principal_angles(first: Any, second: Any) -> np.ndarray:
    """[min(k, l)] cosines of the principal angles between two subspaces, largest first: 1 where a direction
    is in both, 0 where one is orthogonal to the other.

    first: [V, k], second: [V, l]: columns that span them, orthonormal or not. The singular values of Q1ᵀ Q2,
    Q an orthonormal basis of each (Björck & Golub 1973). Those of two random subspaces are at most about
    (√k + √l) / √V.
    Raises: ValueError for columns that depend on each other.
    Cost: O(V (k + l)²).
    """
    first_VK = _orthonormal("first", checks.float_array("first", first, 2))
    second_VL = checks.float_array("second", second, 2)
    checks.shape("second", second_VL, (len(first_VK), "l"))
    cosine = np.linalg.svd(first_VK.T @ _orthonormal("second", second_VL), compute_uv=False)
    return np.minimum(cosine, 1.0)


def subspace_energy(moments: ScoreMoments, basis: Any) -> SubspaceEnergy:
    """scale² tr(Uᵀ G U), U = Eᵀ B: what centred scores have within a subspace of item space.

    moments: of the scores scale * Q Eᵀ + 1 aᵀ, a their bias. G: the second moment of queries. basis: [V, k]
    columns that span it; they are centred over items and made orthonormal: B.
    Raises: ValueError where the centred columns depend on each other.
    Cost: O(V (D + k) (D + k)).
    """
    basis_VK = checks.float_array("basis", basis, 2)
    checks.shape("basis", basis_VK, (moments.num_items, "k"))
    basis_VK = _orthonormal("basis", basis_VK - basis_VK.mean(axis=0))
    row_VR, mean_R = moments.rows(), moments.mean()
    second_RR = moments.covariance() + np.outer(mean_R, mean_R)
    along_RK = row_VR.T @ basis_VK
    dim = basis_VK.shape[1]
    return SubspaceEnergy(
        float(np.sum((second_RR @ along_RK) * along_RK)),
        float(np.sum(second_RR * (row_VR.T @ row_VR))),
        dim,
        dim / (moments.num_items - 1),
    )


def _orthonormal(name: str, span_VK: np.ndarray) -> np.ndarray:
    """An orthonormal basis of the columns' span."""
    num_items, dim = span_VK.shape
    if not 1 <= dim <= num_items:
        raise checks.wrong(name, f"1 to {num_items} columns", span_VK)
    norm_K = np.linalg.norm(span_VK, axis=0)
    if (norm_K == 0).any():
        raise checks.wrong(name, "columns that are not zero", span_VK)
    basis_VK, left_KK = np.linalg.qr(span_VK / norm_K)
    if np.abs(np.diag(left_KK)).min() < LEAST:
        raise checks.wrong(name, "columns that do not depend on each other", span_VK)
    return basis_VK
