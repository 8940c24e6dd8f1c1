"""Parts as somebody else would write them, a kind each. `toy_plugin` registers them."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

from fastpop.data import Rows, Sequences, SplitRule
from fastpop.encoders import Encoder, EncoderOptions
from fastpop.evaluation import Reference
from fastpop.item_towers import ItemTower, ItemTowerOptions
from fastpop.objectives import Objective
from fastpop.popularity import ProposalOptions, power
from fastpop.priors import Prior
from fastpop.regularizers import RegularizerOptions
from fastpop.table_optimizers import TableOptimizer
from fastpop.training import Logger


@dataclass(frozen=True)
class Recurrent(EncoderOptions):
    """A GRU over item vectors, in the manner of GRU4Rec."""

    name: ClassVar[str] = "toy-gru"
    width: int = 8
    dropout: float = 0.0

    def build(self, sizes):
        return RecurrentEncoder(sizes, self.width)


class RecurrentEncoder(Encoder):
    reads = "sequences"

    def __init__(self, sizes, width):
        super().__init__()
        self.gru = nn.GRU(sizes.dim, width, batch_first=True)
        self.out = nn.Linear(width, sizes.dim)
        self.sparse = sizes.sparse

    def forward(self, user_B, history_BL, item_VD):
        return self.out(self.gru(F.embedding(history_BL.clamp(min=0), item_VD, sparse=self.sparse))[0])


@dataclass(frozen=True)
class Gated(ItemTowerOptions):
    """Item vectors times a learned gate for each dimension."""

    name: ClassVar[str] = "toy-gate"

    def build(self, sizes):
        return GatedTower(sizes.dim)


class GatedTower(ItemTower):
    def __init__(self, dim):
        super().__init__()
        self.gate = nn.Parameter(torch.zeros(dim))

    def forward(self, item_VD):
        return item_VD * (1 + self.gate)


@dataclass(frozen=True)
class BPR(Objective):
    """-log sigmoid(score of the positive - score of one drawn negative), Rendle et al. 2009."""

    name: ClassVar[str] = "toy-bpr"
    needs: ClassVar[str] = "negatives"
    logits: ClassVar[bool] = False
    margin: float = 0.0

    def build(self, given):
        return BPRLoss(given.distribution(), given.seed, self.margin)


class BPRLoss(nn.Module):
    def __init__(self, proposal, seed, margin):
        super().__init__()
        self.proposal, self.seed, self.margin = proposal, seed, margin

    def forward(self, query, items, pos_id, *, row_weight, log_prior, prior_weight, scale, step):
        neg_id = torch.from_numpy(self.proposal.sample(self.seed, step, len(pos_id))).to(pos_id.device)

        def score(item_id):
            found = scale * (query * items[item_id]).sum(1)
            return found if log_prior is None else found + prior_weight * log_prior[item_id]

        loss = -F.logsigmoid(score(pos_id) - score(neg_id) - self.margin)
        return loss.sum() if row_weight is None else (loss * row_weight).sum()


@dataclass(frozen=True)
class MeanScore(RegularizerOptions):
    """The square of the mean score."""

    name: ClassVar[str] = "toy-mean"

    def build(self, given):
        return SquaredMean()


class SquaredMean(nn.Module):
    def forward(self, query, items, pos_id, log_prior):
        return (query.mean(0) @ items[pos_id].mean(0)).square()


@dataclass(frozen=True)
class SquareRoot(ProposalOptions):
    """By square roots of counts, and one more of each."""

    name: ClassVar[str] = "toy-root"
    added: float = 1.0

    def build(self, count_V):
        return power(count_V + self.added, 0.5)


@dataclass(frozen=True)
class Halved(Prior):
    """Trained beside half of log p."""

    name: ClassVar[str] = "toy-half"
    refreshable: ClassVar[bool] = True

    @property
    def prior_weight(self):
        return 0.5


@dataclass(frozen=True)
class Backwards(Rows):
    """The windows of sequences in reverse order."""

    name: ClassVar[str] = "toy-backwards"
    needs_order: ClassVar[bool] = True
    first_events: ClassVar[bool | None] = False

    def batches(self, log, *, max_length, batch_size, seed):
        return Reversed(Sequences().batches(log, max_length=max_length, batch_size=batch_size, seed=seed))

    def contexts(self, log, *, max_length, chunk):
        return Sequences().contexts(log, max_length=max_length, chunk=chunk)


class Reversed:
    def __init__(self, made):
        self.made, self.num_rows = made, made.num_rows

    def num_batches(self, epoch):
        return self.made.num_batches(epoch)

    def epoch(self, epoch, skip=0):
        return iter(list(self.made.epoch(epoch))[::-1][skip:])

    def target_counts(self):
        return self.made.target_counts()


@dataclass(frozen=True)
class RecurrentBackwards(Recurrent):
    """A GRU that trains on rows of its own."""

    name: ClassVar[str] = "toy-gru-backwards"
    rows: ClassVar[str] = "toy-backwards"


@dataclass(frozen=True)
class Momentum(TableOptimizer):
    """torch's SGD with momentum."""

    name: ClassVar[str] = "toy-momentum"
    row_gradients: ClassVar[bool] = False
    momentum: float = 0.9

    def build(self, groups, lr, *, update_in_backward=False):
        return torch.optim.SGD(groups, lr=lr, momentum=self.momentum)


@dataclass(frozen=True)
class EveryTenth(SplitRule):
    """Every tenth event is the test, the one before it validates."""

    name: ClassVar[str] = "toy-tenth"
    every: int = 10

    def part(self, log, seed):
        at = np.arange(log.num_events) % self.every
        return np.where(at == self.every - 1, 2, np.where(at == self.every - 2, 1, 0))


@dataclass(frozen=True)
class Remember(Logger):
    """Keeps rows in a list of the class."""

    name: ClassVar[str] = "toy-list"
    needs_folder: ClassVar[bool] = False
    told: ClassVar[list] = []

    def open(self, out, config):
        return self

    def epoch(self, row):
        self.told.append(row)

    def close(self):
        self.told.append("closed")


@dataclass(frozen=True)
class Longest(Reference):
    """Counts of the items of long histories alone."""

    name: ClassVar[str] = "toy-longest"
    trained_on: ClassVar[str] = "events of users with many"
    served_as: ClassVar[str] = "counts"
    least: int = 5

    def shared(self, log):
        many = np.repeat(np.diff(log.offsets) >= self.least, np.diff(log.offsets))
        return np.bincount(log.item[many], minlength=log.num_items)


PARTS = {
    "encoder": [Recurrent, RecurrentBackwards],
    "item_tower": [Gated],
    "loss": [BPR],
    "regularizer": [MeanScore],
    "proposal": [SquareRoot],
    "prior": [Halved],
    "rows": [Backwards],
    "table_optimizer": [Momentum],
    "split": [EveryTenth],
    "logger": [Remember],
    "reference": [Longest],
}
