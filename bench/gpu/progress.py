"""A bar for what takes longer than a few seconds."""

from collections.abc import Iterable
from typing import Any


def bar(items: Iterable[Any], label: str, total: int | None = None) -> Iterable[Any]:
    """On a terminal alone: elsewhere it would fill a log."""
    from tqdm import tqdm

    return tqdm(items, desc=label, total=total, delay=2, leave=False, disable=None)
