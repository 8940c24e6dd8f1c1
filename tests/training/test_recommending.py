"""Lists for users, for histories of anybody, of some items alone, and of similar items."""

import dataclasses
import warnings

import numpy as np
import pytest
import torch
from helpers_logs import small_log

import fastpop
from fastpop.popularity import PopularityPrior

QUICK = {"epochs": 1, "dim": 8, "num_layers": 1, "max_length": 6, "num_negatives": 16, "progress": False}
STRANGE = 10**6  # no item of the log


@pytest.fixture(scope="module")
def log():
    return small_log()


@pytest.fixture(scope="module")
def sequences(log):
    torch.set_num_threads(1)
    return fastpop.train(log, encoder="sasrec", **QUICK)


def scores(result, history, beta=1.0, lam=1.0):
    """[V] of one history of places, by the definition."""
    decoder = result.model.decoder
    with torch.no_grad():
        item_VD = decoder.item_vectors()
        query = result.model.encoder.eval().last(torch.tensor([-1]), torch.tensor([history[-6:]]), item_VD)
        s_V = (query @ item_VD.T)[0] * decoder.scale
        return (lam * s_V + (beta - decoder.prior.offset) * decoder.popularity_term()).double().numpy()


def best(score_V, k, without=()):
    return [i for i in np.argsort(-score_V, kind="stable").tolist() if i not in set(without)][:k]


def test_a_history_of_a_user_of_the_log_gives_the_list_of_the_user(sequences, log):
    users = log.user_ids[[3, 5]]
    histories = [log.decode_items(log.history(user)) for user in (3, 5)]
    mine, theirs = sequences.recommend(users, k=5), sequences.recommend(histories=histories, k=5)
    assert theirs.item.tolist() == mine.item.tolist()
    np.testing.assert_allclose(theirs.score, mine.score, rtol=1e-6)
    assert theirs.user.tolist() == [0, 1]
    named = sequences.recommend(["new", "newer"], k=5, histories=histories)
    assert named.user.tolist() == ["new", "newer"]
    assert sequences.recommend(histories=dict(zip("ab", histories)), k=5).user.tolist() == ["a", "b"]
    assert fastpop.recommend(sequences, histories=histories, k=5).item.tolist() == mine.item.tolist()


@pytest.mark.parametrize(("beta", "lam"), [(1.0, 1.0), (0.0, 1.0), (2.0, 0.25), (-1.0, 3.0)])
def test_both_weights_and_exclusions_are_those_of_the_definition(sequences, log, beta, lam):
    history = [4, 9, 2]
    want = scores(sequences, history, beta, lam)
    options = {"popularity_weight": beta, "personal_weight": lam, "k": 7}
    found = sequences.recommend(histories=[log.item_ids[history]], **options)
    assert log.encode_items(found.item[0].tolist()).tolist() == best(want, 7, history)
    np.testing.assert_allclose(found.score[0], want[best(want, 7, history)], rtol=1e-5)
    whole = sequences.recommend(histories=[log.item_ids[history]], exclude_seen=False, **options)
    assert log.encode_items(whole.item[0].tolist()).tolist() == best(want, 7)


def test_items_that_the_log_lacks_are_said_once(sequences, log):
    known = log.item_ids[[4, 9]].tolist()
    with pytest.warns(UserWarning, match="histories: 3 of 5 ids left out, 1000000 and 2 more") as told:
        found = sequences.recommend(
            histories=[[STRANGE, *known], [STRANGE, STRANGE]], deny=[STRANGE], allow=log.item_ids, k=3
        )
    assert len(told) == 1
    assert "deny: 1 of 1" in str(told[0].message)
    assert found.facts == {"histories": 3, "deny": 1, "without_history": [1]}
    clean = sequences.recommend(histories=[known], k=3)
    assert found.item[0].tolist() == clean.item[0].tolist()
    with pytest.raises(ValueError, match="histories: expected ids of items of the log; got 1000000 of 1"):
        sequences.recommend(histories=[[STRANGE]], unknown="error")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert sequences.recommend(histories=[[STRANGE]], unknown="ignore").facts["histories"] == 1
    with pytest.raises(ValueError, match="unknown: expected one of 'warn', 'error', 'ignore'"):
        sequences.recommend(histories=[[STRANGE]], unknown="silent")


def test_without_a_known_item_log_p_alone_is_served(sequences, log):
    log_p_V = sequences.prior.log_prior_V
    found = sequences.recommend(histories=[[], log.item_ids[[1, 2]]], k=4, popularity_weight=0.5)
    assert log.encode_items(found.item[0].tolist()).tolist() == best(log_p_V, 4)
    np.testing.assert_allclose(found.score[0], 0.5 * log_p_V[best(log_p_V, 4)], rtol=1e-6)
    assert found.facts["without_history"] == [0]
    assert (
        found.item[1].tolist()
        == sequences.recommend(histories=[log.item_ids[[1, 2]]], k=4, popularity_weight=0.5).item[0].tolist()
    )
    with pytest.raises(ValueError, match="popularity_weight: expected another number than 0 for a history"):
        sequences.recommend(histories=[[]], popularity_weight=0)


def test_without_a_prior_in_training_a_new_user_is_served_log_p_too(log):
    result = fastpop.train(log, encoder="bag", prior="none", **QUICK)
    found = result.recommend(histories=[[]], k=3)
    assert log.encode_items(found.item[0].tolist()).tolist() == best(result.prior.log_prior_V, 3)


def test_an_encoder_of_users_refuses_histories(log):
    result = fastpop.train(log, encoder="factor", **QUICK)
    with pytest.raises(ValueError, match=r"histories: expected None with the encoder 'factor'.* got 1"):
        result.recommend(histories=[log.item_ids[:2]])
    assert result.recommend(log.user_ids[:1], k=2, deny=log.item_ids[2:]).item.tolist() != []


def test_allow_deny_and_candidates(sequences, log):
    history = [4, 9, 2]
    want, asked = scores(sequences, history), [log.item_ids[history]]
    rng = np.random.default_rng(0)
    some, bad = rng.permutation(log.num_items)[:12], [7, 11]
    mask = np.isin(np.arange(log.num_items), some)
    for allow in (log.item_ids[some], mask):
        found = sequences.recommend(histories=asked, allow=allow, deny=log.item_ids[bad], k=5)
        left = [i for i in best(want, log.num_items, [*history, *bad]) if i in some]
        assert log.encode_items(found.item[0].tolist()).tolist() == left[:5]
    picked = [30, 4, 12, 12, 7]
    found = sequences.recommend(
        histories=asked * 2, candidates=[log.item_ids[picked], log.item_ids[[1]]], deny=log.item_ids[bad], k=4
    )
    rest = [i for i in best(want, log.num_items, [*history, *bad]) if i in picked]
    assert log.encode_items([i for i in found.item[0] if i is not None]).tolist() == rest
    assert found.item[1].tolist() == [log.item_ids[1], None, None, None]
    np.testing.assert_allclose(found.score[0][: len(rest)], want[rest], rtol=1e-5)
    assert np.isneginf(found.score[1][1:]).all()
    every = sequences.recommend(histories=asked, candidates=[log.item_ids], k=6)
    assert every.item.tolist() == sequences.recommend(histories=asked, k=6).item.tolist()


def test_candidates_of_somebody_elses_function(log):
    rng = np.random.default_rng(0)
    score_CV = rng.integers(0, 4, (2, log.num_items)).astype(float)
    picked = [[5, 3, 9, 3], [8]]
    for model in (lambda cases: score_CV[cases.user], (score_CV, np.eye(log.num_items))):
        cases = fastpop.data.Cases.of([[9], []], [[], []], log.num_items, user=[0, 1])
        found = fastpop.recommend(model, cases, k=3, candidates=picked)
        order = sorted([5, 3], key=lambda i: (-score_CV[0, i], i))
        assert found.item.tolist() == [[*order, None], [8, None, None]]
        allowed = fastpop.recommend(model, cases, k=2, allow=[1, 2, 3], deny=[2]).item.tolist()
        assert set(allowed[0]) == {1, 3}


def test_todays_log_p_for_one_call(sequences, log):
    history, counts = [4, 9, 2], np.arange(1.0, log.num_items + 1)
    prior = PopularityPrior.from_counts(counts, smoothing=sequences.config.smoothing)
    asked = {"histories": [log.item_ids[history]], "k": 5}
    want = sequences.refresh_prior(counts).recommend(**asked)
    before = sequences.recommend(**asked).item.tolist()
    for log_p in (prior, prior.log_prior_V, torch.tensor(prior.log_prior_V)):
        found = sequences.recommend(log_p=log_p, **asked)
        assert found.item.tolist() == want.item.tolist()
    assert sequences.recommend(**asked).item.tolist() == before
    assert want.item.tolist() != before
    with pytest.raises(ValueError, match=r"log_p: expected shape \[39\]"):
        sequences.recommend(log_p=np.zeros(3), **asked)
    with pytest.raises(ValueError, match="log_p: expected a run with prior 'none', 'frozen' or 'by-period'"):
        fastpop.train(log, encoder="bag", prior="learned", **QUICK).recommend(log_p=prior, **asked)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({}, ValueError, "users: expected ids of users of the log, or histories="),
        (
            {"histories": [3, 6]},
            TypeError,
            "histories: expected a list of lists of item ids; got 3 as list 0",
        ),
        ({"histories": ["36"]}, TypeError, "histories: expected a list of lists of item ids; got '36'"),
        ({"histories": [["3"]]}, TypeError, "histories: expected ids of items that are whole numbers"),
        ({"histories": [[3]], "users": ["a", "b"]}, ValueError, "users: expected 1 names, one a history"),
        ({"histories": {"a": [3]}, "users": ["a"]}, ValueError, "users: expected None beside a dict"),
        ({"histories": [[3]], "candidates": [[3], [6]]}, ValueError, "candidates: expected 1 lists"),
        ({"histories": [[3]], "allow": []}, ValueError, "allow: expected at least one item"),
        ({"histories": [[3]], "allow": np.ones(3, bool)}, ValueError, r"allow: expected shape \[39\]"),
        ({"histories": [[3]], "titles": 3}, TypeError, "titles: expected a path, a table"),
    ],
)
def test_what_is_wrong_is_named(sequences, options, error, message):
    with pytest.raises(error, match=message):
        sequences.recommend(**options)


def test_similar_items_are_those_of_the_largest_cosine(sequences, log):
    item_VD = sequences.model.decoder.item_vectors().detach().double().numpy()
    unit_VD = item_VD / np.linalg.norm(item_VD, axis=1, keepdims=True)
    cosine_V = unit_VD @ unit_VD[5]
    found = sequences.similar_items(log.item_ids[[5]], k=6)
    assert log.encode_items(found.item[0].tolist()).tolist() == best(cosine_V, 6, [5])
    np.testing.assert_allclose(found.score[0], cosine_V[best(cosine_V, 6, [5])], atol=1e-6)
    assert found.csv().splitlines()[0] == "similar_to,rank,item,score"
    assert found.table().splitlines()[0] == "top 6 similar items, popularity weight 0"
    mixed_V = cosine_V + 0.3 * sequences.prior.log_prior_V
    mixed = sequences.similar_items(log.item_ids[5], k=4, popularity_weight=0.3, deny=log.item_ids[[1]])
    assert log.encode_items(mixed.item[0].tolist()).tolist() == best(mixed_V, 4, [5, 1])
    with pytest.raises(ValueError, match="items: expected ids of this log"):
        sequences.similar_items([STRANGE])


def test_titles_stand_in_tables_and_files(sequences, log):
    titles = {int(one): f"The {one}\x1b[2J" for one in log.item_ids[::2]}
    with pytest.warns(UserWarning, match="^titles for ") as told:
        found = sequences.recommend(log.user_ids[:1], k=40, titles=titles)
    one = [item for item in found.item[0] if item is not None]
    there = sum(item in titles for item in one)
    assert [str(each.message) for each in told] == [
        f"titles for {there} of {len(one)} items; the others are shown by their ids"
    ]
    text = found.table()
    assert "\x1b" not in text
    for item in one:
        line = f"    The {item}\\x1b[2J ({item})" if item in titles else f"    {item}"
        assert line in text.splitlines()
    rows = found.csv().splitlines()
    assert rows[0] == "user,rank,item,score,title"
    assert len(rows) == 1 + len(one)
    listed = found.to_dicts()[0]
    assert [entry["id"] for entry in listed["items"]] == one
    assert listed["items"][0]["title"] == titles.get(one[0])


def test_titles_of_other_items_are_an_error_and_of_others_than_are_shown_a_note(sequences, log):
    (user,), last = log.user_ids[:1], int(log.item_ids[-1])
    with pytest.raises(
        ValueError,
        match=rf"^titles: expected a table by ids of items, as '{log.item_ids[0]}'; got titles for 0 of "
        rf"{log.num_items} items, by ids as 'tt1'$",
    ):
        sequences.recommend([user], k=3, titles={"tt1": "First"})
    shown = sequences.recommend([user], k=3).item[0].tolist()
    other = next(int(one) for one in log.item_ids if one not in shown)
    with pytest.warns(UserWarning, match=rf"^titles for 1 of {log.num_items} items; the others"):
        found = sequences.recommend([user], k=3, titles={other: "Elsewhere"})
    assert found.title.tolist() == [[None] * 3]
    with pytest.raises(ValueError, match=r"got titles for 0 of 1 items, by ids as 'tt1'$"):
        sequences.similar_items(last, k=1).with_titles({"tt1": "First"})


def test_a_long_title_leaves_the_id_whole_and_the_line_within_80_columns(sequences, log):
    titles = {int(one): f"{one} " + "very long " * 20 for one in log.item_ids}
    found = sequences.recommend(log.user_ids[:1], k=2, titles=titles)
    lines = found.table().splitlines()
    for item, line in zip(found.item[0], lines[2:4], strict=True):
        assert len(line) <= 80
        assert line.startswith(f"    {item} very long")
        assert line.endswith(f"… ({item})")
    shown = found._repr_html_()
    assert f'<span title="{titles[found.item[0][0]]}">' in shown
    long = dataclasses.replace(found, user=np.array(["u" * 200]), title=None)
    lines = long.table().splitlines()
    assert lines[1] == "  " + "u" * 77 + "…"
    assert lines[2] == "    " + " ".join(map(str, found.item[0]))
