"""A test proves that it can fail: wrong lines are noticed, and a right copy passes."""

import pytest
from mutants import MUTANTS, Mutant, caught


@pytest.mark.parametrize("mutant", MUTANTS[2:8:5], ids=lambda m: m.what)
def test_a_few_mutants_are_caught(mutant):
    assert caught(mutant)


def test_the_copy_itself_passes():
    same = "neg_gsK = neg_gsK.masked_fill(hit_gsK, -math.inf)"
    unchanged = Mutant("nothing", "kernels/sampled_softmax/reference.py", same, same,
                       "tests/ops/test_sampled_softmax.py -k phantom")
    assert not caught(unchanged)


@pytest.mark.slow
@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda m: m.what)
def test_every_mutant_is_caught(mutant):
    assert caught(mutant)
