"""The page of one model's audit, and the pictures behind it."""

import helpers_report
import numpy as np
import pytest
from helpers_page import Page

from fastpop.report import plots, write_audit_report
from fastpop.report.audit_page import audit_headline
from fastpop.report.drawing import to_svg


def test_audit_report(tmp_path):
    audit = helpers_report.audit()
    path = write_audit_report(
        tmp_path / "a.html",
        audit,
        metrics={"ndcg@10": 0.0512},
        rules={"encoder": "sasrec <2 layers>"},
        name="mine",
    )
    page = Page(path.read_text())
    text = " ".join(page.words)
    assert len(page.labels) == 3
    share = f"{100 * audit['energy_direction'] / audit['energy_total']:.3g} %"
    for wanted in (
        share,
        "sasrec <2 layers>",
        "calibration not computed",
        "0.0512",
        "NDCG@10",
        "associated with log p beyond relabelling (p = 1/2001, at its floor: none of 2,000 "
        "draws reaches the data, so p lies in [0, 0.0018])",
        "1/2001 floor",
        "2,000 draws",
    ):
        assert wanted in text
    plain = {k: v for k, v in audit.items() if not k.startswith(("test", "mean", "log"))}
    page = Page(write_audit_report(tmp_path / "b.html", plain).read_text())
    assert len(page.labels) == 1
    with pytest.raises(ValueError, match="audit: expected a key 'energy_total'"):
        write_audit_report(tmp_path / "c.html", {})


@pytest.mark.parametrize(
    ("p_value", "interval", "words"),
    [
        (1 / 2001, [0.0, 0.0018], ", associated with log p beyond relabelling (p = 1/2001, at its floor"),
        (0.04, [0.032, 0.0495], ", associated with log p beyond relabelling (p = 0.04 (Monte-Carlo"),
        (0.049, [0.04, 0.06], ", at the edge of what so many draws can tell from relabelling (p = 0.049"),
        (0.06, [0.052, 0.07], ", not shown to be associated with log p beyond relabelling (p = 0.06"),
    ],
)
def test_the_words_about_a_p_value_follow_its_interval(p_value, interval, words):
    audit = helpers_report.audit()
    audit["p_value_shared"] = p_value
    audit["test_shared"] = {**audit["test_shared"], "p_value": p_value, "p_value_interval": interval}
    assert words in audit_headline(audit)
    assert "relabelling" not in audit_headline({**audit, "p_value_shared": None})
    none = audit_headline({**audit, "no_direction": "log p has no direction here: it is flat"})
    assert none == "Log p has no direction here: it is flat."


def test_a_page_says_only_of_logits_what_a_slope_of_one_means(tmp_path):
    audit = helpers_report.audit()
    legend = ("contain log p once", "nats²")
    of_logits = write_audit_report(tmp_path / "a.html", {**audit, "logits": True}).read_text()
    of_scores = write_audit_report(tmp_path / "b.html", {**audit, "logits": False}).read_text()
    for words in legend:
        assert words in of_logits
        assert words not in of_scores
    assert "the slope has no unit" in of_scores


def test_a_page_without_a_direction_shows_no_test(tmp_path):
    audit = {**helpers_report.audit(), "no_direction": "log p has no direction here: it is flat"}
    page = Page(write_audit_report(tmp_path / "a.html", audit).read_text())
    text = " ".join(page.words)
    assert len(page.labels) == 2  # no picture of a null
    assert "1/2001" not in text
    assert "associated" not in text
    assert "Log p has no direction here: it is flat." in text


def test_a_real_audit_is_taken_as_it_is(tmp_path):
    from fastpop.diagnostics import audit

    rng = np.random.default_rng(0)
    found = audit(
        rng.normal(size=(40, 4)), rng.normal(size=(30, 4)), rng.integers(1, 50, 30), permutations=99
    )
    page = Page(write_audit_report(tmp_path / "a.html", found.to_dict(samples=True)).read_text())
    assert len(page.labels) == 3
    text = " ".join(page.words)
    for wanted in (
        "99 draws",
        "The 10 best items of a context have",
        "centred under p",
        "by chance",
        "Energy off log p",
        "any count",
    ):
        assert wanted in text


def line_points(fig, colour):
    return [line.get_xydata() for ax in fig.axes for line in ax.lines if line.get_color() == colour]


def test_pictures_show_the_numbers_given():
    null = {
        "arm": "a",
        "statistic": "energy_shared",
        "observed": 500.0,
        "p_value": 0.001,
        "samples": np.linspace(0.1, 9, 999),
    }
    fig = plots.permutation_null([null])
    assert fig.axes[0].get_xscale() == "log"  # far outside: both are seen
    low, high = fig.axes[0].get_xlim()
    assert low < 9 < 500 < high
    fig = plots.permutation_null([{**null, "observed": 5.0}])
    assert fig.axes[0].get_xscale() == "linear"
    assert sum(p.get_height() for p in fig.axes[0].patches) == 999
    signed = {**null, "samples": np.linspace(-5, 5, 99), "observed": -300.0}
    fig = plots.permutation_null([signed])
    assert fig.axes[0].get_xlim()[0] < -300

    x = np.array([-5.0, -3, -1])
    fig = plots.score_against_popularity(
        [{"arm": "a", "log_prior": x, "mean_score": 10 + 0.5 * x, "slope": 0.5}]
    )
    [line] = line_points(fig, "black")
    assert line.tolist() == [[-5, -1], [-1, 1]]


def test_degenerate_pictures_are_still_drawn():
    to_svg(
        plots.permutation_null(
            [{"arm": "a", "statistic": "t", "observed": 1.0, "p_value": 1.0, "samples": [1.0, 1.0]}]
        )
    )
    none = {"energy_total": {"mean": 0.0}, "energy_direction": {"mean": 0.0}, "energy_shared": {"mean": 0.0}}
    to_svg(plots.energy_by_arm([{"arm": "a", "popularity_weight": None, "values": none}]))
    to_svg(
        plots.score_against_popularity(
            [{"arm": "a", "log_prior": [-1.0, -2.0], "mean_score": [0.0, 0.0], "slope": 0.0}]
        )
    )
    to_svg(plots.training_curves([{"arm": "a", "seed": 0, "epoch": [1], "loss": [2.0], "valid": [None]}]))


def test_nothing_on_a_page_steers_what_shows_it_and_long_names_are_shortened(tmp_path):
    steers, long = "red\x1b[31m\x00\u202etxet\u2066", "film " * 40
    rows = [{"name": name, "log_prior": -3.0, "mean_score": 1.0, "off_line": 0.1} for name in (steers, long)]
    path = write_audit_report(
        tmp_path / "a.html",
        helpers_report.audit() | {"calibration": steers},
        title=f"{steers} {long * 2}",
        headline=steers,
        sentences=[steers],
        data={"name": long, "note": steers},
        items={"largest": rows},
        made_by={steers: steers},
        name=steers,
    )
    text = path.read_bytes().decode()
    assert text.replace("\n", "").isprintable()
    seen = r"red\x1b[31m\x00\u202etxet\u2066"
    assert text.count(seen) >= 7
    page = Page(text)
    assert f'<th scope="row">{seen}</th>' in text
    short = ("film " * 16)[:79].rstrip() + "…"
    assert f'<th scope="row"><span title="{long}">{short}</span></th>' in text
    assert f'Data: <span title="{long}">{short}</span>.' in text
    assert len(next(word for word in page.words if word.startswith(seen))) <= 200  # of <title>
