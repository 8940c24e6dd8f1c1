"""Association of items beyond their popularity, counted and cut to a rank: what SGNS factorises."""

import math
from typing import Any

import torch
from torch import Tensor

from fastpop import checks
from fastpop.evaluation.ranking import Score
from fastpop.evaluation.together import histories, seen_together


def ppmi_scorer(log: Any, cases: Any, *, dim: int = 64, negatives: float = 1.0) -> Score:
    """score(c, i) = sum over the items j of c's history of M_d[j, i], M_d the best approximation of rank d of
    M = max(PMI(j, i) - log negatives, 0).

    PMI(j, i) = log(n_ji N / (n_j n_i)) of pairs of different items that a user has: n_ji users have both,
    n_j = Σ_i n_ji, N = Σ n_j. Pairs that nobody has are 0. Popularity is out of these scores by construction.

    dim: d, at most V. negatives: k of SGNS, > 0, whose scores tend to PMI - log k.
    Raises: ValueError, TypeError.
    Cost: some 10 V^3 FLOPs and 16 V^2 bytes, as for EASE: catalogues up to some ten thousand items.
    Source: Levy & Goldberg, NIPS 2014, sec. 3.2 and 4.2.
    """
    checks.number("dim", dim, ge=1, integer=True)
    checks.number("negatives", negatives, gt=0)
    value_V, axis_VV = torch.linalg.eigh(shifted_ppmi(seen_together(log), negatives))
    kept = value_V.abs().argsort(descending=True, stable=True)[: min(int(dim), log.num_items)]
    # M is symmetric: its singular values are |eigenvalues|, and the sign goes to one side.
    axis_VD, value_D = axis_VV[:, kept], value_V[kept]

    def score(rows: slice) -> Tensor:
        return (histories(cases, rows, log.num_items) @ axis_VD * value_D) @ axis_VD.T

    return score


def shifted_ppmi(together_VV: Tensor, negatives: float) -> Tensor:
    """[V, V] max(PMI - log negatives, 0), 0 on the diagonal; nats."""
    count_VV = together_VV.clone()
    count_VV.fill_diagonal_(0)
    total_V = count_VV.sum(1)
    expected_VV = total_V[:, None] * total_V / total_V.sum().clamp(min=1)
    pmi_VV = torch.log(count_VV / expected_VV.clamp(min=1e-30)) - math.log(negatives)
    return torch.where(count_VV > 0, pmi_VV.clamp(min=0), 0.0)
