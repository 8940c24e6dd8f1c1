"""Gram and tiled energies against the dense definition in long double."""

import itertools

import numpy as np
import pytest
import torch
from helpers_scores import dense_energies
from helpers_softmax import implementations_here
from hypothesis import given, settings
from hypothesis import strategies as st

from fastpop.kernels import native
from fastpop.kernels.row_moments import _cpu, reference
from fastpop.ops.energies import gram_spectrum
from fastpop.ops.score_energy import GramStream, score_energy, streamed_score_energy

IMPLS = implementations_here("score_energy")
NAMES = ("total", "direction", "shared", "heterogeneous", "off_direction", "slope_mean", "slope_std")


def problem(seed=0, contexts=40, items=31, dim=5):
    rng = np.random.default_rng(seed)
    prior = rng.dirichlet(np.full(items, 0.4)) + 1e-6
    return {
        "query": rng.standard_normal((contexts, dim)) + 0.3,
        "items": rng.standard_normal((items, dim)),
        "log_prior": np.log(prior / prior.sum()),
        "bias": rng.standard_normal(items),
        "scale": 1.7,
        "weight": rng.random(contexts) * (rng.random(contexts) < 0.8),
    }


def ours(p, impl="auto", **change):
    p = {**p, **change}
    return score_energy(
        p["query"],
        p["items"],
        p["log_prior"],
        bias=p["bias"],
        scale=p["scale"],
        context_weight=p["weight"],
        centring=p.get("centring", "uniform"),
        impl=impl,
    )


def close(energy, truth, tol=1e-10):
    for name in NAMES:
        want = float(truth[name])
        assert getattr(energy, name) == pytest.approx(want, rel=tol, abs=0), name


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("weighted", [True, False])
@pytest.mark.parametrize("centring", ["uniform", "prior"])
@pytest.mark.parametrize("impl", IMPLS)
def test_gram_energies_equal_the_dense_definition(impl, bias, weighted, centring):
    p = problem()
    p["bias"] = p["bias"] if bias else None
    p["weight"] = p["weight"] if weighted else None
    p["centring"] = centring
    probability = np.exp(p["log_prior"]) if centring == "prior" else None
    close(
        ours(p, impl),
        dense_energies(
            p["query"],
            p["items"],
            p["log_prior"],
            bias=p["bias"],
            scale=p["scale"],
            weight=p["weight"],
            centring=probability,
        ),
        1e-11,
    )


@pytest.mark.parametrize("impl", IMPLS)
def test_energies_hold_when_the_mean_is_ten_thousand_times_the_spread(impl):
    p = problem()
    p["query"] = 1e4 + p["query"]
    p["items"] = 1e4 + p["items"]
    p["bias"] = 1e4 + p["bias"]
    close(
        ours(p, impl),
        dense_energies(
            p["query"], p["items"], p["log_prior"], bias=p["bias"], scale=p["scale"], weight=p["weight"]
        ),
    )


@pytest.mark.parametrize("centring", ["uniform", "prior"])
@pytest.mark.parametrize("rest", [1e-2, 1e-5, 1e-8])
def test_energy_off_log_p_keeps_its_digits_where_nearly_all_lies_along_it(monkeypatch, rest, centring):
    # total - direction has errors of 1e-16 of the total: nothing is left of `rest` squared at 1e-8.
    p = problem(items=60)
    p["items"] = rest * p["items"]
    p["bias"] = 40 * p["log_prior"] + rest * p["bias"]
    probability = np.exp(p["log_prior"]) if centring == "prior" else None
    # Rows that hold log p too, so that it is not the bias alone that has to lose it.
    p["query"] = np.column_stack([p["query"], 2 + rest * p["query"][:, 0]])
    p["items"] = np.column_stack([p["items"], p["log_prior"]])
    truth = dense_energies(
        p["query"],
        p["items"],
        p["log_prior"],
        bias=p["bias"],
        scale=p["scale"],
        weight=p["weight"],
        centring=probability,
    )
    got = ours(p, centring=centring)
    assert got.off_direction == pytest.approx(float(truth["off_direction"]), rel=3e-6, abs=0)
    if rest == 1e-8:
        assert got.total - got.direction != pytest.approx(got.off_direction, rel=0.5)
    monkeypatch.setattr(reference, "ROWS", 7)
    assert ours(p, centring=centring).off_direction == pytest.approx(got.off_direction, rel=1e-5)


def test_scores_that_are_log_p_have_nothing_off_it():
    p = problem()
    p["items"] = np.outer(p["log_prior"], np.arange(5.0)) + 3.0
    got = ours(p, bias=2 * p["log_prior"])
    assert 0 <= got.off_direction < 1e-28 * got.total


@pytest.mark.parametrize("size", [1e4, 1e6])
def test_either_mean_alone_may_be_large(size):
    p = problem()
    for change in ({"query": size + p["query"]}, {"items": size + p["items"]}, {"bias": size + p["bias"]}):
        q = {**p, **change}
        close(
            ours(q),
            dense_energies(
                q["query"], q["items"], q["log_prior"], bias=q["bias"], scale=q["scale"], weight=q["weight"]
            ),
            1e-9,
        )


def test_one_pass_float64_covariance_would_fail_that_case():
    # The case above is a test only if the naive form misses it.
    p = problem()
    query = 1e4 + p["query"]
    w = p["weight"] / p["weight"].sum()
    naive = (query * w[:, None]).T @ query - np.outer(w @ query, w @ query)
    stream = GramStream(5).add(query, p["weight"])
    centred = query - query.mean(axis=0)
    truth = (centred * w[:, None]).T @ centred - np.outer(w @ centred, w @ centred)
    assert np.abs(stream.covariance / truth - 1).max() < 1e-10
    assert np.abs(naive / truth - 1).max() > 1e-9


def test_row_offsets_and_the_softmax_gauge_change_nothing():
    p = problem()
    base = ours(p)
    rng = np.random.default_rng(1)
    offset = 100 * rng.standard_normal(40)
    with_offset = ours(
        p, query=np.column_stack([p["query"], offset]), items=np.column_stack([p["items"], np.ones(31)])
    )
    gauge = ours(p, items=p["items"] + 50 * rng.standard_normal(5))
    moved = ours(p, log_prior=p["log_prior"] + 3.0, bias=p["bias"] - 20)
    for other in (with_offset, gauge, moved):
        for name in NAMES:
            assert getattr(other, name) == pytest.approx(getattr(base, name), rel=1e-10)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 1000),
    cuts=st.lists(st.integers(0, 40), max_size=5),
    order=st.randoms(use_true_random=False),
)
def test_neither_chunks_nor_order_matter(seed, cuts, order):
    p = problem(seed)
    whole = GramStream(5).add(p["query"], p["weight"])
    rows = list(range(40))
    order.shuffle(rows)
    edges = [0, *sorted(cuts), 40]
    parts = [rows[a:b] for a, b in itertools.pairwise(edges)]
    chunked = GramStream(5)
    for part in parts[::2]:
        chunked.add(p["query"][part], p["weight"][part])
    other = GramStream(5)
    for part in parts[1::2]:
        other.add(torch.from_numpy(p["query"][part]), torch.from_numpy(p["weight"][part]))
    chunked.merge(other)
    assert chunked.num_contexts == 40
    np.testing.assert_allclose(chunked.weight, whole.weight, rtol=1e-13)
    np.testing.assert_allclose(chunked.mean_D, whole.mean_D, rtol=1e-11, atol=1e-13)
    np.testing.assert_allclose(chunked.covariance, whole.covariance, rtol=1e-10, atol=1e-12)


def test_rows_beyond_one_chunk_are_all_read(monkeypatch):
    p = problem()
    before = ours(p, "reference")
    monkeypatch.setattr(reference, "ROWS", 7)
    after = ours(p, "reference")
    assert after.heterogeneous == pytest.approx(before.heterogeneous, rel=1e-12)
    assert after.total == pytest.approx(before.total, rel=1e-12)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_low_precision_inputs_are_reduced_in_float64(dtype):
    p = problem()
    query = torch.from_numpy(p["query"]).to(dtype)
    items = torch.from_numpy(p["items"]).to(dtype).requires_grad_()
    truth = dense_energies(
        query.double(),
        items.detach().double(),
        p["log_prior"],
        bias=p["bias"],
        scale=p["scale"],
        weight=p["weight"],
    )
    close(ours(p, query=query, items=items), truth, 1e-11)


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    yield lambda: torch.set_num_threads(2)
    torch.set_num_threads(before)


@pytest.mark.parametrize("path", native.PATHS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize(("rows", "dim", "extra"), [(1, 1, 0), (700, 24, 0), (5000, 67, 3)])
def test_moments_of_rows_on_every_path(monkeypatch, two_threads, path, dtype, rows, dim, extra):
    if not native.has_path(path):
        pytest.skip(f"this processor has no {path}")
    monkeypatch.setattr(native, "path", path)
    monkeypatch.setattr(native, "WORK_A_THREAD", 1)
    generator = torch.Generator().manual_seed(rows)
    table = (3 + torch.randn(rows, 2 * dim, generator=generator)).to(dtype)[:, ::2]
    more = np.random.default_rng(1).standard_normal((rows, extra)) if extra else None
    weight = np.random.default_rng(2).random(rows)
    for w in (None, weight):
        inputs = reference.Inputs(table, w, more)
        want = reference.forward(inputs)
        torch.set_num_threads(1)
        got = _cpu.forward(inputs)
        np.testing.assert_allclose(got[0], want[0], rtol=1e-13)
        np.testing.assert_allclose(got[1], want[1], rtol=1e-12, atol=1e-13)
        np.testing.assert_allclose(got[2], want[2], rtol=1e-11, atol=1e-11 * np.abs(want[2]).max())
        two_threads()
        for one, other in zip(got, _cpu.forward(inputs)):
            assert np.array_equal(one, other)


@pytest.mark.parametrize("path", native.PATHS)
@pytest.mark.parametrize("soft_cap", [None, 2.0])
@pytest.mark.parametrize(("contexts", "items", "dim"), [(1, 2, 1), (40, 31, 5), (13, 1400, 33)])
def test_streamed_scores_equal_the_dense_definition(monkeypatch, path, soft_cap, contexts, items, dim):
    if not native.has_path(path):
        pytest.skip(f"this processor has no {path}")
    monkeypatch.setattr(native, "path", path)
    p = problem(contexts=contexts, items=items, dim=dim)
    weight = 0.1 + p["weight"]
    score = p["scale"] * p["query"] @ p["items"].T + p["bias"]
    if soft_cap:
        score = soft_cap * np.tanh(score / soft_cap)
    truth = dense_energies(np.eye(contexts), score.T, p["log_prior"], weight=weight)
    for impl, exact in (("reference", 1e-11), ("cpu", 3e-5)):
        got = score_energy(
            p["query"],
            p["items"],
            p["log_prior"],
            bias=p["bias"],
            scale=p["scale"],
            context_weight=weight,
            soft_cap=soft_cap,
            form="streamed",
            impl=impl,
        )
        for name in ("total", "direction", "shared", "off_direction"):
            # t is a difference of terms of the size of the score: that size sets its rounding.
            size = float(truth["total"])
            assert getattr(got, name) == pytest.approx(float(truth[name]), rel=exact, abs=exact * size)


@pytest.mark.parametrize("form", ["gram", "streamed"])
def test_cosine_scores_are_those_of_unit_rows(form):
    p = problem()
    p["query"][3] = 0
    unit = {
        name: p[name] / np.maximum(np.linalg.norm(p[name], axis=1, keepdims=True), 1e-300)
        for name in ("query", "items")
    }
    want = score_energy(**unit, log_prior=p["log_prior"], scale=20.0)
    got = score_energy(p["query"], p["items"], p["log_prior"], scale=20.0, cosine=True, form=form)
    close(got, vars(want), 1e-11 if form == "gram" else 1e-4)


def test_a_cap_has_no_gram_form():
    p = problem()
    with pytest.raises(ValueError, match="form: expected 'streamed' with a soft_cap"):
        score_energy(p["query"], p["items"], p["log_prior"], soft_cap=3.0, form="gram")
    with pytest.raises(ValueError, match="centring: expected 'uniform'"):
        score_energy(p["query"], p["items"], p["log_prior"], soft_cap=3.0, centring="prior")
    with pytest.raises(ValueError, match="query: expected finite numbers"):
        score_energy(p["query"] * np.nan, p["items"], p["log_prior"], soft_cap=3.0)


def test_spectrum_is_that_of_the_weighted_centred_scores():
    p = problem()
    stream = GramStream(5).add(p["query"], p["weight"])
    ours_R = gram_spectrum(stream.mean_D, stream.covariance, p["items"], p["bias"], p["scale"])
    truth = dense_energies(
        p["query"], p["items"], p["log_prior"], bias=p["bias"], scale=p["scale"], weight=p["weight"]
    )
    dense = np.sqrt(truth["weight"])[:, None] * truth["score"]
    want = np.linalg.svd(dense.astype(float), compute_uv=False)
    assert len(ours_R) == 6
    np.testing.assert_allclose(ours_R, want[:6], rtol=1e-10)
    assert want[6] < 1e-12 * want[0]
    assert (ours_R**2).sum() == pytest.approx(float(truth["total"]), rel=1e-12)


def test_spectrum_of_a_table_longer_than_one_block_of_rows():
    rng = np.random.default_rng(0)
    items, query = rng.standard_normal((5000, 3)), rng.standard_normal((20, 3))
    stream = GramStream(3).add(query)
    got = gram_spectrum(stream.mean_D, stream.covariance, items, None, 1.0)
    want = np.linalg.svd(query @ (items - items.mean(axis=0)).T / 20**0.5, compute_uv=False)
    np.testing.assert_allclose(got[:3], want[:3], rtol=1e-11)
    assert got[3] < 1e-6 * got[0]


@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (7, 4), (40, 31), (100, 100)])
def test_tiles_of_any_size_equal_the_dense_definition(rows, columns):
    p = problem()
    # Large enough that sum (s * b) without the shift is wrong in the seventh digit.
    offset = 1e8 * np.random.default_rng(3).standard_normal(40)
    score = np.tanh(p["query"] @ p["items"].T / 3) + p["bias"] + offset[:, None]
    largest = [0]

    def tile(context, item):
        out = score[context, item]
        largest[0] = max(largest[0], out.size)
        return torch.from_numpy(out.copy())

    got = streamed_score_energy(
        tile, 40, p["log_prior"], context_weight=p["weight"], rows=rows, columns=columns
    )
    truth = dense_energies(np.eye(40), score.T, p["log_prior"], weight=p["weight"])
    close(got, truth, 1e-10)
    assert largest[0] <= rows * columns


def test_tiles_of_a_factorised_score_equal_the_gram_form():
    p = problem()
    score = p["scale"] * p["query"] @ p["items"].T + p["bias"]
    got = streamed_score_energy(
        lambda c, i: score[c, i], 40, p["log_prior"], context_weight=p["weight"], rows=16, columns=8
    )
    close(got, {name: getattr(ours(p), name) for name in NAMES}, 1e-11)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"log_prior": np.full(31, -np.log(31))}, "log_prior: expected a popularity that varies"),
        ({"log_prior": np.zeros(30)}, r"log_prior: expected shape \[31\]"),
        ({"query": np.zeros((40, 4))}, r"query: expected shape \[C, 5\]"),
        ({"query": np.zeros((0, 5)), "weight": None}, "query: expected at least one context"),
        ({"query": np.full((40, 5), np.nan)}, "query: expected finite numbers"),
        ({"items": np.full((31, 5), np.inf)}, "items: expected finite numbers"),
        ({"bias": np.zeros(3)}, r"bias: expected shape \[31\]"),
        ({"scale": float("nan")}, "scale: expected a finite number"),
        ({"weight": -np.ones(40)}, "context_weight: expected weights >= 0"),
        ({"weight": np.zeros(40)}, "context_weight: expected at least one weight > 0"),
        ({"weight": np.ones(39)}, r"context_weight: expected shape \[40\]"),
        ({"centring": "mean"}, "centring: expected one of 'uniform', 'prior'"),
    ],
)
def test_each_bad_input_has_one_clear_error(change, words):
    with pytest.raises(ValueError, match=words):
        ours({**problem(), **change})


@pytest.mark.parametrize("name", ["query", "items"])
def test_what_is_no_array_of_real_numbers_is_refused(name):
    given = problem()
    with pytest.raises(TypeError, match=f"{name}: expected real numbers; got complex128"):
        ours({**given, name: given[name] + 1j})
    with pytest.raises(TypeError, match=f"{name}: expected real numbers; got <U32"):
        ours({**given, name: given[name].astype(str)})
    with pytest.raises(TypeError, match=f"{name}: expected a dense array; got torch.sparse_coo"):
        ours({**given, name: torch.as_tensor(given[name]).to_sparse()})
    with pytest.raises(ValueError, match=f"{name}: expected an array that holds numbers; got .* meta"):
        ours({**given, name: torch.as_tensor(given[name]).to("meta")})
    with pytest.raises(TypeError, match=f"{name}: expected an array, a frame or a list of numbers; got dict"):
        ours({**given, name: {"rows": given[name].tolist()}})


def test_a_tile_of_the_wrong_shape_is_named():
    with pytest.raises(ValueError, match=r"score_tile\(\.\.\.\): expected shape \[4, 31\]"):
        streamed_score_energy(lambda c, i: np.zeros((1, 2)), 4, problem()["log_prior"])
    with pytest.raises(ValueError, match="finite scores"):
        streamed_score_energy(lambda c, i: np.full((4, 31), np.nan), 4, problem()["log_prior"])
