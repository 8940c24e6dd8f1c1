"""Random files with random damage: every record is an event or rejected, or the file is refused."""

import csv
import gzip
import io
import warnings

import numpy as np
import pytest

from fastpop.data import read_log, staging
from fastpop.kernels.log_rows import reference

ROLES = {"user": "u", "item": "i", "time": "t"}
WORDS = ["1", "22", "007", "a", "é", "x y", "", "NULL", "2.5", "1.0", " 3", "True", "-4", "9" * 25]
TIMES = ["1500000000", "1500000001.5", "2014-12-06 02", "", "x", "nan", "1e300", "-5"]


def sound_file(rng) -> tuple[str, str, str]:
    """(text, separator, quote) of a table of any layout."""
    separator = str(rng.choice([",", "\t", ";", "::", "|"]))
    end = str(rng.choice(["\n", "\n", "\r\n"]))
    words = WORDS if rng.random() < 0.5 else ["1", "2", "3"]
    times = TIMES if rng.random() < 0.3 else TIMES[:1]
    names = ["u", "i", "t", *[f"x{n}" for n in range(rng.integers(0, 3))]]
    rng.shuffle(names)
    rows = []
    for _ in range(rng.integers(1, 40)):
        row = {"u": rng.choice(words), "i": rng.choice(words), "t": rng.choice(times)}
        review = rng.choice(["fine", 'say "x"', "two\nlines", "a,b;c\td", '"open', "", "caf\u00e9"])
        rows.append([str(row.get(name, review)) for name in names])
    out = io.StringIO()
    if separator == "::":
        plain = [[field.replace("\n", " ") for field in row] for row in [names, *rows]]
        out.write("".join(separator.join(row) + end for row in plain))
        return out.getvalue(), separator, ""
    writer = csv.writer(
        out,
        delimiter=separator,
        lineterminator=end,
        quoting=int(rng.choice([csv.QUOTE_MINIMAL, csv.QUOTE_ALL])),
    )
    writer.writerow(names)
    writer.writerows(rows)
    return out.getvalue(), separator, '"'


def damaged(raw: bytes, rng) -> bytes:
    """A few bytes cut out, put in, or turned over; a file that ends early; lines that come twice."""
    for _ in range(rng.integers(0, 4)):
        if len(raw) < 2:
            break
        at = int(rng.integers(0, len(raw)))
        match rng.integers(0, 8):
            case 0:
                raw = raw[:at] + raw[at + int(rng.integers(1, 6)) :]
            case 1:
                raw = raw[:at] + rng.choice([b'"', b"\n", b",", b"\t", b"\r", b" ", b"::", b'""']) + raw[at:]
            case 2:
                raw = raw[:at] + bytes([int(rng.integers(0, 256))]) + raw[at + 1 :]
            case 3:
                raw = raw[:at]
            case 4:
                raw = raw.replace(b"\n", b"\n\n", int(rng.integers(1, 3)))
            case 5:
                lines = raw.split(b"\n")
                rng.shuffle(lines)
                raw = b"\n".join(lines)
            case 6:
                raw = raw.rstrip(b"\r\n")
            case 7:
                raw = raw[:at] + raw[at // 2 :]
    return raw


def check_one(seed: int, folder, monkeypatch) -> str:
    """What became of one file: "read" or "refused"; a broken property fails."""
    rng = np.random.default_rng(seed)
    monkeypatch.setattr(staging, "BLOCK", int(rng.choice([16, 48, 200, 1 << 20])))
    text, separator, quote = sound_file(rng)
    raw = damaged(text.encode(), rng)
    path = folder / ("a.csv.gz" if rng.random() < 0.2 else "a.csv")
    packed = gzip.compress(raw) if path.suffix == ".gz" else raw
    if path.suffix == ".gz" and rng.random() < 0.3:
        packed = damaged(packed, rng)
    path.write_bytes(packed)
    how = {"quoting": rng.choice([None, "minimal", "none"])} if rng.random() < 0.5 else {}
    if how.get("quoting") == "none":
        quote = ""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            log = read_log(path, **ROLES, separator=separator, on_bad_row="skip", threads=2, **how)
    except (ValueError, TypeError) as error:
        said = str(error)
    else:
        said = ""
    if said:
        assert str(path) in said or "source:" in said, said
        assert len(said) < 1000
        # where skipping refuses the file, so does raising
        with pytest.raises((ValueError, TypeError)):
            read_log(path, **ROLES, separator=separator, **how)
        return "refused"
    # the specification's own count, a character at a time
    shown = raw.decode("utf-8", "replace").removeprefix("\ufeff")
    names = next(r.fields for r in reference.records(shown, separator, quote, 0)[0])
    records, blanks = reference.records(shown, separator, quote, len(names))
    facts = log.facts
    assert facts["records"] == len(records) - 1
    assert facts["rows_read"] + facts["rows_rejected"] == facts["records"]
    assert facts["rows_rejected"] == (len(log.rejected) if log.rejected else 0)
    assert log.num_events == facts["rows_read"]
    assert facts["blank_lines"] == blanks
    ragged = {r.first_line + 1 for r in records[1:] if r.fault}
    rejected = set(log.rejected.line) if log.rejected else set()
    assert ragged <= rejected
    starts = [r.first_line + 1 for r in records[1:]]
    good = [r for r, line in zip(records[1:], starts) if line not in rejected]
    position = {name: at for at, name in enumerate(n.strip(" \t") for n in names)}
    order = np.argsort(log.row)
    for role, ids, dense in (("u", log.user_ids, log.user), ("i", log.item_ids, log.item)):
        got = [str(one) for one in ids[dense[order]]]
        wanted = [r.fields[position[role]].strip(" \t") for r in good]
        if ids.dtype == np.int64:
            wanted = [str(int(w.split(".")[0])) for w in wanted]
        assert got == wanted
    return "read"


def test_records_are_read_or_rejected(tmp_path, monkeypatch):
    outcomes = [check_one(seed, tmp_path, monkeypatch) for seed in range(120)]
    assert outcomes.count("read") > 40
    assert outcomes.count("refused") > 10


@pytest.mark.slow
def test_records_are_read_or_rejected_at_length(tmp_path, monkeypatch):
    outcomes = [check_one(seed, tmp_path, monkeypatch) for seed in range(1000, 3000)]
    assert outcomes.count("read") > 700
