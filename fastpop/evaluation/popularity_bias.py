"""How popular, how concentrated and how varied the recommended lists are.

Lists are `recommended` [C, k] int64 item ids, best first, -1 where a list is short; `counts` [V]
are the training counts (popularity), never those of the test events.
"""

from typing import Any

import numpy as np

from fastpop import checks
from fastpop.stats import correlation

GROUPS = ("head", "mid", "tail")


def item_groups(counts: Any, head: float = 0.2, tail: float = 0.2) -> np.ndarray:
    """0 = head, 1 = mid, 2 = tail for every item, by shares of the training events.

    With items in falling order of count, the head holds the first `head` of all events, the tail
    the last `tail` (unseen items belong to it), mid the rest. Items of equal count stand at the
    middle of the share that they hold together, so they are never parted and the order of ids is
    of no account; the most popular items are head, however large their share.

    Args: counts [V] >= 0, not all zero; head, tail in (0, 1), head + tail <= 1.
    Returns: int8 [V].
    Source: 20/60/20 % of the events: Abdollahpouri et al., "User-centered evaluation of
    popularity bias in recommender systems", UMAP 2021, sec. 4. The tail is thus what lies beyond
    the first 80 %, the "long tail" of APLT (Abdollahpouri et al., FLAIRS 2019).
    """
    counts_V = check_counts(counts)
    checks.number("head", head, gt=0, le=1)
    checks.number("tail", tail, gt=0, le=1 - head)
    value, class_V, size = classes(counts_V)
    held = (size * value)[::-1]  # share of each class of equal count, falling
    held = held / held.sum()
    middle = np.cumsum(held) - held / 2
    group = np.ones(len(value), np.int8)
    group[middle >= 1 - tail] = 2
    group[middle < head] = 0
    group[0] = 0
    if value[0] == 0:
        group[-1] = 2
    return group[::-1][class_V]


def exposure_counts(recommended: Any, num_items: int) -> np.ndarray:
    """np.bincount over all lists: how many slots each item got. [V] int64."""
    shown = _lists(recommended).ravel()
    return np.bincount(shown[shown >= 0], minlength=num_items)


def coverage(exposure: Any) -> float:
    """(exposure > 0).mean(): the share of the catalogue that is recommended at least once.

    "Aggregate diversity" as a share; Adomavicius & Kwon, IEEE TKDE 24(5), 2012.
    """
    return float((checks.float_array("exposure", exposure, 1) > 0).mean())


def lorenz_curve(exposure: Any, points: int = 200) -> tuple[np.ndarray, np.ndarray]:
    """(share of the catalogue, share of the slots), least shown items first, from (0,0) to (1,1).

    At most `points` + 1 points, for drawing; `gini` is exact and does not go through them.
    """
    shown_V = np.sort(_exposure(exposure))
    share_V = np.concatenate([[0.0], np.cumsum(shown_V)]) / shown_V.sum()
    at = np.unique(np.round(np.linspace(0, len(shown_V), points + 1)).astype(np.int64))
    return at / len(shown_V), share_V[at]


def gini(exposure: Any) -> float:
    """Gini coefficient of the exposure over the whole catalogue: 0 equal, near 1 all on one item.

    sum_i (2 i - V - 1) x_(i) / (V sum x), x sorted, i = 1..V. Items never shown count.
    Source: Gini 1912; for recommenders Fleder & Hosanagar, Management Science 55(5), 2009.
    """
    shown_V = np.sort(_exposure(exposure))
    rank_V = np.arange(1, len(shown_V) + 1)
    num_items = len(shown_V)
    return float(((2 * rank_V - num_items - 1) * shown_V).sum() / (num_items * shown_V.sum()))


def popularity_correlation(exposure: Any, counts: Any) -> float:
    """Spearman correlation over items between exposure and training count, ties at mid-rank.

    NaN when either is the same for every item.
    """
    a_V, b_V = (
        mid_rank(checks.float_array(name, value, 1, by_item=name == "counts"))
        for name, value in (("exposure", exposure), ("counts", counts))
    )
    return correlation(a_V, b_V)


def average_popularity(recommended: Any, counts: Any) -> np.ndarray:
    """counts[recommended].mean(1): ARP of each list, in training events per item. [C].

    Source: Yin et al., PVLDB 5(9), 2012.
    """
    return _list_mean(recommended, checks.float_array("counts", counts, 1, by_item=True))


def long_tail_share(recommended: Any, counts: Any) -> np.ndarray:
    """APLT of each list: the share of its items that are in the tail of `item_groups`. [C].

    Source: Abdollahpouri, Burke & Mobasher, FLAIRS 2019 (tail: beyond 80 % of the events).
    """
    return _list_mean(recommended, (item_groups(counts) == 2).astype(float))


def novelty(recommended: Any, counts: Any) -> np.ndarray:
    """Mean self-information -log2 p(i) of each list, bits. [C].

    p(i) = (count + 1) / (sum of counts + V), so that an unseen item is novel, not infinite.
    Source: Zhou et al., PNAS 107(10), 2010; Vargas & Castells, RecSys 2011.
    """
    counts_V = checks.float_array("counts", counts, 1, by_item=True)
    return _list_mean(recommended, -np.log2((counts_V + 1) / (counts_V.sum() + len(counts_V))))


def check_counts(counts: Any, num_items: int | None = None) -> np.ndarray:
    """float64 [V], finite, non-negative, not all zero."""
    counts_V = checks.float_array("counts", counts, 1, by_item=True)
    if num_items is not None:
        checks.shape("counts", counts_V, (num_items,))
    if (counts_V < 0).any():
        at = int((counts_V < 0).argmax())
        raise checks.wrong("counts", "numbers >= 0", text=f"{counts_V[at]:g} at position {at}")
    if counts_V.sum() == 0:
        raise checks.wrong("counts", "at least one count above 0", counts_V)
    return counts_V


def _exposure(exposure: Any) -> np.ndarray:
    shown_V = checks.float_array("exposure", exposure, 1)
    if len(shown_V) == 0 or (shown_V < 0).any() or shown_V.sum() == 0:
        raise checks.wrong("exposure", "numbers >= 0, not all zero", shown_V)
    return shown_V


def mid_rank(value_V: np.ndarray) -> np.ndarray:
    """scipy.stats.rankdata: 1 for the smallest, equal values share the mean of their places."""
    _, class_V, size = classes(value_V)
    return (np.cumsum(size) - (size - 1) / 2)[class_V]


def classes(value_V: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """np.unique(value_V, return_inverse=True, return_counts=True); of whole numbers that are not far apart,
    as counts are, without the sort, which takes seconds where items are millions."""
    if len(value_V) and value_V.min() >= 0 and value_V.max() <= 4 * len(value_V):
        whole_V = value_V.astype(np.int64)
        if (whole_V == value_V).all():
            size = np.bincount(whole_V)
            value = np.flatnonzero(size)
            place = np.empty(len(size), np.int64)
            place[value] = np.arange(len(value))
            return value.astype(value_V.dtype), place[whole_V], size[value]
    value, class_V, size = np.unique(value_V, return_inverse=True, return_counts=True)
    return value, class_V, size


def _lists(recommended: Any) -> np.ndarray:
    """int64 [C, k], -1 where a list is short."""
    found = checks.array_like("recommended", recommended)
    found = found.detach().cpu().numpy() if hasattr(found, "detach") else found
    if found.size and found.dtype.kind not in "iu":
        raise checks.wrong_type("recommended", "item ids [C, k]", found)
    return found.astype(np.int64, copy=False)


def _list_mean(recommended: Any, value_V: np.ndarray) -> np.ndarray:
    """Mean of value_V over each list; NaN for an empty one."""
    recommended_CK = _lists(recommended)
    there_CK = recommended_CK >= 0
    total_C = np.where(there_CK, value_V[recommended_CK], 0.0).sum(1)
    size_C = there_CK.sum(1)
    return np.divide(total_C, size_C, out=np.full(len(total_C), np.nan), where=size_C > 0)
