"""Items that users have in common: what EASE and PPMI are made of."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from fastpop.data import columns
from fastpop.data.csr import Csr

COLUMNS = 512  # dense columns of X at a time


def seen_together(log: Any) -> Tensor:
    """X'X float32 [V, V], X binary, users x items: how many users have both; on the diagonal, have it."""
    num_items = log.num_items
    pair = np.concatenate(
        [
            columns.distinct(log.user[at].astype(np.int64) * num_items + log.item[at])
            for _, at in columns.user_pieces(log.offsets)
        ]
        or [np.empty(0, np.int64)]
    )
    user, item = torch.as_tensor(pair // num_items), torch.as_tensor(pair % num_items)
    transposed_VU = torch.sparse_coo_tensor(
        torch.stack([item, user]), torch.ones(len(pair)), (num_items, log.num_users), check_invariants=True
    ).coalesce()
    gram_VV = torch.empty(num_items, num_items)
    for first in range(0, num_items, COLUMNS):
        last = min(first + COLUMNS, num_items)
        mine = (item >= first) & (item < last)
        column_UT = torch.zeros(log.num_users, last - first)
        column_UT[user[mine], item[mine] - first] = 1
        gram_VV[:, first:last] = torch.sparse.mm(transposed_VU, column_UT)
    return gram_VV


def histories(cases: Any, rows: slice, num_items: int) -> Tensor:
    """float32 [b, V]: 1 where the history of a case has the item."""
    some = Csr(cases.history_offsets, cases.history_item).part(rows.start, rows.stop)
    row, seen = torch.as_tensor(some.row_of_each()), torch.as_tensor(some.item.astype(np.int64))
    seen_BV = torch.zeros(len(some), num_items)
    seen_BV[row, seen] = 1
    return seen_BV
