"""Rows that count: what is ignored stays out of the implementations, whichever runs.

On the CPU only the others go in, so a batch has the bits that it has without its ignored rows. A device
is not asked how many there are: there ignored rows are zeros with the positive of another row, whose
results are dropped.
"""

from typing import overload

import torch
from torch import Tensor

NOBODY = -(2**63)  # as ignore_index: no row is ignored, and none is looked for


class CountedRows:
    """query [B, D], pos_id [B] int64 in which `ignore_index` may stand.

    query, pos_id: as an implementation takes them. kept: int64 [n], the rows that they are; None: all.
    """

    def __init__(self, query_BD: Tensor, pos_id_B: Tensor, ignore_index: int, *, drop: bool = True):
        self.query, self.pos_id = query_BD, pos_id_B
        self.num_rows = query_BD.shape[0]
        self.kept: Tensor | None = None
        self.counts: Tensor | None = None
        if ignore_index == NOBODY:
            return
        counts_B = pos_id_B != ignore_index
        if query_BD.device.type == "cpu":
            num_kept = int(counts_B.sum())
            if num_kept == self.num_rows:
                return
            if drop or num_kept == 0:
                self.kept = counts_B.nonzero()[:, 0]
                self.query, self.pos_id = query_BD[self.kept], pos_id_B[self.kept]
                return
        if self.num_rows:
            self.counts = counts_B
            some_id = torch.where(counts_B, pos_id_B, 0).max()
            self.query = torch.where(counts_B[:, None], query_BD, 0)
            self.pos_id = torch.where(counts_B, pos_id_B, some_id)

    @overload
    def spread(self, rows: None) -> None: ...
    @overload
    def spread(self, rows: Tensor) -> Tensor: ...
    def spread(self, rows: Tensor | None) -> Tensor | None:
        """Results of an implementation, [n, ...], at their rows [B, ...]; zeros elsewhere."""
        if rows is None or (self.kept is None and self.counts is None):
            return rows
        if self.kept is not None:
            return rows.new_zeros(self.num_rows, *rows.shape[1:]).index_copy_(0, self.kept, rows)
        return torch.where(self._along(rows), rows, 0)

    def gathered(
        self, lse_B: Tensor, pos_logit_B: Tensor, d_lse_B: Tensor, d_pos_B: Tensor
    ) -> tuple[Tensor, ...]:
        """What backward takes, of the rows that an implementation has."""
        if self.kept is not None:
            return tuple(one[self.kept] for one in (lse_B, pos_logit_B, d_lse_B, d_pos_B))
        if self.counts is not None:
            # A row without a finite lse gives no gradient, whatever comes from upstream.
            lse_B = torch.where(self.counts, lse_B, torch.inf)
            d_lse_B, d_pos_B = (torch.where(self.counts, one, 0) for one in (d_lse_B, d_pos_B))
        return lse_B, pos_logit_B, d_lse_B, d_pos_B

    def _along(self, rows: Tensor) -> Tensor:
        assert self.counts is not None
        return self.counts.view(-1, *[1] * (rows.ndim - 1))
