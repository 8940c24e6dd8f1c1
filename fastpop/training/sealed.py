"""Small JSON documents with a checksum inside: not a byte of them can change unnoticed."""

import hashlib
import json
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


def read(path: Path) -> dict[str, Any]:
    """The document without its seal. Raises Damaged for any byte that differs, OSError."""
    raw = path.read_bytes()
    try:
        found = json.loads(raw)
        document = {key: value for key, value in found.items() if key != SEAL}
        sound = SEAL in found and sealed_text(document).encode() == raw
    except (ValueError, AttributeError, TypeError, RecursionError):
        sound = False
    if not sound:
        raise Damaged(f"{path}: expected the bytes that were written; got others")
    return document
