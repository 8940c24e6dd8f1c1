"""Contrast of two views of the same rows: SimGCL's noise, DuoRec's dropout and equal targets."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from fastpop import checks, registry
from fastpop.objectives import different_ids, in_float32
from fastpop.regularizers.base import RegularizerInputs, RegularizerOptions

NO_ROW = -1  # where a right answer would be


@in_float32
def contrast(
    one_RD: Tensor,
    two_RD: Tensor,
    temperature: float,
    *,
    both_ways: bool = False,
    left_out: Tensor | None = None,
) -> Tensor:
    """InfoNCE: mean over rows of -log softmax(<one_r, two_.> / temperature) at r, a scalar in nats.

    both_ways: NT-Xent instead (Chen et al. 2020): each of the 2 R vectors against all others, the other view
    of its row being the right one. left_out: [R] bool, rows that are none, one way only. O(R^2 D); 0 without
    rows.
    """
    num_rows = len(one_RD)
    if num_rows == 0:
        return (one_RD.sum() + two_RD.sum()) * 0
    at_R = torch.arange(num_rows, device=one_RD.device)
    if not both_ways:
        logit_RR = one_RD @ two_RD.T / temperature
        if left_out is None:
            return F.cross_entropy(logit_RR, at_R)
        at_R = at_R.masked_fill(left_out, NO_ROW)
        return F.cross_entropy(logit_RR.masked_fill(left_out, -torch.inf), at_R, ignore_index=NO_ROW)
    all_ND = torch.cat([one_RD, two_RD])
    logit_NN = (all_ND @ all_ND.T / temperature).masked_fill(
        torch.eye(2 * num_rows, dtype=torch.bool, device=one_RD.device), -torch.inf
    )
    return F.cross_entropy(logit_NN, torch.cat([at_R + num_rows, at_R]))


def noisy(row_RD: Tensor, norm: float) -> Tensor:
    """Rows plus noise of length `norm` in each row's own orthant: uniform numbers, brought to that length,
    with the signs of the row (Yu et al. 2022, eq. 7). From torch's generator."""
    noise_RD = torch.rand_like(row_RD)
    return row_RD + norm * F.normalize(noise_RD, dim=1) * row_RD.sign()


@dataclass(frozen=True)
class SimGCL(RegularizerOptions):
    """SimGCL (Yu et al. 2022): two views of queries and of positives, each with its own noise; InfoNCE of
    cosines between them, of the batch's queries plus of its different items.

    temperature: of InfoNCE. noise: length of the noise; 0 contrasts each vector with itself, which spreads a
    batch (the original's variant without augmentation).
    """

    name: ClassVar[str] = "simgcl"
    reads: ClassVar[Literal["items", "rows", "row"]] = "rows"
    compares_rows: ClassVar[bool] = True
    weight: float = 0.5
    temperature: float = 0.2
    noise: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.number("regularizers.simgcl.temperature", self.temperature, gt=0)
        checks.number("regularizers.simgcl.noise", self.noise, ge=0)

    def build(self, given: RegularizerInputs) -> nn.Module:
        return _NoiseContrast(self.temperature, self.noise, given.sparse)


class _NoiseContrast(nn.Module):
    def __init__(self, temperature: float, noise: float, sparse: bool):
        super().__init__()
        self.temperature, self.noise, self.sparse = temperature, noise, sparse

    def forward(self, query_RD: Tensor, item_VD: Tensor, pos_id_R: Tensor, log_prior_V: Tensor) -> Tensor:
        item_id_U, _, again_U = different_ids(pos_id_R)
        row_UD = F.embedding(item_id_U, item_VD, sparse=self.sparse and item_VD.is_leaf)
        return self._of(query_RD) + self._of(row_UD, again_U)

    def _of(self, row_RD: Tensor, left_out: Tensor | None = None) -> Tensor:
        one, two = (F.normalize(noisy(row_RD, self.noise), dim=1) for _ in range(2))
        return contrast(one, two, self.temperature, left_out=left_out)


@dataclass(frozen=True)
class DuoRec(RegularizerOptions):
    """DuoRec (Qiu et al. 2022): NT-Xent of dot products between a row and another one that predicts the same
    item, each with dropout of its own; on request also between two dropout views of a row.

    The other row is drawn among those of the batch, and its second view is taken; the original draws it from
    the log, and rows here are all positions of a history. A row whose item no other row predicts meets its
    own second view.

    temperature: of NT-Xent. supervised: weight of the first part. unsupervised: of the second; the original
    crosses the two augmentations in one contrast ("us_x" in its code), with both weights at 1 it sums two
    ("us").
    """

    name: ClassVar[str] = "duorec"
    reads: ClassVar[Literal["items", "rows", "row"]] = "rows"
    view: ClassVar[bool] = True
    compares_rows: ClassVar[bool] = True
    weight: float = 0.1
    temperature: float = 1.0
    supervised: float = 1.0
    unsupervised: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.number("regularizers.duorec.temperature", self.temperature, gt=0)
        for name in ("supervised", "unsupervised"):
            checks.number(f"regularizers.duorec.{name}", getattr(self, name), ge=0)

    def build(self, given: RegularizerInputs) -> nn.Module:
        return _ViewContrast(self)


class _ViewContrast(nn.Module):
    def __init__(self, options: DuoRec):
        super().__init__()
        self.options = options

    def forward(
        self, query_RD: Tensor, item_VD: Tensor, pos_id_R: Tensor, log_prior_V: Tensor, view: Tensor
    ) -> Tensor:
        found = (query_RD.sum() + view.sum()) * 0
        if self.options.supervised:
            found = found + self.options.supervised * self._against(query_RD, view[same_target(pos_id_R)])
        if self.options.unsupervised:
            found = found + self.options.unsupervised * self._against(query_RD, view)
        return found

    def _against(self, query_RD: Tensor, other_RD: Tensor) -> Tensor:
        return contrast(query_RD, other_RD, self.options.temperature, both_ways=True)


def same_target(pos_id_R: Tensor) -> Tensor:
    """[R]: for each row another row of the same item, drawn uniformly; itself where it is the only one."""
    order_R = torch.argsort(pos_id_R, stable=True)
    sorted_R = pos_id_R[order_R]
    first_R = torch.searchsorted(sorted_R, sorted_R)
    size_R = torch.searchsorted(sorted_R, sorted_R, right=True) - first_R
    place_R = torch.arange(len(pos_id_R), device=pos_id_R.device) - first_R
    draw_R = (torch.rand(len(pos_id_R), device=pos_id_R.device) * (size_R - 1)).long()
    step_R = torch.where(size_R > 1, 1 + draw_R, 0)
    found_R = torch.empty_like(order_R)
    found_R[order_R] = order_R[first_R + (place_R + step_R) % size_R]
    return found_R


registry.ours("regularizer", SimGCL, DuoRec)
