"""Words shared by every package: the dimension key and the names of choices.

Dimension key (suffixes of array names, one letter a dimension):
    G groups of rows    B query rows     C contexts   L history length   D embedding
    V catalogue items   K negatives      U users      P permutations     T time buckets
    N events            R loss rows (positions of a batch that have a target)
Array names end in their shape: `query_BD` is [B, D]. Public arguments are plain words.
"""

from typing import Literal

Impl = Literal["auto", "reference", "cpu", "triton", "cuda"]
LogQ = Literal["standard", "corrected", "none"]
AccidentalHits = Literal["keep", "drop"]
Reduction = Literal["none", "mean", "sum"]
