"""The contract that regularisers keep."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import nn

from fastpop import checks
from fastpop.components import Component
from fastpop.encoders import EncoderOptions
from fastpop.objectives import need_others


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
    queries of the same rows made again, which differ from `query` in dropout alone. compares_rows: whether
    nothing is left of it for a single row. reads: "items", vectors of any items; "rows", of the rows'
    positives alone; "row", which is the mean over rows of what each one's query and positive give. Several
    processes that share items make the last two together (docs/distributed.md). takes_shard: whether its
    module takes shard=, a `fastpop.ops.RowShard` of items that several processes share, each with rows of its
    own: it then gives, on each of them, what it gives of all rows and all items.

    `check` is asked before a log is read, by the configuration.

    `build` gives a module: forward(query [R, D], items [V, D], pos_id [R], log_prior [V]) -> a scalar, of
    one part of a batch; with accumulate > 1 parts are averaged by their rows. log_prior: log p in nats,
    whatever the prior. One that reads all of items gives its gradient a row for every item. Random numbers
    come from torch's generator, which is seeded at each step.
    """

    kind: ClassVar[str] = "regularizer"
    view: ClassVar[bool] = False
    compares_rows: ClassVar[bool] = False
    reads: ClassVar[Literal["items", "rows", "row"]] = "items"
    takes_shard: ClassVar[bool] = False
    weight: float = 1e-4

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.number(f"regularizers.{self}.weight", self.weight, ge=0)

    def _prefix(self) -> str:
        return f"regularizers.{self}."

    def check(self, encoder: EncoderOptions, rows: int) -> None:
        """Raises ValueError for a view of an encoder that has but one, and for one row where rows are
        compared. rows: of a batch, or of a part of it."""
        if self.weight == 0:
            return
        if self.compares_rows:
            need_others(self, rows)
        if self.view and not encoder.varies:
            names = [name for name in encoder.options() if name.endswith("dropout")]
            raise checks.wrong(
                " or ".join(names) or "encoder",
                f"{'a number above 0' if names else 'one with dropout'} with the regularizer {str(self)!r}, "
                "which compares two views that differ in dropout",
                text="0" if names else repr(encoder),
            )

    def build(self, given: RegularizerInputs) -> nn.Module:
        raise NotImplementedError
