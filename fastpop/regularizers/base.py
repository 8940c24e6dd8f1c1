"""The contract that regularisers keep."""

from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from fastpop import checks
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
    """The base of regularisers to choose from. weight: multiplies what its module gives; 0: it is left out.

    view: whether it compares two views of a batch. Its module is then called with view= [R, D], too: the
    queries of the same rows made again, which differ from `query` in dropout alone.

    `build` gives a module: forward(query [R, D], items [V, D], pos_id [R], log_prior [V]) -> a scalar, of
    one part of a batch; with accumulate > 1 parts are averaged by their rows. log_prior: log p in nats,
    whatever the prior. One that reads all of items gives its gradient a row for every item. Random numbers
    come from torch's generator, which is seeded at each step.
    """

    kind: ClassVar[str] = "regularizer"
    view: ClassVar[bool] = False
    weight: float = 1e-4

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.number(f"regularizer {self}: weight", self.weight, ge=0)

    def build(self, given: RegularizerInputs) -> nn.Module:
        raise NotImplementedError
