"""Numbers with their intervals: nothing claimed that was not found, nothing beyond what a metric can be."""

import math
import re

import numpy as np
import pytest

from fastpop.experiments import findings
from fastpop.report.cells import EACH, Cell, interval_cells, p_cell
from fastpop.report.glossary import bounds


def cells(key, values, decimals=None, **options):
    """The column of arms with these values over seeds."""
    return interval_cells(key, [findings.interval(key, list(one)) for one in values], decimals, **options)


def test_the_numbers_of_a_column_share_their_decimals():
    assert [cell.value for cell in cells("ndcg@10", [[0.1473], [0.00171], [0.08]])] == [
        "0.1473",
        "0.0017",
        "0.0800",
    ]
    assert [cell.value for cell in cells("arp@10", [[438.3], [7.96]])] == ["438", "8"]
    assert [cell.value for cell in cells("arp@10", [[43.83], [7.96]])] == ["43.8", "8.0"]
    assert [cell.value for cell in cells("ndcg@10", [[6.12e-4], [5e-6]])] == ["0.000612", "0.000005"]
    assert [cell.value for cell in cells("nll", [[7.23456], [math.nan]], 3)] == ["7.235", "-"]
    assert [cell.value for cell in cells("slope", [[-1e-17], [-0.4412]], 3)] == ["0.000", "-0.441"]


def test_energies_keep_three_digits_each_and_rounding_is_0():
    for values, shown in (
        ((12127.3, 104.2, 0.00383, 3e-13), ["12127", "104", "0.00383", "0"]),
        ((19.0, 4.7, 0.0), ["19.0", "4.70", "0"]),
    ):
        assert [cell.value for cell in cells("energy_shared", [[one] for one in values], EACH)] == shown


def test_half_widths_are_rounded_up_and_never_to_nothing():
    entry = {"mean": 7.0, "low": 6.9999, "high": 7.0001, "n": 5}
    assert interval_cells("nll", [entry], 3) == [Cell("7.000", "±0.001")]
    assert interval_cells("nll", [{"mean": 7.0, "low": 6.9888, "high": 7.0112, "n": 5}], 3) == [
        Cell("7.000", "±0.012")
    ]
    assert interval_cells("energy_total", [{"mean": 104.0, "low": 62.9, "high": 145.1}], EACH) == [
        Cell("104", "±42")
    ]


def test_two_seeds_show_the_least_and_the_most_of_them_and_one_seed_nothing():
    """A t interval of two seeds is 12.7 standard errors wide: "recall .16 ± 1.6"."""
    assert cells("recall@10", [[0.06, 0.26]]) == [Cell("0.1600", "", "0.0600", "0.2600")]
    assert cells("recall@10", [[0.06]]) == [Cell("0.0600")]


def test_an_interval_ends_where_the_metric_ends():
    assert cells("coverage@10", [[0.99, 0.9, 1.0]], 3)[0].spread == "≥0.826"  # .82651
    assert cells("ndcg@10", [[0.01, 0.0, 0.0]])[0].spread == "≤0.01768"
    assert cells("recall@10", [[0.0, 1.0, 0.5]])[0].spread == "any"
    raw = {"mean": 0.16, "low": -1.44, "high": 1.76, "n": 3}  # not cut by who made it
    assert interval_cells("recall@10", [raw], None)[0].spread == "any"
    assert interval_cells("slope", [raw], 2)[0].spread == "±1.60"
    assert interval_cells("recall@10", [raw], 2, signed=True)[0].spread == "any"
    assert interval_cells("recall@10", [{"mean": 0.2, "low": 0.1, "high": 0.6}], 1)[0].spread == "[0.1, 0.6]"


@pytest.mark.parametrize("key", ["ndcg@10", "cos2_change", "popularity_correlation@10", "energy_shared"])
def test_no_half_width_reaches_beyond_what_the_metric_can_be(key):
    rng = np.random.default_rng(0)
    least, most = bounds(key)
    for _ in range(300):
        values = np.clip(rng.normal(rng.uniform(-1, 1), rng.uniform(0, 1), 3), least, most)
        [cell] = cells(key, [values], 6)
        found = re.fullmatch(r"±(.*)", cell.spread)
        if found:
            assert float(cell.value) - float(found[1]) >= least - 2e-6
            assert float(cell.value) + float(found[1]) <= most + 2e-6


def test_differences_have_signs():
    entries = [
        {"mean": 0.012, "low": -0.03, "high": 0.054},
        {"mean": -0.2, "low": -0.3, "high": -0.1},
        {"mean": 1e-9, "low": None, "high": None},
        None,
    ]
    assert [(cell.value, cell.spread) for cell in interval_cells("ndcg@10", entries, 3, signed=True)] == [
        ("+0.012", "±0.042"),
        ("-0.200", "±0.100"),
        ("0.000", ""),
        ("-", ""),
    ]


def test_what_is_equal_in_all_seeds_has_no_interval():
    assert cells("amplitude", [[1.0, 1.0, 1.0], [0.1, 0.2, 0.3]], 3)[0] == Cell("1.000")
    assert cells("slope", [[1e-17, -2e-17, 1e-18], [1.0, 1.1, 1.2]], 3)[0] == Cell("0.000")


def test_infinities_are_said_as_a_file_has_them():
    entries = [
        {"mean": math.inf, "low": math.nan, "high": math.nan},
        {"mean": "inf", "low": None, "high": None},
        {"mean": None},
    ]
    assert [cell.value for cell in interval_cells("nll", entries, 3)] == ["inf", "inf", "-"]


@pytest.mark.parametrize(
    ("value", "draws", "shown"),
    [
        (1 / 100, 99, "0.01*"),
        (2 / 100, 99, "0.02"),
        (1 / 2001, 2000, "0.0005*"),
        (2 / 2001, 2000, "0.001"),
        (1.0, 99, "1.00"),
        (0.3, 99, "0.30"),
        (1 / 100, 0, "0.01"),
        (None, 99, "-"),
        (math.nan, 99, "-"),
    ],
)
def test_a_p_value_at_its_floor_is_marked(value, draws, shown):
    assert p_cell(value, draws) == shown
