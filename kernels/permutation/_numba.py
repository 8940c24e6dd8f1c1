"""Projections of permuted labels, threaded and blocked: same permutations as reference.py, bit
for bit; same floats up to rounding, and bitwise the same for any number of threads or blocks.

The common label y0 costs nothing: proj = y0 * sum_i z_i + sum over the others of (y - y0) z_i.
So a permutation is the positions of the other labels, one byte pair a position.

A task owns PERMUTATION_BLOCK permutations and one thread.
1. Per permutation: copy the arranged codes, and swap the moving labels into place.
2. Per block of items (its z rows stay in cache), per permutation: list the positions whose
   label moves, then add eight rows at a time to that permutation's sums.
In memory: codes [block, V] of 1, 2 or 4 bytes a thread (BYTES at most, where 16 permutations
fit in that), sums [block, R]. The order in which items are summed follows from the labels and
V alone.
Cost a permutation: m swaps and 2*m*R FLOPs, m = items outside the common label.
"""

import os
from concurrent.futures import ThreadPoolExecutor
from threading import local

import numba
import numpy as np

from fastpop.kernels.permutation.reference import GAMMA, arrange, stream_key

MOVED_ROWS = 48  # expected rows a block adds per permutation: enough work, and still in L1
BYTES = 1 << 26
U = np.uint64


def aligned(rows: int, width: int) -> np.ndarray:
    """Zeros [rows, width] that start on a cache line: a vector load then touches one line."""
    raw = np.zeros(rows * width + 8)
    offset = (-raw.ctypes.data % 64) // 8
    return raw[offset : offset + rows * width].reshape(rows, width)


def available_cores() -> int:
    """Cores this process may run on, which a container can limit below the machine's."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@numba.njit(inline="always")
def _word(key, position):
    word = key + (U(position) + U(1)) * U(GAMMA)
    word = (word ^ (word >> U(30))) * U(0xBF58476D1CE4E5B9)
    word = (word ^ (word >> U(27))) * U(0x94D049BB133111EB)
    return word ^ (word >> U(31))


@numba.njit(inline="always")
def _below(word, span):
    # floor(word * span / 2**64) for span < 2**32, in two 32-bit halves.
    low = ((word & U(0xFFFFFFFF)) * span) >> U(32)
    return ((word >> U(32)) * span + low) >> U(32)


@numba.njit(nogil=True, cache=True)
def _shuffle(key, start_code_V, bound_S1, moving_S, code_V):
    """One permutation: only the swaps that can move a label other than the common one."""
    code_V[:] = start_code_V
    target = np.empty(256, np.int64)
    for s in range(len(moving_S)):
        start, end = bound_S1[s], bound_S1[s + 1]
        high = start + moving_S[s]
        while high > start:
            low = max(start, high - 256)
            # The words of 256 swaps first: this loop has no memory chain and vectorises.
            for n in range(high - low):
                j = low + n
                target[n] = j + np.int64(_below(_word(key, j), U(end - j)))
            for n in range(high - low - 1, -1, -1):
                t = target[n]
                moved = code_V[t]
                code_V[t] = code_V[low + n]
                code_V[low + n] = moved
            high = low


@numba.njit(nogil=True, cache=True)
def _flip(key, item_V, code_V):
    """Code 1 where the sign turns."""
    for n in range(len(item_V)):
        code_V[n] = _word(key, item_V[n]) >> U(63)


@numba.njit(nogil=True, cache=True, fastmath={"contract"}, error_model="numpy")
def _accumulate(code_BV, value_K, weight_V, item_VR, sum_BR, item_block):
    """sum_BR[b] += value_K[code] * weight_V[i] * item_VR[i] over the items with code != 0."""
    num_items, width = item_VR.shape
    row = np.zeros(item_block + 8, np.uint32)
    value = np.zeros(item_block + 8)
    for low in range(0, num_items, item_block):
        high = min(low + item_block, num_items)
        for b in range(len(code_BV)):
            code_V = code_BV[b]
            acc = sum_BR[b]
            filled = U(0)
            for i in range(low, high):
                row[filled] = i
                filled += U(code_V[i] != 0)
            for n in range(filled):
                i = row[n]
                value[n] = value_K[code_V[i]] * weight_V[i]
            for n in range(filled, filled + U(8)):
                row[n] = low
                value[n] = 0.0
            for n in range(U(0), filled, U(8)):
                v0, v1, v2, v3 = value[n], value[n + U(1)], value[n + U(2)], value[n + U(3)]
                v4, v5, v6, v7 = value[n + U(4)], value[n + U(5)], value[n + U(6)], value[n + U(7)]
                z0, z1 = item_VR[row[n]], item_VR[row[n + U(1)]]
                z2, z3 = item_VR[row[n + U(2)]], item_VR[row[n + U(3)]]
                z4, z5 = item_VR[row[n + U(4)]], item_VR[row[n + U(5)]]
                z6, z7 = item_VR[row[n + U(6)]], item_VR[row[n + U(7)]]
                for r in range(width):
                    acc[r] = (
                        (acc[r] + v0 * z0[r] + v1 * z1[r] + v2 * z2[r] + v3 * z3[r])
                        + (v4 * z4[r] + v5 * z5[r] + v6 * z6[r] + v7 * z7[r])
                    )


def unsupported(label_V, item_VR, stratum_V, null, num_permutations) -> str | None:
    return None if len(label_V) < 2**32 else "a catalogue of 2**32 items or more"


def forward(
    label_V: np.ndarray, item_VR: np.ndarray, num_permutations: int, seed: int, *,
    stratum_V: np.ndarray | None = None, null: str = "label", first: int = 0,
    threads: int | None = None,
) -> np.ndarray:
    """proj_PR for permutations first .. first + P - 1."""
    num_items, width = item_VR.shape
    if null == "sign":
        # y with signs = y - 2 y [sign turns]: half the items move, by -2 y_i each.
        item_V = np.arange(num_items)
        start_code_V = np.zeros(num_items, np.uint8)
        bound_S1 = moving_S = np.zeros(0, np.int64)
        value_K, weight_V = np.array([0.0, -2.0]), label_V
        fixed_R = label_V @ item_VR
    else:
        arranged = arrange(label_V, stratum_V)
        item_V, bound_S1, moving_S = arranged.item_V, arranged.bound_S1, arranged.moving_S
        code_type = np.min_scalar_type(len(arranged.value_K) - 1)
        start_code_V = arranged.code_V.astype(code_type)
        value_K, weight_V = arranged.value_K - arranged.value_K[0], np.ones(num_items)
        fixed_R = arranged.value_K[0] * item_VR.sum(axis=0)

    # Rows padded to whole vectors of 8, in the order of positions.
    padded_VR = aligned(num_items, -(-width // 8) * 8)
    padded_VR[:, :width] = item_VR if null == "sign" else item_VR[item_V]
    sum_PR = aligned(num_permutations, padded_VR.shape[1])
    moving = num_items // 2 if null == "sign" else int(moving_S.sum())
    item_block = min(512, max(32, MOVED_ROWS * num_items // max(moving, 1)))
    threads = threads or available_cores()
    block = max(16, min(256, BYTES // (num_items * start_code_V.itemsize)))
    block = max(1, min(block, -(-num_permutations // threads)))

    own = local()

    def task(low: int) -> None:
        high = min(low + block, num_permutations)
        if not hasattr(own, "code_BV"):
            own.code_BV = np.empty((block, num_items), start_code_V.dtype)
        code_BV = own.code_BV[: high - low]
        for k in range(low, high):
            key = U(stream_key(seed, first + k))
            if null == "sign":
                _flip(key, item_V, code_BV[k - low])
            else:
                _shuffle(key, start_code_V, bound_S1, moving_S, code_BV[k - low])
        _accumulate(code_BV, value_K, weight_V, padded_VR, sum_PR[low:high], item_block)

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(task, range(0, num_permutations, block)))
    return sum_PR[:, :width] + fixed_R
