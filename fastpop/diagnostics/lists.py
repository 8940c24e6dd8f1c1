"""How popular the items are that the scores put first: lists, where energies are of all items.

A model can have next to no energy along log p over the catalogue and still recommend nothing but
popular items, since lists are made of the few best scores.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastpop import ops
from fastpop.diagnostics.moments import ScoreMoments
from fastpop.ops.energies import as_float64, on_host

CONTEXTS = 2048  # lists are made of at most so many


@dataclass(frozen=True)
class TopLists:
    """k: items a list. mean_count: training events of an item of a list, mean over the list and,
    weighted, over contexts (ARP). catalogue_mean: over the items audited. num_contexts: lists made.
    Nothing is masked: what a context has seen can be in its list."""

    k: int
    mean_count: float
    catalogue_mean: float
    num_contexts: int

    @property
    def ratio(self) -> float:
        """How many times as popular as the mean item."""
        return self.mean_count / self.catalogue_mean


class ContextSample:
    """Some of the contexts that pass by, each as likely as another to be among them, with its weight.

    The sample depends on the seed and on the order of the contexts, not on how they are cut into chunks.
    """

    def __init__(self, seed: int, size: int = CONTEXTS):
        self.size = size
        self._rng = np.random.default_rng(seed)
        self._limit = 1.0
        self._key, self._weight = np.empty(0), np.empty(0)
        self._row: np.ndarray | None = None

    def watch(self, chunks: Iterable[Any]) -> Iterator[Any]:
        """The same chunks, [c, D] or ([c, D], weights); each is checked once whoever takes them has
        taken it, and so has checked it."""
        for chunk in chunks:
            yield chunk
            pair = isinstance(chunk, (tuple, list)) and len(chunk) == 2
            self.add(*chunk) if pair else self.add(chunk)

    def add(self, query: Any, weight: Any = None) -> None:
        """Contexts [c, D] with weights [c], 1 each where None. Those of weight 0 are left out."""
        weight_C = np.ones(len(query)) if weight is None else on_host(as_float64(weight))
        key_C = self._rng.random(len(weight_C))
        at = np.flatnonzero((key_C < self._limit) & (weight_C > 0))
        if len(at) == 0:
            return
        row_nD = on_host(as_float64(query[at]))
        self._key = np.concatenate([self._key, key_C[at]])
        self._weight = np.concatenate([self._weight, weight_C[at]])
        self._row = row_nD if self._row is None else np.concatenate([self._row, row_nD])
        if len(self._key) > self.size:
            kept = np.sort(np.argpartition(self._key, self.size)[: self.size])
            self._key, self._weight = self._key[kept], self._weight[kept]
            self._row = self._row[kept]
            self._limit = float(self._key.max())

    def rows(self) -> tuple[np.ndarray, np.ndarray] | None:
        """(query [n, D] float64, weight [n]); None where nothing passed."""
        return None if self._row is None else (self._row, self._weight)


def top_lists(sample: ContextSample, moments: ScoreMoments, counts_V: np.ndarray, k: int) -> TopLists | None:
    """Of the contexts sampled, with the items and the bias of `moments`; None without contexts.

    Cost: 2*n*V*D FLOPs, n at most 2,048, in float32; a float32 copy of the item table.
    """
    import torch

    found = sample.rows()
    if found is None:
        return None
    query_nR, weight_n = found
    k = min(k, moments.num_items)
    # Rows as the energies take them: a large mean row, or a scale that float32 cannot hold, moves all
    # scores of a context together and would only cost the digits that order them.
    if moments.bias_V is not None:
        query_nR = np.column_stack([query_nR, np.ones(len(query_nR))])
    largest = max(max(float(np.abs(item_vR).max()) for _, item_vR in moments.blocks()), 1e-300)
    query_nR = query_nR / max(float(np.abs(query_nR).max()), 1e-300)
    item_VR = np.empty((moments.num_items, moments.num_columns), np.float32)
    for at, item_vR in moments.blocks():
        item_VR[at] = item_vR / largest
    ids, _ = ops.top_items(torch.from_numpy(query_nR.astype(np.float32)), torch.from_numpy(item_VR), k)
    mean_n = counts_V[ids.numpy()].mean(axis=1)
    return TopLists(k, float(np.average(mean_n, weights=weight_n)), float(counts_V.mean()), len(mean_n))
