"""The contract that every encoder keeps, and that of its options."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from fastpop import checks, registry
from fastpop.components import Component
from fastpop.data.interactions import Interactions
from fastpop.data.rows import Rows
from fastpop.item_towers import ItemTower
from fastpop.tables import PLAIN, TableKind


class Encoder(nn.Module):
    """Turns users or histories into query vectors.

    `reads` says what it is asked with: "events" (the user alone) or "sequences" (the history). `one_length`:
    whether torch.export can write it out for histories of one length alone, as a recurrence step by step.
    A query at position l of a training batch may depend on what its rows let it see only: of causal
    sequences on items 0..l, so that every position of a window is a training row.
    `can_be_recorded` says that forward and its backward launch the same work for all batches of a shape and
    wait for none of it, which a CUDA graph of the step asks for (TrainConfig.cuda_graph).
    """

    reads: ClassVar[Literal["events", "sequences"]]
    one_length: ClassVar[bool] = False
    can_be_recorded: ClassVar[bool] = False
    # Whether histories are looked up in item_VD. Then they may be numbers of rows of another table than the
    # catalogue's, which holds those that the histories ask for.
    reads_items: ClassVar[bool] = True

    def forward(self, user_B: Tensor, history_BL: Tensor | None, item_VD: Tensor) -> Tensor:
        """Queries for training: [B, D] from events, [B, L, D] from sequences.

        history_BL holds item ids, oldest first, and -1 after the end; item_VD are the decoder's
        item vectors, for encoders that read items with them. Positions after the end are arbitrary.
        """
        raise NotImplementedError

    def last(self, user_C: Tensor, history_CL: Tensor, item_VD: Tensor) -> Tensor:
        """Queries for serving [C, D]: what would be used to predict each case's next item."""
        query_CLD = self(user_C, history_CL, item_VD)
        at_C = (history_CL >= 0).sum(1).clamp(min=1) - 1
        # gather, not query_CLD[arange(C), at_C]: an exported graph would hold this C for ever.
        return query_CLD.gather(1, at_C[:, None, None].expand(-1, 1, query_CLD.shape[2]))[:, 0]

    def tables(self) -> list[nn.Parameter]:
        """Parameters with one row per user or item: they may get sparse row gradients."""
        return []

    def item_tower(self) -> ItemTower | None:
        """What makes item vectors of the decoder's table, where they are made together with queries: the
        encoder is then asked with what this made. None: the item tower of the run."""
        return None

    def take_all_rows(self, train: Interactions) -> None:
        """Called where one of several processes, which made the encoder with Sizes.rows, has the whole item
        table from then on. train: as in Sizes."""


@dataclass(frozen=True)
class Sizes:
    """What a run knows before its encoder is made. max_length: of the longest history that is read.
    sparse: whether tables are to give sparse row gradients. train: the events that are trained on. tables:
    how they are held, of encoders that say `half_tables`. rows: of the item table, those that this process
    of several has; None: all."""

    num_users: int
    num_items: int
    dim: int
    max_length: int = 50
    sparse: bool = False
    train: Interactions | None = None
    tables: TableKind = PLAIN
    rows: slice | None = None


@dataclass(frozen=True)
class EncoderOptions(Component):
    """The base of encoders to choose from: options, and how the module is made.

    reads: as of its Encoder. rows: the name of the rows that it trains on, where those are not the ones of
    the same name as reads. own_tower: whether its module has an item tower of its own. half_tables: whether
    it takes Sizes.tables: item vectors of bfloat16, and tables of its own on disk or in bfloat16. takes_rows:
    whether a tower of its own takes Sizes.rows: several processes then make it together, each its rows of the
    items.
    """

    kind: ClassVar[str] = "encoder"
    reads: ClassVar[Literal["events", "sequences"]] = "sequences"
    rows: ClassVar[str] = ""
    own_tower: ClassVar[bool] = False
    half_tables: ClassVar[bool] = False
    takes_rows: ClassVar[bool] = False

    @property
    def varies(self) -> bool:
        """Whether two forward passes of its module in training differ, as two views have to: by default,
        where an option whose name ends in dropout is above 0."""
        return any(value for name, value in self.options().items() if name.endswith("dropout"))

    def rows_part(self) -> Rows:
        """The rows that it trains on."""
        return registry.made("rows", self.rows or self.reads)

    def check(self, dim: int) -> None:
        """Raises ValueError where the options do not go with D, before a log is read."""

    def build(self, sizes: Sizes) -> Encoder:
        """A freshly initialised module; its numbers come from torch's generator."""
        raise NotImplementedError


def wide(rows: Tensor) -> Tensor:
    """Rows of a bfloat16 table in float32, which sums are made in; others as they are."""
    return rows.float() if rows.dtype == torch.bfloat16 else rows


def check_dropout(dropout: float) -> None:
    """Raises ValueError for what is no probability below 1."""
    checks.number("encoder.dropout", dropout, ge=0)
    if dropout >= 1:
        raise checks.wrong("encoder.dropout", "a number below 1", dropout)
