"""Which implementation of an op runs: one written order per device, every reason on failure."""

import importlib
from types import ModuleType
from typing import Any

from fastpop import checks

# op -> implementations in fastpop.kernels.<op>, by the name a user passes as `impl`.
IMPLEMENTATIONS: dict[str, dict[str, str]] = {
    "sampled_softmax": {"reference": "reference", "cpu": "_cpu", "triton": "_triton", "cuda": "_cuda"},
    "full_softmax": {"reference": "reference", "cpu": "_cpu", "triton": "_triton"},
    "row_update": {"reference": "reference", "cpu": "_cpu", "cuda": "_cuda"},
    "top_items": {"reference": "reference", "cpu": "_cpu", "triton": "_triton"},
    "target_ranks": {"reference": "reference", "cpu": "_cpu", "triton": "_triton"},
    "row_moments": {"reference": "reference", "cpu": "_cpu", "triton": "_triton"},
    "score_energy": {"reference": "reference", "cpu": "_cpu", "triton": "_triton"},
    "permutation": {"reference": "reference", "cpu": "_numba"},
    "alias_draw": {"reference": "reference", "cpu": "_cpu", "triton": "_triton", "cuda": "_cuda"},
}
# What impl="auto" tries, in this order.
AUTO_ORDER: dict[str, tuple[str, ...]] = {
    "cpu": ("cpu", "reference"),
    "cuda": ("cuda", "triton", "reference"),
}


NAMES = ("reference", "cpu", "triton", "cuda")
_KNOWN = ("auto", *NAMES)


def load(op: str, impl: str) -> ModuleType:
    return importlib.import_module(f"fastpop.kernels.{op}.{IMPLEMENTATIONS[op][impl]}")


def choose(op: str, impl: str, device: str, inputs: Any) -> ModuleType:
    """The module that runs `op` on these inputs.

    impl="auto" takes the first of AUTO_ORDER that exists and accepts them. A named one runs or
    raises: nothing falls back in silence.

    Raises:
        ValueError: a name that no op has.
        NotImplementedError: this op has no such implementation, or it does not take the inputs;
            lists every reason.
    """
    checks.one_of("impl", impl, _KNOWN)
    names = AUTO_ORDER.get(device, ()) if impl == "auto" else (impl,)
    reasons = [] if names else [f"nothing runs on {device}, only on {' and '.join(AUTO_ORDER)}"]
    for name in names:
        if name not in IMPLEMENTATIONS[op]:
            reasons.append(f"{name}: {op} has no such implementation")
            continue
        try:
            module = load(op, name)
        except ModuleNotFoundError as error:
            if error.name != "triton":
                raise
            reasons.append(f"{name}: the package triton is not installed (pip install fastpop[triton])")
            continue
        reason = module.unsupported(inputs)
        if reason is None:
            return module
        reasons.append(f"{name}: {reason}")
    raise NotImplementedError(f"no implementation of {op} for impl={impl!r}: " + "; ".join(reasons))
