"""Scores of a model trained free of popularity, with a popularity of one's choice multiplied in."""

from typing import Any

import torch
from torch import Tensor

from fastpop import checks
from fastpop.evaluation.popularity_bias import check_counts
from fastpop.evaluation.ranking import Score


def injected_scorer(score: Score, popularity: Any, power: float = 0.1) -> Score:
    """log((ELU(f) + 1) m^power), f what `score` gives: ranks as PDA's product does.

    Args:
        score: DotScores, or a function from a slice of cases to [b, V], of a model of loss "pda".
        popularity: [V] >= 0, as of `popularity.drift_forecast`. An item of 0 comes last (-inf).
        power: γ >= 0; 0 ranks by f itself.
    Raises: ValueError, TypeError.
    Source: Zhang et al., SIGIR 2021 (arXiv:2105.06067).
    """
    popularity_V = torch.as_tensor(check_counts(popularity))
    checks.number("power", power, ge=0)
    added_V = power * torch.log(popularity_V) if power else torch.zeros_like(popularity_V)

    def injected(rows: slice) -> Tensor:
        said_BV = torch.as_tensor(score(rows)).double()
        # log(ELU(f) + 1) is f below 0 and log(1 + f) above.
        return torch.where(said_BV > 0, torch.log1p(said_BV.clamp(min=0)), said_BV) + added_V.to(said_BV)

    return injected
