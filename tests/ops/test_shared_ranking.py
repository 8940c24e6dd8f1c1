"""Lists, ranks, metrics, energies and rows over a catalogue that processes share are those of the whole."""

import pytest
from helpers_ranks import run_workers


@pytest.mark.parametrize("world", [3, pytest.param(2, marks=pytest.mark.slow)])
def test_parts_rank_as_the_whole(world, tmp_path):
    run_workers("helpers_shared_ranking.py", world, tmp_path)
