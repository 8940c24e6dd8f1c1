"""A proposal's arrays as torch tensors, kept on every device they were used on. torch is imported when one
is asked for."""

import functools
import itertools
import re
import weakref
from typing import TYPE_CHECKING, Any

import numpy as np

from fastpop.pages import tensor_of

if TYPE_CHECKING:
    import torch


class ProposalTensors:
    """Arrays by name, and as attributes the tensors that were made of them.

    Attributes rather than a dict: a compiled program is guarded by all keys of a dict that it reads, and
    would be compiled again whenever another device or dtype joins them.
    """

    def __init__(self, arrays: dict[str, np.ndarray]):
        self.arrays = arrays
        self.key = f"proposal {next(_NUMBERS)}"
        _PROPOSALS[self.key] = self

    def __reduce__(self) -> tuple:
        """A copy makes tensors of its own: it may be in another process, or on another machine."""
        return ProposalTensors, (self.arrays,)

    def on(self, name: str, device: Any, dtype: Any) -> "torch.Tensor":
        """The array `name` on a device; kept after the first call. dtype: torch's, or its name."""
        import torch

        if torch.compiler.is_dynamo_compiling():
            return getattr(self, _attribute(self.key, name, device, dtype))
        place = _place(name, device, dtype)
        found = self.__dict__.get(place)
        return self._made(place, name, device, dtype) if found is None else found

    def _made(self, place: str, name: str, device: Any, dtype: Any) -> "torch.Tensor":
        import torch

        dtype = getattr(torch, dtype) if isinstance(dtype, str) else dtype
        array = self.arrays[name]
        if array.dtype == np.uint32:
            array = array.view(np.int32)  # the same bits: torch has no arithmetic on uint32
        with torch.inference_mode(False):  # what is made in inference mode is no good for training
            made = tensor_of(array, dtype, device)
        # Nor is what is made while torch exports or transforms: a symbol of that trace.
        wrapped = torch._C._functorch.is_functorch_wrapped_tensor(made) or torch._is_functional_tensor(made)
        if type(made) is torch.Tensor and not wrapped:
            setattr(self, place, made)
        return made


_NUMBERS = itertools.count()
_PROPOSALS: weakref.WeakValueDictionary[str, ProposalTensors] = weakref.WeakValueDictionary()


@functools.cache
def _place(name: str, device: Any, dtype: Any) -> str:
    import torch

    return re.sub(r"\W", "_", f"{name} on {torch.device(device)} as {str(dtype).removeprefix('torch.')}")


def _attribute(key: str, name: str, device: Any, dtype: Any) -> str:
    """What the tensor is called, once it is there.

    Runs while torch.compile traces, which then reads the attribute as it would a module's buffer. Were the
    tensor itself the constant, a program could hold one alone: such constants are told apart by the name of
    the function. And what they depend on has to be a constant in every version of torch: a string is one, an
    object was none before 2.13.
    """
    import torch

    tensors, place = _PROPOSALS[key], _place(name, device, dtype)
    tensors.on(name, device, dtype)
    # As a module's buffer, it stays where it is: a captured graph need not copy it.
    torch._dynamo.mark_static_address(getattr(tensors, place))
    return place


# What torch.compiler.assume_constant_result does, without importing torch here.
_attribute._dynamo_marked_constant = True  # type: ignore[attr-defined]
