"""What a few users are shown: the lists of the scores that are judged."""

import numpy as np
import torch

from fastpop.data import Cases
from fastpop.diagnostics import ScoreMoments
from fastpop.experiments import examples
from fastpop.experiments.served import Served


def problem():
    rng = np.random.default_rng(0)
    query, items = rng.standard_normal((7, 3)), rng.standard_normal((20, 3))
    histories = [rng.choice(20, size, replace=False).tolist() for size in (5, 1, 9, 3, 7, 2, 0)]
    cases = Cases.of(histories, [[place] for place in range(7)], 20, user=range(7))
    return query, items, histories, cases, rng.standard_normal(20)


def test_users_of_a_short_a_middling_and_a_long_history_are_chosen():
    *_, cases, _ = problem()
    assert [len(cases.history(case)) for case in examples.chosen(cases)] == [1, 3, 5]
    assert examples.chosen(cases.take([2])).tolist() == [0]


def test_lists_are_of_the_scores_at_each_beta_less_what_was_seen():
    query, items, histories, cases, log_prior_V = problem()
    moments = ScoreMoments.of(query, items)
    query_CD = torch.from_numpy(query).float()
    found = examples.lists([Served("frozen", moments, log_prior_V)], query_CD, cases, True)
    assert list(found) == [("frozen", 1.0), ("frozen", 0.0)]
    places = examples.chosen(cases)
    for (_, beta), rows in found.items():
        score_CV = query[places] @ items.T + beta * log_prior_V
        for row, place, score_V in zip(rows, places, score_CV, strict=True):
            left = [item for item in np.argsort(-score_V) if item not in histories[place]]
            assert row == left[: examples.SHOWN]
    family = [Served("standard", moments, None), Served("post-hoc", moments, log_prior_V)]
    found = examples.lists(family, query_CD, cases, False)
    assert list(found) == [("standard", 1.0), ("post-hoc", 0.0)]
    assert found["standard", 1.0] == found["post-hoc", 0.0]
    assert found["standard", 1.0][0] == np.argsort(-(query[places[0]] @ items.T))[: examples.SHOWN].tolist()


def test_what_is_kept_gets_ids_and_then_titles():
    *_, cases, _ = problem()
    kept = examples.kept(cases, {("a", 1.0): [[3], [4], [5, 6]]})
    assert [example["num_events"] for example in kept] == [1, 3, 5]
    named = examples.with_ids(kept, np.arange(100, 120))
    assert named[2]["lists"] == [
        {"arm": "a", "popularity_weight": 1.0, "items": [{"id": "105"}, {"id": "106"}]}
    ]
    titled = examples.with_titles(named, examples.Titles({"106": "Six"}))
    assert titled[2]["lists"][0]["items"] == [{"id": "105"}, {"id": "106", "title": "Six"}]
    # Another table takes the place of the first.
    again = examples.with_titles(titled, examples.Titles({"105": "Five"}))
    assert again[2]["lists"][0]["items"] == [{"id": "105", "title": "Five"}, {"id": "106"}]
