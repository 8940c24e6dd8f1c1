"""Items that came after training stand among the others, by vectors that a tower makes of their features."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
import torch
from helpers_logs import small_log
from torch import nn

import fastpop
from fastpop.item_towers import ItemTower, ItemTowerOptions

QUICK = {"epochs": 1, "dim": 8, "max_length": 6, "num_negatives": 16, "progress": False}


@dataclass(frozen=True)
class Coloured(ItemTowerOptions):
    """The table and a vector of the item's colour, which its id tells."""

    name: ClassVar[str] = "coloured"
    colours: int = 4

    def build(self, sizes):
        return ColouredTower(torch.tensor(sizes.train.item_ids % self.colours), self.colours, sizes.dim)


class ColouredTower(ItemTower):
    def __init__(self, colour_V, colours, dim):
        super().__init__()
        self.register_buffer("colour_V", colour_V)
        self.colour = nn.Embedding(colours, dim)

    def forward(self, item_VD):
        return item_VD + self.colour(self.colour_V)

    def new_items(self, features):
        return self.colour(torch.tensor(features))


@pytest.fixture(scope="module")
def run():
    torch.set_num_threads(1)
    return fastpop.train(small_log(), encoder="bag", item_tower=Coloured(), prior_weight=0.7, **QUICK)


def by_definition(result, history, beta, lam, colours, log_p):
    decoder, places = result.model.decoder, result.log.encode_items(history)
    with torch.no_grad():
        query = result.model.encoder.eval().last(None, torch.tensor(places)[None], decoder.item_vectors())[0]
        s_n = decoder.tower.colour.weight[colours] @ query * decoder.scale
    return lam * s_n.numpy() + (beta - decoder.prior.offset) * log_p


def test_new_items_stand_where_their_scores_say(run):
    ids = run.log.item_ids
    history, new = ids[[4, 9]].tolist(), {1001: 0, 1002: 3, 1003: 1}
    log_p = np.array([-1.0, -3.0, -2.0])
    options = {"popularity_weight": 0.8, "personal_weight": 3.0, "k": len(ids) + 3, "exclude_seen": False}
    found = run.recommend(histories=[history], new_items=new, new_log_p=log_p, **options)
    plain = run.recommend(histories=[history], **options)
    score = dict(zip(found.item[0].tolist(), found.score[0].tolist()))
    want = by_definition(run, history, 0.8, 3.0, [0, 3, 1], log_p)
    shown = [one for one in found.item[0] if one is not None]
    # k is no more than the catalogue: the lists are cut, what stands in them is right
    for one, value in zip(new, want):
        if one in score:
            assert score[one] == pytest.approx(float(value), rel=1e-5)
        else:
            assert value <= found.score[0].min() + 1e-5
    assert [one for one in shown if one not in new] == [one for one in plain.item[0].tolist() if one in shown]
    assert (np.diff(found.score[0]) <= 0).all()


def test_a_log_p_that_is_high_puts_them_first_and_the_least_is_the_default(run):
    ids = run.log.item_ids
    asked = {"histories": [ids[:2], []], "k": 3, "popularity_weight": 1.0, "new_items": {5000: 1}}
    high = run.recommend(new_log_p=50.0, **asked)
    assert high.item[:, 0].tolist() == [5000, 5000]
    assert high.score[1, 0] == pytest.approx(50.0)
    least = run.recommend(**(asked | {"k": len(ids)}))
    log_p_V = run.prior.log_prior_V
    rest = run.recommend(**(asked | {"k": len(ids), "new_items": None}))
    cold = dict(zip(least.item[1].tolist(), least.score[1].tolist()))
    assert cold.get(5000, float(log_p_V.min())) == pytest.approx(float(log_p_V.min()), rel=1e-6)
    assert rest.item[1].tolist()[:5] == least.item[1].tolist()[:5]


def test_lists_of_ids_hold_for_new_items_without_a_warning(run):
    ids, new = run.log.item_ids, {5000: 1, 5001: 2}
    asked = {"new_items": new, "new_log_p": 50.0, "k": 3}
    shown = run.recommend(histories=[ids[:2]], deny=[5001], **asked)
    assert shown.item[0, 0] == 5000
    assert 5001 not in shown.item[0].tolist()
    only = run.recommend(histories=[ids[:2]], allow=[5001, ids[7]], **asked)
    assert only.item[0].tolist() == [5001, ids[7], None]
    picked = run.recommend(histories=[[], []], candidates=[[5000, ids[3]], [ids[3]]], **asked)
    assert picked.item.tolist() == [[5000, ids[3], None], [ids[3], None, None]]
    seen = run.recommend(histories=[[5000, ids[1]]], **asked)
    assert 5000 not in seen.item[0].tolist()
    assert seen.facts == {"without_history": []}
    again = run.recommend(histories=[[5000, ids[1]]], exclude_seen=False, **asked)
    assert 5000 in again.item[0].tolist()
    users = run.recommend(run.log.user_ids[:2], **asked)
    assert set(users.item[:, :2].ravel()) == {5000, 5001}


def test_what_is_wrong_is_named(run):
    ids = run.log.item_ids
    for new, error, message in (
        ([5000], TypeError, "new_items: expected a dict"),
        ({int(ids[0]): 1}, ValueError, "new_items: expected ids that the log does not have"),
        ({"x": 1}, ValueError, "new_items: expected ids that the log does not have, whole numbers"),
    ):
        with pytest.raises(error, match=message):
            run.recommend(histories=[ids[:2]], new_items=new)
    plain = fastpop.train(small_log(), encoder="bag", **QUICK)
    with pytest.raises(
        NotImplementedError, match="new_items: expected an item tower that makes vectors of feat"
    ):
        plain.recommend(histories=[ids[:2]], new_items={5000: 1})
