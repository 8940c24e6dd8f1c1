"""What a comparison says of how its numbers came about."""

import pytest
import toy_parts

from fastpop.encoders import BERT4Rec, Factor, SASRec
from fastpop.experiments.assemble import _options_told


@pytest.mark.parametrize(
    ("part", "told"),
    [
        (SASRec(), ", 2 layers, 2 heads, dropout 0.2"),
        (SASRec(num_layers=3, dropout=0.5), ", 3 layers, 2 heads, dropout 0.5"),
        (SASRec(hidden=12), ", 2 layers, 2 heads, dropout 0.2, SASRec(hidden=12)"),
        (BERT4Rec(num_layers=1), ", 1 layers, 2 heads, dropout 0.1"),
        (Factor(), ""),
        (Factor(base=False), ", Factor(base=False)"),
        (toy_parts.Recurrent(width=4), ", Recurrent(width=4)"),
    ],
    ids=repr,
)
def test_the_rules_tell_the_options_of_any_encoder(part, told):
    assert _options_told(part) == told
