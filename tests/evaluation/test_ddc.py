"""Popularity's direction corrected in finished vectors: by loops, and on worlds where the answer is known."""

import math

import numpy as np
import pytest
import torch

import fastpop
from fastpop.data.interactions import Interactions
from fastpop.evaluation import Tables, ddc
from fastpop.evaluation.ddc import own_directions, popular_direction

U, V, D = 7, 48, 5
rng = np.random.default_rng(0)
USER = np.repeat(np.arange(U), [9, 1, 4, 20, 12, 0, 14])
LOG = Interactions.from_arrays(
    USER,
    np.concatenate([rng.choice(V, n, replace=False, p=(w := 1 / np.arange(1, V + 1)) / w.sum())
                    for n in np.bincount(USER, minlength=U)]),
    item_ids=np.arange(V), user_ids=np.arange(U),
)  # fmt: skip
QUERY, ITEMS = (torch.randn(n, D, generator=torch.Generator().manual_seed(n)) for n in (U, V))


def by_loops(share, weight, learning_rate, epochs, seed):
    """Event by event in float64, with autograd and torch's Adam for nothing but the two numbers."""
    random = torch.Generator().manual_seed(seed)
    query, items = QUERY.double(), ITEMS.double()
    count = LOG.item_counts()
    order = sorted(range(V), key=lambda item: (count[item], item))
    rare, frequent = order[: V // 4], order[-(V // 4) :]
    rare, frequent = (
        [one[at] for at in torch.randperm(V // 4, generator=random)] for one in (rare, frequent)
    )
    apart = np.array([(items[high] - items[low]).numpy() for high, low in zip(frequent, rare)])
    axis = np.linalg.svd(apart)[2][0]
    pop = torch.tensor(axis * np.sign(axis @ apart.mean(0)))
    own = []
    for user in range(U):
        mine = sorted(map(int, LOG.history(user)), key=lambda item: -float(query[user] @ items[item]))
        best = mine[: max(1, int(len(mine) * share))]
        total = sum((items[item] / items[item].norm() for item in best), torch.zeros(D).double())
        own.append(total / max(float(total.norm()), 1e-12))
    both = torch.zeros(2, U, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.Adam([both], lr=learning_rate)
    for _ in range(epochs):
        others = torch.randint(V, (len(USER),), generator=random)
        loss = torch.zeros(()).double()
        for user, item, other in zip(LOG.user.tolist(), LOG.item.tolist(), others.tolist()):
            length = query[user].norm()
            for_own = query[user] + length * both[1, user] * own[user]
            for_pop = query[user] + length * both[0, user] * pop
            gap = for_own @ items[item] - for_pop @ items[other]
            loss = loss + torch.log1p(torch.exp(-gap)) + weight * (both[:, user] ** 2).sum()
        optimizer.zero_grad()
        (loss / len(USER)).backward()
        optimizer.step()
    alpha, beta = both.detach()
    moved = alpha[:, None] * pop + beta[:, None] * torch.stack(own)
    return query + query.norm(dim=1, keepdim=True) * moved


@pytest.mark.parametrize(
    "options",
    [
        {"share": 0.3, "weight": 1e-4, "learning_rate": 0.05, "epochs": 6, "seed": 3},
        {"share": 1.0, "weight": 0.5, "learning_rate": 0.2, "epochs": 3, "seed": 0},
    ],
)
def test_equals_the_loss_written_down_event_by_event(options):
    found = ddc(QUERY, ITEMS, LOG, **options)
    torch.testing.assert_close(found.query.double(), by_loops(**options), rtol=0, atol=2e-6)
    assert torch.equal(found.table, ITEMS)


def test_a_user_without_events_and_a_great_weight_stay_as_they_were():
    assert torch.equal(ddc(QUERY, ITEMS, LOG).query[5], QUERY[5])
    far = ddc(QUERY, ITEMS, LOG, epochs=300).query - QUERY
    near = ddc(QUERY, ITEMS, LOG, epochs=300, weight=1e3).query - QUERY
    assert near.norm() < 1e-3 * far.norm()


def test_the_direction_of_planted_popularity_is_found_and_points_at_frequent_items():
    planted = torch.nn.functional.normalize(torch.tensor([1.0, -2, 0, 1, 0.5]), dim=0)
    counts = torch.arange(1, 401)
    for sign in (1, -1):
        items = 0.1 * torch.randn(400, D, generator=torch.Generator().manual_seed(1))
        items += sign * counts[:, None].log() * planted
        found = popular_direction(items, counts, torch.Generator().manual_seed(0))
        assert math.isclose(float(found @ planted), sign, abs_tol=1e-3)


def test_own_directions_take_the_best_share_and_at_least_one():
    items = torch.eye(4)
    user, item = torch.tensor([0, 0, 0, 0, 1]), torch.tensor([0, 1, 2, 3, 2])
    score = torch.tensor([0.1, 0.9, 0.3, 0.8, -5.0])
    found = own_directions(items, user, item, score, 3, share=0.5)
    half = math.sqrt(0.5)
    torch.testing.assert_close(found, torch.tensor([[0, half, 0, half], [0, 0, 1.0, 0], [0, 0, 0, 0]]))


def test_the_same_from_tuples_arrays_and_any_number_of_threads():
    first = ddc(QUERY, ITEMS, LOG, seed=1)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        with torch.inference_mode():
            again = ddc(QUERY.numpy(), ITEMS.numpy(), LOG, seed=1)
    finally:
        torch.set_num_threads(threads)
    torch.testing.assert_close(again.query, first.query, rtol=1e-5, atol=1e-6)
    assert not torch.equal(ddc(QUERY, ITEMS, LOG, seed=2).query, first.query)
    assert isinstance(first, Tables)


def test_it_is_evaluated_and_recommended_from():
    log = fastpop.synthetic.TwinBlock(10, 6, 1.0, 1.2).sample_events(200, 12, seed=0)
    result = fastpop.train(
        log, encoder="factor", loss="bpr", dim=8, epochs=2, prior="none", base=False, progress=False
    )
    query = result.model.encoder.user_embedding.detach()
    found = ddc(query, result.model.items(), result.split.train, epochs=20)
    counts = result.split.train.item_counts()
    assert 0 < fastpop.evaluate(found, result.split.test, counts=counts).metrics["ndcg@10"] < 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"share": 0}, "share: expected a finite number > 0"),
        ({"weight": -1}, "weight: expected"),
        ({"epochs": 0}, "epochs: expected"),
        ({"learning_rate": 0}, "learning_rate: expected"),
        ({"query": QUERY[:3]}, "query: expected 7 rows, as the log has; got 3"),
        ({"items": ITEMS[:9]}, "items: expected 48 rows"),
        ({"query": QUERY[0]}, "query: expected"),
        ({"query": QUERY[:, :4]}, "query: expected 5 dimensions, as items; got 4"),
        ({"query": torch.full((U, D), math.nan)}, r"query: expected finite numbers; got nan at \[0, 0\]"),
        ({"items": torch.full((V, D), math.inf)}, "items: expected finite numbers; got inf"),
        ({"query": QUERY.double() * 1e300}, "query: expected"),
        ({"query": QUERY * 1e30, "items": ITEMS * 1e30}, "query: expected vectors whose products"),
        ({"query": None}, "query: expected"),
        ({"query": QUERY + 1j}, "query: expected"),
        ({"log": None}, "log: expected Interactions"),
        ({"seed": -1}, "seed: expected"),
        ({"seed": "a"}, "seed: expected"),
        ({"learning_rate": 1e38}, "learning_rate: expected"),
    ],
)
def test_errors_name_the_argument(change, message):
    with pytest.raises((ValueError, TypeError), match=f"^{message}"):
        ddc(**{"query": QUERY, "items": ITEMS, "log": LOG} | change)


def test_too_few_items_for_two_sets():
    log = Interactions.from_arrays([0, 1], [0, 1], item_ids=np.arange(8), user_ids=np.arange(2))
    with pytest.raises(ValueError, match=r"^items: expected at least 40 items; got 8"):
        ddc(QUERY[:2], ITEMS[:8], log)
