"""Audits of a part of the catalogue: which items, and what the unseen ones do to the whole.

Items without events sit where an initialisation, a regulariser or a sampler of negatives left them.
They are many, so they can make up most of what scores say about items, in either direction.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from fastpop import checks
from fastpop.diagnostics.moments import BLOCK, ScoreMoments
from fastpop.ops.energies import ScoreEnergy
from fastpop.popularity.prior import PopularityPrior
from fastpop.stats import correlation

LEAST_COUNTS = (1, 5, 20)
# `unseen_items` speaks where they hold more than this share of the energy, ...
MOST_ENERGY = 0.5
# ... or where leaving them out changes the share along log p by more than this factor, and the larger
# of the two shares is no trifle: at least a twentieth, and ten times what chance gives.
MOST_FACTOR, LEAST_SHARE, CHANCES = 2.0, 0.05, 10.0


@dataclass(frozen=True)
class PartShare:
    """The audit of the items with at least min_count events, in short. correlation: of the mean score
    with log p."""

    min_count: float
    num_items: int
    fraction_direction: float
    fraction_shared: float
    slope_mean: float
    correlation: float


def chosen_items(counts_V: np.ndarray, min_count: float, subset: Any) -> np.ndarray | None:
    """Ids [n], rising, of the items with min_count events or more that are in `subset` (a mask [V] or
    ids, None for all); None where that is every item.

    Raises: ValueError, TypeError for a mask of another length, ids that repeat or do not exist, and
        where fewer than 4 items are left.
    """
    checks.number("min_count", min_count, ge=0)
    kept_V = counts_V >= min_count
    if subset is not None:
        given = checks.array_like("subset", subset)
        given = given.detach().cpu().numpy() if hasattr(given, "detach") else given
        if given.dtype == bool:
            checks.shape("subset", given, (len(counts_V),))
            kept_V = kept_V & given
        else:
            ids = checks.int_array("subset", given)
            checks.ids_in_range("subset", ids, len(counts_V))
            if len(np.unique(ids)) < len(ids):
                repeated = np.unique(ids, return_counts=True)
                raise checks.wrong(
                    "subset",
                    "different ids, or a mask of bools",
                    text=f"{repeated[0][repeated[1] > 1][0]} more than once",
                )
            mask_V = np.zeros(len(counts_V), bool)
            mask_V[ids] = True
            kept_V &= mask_V
    kept = np.flatnonzero(kept_V)
    if len(kept) == len(counts_V):
        return None
    if len(kept) < 4:
        name = "min_count" if subset is None else "subset"
        raise checks.wrong(
            name, "one that leaves at least 4 items", text=f"{len(kept)} of {len(counts_V)} items"
        )
    return kept


def part_words(num_all: int, num_kept: int, min_count: float, subset: Any) -> str:
    """Which items an audit is of, in words."""
    if num_kept == num_all:
        return "the whole catalogue"
    which = []
    if subset is not None:
        which.append("of the subset given")
    if min_count > 0:
        which.append(f"with {at_least(min_count)}")
    return f"{num_kept:,} of {num_all:,}, those " + " ".join(which)


def at_least(min_count: float) -> str:
    return f"{min_count:g} event{'' if min_count == 1 else 's'} or more"


def prior_of(prior: PopularityPrior, kept: np.ndarray) -> PopularityPrior:
    """The prior over some items only: log p as smoothed over the whole catalogue, less one constant."""
    prior_V = prior.prior_V[kept] / prior.prior_V[kept].sum()
    counts_V = prior.counts_V[kept]
    facts = {"num_events": float(counts_V.sum()), "num_unseen": int((counts_V == 0).sum())}
    return PopularityPrior(
        counts_V, prior_V, np.log(prior_V), prior.alpha, prior.smoothing, prior.min_count, facts
    )


def shares_by_count(
    moments: ScoreMoments, prior: PopularityPrior, whole: ScoreEnergy, above: float = 0
) -> tuple[PartShare, ...]:
    """The shares over all items and over those with at least 1, 5 and 20 events, without the thresholds
    that leave out nothing more, leave under 4 items, or leave items of one count.

    whole: moments.energy(prior.log_prior_V). above: the least count that all items have already.
    Cost: O(V D²) each.
    """
    rows = [_share(above, moments, prior.log_prior_V, whole)]
    for least in LEAST_COUNTS:
        kept = np.flatnonzero(prior.counts_V >= least)
        if len(kept) == rows[-1].num_items:
            continue
        log_p_n = prior.log_prior_V[kept]
        if len(kept) < 4 or np.ptp(log_p_n) < 1e-9:
            break
        part = moments.of_items(kept)
        rows.append(_share(least, part, log_p_n, part.energy(log_p_n)))
    return tuple(rows)


def _share(least: float, moments: ScoreMoments, log_prior_V: np.ndarray, energy: ScoreEnergy) -> PartShare:
    return PartShare(
        least,
        moments.num_items,
        energy.fraction_direction,
        energy.fraction_shared,
        energy.slope_mean,
        correlation(moments.mean_score(), log_prior_V),
    )


def energy_of_items(moments: ScoreMoments, items: np.ndarray) -> float:
    """numpy: w @ (S_centred[:, items]**2).sum(1): what of the total stands in these columns."""
    if len(items) == 0:
        return 0.0
    mean_R, cov_RR = moments.mean(), moments.covariance()
    shared = spread = 0.0
    for low in range(0, len(items), BLOCK):
        row_nR = moments.part(items[low : low + BLOCK])
        shared += float(np.square(row_nR @ mean_R).sum())
        spread += float(np.sum((row_nR @ cov_RR) * row_nR))
    return shared + max(0.0, spread)


def unseen_items(shares: tuple[PartShare, ...], unseen_energy: float) -> str | None:
    """Why items without events carry the geometry, in a sentence; None where they do not.

    Rules: they hold more than half of the total energy; or the share along log p over the items with
    events differs from that over all by a factor above 2, the larger being at least .05 and ten times
    its chance level, 1/(items - 1).
    """
    seen = next((s for s in shares if s.min_count == 1), None)
    if seen is None or shares[0].min_count > 0:
        return None
    whole = shares[0]
    unseen = whole.num_items - seen.num_items
    advice = "min_count=1 leaves them out"
    low, high = sorted((whole, seen), key=lambda s: s.fraction_direction)
    least = max(LEAST_SHARE, CHANCES / (high.num_items - 1))
    if high.fraction_direction >= least and high.fraction_direction > MOST_FACTOR * low.fraction_direction:
        return (
            f"{unseen:,} items without events carry the geometry: {whole.fraction_direction:.3g} of "
            f"the energy lies along log p over all items, {seen.fraction_direction:.3g} over those with "
            f"events; {advice}"
        )
    if unseen_energy > MOST_ENERGY:
        return (
            f"{unseen:,} items without events carry the geometry: {unseen_energy:.0%} of the energy is "
            f"in their scores; {advice}"
        )
    return None
