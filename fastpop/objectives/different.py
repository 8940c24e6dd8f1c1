"""The different ids of a batch, of which a device is not asked how many there are."""

from typing import NamedTuple

import torch
from torch import Tensor


class Different(NamedTuple):
    """id: [U] in order. place: [R] where among them each row's own stands. again: [U] whether an id stands
    before already, and is to be left out; None where none does."""

    id_U: Tensor
    place_R: Tensor
    again_U: Tensor | None = None


def different_ids(id_R: Tensor) -> Different:
    """Each id once on the CPU. Elsewhere all R of them in order, those that come again marked, since how many
    differ would have to be waited for. What is left out has gradients of zeros, in rows touched anyway.
    """
    return Different(*id_R.unique(return_inverse=True)) if id_R.device.type == "cpu" else marked(id_R)


def marked(id_R: Tensor) -> Different:
    """`different_ids` of a device, U = R."""
    id_U = id_R.sort().values
    first_U = torch.searchsorted(id_U, id_U)
    again_U = first_U != torch.arange(len(id_U), device=id_U.device)
    return Different(id_U, torch.searchsorted(id_U, id_R), again_U)
