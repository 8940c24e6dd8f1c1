"""The scores of a trained arm over its knob, and what can be made of the standard one afterwards."""

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from fastpop import checks, evaluation
from fastpop.diagnostics import ScoreMoments
from fastpop.experiments.arms import POST_HOC, STANDARD
from fastpop.model import Recommender
from fastpop.popularity.prior import unit_direction
from fastpop.training.result import moments_of


@dataclass(frozen=True, eq=False)
class Served:
    """scale * <query, item> + base + beta * knob, one family of scores over beta.

    moments: of the learned part, base included. knob_V: what beta multiplies; None: there is no knob, the
    scores are served as they are, at beta = 1.
    """

    arm: str
    moments: ScoreMoments
    knob_V: np.ndarray | None

    __repr__ = checks.brief

    def at(self, weight: float) -> ScoreMoments:
        """The moments of the score served at this beta."""
        return self.moments if self.knob_V is None else self.moments.with_popularity(weight, self.knob_V)

    def scores(self, query_CD: Tensor, weight: float) -> evaluation.DotScores:
        """What is ranked at this beta; fp32, as a model serves it."""
        moments = self.at(weight)
        items = torch.tensor(moments.item_VD, dtype=torch.float32, device=query_CD.device)
        bias = None if moments.bias_V is None else torch.tensor(
            moments.bias_V, dtype=torch.float32, device=query_CD.device)
        return evaluation.DotScores(query_CD.float(), items, bias, moments.scale)


def families(arm: str, model: Recommender, train, log_prior_V: np.ndarray) -> list[Served]:
    """The family of an arm; of the standard one also those that need no training.

    log_prior_V: of half A: what is subtracted, and the direction that is projected out.
    """
    moments = moments_of(model, train)
    decoder = model.decoder
    if arm != STANDARD:
        knob = decoder.item_bias if decoder.item_bias is not None else decoder.log_prior_V
        return [Served(arm, moments, knob.detach().double().cpu().numpy())]
    slope = moments.energy(log_prior_V).slope_mean
    b_V = unit_direction(log_prior_V)
    without_VD = moments.item_VD - np.outer(b_V, b_V @ moments.item_VD)
    return [
        Served(STANDARD, moments, None),
        Served(POST_HOC, moments.with_popularity(-1, log_prior_V), log_prior_V),
        Served("post-hoc-fitted", moments.with_popularity(-slope, log_prior_V), log_prior_V),
        Served("projected", replace(moments, item_VD=without_VD), log_prior_V),
    ]
