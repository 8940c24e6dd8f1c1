"""An index with log p as a column: exact where it says so, one for every weight, refreshed in place."""

import numpy as np
import pytest
import torch
from helpers_logs import small_log

import fastpop
from fastpop.popularity import PopularityPrior
from fastpop.training import ItemIndex

QUICK = {"dim": 16, "epochs": 3, "num_negatives": 32, "batch_size": 64, "progress": False}
SMALL = {"faiss-hnsw": {"m": 8}, "faiss-ivf": {"num_lists": 4, "num_probes": 4}}


@pytest.fixture(scope="module", params=["none", "frozen", "learned"])
def result(request):
    return fastpop.train(small_log(), prior=request.param, **QUICK)


def of_faiss(kind):
    if kind.startswith("faiss"):
        pytest.importorskip("faiss")


def vectors(num_items=3000, dim=12, seed=0):
    rng = np.random.default_rng(seed)
    items = torch.from_numpy(rng.standard_normal((num_items, dim), dtype=np.float32))
    prior = PopularityPrior.from_counts(np.floor(rng.pareto(1, num_items) * 5))
    return rng.standard_normal((40, dim), dtype=np.float32), items, prior


@pytest.mark.parametrize("kind", ["flat", "faiss-flat", "faiss-hnsw", "faiss-ivf"])
def test_an_index_ranks_as_the_model_serves(result, kind):
    of_faiss(kind)
    index = result.export_index(kind, k=5, betas=(0.0, 0.5, 1.0), **SMALL.get(kind, {}))
    assert list(index.recall.recall) == [0.0, 0.5, 1.0]
    assert min(index.recall.recall.values()) == 1.0  # of so few items a graph finds all
    assert "recall@5" in repr(index)
    cases = result.split.test.take(slice(0, 9))
    query = result.model.encode(cases)
    for weight, personal in ((None, 1.0), (0.3, 2.0)):
        found = result.recommend(
            result.log.user_ids[cases.user],
            5,
            popularity_weight=weight,
            personal_weight=personal,
            exclude_seen=False,
        )
        item, score = index.search(query, 5, popularity_weight=weight, personal_weight=personal, batch=4)
        assert (result.log.decode_items(item) == found.item).all()
        assert score == pytest.approx(found.score, abs=1e-4)
    item, _ = index.search(query, 5, exclude=cases.history_rows)
    for row, case in zip(item, range(9), strict=True):
        assert not set(row.tolist()) & set(cases.history(case).tolist())


@pytest.mark.parametrize("kind", ["flat", "faiss-flat", "faiss-hnsw", "faiss-ivf"])
def test_another_log_p_is_taken_without_a_new_index_where_vectors_lie_as_they_are(kind):
    of_faiss(kind)
    query, items, prior = vectors()
    index = ItemIndex(kind, items, prior.log_prior_V)
    other = prior.permuted(3)
    found = index.refresh(other, items)
    assert found.in_place == (kind != "faiss-ivf")
    assert found.seconds > 0
    anew = ItemIndex("flat", items, other.log_prior_V)
    exact, score = anew.search(query, 10, popularity_weight=0.7)
    item, got = index.search(query, 10, popularity_weight=0.7)
    hits = np.mean([np.isin(a, b).mean() for a, b in zip(exact, item)])
    assert hits == 1 if kind in ("flat", "faiss-flat") else hits > 0.5
    expected = query @ items.numpy().T + 0.7 * other.log_prior_V
    there = item >= 0
    rows = np.repeat(np.arange(len(query)), 10).reshape(item.shape)
    assert got[there] == pytest.approx(expected[rows[there], item[there]], abs=1e-4)
    assert score[:, 0] == pytest.approx(expected.max(1), abs=1e-4)


@pytest.mark.parametrize("kind", ["faiss-flat", "faiss-hnsw", "faiss-ivf"])
def test_vectors_that_are_small_beside_log_p_are_found_too(kind, tmp_path):
    """As a young model's are: a graph or lists of the rows as they are would see the column alone."""
    of_faiss(kind)
    query, items, prior = vectors()
    items = items / 40
    index = ItemIndex(kind, items, prior.log_prior_V, options=SMALL.get(kind, {}))
    index.measure(query, items)
    index.save(tmp_path / "index")
    for one in (index, ItemIndex.load(tmp_path / "index")):
        recall = one.measure(query, items, betas=(0.0, 1.0)).recall
        assert min(recall.values()) > {"faiss-flat": 0.999, "faiss-hnsw": 0.9, "faiss-ivf": 0.99}[kind]
        item, score = one.search(query, 3, popularity_weight=0.5)
        want = np.take_along_axis(query @ items.numpy().T + 0.5 * prior.log_prior_V, item, 1)
        assert score == pytest.approx(want, abs=1e-4)


@pytest.mark.parametrize("kind", ["faiss-hnsw", "faiss-ivf"])
def test_recall_is_of_the_exact_lists(kind):
    of_faiss(kind)
    query, items, prior = vectors()
    few = {"faiss-hnsw": {"ef_search": 8, "m": 4}, "faiss-ivf": {"num_lists": 60, "num_probes": 1}}[kind]
    index = ItemIndex(kind, items, prior.log_prior_V, options=few)
    found = index.measure(query, items, 10, betas=(0.0, 1.0))
    for beta, recall in found.recall.items():
        score = query @ items.numpy().T + beta * prior.log_prior_V
        best = np.argsort(-score, 1)[:, :10]
        item, _ = index.search(query, 10, popularity_weight=beta)
        assert recall == pytest.approx(np.mean([np.isin(a, b).mean() for a, b in zip(best, item)]))
        assert recall < 1
    assert found.num_queries == 40


@pytest.mark.parametrize("kind", ["flat", "faiss-hnsw"])
def test_what_is_saved_comes_back(tmp_path, result, kind):
    of_faiss(kind)
    index = result.export_index(kind, out=tmp_path / "index", k=5)
    back = ItemIndex.load(tmp_path / "index")
    query = result.model.encode(result.split.test.take(slice(0, 9)))
    for one, other in zip(index.search(query, 7), back.search(query, 7), strict=True):
        assert (one == other).all()
    assert back.recall == index.recall
    assert (back.item_ids == np.asarray(result.log.item_ids)).all()
    if result.config.prior != "learned":
        assert back.refresh(result.prior.permuted(1)).in_place
    with pytest.raises(ValueError, match="a folder that ItemIndex"):
        ItemIndex.load(tmp_path)


def test_flat_copies_no_table():
    _, items, prior = vectors()
    assert ItemIndex("flat", items, prior.log_prior_V)._vectors.data_ptr() == items.data_ptr()


def test_bad_arguments_are_named(monkeypatch):
    query, items, prior = vectors()
    with pytest.raises(ValueError, match="kind: expected"):
        ItemIndex("annoy", items, prior.log_prior_V)
    index = ItemIndex("flat", items, prior.log_prior_V)
    for options, message in (
        ({"k": 0}, "k"),
        ({"batch": 0}, "batch"),
        ({"popularity_weight": np.inf}, "pop"),
    ):
        with pytest.raises(ValueError, match=message):
            index.search(query, **options)
    with pytest.raises(ValueError, match="query"):
        index.search(query[:, :3])
    with pytest.raises(ValueError, match="prior"):
        index.refresh(prior.log_prior_V[:5])
    monkeypatch.setitem(__import__("sys").modules, "faiss", None)
    with pytest.raises(ImportError, match=r"fastpop\[index\]"):
        ItemIndex("faiss-flat", items, prior.log_prior_V)


def test_options_of_another_kind_are_refused():
    of_faiss("faiss-hnsw")
    _, items, prior = vectors()
    with pytest.raises(ValueError, match="option of faiss-hnsw"):
        ItemIndex("faiss-hnsw", items, prior.log_prior_V, options={"num_lists": 3})
    with pytest.raises(ValueError, match="vectors"):
        ItemIndex("faiss-ivf", items, prior.log_prior_V, options={"num_lists": 4}).refresh(prior)
