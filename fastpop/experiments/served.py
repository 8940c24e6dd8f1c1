"""The scores of a trained arm over beta, its popularity_weight, and what can be made of the standard one
afterwards."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from fastpop import checks, evaluation
from fastpop.data import columns
from fastpop.data.interactions import Interactions
from fastpop.diagnostics import ScoreMoments
from fastpop.experiments.arms import AFTERWARDS, STANDARD, Arm
from fastpop.model import Recommender
from fastpop.ops import readable
from fastpop.training.result import moments_of


@dataclass(frozen=True, eq=False)
class Served:
    """scale * <query, item> + base + beta * term, one family of scores over beta.

    moments: of the learned part, base included. term_V: what beta multiplies; None: there is none, the
    scores are served as they are, at beta = 1.
    """

    arm: str
    moments: ScoreMoments
    term_V: np.ndarray | None

    __repr__ = checks.brief

    def at(self, weight: float) -> ScoreMoments:
        """The moments of the score served at this beta."""
        return self.moments if self.term_V is None else self.moments.with_popularity(weight, self.term_V)

    def scores(self, query_CD: Tensor, weight: float) -> evaluation.DotScores:
        """What is ranked at this beta; fp32, as a model serves it."""
        moments = self.at(weight)
        items = readable.view_of(moments.item_VD).float().to(query_CD.device)
        bias = (
            None
            if moments.bias_V is None
            else torch.tensor(moments.bias_V, dtype=torch.float32, device=query_CD.device)
        )
        return evaluation.DotScores(query_CD.float(), items, bias, moments.scale)


def families(
    arm: str, model: Recommender, train: Interactions, log_prior_V: np.ndarray, others: Sequence[Arm] = ()
) -> list[Served]:
    """The family of an arm; of the standard one also those that need no training.

    log_prior_V: of half A: what is subtracted, and the direction that is projected out.
    """
    moments = moments_of(model, train)
    # Of this moment: the model trains on. A large table waits in a file for what is asked of it.
    moments = replace(moments, item_VD=columns.copied(moments.item_VD, columns.DISK))
    decoder = model.decoder
    if arm != STANDARD:
        return [Served(arm, moments, decoder.popularity_term().detach().double().cpu().numpy())]
    return [
        Served(STANDARD, moments, None),
        *(
            Served(later.name, later.made(moments, log_prior_V), log_prior_V)
            for later in (*AFTERWARDS.values(), *others)
        ),
    ]
