"""The one form of an error about an argument."""

import numpy as np
import pytest

import fastpop
from fastpop import checks


def test_an_error_describes_what_came_or_says_the_text_as_it_is():
    assert str(checks.wrong("k", "one", "two")) == "k: expected one; got 'two'"
    assert str(checks.wrong("k", "one", None)) == "k: expected one; got None"
    assert str(checks.wrong("k", "one", np.zeros((2, 3)))) == "k: expected one; got float64 [2, 3]"
    assert str(checks.wrong("k", "one", text="none of them")) == "k: expected one; got none of them"
    assert str(checks.wrong_type("k", "a number", "two")) == "k: expected a number; got str"
    assert str(checks.wrong_type("k", "a number", text="a row")) == "k: expected a number; got a row"


@pytest.mark.parametrize("value", ["=none", "=", "=SUM(A1)"])
def test_a_value_that_begins_with_an_equals_sign_is_a_value(value):
    with pytest.raises(ValueError, match="split: ") as error:
        fastpop.TrainConfig(split=value)
    assert repr(value) in str(error.value)
    assert str(checks.wrong("k", "one", value)) == f"k: expected one; got {value!r}"
    assert str(checks.wrong_type("k", "a number", value)) == "k: expected a number; got str"
