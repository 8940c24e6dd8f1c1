"""Triton's interpreter as these tests need it, on every numpy."""

from functools import cache
from types import SimpleNamespace

import numpy as np
import torch
import triton.language as tl
from triton.runtime import interpreter


class _Attributes(dict):
    """Stands for the scope in which the interpreter sets attributes of `tl.tensor`."""

    def set_attr(self, _, name, value):
        self[name] = value


def mend_index() -> bool:
    """Make a tensor of one element an index again, where numpy does not: whether that was needed.

    The interpreter keeps a scalar as an array [1], and up to triton 3.6 hands that to int(), which numpy
    has refused since 2.4: every loop over a range that was computed ends there.
    """
    patch_lang_tensor, found = interpreter._patch_lang_tensor, _Attributes()
    patch_lang_tensor(None, found)
    try:
        found["__index__"](SimpleNamespace(handle=SimpleNamespace(data=np.ones(1, np.int32))))
    except TypeError:

        def mended(tensor, scope):
            patch_lang_tensor(tensor, scope)
            scope.set_attr(tensor, "__index__", lambda self: int(self.handle.data.squeeze()))

        interpreter._patch_lang_tensor = mended
        return True
    return False


def mend_speed() -> None:
    """Replace Triton's language once a launch. The interpreter does so again at every call of a function by a
    kernel, and looks among all names of its modules: four tenths of the time of these tests."""
    patch_lang, replaced = interpreter._patch_lang, set()

    def mended(fn):
        modules = frozenset(name for name, one in (("tl", tl), ("core", tl.core)) if sees(fn, one))
        if modules in replaced:
            return interpreter._LangPatchScope()
        scope = patch_lang(fn)
        if not replaced:  # the launch's own, after which all is as it was
            restore = scope.restore
            scope.restore = lambda: (restore(), replaced.clear())
        replaced.add(modules)
        return scope

    @cache
    def sees(fn, module):
        return any(one is module for one in fn.__globals__.values())

    interpreter._patch_lang = mended


def mend_bfloat16() -> None:
    """Round a float32 to the nearest bfloat16, as every GPU does; the interpreter cuts it off, which is twice
    as far off and always towards 0, and more than a gradient's budget allows."""
    builder = interpreter.InterpreterBuilder
    cast = builder.cast_impl

    def mended(self, src, dst_type):
        if src.dtype.scalar != tl.float32 or dst_type.scalar != tl.bfloat16:
            return cast(self, src, dst_type)
        rounded = torch.from_numpy(np.array(src.data, np.float32, order="C")).bfloat16()
        return interpreter.TensorHandle(rounded.view(torch.int16).numpy().view(np.uint16), tl.bfloat16)

    builder.cast_impl = mended
