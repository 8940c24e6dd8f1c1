"""What popularity will be, if it goes on as it went."""

from typing import Any

import numpy as np

from fastpop import checks


def drift_forecast(before: Any, last: Any, alpha: float = 1.0) -> np.ndarray:
    """m + alpha (m - m'), none below 0, of the shares m' and m of two periods: float64 [V].

    before, last: [V] counts >= 0 of two periods that follow each other, not all zero. alpha: how far the
    drift goes on; 0 repeats the last period.
    Raises: ValueError, TypeError.
    Source: Zhang et al., SIGIR 2021 (arXiv:2105.06067), sec. 3.3.
    """
    checks.number("alpha", alpha)
    share_2V = [_share(name, counts) for name, counts in (("before", before), ("last", last))]
    checks.shape("last", share_2V[1], share_2V[0].shape)
    return np.maximum(share_2V[1] + alpha * (share_2V[1] - share_2V[0]), 0.0)


def _share(argument: str, counts: Any) -> np.ndarray:
    counts_V = checks.float_array(argument, counts, 1, by_item=True)
    if len(counts_V) == 0 or counts_V.min() < 0 or counts_V.sum() == 0:
        raise checks.wrong(argument, "numbers >= 0, not all zero", counts_V)
    return counts_V / counts_V.sum()
