"""The dense definition of every energy in np.longdouble: the truth that Gram forms must meet."""

import numpy as np


def dense_energies(query, items, log_prior, *, bias=None, scale=1.0, weight=None, offset=None, centring=None):
    """total, direction, shared, heterogeneous, off_direction, slope_mean, slope_std from the C x V
    scores."""
    big = np.longdouble
    q, e, f = (np.asarray(x, big) for x in (query, items, log_prior))
    score = big(scale) * (q @ e.T)
    if bias is not None:
        score = score + np.asarray(bias, big)
    if offset is not None:
        score = score + np.asarray(offset, big)[:, None]
    w = np.ones(len(q), big) if weight is None else np.asarray(weight, big)
    w = w / w.sum()
    c = np.full(len(e), 1 / big(len(e))) if centring is None else np.asarray(centring, big)
    c = c / c.sum()
    score = score - (score @ c)[:, None]
    f = f - c @ f
    norm = np.sqrt(f @ f)
    t = score @ (f / norm)
    mean = w @ t
    het = w @ (t - mean) ** 2
    return {
        "total": w @ (score**2).sum(axis=1),
        "direction": w @ t**2,
        "shared": mean**2,
        "off_direction": w @ ((score - np.outer(t, f / norm)) ** 2).sum(axis=1),
        "heterogeneous": het,
        "slope_mean": mean / norm,
        "slope_std": np.sqrt(het) / norm,
        "score": score,
        "weight": w,
    }
