"""Softmaxes over a catalogue that processes share: what they give on parts is what they give on the whole."""

import pytest
import torch
from helpers_ranks import run_workers

from fastpop import ops
from fastpop.ops.row_shard import even_rows


@pytest.mark.parametrize("world", [3, *(pytest.param(n, marks=pytest.mark.slow) for n in (1, 2))])
def test_parts_are_the_whole(world, tmp_path):
    run_workers("helpers_vocab_parallel.py", world, tmp_path)


def test_a_shard_needs_processes():
    with pytest.raises(ValueError, match="group: expected processes"):
        ops.RowShard(0, 5)


def test_even_rows_cover_the_catalogue_as_torch_cuts_it():
    for num_items, world in ((7, 3), (5, 4), (1, 2), (12, 4)):
        chunks = [len(part) for part in torch.arange(num_items).chunk(world)]
        sizes = [last - first for first, last in (even_rows(num_items, world, r) for r in range(world))]
        assert sizes == chunks + [0] * (world - len(chunks))
