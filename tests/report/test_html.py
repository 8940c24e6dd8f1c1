"""The page: self-contained, well formed, escaped, complete; and the pictures behind it."""

import builtins
import re
from html.parser import HTMLParser

import helpers_report
import numpy as np
import pytest

from fastpop.report import glossary, plots, write_audit_report, write_compare_report
from fastpop.report.audit_page import audit_headline

VOID = {"meta", "br", "img", "link", "input", "hr"}


class Page(HTMLParser):
    """Fails on unbalanced tags; collects ids, addresses, labels and text."""

    def __init__(self, text):
        super().__init__()
        self.stack, self.ids, self.addresses, self.labels, self.words = [], [], [], [], []
        self.feed(text)
        assert self.stack == []

    def handle_starttag(self, tag, attrs):
        if tag not in VOID:
            self.stack.append(tag)
        for name, value in attrs:
            if name == "id":
                self.ids.append(value)
            if name in ("src", "href", "xlink:href"):
                self.addresses.append(value)
        if tag == "svg":
            self.labels.append(dict(attrs)["aria-label"])

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.stack.pop()

    def handle_endtag(self, tag):
        assert self.stack.pop() == tag

    def handle_data(self, data):
        self.words.append(data)


@pytest.fixture(scope="module")
def made():
    return helpers_report.comparison(num_items=300, seeds=(0, 1))


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
    for wanted in [made["headline"], *made["sentences"], *made["rules"].values(),
                   "calibration not computed", "MovieTweetings 100K", "16,554 users",
                   "[0.031, 0.067]", "standard, β s",
                   "1/(V - 1) = 0.334 % with V = 300 items"]:
        assert wanted in text
    assert len(page.labels) == 6  # energy, scatter, null, trade-off, Lorenz, training
    assert all(len(label) > 20 for label in page.labels)
    used = {k.split("@")[0] for e in made["summary"] for k in e["values"]}
    for stem in used:
        assert glossary.TERMS[stem][1].split(".")[0] in text.replace("\n", " "), stem


def test_ink_follows_the_page(compared):
    assert plots.INK.lower() not in compared.lower()
    assert "currentColor" in compared


def test_the_same_input_gives_the_same_bytes(made, compared, tmp_path):
    assert write_compare_report(tmp_path / "again.html", made).read_text() == compared


def test_text_of_users_is_escaped(made, tmp_path):
    evil = "<img src=x onerror=alert(1)>\"'&$^{$"
    rename = {"frozen": evil}

    def renamed(entries):
        return [{**e, "arm": rename.get(e["arm"], e["arm"])} for e in entries]

    bad = {
        **made, "title": evil, "headline": evil, "sentences": [evil],
        "arms": [{"name": rename.get(a["name"], a["name"]), "trained_on": evil}
                 for a in made["arms"]],
        **{key: renamed(made[key]) for key in ("rows", "summary", "scatter", "nulls", "lorenz",
                                               "curves", "differences")},
        "rules": {"encoder": evil}, "data": {"name": evil, "note": evil}, "made_by": {"x": evil},
    }
    text = write_compare_report(tmp_path / "r.html", bad).read_text()
    page = Page(text)
    assert "<img" not in text
    assert evil in "".join(page.words)


def test_what_is_missing_is_left_out(made, tmp_path):
    least = {key: made[key] for key in ("title", "headline", "arms", "rows", "rules")}
    text = write_compare_report(tmp_path / "r.html", {**least, "sentences": [], "summary": []})
    page = Page(text.read_text())
    assert page.labels == []
    with pytest.raises(ValueError, match="comparison: expected a key 'summary'"):
        write_compare_report(tmp_path / "r.html", {**least, "sentences": []})


def test_audit_report(tmp_path):
    audit = helpers_report.audit()
    path = write_audit_report(tmp_path / "a.html", audit, metrics={"ndcg@10": 0.0512},
                              rules={"encoder": "sasrec <2 layers>"}, name="mine")
    page = Page(path.read_text())
    text = " ".join(page.words)
    assert len(page.labels) == 3
    share = f"{100 * audit['energy_direction'] / audit['energy_total']:.3g} %"
    for wanted in (share, "sasrec <2 layers>", "calibration not computed", "0.0512", "NDCG@10",
                   "associated with log p beyond relabelling (p = 1/2001, at its floor: none of 2,000 "
                   "draws reaches the data, so p lies in [0, 0.0018])", "1/2001 floor", "2,000 draws"):
        assert wanted in text
    plain = {k: v for k, v in audit.items() if not k.startswith(("test", "mean", "log"))}
    page = Page(write_audit_report(tmp_path / "b.html", plain).read_text())
    assert len(page.labels) == 1
    with pytest.raises(ValueError, match="audit: expected a key 'energy_total'"):
        write_audit_report(tmp_path / "c.html", {})


@pytest.mark.parametrize(("p_value", "interval", "words"), [
    (1 / 2001, [0.0, 0.0018], ", associated with log p beyond relabelling (p = 1/2001, at its floor"),
    (0.04, [0.032, 0.0495], ", associated with log p beyond relabelling (p = 0.04 (Monte-Carlo"),
    (0.049, [0.04, 0.06], ", at the edge of what so many draws can tell from relabelling (p = 0.049"),
    (0.06, [0.052, 0.07], ", not shown to be associated with log p beyond relabelling (p = 0.06"),
])
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
    found = audit(rng.normal(size=(40, 4)), rng.normal(size=(30, 4)), rng.integers(1, 50, 30),
                  permutations=99)
    page = Page(write_audit_report(tmp_path / "a.html", found.to_dict(samples=True)).read_text())
    assert len(page.labels) == 3
    text = " ".join(page.words)
    for wanted in ("99 draws", "The 10 best items of a context have", "centred under p", "by chance",
                   "Energy off log p", "any count"):
        assert wanted in text


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


def line_points(fig, colour):
    return [line.get_xydata() for ax in fig.axes for line in ax.lines
            if line.get_color() == colour]


def test_pictures_show_the_numbers_given():
    null = {"arm": "a", "statistic": "energy_shared", "observed": 500.0, "p_value": 0.001,
            "samples": np.linspace(0.1, 9, 999)}
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
        [{"arm": "a", "log_prior": x, "mean_score": 10 + 0.5 * x, "slope": 0.5}])
    [line] = line_points(fig, "black")
    assert line.tolist() == [[-5, -1], [-1, 1]]

    rising = [{"arm": "a", "popularity_weight": b,
               "values": {"ndcg@10": {"mean": b / 10}, "arp@10": {"mean": 100 * b}}}
              for b in (1.0, 0.0, 0.5)]
    fig = plots.accuracy_against_popularity(rising, ["a"])
    assert line_points(fig, plots.COLOURS[0])[0].tolist() == [[0, 0], [50, 0.05], [100, 0.1]]


def test_degenerate_pictures_are_still_drawn():
    plots.to_svg(plots.permutation_null([
        {"arm": "a", "statistic": "t", "observed": 1.0, "p_value": 1.0, "samples": [1.0, 1.0]}]))
    none = {"energy_total": {"mean": 0.0}, "energy_direction": {"mean": 0.0},
            "energy_shared": {"mean": 0.0}}
    plots.to_svg(plots.energy_by_arm([{"arm": "a", "popularity_weight": None, "values": none}]))
    plots.to_svg(plots.score_against_popularity(
        [{"arm": "a", "log_prior": [-1.0, -2.0], "mean_score": [0.0, 0.0], "slope": 0.0}]))
    plots.to_svg(plots.training_curves(
        [{"arm": "a", "seed": 0, "epoch": [1], "loss": [2.0], "valid": [None]}]))
