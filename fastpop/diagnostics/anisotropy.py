"""Anisotropy and isotropy of item vectors, by the measures that papers print. Each is of a table as it
stands: Q -> Q A, E -> E A^-T leaves every score as it is and changes these (see geometry.py)."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from fastpop import checks
from fastpop.diagnostics.diagnostic import Diagnostic
from fastpop.diagnostics.geometry import average_cosine, uniformity
from fastpop.diagnostics.moments import ScoreMoments
from fastpop.ops.energies import centre_rows


class Anisotropy(Diagnostic):
    name = "anisotropy"
    label = "Anisotropy"
    definition = (
        "Of the item vectors: the mean cosine of two different ones, and the share of their squared length "
        "along the largest direction (maximum explainable variance); Ethayarajh 2019."
    )
    bounds = (-1.0, 1.0)

    def measure(self, moments: ScoreMoments, log_prior_V: np.ndarray) -> Mapping[str, float]:
        item_VD = moments.item_VD.astype(np.float64, copy=False)
        return {
            "mean cosine": average_cosine(item_VD),
            "centred": average_cosine(centre_rows(item_VD)),
            "largest share": largest_share(item_VD),
        }


class PartitionIsotropy(Diagnostic):
    name = "isotropy"
    label = "Isotropy of Z"
    definition = (
        "Of the item vectors: least / largest Z(c) = Σ exp<c, e_i> over the unit principal directions c, -c; "
        "1 where no direction is special; Mu & Viswanath 2018."
    )
    bounds = (0.0, 1.0 + 1e-12)

    def measure(self, moments: ScoreMoments, log_prior_V: np.ndarray) -> Mapping[str, float]:
        item_VD = moments.item_VD.astype(np.float64, copy=False)
        return {"raw": partition_isotropy(item_VD), "centred": partition_isotropy(centre_rows(item_VD))}


@dataclass(frozen=True)
class ItemUniformity(Diagnostic):
    """most: items it is of, the most popular, as it takes O(n² D)."""

    name: ClassVar[str] = "uniformity"
    label: ClassVar[str] = "Uniformity"
    definition: ClassVar[str] = (
        "log mean exp(-2 ||u - v||²) over pairs of unit item vectors, of the most popular items (up to 4,096 "
        "unless told); lower is more uniform; Wang & Isola 2020."
    )
    bounds: ClassVar[tuple[float, float]] = (-8.0, 0.0)
    most: int = 4096

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.number("diagnostic.most", self.most, ge=2, integer=True)

    def measure(self, moments: ScoreMoments, log_prior_V: np.ndarray) -> float:
        chosen = np.argsort(-log_prior_V, kind="stable")[: self.most]
        item_nD = moments.item_VD[chosen]
        item_nD = item_nD[(item_nD != 0).any(axis=1)]
        return uniformity(item_nD) if len(item_nD) > 1 else math.nan


@dataclass(frozen=True)
class SingularAlignment(Diagnostic):
    """rank: of the subspace."""

    name: ClassVar[str] = "singular_alignment"
    label: ClassVar[str] = "p in the scores"
    definition: ClassVar[str] = (
        "|cos| of p (probabilities) with the scores' first right singular vector, and with the span of the "
        "first few, 4 unless told; scores not centred, so a constant added to a context's scores counts."
    )
    bounds: ClassVar[tuple[float, float]] = (0.0, 1.0 + 1e-9)
    rank: int = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.number("diagnostic.rank", self.rank, ge=1, integer=True)

    def measure(self, moments: ScoreMoments, log_prior_V: np.ndarray) -> Mapping[str, float]:
        cosine_R = singular_cosines(moments, np.exp(log_prior_V - log_prior_V.max()))
        return {
            "first": float(cosine_R[0]) if len(cosine_R) else math.nan,
            f"first {self.rank}": float(np.linalg.norm(cosine_R[: self.rank])) if len(cosine_R) else math.nan,
        }


def largest_share(item_VD: np.ndarray) -> float:
    """σ_1² / Σ σ² of a table as it stands; nan for zeros. O(V D²)."""
    square_D = np.linalg.eigvalsh(item_VD.T @ item_VD)
    return float(square_D[-1] / square_D.sum()) if square_D.sum() > 0 else math.nan


def partition_isotropy(item_VD: np.ndarray) -> float:
    """min Z / max Z, Z(c) = Σ_i exp<c, e_i>, over c = ±(eigenvectors of EᵀE). O(V D²).

    The paper takes eigenvectors, whose sign is arbitrary; both signs make it a number of the table alone.
    """
    _, axis_DD = np.linalg.eigh(item_VD.T @ item_VD)
    along_VD = item_VD @ axis_DD
    log_z = []
    for signed_VD in (along_VD, -along_VD):
        top_D = signed_VD.max(axis=0)
        log_z.append(top_D + np.log(np.exp(signed_VD - top_D).sum(axis=0)))
    return float(np.exp(np.min(log_z) - np.max(log_z)))


def singular_cosines(moments: ScoreMoments, weight_V: np.ndarray) -> np.ndarray:
    """[R] |cos| of weight_V with each right singular vector of the weighted scores, largest singular value
    first; those of value 0 are left out. O(V R²)."""
    item_VR, mean_R = moments.scale * moments.item_VD.astype(np.float64, copy=False), moments.mean()
    if moments.bias_V is not None:
        item_VR = np.column_stack([item_VR, moments.bias_V])
    value_R, vector_RR = np.linalg.eigh(moments.covariance() + np.outer(mean_R, mean_R))
    root_VR = item_VR @ (
        vector_RR * np.sqrt(np.clip(value_R, 0, None))
    )  # its left singular vectors are those
    square_R, axis_RR = np.linalg.eigh(root_VR.T @ root_VR)
    kept = np.flatnonzero(square_R > 1e-12 * max(square_R[-1], 0))[::-1]
    along_R = (weight_V @ root_VR) @ axis_RR[:, kept] / np.sqrt(square_R[kept])
    return np.abs(along_R) / np.linalg.norm(weight_V)


@dataclass(frozen=True)
class SelfSimilarity:
    """value: mean over groups of the mean cosine of two of its vectors. baseline: that of any two vectors.
    adjusted: value - baseline. num_groups: of two vectors or more."""

    value: float
    baseline: float
    adjusted: float
    num_groups: int


def self_similarity(vectors: Any, group: Any) -> SelfSimilarity:
    """How alike the vectors of one group are, queries whose next item is the same, say, beside any two.

    vectors: [N, D], none zero. group: [N] integers. O(N D).
    Raises: ValueError, TypeError; where no group has two.
    Source: Ethayarajh 2019, sec. 3.3 and 3.4.
    """
    vector_ND = checks.float_array("vectors", vectors, 2)
    group_N = checks.int_array("group", group)
    checks.shape("group", group_N, (len(vector_ND),))
    norm_N = np.linalg.norm(vector_ND, axis=1)
    if (norm_N == 0).any():
        raise checks.wrong("vectors", "rows that are not zero", text=f"zero row {int(norm_N.argmin())}")
    unit_ND = vector_ND / norm_N[:, None]
    _, place_N, size_G = np.unique(group_N, return_inverse=True, return_counts=True)
    if (size_G < 2).all():
        raise checks.wrong("group", "a group of two or more", text=f"{len(size_G)} of one")
    total_GD = np.zeros((len(size_G), unit_ND.shape[1]))
    np.add.at(total_GD, place_N, unit_ND)
    square_G, many_G = (total_GD**2).sum(axis=1), size_G >= 2
    cosine_G = (square_G[many_G] - size_G[many_G]) / (size_G[many_G] * (size_G[many_G] - 1))
    value, baseline = float(cosine_G.mean()), average_cosine(vector_ND)
    return SelfSimilarity(value, baseline, value - baseline, int(many_G.sum()))


OURS = (Anisotropy, PartitionIsotropy, ItemUniformity, SingularAlignment)
