"""Small JSON documents with a checksum inside: not a byte of them can change unnoticed."""

import hashlib
import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from fastpop import files

SEAL = "seal"  # the last key of a document: SHA-256 of all that stands before it


class Damaged(ValueError):
    """The file is not what was written; names it."""


def sealed_text(document: dict[str, Any]) -> str:
    """The document as JSON, closed by its checksum."""
    body = json.dumps(document, indent=1)
    return json.dumps({**document, SEAL: hashlib.sha256(body.encode()).hexdigest()}, indent=1) + "\n"


def write(path: Path, document: dict[str, Any]) -> None:
    """All or nothing. Raises OSError with the path."""
    files.write_text(path, sealed_text(document))


def read(path: Path, *, older: bool = False) -> dict[str, Any]:
    """The document without its seal. Raises Damaged for any byte that differs, OSError.

    older: a document without a seal, as an earlier version wrote it, is taken as it stands.
    """
    raw = path.read_bytes()
    try:
        found = json.loads(raw)
        document = {key: value for key, value in found.items() if key != SEAL}
        if SEAL in found:
            sound = sealed_text(document).encode() == raw
        else:  # a seal whose name was damaged is still its last value
            sound = older and not re.fullmatch("[0-9a-f]{64}", str([*found.values(), ""][-2:][0]))
    except (ValueError, AttributeError, TypeError, RecursionError):
        sound = False
    if not sound:
        raise Damaged(f"{path}: expected the bytes that were written; got others")
    return document


def sums(folder: Path, names: Iterable[str]) -> dict[str, str]:
    """SHA-256 of files in a folder, to stand in a document beside them."""
    return {name: files.sha256(folder / name) for name in names}


def differing(folder: Path, known: dict[str, str]) -> list[str]:
    """The names of `sums` whose file is missing or has other bytes."""
    return [
        name
        for name, digest in known.items()
        if not (folder / name).is_file() or files.sha256(folder / name) != digest
    ]
