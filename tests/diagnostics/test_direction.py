"""Where log p has no direction, an audit says so once and says nothing of significance."""

import numpy as np
import pytest

import fastpop
from fastpop.diagnostics import audit, weak_direction
from fastpop.popularity.prior import PopularityPrior

WORDS = ("associated", "significant", "p = ", "floor", "beyond relabelling")


def tables(num_items, seed=0):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((60, 5)) + 0.3, rng.standard_normal((num_items, 5))


def flat(num_items=300):
    """Counts that vary by chance only: the fitted alpha runs to its upper end."""
    return np.random.default_rng(0).poisson(3, num_items)


@pytest.mark.parametrize(
    ("counts", "options", "words"),
    [
        (flat(), {}, "log p has no direction here: its alpha ran to the largest that is tried"),
        (flat(), {"smoothing": 1e4}, r"by 0\.00017 nats \(root mean square\), less than 0\.05"),
        (
            [2, 4, 8, 16, 32, 0, 0, 0],
            {},
            "its alpha ran to the least that is tried, .* the 3 unseen items stand",
        ),
    ],
)
def test_a_direction_that_is_noise_is_warned_of_once(counts, options, words):
    query, items = tables(len(counts))
    with pytest.warns(UserWarning, match=words) as caught:
        found = audit(query, items, counts, permutations=99, **options)
    assert len(caught) == 1
    assert caught[0].filename == __file__
    text = " ".join(found.table().split())
    assert f"Caution: {found.no_direction}." in text
    assert "No p-values are shown" in text
    for word in WORDS:
        assert word not in text
    assert found.to_dict()["no_direction"] == found.no_direction
    assert found.p_value_shared is not None  # the number is there for who knows what it is


@pytest.mark.parametrize("spread", [0.049, 0.051])
def test_the_rule_is_the_root_mean_square_of_log_p(spread):
    step = np.resize([1.0, -1.0], 400)
    prior = PopularityPrior.from_counts(1e6 * np.exp(spread * step), smoothing=0.0)
    assert (weak_direction(prior) is None) == (spread > 0.05)


def test_a_part_of_the_catalogue_has_a_direction_of_its_own():
    # 200 items of 40 events each beside a popular few: over the 200 alone nothing is left of log p.
    counts = np.concatenate([np.full(200, 40), [4000, 900, 2500, 7000, 1]])
    query, items = tables(205)
    assert audit(query, items, counts, permutations=0).no_direction is None
    counts[:100] += 1
    with pytest.warns(UserWarning, match="differs between items by 0.012 nats"):
        audit(query, items, counts, permutations=0, subset=np.arange(200))
    # The lower end matters for unseen items only.
    counts = np.array([2, 4, 8, 16, 32, 0, 0, 0])
    query, items = tables(8)
    assert audit(query, items, counts, permutations=0, min_count=1).no_direction is None


def test_an_ordinary_log_has_a_direction():
    prior = PopularityPrior.from_interactions(fastpop.data.bundled_log())
    assert weak_direction(prior) is None


def test_the_tianchi_slice_has_none(shared_data):
    path = shared_data / "tianchi-mobile-2k.csv.gz"
    if not path.exists():
        pytest.skip("no tianchi-mobile-2k.csv.gz")
    log = fastpop.read_log(path, preset="alibaba-mobile")
    query, items = tables(log.num_items)
    with pytest.warns(UserWarning, match="log p has no direction here: its alpha ran") as caught:
        found = audit(query, items, log.item_counts(), permutations=99)
    assert len(caught) == 1
    for word in WORDS:
        assert word not in found.table()
