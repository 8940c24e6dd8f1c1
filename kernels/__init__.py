"""Implementations of the ops, one folder an op. Private: call `fastpop.ops` instead.

Each `_<impl>.py` beside a `reference.py` has `forward(inputs)`, `backward(inputs, ...)` where there is one,
and `unsupported(inputs) -> str | None`, which says why these are not for it; `inputs` are the reference's
NamedTuple `Inputs`.
"""

if __name__ != "fastpop.kernels":
    raise ImportError(
        f"this folder is installed as fastpop.kernels, not {__name__}: "
        "install the project (make install) and import fastpop.kernels"
    )
