"""Projections of permuted labels, threaded and blocked: same permutations as reference.py, bit
for bit; same floats up to rounding, and bitwise the same for any number of threads or blocks.

The common label y0 costs nothing: proj = y0 * sum_i z_i + sum over the others of (y - y0) z_i.
Which frequent label a position gets is a byte of the stream, so it is drawn where it is used,
64 positions in one vector, and nothing of it is kept.

A task owns up to BLOCK permutations and one thread.
1. `_fill`, per permutation: draw all bytes once to count the labels, and shuffle those not
   drawn; their codes and the keys of the draws are kept.
2. `_project`, per 64 items: `_list` draws each permutation's bytes again and lists the
   positions that are neither common nor blank, and the blank ones.
3. `add_rows`, per 64 columns of these items: copy them to a tile; per permutation, add the
   listed rows, each times its label, to 64 sums in registers. Meanwhile ask for the next tile.
In memory, per thread: a tile (33 KB, in L1), lists (208 bytes a permutation, in L2), codes of 2
or 4 bytes a blank position (BYTES at most, where 16 permutations fit in that). Items are
summed in the order of positions, whatever the blocks.
Cost a permutation: 2*m*R FLOPs on 8*m*R bytes of L1, m = items outside the common label and a
few blanks; V bytes drawn twice; a swap a blank position; 8*V*R / BLOCK bytes of memory.
The limit is what L1 delivers: at two vectors of 8 doubles a cycle, m*R/16 cycles.
"""

import contextlib
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import local
from typing import Any, NamedTuple

import numba
import numpy as np

from fastpop import bars
from fastpop.kernels.permutation._vector import (
    COLUMNS,
    add_row,
    at_least,
    count_ones,
    list_ones,
    load,
    plus,
    prefetch,
    scaled,
    store,
    words,
)
from fastpop.kernels.permutation.cache import compiled_before, forget_cache, jit
from fastpop.kernels.permutation.reference import GAMMA, Arrangement, Inputs, arrange, stream_key

BLOCK = 256
BYTES = 1 << 26
TILE = 64  # items
LANES = (8, 16, 32, 64)
LIST = 64  # bytes kept for up to 64 places and what fills them up
BLANK, SIGN = -1, -2
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
def _mix(word):
    word = (word ^ (word >> U(30))) * U(0xBF58476D1CE4E5B9)
    word = (word ^ (word >> U(27))) * U(0x94D049BB133111EB)
    return word ^ (word >> U(31))


@numba.njit(inline="always")
def _word(key, position):
    return _mix(key + (U(position) + U(1)) * U(GAMMA))


@numba.njit(inline="always")
def _stream_key(seed, index):
    return _word(_mix(seed), index)


@numba.njit(inline="always")
def _below(word, span):
    # floor(word * span / 2**64) for span < 2**32, in two 32-bit halves.
    low = ((word & U(0xFFFFFFFF)) * span) >> U(32)
    return ((word >> U(32)) * span + low) >> U(32)


@numba.njit(inline="always")
def _first(count):
    """A mask of the first `count` of 64 positions, count >= 1."""
    return U(0xFFFFFFFFFFFFFFFF) >> U(64 - count)


@jit(nogil=True)
def _shuffle(key, start, moving, code_n, target):
    """Fisher-Yates, without the swaps that move nothing but common labels."""
    # Unsigned places: numba would test signed ones for being negative, four times a swap.
    end, high = U(len(code_n)), U(moving)
    while high > U(0):
        low = high - min(high, U(256))
        # The words of 256 swaps first: this loop has no memory chain and vectorises.
        for n in range(high - low):
            j = low + n
            target[n] = j + _below(_word(key, U(start) + j), end - j)
        for n in range(high - low):
            j = high - U(1) - n
            t = target[j - low]
            moved = code_n[t]
            code_n[t] = code_n[j]
            code_n[j] = moved
        high = low


@jit(nogil=True)
def _count(key, num, edge_f, count_f):
    """count_f = how many of `num` bytes of a key lie at each edge or above."""
    count_f[:] = 0
    for low in range(0, num, 64):
        mask = _first(min(64, num - low))
        drawn = words(key, U(low // 8))
        for f in range(len(edge_f)):
            count_f[f] += count_ones(at_least(drawn, edge_f[f]) & mask)


@jit(nogil=True)
def _fill(
    key,
    bound_S1,
    often_code_F,
    often_count_F,
    often_edge_F,
    often_bound_S1,
    rare_code_N,
    rare_bound_S1,
    room_S,
    drawn_S,
    key_S,
    code_X,
):
    """One permutation up to its blanks: the key each stratum's bytes come from, and the codes
    shuffled for its blank positions, stratum after stratum."""
    above_f, target = np.empty(256, np.int64), np.empty(256, np.uint64)
    filled = 0
    for s in range(len(room_S)):
        start, num = bound_S1[s], bound_S1[s + 1] - bound_S1[s]
        low, high = often_bound_S1[s], often_bound_S1[s + 1]
        often = high - low
        blanks = num
        if often > 0:
            attempt = 0
            while True:
                drawn_key = _stream_key(_stream_key(key, s), attempt)
                _count(drawn_key, num, often_edge_F[low:high], above_f[:often])
                blanks = above_f[often - 1]
                fits = blanks <= room_S[s]
                for f in range(often):
                    drawn = (above_f[f - 1] if f > 0 else num) - above_f[f]
                    fits &= drawn <= often_count_F[low + f]
                if fits:
                    break
                attempt += 1
            key_S[drawn_S[s]] = drawn_key
        code_n = code_X[filled : filled + blanks]
        moving = 0
        for f in range(often):
            if often_code_F[low + f] != 0:
                drawn = (above_f[f - 1] if f > 0 else num) - above_f[f]
                left = often_count_F[low + f] - drawn
                code_n[moving : moving + left] = often_code_F[low + f]
                moving += left
        rare_n = rare_code_N[rare_bound_S1[s] : rare_bound_S1[s + 1]]
        code_n[moving : moving + len(rare_n)] = rare_n
        moving += len(rare_n)
        code_n[moving:] = 0
        _shuffle(key, start, moving, code_n, target)
        filled += blanks


@jit(nogil=True)
def _list(source, word, size, key_B, edge_2, place_BX, draw_BX, size_B2):
    """Which rows of a block each permutation adds: list 0 by the byte drawn, list 1 in turn."""
    for b in range(len(key_B)):
        here = _first(size)
        moving, blank = U(0), here
        if source >= 0:
            drawn = words(key_B[b], U(word))
            store(draw_BX, LIST * b, drawn)
            blank = at_least(drawn, edge_2[1]) & here
            moving = (at_least(drawn, edge_2[0]) & here) ^ blank
        elif source == SIGN:
            moving, blank = _word(key_B[b], word) & here, U(0)
        size_B2[b, 0] = list_ones(place_BX, 2 * LIST * b, moving)
        size_B2[b, 1] = list_ones(place_BX, 2 * LIST * b + LIST, blank)


def _adder(lanes):
    @jit(nogil=True)
    def add_rows(
        size_B2,
        place_BX,
        draw_BX,
        value_256,
        code_BX,
        next_B,
        value_K,
        tile_X,
        sum_BR,
        column,
        item_VR,
        weight_V,
        item_n,
        total_R,
        ahead_n,
        ahead_column,
    ):
        """sum_BR[b, column:] += the listed rows of `item_n`, each times its label, and
        total_R[column:] += all of them."""
        width = sum_BR.shape[1]
        sum_X, table_X, code_X = sum_BR.ravel(), item_VR.ravel(), code_BX.ravel()
        whole = item_VR.shape[1] - column >= lanes
        total = load(total_R, column, lanes)
        tile_X[TILE * lanes : (TILE + 1) * lanes] = 0.0
        for n in range(len(item_n)):
            item = item_n[n]
            if whole:
                row = load(table_X, item * item_VR.shape[1] + column, lanes)
            else:
                tile_X[n * lanes : (n + 1) * lanes] = 0.0
                for r in range(item_VR.shape[1] - column):
                    tile_X[n * lanes + r] = item_VR[item, column + r]
                row = load(tile_X, n * lanes, lanes)
            row = scaled(weight_V[item], row)
            total = plus(total, row)
            store(tile_X, n * lanes, row)
        store(total_R, column, total)

        lines = lanes // 8 + 1
        each = -(-len(ahead_n) // len(size_B2))
        for b in range(len(size_B2)):
            for n in range(b * each, min(b * each + each, len(ahead_n))):
                for line in range(lines):
                    prefetch(table_X, ahead_n[n] * item_VR.shape[1] + ahead_column + 8 * line)
            prefetch(code_X, b * code_BX.shape[1] + next_B[b] + 64 // code_BX.itemsize)
            total = load(sum_X, b * width + column, lanes)
            # In fours and twos, filled up with the row of zeros: fewer lengths to foresee.
            for n in range(0, size_B2[b, 0], 4):
                for q in range(4):
                    place = np.int64(place_BX[2 * LIST * b + n + q])
                    value = value_256[draw_BX[LIST * b + place]]
                    total = add_row(total, value, tile_X, place * lanes)
            for n in range(0, size_B2[b, 1], 2):
                for q in range(2):
                    place = np.int64(place_BX[2 * LIST * b + LIST + n + q])
                    value = value_K[code_BX[b, next_B[b] + n + q]]
                    total = add_row(total, value, tile_X, place * lanes)
            store(sum_X, b * width + column, total)

    return add_rows


_add_8, _add_16, _add_32, _add_64 = map(_adder, LANES)


@jit(nogil=True)
def _project(
    low_N,
    size_N,
    source_N,
    word_N,
    item_V,
    weight_V,
    item_VR,
    key_BS,
    edge_S2,
    value_S256,
    code_BX,
    value_K,
    base,
    sum_BR,
    tile_X,
    place_BX,
    draw_BX,
):
    """sum_BR[b] = base * (sum of all rows) + the sum of permutation b's listed rows."""
    num, width = len(sum_BR), sum_BR.shape[1]
    size_B2 = np.zeros((num, 2), np.int64)
    next_B = np.zeros(num, np.int64)
    key_B = np.zeros(num, np.uint64)
    total_R = np.zeros(width)
    for i in range(len(low_N)):
        s = max(0, source_N[i])
        next_B += size_B2[:, 1]
        key_B[:] = key_BS[:, s]
        _list(source_N[i], word_N[i], size_N[i], key_B, edge_S2[s], place_BX, draw_BX, size_B2)
        item_n = item_V[low_N[i] : low_N[i] + size_N[i]]
        column = 0
        while column < width:
            lanes = min(COLUMNS, width - column)
            ahead_n, ahead_column = item_n, column + lanes
            if ahead_column == width:
                after = min(i + 1, len(low_N) - 1)
                ahead_n = item_V[low_N[after] : low_N[after] + size_N[after]]
                ahead_column = 0
            add = (
                size_B2,
                place_BX,
                draw_BX,
                value_S256[s],
                code_BX,
                next_B,
                value_K,
                tile_X,
                sum_BR,
                column,
                item_VR,
                weight_V,
                item_n,
                total_R,
                ahead_n,
                ahead_column,
            )
            if lanes == 64:
                _add_64(*add)
            elif lanes == 32:
                _add_32(*add)
            elif lanes == 16:
                _add_16(*add)
            else:
                _add_8(*add)
            column += lanes
    for b in range(num):
        for r in range(width):
            sum_BR[b, r] += base * total_R[r]


class Blocks(NamedTuple):
    """Runs of up to 64 positions: where each begins, its size, what its labels come from (a
    stratum that draws bytes, BLANK or SIGN), and the first of its words."""

    low_N: np.ndarray
    size_N: np.ndarray
    source_N: np.ndarray
    word_N: np.ndarray


def blocks_of(bound_S1: np.ndarray, drawn_S: np.ndarray, words_each: int) -> Blocks:
    """No block crosses the border of a stratum that draws; blanks next to blanks run on."""
    begins = np.ones(len(drawn_S), bool)
    begins[1:] = (drawn_S[1:] >= 0) | (drawn_S[:-1] >= 0) | (drawn_S[1:] == SIGN)
    start_M, source_M = bound_S1[:-1][begins], drawn_S[begins]
    num_M = np.append(start_M[1:], bound_S1[-1]) - start_M
    blocks_M = -(-num_M // TILE)
    owner_N = np.repeat(np.arange(len(start_M)), blocks_M)
    within_N = np.arange(len(owner_N)) - np.repeat(np.cumsum(blocks_M) - blocks_M, blocks_M)
    return Blocks(
        start_M[owner_N] + TILE * within_N,
        np.minimum(TILE, num_M[owner_N] - TILE * within_N),
        source_M[owner_N],
        words_each * within_N,
    )


def value_by_byte(arranged: Arrangement, value_K: np.ndarray, drawing: np.ndarray) -> tuple:
    """(edges [S, 2] of the moving labels and of the blanks, values [S, 256] of the bytes)."""
    edge_S2 = np.zeros((max(1, len(drawing)), 2), np.int64)
    # Signs draw no byte: they find value 1 at byte 0.
    value_S256 = np.ones((len(edge_S2), 256))
    for n, s in enumerate(drawing.tolist()):
        often = slice(*arranged.often_bound_S1[s : s + 2])
        code_f, edge_f = arranged.often_code_F[often], arranged.often_edge_F[often]
        edge_S2[n] = edge_f[0] if code_f[0] == 0 else 0, edge_f[-1]
        value_S256[n, : edge_f[-1]] = np.repeat(value_K[code_f], np.diff(edge_f, prepend=0))
    return edge_S2, value_S256


def unsupported(inputs: Inputs) -> str | None:
    return None if len(inputs.label_V) < 2**32 else "a catalogue of 2**32 items or more"


def forward(inputs: Inputs) -> np.ndarray:
    """proj_PR for permutations first .. first + P - 1."""
    label_V, item_VR, num_permutations, seed, stratum_V, null, first, threads = inputs
    num_items, width = item_VR.shape
    sign = null == "sign"
    arranged = arrange(np.zeros(num_items) if sign else label_V, stratum_V)
    value_K = arranged.value_K - arranged.value_K[0]
    drawing = np.flatnonzero(np.diff(arranged.often_bound_S1))
    drawn_S = np.full(arranged.num_strata, BLANK)
    drawn_S[drawing] = np.arange(len(drawing))
    if sign:
        # y with signs = y - 2 y [sign turns]: half the items move, by -2 y_i each.
        drawing, drawn_S[:] = drawing[:0], SIGN
    edge_S2, value_S256 = value_by_byte(arranged, value_K, drawing)
    blocks = blocks_of(arranged.bound_S1, drawn_S, 1 if sign else 8)
    weight_V = -2.0 * label_V if sign else np.ones(num_items)
    base = -0.5 if sign else arranged.value_K[0]

    rest = width % COLUMNS
    padded = width - rest + (min(n for n in LANES if n >= rest) if rest else 0)
    sum_PR = aligned(num_permutations, padded)
    room = 2 + (0 if sign else int(arranged.room_S.sum()))
    code_type = np.dtype(np.uint16 if len(value_K) <= 2**16 else np.uint32)
    threads = threads or available_cores()
    block = max(16, min(BLOCK, BYTES // (room * code_type.itemsize)))
    block = max(1, min(block, -(-num_permutations // threads)))

    own = local()

    def task(low: int) -> None:
        high = min(low + block, num_permutations)
        if not hasattr(own, "code_BX"):
            # Zeros: what fills a list up reads a code, and must find one.
            own.code_BX = np.zeros((block, room), code_type)
            own.key_BS = np.zeros((block, len(edge_S2)), np.uint64)
            own.tile_X = aligned(TILE + 1, COLUMNS).ravel()
            own.place_BX = aligned(block + 1, 2 * LIST // 8).ravel().view(np.uint8)
            own.draw_BX = aligned(block + 1, LIST // 8).ravel().view(np.uint8)
        code_BX, key_BS = own.code_BX[: high - low], own.key_BS[: high - low]
        for k in range(low, high):
            key = U(stream_key(seed, first + k))
            if sign:
                key_BS[k - low] = key
            else:
                _fill(
                    key,
                    arranged.bound_S1,
                    arranged.often_code_F,
                    arranged.often_count_F,
                    arranged.often_edge_F,
                    arranged.often_bound_S1,
                    arranged.rare_code_N,
                    arranged.rare_bound_S1,
                    arranged.room_S,
                    drawn_S,
                    key_BS[k - low],
                    code_BX[k - low],
                )
        _project(
            *blocks,
            arranged.item_V,
            weight_V,
            item_VR,
            key_BS,
            edge_S2,
            value_S256,
            code_BX,
            value_K,
            base,
            sum_PR[low:high],
            own.tile_X,
            own.place_BX,
            own.draw_BX,
        )

    lows = range(0, num_permutations, block)
    try:
        _run(task, lows, threads, block)
    except OSError as error:
        forget_cache(error)
        sum_PR[:] = 0
        _run(task, lows, threads, block)
    return sum_PR[:, :width].copy()


def _run(task: Callable[[int], None], lows: range, threads: int, block: int) -> None:
    """All tasks; ctrl-C waits for those that run, not for those that wait."""
    told: Any = contextlib.nullcontext()
    if not (_project.signatures or compiled_before()):
        told = bars.waiting("compiling the permutation test, once for this installation")
    with told, bars.progress_bar(lows.stop, "permutations", delay=3) as bar:
        pool = ThreadPoolExecutor(threads)
        try:
            for _ in pool.map(task, lows):
                bar.update(min(block, bar.total - bar.n))
        finally:
            pool.shutdown(cancel_futures=True)
