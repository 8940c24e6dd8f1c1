"""Philox4x32-10 and the integer alias draw in numpy: the specification of every implementation.

The table is one uint32 array table_V2 [V, 2] whose rows are (threshold, alias). One draw takes two
32-bit words:

    bucket = (word_bucket * V) >> 32
    id     = bucket if word_threshold < threshold[bucket] else alias[bucket]

A bucket that always gives itself has alias[bucket] == bucket. Only integers are compared, so that
no two machines can disagree, and the distribution of the table is known exactly: bucket j is hit by
n_j = ceil((j+1) 2^32/V) - ceil(j 2^32/V) of the 2^32 words, hence in units of 2^-64

    mass_i = n_i threshold_i + sum over j with alias_j = i of n_j (2^32 - threshold_j)

and the masses add up to 2^64.

Words of draw k: Philox with key (seed lo, seed hi) and counter (k // 2, group, step lo, step hi);
even k takes words 0 and 1, odd k words 2 and 3. Nothing else enters: no thread, no block.

Sources: Salmon et al., "Parallel random numbers: as easy as 1, 2, 3" (2011); Walker (1977) and
Vose (1991) for the alias method.
"""

from typing import Any, NamedTuple

import numpy as np

WORD = 1 << 32
MAX_ITEMS = 2**31 - 1

_MULTIPLIERS = (np.uint64(0xD2511F53), np.uint64(0xCD9E8D57))
_KEY_STEPS = (np.uint32(0x9E3779B9), np.uint32(0xBB67AE85))
_LOW = np.uint64(0xFFFFFFFF)
_SHIFT = np.uint64(32)
# Philox works on about ten arrays of this many uint64 at once: 20 MB.
_CHUNK = 1 << 18


class Inputs(NamedTuple):
    """A draw: ids of groups group .. group + num_groups - 1, num_draws each."""

    table_V2: Any  # uint32 numpy, or the same bits as an int32 torch tensor
    counter_2: Any  # (seed, step): two integers, or an int64 tensor of their bits
    group: int
    num_groups: int
    num_draws: int


def unsupported(inputs: Inputs) -> str | None:
    """Tables on a device are drawn from there."""
    if isinstance(inputs.table_V2, np.ndarray) or inputs.table_V2.device.type == "cpu":
        return None
    return f"the table is on {inputs.table_V2.device}, and this draws on the host (Draw.ids gives ids there)"


def on_host(inputs: Inputs) -> tuple[np.ndarray, int, int]:
    """(table uint32 [V, 2], seed, step) of inputs on the host."""
    table_V2 = inputs.table_V2
    if not isinstance(table_V2, np.ndarray):
        table_V2 = table_V2.numpy().view(np.uint32)
    counter_2 = inputs.counter_2
    seed, step = counter_2 if isinstance(counter_2, tuple) else counter_2.tolist()
    return table_V2, int(seed) % 2**64, int(step) % 2**64


def philox4x32(counter_N4: np.ndarray, key_2: tuple[int, int]) -> np.ndarray:
    """Ten rounds of Philox4x32: uint32 words [N, 4] of the counters [N, 4] under one key."""
    c0, c1, c2, c3 = (counter_N4[:, i].astype(np.uint64) for i in range(4))
    k0, k1 = (np.array([k], dtype=np.uint32) for k in key_2)
    for _ in range(10):
        product0 = c0 * _MULTIPLIERS[0]
        product1 = c2 * _MULTIPLIERS[1]
        c0 = (product1 >> _SHIFT) ^ c1 ^ k0.astype(np.uint64)
        c1 = product1 & _LOW
        c2 = (product0 >> _SHIFT) ^ c3 ^ k1.astype(np.uint64)
        c3 = product0 & _LOW
        k0 = k0 + _KEY_STEPS[0]
        k1 = k1 + _KEY_STEPS[1]
    return np.stack([c0, c1, c2, c3], axis=1).astype(np.uint32)


def words(seed: int, step: int, group: int, start: int, stop: int) -> np.ndarray:
    """The uint32 word pairs [stop - start, 2] of draws start..stop-1 of one group."""
    first, last = start // 2, (stop + 1) // 2
    counter_N4 = np.empty((last - first, 4), dtype=np.uint32)
    counter_N4[:, 0] = np.arange(first, last, dtype=np.uint64).astype(np.uint32)
    counter_N4[:, 1] = group
    counter_N4[:, 2] = step % WORD
    counter_N4[:, 3] = step // WORD
    pair_N2 = philox4x32(counter_N4, (seed % WORD, seed // WORD)).reshape(-1, 2)
    return pair_N2[start - 2 * first : stop - 2 * first]


def forward(inputs: Inputs) -> np.ndarray:
    """ids [num_groups, num_draws] int64 of groups group..group+num_groups-1."""
    (table_V2, seed, step), (_, _, group, num_groups, num_draws) = on_host(inputs), inputs
    num_items = np.uint64(table_V2.shape[0])
    id_GK = np.empty((num_groups, num_draws), dtype=np.int64)
    for g in range(num_groups):
        for start in range(0, num_draws, _CHUNK):
            stop = min(start + _CHUNK, num_draws)
            pair_N2 = words(seed, step, group + g, start, stop)
            bucket = (pair_N2[:, 0].astype(np.uint64) * num_items) >> _SHIFT
            bucket = bucket.astype(np.int64)
            row_N2 = table_V2[bucket]
            id_GK[g, start:stop] = np.where(pair_N2[:, 1] < row_N2[:, 0], bucket, row_N2[:, 1])
    return id_GK


def bucket_words(num_items: int) -> np.ndarray:
    """n_j, int64 [V]: how many of the 2^32 words fall in each bucket."""
    bound = np.arange(num_items + 1, dtype=np.uint64) * np.uint64(WORD)
    start = (bound + np.uint64(num_items - 1)) // np.uint64(num_items)
    return np.diff(start.astype(np.int64))


def integer_mass(weight_V: np.ndarray) -> np.ndarray:
    """Target masses uint64 [V] that add up to 2^64 exactly, from weights >= 0 of which two or more
    are positive; weight 0 gets mass 0, any positive weight at least 1.

    Scaled by 1 - 2^-44 first, which leaves room for rounding, then the rest is shared equally by
    the positive items: an error of 2^-44 of a mean item, where the table resolves 2^-32.
    """
    scaled = weight_V / weight_V.max()
    scaled = scaled / scaled.sum() * (1.0 - 2.0**-44)
    mass_V = np.floor(scaled * 2.0**64).astype(np.uint64)
    positive = np.flatnonzero(weight_V)
    rest = 2**64 - int((mass_V >> _SHIFT).sum()) * WORD - int((mass_V & _LOW).sum())
    share, extra = divmod(rest, positive.size)
    mass_V[positive] += np.uint64(share)
    mass_V[positive[:extra]] += np.uint64(1)
    return mass_V


def single_item_table(num_items: int, item: int) -> np.ndarray:
    """The table that always gives `item`: its mass, 2^64, is the one that no uint64 holds."""
    table_V2 = np.zeros((num_items, 2), dtype=np.uint32)
    table_V2[:, 1] = item
    return table_V2


def build(mass_V: np.ndarray) -> np.ndarray:
    """The alias table of the target masses (they add up to 2^64): plain Python, exact, O(V).

    One sweep gives each bucket short of mass the rest from the current long one; a long bucket that
    falls short is served next, by the following long one (Vose, as a sweep without stacks).
    - A threshold is a whole number of n_j units, so item j misses its mass by under n_j; the miss
      is carried to the next thresholds (never more than one unit each), not left to pile up.
    - A positive mass keeps a threshold of at least 1: every item with weight can be drawn.
    - Buckets differ by one word, so a giver that is barely long may have less than a (nearly) empty
      bucket needs. It waits for one that needs less, and the (nearly) empty ones go first. Only
      when none is left does it give more than it has: at most 2^-32 of probability, which happens
      when nearly all weights are equal and a few are zero; `mass_of` counts it like the rest.
    """
    num_items = mass_V.shape[0]
    unit = [int(n) for n in bucket_words(num_items)]
    mass = [int(m) for m in mass_V]
    left = list(mass)
    heaviest = int(np.argmax(mass_V))
    table_V2 = np.zeros((num_items, 2), dtype=np.uint32)
    table_V2[:, 1] = np.arange(num_items)

    def next_long(start: int) -> int:
        while start < num_items and left[start] < unit[start] * WORD:
            start += 1
        return start

    carry = 0
    giver = next_long(0)
    waiting: list[int] = []
    for nearly_empty in (True, False):
        for j in range(num_items):
            if mass[j] >= unit[j] * WORD or (mass[j] < WORD) != nearly_empty:
                continue
            short = j
            while True:
                n = unit[short]
                threshold = 0
                if left[short] > 0:
                    wanted = left[short] + max(-n, min(n, carry))
                    threshold = max(1, min(WORD - 1, (wanted + n // 2) // n))
                need = n * (WORD - threshold)
                if not (waiting and left[waiting[-1]] >= need):
                    while giver < num_items and left[giver] < need:
                        waiting.append(giver)
                        giver = next_long(giver + 1)
                    if giver < num_items:
                        waiting.append(giver)
                        giver = next_long(giver + 1)
                if not waiting:
                    # Nobody has mass to give, so this bucket is full up to rounding. One without
                    # any mass cannot be left by a proper target; it must never be drawn anyhow.
                    if mass[short] == 0:
                        table_V2[short] = (0, heaviest)
                    break
                source = waiting.pop()
                given = min(need, left[source])
                carry += left[short] - n * threshold - (need - given)
                table_V2[short] = (threshold, source)
                left[source] -= given
                if left[source] >= unit[source] * WORD:
                    waiting.append(source)
                    break
                short = source
    return table_V2


def mass_of(table_V2: np.ndarray) -> np.ndarray:
    """The exact masses of a table, uint64 [V] in units of 2^-64, adding up to 2^64.

    An item that has all of it would read 0: `log_proposal_of` sees to that case.
    """
    num_items = table_V2.shape[0]
    unit = bucket_words(num_items).astype(np.uint64)
    threshold = table_V2[:, 0].astype(np.uint64)
    alias = table_V2[:, 1].astype(np.int64)
    mass_V = unit * threshold
    np.add.at(mass_V, alias, unit * (np.uint64(WORD) - threshold))
    return mass_V


def log_proposal_of(table_V2: np.ndarray) -> np.ndarray:
    """log of the distribution of what the table draws (nats), float64 [V]; -inf for what it never draws.

    Exact but for the last rounding to float64.
    """
    mass_V = mass_of(table_V2)
    if not mass_V.any():
        probability_V = np.zeros(table_V2.shape[0])
        probability_V[int(table_V2[0, 1])] = 1.0
    else:
        probability_V = mass_V.astype(np.float64) * 2.0**-64
    with np.errstate(divide="ignore"):
        return np.log(probability_V)
