"""Every error message about an argument is made here: what it is, what was expected, what came.

Public functions check once, at the door; nothing behind it checks again. A wrong value raises
ValueError, a wrong type TypeError, both with the same three parts.
"""

import importlib
import sys
from collections.abc import Iterable
from typing import Any, NoReturn

import numpy as np

KNOB = 1e6  # largest weight of log p, in size


def describe(value: Any) -> str:
    """A value as it should stand in a message: arrays by dtype and shape, the rest by repr."""
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        kind = str(value.dtype).removeprefix("torch.")
        return f"{kind} {list(value.shape)}"
    text = repr(value)
    return text if len(text) <= 120 else text[:117] + "..."


def wrong(argument: str, expected: str, got: Any) -> ValueError:
    """The ValueError to raise for a bad value. `got` is described, or used as is when a str
    that starts with '='."""
    shown = got[1:] if isinstance(got, str) and got.startswith("=") else describe(got)
    return ValueError(f"{argument}: expected {expected}; got {shown}")


def wrong_type(argument: str, expected: str, got: Any) -> TypeError:
    """The TypeError to raise for a bad type."""
    shown = describe(got) if hasattr(got, "dtype") else type(got).__name__
    if isinstance(got, str) and got.startswith("="):
        shown = got[1:]
    return TypeError(f"{argument}: expected {expected}; got {shown}")


def one_of(argument: str, value: Any, choices: Iterable[Any]) -> None:
    choices = list(choices)
    if value not in choices:
        raise wrong(argument, "one of " + ", ".join(map(repr, choices)), value)


def number(
    argument: str, value: Any, *, above: float | None = None, least: float | None = None,
    most: float | None = None, integer: bool = False,
) -> None:
    """A finite real number (a bool is none), optionally within bounds."""
    kinds = (int, np.integer) if integer else (int, float, np.integer, np.floating)
    noun = "an integer" if integer else "a finite number"
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, kinds):
        raise wrong_type(argument, noun, value)
    bounds = []
    if above is not None:
        bounds.append(f"> {above:g}")
    if least is not None:
        bounds.append(f">= {least:g}")
    if most is not None:
        bounds.append(f"<= {most:g}")
    given: Any = value
    ok: Any = integer or abs(given) <= sys.float_info.max  # NaN is not
    ok = ok and (above is None or value > above) and (least is None or value >= least)
    ok = ok and (most is None or value <= most)
    if integer and most is None and not -(2**63) <= given < 2**63:
        ok = False
        bounds.append("of 64 bits")
    if not ok:
        raise wrong(argument, " ".join([noun, *bounds]), value)


def knob(argument: str, value: Any) -> None:
    """A weight of log p: finite, and small enough for float32 scores to mean something still."""
    number(argument, value, least=-KNOB, most=KNOB)


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
    return wrong(argument, f"ids in [0, {stop})", f"={value} at position {at}")


def no_law(drawn: str, item: int, log_q: float) -> ValueError:
    """The error for an id whose log q is not finite."""
    why = ": the proposal cannot draw an item whose log q is -inf" if log_q < 0 else ""
    return wrong("log_proposal", f"a finite log q for every id in {drawn}{why}", f"={log_q} for item {item}")


def no_prior(item: int, log_p: float) -> ValueError:
    """The error for an id whose log p is NaN or +inf."""
    return wrong("log_prior", "numbers below +inf, none NaN", f"={log_p} at position {item}")


def real_array(argument: str, value: Any) -> None:
    """A numpy array or torch tensor of real numbers, whatever its shape; its numbers are not looked at."""
    if not (hasattr(value, "shape") and hasattr(value, "dtype")):
        raise wrong_type(argument, "a numpy array or torch tensor", value)
    kind = str(value.dtype).removeprefix("torch.")
    if not kind.startswith(("float", "bfloat", "int", "uint", "bool")):
        raise wrong_type(argument, "real numbers", value)
    _at_hand(argument, value)


def _at_hand(argument: str, value: Any) -> None:
    """Not a torch tensor of another layout than rows, or without numbers."""
    if str(getattr(value, "layout", "torch.strided")) != "torch.strided":
        raise wrong_type(argument, "a dense array", f"={value.layout} {list(value.shape)}")
    if str(getattr(value, "device", "cpu")) == "meta":
        raise wrong(argument, "an array that holds numbers", "=a tensor on meta")


def float_array(argument: str, value: Any, ndim: int, dtype: Any = np.float64) -> np.ndarray:
    """A finite real array on the host as `dtype`; takes numpy, torch (detached) or lists."""
    _at_hand(argument, value)
    if hasattr(value, "detach"):
        value = value.detach().cpu()
        value = value.float().numpy() if str(value.dtype) == "torch.bfloat16" else value.numpy()
    try:
        array = np.asarray(value)
    except ValueError:
        raise wrong(argument, f"a rectangular {ndim}-d array", value) from None
    if array.dtype.kind not in "fiub":
        raise wrong_type(argument, f"a {ndim}-d array of real numbers", array)
    if array.ndim != ndim:
        raise wrong(argument, f"a {ndim}-d array", array)
    array = np.ascontiguousarray(array, dtype=dtype)
    if not np.isfinite(array).all():
        at = np.argwhere(~np.isfinite(array))[0]
        place = tuple(int(i) for i in at)
        raise wrong(argument, "finite numbers", f"={array[place]} at {list(place)}")
    return array


def printable(text: str, keep_lines: bool = False) -> str:
    """The text with everything that could steer a terminal (escape codes, line breaks, marks of
    direction, lone surrogates) as Python escapes; keep_lines leaves line feeds as they are."""
    if text.isprintable():
        return text
    return "".join(
        c if c.isprintable() or (keep_lines and c == "\n") else c.encode("unicode_escape").decode("ascii")
        for c in text)


def needed(package: str, extra: str, purpose: str) -> None:
    """Raises the error of `missing_package` before any work where the package cannot be imported."""
    try:
        importlib.import_module(package)
    except ImportError:
        missing_package(package, extra, purpose)


def missing_package(package: str, extra: str, purpose: str) -> NoReturn:
    """One error for an optional package that is not installed."""
    raise ImportError(
        f"{purpose} needs the package {package!r}, which is not installed: "
        f"pip install 'fastpop[{extra}]'" if extra else
        f"{purpose} needs the package {package!r}, which is not installed: pip install {package}"
    )
