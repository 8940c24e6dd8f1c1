"""Parts of a masked encoder, with rows of its own, as somebody would write them; a prior and an encoder with
options that ours have under the same name, and other defaults."""

import functools
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import torch
import toy_parts
from torch import nn
from torch.nn import functional as F  # noqa: N812

from fastpop.data import Rows
from fastpop.data.batches import PAD, Batch
from fastpop.encoders import Encoder, EncoderOptions
from fastpop.priors import Prior


@dataclass(frozen=True)
class Masked(Rows):
    """Users' last items with some hidden, which are the targets: the rows of BERT4Rec (Sun et al. 2019)."""

    name: ClassVar[str] = "out-masked"
    needs_order: ClassVar[bool] = True
    share: float = 0.3

    def batches(self, log, *, max_length, batch_size, seed):
        per_batch = max(1, int(batch_size / (self.share * max_length)))
        return MaskedBatches(log, max_length, per_batch, seed, self.share)

    def target_counts(self, log):
        return log.item_counts().astype(float)

    def contexts(self, log, *, max_length, chunk):
        users = np.flatnonzero(np.diff(log.offsets) > 0)
        for first in range(0, len(users), chunk):
            yield hidden(log, users[first : first + chunk], max_length, lambda n: np.arange(n) == n - 1)


class MaskedBatches:
    def __init__(self, log, max_length, per_batch, seed, share):
        self.log, self.max_length, self.per_batch = log, max_length, per_batch
        self.seed, self.share = seed, share
        self.users = np.flatnonzero(np.diff(log.offsets) > 1)
        self.num_rows = int(share * log.num_events)

    def num_batches(self, epoch):
        return -(-len(self.users) // self.per_batch)

    def epoch(self, epoch, skip=0):
        order = np.random.default_rng([self.seed, epoch]).permutation(self.users)
        for number in range(skip, self.num_batches(epoch)):
            rng = np.random.default_rng([self.seed, epoch, number])
            some = order[number * self.per_batch : (number + 1) * self.per_batch]
            yield hidden(self.log, some, self.max_length, functools.partial(self.chosen, rng))

    def chosen(self, rng, number):
        """A share of a history, and at least one."""
        return (rng.random(number) < self.share) | (np.arange(number) == rng.integers(number))

    def target_counts(self):
        return self.log.item_counts().astype(float)


def hidden(log, users, max_length, choose):
    history, target = (np.full((len(users), max_length), PAD) for _ in range(2))
    for row, user in enumerate(users):
        own = log.item[log.offsets[user] : log.offsets[user + 1]][-max_length:].astype(np.int64)
        chosen = choose(len(own))
        history[row, : len(own)] = np.where(chosen, log.num_items, own)
        target[row, : len(own)] = np.where(chosen, own, PAD)
    return Batch(users, target, history)


@dataclass(frozen=True)
class Bert(EncoderOptions):
    """Bidirectional attention over a history with hidden items."""

    name: ClassVar[str] = "out-bert"
    rows: ClassVar[str] = "out-masked"
    width: int = 16
    dropout: float = 0.05
    mask: Literal["free", "zero"] = "free"

    def build(self, sizes):
        return BertEncoder(sizes, self.width, self.dropout)


class BertEncoder(Encoder):
    reads = "sequences"

    def __init__(self, sizes, width, dropout):
        super().__init__()
        self.mask = nn.Parameter(0.02 * torch.randn(1, sizes.dim))
        self.position = nn.Parameter(0.02 * torch.randn(sizes.max_length + 1, sizes.dim))
        self.layer = nn.TransformerEncoderLayer(sizes.dim, 2, width, dropout, batch_first=True)

    def forward(self, user_B, history_BL, item_VD):
        row_BLD = F.embedding(history_BL.clamp(min=0), torch.cat([item_VD, self.mask]))
        return self.layer(row_BLD + self.position[: history_BL.shape[1]], src_key_padding_mask=history_BL < 0)

    def last(self, user_C, history_CL, item_VD):
        each_C = torch.arange(len(history_CL))
        end_C = (history_CL >= 0).sum(1)
        asked = F.pad(history_CL, (0, 1), value=PAD)
        asked[each_C, end_C] = len(item_VD)
        return self(user_C, asked, item_VD)[each_C, end_C]


@dataclass(frozen=True)
class Partly(Prior):
    """Trained beside a part of log p."""

    name: ClassVar[str] = "out-partly"
    refreshable: ClassVar[bool] = True
    weight: float = 0.5

    @property
    def prior_weight(self):
        return self.weight


@dataclass(frozen=True)
class Must(EncoderOptions):
    """One whose option has no default."""

    name: ClassVar[str] = "out-must"
    width: int

    def build(self, sizes):
        return toy_parts.RecurrentEncoder(sizes, self.width)


PARTS = (Masked, Bert, Partly, Must)
