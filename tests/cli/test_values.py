"""Bad values of options, whichever option it is, are told in one form."""

import typing

import pytest

from fastpop.cli import parse, values

OPTIONS = [
    (verb, name, hint) for verb, kind in parse.VERBS.items() for name, hint in values.hints_of(kind).items()
]
NUMBERS = [
    (verb, name, [one for one in values.kinds_of(hint) if one in values.NOUNS])
    for verb, name, hint in OPTIONS
    if not {str, bool, parse.Path} & set(values.kinds_of(hint))
    and any(one in values.NOUNS for one in values.kinds_of(hint))
]
ONE_WORD = [
    (verb, name)
    for verb, name, hint in OPTIONS
    if hint is not bool and typing.get_origin(hint) not in (tuple, dict)
]


def test_the_options_are_found():
    named = {(verb, name) for verb, name, _ in NUMBERS}
    assert {("evaluate", "sample_cases"), ("recommend", "popularity_weight"), ("evaluate", "k")} < named
    assert {("train", "dim"), ("compare", "min_rating"), ("audit", "scale")} < named
    assert len(named) > 80


POSITIONAL = {("experiment", "name"), ("recipe", "name")}
NONE = {"abc": "'abc'", "3\x1b[2J": r"'3\x1b[2J'", "1" * 90 + "x": repr("1" * 19 + "…")}  # as they are told


@pytest.mark.parametrize("verb", sorted({verb for verb, *_ in NUMBERS}))
def test_a_number_that_is_none_says_the_option_the_expected_and_the_got(verb):
    for name, kinds in [(name, kinds) for one, name, kinds in NUMBERS if one == verb]:
        noun = " or ".join(values.NOUNS[one] for one in kinds)
        for flag, (bad, got) in zip((name, name.replace("_", "-"), name), NONE.items()):
            for words in ([f"--{flag}", bad], [f"--{flag}={bad}"]):
                with pytest.raises(ValueError) as told:
                    parse.parse([verb, *words])
                assert str(told.value) == f"{name}: expected {noun}; got {got}"
                assert len(f"fastpop: {told.value}") <= 80


@pytest.mark.parametrize("verb", sorted({verb for verb, _ in ONE_WORD}))
def test_an_option_without_its_value_says_so(verb):
    for name in [name for one, name in ONE_WORD if one == verb and (verb, name) not in POSITIONAL]:
        if name in ("config", "recipe", "plugin", "log", "run_folder"):
            continue  # words that others read, or no options
        with pytest.raises(ValueError, match=f"^{name}: expected a value; got nothing$"):
            parse.parse([verb, f"--{name.replace('_', '-')}", "--out", "there"])


def test_one_of_several_words():
    with pytest.raises(ValueError, match=r"^logq: expected one of standard, corrected, none; got 'no'$"):
        parse.parse(["train", "log", "--out", "o", "--logq", "no"])


@pytest.mark.parametrize(
    ("words", "name", "value"),
    [
        (["--sample-cases", "None"], "sample_cases", None),
        (["--sample-cases", "20"], "sample_cases", 20),
        (["--personal-weight", "-0.5"], "personal_weight", -0.5),
        (["--k", "5", "10"], "k", (5, 10)),
        (["--popularity-weight", "0", "1e-1"], "popularity_weight", (0.0, 0.1)),
    ],
)
def test_good_values_are_taken(words, name, value):
    assert getattr(parse.parse(["evaluate", "run", *words]), name) == value
