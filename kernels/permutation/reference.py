"""Projections of permuted labels, in plain numpy: proj_PR[k] = sum_i y_k[i] * item_VR[i].

y_k is the k-th permutation of the labels y over the items, within strata when there are any
(one stratum is the plain label permutation), or y with random signs. Every statistic of a
permutation test is a function of proj_PR, so no permuted label array is ever kept.

The stream. Permutation k of a seed owns the key mix(mix(seed) + (k + 1) * GAMMA); its j-th word
is mix(key + (j + 1) * GAMMA), with mix the SplitMix64 finaliser. A word depends on (seed, k, j)
only, so neither threads nor blocks can change a draw.

Shuffle. Labels stand in positions 0..V-1, stratum after stratum, and inside a stratum those
that differ from the most common label first, in item order. For j from the last position of a
stratum down to its first: swap positions j and j + floor(word_j * (end - j) / 2**64). This is
Fisher-Yates read backwards, so every arrangement is equally likely up to 2**-64 * V; and swaps
among equal labels do nothing, so the swaps of the common label may be skipped.
Source: Fisher-Yates as in Knuth, TAOCP 2 sec. 3.4.2; SplitMix64, Steele et al. 2014.
"""

from dataclasses import dataclass

import numpy as np

GAMMA = 0x9E3779B97F4A7C15
MASK = (1 << 64) - 1


def mix(word: int) -> int:
    """The SplitMix64 finaliser (Stafford's variant 13)."""
    word = ((word ^ (word >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    word = ((word ^ (word >> 27)) * 0x94D049BB133111EB) & MASK
    return word ^ (word >> 31)


def stream_key(seed: int, index: int) -> int:
    """The key of permutation `index`."""
    return mix((mix(seed & MASK) + (index + 1) * GAMMA) & MASK)


def word_at(key: int, position: int) -> int:
    return mix((key + (position + 1) * GAMMA) & MASK)


@dataclass(frozen=True, eq=False)
class Arrangement:
    """Labels put in shuffling order.

    item_V: the item at each position (strata contiguous).
    value_K: distinct labels, the most common one first.
    code_V: index into value_K of the label that starts at each position.
    bound_S1: first position of each stratum, and V.
    moving_S: how many positions of each stratum start with another label than the common one.
    """

    item_V: np.ndarray
    value_K: np.ndarray
    code_V: np.ndarray
    bound_S1: np.ndarray
    moving_S: np.ndarray


def arrange(label_V: np.ndarray, stratum_V: np.ndarray | None = None) -> Arrangement:
    """Group items by stratum and put the labels that differ from the common one first."""
    num_items = len(label_V)
    stratum_V = np.zeros(num_items, np.int64) if stratum_V is None else stratum_V
    value_K, code_V, count_K = np.unique(label_V, return_inverse=True, return_counts=True)
    common = int(np.argmax(count_K))
    rank_K = np.arange(len(value_K))
    rank_K[common] = 0
    rank_K[:common] += 1
    value_K = np.concatenate([value_K[common : common + 1], np.delete(value_K, common)])
    code_V = rank_K[code_V]
    item_V = np.argsort(stratum_V, kind="stable")
    label_order_V = np.lexsort((code_V == 0, stratum_V))
    start_S = np.unique(stratum_V[item_V], return_index=True)[1]
    moving_S = np.add.reduceat((code_V[label_order_V] != 0).astype(np.int64), start_S)
    bound_S1 = np.concatenate([start_S, [num_items]]).astype(np.int64)
    return Arrangement(item_V, value_K, code_V[label_order_V], bound_S1, moving_S)


def permuted_labels(arranged: Arrangement, seed: int, index: int) -> np.ndarray:
    """y_k over the items, by every swap of every stratum."""
    key = stream_key(seed, index)
    code_V = arranged.code_V.copy()
    for start, end in zip(arranged.bound_S1[:-1].tolist(), arranged.bound_S1[1:].tolist()):
        for j in range(end - 1, start - 1, -1):
            t = j + ((word_at(key, j) * (end - j)) >> 64)
            code_V[j], code_V[t] = code_V[t], code_V[j]
    label_V = np.empty(len(code_V))
    label_V[arranged.item_V] = arranged.value_K[code_V]
    return label_V


def flipped_labels(label_V: np.ndarray, seed: int, index: int) -> np.ndarray:
    """y with the sign of item i turned where the top bit of word i is set."""
    key = stream_key(seed, index)
    top = np.array([word_at(key, i) >> 63 for i in range(len(label_V))], dtype=bool)
    return np.where(top, -label_V, label_V)


def unsupported(label_V, item_VR, stratum_V, null, num_permutations) -> str | None:
    return None


def forward(
    label_V: np.ndarray, item_VR: np.ndarray, num_permutations: int, seed: int, *,
    stratum_V: np.ndarray | None = None, null: str = "label", first: int = 0,
    threads: int | None = None,
) -> np.ndarray:
    """proj_PR for permutations first .. first + P - 1. Slow: V Python steps a permutation."""
    arranged = arrange(label_V, stratum_V)
    proj_PR = np.empty((num_permutations, item_VR.shape[1]))
    for k in range(num_permutations):
        if null == "sign":
            drawn_V = flipped_labels(label_V, seed, first + k)
        else:
            drawn_V = permuted_labels(arranged, seed, first + k)
        proj_PR[k] = drawn_V @ item_VR
    return proj_PR
