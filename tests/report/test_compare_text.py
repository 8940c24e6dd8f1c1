"""What a terminal shows of a comparison: every number where it belongs, in 80 columns."""

import re

import helpers_report
import pytest

from fastpop.report import comparison_text

MADE = helpers_report.comparison(num_items=200, seeds=(0, 1, 2))


def block(text, title):
    """The lines of the table of this title."""
    lines = text.splitlines()
    start = next(n for n, line in enumerate(lines) if line.startswith(title))
    rule = next(n for n in range(start, len(lines)) if lines[n].startswith("-----"))
    end = next((n for n in range(rule, len(lines)) if not lines[n]), len(lines))
    return lines[rule - 1 : end]


def row(lines, arm, nth=0):
    """The cells of the nth row of an arm."""
    return [line.split() for line in lines if line.split()[:1] == [arm]][nth][1:]


def renamed(made, name):
    """The comparison with frozen called otherwise."""

    def of(entries):
        return [{**entry, "arm": name} if entry["arm"] == "frozen" else entry for entry in entries]

    arms = [{**arm, "name": name} if arm["name"] == "frozen" else arm for arm in made["arms"]]
    lists = ("rows", "summary", "matched", "pairs", "differences")
    return {**made, "arms": arms, **{key: of(made[key]) for key in lists}}


@pytest.mark.parametrize("seeds", [(3,), (0, 1), (0, 1, 2), tuple(range(8))])
@pytest.mark.parametrize("num_items", [50, 100_000])
def test_text_fits_80_columns(seeds, num_items):
    made = helpers_report.comparison(num_items=num_items, seeds=seeds, shown=True)
    for name in ("frozen", "an arm with a name far too long for any table"):
        text = comparison_text(renamed(made, name))
        assert max(map(len, text.splitlines())) <= 80
    assert len(text.splitlines()) < 400


def test_sentences_and_rules_are_said():
    text = " ".join(comparison_text(MADE).split())
    for wanted in (
        MADE["headline"],
        *MADE["sentences"],
        "calibration: calibration not computed",
        "sampler: popularity^0.75",
    ):
        assert wanted in text


def test_both_readings_stand_one_under_the_other_and_references_once():
    lines = block(comparison_text(MADE), "Fit and accuracy")
    assert lines[0].split() == ["arm", "epochs", "NLL", "NDCG@10", "mid", "rec.", "coverage", "ARP"]
    headings = [line for line in lines if line.endswith(":")]
    assert headings == [
        "each at its own best epoch (validation NLL):",
        "at 6 epochs for all:",
        "made of standard at its best epoch, at beta 0:",
        "made of standard at 6 epochs, at beta 0:",
        "no model:",
    ]
    names = [line.split()[0] for line in lines[2:] if line[0] != " " and line not in headings]
    trained, made = list(helpers_report.ARMS)[:6], list(helpers_report.ARMS)[6:9]
    assert names == [*trained, *trained, *made, *made, "popularity", "recency", "markov"]


def test_the_numbers_are_the_means_of_the_rows():
    lines = block(comparison_text(MADE), "Fit and accuracy")
    for nth, epochs in enumerate(("best", "equal")):
        for arm, beta in (("frozen", 1.0), ("standard", 1.0), ("post-hoc", 0.0)):
            for place, metric in ((1, "nll"), (2, "ndcg@10"), (4, "coverage@10")):
                found = [
                    r["values"].get(metric)
                    for r in MADE["rows"]
                    if (r["arm"], r["epochs"], r["popularity_weight"]) == (arm, epochs, beta)
                ]
                shown = row(lines, arm, nth)[place]
                if None in found:
                    assert (arm, metric, shown) == ("post-hoc", "nll", "-")  # beta 0 is no model of p(i | c)
                else:
                    assert float(shown) == pytest.approx(sum(found) / len(found), abs=6e-4)
    assert row(lines, "frozen")[0] == "7.3"  # best epochs 7, 8, 7
    assert row(lines, "frozen", 1)[0] == "6.0"


def test_energies_geometry_and_matched_accuracy_are_there():
    text = comparison_text(MADE)
    lines = block(text, "Energy of the learned part s")
    assert lines[0].split() == ["arm", "total", "along", "off", "shared", "slope", "ampl.", "cos²"]
    slopes = [
        r["values"]["slope"]
        for r in MADE["rows"]
        if (r["arm"], r["epochs"], r["popularity_weight"]) == ("standard", "best", None)
    ]
    assert row(lines, "standard")[4:] == [f"{sum(slopes) / 3:.3f}", f"{sum(slopes) / 3 / 0.93:.3f}", "-"]
    total, along, off = (float(cell) for cell in row(lines, "frozen")[:3])
    assert total == pytest.approx(along + off, rel=0.01)
    assert row(lines, "post-hoc-fitted")[3] == "0"
    assert " ".join(block(text, "Geometry")[0].split()) == "arm R1 E R1 s rank E rank s cos E PC1 E PC1 s"
    lines = block(text, "Accuracy at equally popular lists: arm minus post-hoc")
    first = next(m for m in MADE["matched"] if m["arm"] == "frozen" and m["metric"] == "ndcg@10")
    cells = row(lines, "frozen")
    assert float(cells[0]) == pytest.approx(first["arp"], rel=0.01)
    assert cells[1] == f"{first['mean']:+.4f}"
    below = lines[lines.index(next(line for line in lines if line.startswith("frozen"))) + 1]
    half = (first["high"] - first["low"]) / 2
    assert half <= float(below.split()[0].strip("±")) <= half + 1e-4


def test_p_values_are_the_largest_over_seeds_with_their_floor_marked():
    text = comparison_text(MADE)
    lines = block(text, "p-values of the shared energy")
    assert row(lines, "frozen") == ["0.31", "0.62", "0.0005*", "0.0005*"]
    assert row(lines, "permuted") == ["0.0005*", "0.001", "0.003", "0.003"]  # (1 + 3 + 2) / 2001 of seed 2
    assert row(lines, "standard") == ["0.0005*", "0.001", "-", "-"]
    assert "*: the floor of 2,000 draws, 1/2,001: it could not be smaller" in " ".join(text.split())


def test_items_shown_at_random_have_a_table_where_there_are_some():
    assert "shown at random" not in comparison_text(MADE)
    made = helpers_report.comparison(num_items=200, seeds=(0, 1, 2), shown=True)
    lines = block(comparison_text(made), "Over the items that were shown at random")
    assert lines[0].split() == ["arm", "AUC", "NDCG@5"]
    assert [float(cell) for cell in row(lines, "popularity")] == pytest.approx([0.61, 0.45], abs=0.01)


def test_two_seeds_show_their_range_and_no_interval():
    made = helpers_report.comparison(num_items=200, seeds=(0, 1))
    text = comparison_text(made)
    assert not re.search(r"±\d", text)
    assert "Means of 2 seeds with the least and the most of them" in " ".join(text.split())
    assert "No intervals below 3 seeds" in text
    lines = block(text, "Fit and accuracy")
    at = next(n for n, line in enumerate(lines) if line.startswith("frozen"))
    assert [lines[at + n].split()[0] for n in (1, 2)] == ["least", "most"]
    found = [
        r["values"]["nll"]
        for r in made["rows"]
        if (r["arm"], r["epochs"], r["popularity_weight"]) == ("frozen", "best", 1.0)
    ]
    assert [float(lines[at + n].split()[1]) for n in (1, 2)] == pytest.approx(
        [min(found), max(found)], abs=5.1e-4
    )
    one = comparison_text(helpers_report.comparison(num_items=200, seeds=(4,)))
    assert not re.search(r"±\d|least", one.replace("the least and", ""))
    assert "One seed: no interval." in one


def test_without_a_test_part_there_is_no_accuracy():
    text = comparison_text(helpers_report.comparison(num_items=200, seeds=(0, 1, 2), test=False))
    assert "Fit and accuracy" not in text
    assert "equally popular" not in text
    assert row(block(text, "Energy of the learned part s"), "frozen")[4] != "-"


def test_without_a_validation_part_there_are_equal_epochs_alone():
    text = comparison_text(helpers_report.comparison(num_items=200, seeds=(0, 1, 2), valid=False))
    assert "best epoch" not in text
    lines = block(text, "Fit and accuracy")
    assert [line for line in lines if line.endswith(":")] == [
        "at 6 epochs for all:",
        "made of standard at 6 epochs, at beta 0:",
        "no model:",
    ]


def test_one_arm_alone():
    made = helpers_report.comparison(num_items=200, seeds=(0, 1, 2), arms=("standard",))
    text = comparison_text(made)
    assert "equally popular" not in text
    assert len(row(block(text, "Fit and accuracy"), "standard")) == 6
    assert row(block(text, "p-values"), "standard")[2:] == ["-", "-"]
