"""Files of `prefix<TAB>target`: cases in the catalogue of a log."""

import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from fastpop.checks import wrong, wrong_type
from fastpop.data import ids as edge
from fastpop.data.cases import Cases
from fastpop.data.interactions import Interactions
from fastpop.data.scan import expand, text_encoding, text_lines


def read_cases(source: Any, log: Interactions, *, unknown: str = "drop", encoding: str = "utf-8") -> Cases:
    """Cases from a file of lines `prefix<TAB>target`, in the catalogue of `log`.

    Args:
        source: a text or gzip file, "-" (standard input), a glob or a list of these. A prefix is
            items in order, separated by spaces; the target is one item, or several separated by
            spaces. Empty lines may end a file.
        log: the log whose `item_ids` the items belong to.
        unknown: "drop" leaves out items the log does not have (of a prefix: the item; of the
            targets: the item, and the case if no target is left or no prefix) and counts
            them in `facts`; "raise" names the first one.
        encoding: of the text, by Python's names.
    Returns:
        Cases with user −1: the sessions are anonymous.
    Raises:
        ValueError: no tab or two tabs, an empty side, an unknown item with unknown="raise"; names
            file and line. FileNotFoundError: no such file.
    """
    if not isinstance(log, Interactions):
        raise wrong_type("log", "Interactions", log)
    if unknown not in ("drop", "raise"):
        raise wrong("unknown", "'drop' or 'raise'", unknown)
    encoding = text_encoding(encoding)
    prefix: list[str] = []
    target: list[str] = []
    sizes: list[tuple[int, int]] = []
    places: list[tuple[str, int]] = []
    with tempfile.TemporaryDirectory(prefix="fastpop-") as folder:
        for file in expand(source, Path(folder)):
            if file.kind == "parquet":
                raise wrong(file.label, "lines `prefix<TAB>target`", text="a parquet file")
            blank = 0  # the first empty line: at the end there may be some
            for number, raw in enumerate(text_lines(file, encoding), 1):
                line = _decoded(raw, file.label, number)
                if not line.strip():
                    blank = blank or number
                    continue
                if blank:
                    raise wrong(
                        f"{file.label}, line {blank}", "`item item …<TAB>target`", text="an empty line"
                    )
                parts = [side.split() for side in line.split("\t")]
                if len(parts) != 2 or not all(parts):
                    place = f"{file.label}, line {number}"
                    raise wrong(place, "`item item …<TAB>target`", text=f"{line[:100]!r}")
                prefix += parts[0]
                target += parts[1]
                sizes.append((len(parts[0]), len(parts[1])))
                places.append((file.label, number))
    if not sizes:
        raise wrong("source", "lines `prefix<TAB>target`", text="only empty lines")
    size = np.array(sizes, dtype=np.int64)
    history = _known(log, prefix)
    wanted = _known(log, target)
    case_of_history = np.repeat(np.arange(len(sizes)), size[:, 0])
    case_of_target = np.repeat(np.arange(len(sizes)), size[:, 1])
    if unknown == "raise":
        _raise_unknown(places, ((prefix, history, case_of_history), (target, wanted, case_of_target)))
    facts = {
        "cases_read": len(sizes),
        "prefix_items_unknown": int((history < 0).sum()),
        "targets_unknown": int((wanted < 0).sum()),
    }
    history_size = np.bincount(case_of_history[history >= 0], minlength=len(sizes))
    target_size = np.bincount(case_of_target[wanted >= 0], minlength=len(sizes))
    kept = (history_size > 0) & (target_size > 0)
    facts["cases_dropped"] = int((~kept).sum())
    every = Cases(
        np.full(len(sizes), -1),
        _offsets(history_size),
        history[history >= 0],
        _offsets(target_size),
        wanted[wanted >= 0],
        log.num_items,
        facts,
    )
    return every.take(kept)


def _decoded(raw: bytes, label: str, number: int) -> str:
    if b"\0" in raw:
        raise wrong(f"{label}, line {number}", "UTF-8 text", text="a NUL byte (UTF-16, or a damaged file?)")
    try:
        return raw.decode("utf-8").rstrip("\r\n")
    except UnicodeDecodeError as error:
        raise wrong(
            f"{label}, line {number}",
            "UTF-8 text",
            text=f"byte 0x{raw[error.start]:02x} (another encoding? encoding='latin-1' or the like)",
        ) from None


def _known(log: Interactions, tokens: list[str]) -> np.ndarray:
    """Dense item of each token, −1 for what the log does not have."""
    if log.item_ids.dtype.kind == "O":
        return edge.find(log.item_ids, np.array(tokens, dtype=object))
    # a token that is no number is no item of a log whose ids are numbers
    whole = np.array([t.lstrip("-").isdecimal() and len(t) < 19 for t in tokens], dtype=bool)
    numbers = np.array([int(t) if ok else 0 for t, ok in zip(tokens, whole)], dtype=np.int64)
    return np.where(whole, edge.find(log.item_ids, numbers), -1)


def _raise_unknown(places: list[tuple[str, int]], sides: tuple) -> None:
    for tokens, dense, case in sides:
        if dense.size and dense.min() < 0:
            at = int((dense < 0).argmax())
            path, line = places[case[at]]
            raise wrong(f"{path}, line {line}", "items of the log", text=f"{tokens[at]!r}")


def _offsets(size: np.ndarray) -> np.ndarray:
    offsets = np.zeros(size.size + 1, dtype=np.int64)
    np.cumsum(size, out=offsets[1:])
    return offsets
