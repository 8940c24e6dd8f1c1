"""The audit: against the dense definition, in every form a model may arrive."""

import json
from itertools import pairwise

import numpy as np
import pytest
import torch
from helpers_scores import dense_energies
from hypothesis import given, settings
from hypothesis import strategies as st

import fastpop
from fastpop.diagnostics import GramStream, ScoreMoments, audit, audit_moments, score_nll
from fastpop.popularity.prior import PopularityPrior


def problem(seed=0, contexts=60, items=45, dim=6):
    rng = np.random.default_rng(seed)
    counts = rng.zipf(1.4, items).clip(max=5000).astype(float)
    return {
        "query": rng.standard_normal((contexts, dim)) + 0.2,
        "items": rng.standard_normal((items, dim)),
        "counts": counts,
        "bias": 0.3 * np.log(counts),
        "scale": 0.8,
        "context_weight": rng.random(contexts),
    }


def run(p, **change):
    p = {"permutations": 50, **p, **change}
    return audit(p.pop("query"), p.pop("items"), p.pop("counts"), **p)


def numbers(a):
    return np.array(
        [
            a.energy_total,
            a.energy_direction,
            a.energy_shared,
            a.energy_heterogeneous,
            a.energy_off_direction,
            a.slope_mean,
            a.slope_std,
        ]
    )


def test_energies_equal_the_dense_definition():
    p = problem()
    got = run(p)
    prior = PopularityPrior.from_counts(p["counts"])
    truth = dense_energies(
        p["query"],
        p["items"],
        prior.log_prior_V,
        bias=p["bias"],
        scale=p["scale"],
        weight=p["context_weight"],
    )
    names = ("total", "direction", "shared", "heterogeneous", "off_direction", "slope_mean", "slope_std")
    np.testing.assert_allclose(numbers(got), [float(truth[n]) for n in names], rtol=1e-10)
    assert got.fraction_direction == pytest.approx(float(truth["direction"] / truth["total"]))
    assert got.fraction_shared == pytest.approx(float(truth["shared"] / truth["total"]))
    assert got.chance_level == 1 / 44
    under_p = dense_energies(
        p["query"],
        p["items"],
        prior.log_prior_V,
        bias=p["bias"],
        scale=p["scale"],
        weight=p["context_weight"],
        centring=prior.prior_V,
    )
    assert got.energy_prior_centred.shared == pytest.approx(float(under_p["shared"]), rel=1e-10)
    assert got.energy_prior_centred.total == pytest.approx(float(under_p["total"]), rel=1e-10)
    np.testing.assert_allclose(
        got.mean_score_V, np.asarray(truth["weight"] @ truth["score"], float), rtol=0, atol=1e-12
    )


def test_it_is_the_public_name():
    p = problem()
    assert fastpop.audit(**p, permutations=50).to_dict() == run(p).to_dict()
    assert run(p).num_permutations == 50


def test_chunks_streams_and_lists_give_the_same_audit():
    p = problem()
    whole = run(p)
    query, weight = p["query"], p["context_weight"]
    cut = [0, 1, 20, 20, 60]
    pairs = [(query[a:b], weight[a:b]) for a, b in pairwise(cut)]
    chunked = run(p, query=iter(pairs), context_weight=None)
    stream = GramStream(6)
    for rows, w in pairs:
        stream.add(torch.from_numpy(rows), torch.from_numpy(w))
    streamed = run(p, query=stream, context_weight=None)
    listed = run(p, query=query.tolist())
    for other in (chunked, streamed, listed):
        np.testing.assert_allclose(numbers(other), numbers(whole), rtol=1e-11)
        assert other.p_value_shared == whole.p_value_shared
        assert other.num_contexts == 60
        assert other.weighting == "by the weights given"
    bare = run(p, query=[query[:30], query[30:]], context_weight=None)
    plain = run(p, context_weight=None)
    np.testing.assert_allclose(numbers(bare), numbers(plain), rtol=1e-11)
    assert bare.weighting == "uniform over the contexts given"


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_torch_tensors_of_any_precision(dtype):
    p = problem()
    query = torch.from_numpy(p["query"]).to(dtype).requires_grad_()
    items = torch.from_numpy(p["items"]).to(dtype).requires_grad_()
    got = run(p, query=query, items=items, counts=torch.from_numpy(p["counts"]))
    want = run(p, query=query.detach().double().numpy(), items=items.detach().double().numpy())
    np.testing.assert_allclose(numbers(got), numbers(want), rtol=1e-12)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), shift=st.floats(-50, 50), size=st.floats(0.1, 10))
def test_gauge_basis_and_relabelling_change_nothing(seed, shift, size):
    p = problem(seed)
    rng = np.random.default_rng(seed)
    base = run(p, permutations=0)
    mix = np.linalg.qr(rng.standard_normal((6, 6)))[0] * size
    turned = run(p, query=p["query"] @ mix, items=p["items"] @ np.linalg.inv(mix).T, permutations=0)
    gauge = run(p, items=p["items"] + shift * rng.standard_normal(6), permutations=0)
    order = rng.permutation(45)
    renamed = run(
        p, items=p["items"][order], counts=p["counts"][order], bias=p["bias"][order], permutations=0
    )
    weights = run(p, context_weight=7 * p["context_weight"], permutations=0)
    for other in (turned, gauge, renamed, weights):
        np.testing.assert_allclose(numbers(other), numbers(base), rtol=1e-8)
        assert other.test_direction.null_mean == pytest.approx(base.test_direction.null_mean)
        assert other.test_shared.null_variance == pytest.approx(base.test_shared.null_variance, rel=1e-6)


def test_repeating_a_context_is_weighing_it():
    p = problem()
    twice = np.concatenate([p["query"], p["query"][:10]])
    weight = np.ones(60)
    weight[:10] = 2
    np.testing.assert_allclose(
        numbers(run(p, query=twice, context_weight=None)), numbers(run(p, context_weight=weight)), rtol=1e-11
    )


def test_no_permutations_means_no_p_values():
    got = run(problem(), permutations=0)
    assert got.p_value_direction is None
    assert got.p_value_shared is None
    assert got.p_value_interval_shared is None
    assert got.test_shared.null_mean > 0
    assert "No p-values" in got.table()
    json.dumps(got.to_dict(samples=True), allow_nan=False)


def test_p_value_and_interval_are_of_the_same_draws():
    got = run(problem(), permutations=200, seed=3)
    again = run(problem(), permutations=200, seed=3, threads=1)
    other = run(problem(), permutations=200, seed=4)
    assert (got.test_direction.null_P == again.test_direction.null_P).all()
    assert (got.test_direction.null_P != other.test_direction.null_P).any()
    low, high = got.p_value_interval_direction
    assert low <= got.p_value_direction <= high
    assert got.p_value_shared >= 1 / 201


def test_the_table_fits_and_names_everything():
    for change in (
        {},
        {"permutations": 0},
        {"null": "sign"},
        {"smoothing": 0.5},
        {"context_weight": None, "bias": None},
        {"null": "stratified", "strata": np.arange(45) % 3},
        {"items": 1e6 * problem()["items"], "query": 1e-9 * problem()["query"]},
    ):
        text = run(problem(), **change).table()
        assert max(map(len, text.splitlines())) <= 80
        for words in (
            "uniform centring",
            "off log p",
            "by chance",
            "slope",
            "calibration not computed",
            "alpha",
            "R1",
            "cosine",
        ):
            assert words in text
    assert "NLL" in run(problem(), pos_id=np.zeros(60, int)).table()


def test_results_serialise(tmp_path):
    got = run(problem(), pos_id=torch.zeros(60, dtype=torch.int64))
    path = tmp_path / "audit.json"
    got.save(path)
    read = json.loads(path.read_text())
    assert read == got.to_dict(samples=True)
    assert read["energy_shared"] == got.energy_shared
    assert len(read["test_shared"]["samples"]) == 50
    assert len(read["mean_score"]) == 45
    assert list(tmp_path.iterdir()) == [path]
    assert "samples" not in got.to_dict()["test_shared"]


def test_scores_that_do_not_vary_over_items_have_no_fraction():
    p = problem()
    got = run(p, items=np.ones((45, 6)), bias=None)
    assert got.energy_total == 0
    assert np.isnan(got.fraction_direction)
    assert got.p_value_direction == 1.0
    assert got.to_dict()["fraction_direction"] is None
    json.dumps(got.to_dict(samples=True), allow_nan=False)
    got.table()


def test_frozen_prior_slope_is_one_and_subtraction_removes_it():
    p = problem()
    prior = PopularityPrior.from_counts(p["counts"])
    learned = ScoreMoments.of(p["query"], p["items"])
    with_prior = audit_moments(learned.with_popularity(1.0, prior.log_prior_V), prior, permutations=0)
    without = audit_moments(learned, prior, permutations=0)
    assert with_prior.slope_mean - without.slope_mean == pytest.approx(1.0, rel=1e-12)
    assert with_prior.amplitude_ratio(without) == pytest.approx(
        abs(with_prior.slope_mean / without.slope_mean)
    )
    pure = ScoreMoments.of(np.zeros((3, 1)), np.zeros((45, 1))).with_popularity(1.0, prior.log_prior_V)
    assert audit_moments(pure, prior, permutations=0).fraction_shared == pytest.approx(1.0)


def test_nll_is_the_softmax_cross_entropy(monkeypatch):
    from fastpop.diagnostics import calibration

    p = problem()
    pos = np.random.default_rng(2).integers(0, 45, 60)
    logits = torch.from_numpy(p["scale"] * p["query"] @ p["items"].T + p["bias"] + 900.0)
    loss = torch.nn.functional.cross_entropy(logits, torch.from_numpy(pos), reduction="none")
    weight = torch.from_numpy(p["context_weight"])
    want = float((weight * loss).sum() / weight.sum())
    assert run(p, pos_id=pos).nll == pytest.approx(want, rel=1e-10)
    monkeypatch.setattr(calibration, "CELLS", 100)
    assert run(p, pos_id=pos, query=torch.from_numpy(p["query"])).nll == pytest.approx(want)
    uniform = score_nll(p["query"], 0 * p["items"], pos)
    assert uniform == pytest.approx(np.log(45))


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"counts": np.full(45, 3)}, ValueError, "uniform"),
        ({"counts": np.ones(44) * np.arange(44)}, ValueError, r"counts: expected shape \[45\]"),
        ({"counts": -np.arange(45.0)}, ValueError, "counts"),
        ({"counts": np.full(45, np.nan)}, ValueError, "counts"),
        ({"counts": np.zeros(45)}, ValueError, "counts"),
        ({"counts": np.arange(45), "smoothing": 0.0}, ValueError, "0"),
        ({"items": np.zeros((45, 5))}, ValueError, r"query: expected shape \[C, 5\]"),
        ({"items": np.zeros((3, 6))}, ValueError, "items: expected at least 4 items"),
        ({"items": np.zeros((45, 0))}, ValueError, "items: expected at least 1 dimension"),
        ({"items": np.full((45, 6), np.nan)}, ValueError, "items: expected finite"),
        ({"items": np.zeros(45)}, ValueError, "items: expected a 2-d array"),
        ({"items": np.full((45, 6), "a")}, TypeError, "items: expected a 2-d array of real"),
        ({"query": np.zeros((60, 6), complex)}, TypeError, "query: expected real numbers"),
        ({"query": np.zeros((0, 6)), "context_weight": None}, ValueError, "at least one context"),
        (
            {"query": np.where(np.arange(360).reshape(60, 6) == 100, np.inf, 1.0)},
            ValueError,
            r"query: expected finite numbers; got inf at \[16, 4\]",
        ),
        ({"query": 3.0}, TypeError, "query: expected an array"),
        ({"query": [np.zeros((2, 5))], "context_weight": None}, ValueError, "query chunk 0"),
        (
            {"query": [(np.zeros((2, 6)), -np.ones(2))], "context_weight": None},
            ValueError,
            "weights of query chunk 0: expected weights >= 0",
        ),
        (
            {"query": [(np.zeros((2, 6)), np.ones(3))], "context_weight": None},
            ValueError,
            "weights of query chunk 0: expected shape",
        ),
        ({"query": [np.zeros((2, 6))]}, ValueError, "context_weight: expected None"),
        ({"query": [], "context_weight": None}, ValueError, "query: expected at least one"),
        ({"query": [3], "context_weight": None}, TypeError, "query chunk 0"),
        ({"query": GramStream(5), "context_weight": None}, ValueError, "query: expected a Gram"),
        ({"query": GramStream(6)}, ValueError, "context_weight: expected None"),
        ({"context_weight": np.zeros(60)}, ValueError, "at least one weight > 0"),
        ({"context_weight": -np.ones(60)}, ValueError, "weights >= 0"),
        ({"context_weight": np.ones(61)}, ValueError, r"context_weight: expected shape \[60\]"),
        (
            {"query": [(np.zeros((2, 6)), np.zeros(2))], "context_weight": None},
            ValueError,
            "at least one weight > 0",
        ),
        ({"bias": np.zeros(44)}, ValueError, r"bias: expected shape \[45\]"),
        ({"scale": float("inf")}, ValueError, "scale: expected a finite number"),
        ({"scale": "1"}, TypeError, "scale: expected a finite number"),
        ({"permutations": -1}, ValueError, "permutations: expected an integer >= 0"),
        ({"permutations": 10.5}, TypeError, "permutations: expected an integer"),
        ({"seed": -1}, ValueError, "seed: expected an integer >= 0"),
        ({"null": "shuffle"}, ValueError, "null: expected one of"),
        ({"pos_id": np.zeros(59, int)}, ValueError, r"pos_id: expected shape \[60\]"),
        ({"pos_id": np.full(60, 45)}, ValueError, r"pos_id: expected ids in \[0, 45\)"),
        ({"pos_id": np.zeros(60)}, TypeError, "pos_id: expected integers"),
        (
            {"pos_id": np.zeros(60, int), "query": [np.zeros((60, 6))], "context_weight": None},
            TypeError,
            "pos_id: expected None unless",
        ),
    ],
)
def test_each_bad_input_has_one_clear_error(change, error, words):
    with pytest.raises(error, match=words):
        run({**problem(), **change})


@pytest.mark.parametrize("subset", [None, np.arange(3, 40)])
def test_extremes_are_furthest_off_the_line_of_the_slope(subset):
    p = problem()
    found = run(p, subset=subset, permutations=0)
    places = np.arange(45) if subset is None else subset
    score_CV = p["scale"] * p["query"] @ p["items"].T + p["bias"]
    weight_C = p["context_weight"] / p["context_weight"].sum()
    mean_V = (weight_C @ score_CV)[places]
    f_V = found.log_prior_V - found.log_prior_V.mean()
    slope = (mean_V @ f_V) / (f_V @ f_V)
    off_V = mean_V - mean_V.mean() - slope * f_V
    for kind, order_V in (("largest", -mean_V), ("above", -off_V), ("below", off_V)):
        rows = found.extremes(6)[kind]
        at = np.argsort(order_V)[:6]
        assert [one["item"] for one in rows] == places[at].tolist()
        np.testing.assert_allclose([one["off_line"] for one in rows], off_V[at], rtol=1e-9, atol=1e-12)
    with pytest.raises(ValueError, match="k: expected an integer >= 1"):
        found.extremes(0)
