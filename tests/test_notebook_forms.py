"""What a notebook shows of a result: whole HTML, nothing of the log as HTML, the numbers of the table."""

import re
from html import unescape

import numpy as np
import pytest
from helpers_page import Page

import fastpop
from fastpop.text import html_table

NASTY = '<img src="x" onerror="alert(1)">'

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def result():
    pytest.importorskip("duckdb", reason="duckdb, which reads logs, is not installed")
    rng = np.random.default_rng(0)
    items = np.array([f"{NASTY}{n}" for n in range(25)], dtype=object)
    users = np.array([f"<b>{n}" for n in range(30)], dtype=object)
    log = fastpop.read_log(
        {
            "u": users[rng.integers(0, 30, 900)],
            "i": items[rng.zipf(1.5, 900) % 25],
            "t": np.arange(900) + 10**9,
        },
        user="u",
        item="i",
        time="t",
    )
    return fastpop.train(
        log, encoder="factor", dim=4, epochs=2, evaluate_every=1, num_negatives=8, progress=False
    )


def forms(result):
    yield result
    yield result.evaluate()
    yield result.audit(permutations=9)
    yield result.recommend(result.log.user_ids, k=12)
    yield result.fit_serving().serving
    yield fastpop.popularity.recency_counts(result.log, horizon=100)


@pytest.mark.filterwarnings("ignore:.*do not show that it helps beside popularity:UserWarning")
def test_every_form_is_whole_and_says_nothing_of_the_log_as_html(result):
    for one in forms(result):
        page = one._repr_html_()
        Page(page)  # fails on tags that are not closed
        assert "<img" not in page, type(one)
        assert "<b>1" not in page, type(one)


def test_an_evaluation_shows_the_numbers_of_its_table(result):
    judged = result.evaluate()
    page = judged._repr_html_()
    cells = re.findall(r"<td>(.*?)</td>", page)
    assert [one for one in judged.table().split() if re.fullmatch(r"-?\d+\.\d{4}", one)] == [
        one for one in cells if one != "-"
    ]
    assert judged.rule in unescape(page)


def test_recommendations_show_the_first_users_and_say_of_how_many(result):
    shown = result.recommend(result.log.user_ids, k=12)._repr_html_()
    assert shown.count("<tr>") == 21
    assert "top 12 items, popularity weight 1 (10 here), 20 of 30 users" in shown
    assert unescape(re.findall(r"<td>(.*?)</td>", shown)[0]).startswith(NASTY)


def test_a_table_has_a_heading_for_each_column_and_row():
    page = html_table(["a", "b"], [["x", "1 < 2"]], "what & why")
    assert re.findall(r"<th>(.*?)</th>", page) == ["a", "b", "x"]
    assert "<caption>what &amp; why</caption>" in page
    assert "<td>1 &lt; 2</td>" in page
