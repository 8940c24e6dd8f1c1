"""Permutation tests of score energies: p-values that are never 0, with their uncertainty, and the
exact mean and variance of the null beside them.

Under the label null the item labels y = b (sum 0, sum of squares 1) are permuted over items;
under the sign null each is multiplied by a random sign. A statistic yᵀAy with A = Z M Zᵀ needs
only the projections yᵀZ. Formulas: exact finite-population moments, derived for arXiv:2606.21275
and verified exhaustively in the tests.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from fastpop import checks
from fastpop.diagnostics.exact_nulls import quadratic_null, stratified_null
from fastpop.diagnostics.moments import ScoreMoments
from fastpop.stats import clopper_pearson

# T and T_pi are computed on two routes that differ by rounding (1e-13 of the scale or less), so
# an exact tie may fall on either side. Everything within this share of the scale counts as >= T:
# ties then always count, as the formula of p wants, and p can only grow.
TIE = 1e-9


@dataclass(frozen=True, eq=False, repr=False)
class PermutationTest:
    """One statistic, its permutation null and p = (1 + #{T_pi >= T}) / (P + 1), one-sided.

    p_value, p_value_interval: None without permutations. The interval (Clopper-Pearson, 95 %) is
    the Monte-Carlo uncertainty of p: where the p-value of all permutations lies.
    null_mean, null_variance: exact. null_P: the T_pi drawn.
    kind: "label", "stratified" or "sign".
    """

    statistic: str
    observed: float
    p_value: float | None
    p_value_interval: tuple[float, float] | None
    null_mean: float | None
    null_variance: float | None
    null_P: np.ndarray
    kind: str = "label"

    @property
    def num_permutations(self) -> int:
        return len(self.null_P)

    @property
    def at_floor(self) -> bool:
        """Whether no draw reached the data: p is then the least that so many draws can give."""
        return self.p_value is not None and at_floor(self.p_value, self.num_permutations)

    def words(self) -> str:
        """`p_words` of it."""
        return p_words(self.p_value, self.num_permutations, self.p_value_interval)

    def to_dict(self, samples: bool = False) -> dict:
        """JSON-able; `samples` adds the drawn null."""
        out = {
            "statistic": self.statistic,
            "observed": self.observed,
            "p_value": self.p_value,
            "p_value_at_floor": self.at_floor,
            "p_value_interval": None if self.p_value_interval is None else list(self.p_value_interval),
            "null_mean": self.null_mean,
            "null_variance": self.null_variance,
            "num_permutations": self.num_permutations,
            "kind": self.kind,
        }
        if samples:
            out["samples"] = self.null_P.tolist()
        return out

    def __repr__(self) -> str:
        return (
            f"PermutationTest({self.statistic}={self.observed:.4g}, p_value={self.p_value}, "
            f"num_permutations={self.num_permutations})"
        )


def at_floor(p_value: float, num_permutations: int) -> bool:
    """Whether p is 1 / (P + 1), the least that P permutations can give."""
    return p_value * (num_permutations + 1) < 1.5


def p_short(p_value: float | None, num_permutations: int) -> str:
    """A p-value in the cell of a table: "0.0312", "1/2001 floor", "-" for None."""
    if p_value is None:
        return "-"
    if num_permutations and at_floor(p_value, num_permutations):
        return f"1/{num_permutations + 1} floor"
    return f"{p_value:.3g}"


def p_words(
    p_value: float | None, num_permutations: int, interval: tuple[float, float] | list[float] | None = None
) -> str:
    """A p-value in a sentence: "p = 1/2001, at its floor: none of 2,000 draws reaches the data, so p
    lies in [0, 0.0018]". interval: that of the Monte-Carlo error, 95 %."""
    if p_value is None:
        return "no p-value: no permutations were asked for"
    within = "" if interval is None else f"[{interval[0]:.2g}, {interval[1]:.2g}]"
    if num_permutations and at_floor(p_value, num_permutations):
        text = (
            f"p = 1/{num_permutations + 1}, at its floor: none of {num_permutations:,} draws reaches the data"
        )
        return f"{text}, so p lies in {within}" if within else text
    return f"p = {p_value:.3g}" + (f" (Monte-Carlo interval {within})" if within else "")


def permutation_test(
    statistic: str,
    observed: float,
    null_P: np.ndarray,
    *,
    null_mean: float | None = None,
    null_variance: float | None = None,
    scale: float | None = None,
    kind: str = "label",
) -> PermutationTest:
    """p = (1 + (null_P >= observed - tie).sum()) / (len(null_P) + 1), with its interval.

    `scale` is the size against which rounding is judged (|T| and the null's own by default).
    """
    null_P = np.array(null_P, np.float64)
    null_P.flags.writeable = False
    p_value = interval = None
    if len(null_P):
        if scale is None:
            scale = abs(observed) + float(np.sqrt(np.mean(null_P**2)))
        exceed = int((null_P >= observed - TIE * scale).sum())
        p_value = (1 + exceed) / (len(null_P) + 1)
        interval = clopper_pearson(exceed, len(null_P))
    return PermutationTest(statistic, observed, p_value, interval, null_mean, null_variance, null_P, kind)


@dataclass(frozen=True, eq=False)
class Form:
    """A score energy as a function of item labels: T(y) = (y'Zm)² + y'Z C Z'y.

    moments: whose `rows` are Z, centred over items, and which has them block by block. mean_R: m. cov_RR: C;
    zeros for the shared energy.
    """

    moments: ScoreMoments
    mean_R: np.ndarray
    cov_RR: np.ndarray

    @classmethod
    def direction(cls, moments: ScoreMoments) -> "Form":
        """E_dir as a form."""
        return cls(moments, moments.mean(), moments.covariance())

    @classmethod
    def shared(cls, moments: ScoreMoments) -> "Form":
        """E_sh as a form."""
        mean_R = moments.mean()
        return cls(moments, mean_R, np.zeros((len(mean_R), len(mean_R))))

    @property
    def item_VR(self) -> np.ndarray:  # noqa: N802
        """Z [V, R] float64, made anew: `moments.blocks()` needs no memory of its size."""
        return self.moments.rows()

    @property
    def matrix(self) -> np.ndarray:
        """M of A = Z M Zᵀ."""
        return self.cov_RR + np.outer(self.mean_R, self.mean_R)

    def diagonal(self, item_VR: np.ndarray) -> np.ndarray:
        """[V] of Z M Zᵀ for other rows Z, as labels weight them."""
        diagonal_V = np.square(item_VR @ self.mean_R)
        if self.cov_RR.any():
            diagonal_V += np.einsum("vr,vr->v", item_VR @ self.cov_RR, item_VR)
        return diagonal_V

    def at(self, proj_PR: np.ndarray) -> np.ndarray:
        """T [P] from projections yᵀZ [P, R]."""
        return (proj_PR @ self.mean_R) ** 2 + ((proj_PR @ self.cov_RR) * proj_PR).sum(axis=1)


def null_moments(
    label_V: np.ndarray,
    plus: Form,
    minus: Form | None = None,
    kind: str = "label",
    stratum_V: np.ndarray | None = None,
) -> tuple[float, float]:
    """Exact mean and variance of plus(y) - minus(y) under a null.

    label_V must sum to 0 with squares summing to 1 for the label null. kind "stratified" needs
    stratum_V.
    Cost: O(V R²); R³ more for each stratum.
    """
    if kind == "stratified":
        if stratum_V is None:
            raise checks.wrong("stratum_V", "integers [V] with kind='stratified'", stratum_V)
        rows, matrix_RR = plus.moments.part, plus.matrix
        if minus is not None:  # the difference is one form of the rows of both
            both = (plus.moments, minus.moments)
            none_RR = np.zeros((len(matrix_RR), len(minus.matrix)))
            matrix_RR = np.block([[matrix_RR, none_RR], [none_RR.T, -minus.matrix]])
            return stratified_null(
                label_V, lambda at: np.hstack([one.part(at) for one in both]), matrix_RR, stratum_V
            )
        return stratified_null(label_V, rows, matrix_RR, stratum_V)

    # The sign null is that of Z weighted by y: y_i e_i z_i = e_i (y_i z_i).
    def weighted(at: slice, item_vR: np.ndarray) -> np.ndarray:
        return item_vR if kind == "label" else label_V[at, None] * item_vR

    a_RR = plus.matrix
    gram: Any = 0.0
    gram_minus: Any = 0.0
    cross: Any = 0.0
    diagonal = 0.0
    for at, item_vR in plus.moments.blocks():
        a_vR = weighted(at, item_vR)
        gram = gram + a_vR.T @ a_vR
        diagonal_v = plus.diagonal(a_vR)
        if minus is not None:
            b_vR = weighted(at, minus.moments.part(at))
            gram_minus = gram_minus + b_vR.T @ b_vR
            cross = cross + a_vR.T @ b_vR
            diagonal_v = diagonal_v - minus.diagonal(b_vR)
        diagonal += float(diagonal_v @ diagonal_v)
    product = a_RR @ gram
    trace = float(np.trace(product))
    square = float(np.sum(product * product.T))
    if minus is not None:
        b_RR = minus.matrix
        product = b_RR @ gram_minus
        trace -= float(np.trace(product))
        square += float(np.sum(product * product.T))
        square -= 2 * float(np.sum((a_RR @ cross @ b_RR) * cross))
    if kind == "sign":
        return trace, max(0.0, 2 * (square - diagonal))
    return quadratic_null(label_V, trace, square, diagonal)
