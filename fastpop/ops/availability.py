"""Which implementations of an op run here, and why others do not."""

import importlib.util

from fastpop import checks
from fastpop.ops._dispatch import AUTO_ORDER, IMPLEMENTATIONS

OPS = tuple(IMPLEMENTATIONS)


def available(op: str) -> dict[str, str | None]:
    """The implementations of an op by the names that `impl` takes: None where one runs here, else why not.

    What one takes of inputs (dtypes, devices, sizes) is said when it is called. Raises: ValueError for a
    name that no op has.
    """
    checks.one_of("op", op, OPS)
    return {name: why_not(name) for name in IMPLEMENTATIONS[op]}


def first(op: str, device: str) -> str | None:
    """What impl="auto" would take on a device ("cpu" or "cuda"), as far as that depends on no input."""
    here = available(op)
    return next((name for name in AUTO_ORDER[device] if name in here and here[name] is None), None)


def why_not(impl: str) -> str | None:
    """Why no op can have this implementation here."""
    if impl == "reference":
        return None
    if impl == "triton" and importlib.util.find_spec("triton") is None:
        return "the package triton is not installed (pip install fastpop[triton])"
    try:
        from fastpop.kernels import native
    except (ImportError, ValueError) as error:  # ValueError: a FASTPOP_CPU that is no path
        return f"fastpop._C does not load: {error}"
    if impl == "cpu":
        return None
    if impl == "cuda" and (reason := native.without_cuda()):
        return reason
    import torch

    if not torch.cuda.is_available():
        return "no CUDA device"
    return native.without_code_for(torch.device("cuda")) if impl == "cuda" else None


def cpu_path() -> str:
    """The path that the CPU kernels take here, by the processor or by FASTPOP_CPU."""
    from fastpop.kernels import native

    return native.path_taken()


def threads_of() -> str:
    """Whose the threads of the CPU kernels are: "OpenMP", or "the system" where the compiler had none."""
    from fastpop.kernels import native

    return native.threads_of()


def compiler() -> str:
    """What the compiled module was built by: "GCC 12.2.0", "Debian Clang 14.0.6"."""
    from fastpop.kernels import native

    return native.compiler


def permutation_cache() -> str | None:
    """The folder in which the compiled permutation test is kept; None where there is none."""
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from fastpop.kernels.permutation import cache
    return None if cache.FOLDER is None else str(cache.FOLDER)
