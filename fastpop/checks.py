"""Every error message about an argument is made here: what it is, what was expected, what came.

Public functions check their arguments once, on entry; nothing that they call checks again. A wrong
value raises ValueError, a wrong type TypeError, both with the same three parts.
"""

import dataclasses
import importlib
import sys
from collections.abc import Iterable
from typing import Any, NoReturn

import numpy as np

LARGEST_WEIGHT = 1e6  # largest weight of log p, in size


def level_outside() -> int:
    """The stacklevel with which the function that calls this has `warnings.warn` name the line outside the
    package that called into it: Python shows some warnings only where that is the user's own."""
    frame, level = sys._getframe(1), 1
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] == "fastpop":
        frame, level = frame.f_back, level + 1
    return level


def describe(value: Any) -> str:
    """A value as it should stand in a message: arrays by dtype and shape, the rest by repr."""
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        kind = str(value.dtype).removeprefix("torch.")
        return f"{kind} {list(value.shape)}"
    text = repr(value)
    return text if len(text) <= 120 else text[:117] + "..."


def brief(value: Any) -> str:
    """A dataclass on a line or two, as its `__repr__`: arrays by dtype and shape, long things by kind."""
    shown = []
    for field in dataclasses.fields(value):
        inner = getattr(value, field.name)
        if hasattr(inner, "shape") and hasattr(inner, "dtype"):
            text = describe(inner)
        else:
            text = repr(inner)
            if len(text) > 80 or "\n" in text:
                size = f" of {len(inner):,}" if hasattr(inner, "__len__") else ""
                text = f"<{type(inner).__name__}{size}>"
        shown.append(f"{field.name}={text}")
    return f"{type(value).__name__}({', '.join(shown)})"


def wrong(argument: str, expected: str, got: Any = None, *, text: str | None = None) -> ValueError:
    """The ValueError to raise for a bad value. `got` is described; `text`, where given, stands in its
    place as it is."""
    return ValueError(f"{argument}: expected {expected}; got {describe(got) if text is None else text}")


def wrong_type(argument: str, expected: str, got: Any = None, *, text: str | None = None) -> TypeError:
    """The TypeError to raise for a bad type: that of `got`; or `text`, as in `wrong`."""
    if text is None:
        text = describe(got) if hasattr(got, "dtype") else type(got).__name__
    return TypeError(f"{argument}: expected {expected}; got {text}")


def one_of(argument: str, value: Any, choices: Iterable[Any]) -> None:
    choices = list(choices)
    if value not in choices:
        raise wrong(argument, "one of " + ", ".join(map(repr, choices)), value)


def number(
    argument: str,
    value: Any,
    *,
    gt: float | None = None,
    ge: float | None = None,
    le: float | None = None,
    integer: bool = False,
) -> None:
    """A finite real number (a bool is none), optionally within bounds."""
    kinds = (int, np.integer) if integer else (int, float, np.integer, np.floating)
    noun = "an integer" if integer else "a finite number"
    symbolic = type(value).__name__ == "SymInt"  # of a graph that torch traces; has 64 bits
    if isinstance(value, (bool, np.bool_)) or not (symbolic or isinstance(value, kinds)):
        raise wrong_type(argument, noun, value)
    bounds = []
    if gt is not None:
        bounds.append(f"> {gt:g}")
    if ge is not None:
        bounds.append(f">= {ge:g}")
    if le is not None:
        bounds.append(f"<= {le:g}")
    given: Any = value
    ok: Any = integer or abs(given) <= sys.float_info.max  # NaN is not
    ok = ok and (gt is None or value > gt) and (ge is None or value >= ge)
    ok = ok and (le is None or value <= le)
    if integer and le is None and not symbolic and not -(2**63) <= given < 2**63:
        ok = False
        bounds.append("of 64 bits")
    if not ok:
        raise wrong(argument, " ".join([noun, *bounds]), value)


def score_weight(argument: str, value: Any) -> None:
    """A weight of log p or of the learned part: finite, and small enough for float32 scores to mean
    something still."""
    number(argument, value, ge=-LARGEST_WEIGHT, le=LARGEST_WEIGHT)


def float32(argument: str, value: Any) -> None:
    """A number that float32 turns neither into infinity nor into 0."""
    if value and not 2.0**-126 <= abs(value) < 2.0**128:
        raise wrong(argument, "a number that float32 can hold", value)


def shape(argument: str, value: Any, expected: tuple[int | str, ...]) -> None:
    """The shape: integers must match, names (say "B") stand for any size."""
    got = tuple(value.shape)
    fits = len(got) == len(expected) and all(
        isinstance(want, str) or want == have for want, have in zip(expected, got)
    )
    if not fits:
        raise wrong(argument, "shape [" + ", ".join(map(str, expected)) + "]", value)


def ids_in_range(argument: str, ids: Any, stop: int) -> None:
    """Integer ids in [0, stop), numpy or torch; names the first bad value and where it is."""
    if ids.shape == () or 0 in ids.shape:
        flat = ids.reshape(-1)
        if flat.shape[0] == 0:
            return
    if int(ids.min()) >= 0 and int(ids.max()) < stop:
        return
    flat = ids.reshape(-1)
    at = int(((flat < 0) | (flat >= stop)).nonzero()[0].reshape(-1)[0])
    raise id_out_of_range(argument, int(flat[at]), at, stop)


def id_out_of_range(argument: str, value: int, at: int, stop: int) -> ValueError:
    """The error for an id that is not in [0, stop), and where it is."""
    return wrong(argument, f"ids in [0, {stop})", text=f"{value} at position {at}")


def no_proposal(drawn: str, item: int, log_q: float) -> ValueError:
    """The error for an id whose log q is not finite."""
    why = ": the proposal cannot draw an item whose log q is -inf" if log_q < 0 else ""
    return wrong(
        "log_proposal", f"a finite log q for every id in {drawn}{why}", text=f"{log_q} for item {item}"
    )


def no_prior(item: int, log_p: float) -> ValueError:
    """The error for an id whose log p is NaN or +inf."""
    return wrong("log_prior", "numbers below +inf, none NaN", text=f"{log_p} at position {item}")


def real_array(argument: str, value: Any) -> None:
    """A numpy array or torch tensor of real numbers, whatever its shape; its numbers are not checked."""
    if not (hasattr(value, "shape") and hasattr(value, "dtype")):
        raise wrong_type(argument, "a numpy array or torch tensor", value)
    kind = str(value.dtype).removeprefix("torch.")
    if not kind.startswith(("float", "bfloat", "int", "uint", "bool")):
        raise wrong_type(argument, "real numbers", value)
    _at_hand(argument, value)


def _at_hand(argument: str, value: Any) -> None:
    """Not a torch tensor of another layout than rows, or without numbers."""
    if str(getattr(value, "layout", "torch.strided")) != "torch.strided":
        raise wrong_type(argument, "a dense array", text=f"{value.layout} {list(value.shape)}")
    if str(getattr(value, "device", "cpu")) == "meta":
        raise wrong(argument, "an array that holds numbers", text="a tensor on meta")
    if hasattr(value, "data_ptr") and not _holds_numbers(value):
        raise wrong_type(argument, "an array that holds its numbers itself", text=f"{type(value).__name__}")


def _holds_numbers(tensor: Any) -> bool:
    """Not so for a subclass that keeps them in other tensors, a DTensor say."""
    plain = sys.modules["torch"].Tensor
    if type(tensor).__torch_dispatch__ is not plain.__torch_dispatch__:
        return False
    try:
        return tensor.numel() == 0 or tensor.data_ptr() != 0
    except RuntimeError:  # within a transform of torch.func
        return False


def array_like(argument: str, value: Any, *, by_item: bool = False, objects: bool = False) -> Any:
    """The torch tensor that `value` is, or a numpy array of it: what every public function that
    takes an array takes. Nothing is copied that need not be, and no number is checked.

    Args:
        value: numpy, torch, lists of numbers, a pandas or polars frame or series, an arrow table or
            column, or whatever else numpy can read (`__array__`, `__dlpack__`). A table is
            [rows, columns].
        by_item: the numbers are in the order of a catalogue: a pandas series whose index does not
            rise (as of `value_counts`, which sorts by count) is refused.
        objects: leave Python objects as they are; otherwise they must be numbers.
    Raises:
        TypeError: a sparse matrix, a dict, text, anything else. ValueError: lists of several
            lengths, masked numbers, a series in another order.
    """
    if hasattr(value, "detach"):
        _at_hand(argument, value)
        return value
    if isinstance(value, np.ma.MaskedArray):
        if np.ma.is_masked(value):
            raise wrong(argument, "numbers, none of them masked", text=f"{value.mask.sum()} masked")
        value = value.data
    if hasattr(value, "toarray") and hasattr(value, "nnz"):
        kind = f"{type(value).__name__} {list(value.shape)} (.toarray() makes one)"
        raise wrong_type(argument, "a dense array", text=kind)
    if by_item and hasattr(value, "iloc") and not value.index.is_monotonic_increasing:
        raise wrong(
            argument,
            "a series in the order of the items",
            text="one whose index does not rise "
            "(sort it by its index, or give .to_numpy() to take it as it stands)",
        )
    try:
        array = _as_numpy(value)
    except ValueError as error:
        if isinstance(value, (list, tuple)):
            raise wrong(argument, "a rectangular array", text="lists of several lengths") from None
        raise wrong_type(argument, f"an array ({error})", value) from None
    if array is None:
        raise wrong_type(argument, "an array, a frame or a list of numbers", value)
    return array if objects or array.dtype.kind != "O" else _numbers(argument, array)


def _as_numpy(value: Any) -> np.ndarray | None:
    """None for what is no array."""
    if type(value).__module__.partition(".")[0] == "pyarrow":
        if hasattr(value, "column_names"):
            return np.column_stack([np.asarray(column) for column in value.columns])
        return np.asarray(value)
    if isinstance(value, np.ndarray):
        return np.asarray(value)  # a matrix as an array
    if hasattr(value, "to_numpy"):
        return np.asarray(value.to_numpy())
    if hasattr(value, "__array__") or isinstance(value, (list, tuple, range, int, float)):
        return np.asarray(value)
    if hasattr(value, "__dlpack__"):
        return np.from_dlpack(value)
    return None


def float_array(
    argument: str, value: Any, ndim: int, dtype: Any = np.float64, *, by_item: bool = False
) -> np.ndarray:
    """A finite real array on the host as `dtype`; takes all that `array_like` does."""
    value = array_like(argument, value, by_item=by_item)
    if hasattr(value, "detach"):
        value = value.detach().cpu()
        value = value.float().numpy() if str(value.dtype) == "torch.bfloat16" else value.numpy()
    array = value
    if array.dtype.kind not in "fiub":
        raise wrong_type(argument, f"a {ndim}-d array of real numbers", array)
    if array.ndim != ndim:
        raise wrong(argument, f"a {ndim}-d array", array)
    with np.errstate(over="ignore"):  # what is too large for it is told below
        array = np.ascontiguousarray(array, dtype=dtype)
    if not _all_finite(array):
        at = np.argwhere(~np.isfinite(array))[0]
        place = tuple(int(i) for i in at)
        raise wrong(argument, "finite numbers", text=f"{array[place]} at {list(place)}")
    return array


def _all_finite(array: np.ndarray) -> bool:
    """`np.isfinite(array).all()` without as many bools as the array has numbers."""
    flat = array.reshape(-1)
    return all(np.isfinite(flat[low : low + (1 << 22)]).all() for low in range(0, flat.size, 1 << 22))


def int_array(argument: str, value: Any) -> np.ndarray:
    """A 1-d array of whole numbers on the host, int64; takes all that `array_like` does."""
    value = array_like(argument, value)
    array = value.detach().cpu().numpy() if hasattr(value, "detach") else value
    if array.size == 0 and array.dtype.kind == "f":
        array = array.astype(np.int64)  # numpy calls an empty list float64
    if array.dtype.kind not in "iu":
        raise wrong_type(argument, "integers in a 1-d array", array)
    if array.ndim != 1:
        raise wrong(argument, "integers in a 1-d array", array)
    return array.astype(np.int64, copy=False)


def _numbers(argument: str, array: np.ndarray) -> np.ndarray:
    """bool, int64 or float64 of an object array whose every value is a number."""
    kinds = set()
    for at, one in np.ndenumerate(array):
        if missing(one):
            raise wrong(argument, "numbers, none missing", text=f"{one!r} at {list(at)}")
        if not isinstance(one, (bool, int, float, np.integer, np.floating, np.bool_)):
            raise wrong_type(argument, "real numbers", text=f"{type(one).__name__} at {list(at)}")
        kinds.add(
            "b" if isinstance(one, (bool, np.bool_)) else "i" if isinstance(one, (int, np.integer)) else "f"
        )
    try:
        return array.astype({"b": np.bool_, "i": np.int64}.get("".join(kinds), np.float64))
    except OverflowError:
        raise wrong(argument, "numbers below 2**63", text=f"{max(array.flat, key=abs)}") from None


def missing(one: Any) -> bool:
    """Whether a value stands for none: None, NaN, NaT, or what pandas has for it."""
    return one is None or type(one).__name__ in ("NAType", "NaTType") or bool(one != one)


def needed(package: str, extra: str, purpose: str) -> None:
    """Raises the error of `missing_package` before any work where the package cannot be imported."""
    try:
        importlib.import_module(package)
    except ImportError:
        missing_package(package, extra, purpose)


def missing_package(package: str, extra: str, purpose: str) -> NoReturn:
    """One error for an optional package that is not installed."""
    raise ImportError(
        f"{purpose} needs the package {package!r}, which is not installed: pip install 'fastpop[{extra}]'"
        if extra
        else f"{purpose} needs the package {package!r}, which is not installed: pip install {package}"
    )
