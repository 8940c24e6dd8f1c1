"""One optimiser step on the touched rows of an embedding table, in place."""

from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fastpop import checks
from fastpop.kernels import fields
from fastpop.kernels.alias_draw.reference import WORD, philox4x32
from fastpop.kernels.row_update import reference
from fastpop.kernels.row_update.reference import Inputs
from fastpop.ops import _dispatch, readable, validation
from fastpop.types import Impl

_NAMES = fields.names(Inputs)


def row_sgd_(
    table: Tensor,
    ids: Tensor,
    rows: Tensor,
    *,
    lr: float,
    rounding: tuple[int, int] | None = None,
    summed: bool = False,
    found_inf: Tensor | None = None,
    impl: Impl = "auto",
) -> None:
    """table.index_add_(0, ids, rows, alpha=-lr), duplicates summed first.

    Args:
        table: [V, D] float, changed in place.
        ids: [n] int64 in [0, V), duplicates allowed.
        rows: [n, D] float gradients of those rows, of any float dtype.
        lr: learning rate, >= 0.
        rounding: (seed, step) of a bfloat16 table that is rounded up or down at random, so that the mean of
            what is written is the number itself; a function of the two, the row and the place in it. None:
            to nearest, where a step below half of the last place (1/512 of a number) is lost.
        summed: ids ascend, and rows of an id after its first are zeros, as in the row gradients that the
            softmax ops make: a GPU then needs no sort.
        found_inf: one float32 number, there where the table is, or None: no step is made where it is not 0.
            A GPU reads it there, as torch's fused optimisers read theirs.
        impl: "auto", "reference", "cpu" or "cuda". A named one runs or raises.
    Raises:
        ValueError: wrong shape or number, or an id out of range; then nothing has changed. On CUDA
            such an id makes no step, and raises with FASTPOP_CHECK_IDS=1 only. Also where what is changed
            lies on another argument's memory.
        TypeError: wrong dtype, or a DTensor or the like: give its local part.
        NotImplementedError: a named implementation does not take these; lists each reason.
    Not differentiable: a step is made whether gradients are recorded or not. Works under
    torch.compile(fullgraph=True).
    Cost: O(n D), and a sort of the ids where they are not in order; untouched rows are not read.
    """
    _check(table, ids, rows, lr, found_inf)
    run = torch.ops.fastpop.row_sgd if torch.compiler.is_compiling() else _sgd
    run(table, ids, rows, float(lr), impl, summed, found_inf, *_rounding(rounding, table))


def row_adagrad_(
    table: Tensor,
    ids: Tensor,
    rows: Tensor,
    square: Tensor,
    *,
    lr: float,
    eps: float = 1e-10,
    rounding: tuple[int, int] | None = None,
    summed: bool = False,
    found_inf: Tensor | None = None,
    impl: Impl = "auto",
) -> None:
    """square[ids] += rows.square().mean(1); table[ids] -= lr * rows / (square[ids].sqrt() + eps).

    Args:
        table, ids, rows, lr, rounding, summed, found_inf: as in `row_sgd_`; duplicates are summed before
            the square.
        square: [V] float32 (float64 beside a float64 table) running sum, changed in place.
        eps: added to the root, > 0.
    Cost: O(n D); 1 + D numbers of traffic a row instead of Adagrad's 2 D.
    Source: row-wise Adagrad of FBGEMM/DLRM (arXiv 1906.00091).
    """
    _check(table, ids, rows, lr, found_inf)
    _state("square", square, (table.shape[0],), table, {"table": table, "rows": rows})
    checks.number("eps", eps, gt=0)
    run = torch.ops.fastpop.row_adagrad if torch.compiler.is_compiling() else _adagrad
    run(table, ids, rows, square, float(lr), float(eps), impl, summed, found_inf, *_rounding(rounding, table))


def row_adam_(
    table: Tensor,
    ids: Tensor,
    rows: Tensor,
    mean: Tensor,
    square: Tensor,
    step: Tensor,
    *,
    lr: float,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    rounding: tuple[int, int] | None = None,
    summed: bool = False,
    found_inf: Tensor | None = None,
    impl: Impl = "auto",
) -> None:
    """Adam on the touched rows, with one second moment per row.

    Args:
        table, ids, rows, lr, rounding, summed, found_inf: as in `row_sgd_`; duplicates are summed first.
        mean: [V, D] first moment; square: [V] mean squared gradient; step: [V] int64 steps taken
            by each row. All changed in place on the touched rows only: an untouched row keeps
            its moments, so they do not decay while it rests.
        betas: decay rates in [0, 1). eps: added to the root, > 0.
    Cost: O(n D).
    Source: Adam, arXiv 1412.6980; row-wise second moment as in FBGEMM's partial row-wise Adam.
    """
    _check(table, ids, rows, lr, found_inf)
    given = {"table": table, "rows": rows}
    _state("mean", mean, tuple(table.shape), table, given)
    _state("square", square, (table.shape[0],), table, given | {"mean": mean})
    _state("step", step, (table.shape[0],), table, given | {"mean": mean, "square": square}, torch.int64)
    if len(betas) != 2:
        raise checks.wrong("betas", "two numbers in [0, 1)", betas)
    beta1, beta2 = betas
    for beta in betas:
        checks.number("betas", beta, ge=0)
        if beta >= 1:
            raise checks.wrong("betas", "two numbers in [0, 1)", betas)
    checks.number("eps", eps, gt=0)
    run = torch.ops.fastpop.row_adam if torch.compiler.is_compiling() else _adam
    numbers = float(lr), float(beta1), float(beta2), float(eps)
    state = mean, square, step
    run(table, ids, rows, *state, *numbers, impl, summed, found_inf, *_rounding(rounding, table))


def _check(table: Any, ids: Any, rows: Any, lr: float, found_inf: Any) -> None:
    if not readable.tensor("table", table).dtype.is_floating_point:
        raise checks.wrong_type("table", "a [V, D] float tensor", table)
    checks.shape("table", table, ("V", "D"))
    if readable.tensor("ids", ids, "an int64 torch tensor").dtype != torch.int64:
        raise checks.wrong_type("ids", "an int64 tensor", ids)
    checks.shape("ids", ids, ("n",))
    if not readable.tensor("rows", rows).dtype.is_floating_point:
        raise checks.wrong_type("rows", "a [n, D] float tensor", rows)
    checks.shape("rows", rows, (ids.shape[0], table.shape[1]))
    checks.number("lr", lr, ge=0)
    validation.same_device("ids", ids, table, "table")
    validation.same_device("rows", rows, table, "table")
    if ids.is_cuda and not torch.compiler.is_compiling():
        validation.check_range("ids", ids, table.shape[0])
    _apart("rows", rows, "table", table)
    if found_inf is not None:
        if readable.tensor("found_inf", found_inf).dtype != torch.float32 or found_inf.numel() != 1:
            raise checks.wrong_type("found_inf", "one float32 number", found_inf)
        validation.same_device("found_inf", found_inf, table, "table")


def _rounding(rounding: Any, table: Tensor) -> tuple[int, int]:
    """(seed, step) as the kernels take them; step -1: to nearest."""
    if rounding is None:
        return 0, -1
    if not isinstance(rounding, (tuple, list)) or len(rounding) != 2:
        raise checks.wrong_type("rounding", "(seed, step), or None for rounding to nearest", rounding)
    for name, number in zip(("seed", "step"), rounding):
        checks.number(f"rounding {name}", number, ge=0, le=2**63 - 1, integer=True)
    if table.dtype != torch.bfloat16:
        raise checks.wrong("rounding", "None but for a bfloat16 table", text=f"one of {str(table.dtype)[6:]}")
    return int(rounding[0]), int(rounding[1])


def _state(
    name: str,
    state: Any,
    shape: tuple[int, ...],
    table: Tensor,
    others: dict[str, Tensor],
    dtype: torch.dtype | None = None,
) -> None:
    if dtype is None:
        dtype = torch.float64 if table.dtype == torch.float64 else torch.float32
    kind = str(dtype)[6:]
    if readable.tensor(name, state).dtype != dtype:
        raise checks.wrong_type(name, f"an {kind} tensor" if kind[0] == "i" else f"a {kind} tensor", state)
    checks.shape(name, state, shape)
    validation.same_device(name, state, table, "table")
    for other, held in others.items():
        _apart(name, state, other, held)


def _apart(name: str, changed: Tensor, other: str, held: Tensor) -> None:
    """What a step writes must lie apart from the rest: it reads and writes each number once."""
    if torch.compiler.is_compiling() or not changed.numel() or not held.numel():
        return
    first, other_first = changed.data_ptr(), held.data_ptr()
    size, other_size = changed.element_size(), held.element_size()
    if first >= other_first + _extent(held) * other_size or other_first >= first + _extent(changed) * size:
        return
    if _are_columns_of_one(changed, held):
        return
    raise checks.wrong(name, f"memory apart from that of {other}", text="numbers that lie on its own")


def _extent(tensor: Tensor) -> int:
    """Elements from the first to behind the last."""
    return 1 + sum((size - 1) * abs(stride) for size, stride in zip(tensor.shape, tensor.stride()))


def _are_columns_of_one(one: Tensor, other: Tensor) -> bool:
    """Whether both are columns side by side of rows of one matrix: a table and its state as one."""
    pitches = {tensor.stride(0) * tensor.element_size() for tensor in (one, other)}
    if len(pitches) > 1:
        return False
    pitch = pitches.pop()
    left, right = sorted((one, other), key=Tensor.data_ptr)
    widths = [tensor[0].numel() and _extent(tensor[0]) * tensor.element_size() for tensor in (left, right)]
    gap = right.data_ptr() - left.data_ptr()
    return gap % pitch >= widths[0] and gap % pitch + widths[1] <= pitch if pitch else False


@torch.no_grad()
def _step(inputs: Inputs, impl: str) -> None:
    readable.without_tangents(_NAMES, inputs)
    module = _dispatch.choose("row_update", impl, inputs.table_VD.device.type, inputs)
    if module is reference and inputs.ids_n.device.type == "cpu":  # others check themselves
        checks.ids_in_range("ids", inputs.ids_n, inputs.table_VD.shape[0])
    if module is reference and inputs.rounding_step >= 0:
        inputs = inputs._replace(noise=partial(_noise, inputs.rounding_seed, inputs.rounding_step))
    module.forward(inputs)


def _noise(seed: int, step: int, ids_n: Tensor, dim: int) -> Tensor:
    """[n, D] int32: the 16 bits that are added to each number of these rows; see the reference."""
    counter = np.zeros((len(ids_n), -(-dim // 8), 4), np.uint32)
    counter[:, :, 0] = np.arange(counter.shape[1])
    counter[:, :, 1] = ids_n.cpu().numpy()[:, None]
    counter[:, :, 2], counter[:, :, 3] = step % WORD, step // WORD
    words = philox4x32(counter.reshape(-1, 4), (seed % WORD, seed // WORD)).reshape(len(ids_n), -1)
    noise_nD = np.stack([words & 0xFFFF, words >> 16], 2).reshape(len(ids_n), -1)[:, :dim]
    return torch.from_numpy(noise_nD.astype(np.int32)).to(ids_n.device)


def _sgd(
    table: Tensor,
    ids: Tensor,
    rows: Tensor,
    lr: float,
    impl: str,
    summed: bool = False,
    found_inf: Tensor | None = None,
    seed: int = 0,
    rounds: int = -1,
) -> None:
    how = {"rounding_seed": seed, "rounding_step": rounds, "summed": summed, "found_inf": found_inf}
    _step(Inputs("sgd", table, ids, rows, lr, **how), impl)


def _adagrad(
    table: Tensor,
    ids: Tensor,
    rows: Tensor,
    square: Tensor,
    lr: float,
    eps: float,
    impl: str,
    summed: bool = False,
    found_inf: Tensor | None = None,
    seed: int = 0,
    rounds: int = -1,
) -> None:
    how = {"rounding_seed": seed, "rounding_step": rounds, "summed": summed, "found_inf": found_inf}
    _step(Inputs("adagrad", table, ids, rows, lr, square_V=square, eps=eps, **how), impl)


def _adam(
    table: Tensor,
    ids: Tensor,
    rows: Tensor,
    mean: Tensor,
    square: Tensor,
    step: Tensor,
    lr: float,
    beta1: float,
    beta2: float,
    eps: float,
    impl: str,
    summed: bool = False,
    found_inf: Tensor | None = None,
    seed: int = 0,
    rounds: int = -1,
) -> None:
    how = {"rounding_seed": seed, "rounding_step": rounds, "summed": summed, "found_inf": found_inf}
    _step(Inputs("adam", table, ids, rows, lr, mean, square, step, beta1, beta2, eps, **how), impl)


def _register() -> None:
    """The same three as torch operators, for torch.compile. Eager calls go past them: 20 us each."""
    given = "(Tensor(a!) table, Tensor ids, Tensor rows, "
    for name, function, state, numbers in (
        ("sgd", _sgd, "", "float lr"),
        ("adagrad", _adagrad, "Tensor(b!) square, ", "float lr, float eps"),
        (
            "adam",
            _adam,
            "Tensor(b!) mean, Tensor(c!) square, Tensor(d!) step, ",
            "float lr, float beta1, float beta2, float eps",
        ),
    ):
        changed = ("table", *(word.split()[1] for word in state.split(", ") if word))
        torch.library.custom_op(
            f"fastpop::row_{name}",
            function,
            mutates_args=changed,
            schema=f"{given}{state}{numbers}, str impl, bool summed=False, Tensor? found_inf=None, "
            "int seed=0, int rounds=-1) -> ()",
        ).register_fake(lambda *_: readable.outside_jvp("table"))


_register()
