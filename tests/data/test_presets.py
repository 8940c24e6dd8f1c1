"""Presets in the registry: ours pass the public suite, and one from outside is read, listed and named."""

import pytest

import fastpop
from fastpop import doctor, testing
from fastpop.data import PRESETS, Columns, Preset
from fastpop.testing import registered

PIPES = Preset(
    columns=Columns("who", "what", time="when", behavior="how", time_unit="ms"),
    separator="|",
    names=("how", "who", "what", "when"),
    behaviors={"v": "view", "b": "buy"},
    about="pipes, milliseconds",
)
ROWS = "b|7|apple|1500000001000\nv|7|pear|1500000000000\nv|8|apple|1500000002000\n"


@pytest.mark.parametrize("name", fastpop.available("presets"))
def test_ours_pass_the_suite(name):
    testing.check_preset(name)


def test_one_from_outside_passes_the_suite():
    testing.check_preset(PIPES)
    testing.check_preset(
        Preset(
            columns=Columns(2, 0, time=4, weight=1, time_format="%d.%m.%Y %H:%M"),
            separator=";",
            about="by position",
        )
    )


def test_one_from_outside_is_read_listed_and_named(tmp_path):
    path = tmp_path / "log.txt"
    path.write_text(ROWS)
    with registered("preset", PIPES, name="pipes"):
        assert fastpop.available("presets") == (*PRESETS, "pipes")
        assert "pipes" in doctor.report()
        log = fastpop.read_log(path, preset="pipes")
        bought = fastpop.read_log(path, preset="pipes", keep_behavior="buy")
        with pytest.raises(ValueError, match="did you mean 'pipes'"):
            fastpop.read_log(path, preset="pipe")
    assert log.facts["preset"] == "pipes"
    assert log.item_ids[log.item].tolist() == ["pear", "apple", "apple"]
    assert log.time.tolist() == [1.5e9, 1.5e9 + 1, 1.5e9 + 2]
    assert bought.num_events == 1
    with pytest.raises(ValueError, match="preset: expected one of 'alibaba-mobile'"):
        fastpop.read_log(path, preset="pipes")


def test_a_name_that_is_taken_is_refused():
    """Another object of the same class is another preset; the very same one may come again."""
    with pytest.raises(ValueError, match="name: expected one that no other preset has; got 'coat'"):
        fastpop.register("preset", PIPES, name="coat")
    with registered("preset", PIPES, name="pipes"):
        fastpop.register("preset", PIPES, name="pipes")


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"kind": "cube"}, ValueError, "preset.kind: expected one of 'table'"),
        (
            {"columns": ("user", "item")},
            TypeError,
            "preset.columns: expected fastpop.data.Columns; got tuple",
        ),
    ],
)
def test_what_is_no_layout_is_refused(options, error, message):
    with pytest.raises(error, match=message):
        Preset(**options)


@pytest.mark.parametrize(
    ("preset", "message"),
    [
        (Preset(columns=Columns("a", "b")), "about"),
        (Preset(about="no roles"), "a table needs its roles"),
        (Preset(columns=Columns("a", "b"), names=("a", "c"), about="a column too few"), "not among names"),
        (
            Preset(columns=Columns("a", "b"), behaviors={"v": "view"}, about="codes of nothing"),
            "without their",
        ),
    ],
)
def test_the_suite_refuses_what_breaks_the_contract(preset, message):
    with pytest.raises(AssertionError, match=message):
        testing.check_preset(preset)
