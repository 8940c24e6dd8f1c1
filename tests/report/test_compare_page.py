"""The page of a comparison: self-contained, well formed, escaped, complete; and its pictures."""

import builtins
import itertools
import re

import helpers_report
import numpy as np
import pytest
from helpers_page import Page
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.text import Text

from fastpop.report import compare_plots, glossary, write_compare_report
from fastpop.report.compare_page import LEADING
from fastpop.report.drawing import INK, save_figure


@pytest.fixture(scope="module")
def made():
    return helpers_report.comparison(num_items=300, seeds=(0, 1, 2), shown=True)


@pytest.fixture(scope="module")
def compared(made, tmp_path_factory):
    path = write_compare_report(tmp_path_factory.mktemp("report") / "report.html", made)
    return path.read_text(encoding="utf-8")


def test_the_page_is_well_formed_and_needs_nothing_else(compared):
    page = Page(compared)
    assert all(a.startswith(("#", "data:image/png;base64,")) for a in page.addresses)
    assert "<script" not in compared
    assert "@import" not in compared
    assert "url(http" not in compared
    assert len(page.ids) == len(set(page.ids))  # several pictures in one page keep ids apart
    for target in re.findall(r'(?:href="#|url\(#)([^")]+)', compared):
        assert target in page.ids
    assert "prefers-color-scheme:dark" in compared
    assert "@media print" in compared


def test_it_holds_headline_sentences_rules_pictures_and_definitions(compared, made):
    page = Page(compared)
    text = " ".join(page.words)
    for wanted in [
        made["headline"],
        *made["sentences"],
        *made["rules"].values(),
        "calibration not computed",
        "MovieTweetings 100K",
        "16,554 users",
        "each at its own best epoch (validation NLL)",
        "at 6 epochs for all",
        "made of standard at its best epoch, at beta 0",
        "no model",
        "Over the items that were shown at random",
        "the floor of 2,000 draws",
    ]:
        assert wanted in text
    # Three scatters, the frontier, four curves, the paired test, five of exposure.
    assert len(page.labels) == 3 + 1 + 4 + 1 + 5
    assert all(len(label) > 20 for label in page.labels)
    used = {k.split("@")[0] for e in made["summary"] for k in e["values"]}
    for stem in used:
        _, definition = glossary.term(stem)
        assert definition, stem
        assert definition.split(".")[0] in text.replace("\n", " "), stem


def test_lists_of_a_few_users_are_shown_by_title_or_id_every_string_escaped(tmp_path):
    made = helpers_report.comparison(num_items=50, seeds=(0,), arms=("standard", "frozen"))
    assert "few users are" not in write_compare_report(tmp_path / "none.html", made).read_text()
    evil = {"id": "<i>9</i>", "title": "<script>alert('9')</script> & co"}
    lists = [
        {"arm": "standard", "popularity_weight": 1.0, "items": [evil, {"id": "<b>4</b>"}]},
        {"arm": "<u>mine</u>", "popularity_weight": 0.0, "items": [{"id": "4"}]},
    ]
    made["examples"] = [{"num_events": 1, "history": [{"id": "<b>7</b>"}], "targets": [evil], "lists": lists}]
    html = write_compare_report(tmp_path / "report.html", made).read_text()
    page = Page(html)
    assert not re.search(r"<(script|i|b|u)>", html)
    words = " ".join(" ".join(page.words).split())
    assert "What a few users are shown" in words
    assert "A user of 1 event, at the end <b>7</b>; then came <script>alert('9')</script> & co." in words
    assert "<strong>&lt;script&gt;alert(&#x27;9&#x27;)&lt;/script&gt; &amp; co</strong> · &lt;b&gt;4" in html
    assert "&lt;u&gt;mine&lt;/u&gt;" in html
    assert "<i>9</i>" not in words  # the title stands for it


def test_what_matters_comes_first_and_the_rest_is_folded(compared, made):
    caution, *findings = made["sentences"]
    order = [
        made["headline"],
        caution,
        *findings[:LEADING],
        "Accuracy against popularity of what is shown",
        "Training, epoch by epoch",
        "Mean score of each item against log p",
        "more findings",
        findings[LEADING],
        "Fit and accuracy on the test part",
        "Paired test",
        "Everything else",
    ]
    places = [compared.index(words) for words in order]
    assert places == sorted(places)
    opened = compared.index("<details")
    assert places[-4] > opened > places[-6]
    assert compared.index("Lists of ten at every beta") > compared.index("Everything else")
    assert "<details open" not in compared


def test_references_are_shown_once_and_where_recall_is_the_hit_rate_one_of_them(made, tmp_path):
    text = write_compare_report(tmp_path / "a.html", made).read_text()
    story = text[: text.index("Everything else")]
    assert story.count('<th scope="row">markov</th>') == 1
    assert '<th scope="col">HR</th>' in text
    assert '<th scope="col">recall</th>' not in text
    summary = [
        {**entry, "values": {**entry["values"], "recall@10": {"mean": 0.01}}}
        if "hr@10" in entry["values"]
        else entry
        for entry in made["summary"]
    ]
    text = write_compare_report(tmp_path / "b.html", {**made, "summary": summary}).read_text()
    assert '<th scope="col">recall</th>' in text


def test_a_thousand_runs_are_left_to_the_csv(tmp_path):
    made = helpers_report.comparison(num_items=300, seeds=range(8), betas=tuple(np.linspace(0, 2, 17)))
    assert len(made["rows"]) > 1500
    text = write_compare_report(tmp_path / "r.html", made).read_text()
    assert f"{len(made['rows']):,} rows: rows.csv and comparison.json" in text
    assert len(text) < 1_500_000
    assert text.count("<tr") < 600


def test_ink_follows_the_page(compared):
    assert INK.lower() not in compared.lower()
    assert "currentColor" in compared


def test_the_same_input_gives_the_same_bytes(made, compared, tmp_path):
    assert write_compare_report(tmp_path / "again.html", made).read_text() == compared


def test_text_of_users_is_escaped(made, tmp_path):
    evil = "<img src=x onerror=alert(1)>\"'&$^{$"

    def renamed(entries):
        return [{**e, "arm": evil} if e["arm"] == "frozen" else e for e in entries]

    bad = {
        **made,
        "title": evil,
        "headline": evil,
        "sentences": [evil] * 9,
        "arms": [
            {**a, "name": evil if a["name"] == "frozen" else a["name"], "trained_on": evil}
            for a in made["arms"]
        ],
        **{
            key: renamed(made[key])
            for key in ("rows", "summary", "scatter", "exposure", "curves", "matched", "pairs", "differences")
        },
        "nulls": [{**null, "arm": evil, "kind": evil} for null in made["nulls"]],
        "rules": {"encoder": evil},
        "data": {"name": evil, "note": evil},
        "made_by": {"x": evil, "config": {evil: evil}},
    }
    text = write_compare_report(tmp_path / "r.html", bad).read_text()
    page = Page(text)
    assert "<img" not in text
    assert evil in "".join(page.words)


def test_what_is_missing_is_left_out(made, tmp_path):
    least = {key: made[key] for key in ("title", "headline", "arms", "readings", "rules")}
    empty = {**least, "sentences": [], "summary": [], "rows": []}
    page = Page(write_compare_report(tmp_path / "r.html", empty).read_text())
    assert page.labels == []
    assert "Fit and accuracy" not in " ".join(page.words)
    del empty["summary"]
    with pytest.raises(ValueError, match="comparison: expected a key 'summary'"):
        write_compare_report(tmp_path / "r.html", empty)


@pytest.mark.parametrize(
    ("options", "pictures", "missing"),
    [
        ({"test": False}, 3 + 4 + 1, ["Fit and accuracy", "Who is shown", "Accuracy against popularity"]),
        ({"valid": False}, 3 + 1 + 1 + 1 + 5, ["best epoch (validation", "validation NDCG@10 by epoch"]),
        (
            {"arms": ("standard",)},
            1 + 1 + 4 + 1,
            ["Accuracy at equally popular lists: arm", "Paired test of"],
        ),
        ({"seeds": (0, 1)}, 14, ["±0"]),
        ({"seeds": (3,)}, 14, ["±0"]),
    ],
)
def test_a_part_of_a_comparison_gets_its_page(options, pictures, missing, tmp_path):
    made = helpers_report.comparison(**{"num_items": 200, "seeds": (0, 1, 2)} | options)
    page = Page(write_compare_report(tmp_path / "r.html", made).read_text())
    assert len(page.labels) == pictures
    text = " ".join([*page.words, *page.labels])
    for words in missing:
        assert words not in text


def test_without_matplotlib_the_error_names_the_extra(made, tmp_path, monkeypatch):
    real = builtins.__import__

    def without(name, *args, **kwargs):
        if name.startswith("matplotlib"):
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ImportError, match=r"drawing a report needs .*'fastpop\[report\]'"):
        write_compare_report(tmp_path / "r.html", made)
    assert list(tmp_path.iterdir()) == []


def drawn(panel):
    return compare_plots.alone(panel).axes[0]


def lines(ax, colour, least=0.0):
    """Points of the lines of a colour, of at least so wide a line."""
    return [
        line.get_xydata() for line in ax.lines if line.get_color() == colour and line.get_linewidth() >= least
    ]


def test_the_scatter_shows_learned_and_served_scores_with_their_slopes(made):
    panels = compare_plots.scatter(made)
    assert [panel.alt.split(",")[0] for panel in panels] == ["standard", "post-hoc", "frozen"]
    ax = drawn(panels[2])
    served, learned = (points.get_offsets() for points in ax.collections)
    entry = next(s for s in made["scatter"] if s["arm"] == "frozen")
    for points, key in ((learned, "mean_score"), (served, "served_score")):
        assert np.allclose(points[:, 0], entry["log_prior"])
        assert np.allclose(points[:, 1], entry[key] - entry[key].mean())
    [line] = lines(ax, compare_plots.COLOURS["frozen"])
    assert np.ptp(line[:, 1]) / np.ptp(line[:, 0]) == pytest.approx(0.02)
    assert len(drawn(panels[0]).collections) == 1  # standard is served as it is
    assert len({drawn(panel).get_ylim() for panel in panels}) == 1


def test_the_frontier_shows_means_seeds_marks_and_levels(made):
    ax = drawn(compare_plots.frontier(made)[0])
    found = lines(ax, compare_plots.COLOURS["frozen"], 1.5)
    mean = next(points for points in found if len(points) == len(helpers_report.BETAS))
    for points, beta in zip(mean, helpers_report.BETAS):
        values = [
            r["values"]
            for r in made["rows"]
            if (r["arm"], r["epochs"], r["popularity_weight"]) == ("frozen", "best", beta)
        ]
        assert points == pytest.approx(
            [np.mean([v["arp@10"] for v in values]), np.mean([v["ndcg@10"] for v in values])]
        )
    thin = [
        points
        for points in lines(ax, compare_plots.COLOURS["frozen"])
        if len(points) == len(helpers_report.BETAS)
    ]
    assert len(thin) == 3 + 1
    names = {text.get_text() for text in ax.texts}
    assert names == set(helpers_report.ARMS)
    levels = {round(m["arp"], 6) for m in made["matched"] if m["arm"] == "frozen" and m["epochs"] == "best"}
    assert levels <= {round(points[0, 0], 6) for points in lines(ax, INK) if len(points) == 2}


def test_no_name_in_the_frontier_covers_another(made):
    fig = compare_plots.alone(compare_plots.frontier(made)[0])
    canvas = FigureCanvasAgg(fig)
    canvas.draw()
    boxes = {
        text.get_text(): Text.get_window_extent(text, canvas.get_renderer())  # without its leader
        for text in fig.axes[0].texts
    }
    frame = fig.bbox
    for (one, first), (other, second) in itertools.combinations(boxes.items(), 2):
        assert not first.padded(-1).overlaps(second.padded(-1)), (one, other)
    for name, box in boxes.items():
        assert frame.x0 <= box.x0, name
        assert box.x1 <= frame.x1, name


def test_curves_mark_the_best_epoch_and_leave_out_what_was_not_validated(made):
    panels = compare_plots.epochs(made)
    assert [drawn(panel).get_title(loc="left") for panel in panels] == [
        "validation NLL, nats",
        "slope of the learned part",
        "energy off log p, nats²",
        "validation NDCG@10",
    ]
    ax = drawn(panels[0])
    frozen = lines(ax, compare_plots.COLOURS["frozen"])
    assert sorted(len(points) for points in frozen) == [1, 1, 1, 9, 9, 9]  # dots and curves of three seeds
    curve = next(c for c in made["curves"] if c["arm"] == "frozen")
    dots = [points[0].tolist() for points in frozen if len(points) == 1]
    assert [7, curve["nll"][6]] in dots
    assert any(np.isnan(points[0, 1]) for points in frozen if len(points) == 9)
    [loss] = compare_plots.epochs(helpers_report.comparison(num_items=200, seeds=(0,), valid=False))
    assert drawn(loss).get_title(loc="left") == "training loss, nats"


def test_the_paired_test_shows_both_nulls_and_where_the_observed_value_lies():
    null = {
        "arm": "standard - frozen",
        "statistic": "energy_shared",
        "p_value": 1 / 1000,
        "kind": "label",
        "samples": np.linspace(0.1, 9, 999),
        "observed": 500.0,
    }
    far = {"nulls": [null, {**null, "kind": "sign"}], "permutations": 999}
    ax = drawn(compare_plots.paired_test(far)[0])
    assert ax.get_xlim()[1] < 20  # the nulls are seen; what was observed is an arrow beyond them
    words = [text.get_text() for text in ax.texts]
    assert "observed 500, outside" in words
    assert "label null: p = 0.001*" in words
    assert "sign null: p = 0.001*" in words
    near = {"nulls": [{**null, "observed": 5.0, "p_value": 0.4}], "permutations": 999}
    ax = drawn(compare_plots.paired_test(near)[0])
    [line] = lines(ax, compare_plots.COLOURS["frozen"])
    assert line[:, 0].tolist() == [5.0, 5.0]
    below = {"nulls": [{**null, "observed": -300.0}], "permutations": 999}
    assert drawn(compare_plots.paired_test(below)[0]).get_xlim()[0] > -20
    same = {"nulls": [{**null, "samples": [1.0, 1.0], "observed": 1.0}], "permutations": 2}
    assert drawn(compare_plots.paired_test(same)[0])


def test_exposure_is_a_bar_a_tenth(made):
    panels = compare_plots.exposure(made)
    assert [panel.alt.split(":")[0] for panel in panels] == [
        "standard",
        "frozen, β = 0",
        "frozen, β = 1",
        "learned-from-log-p",
        "post-hoc, β = 0",
    ]
    entry = next(e for e in made["exposure"] if e["arm"] == "frozen" and e["popularity_weight"] == 1)
    assert [bar.get_height() for bar in drawn(panels[2]).patches] == pytest.approx(entry["share"])
    assert len({drawn(panel).get_ylim() for panel in panels}) == 1


# What is left of red, green, blue (linear) without one kind of cones; Vienot, Brettel & Mollon 1999.
DICHROMATS = {
    "all cones": np.eye(3),
    "protan": np.array([[0.1124, 0.8876, 0.0], [0.1124, 0.8876, 0.0], [0.0040, -0.0040, 1.0]]),
    "deutan": np.array([[0.2925, 0.7075, 0.0], [0.2925, 0.7075, 0.0], [-0.0223, 0.0223, 1.0]]),
}


@pytest.mark.parametrize("eyes", DICHROMATS)
def test_arms_with_a_colour_are_told_apart_by_colour_blind_people(eyes):
    seen = {
        arm: np.clip(DICHROMATS[eyes] @ np.array(to_rgb(colour)) ** 2.2, 0, 1) ** (1 / 2.2)
        for arm, colour in {**compare_plots.COLOURS, "others": INK}.items()
    }
    for one, other in itertools.combinations(seen, 2):
        apart = np.linalg.norm(seen[one] - seen[other])
        dashes = [compare_plots.DASHES.get(arm, "-") for arm in (one, other)]
        assert apart > (0.2 if dashes[0] == dashes[1] else 0.1), (one, other, apart)


def test_pictures_are_files_of_their_own_too(made, tmp_path):
    sheets = compare_plots.sheets(made)
    assert list(sheets) == ["score-against-log-p", "frontier", "epochs"]
    assert [len(fig.axes) for fig in sheets.values()] == [3, 1, 4]
    save_figure(sheets["frontier"], tmp_path / "frontier.png")
    assert (tmp_path / "frontier.png").stat().st_size > 10_000
    assert compare_plots.sheets(helpers_report.comparison(num_items=50, test=False)).keys() == {
        "score-against-log-p",
        "epochs",
    }
