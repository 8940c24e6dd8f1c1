"""Files whose lines are lists of items: `user item item …`, sessions, and `prefix<TAB>target`."""

from pathlib import Path
from typing import Any

import numpy as np

from fastpop.checks import wrong, wrong_type
from fastpop.data import ids as edge
from fastpop.data.cases import Cases
from fastpop.data.inputs import compression
from fastpop.data.interactions import Interactions
from fastpop.data.scan import Scan, expand, kind_of, open_bytes, scan_text
from fastpop.data.staging import BAD_ITEM, BAD_USER, IdsAreText, Ledger, Reading
from fastpop.data.workbench import Workbench, quoted_text

LONGEST_LINE = 1 << 25




def check_first_line(scan: Scan, kind: str) -> None:
    """A comma list would read as one odd item a line: refuse it, rather than load nonsense."""
    tokens = scan.head.split()
    other = [s for s in (",", ";", "|", "::") if s in scan.head]
    if len(tokens) < 2 and other:
        form = "`user item item …`" if kind == "sequence" else "`item item …`"
        raise wrong(f"{scan.path}, line 1", f"{form} separated by spaces",
                    f"={scan.head[:100]!r} (separated by {other[0]!r}?)")


def stage_lines(
    bench: Workbench, scan: Scan, kind: str, reading: Reading, ledger: Ledger, first_line: int,
) -> int:
    """Append the events of one file to `staged`, in order; returns its number of lines.

    `first_line` is how many lines earlier files had: sessions are numbered across files.
    """
    check_first_line(scan, kind)
    path = quoted_text(str(scan.path))
    bench.run("CREATE OR REPLACE TABLE lines (text VARCHAR)")
    bench.run(
        f"INSERT INTO lines SELECT text FROM read_csv('{path}', auto_detect=false, "
        # a separator that text does not have: the line stays whole
        f"delim='\x01', quote='', escape='', header=false, columns={{'text': 'VARCHAR'}}, "
        f"max_line_size={LONGEST_LINE}, compression='{compression(scan.path)}')",
        label=f"read {scan.path}",
    )
    lines = scan.lines - scan.trailing
    found = bench.value("SELECT count(*) FROM lines")
    if found not in (lines, scan.lines):
        raise wrong(str(scan.path), f"{lines} lines", f"={found}: the parser lost some")
    _find_bad_lines(bench, scan, kind, lines, ledger)
    split = "string_split(trim(replace(text, chr(9), ' '), ' '), ' ')"
    user = f"{split}[1]" if kind == "sequence" else f"rowid + {first_line}"
    items = f"{split}[2:]" if kind == "sequence" else split
    kept = "len(items) > 0 AND user IS NOT NULL" if kind == "sequence" else "true"
    start = bench.value("SELECT count(*) FROM staged")
    as_user = _as_id("user", reading.whole["user"] and kind == "sequence")
    as_item = _as_id("token", reading.whole["item"])
    bench.run(f"""
        INSERT INTO staged
        SELECT {as_user} AS u, {as_item} AS i, NULL, NULL, NULL, NULL,
               CASE WHEN u IS NULL THEN {BAD_USER} WHEN i IS NULL THEN {BAD_ITEM} ELSE 0 END
        FROM (SELECT user, unnest(items) AS token
              FROM (SELECT {user} AS user, {items} AS items FROM lines
                    WHERE rowid < {lines} AND text IS NOT NULL)
              WHERE {kept})
        WHERE token <> ''
    """, label=f"take {scan.path} apart")
    unsure = [role for role, code in (("user", BAD_USER), ("item", BAD_ITEM))
              if bench.value(f"SELECT count(*) FROM staged WHERE bad = {code} "
                             f"AND rowid >= {start}")]
    if unsure:
        raise IdsAreText(unsure)
    bench.run("DROP TABLE lines")
    return lines


def _find_bad_lines(bench: Workbench, scan: Scan, kind: str, lines: int, ledger: Ledger) -> None:
    trimmed = "trim(replace(text, chr(9), ' '), ' ')"
    bad = f"text IS NULL OR {trimmed} = ''"
    form = "`item item …`"
    if kind == "sequence":
        bad += f" OR strpos({trimmed}, ' ') = 0"
        form = "`user item item …`, a user and at least one item"
    limit = "" if ledger.skip else " LIMIT 1"
    for row, text in bench.rows(
        f"SELECT rowid, coalesce(text, '') FROM lines WHERE rowid < {lines} AND ({bad}) "
        f"ORDER BY rowid{limit}"
    ):
        got = repr(text[:100]) if text.strip() else "an empty line"
        reason = f"expected {form}; got {got} (ragged row)"
        if not ledger.skip:
            raise ValueError(f"{scan.path}, line {row + 1}: {reason}")
        ledger.add(str(scan.path), int(row) + 1, reason, text)
    if kind == "sequence":
        # what is kept must not depend on the order in which two filters run
        bench.run(f"UPDATE lines SET text = NULL WHERE {bad}")


def _as_id(column: str, whole: bool) -> str:
    if not whole:
        return column
    return f"CASE WHEN TRY_CAST({column} AS BIGINT)::VARCHAR = {column}::VARCHAR " \
           f"THEN TRY_CAST({column} AS BIGINT) END"


def read_cases(source: Any, log: Interactions, *, unknown: str = "drop") -> Cases:
    """Cases from a file of lines `prefix<TAB>target`, in the catalogue of `log`.

    Args:
        source: a text or gzip file, a glob or a list of files. A prefix is items in order,
            separated by spaces; the target is one item, or several separated by spaces.
        log: the log whose `item_ids` the items belong to.
        unknown: "drop" leaves out items the log does not have (of a prefix: the item; of the
            targets: the item, and the case if no target is left or no prefix) and counts
            them in `facts`; "raise" names the first one.
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
    prefix: list[str] = []
    target: list[str] = []
    sizes: list[tuple[int, int]] = []
    places: list[tuple[Path, int]] = []
    for path in expand(source):
        if kind_of(path) == "parquet":
            raise wrong(str(path), "lines `prefix<TAB>target`", "=a parquet file")
        scan = scan_text(path)
        with open_bytes(path) as file:
            for number, raw in enumerate(file, 1):
                if number > scan.lines - scan.trailing:
                    break
                sides = raw.decode("utf-8-sig").rstrip("\r\n").split("\t")
                parts = [side.split() for side in sides]
                if len(parts) != 2 or not all(parts):
                    text = raw[:100].decode("utf-8", "replace").rstrip("\r\n")
                    raise wrong(f"{path}, line {number}", "`item item …<TAB>target`", f"={text!r}")
                prefix += parts[0]
                target += parts[1]
                sizes.append((len(parts[0]), len(parts[1])))
                places.append((path, number))
    size = np.array(sizes, dtype=np.int64)
    history = _known(log, prefix)
    wanted = _known(log, target)
    case_of_history = np.repeat(np.arange(len(sizes)), size[:, 0])
    case_of_target = np.repeat(np.arange(len(sizes)), size[:, 1])
    if unknown == "raise":
        _raise_unknown(places, ((prefix, history, case_of_history),
                                (target, wanted, case_of_target)))
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
        np.full(len(sizes), -1), _offsets(history_size), history[history >= 0],
        _offsets(target_size), wanted[wanted >= 0], log.num_items, facts,
    )
    return every.take(kept)


def _known(log: Interactions, tokens: list[str]) -> np.ndarray:
    """Dense item of each token, −1 for what the log does not have."""
    if log.item_ids.dtype.kind == "O":
        return edge.find(log.item_ids, np.array(tokens, dtype=object))
    # a token that is no number is no item of a log whose ids are numbers
    whole = np.array([t.lstrip("-").isdecimal() and len(t) < 19 for t in tokens], dtype=bool)
    numbers = np.array([int(t) if ok else 0 for t, ok in zip(tokens, whole)], dtype=np.int64)
    return np.where(whole, edge.find(log.item_ids, numbers), -1)


def _raise_unknown(places: list[tuple[Path, int]], sides: tuple) -> None:
    for tokens, dense, case in sides:
        if dense.size and dense.min() < 0:
            at = int((dense < 0).argmax())
            path, line = places[case[at]]
            raise wrong(f"{path}, line {line}", "items of the log", f"={tokens[at]!r}")


def _offsets(size: np.ndarray) -> np.ndarray:
    offsets = np.zeros(size.size + 1, dtype=np.int64)
    np.cumsum(size, out=offsets[1:])
    return offsets
