"""Logs on which a fresh log p has little to save, and one without times, where there is nothing to ask."""

import pytest

import fastpop
from fastpop.studies.drift import Weeks


def test_a_log_without_times_is_not_asked_about_drift(shared_data):
    path = shared_data / "steam200k.game_purchase.dat.gz"
    log = fastpop.read_log(path, user="User_ID", item="Game_ID")
    assert log.time is None
    for name in ("drift", "periods"):
        with pytest.raises(ValueError, match=r"^log: expected events with times, which .* asks about; got a"):
            fastpop.experiment(name, log, quick=True)


@pytest.mark.slow
def test_where_popularity_hardly_drifts_a_fresh_log_p_saves_little(shared_data):
    """MovieLens: twenty years of the same films. MovieTweetings' .6 nats are those of new ones."""
    log = fastpop.read_log(shared_data / "ml-latest-small-2016.ratings.csv.gz", preset="movielens-csv")
    last = int((log.time.max() - log.time.min()) // (7 * 86_400)) - 1
    weeks = Weeks.of(log, last - 8, 10**9)
    total = dict.fromkeys(("static", "cumulative", "recency"), 0.0)
    for week in (weeks.first, weeks.first + 4, weeks.last):
        target = weeks.cases(week, 0).target_item
        for name, log_prior_V in weeks.priors(week).items():
            total[name] -= float(log_prior_V[target].mean()) / 3
    assert abs(total["static"] - total["recency"]) < 0.3
    assert abs(total["static"] - total["cumulative"]) < 0.05
