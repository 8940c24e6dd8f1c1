"""A randomised test part: what a comparison says of items shown at random, from its definition."""

import numpy as np
import pytest
from helpers_logs import small_log

import fastpop
from fastpop import evaluation
from fastpop.data import Interactions
from fastpop.data.split import event_halves
from fastpop.experiments.shown import Shown, judge_scores
from fastpop.training import TrainConfig
from fastpop.training.run import make_split

QUICK = {
    "epochs": 2,
    "dim": 8,
    "batch_size": 64,
    "num_negatives": 32,
    "learning_rate": 0.03,
    "seeds": 2,
    "permutations": 9,
    "arms": ["standard", "frozen"],
    "progress": False,
}


def parts():
    """(train, liked, shown, rated): ten items shown at random to each user. Some users have one event, so
    that half A of a seed does not know them; popular items are liked more often."""
    log = small_log(users=50, items=30, events=500)
    rng = np.random.default_rng(3)
    users = np.concatenate([log.user_ids, 1000 + np.arange(12)])
    lonely = 1000 + np.arange(12)
    ids = log.item_ids
    train = Interactions.from_arrays(
        np.concatenate([log.user_ids[log.user], lonely]),
        np.concatenate([ids[log.item], rng.choice(ids, len(lonely))]),
    )
    user = np.repeat(users, 10)
    item = np.concatenate([rng.choice(ids, 10, replace=False) for _ in users])
    counts = dict(zip(ids.tolist(), log.item_counts().tolist()))
    likes = rng.random(len(item)) < 0.1 + 0.6 * np.array([counts[i] > 12 for i in item.tolist()])
    shown = Interactions.from_arrays(user, item)
    liked = Interactions.from_arrays(user[likes], item[likes])
    rated = Interactions.from_arrays(
        train.user_ids[train.user],
        train.item_ids[train.item],
        weight=1.0 + np.asarray(train.item_ids[train.item]) % 5,
    )
    return train, liked, shown, rated


def auc(score_N, liked_N):
    """Over all pairs of a liked and another event, ties by halves."""
    yes, no = score_N[liked_N][:, None], score_N[~liked_N][None, :]
    return ((yes > no) + (yes == no) / 2).mean()


def test_rows_without_a_model_are_judged_on_the_users_of_the_arms():
    train, liked, shown, rated = parts()
    found = fastpop.compare(train, test=liked, shown=shown, rated=rated, **QUICK)
    split = make_split(train, liked, TrainConfig())
    pairs = set(zip(liked.user_ids[liked.user].tolist(), liked.item_ids[liked.item].tolist()))
    for seed in (0, 1):
        half, _ = event_halves(split.train, seed)
        count = dict(zip(half.item_ids.tolist(), half.item_counts().tolist()))
        known = set(half.user_ids[np.unique(half.user)].tolist())
        events = [
            (u, i)
            for u, i in zip(shown.user_ids[shown.user].tolist(), shown.item_ids[shown.item].tolist())
            if u in known
        ]
        assert len(events) < shown.num_events  # some users are in half B only
        likes = np.array([event in pairs for event in events])
        rating = {}
        for i in rated.item_ids.tolist():
            mine = rated.weight[rated.item_ids[rated.item] == i]
            rating[i] = mine.mean() if len(mine) else rated.weight.mean()
        for arm, score in (("popularity", count), ("item-mean", rating)):
            said = [
                row["values"]["auc_shown"]
                for row in found.rows
                if (row["arm"], row["seed"], row["popularity_weight"]) == (arm, seed, 1.0)
            ]
            expected = auc(np.array([score[i] for _, i in events], float), likes)
            assert said == pytest.approx([expected, expected], abs=1e-6), arm  # at both readings
    assert "Among items shown at random the best arm" in " ".join(found.sentences)
    assert {"auc_shown", "ndcg_shown@5"} <= found.rows[-1]["values"].keys()


def test_a_liked_event_that_was_not_shown_is_refused():
    train, liked, shown, _ = parts()
    few = shown.take(np.arange(shown.num_events) % 3 > 0)
    with pytest.raises(ValueError, match="test: expected events that are among shown"):
        fastpop.compare(train, test=liked, shown=few, **QUICK)
    with pytest.raises(TypeError, match="shown: expected Interactions"):
        fastpop.compare(train, test=liked, shown=3, **QUICK)
    with pytest.raises(ValueError, match="rated: expected a log with ratings for weights"):
        fastpop.compare(train, test=liked, shown=shown, rated=train, **QUICK)


def test_counts_of_what_was_liked_on_the_randomised_part_of_coat(shared_data):
    """What docs/comparison.md names: counted on the whole training part, not on half of it."""
    biased, liked = (
        fastpop.read_log(shared_data / f"coat.{part}.csv.gz", preset="coat", min_rating=4)
        for part in ("biased", "random")
    )
    log, shown = Shown.of(biased, liked, fastpop.read_log(shared_data / "coat.random.csv.gz", preset="coat"))
    got = judge_scores(evaluation.popularity_scorer(log.item_counts()), shown)
    assert got["auc_shown"] == pytest.approx(0.6225, abs=5e-4)
    assert got["ndcg_shown@5"] == pytest.approx(0.459, abs=5e-3)
