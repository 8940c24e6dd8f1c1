"""Ids drawn by counter from an alias table. torch is imported where a tensor comes."""

from typing import Any

import numpy as np

from fastpop import checks
from fastpop.kernels.alias_draw.reference import Inputs
from fastpop.kernels.alias_draw.reference import words as words  # of the stream that draws are made of
from fastpop.ops import _dispatch
from fastpop.types import Impl

MAX_SEED = 2**64 - 1
MAX_GROUPS = 2**32
MAX_DRAWS = 2**33


def alias_draw(
    table: Any, seed: Any, step: Any, num_groups: int, num_draws: int, *, group: int = 0, impl: Impl = "auto"
) -> Any:
    """rng.choice(V, size=(num_groups, num_draws), p=the table's distribution), with replacement.

    Ids depend on (seed, step, group, k) alone: every implementation, device and process draws the same
    ones, and a longer draw starts with the shorter one's.

    Args:
        table: uint32 numpy [V, 2], rows (threshold, alias); or the same bits as an int32 torch tensor, on
            the CPU or a CUDA device: `Proposal.table_V2`, `Proposal.table_on(device)`.
        seed, step: integers in [0, 2^64). Beside a tensor, either may be a one-element int64 tensor of the
            same bits, so that a captured graph can count on.
        num_groups, num_draws: G and K >= 0. group: number of the first group.
        impl: "auto", "reference", "cpu", "triton" or "cuda". A named one runs or raises; on a CUDA device
            "triton" draws without waiting for it, "cuda" waits where the step is a tensor.
    Returns:
        int64 [G, K], numpy or torch as the table is, on its device.
    Raises:
        ValueError, TypeError: says the argument, what was expected, what came.
        NotImplementedError: nothing here draws from this table; says why, and what would.
    Cost: one Philox block of ten rounds and one random read of 8 bytes for each id.
    """
    is_array = isinstance(table, np.ndarray)
    if not is_array:
        from fastpop.ops import readable

        readable.tensor("table", table, "an alias table, numpy uint32 or torch int32 [V, 2]")
    dtype = "uint32" if is_array else "int32"
    if str(table.dtype).removeprefix("torch.") != dtype:
        raise checks.wrong_type("table", f"{dtype} [V, 2]", table)
    checks.shape("table", table, ("V", 2))
    if len(table) == 0:
        raise checks.wrong("table", "at least one item", table)
    fixed_seed, fixed_step = (
        0 if _is_counter(name, word) else word for name, word in (("seed", seed), ("step", step))
    )
    check_counters(fixed_seed, fixed_step, group, num_groups, num_draws)
    on_host = is_array or all(isinstance(word, (int, np.integer)) for word in (seed, step))
    counter = (seed, step) if on_host else counter_on(seed, step, table.device)
    inputs = Inputs(table, counter, int(group), int(num_groups), int(num_draws))
    return drawn(inputs, impl)


def drawn(inputs: Inputs, impl: str) -> Any:
    """`alias_draw` of inputs that were checked."""
    device = "cpu" if isinstance(inputs.table_V2, np.ndarray) else inputs.table_V2.device.type
    ids_GK = _dispatch.choose("alias_draw", impl, device, inputs).forward(inputs)
    if isinstance(ids_GK, np.ndarray) and not isinstance(inputs.table_V2, np.ndarray):
        import torch

        return torch.from_numpy(ids_GK)
    return ids_GK


def counter_on(seed: Any, step: Any, device: Any) -> Any:
    """(seed, step) as the bits of two int64, on a device: what kernels that draw inside read."""
    import torch

    # full, not tensor: a fill is recorded by a captured graph, a copy from the host is not.
    return torch.stack(
        [
            word.to(device=device).reshape(())
            if isinstance(word, torch.Tensor)
            else torch.full((), _signed(int(word)), dtype=torch.int64, device=device)
            for word in (seed, step)
        ]
    )


def check_counters(seed: int, step: int, group: int, num_groups: int, num_draws: int) -> None:
    """What the Philox counter can hold: a wrap would repeat draws without a word."""
    checks.number("seed", seed, ge=0, le=MAX_SEED, integer=True)
    checks.number("step", step, ge=0, le=MAX_SEED, integer=True)
    checks.number("group", group, ge=0, le=MAX_GROUPS - 1, integer=True)
    checks.number("number of draws", num_draws, ge=0, le=MAX_DRAWS, integer=True)
    most = MAX_GROUPS - int(group)
    checks.number("number of groups", num_groups, ge=0, le=most, integer=True)


def _is_counter(name: str, word: Any) -> bool:
    """Whether a word of the counter comes as a tensor, whose value is not read."""
    if isinstance(word, (int, np.integer)) or not hasattr(word, "numel"):
        return False
    if word.numel() != 1 or str(word.dtype) != "torch.int64":
        raise checks.wrong(name, "an integer or a one-element int64 tensor", word)
    return True


def _signed(word: int) -> int:
    """The int64 with the bits of a uint64."""
    return word - 2**64 if word >= 2**63 else word
