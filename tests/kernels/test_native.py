"""What the C++ kernels are made of: the exponential on every path."""

import numpy as np
import pytest

from fastpop.kernels import native


@pytest.mark.parametrize("path", native.PATHS)
def test_the_exponential_is_within_1_2_ulp(path):
    if not native.has_path(path):
        pytest.skip(f"this processor has no {path}")
    x = np.linspace(-87.3, 3, 1 << 18, dtype=np.float32)
    truth = np.exp(x.astype(np.float64))
    error = np.abs(native.exp(x, path) - truth) / np.spacing(truth.astype(np.float32))
    assert error.max() <= 1.2
    edge = np.full(64, -np.inf, np.float32)
    edge[:3] = (-88, np.nan, 0)
    got = native.exp(edge, path)
    assert got[0] == 0
    assert np.isnan(got[1])
    assert got[2] == 1
    assert (got[3:] == 0).all()
