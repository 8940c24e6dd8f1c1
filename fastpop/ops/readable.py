"""Whether a tensor can be read where it lies: kernels get addresses, and most subclasses have none.

Taken are torch tensors, parameters, and subclasses that only add methods. Refused by type is what keeps
its numbers elsewhere (DTensor, FakeTensor, nested, masked and wrapped tensors), and by a
NotImplementedError what a torch.func transform or forward-mode differentiation hands out: an op would
drop the tangent, or read the batch as one of its rows, without a word.
"""

from typing import Any

import torch
from torch import Tensor
from torch._functorch import eager_transforms
from torch.autograd import forward_ad

from fastpop import checks
from fastpop.kernels import forks
from fastpop.kernels.views import view_of as view_of

DEVICES = ("cpu", "cuda")
# What a type does to become a tensor that can be read.
_HINTS = {
    "DTensor": "to_local() is this process's part, full_tensor() the whole",
    "FakeTensor": "it has a shape and no numbers; under torch.compile and torch.export the ops take it",
    "UninitializedParameter": "call its lazy module once first",
    "UninitializedBuffer": "call its lazy module once first",
}
_OUTSIDE = "expected a tensor outside of torch.func transforms (grad, vmap, jvp, ...)"
_NO_TANGENT = "expected a tensor without a forward-mode tangent"
_ADVICE = "the ops are differentiated once, by backward() or torch.autograd.grad"


def tensor(name: str, value: Any, expected: str = "a torch tensor") -> Tensor:
    """`value`, a dense tensor on a device that an implementation can read."""
    if not isinstance(value, Tensor):
        raise checks.wrong_type(name, expected, text=f"{_of_type(value)}")
    traced = torch.compiler.is_compiling()  # then the operators see it, when the program runs
    if not traced:
        forks.settle_after_fork()  # before torch itself reads numbers
        if type(value) is not Tensor and type(value) is not torch.nn.Parameter:
            _require_memory(name, value)
        _outside_transforms(name, value)
    elif _traces_a_transform():
        raise NotImplementedError(f"{name}: {_OUTSIDE}; {_ADVICE}")
    if value.layout != torch.strided or value.is_nested:
        layout = "nested" if value.is_nested else f"{value.layout} {list(value.shape)}"
        raise checks.wrong_type(name, "a dense tensor", text=f"{layout}")
    if value.device.type not in DEVICES:
        raise checks.wrong(name, f"a tensor on {' or '.join(DEVICES)}", text=f"{value.device}")
    if not traced and value.numel() and value.data_ptr() == 0:
        raise checks.wrong(
            name,
            "a tensor whose numbers are in memory",
            text=f"{checks.describe(value)} without any (freed, or a symbol of zeros)",
        )
    return value


def without_tangents(names: tuple[str, ...], values: Any) -> None:
    """Of an operator's arguments: a compiled program brings what validation on entry saw as a symbol, and an
    operator that is called by its own name has no validation before it."""
    outside_jvp(names[0])
    if getattr(forward_ad, "_current_level", -1) < 0:
        return
    for name, value in zip(names, values):
        if isinstance(value, Tensor) and _has_tangent(value):
            raise NotImplementedError(f"{name}: {_NO_TANGENT}; {_ADVICE}")


def outside_jvp(name: str) -> None:
    """Of an operator, and of its fake, which is what a compiled transform asks. Within torch.func.jvp (and
    jacfwd, linearize, hessian) arguments come unwrapped: nobody can tell which had a tangent, and the result
    would have one of zeros."""
    if getattr(eager_transforms, "JVP_NESTING", 0):
        raise NotImplementedError(f"{name}: {_OUTSIDE}; {_ADVICE}")


def _has_tangent(value: Tensor) -> bool:
    # No dual number exists outside of a dual level. The name is private, and unpacking takes 2 us a tensor.
    if getattr(forward_ad, "_current_level", 0) < 0:
        return False
    try:
        return forward_ad.unpack_dual(value).tangent is not None
    except RuntimeError:  # below autograd, inside of a compiled program, nothing can be unpacked
        return True


def _traces_a_transform() -> bool:
    return torch._C._functorch.maybe_current_level() is not None


# torch.compiler.assume_constant_result: asked while tracing, where the transforms are entered, too.
_traces_a_transform._dynamo_marked_constant = True  # type: ignore[attr-defined]


def _of_type(value: Any) -> str:
    kind = f"{type(value).__module__.split('.')[0]}.{type(value).__qualname__}".removeprefix("builtins.")
    is_array = hasattr(value, "dtype") and hasattr(value, "shape")
    return f"{kind} ({checks.describe(value)})" if is_array else kind


def _require_memory(name: str, value: Tensor) -> None:
    """A subclass that intercepts what is done to it keeps its numbers in other tensors."""
    kind = type(value)
    is_lazy = isinstance(value, (torch.nn.UninitializedParameter, torch.nn.UninitializedBuffer))
    if is_lazy or kind.__torch_dispatch__ is not Tensor.__torch_dispatch__:
        hint = _HINTS.get(kind.__name__)
        text = kind.__name__ + (f": {hint}" if hint else "")
        raise checks.wrong_type(name, "a plain torch tensor", text=text)


def _outside_transforms(name: str, value: Tensor) -> None:
    if torch._C._functorch.is_functorch_wrapped_tensor(value) or torch._is_functional_tensor(value):
        raise NotImplementedError(f"{name}: {_OUTSIDE}; {_ADVICE}")
    if _has_tangent(value):
        raise NotImplementedError(f"{name}: {_NO_TANGENT}; {_ADVICE}")
