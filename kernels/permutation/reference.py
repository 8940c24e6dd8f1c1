"""Projections of permuted labels, in plain numpy: proj_PR[k] = sum_i y_k[i] * item_VR[i].

y_k is the k-th permutation of the labels y over the items, within strata when there are any
(one stratum is the plain label permutation), or y with random signs. Every statistic of a
permutation test is a function of proj_PR, so no permuted label array is ever kept.

The stream. Permutation k of a seed owns the key stream_key(seed, k); word j of a key is
mix(key + (j + 1) * GAMMA), with mix the SplitMix64 finaliser. A word depends on (seed, k, j)
only, so neither threads nor blocks can change a draw.

A permutation of one stratum, in two steps.
1. Draw. Each position draws one byte, and with it one of the frequent labels or a blank; label f
   owns `level` of the 256 bytes, SLACK standard deviations less than its share, so that it is
   hardly ever drawn more often than the stratum holds it. Where one is, or where more than
   `room` positions are blank, all of the stratum's bytes are drawn again.
2. Fill. The labels not drawn are shuffled over the blank positions by Fisher-Yates: the labels
   stand at places 0..n-1, those of the common label last, and for j = n-1..0 places j and
   j + floor(word_j * (n - j) / 2**64) are swapped. Swaps among common labels do nothing, so they
   may be skipped.
Every arrangement is equally likely, whatever the levels: positions are drawn independently by
one distribution and kept or not by counts alone, so step 1 is exchangeable, and so is the filling of
the blanks. What remains is the resolution of the words, 2**-64 * n in step 2.
A stratum of fewer than FEW items has no frequent labels: all of it is blank.
Source: Fisher-Yates as in Knuth, TAOCP 2 sec. 3.4.2; SplitMix64, Steele et al. 2014.

A random sign: item i turns where bit i % 64 of word i // 64 is set.
"""

from dataclasses import dataclass
from math import isqrt
from typing import NamedTuple

import numpy as np

GAMMA = 0x9E3779B97F4A7C15
MASK = (1 << 64) - 1
SLACK = 3  # standard deviations: about one draw in 100 is made again
FEW = 64


class Inputs(NamedTuple):
    """Permutations first .. first + num_permutations - 1 of a seed, of labels over the rows of items."""

    label_V: np.ndarray  # float64
    item_VR: np.ndarray  # float64
    num_permutations: int
    seed: int
    stratum_V: np.ndarray | None = None
    null: str = "label"  # "label", "stratified" or "sign"
    first: int = 0
    threads: int | None = None  # None: one a core


def mix(word: int) -> int:
    """The SplitMix64 finaliser (Stafford's variant 13)."""
    word = ((word ^ (word >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    word = ((word ^ (word >> 27)) * 0x94D049BB133111EB) & MASK
    return word ^ (word >> 31)


def stream_key(seed: int, index: int) -> int:
    """The key of stream `index` of a seed, which may be a key itself."""
    return mix((mix(seed & MASK) + (index + 1) * GAMMA) & MASK)


def word_at(key: int, position: int) -> int:
    return mix((key + (position + 1) * GAMMA) & MASK)


def bytes_of(key: int, count: int) -> np.ndarray:
    """The first `count` bytes of a key's words, the lowest byte of a word first."""
    words = [word_at(key, j) for j in range(-(-count // 8))]
    return np.array(words, "<u8").view(np.uint8)[:count]


@dataclass(frozen=True, eq=False)
class Arrangement:
    """Labels counted, stratum by stratum. F lists the frequent labels of all strata, N the others.

    item_V: the item at each position (strata contiguous).
    value_K: distinct labels, the most common one first; a code is an index into it.
    bound_S1: first position of each stratum, and V.
    often_code_F, often_count_F: frequent labels of a stratum (the common one first, if it is
        one), and how many of each the stratum holds.
    often_edge_F: label f is drawn by bytes below its edge and not below the one before.
    often_bound_S1: where each stratum's part of F begins, and its end.
    rare_code_N, rare_bound_S1: the other labels but the common one, each as often as it occurs.
    room_S: most blanks that a draw may leave.
    """

    item_V: np.ndarray
    value_K: np.ndarray
    bound_S1: np.ndarray
    often_code_F: np.ndarray
    often_count_F: np.ndarray
    often_edge_F: np.ndarray
    often_bound_S1: np.ndarray
    rare_code_N: np.ndarray
    rare_bound_S1: np.ndarray
    room_S: np.ndarray

    @property
    def num_strata(self) -> int:
        return len(self.room_S)


def level(count: int, num: int) -> int:
    """How many of 256 bytes draw a label that `count` of `num` positions hold."""
    # 255 of the bytes are shared out, so that one at least is left for blanks.
    spread = isqrt(count * (num - count) // num) + 1
    return max(0, (count - SLACK * spread) * 255 // num)


def arrange(label_V: np.ndarray, stratum_V: np.ndarray | None = None) -> Arrangement:
    """Group items by stratum and say which labels are frequent there."""
    num_items = len(label_V)
    value_K, code_V, count_K = np.unique(label_V, return_inverse=True, return_counts=True)
    common = int(np.argmax(count_K))
    rank_K = np.arange(len(value_K))
    rank_K[common] = 0
    rank_K[:common] += 1
    value_K = np.concatenate([value_K[common : common + 1], np.delete(value_K, common)])
    code_V, num_items = rank_K[code_V], len(label_V)
    item_V, rank_V, num_S = np.arange(num_items), np.zeros(1, np.int64), np.array([num_items])
    if stratum_V is not None:
        item_V = np.argsort(stratum_V, kind="stable")
        _, rank_V, num_S = np.unique(stratum_V, return_inverse=True, return_counts=True)

    # L runs over the distinct labels of one stratum after the other, by code within a stratum.
    pair_L, count_L = np.unique(rank_V * len(value_K) + code_V, return_counts=True)
    rank_L, code_L = np.divmod(pair_L, len(value_K))
    strata = np.arange(len(num_S) + 1)
    begin_S1 = np.searchsorted(rank_L, strata)
    share_L, edge_L = np.zeros_like(code_L), np.zeros_like(code_L)
    often, edge_S = [], np.zeros_like(num_S)
    for s in np.flatnonzero(num_S >= FEW).tolist():
        here = slice(begin_S1[s], begin_S1[s + 1])
        order_l = np.lexsort((code_L[here], -count_L[here], code_L[here] != 0)) + begin_S1[s]
        for at in order_l.tolist():
            share_L[at] = level(int(count_L[at]), int(num_S[s]))
            if share_L[at] > 0:
                edge_S[s] += share_L[at]
                edge_L[at] = edge_S[s]
                often.append(at)
            elif code_L[at] != 0:
                break
    often_F = np.array(often, np.int64)
    rare_L = (share_L == 0) & (code_L != 0)
    blank_S = num_S * (256 - edge_S) // 256
    spread_S = np.array([isqrt(blanks) for blanks in blank_S.tolist()])
    return Arrangement(
        item_V,
        value_K,
        np.append(0, np.cumsum(num_S)),
        code_L[often_F],
        count_L[often_F],
        edge_L[often_F],
        np.searchsorted(rank_L[often_F], strata),
        np.repeat(code_L[rare_L], count_L[rare_L]),
        np.append(0, np.cumsum(np.where(rare_L, count_L, 0)))[begin_S1],
        np.minimum(num_S, blank_S + 6 * (spread_S + 1)),
    )


def permuted_labels(arranged: Arrangement, seed: int, index: int) -> np.ndarray:
    """y_k over the items, one stratum after the other."""
    key = stream_key(seed, index)
    code_V = np.empty(len(arranged.item_V), np.int64)
    for s in range(arranged.num_strata):
        start, end = arranged.bound_S1[s : s + 2].tolist()
        often = slice(*arranged.often_bound_S1[s : s + 2])
        often_code_f, often_count_f = arranged.often_code_F[often], arranged.often_count_F[often]
        attempt = 0
        while True:
            # The index of the label drawn; one past the last is a blank.
            byte_n = bytes_of(stream_key(stream_key(key, s), attempt), end - start)
            drawn_n = np.searchsorted(arranged.often_edge_F[often], byte_n, side="right")
            count_f = np.bincount(drawn_n, minlength=len(often_code_f) + 1)
            blanks = int(count_f[-1])
            if (count_f[:-1] <= often_count_f).all() and blanks <= arranged.room_S[s]:
                break
            attempt += 1
        left_f = often_count_f - count_f[:-1]
        is_common_f = often_code_f == 0
        code_n = np.concatenate(
            [
                np.repeat(often_code_f[~is_common_f], left_f[~is_common_f]),
                arranged.rare_code_N[slice(*arranged.rare_bound_S1[s : s + 2])],
            ]
        )
        code_n = np.append(code_n, np.zeros(blanks - len(code_n), np.int64))
        for j in range(blanks - 1, -1, -1):
            t = j + ((word_at(key, start + j) * (blanks - j)) >> 64)
            code_n[j], code_n[t] = code_n[t], code_n[j]
        here_n = code_V[start:end]
        is_blank_n = drawn_n == len(often_code_f)
        here_n[~is_blank_n] = often_code_f[drawn_n[~is_blank_n]]
        here_n[is_blank_n] = code_n
    label_V = np.empty(len(code_V))
    label_V[arranged.item_V] = arranged.value_K[code_V]
    return label_V


def flipped_labels(label_V: np.ndarray, seed: int, index: int) -> np.ndarray:
    """y with the sign of item i turned where bit i % 64 of word i // 64 is set."""
    key = stream_key(seed, index)
    turns = [(word_at(key, i // 64) >> (i % 64)) & 1 for i in range(len(label_V))]
    return np.where(np.array(turns, dtype=bool), -label_V, label_V)


def unsupported(inputs: Inputs) -> str | None:
    return None


def forward(inputs: Inputs) -> np.ndarray:
    """proj_PR for permutations first .. first + P - 1. Slow: a Python step per item."""
    label_V, item_VR, num_permutations, seed = inputs[:4]
    arranged = arrange(label_V, inputs.stratum_V)
    proj_PR = np.empty((num_permutations, item_VR.shape[1]))
    for k in range(num_permutations):
        if inputs.null == "sign":
            drawn_V = flipped_labels(label_V, seed, inputs.first + k)
        else:
            drawn_V = permuted_labels(arranged, seed, inputs.first + k)
        proj_PR[k] = drawn_V @ item_VR
    return proj_PR
