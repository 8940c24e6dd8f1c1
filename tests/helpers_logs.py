"""Small logs made up on the spot, and when two of them are one."""

import numpy as np

from fastpop.data import Cases, Interactions
from fastpop.training.folder import fingerprint

ARRAYS = ("user", "item", "time", "weight", "row", "offsets", "user_ids", "item_ids")


def small_log(users=60, items=40, events=900, seed=0, weighted=False) -> Interactions:
    """Users with a taste for one of two blocks of items, Zipf popularity inside a block."""
    rng = np.random.default_rng(seed)
    user = rng.integers(0, users, events)
    rank = np.minimum(rng.zipf(1.6, events) - 1, items // 2 - 1)
    item = rank + (items // 2) * ((user % 2) ^ (rng.random(events) < 0.1))
    weight = rng.integers(1, 4, events).astype(float) if weighted else None
    return Interactions.from_arrays(user * 7, item * 3, np.arange(events), weight)


def same(a: Interactions, b: Interactions) -> None:
    for name in ARRAYS:
        left, right = getattr(a, name), getattr(b, name)
        if left is None or right is None:
            assert left is right, name
            continue
        assert np.asarray(left).tolist() == np.asarray(right).tolist(), name
    assert (a.facts, a.has_order, a.rejected) == (b.facts, b.has_order, b.rejected)
    assert fingerprint(a) == fingerprint(b)


def same_cases(a: Cases | None, b: Cases | None) -> None:
    assert (a is None) == (b is None)
    if a is None or b is None:
        return
    for name in ("user", "history_offsets", "history_item", "target_offsets", "target_item"):
        assert getattr(a, name).tolist() == getattr(b, name).tolist(), name


def put(path, text, encoding="utf-8"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode(encoding))
    return path


def items(log):
    return log.decode_items(log.item).tolist()
