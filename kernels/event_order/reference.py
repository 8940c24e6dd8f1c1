"""`np.lexsort((row, tick, user))`: the order of a log's events."""

import numpy as np


def order(user_N: np.ndarray, tick_N: np.ndarray | None) -> np.ndarray:
    """Index int64 [N] that sorts events by user, then tick, then row."""
    keys = (user_N,) if tick_N is None else (tick_N, user_N)
    return np.lexsort(keys)
