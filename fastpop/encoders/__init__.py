"""Encoders: users or histories -> query vectors. One contract, `Encoder`."""

from fastpop import checks
from fastpop.encoders.bag import Bag
from fastpop.encoders.base import Encoder
from fastpop.encoders.factor import Factor
from fastpop.encoders.sasrec import SASRec

ENCODERS: dict[str, type[Encoder]] = {"factor": Factor, "bag": Bag, "sasrec": SASRec}
NAMES = tuple(ENCODERS)

__all__ = ["ENCODERS", "NAMES", "Bag", "Encoder", "Factor", "SASRec", "make_encoder"]


def make_encoder(
    name: str, *, num_users: int, num_items: int, dim: int, max_length: int, num_layers: int,
    num_heads: int, dropout: float, sparse: bool, base: bool = True,
) -> Encoder:
    """The encoder of that name; arguments that it has no use for are left aside."""
    checks.one_of("encoder", name, NAMES)
    if name == "factor":
        return Factor(num_users, dim, dropout=dropout, sparse=sparse, base=base)
    if name == "bag":
        return Bag(num_items, dim, dropout=dropout, sparse=sparse, base=base)
    return SASRec(dim, max_length=max_length, num_layers=num_layers, num_heads=num_heads,
                  dropout=dropout, sparse=sparse)
