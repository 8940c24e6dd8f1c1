"""Small logs made up on the spot."""

import numpy as np

from fastpop.data import Interactions


def small_log(users=60, items=40, events=900, seed=0, weighted=False) -> Interactions:
    """Users with a taste for one of two blocks of items, Zipf popularity inside a block."""
    rng = np.random.default_rng(seed)
    user = rng.integers(0, users, events)
    rank = np.minimum(rng.zipf(1.6, events) - 1, items // 2 - 1)
    item = rank + (items // 2) * ((user % 2) ^ (rng.random(events) < 0.1))
    weight = rng.integers(1, 4, events).astype(float) if weighted else None
    return Interactions.from_arrays(user * 7, item * 3, np.arange(events), weight)
