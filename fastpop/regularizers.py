"""Regularisers: what is added to the mean loss of a step. One contract, `RegularizerOptions`."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from fastpop import checks, registry
from fastpop.components import Component


@dataclass(frozen=True)
class RegularizerInputs:
    """What a run knows before its regularisers are made. sparse: whether tables get row gradients."""

    num_items: int
    dim: int
    seed: int
    sparse: bool


@dataclass(frozen=True)
class RegularizerOptions(Component):
    """The base of regularisers to choose from. weight: multiplies what its module gives.

    `build` gives a module: forward(query [R, D], items [V, D], pos_id [R], log_prior [V]) -> a scalar, of
    one part of a batch; with accumulate > 1 parts are averaged by their rows. log_prior: log p in nats,
    whatever the prior. One that reads all of items gives its gradient a row for every item.
    """

    kind: ClassVar[str] = "regularizer"
    weight: float = 1e-4

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.number(f"regularizer {self}: weight", self.weight, ge=0)

    def build(self, given: RegularizerInputs) -> nn.Module:
        raise NotImplementedError


@dataclass(frozen=True)
class L2(RegularizerOptions):
    """Half the squared length of the vectors that a row uses, query and positive item: the penalty of
    matrix factorisation (Koren et al. 2009), and of BPR (Rendle et al. 2009)."""

    name: ClassVar[str] = "l2"

    def build(self, given: RegularizerInputs) -> nn.Module:
        return _SquaredLength(given.sparse)


class _SquaredLength(nn.Module):
    def __init__(self, sparse: bool):
        super().__init__()
        self.sparse = sparse

    def forward(self, query_RD: Tensor, item_VD: Tensor, pos_id_R: Tensor, log_prior_V: Tensor) -> Tensor:
        row_RD = F.embedding(pos_id_R, item_VD, sparse=self.sparse and item_VD.is_leaf)
        return (query_RD.float().square().sum() + row_RD.float().square().sum()) / (2 * max(len(pos_id_R), 1))


registry.ours("regularizer", L2)
