"""What a type checker is told of ops whose results depend on return_lse (mypy holds the bodies to it)."""

import inspect
from typing import Literal, get_overloads, get_type_hints

import pytest
from torch import Tensor

from fastpop.ops import full_softmax, gathered_softmax, sampled_softmax


@pytest.mark.parametrize("op", [full_softmax, gathered_softmax, sampled_softmax], ids=lambda op: op.__name__)
def test_the_flag_tells_the_result_and_no_argument_is_left_out(op):
    told = [get_type_hints(one) for one in get_overloads(op)]
    assert [(one["return_lse"], one["return"]) for one in told] == [
        (Literal[False], Tensor),
        (Literal[True], tuple[Tensor, Tensor]),
        (bool, Tensor | tuple[Tensor, Tensor]),
    ]
    arguments = inspect.signature(op).parameters.values()
    by_word = {one.name for one in arguments if one.kind is one.KEYWORD_ONLY} - {"return_lse"}
    for one in get_overloads(op):
        (keywords,) = get_type_hints(one)["keywords"].__args__
        assert set(keywords.__annotations__) == by_word
        assert keywords.__total__ is False
        places = [a for a in inspect.signature(one).parameters.values() if a.kind is a.POSITIONAL_OR_KEYWORD]
        assert [a.name for a in places] == [a.name for a in arguments if a.kind is a.POSITIONAL_OR_KEYWORD]
