"""A bar for what takes longer than a few seconds."""

from collections.abc import Iterable
from typing import Any


def bar(items: Iterable[Any], label: str) -> Iterable[Any]:
    from tqdm import tqdm

    return tqdm(items, desc=label, delay=2, leave=False)
