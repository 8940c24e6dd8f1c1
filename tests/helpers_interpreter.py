"""Triton's interpreter as these tests need it, on every numpy."""

from types import SimpleNamespace

import numpy as np
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
