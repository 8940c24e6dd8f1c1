"""Torch operators made of named inputs: schema, flat arguments and places of gradients, from one list.

torch hands an operator's arguments on one by one and in order. What they are is written once, as the
NamedTuples that the operator's functions read: an op's Inputs (kernels/<op>/reference.py), which of them
have gradients (its Needs), and what the operator itself is told (its Options).
"""

from collections.abc import Iterable
from typing import Any, get_type_hints

import torch
from torch import Tensor

from fastpop.kernels import fields
from fastpop.ops import readable

_SCHEMA_TYPES = {
    Tensor: "Tensor",
    Tensor | None: "Tensor?",
    int: "SymInt",
    float: "float",
    bool: "bool",
    str: "str",
}


class Signature:
    """The arguments of an operator: those of `inputs`, those of `options`, then what one operator adds.

    schema: of the first two. size: how many they are. differentiable: the places of those that `needs`
    names, in its order.
    """

    def __init__(self, inputs: Any, options: Any, needs: Any):
        self.inputs, self.options, self.needs = inputs, options, needs
        names = (*fields.names(inputs), *fields.names(options))
        types = (*get_type_hints(inputs).values(), *get_type_hints(options).values())
        self.schema = ", ".join(f"{_SCHEMA_TYPES[kind]} {name}" for name, kind in zip(names, types))
        self.names, self.places = names, {name: at for at, name in enumerate(names)}
        self.size, self.num_inputs = len(names), len(inputs._fields)
        self.differentiable = tuple(names.index(name) for name in needs._fields)
        self.is_tensor = tuple(kind in (Tensor, Tensor | None) for kind in types)
        self.tensors = tuple(at for at, tensor in enumerate(self.is_tensor) if tensor)

    def split(self, args: tuple) -> tuple[Any, Any, tuple]:
        """(inputs, options, the rest) of an operator's arguments."""
        return (
            self.inputs(*args[: self.num_inputs]),
            self.options(*args[self.num_inputs : self.size]),
            args[self.size :],
        )

    def read(self, args: tuple) -> tuple[Any, Any, tuple]:
        """`split` at the entrance of an operator. A tangent would be dropped: it is refused here, where
        compiled programs come by, too."""
        readable.without_tangents(self.names, args)
        return self.split(args)

    def value(self, args: tuple, name: str) -> Any:
        """One of an operator's arguments, without its shape."""
        return args[self.places[name]]

    def likes(self, args: Any) -> list[Tensor | None]:
        """The arguments that have gradients, in the order of Needs."""
        return [args[at] for at in self.differentiable]

    def wanted(self, args: Any) -> Any:
        """Needs, of arguments outside of an operator: what autograd will ask for."""
        grad = torch.is_grad_enabled()
        return self.needs._make([grad and one is not None and one.requires_grad for one in self.likes(args)])

    def asked(self, ctx: Any) -> Any:
        """Needs, in a backward."""
        asked = ctx.needs_input_grad
        return self.needs._make([asked[at] for at in self.differentiable])

    def gradients(self, found: Iterable[Tensor | None], num_added: int = 0) -> tuple:
        """Gradients in the order of Needs -> those of all arguments, None for the others."""
        made: list[Tensor | None] = [None] * (self.size + num_added)
        for at, grad in zip(self.differentiable, found):
            made[at] = grad
        return tuple(made)

    def keep(self, ctx: Any, args: tuple, *others: Tensor) -> None:
        """Saves an operator's arguments for its backward, and tensors beside them."""
        ctx.save_for_backward(*(args[at] for at in self.tensors), *others)
        ctx.given = [None if tensor else one for one, tensor in zip(args, self.is_tensor)]

    def kept(self, ctx: Any) -> tuple[tuple, tuple[Tensor, ...]]:
        """(the arguments, the tensors beside them) that `keep` saved."""
        args, saved = list(ctx.given), ctx.saved_tensors
        for at, one in zip(self.tensors, saved):
            args[at] = one
        return tuple(args), saved[len(self.tensors) :]

    def bits(self, needs: Any) -> int:
        """Needs as one integer, which a schema can hold."""
        return sum(int(need) << at for at, need in enumerate(needs))

    def needs_of(self, bits: int) -> Any:
        return self.needs._make(bool(bits >> at & 1) for at in range(len(self.needs._fields)))
