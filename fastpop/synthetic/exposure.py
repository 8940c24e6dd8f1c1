"""Ratings of which some are seen, with the probability of each known: missing not at random."""

from dataclasses import dataclass

import numpy as np

from fastpop import checks
from fastpop.frozen import freeze


@dataclass(frozen=True, eq=False)
class Exposure:
    """Every rating, and how likely each was to be seen.

    rating_UV: float64 in 1..5, whole numbers. feature_V: float64, how much an item is shown for reasons of
    its own. propensity_UV: in (0, 1).
    """

    rating_UV: np.ndarray
    feature_V: np.ndarray
    propensity_UV: np.ndarray

    __repr__ = checks.brief

    def __post_init__(self) -> None:
        freeze(self, "rating_UV", "feature_V", "propensity_UV")

    def draw(self, seed: int) -> np.ndarray:
        """[U, V] bool: what is seen, each pair apart from the others."""
        return _rng(seed).random(self.rating_UV.shape) < self.propensity_UV

    def draw_random(self, per_user: int, seed: int) -> np.ndarray:
        """[U, V] bool: per_user different items of every user, chosen without regard to anything."""
        checks.number("per_user", per_user, ge=1, le=self.rating_UV.shape[1], integer=True)
        order_UV = np.argsort(_rng(seed).random(self.rating_UV.shape), axis=1)
        chosen_UV = np.zeros(self.rating_UV.shape, bool)
        np.put_along_axis(chosen_UV, order_UV[:, :per_user], True, axis=1)
        return chosen_UV


def exposed_ratings(
    num_users: int = 300,
    num_items: int = 200,
    *,
    by_value: float = 1.0,
    by_item: float = 0.0,
    share: float = 0.05,
    seed: int = 0,
) -> Exposure:
    """Ratings of rank two and noise, seen with log odds of by_value * (rating - 3) + by_item * feature.

    share: of all pairs, that is seen on average, to 1e-12; > 0 and < 1.
    """
    for name, size in (("num_users", num_users), ("num_items", num_items)):
        checks.number(name, size, ge=1, integer=True)
    for name, value in (("by_value", by_value), ("by_item", by_item)):
        checks.number(name, value)
    checks.number("share", share, gt=0)
    if share >= 1:
        raise checks.wrong("share", "a number in (0, 1)", share)
    rng = _rng(seed)
    user_UD, item_VD = rng.standard_normal((num_users, 2)), rng.standard_normal((num_items, 2))
    liking_UV = 0.7 * user_UD @ item_VD.T + 0.5 * rng.standard_normal((num_users, num_items))
    rating_UV = np.clip(np.rint(3 + liking_UV), 1, 5)
    feature_V = rng.standard_normal(num_items)
    odds_UV = by_value * (rating_UV - 3) + by_item * feature_V
    low, high = -60.0 - np.abs(odds_UV).max(), 60.0 + np.abs(odds_UV).max()
    while high - low > 1e-12:  # the constant that gives the share
        middle = (low + high) / 2
        if middle in (low, high):
            break
        low, high = (middle, high) if _sigmoid(odds_UV + middle).mean() < share else (low, middle)
    return Exposure(rating_UV, feature_V, _sigmoid(odds_UV + low))


def _sigmoid(z: np.ndarray) -> np.ndarray:
    return np.exp(-np.logaddexp(0.0, -z))


def _rng(seed: int) -> np.random.Generator:
    checks.number("seed", seed, ge=0, integer=True)
    return np.random.Generator(np.random.PCG64(seed))
