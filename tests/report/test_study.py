"""Pictures of experiments: lines, points with names, and answers that an earlier version kept."""

import itertools

import numpy as np
import pytest
from matplotlib.text import Text

from fastpop.report.study import study_chart, study_pictures


def chart(series, **options):
    base = {"name": "c", "title": "A title", "x": "x", "y": "y", "log_x": False, "log_y": False}
    return base | {"series": series} | options


def line(name, x, y, low=(), high=(), dashed=False):
    return {"name": name, "x": x, "y": y, "low": low, "high": high, "dashed": dashed}


def boxes(fig):
    """Of the words alone; an annotation's own extent has its line in it."""
    fig.draw_without_rendering()
    return [Text.get_window_extent(text) for text in fig.axes[0].texts]


def test_names_stand_at_their_points_and_apart():
    rng = np.random.default_rng(0)
    crowd = [line(f"method {n}", [x], [y]) for n, (x, y) in enumerate(rng.normal(10, 0.2, (9, 2)))]
    others = [line("far", [4.0], [2.0]), line("counts", [14.0], [18.0], dashed=True)]
    fig = study_chart(chart([*crowd, *others], joined=False, log_x=True, ticks=()))
    ax = fig.axes[0]
    assert [text.get_text() for text in ax.texts if text.get_text() == "far"] == ["far"]
    assert len(ax.texts) == 11
    assert ax.get_legend() is None
    assert not fig.legends
    found, inside = boxes(fig), ax.get_window_extent()
    for one, other in itertools.combinations(found, 2):
        assert not one.overlaps(other)
    for box in found:
        assert inside.x0 - 1 <= box.x0 <= box.x1 <= inside.x1 + 1
        assert inside.y0 - 1 <= box.y0 <= box.y1 <= inside.y1 + 1


def test_points_over_words_have_their_intervals():
    series = [
        line("one", [0.0, 1.0], [1.0, 2.0], [0.5, 1.0], [1.5, 3.0]),
        line("none", [-0.4, 1.4], [0.0, 0.0], dashed=True),
    ]
    fig = study_chart(chart(series, joined=False, ticks=("first", "second")))
    ax = fig.axes[0]
    assert [tick.get_text() for tick in ax.get_xticklabels()] == ["first", "second"]
    (bars,) = ax.containers
    np.testing.assert_allclose(
        [segment[:, 1] for segment in bars[2][0].get_segments()], [[0.5, 1.5], [1.0, 3.0]]
    )
    assert len(fig.legends) == 1


@pytest.mark.parametrize("number", [3, 12])
def test_many_lines_differ_and_have_their_names_below(number):
    fig = study_chart(chart([line(f"line {n}", [1.0, 2.0], [n, n + 1.0]) for n in range(number)]))
    ax = fig.axes[0]
    looks = {(one.get_color(), one.get_marker(), one.get_linestyle()) for one in ax.lines}
    assert len(looks) == number
    assert (ax.get_legend() is None) == bool(fig.legends) == (number > 6)


def test_answers_of_earlier_versions_are_drawn():
    old = chart([line("a", [1.0, 2.0], [1.0, 2.0]), line("counts", [1.0, 2.0], [0.5, 0.5], dashed=True)])
    assert "joined" not in old
    svg = study_pictures({"charts": [old]})["c"]
    assert svg.startswith("<svg")
    assert "currentColor" in svg
