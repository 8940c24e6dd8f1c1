"""Ids of row gradients that were summed: in order, and rows of an id after its first are zeros.

A device is not asked how many ids differ, so such a gradient cannot be called coalesced, and autograd drops
that flag anyway. What it keeps is the memory of the ids: those whose memory is marked here need neither a
sort nor a sum before an optimiser's step.
"""

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef

_MARKED: set[StorageWeakRef] = set()


def mark(ids: Tensor) -> None:
    """Of ids that nobody changes in place; of a traced program nothing is kept."""
    if torch.compiler.is_compiling() or type(ids) is not Tensor:
        return
    for one in [one for one in _MARKED if one.expired()]:
        _MARKED.discard(one)
    _MARKED.add(StorageWeakRef(ids.untyped_storage()))


def summed(ids: Tensor, rows: Tensor, num_items: int) -> tuple[Tensor, Tensor] | None:
    """(ids in order, rows): each id's first row the sum of its own, zeros after it, in the dtype of rows;
    marked, and without a wait for the device. None where no kernel of ours sums there.

    ids: int64 [n] in [0, num_items). rows: [n, D] or [n].
    """
    from fastpop.kernels import device, row_sum  # here, since a bad FASTPOP_CPU is an error where kernels run

    wide = rows.reshape(len(ids), -1)
    if not len(ids) or rows.dtype == torch.float64 or device.unsupported(rows=wide) is not None:
        return None
    entries = row_sum.sort_ids(ids, num_items)
    sum_ids, sum_rows, _ = row_sum.sum_entries(
        entries, wide.contiguous(), len(ids), wants_rows=True, wants_weights=False
    )
    assert sum_rows is not None
    mark(sum_ids)
    return sum_ids, sum_rows.to(rows.dtype).view(rows.shape)


def is_marked(ids: Tensor) -> bool:
    """Whether they are all of what was marked. A weak reference keeps the place of a storage from being
    another's, so nothing else can have it."""
    if torch.compiler.is_compiling() or type(ids) is not Tensor:
        return False
    storage = ids.untyped_storage()
    whole = ids.is_contiguous() and storage.nbytes() == ids.numel() * ids.element_size()
    return whole and StorageWeakRef(storage) in _MARKED
