"""Words shared by every package: the dimension key and the names of choices.

Dimension key (suffixes of array names, one letter a dimension):
    G groups of rows    B query rows     C contexts   L history length   D embedding
    V catalogue items   K negatives      U users      P permutations     T time buckets
    N events            R loss rows (positions of a batch that have a target)
Array names end in their shape: `query_BD` is [B, D]. Public arguments are plain words.
"""

from typing import Any, Literal, Protocol, runtime_checkable

Impl = Literal["auto", "reference", "cpu", "triton", "cuda"]
LogQ = Literal["standard", "corrected", "none"]
AccidentalHits = Literal["keep", "drop"]
Reduction = Literal["none", "mean", "sum"]


@runtime_checkable
class DotModel(Protocol):
    """What `fastpop.evaluate`, `audit` and `recommend` ask of a model that scores by a dot product:

        score(c, i) = scale() * <queries(cases)[c], items()[i]> + item_bias()[i]

    queries: [C, D] real, one row a case of `fastpop.data.Cases` (its users, its histories). items: [V, D].
    numpy or torch. `item_bias() -> [V]` and `scale() -> float` may be missing. A torch module is asked in
    evaluation mode, without gradients.
    """

    def queries(self, cases: Any) -> Any: ...

    def items(self) -> Any: ...
