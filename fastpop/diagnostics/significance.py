"""Permutation tests of score energies: p-values that are never 0, with their uncertainty, and the
exact mean and variance of the null beside them.

Under the label null the item labels y = b (sum 0, sum of squares 1) are permuted over items;
under the sign null each is multiplied by a random sign. A statistic yᵀAy with A = Z M Zᵀ needs
only the projections yᵀZ. Formulas: exact finite-population moments, derived for arXiv:2606.21275
and verified exhaustively in the tests.
"""

from dataclasses import dataclass

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

    item_VR: Z, centred over items. mean_R: m. cov_RR: C; zeros for the shared energy.
    """

    item_VR: np.ndarray
    mean_R: np.ndarray
    cov_RR: np.ndarray

    @classmethod
    def direction(cls, moments: ScoreMoments, item_VR: np.ndarray | None = None) -> "Form":
        """E_dir as a form; item_VR is moments.rows() where the caller has it."""
        item_VR = moments.rows() if item_VR is None else item_VR
        return cls(item_VR, moments.mean(), moments.covariance())

    @classmethod
    def shared(cls, moments: ScoreMoments, item_VR: np.ndarray | None = None) -> "Form":
        """E_sh as a form."""
        item_VR = moments.rows() if item_VR is None else item_VR
        mean_R = moments.mean()
        return cls(item_VR, mean_R, np.zeros((len(mean_R), len(mean_R))))

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
        item_VR, matrix_RR = plus.item_VR, plus.matrix
        if minus is not None:  # the difference is one form of the rows of both
            item_VR = np.hstack([item_VR, minus.item_VR])
            none_RR = np.zeros((len(matrix_RR), len(minus.matrix)))
            matrix_RR = np.block([[matrix_RR, none_RR], [none_RR.T, -minus.matrix]])
        return stratified_null(label_V, item_VR, matrix_RR, stratum_V)

    # The sign null is that of Z weighted by y: y_i e_i z_i = e_i (y_i z_i).
    def rows(form: Form) -> np.ndarray:
        return form.item_VR if kind == "label" else label_V[:, None] * form.item_VR

    a_VR, a_RR = rows(plus), plus.matrix
    product = a_RR @ (a_VR.T @ a_VR)
    trace = float(np.trace(product))
    square = float(np.sum(product * product.T))
    diagonal_V = plus.diagonal(a_VR)
    if minus is not None:
        b_VR, b_RR = rows(minus), minus.matrix
        product = b_RR @ (b_VR.T @ b_VR)
        cross = a_VR.T @ b_VR
        trace -= float(np.trace(product))
        square += float(np.sum(product * product.T))
        square -= 2 * float(np.sum((a_RR @ cross @ b_RR) * cross))
        diagonal_V = diagonal_V - minus.diagonal(b_VR)
    diagonal = float(diagonal_V @ diagonal_V)
    if kind == "sign":
        return trace, max(0.0, 2 * (square - diagonal))
    return quadratic_null(label_V, trace, square, diagonal)
