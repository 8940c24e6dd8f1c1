"""Scores for which the right answer of an audit is known, so that a wrong audit is caught."""

from dataclasses import dataclass

import numpy as np

from fastpop import checks
from fastpop.frozen import freeze


@dataclass(frozen=True, eq=False)
class Control:
    """Arguments of `fastpop.audit`, and what it must say in words.

    query [C, D], items [V, D], bias [V] or None, counts [V].
    """

    query: np.ndarray
    items: np.ndarray
    bias: np.ndarray | None
    counts: np.ndarray
    expect: str

    __repr__ = checks.brief

    def __post_init__(self) -> None:
        freeze(self, "query", "items", "bias", "counts")


def uniform_popularity(num_items: int = 60, *, seed: int = 0) -> Control:
    """Every item equally popular."""
    rng = _rng(num_items, seed)
    return Control(
        rng.standard_normal((40, 4)),
        rng.standard_normal((num_items, 4)),
        None,
        np.full(num_items, 7.0),
        "refused: uniform popularity has no direction",
    )


def popularity_only(num_items: int = 60, *, seed: int = 0) -> Control:
    """Contexts and items are independent (PMI = 0): scores are log counts for every context."""
    rng = _rng(num_items, seed)
    counts = _counts(rng, num_items)
    return Control(
        rng.standard_normal((40, 4)),
        np.zeros((num_items, 4)),
        np.log(counts),
        counts,
        "all energy is shared and along log p (with smoothing=0.0), scores have rank one",
    )


def independent(num_items: int = 60, *, seed: int = 0) -> Control:
    """Popularity drawn independently of the scores."""
    rng = _rng(num_items, seed)
    return Control(
        rng.standard_normal((40, 4)) + 0.5,
        rng.standard_normal((num_items, 4)),
        rng.standard_normal(num_items),
        _counts(rng, num_items),
        "p-values uniform over seeds, fraction near chance",
    )


def norm_confounded(num_items: int = 150, *, seed: int = 0) -> Control:
    """Item norms follow |centred log popularity|, directions are random."""
    rng = _rng(num_items, seed)
    counts = _counts(rng, num_items)
    size = np.abs(np.log(counts) - np.log(counts).mean())
    return Control(
        rng.standard_normal((40, 6)),
        rng.standard_normal((num_items, 6)) * size[:, None],
        None,
        counts,
        "the plain label null rejects far too often, the sign null does not",
    )


def gauge_shift(control: Control, size: float = 100.0, *, seed: int = 0) -> Control:
    """The same softmax probabilities: a vector added to every item, a constant to the bias."""
    checks.number("size", size)
    rng = _rng(len(control.items), seed)
    step_D = size * rng.standard_normal(control.items.shape[1])
    bias = control.bias if control.bias is None else control.bias + size
    return Control(
        control.query, control.items + step_D, bias, control.counts, "the audit of the unshifted scores"
    )


def _counts(rng: np.random.Generator, num_items: int) -> np.ndarray:
    return np.floor(3 * (rng.pareto(1.1, num_items) + 1))


def _rng(num_items: int, seed: int) -> np.random.Generator:
    checks.number("num_items", num_items, ge=4, integer=True)
    checks.number("seed", seed, ge=0, integer=True)
    return np.random.Generator(np.random.PCG64(seed))
