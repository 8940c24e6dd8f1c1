"""DistributedDataParallel around a model with a loss of ours in it, tables stepped row by row."""

import pytest
from helpers_ranks import run_workers


@pytest.mark.parametrize("world", [1, 2])
def test_processes_make_the_steps_of_one_with_all_the_rows(world, tmp_path):
    run_workers("helpers_ddp.py", world, tmp_path)
