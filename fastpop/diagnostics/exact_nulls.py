"""Exact moments of statistics of permuted labels, over all items or within strata.

Strata are permuted independently, so y = (mean of its stratum) + (what is permuted within it), and the
projections are yᵀZ = m + Σ_k e_k with e_k independent, of mean 0 and with

    m = Σ_k (Σ z)_k ȳ_k        Cov e_k = SS_y,k (scatter of z)_k / (n_k - 1).

Of the linear statistic xᵀy these are mean Σ n_k x̄_k ȳ_k and variance Σ SS_x,k SS_y,k / (n_k - 1).
Derived for arXiv:2606.21275 and verified exhaustively in the tests.
"""

from collections.abc import Callable
from itertools import permutations

import numpy as np


def quadratic_null(label_V: np.ndarray, trace: float, square: float, diagonal: float) -> tuple[float, float]:
    """Mean and variance of yᵀAy over all V! permutations of labels y.

    A symmetric with A1 = 0, sum y = 0, sum y² = 1; trace = tr A, square = ||A||_F²,
    diagonal = sum of A_ii². e_xyz are the means of y_i^x y_j^y y_k^z over distinct items.
    """
    num = len(label_V)
    fourth = float(np.sum(label_V**4))
    e4 = fourth / num
    e22 = (1 - fourth) / (num * (num - 1))
    e31 = -fourth / (num * (num - 1))
    e211 = (2 * fourth - 1) / (num * (num - 1) * (num - 2))
    e1111 = (3 - 6 * fourth) / (num * (num - 1) * (num - 2) * (num - 3))
    mean = trace / (num - 1)
    second = (
        diagonal * e4
        + (trace**2 + 2 * square - 3 * diagonal) * e22
        - 4 * diagonal * e31
        + (-2 * trace**2 + 12 * diagonal - 4 * square) * e211
        + (trace**2 + 2 * square - 6 * diagonal) * e1111
    )
    return mean, max(0.0, second - mean**2)


def strata_of(stratum_V: np.ndarray) -> list[np.ndarray]:
    """The places of each stratum."""
    order_V = np.argsort(stratum_V, kind="stable")
    starts = np.unique(stratum_V[order_V], return_index=True)[1]
    return np.split(order_V, starts[1:])


def linear_null(x_V: np.ndarray, label_V: np.ndarray, stratum_V: np.ndarray) -> tuple[float, float]:
    """Mean and variance of xᵀy over all permutations of y within strata. Cost: O(V)."""
    mean = variance = 0.0
    for place in strata_of(stratum_V):
        x_n, y_n = x_V[place], label_V[place]
        mean += len(place) * float(x_n.mean() * y_n.mean())
        if len(place) > 1:
            variance += float(
                np.square(x_n - x_n.mean()).sum() * np.square(y_n - y_n.mean()).sum() / (len(place) - 1)
            )
    return mean, variance


def stratified_null(
    label_V: np.ndarray,
    rows: Callable[[np.ndarray], np.ndarray],
    matrix_RR: np.ndarray,
    stratum_V: np.ndarray,
) -> tuple[float, float]:
    """Mean and variance of yᵀ Z M Zᵀ y over all permutations of y within strata; M symmetric. rows: of Z,
    asked for by their places.

    With h = M m the statistic is mᵀMm + Σ_k (2 hᵀe_k + e_kᵀMe_k) + Σ_{k≠l} e_kᵀMe_l. The terms are
    uncorrelated: those of one stratum have `one_stratum`'s variance, a pair twice tr(M C_k M C_l).
    Cost: O(V R²) and R³ a stratum.
    """
    strata = strata_of(stratum_V)
    fixed_R = sum(rows(place).sum(axis=0) * label_V[place].mean() for place in strata)
    h_R = matrix_RR @ fixed_R
    mean = float(fixed_R @ h_R)
    own = 0.0
    equal = 0.0  # Σ_k tr(M C_k M C_k), which the square of the sum has too many
    all_RR = np.zeros_like(matrix_RR)
    for place in strata:
        if len(place) == 1:
            continue
        z_nR = rows(place)
        z_nR = z_nR - z_nR.mean(axis=0)
        y_n = label_V[place] - label_V[place].mean()
        cov_RR = z_nR.T @ z_nR * (float(y_n @ y_n) / (len(place) - 1))
        turned_RR = matrix_RR @ cov_RR
        mean += float(np.trace(turned_RR))
        equal += float(np.sum(turned_RR * turned_RR.T))
        all_RR += turned_RR
        own += one_stratum(y_n, z_nR, h_R, matrix_RR)
    between = 2 * (float(np.sum(all_RR * all_RR.T)) - equal)
    return mean, max(0.0, own + between)


def one_stratum(y_n: np.ndarray, z_nR: np.ndarray, h_R: np.ndarray, matrix_RR: np.ndarray) -> float:
    """Variance of 2 hᵀe + eᵀMe, e = Zᵀy_π over all permutations of y; y and Z centred, n >= 2.

    With x = Zh and A = Z M Zᵀ: Var(xᵀy_π) = ‖x‖² ‖y‖² / (n - 1); the quadratic part as over the whole
    catalogue; and their covariance is Σ x_i A_ii · Σ y³ · n / ((n - 1)(n - 2)).
    """
    num = len(y_n)
    x_n, moved_nR = z_nR @ h_R, z_nR @ matrix_RR
    if num < 4:  # the formulas below divide by (n - 2) and (n - 3)
        every = np.array(list(permutations(y_n)))
        proj = every @ z_nR
        return float(np.var(2 * every @ x_n + ((proj @ matrix_RR) * proj).sum(axis=1)))
    square_y = float(y_n @ y_n)
    if square_y == 0:
        return 0.0
    diagonal_n = np.einsum("nr,nr->n", moved_nR, z_nR)
    product_RR = matrix_RR @ (z_nR.T @ z_nR)
    quadratic = (
        quadratic_null(
            y_n / square_y**0.5,
            float(np.trace(product_RR)),
            float(np.sum(product_RR * product_RR.T)),
            float(diagonal_n @ diagonal_n),
        )[1]
        * square_y**2
    )
    linear = 4 * float(x_n @ x_n) * square_y / (num - 1)
    shared = float(x_n @ diagonal_n) * float(np.sum(y_n**3)) * num / ((num - 1) * (num - 2))
    return linear + quadratic + 4 * shared
