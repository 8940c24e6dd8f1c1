"""Geometry against dense definitions and sklearn, and what gauges do to it."""

import json

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA
from sklearn.linear_model import LinearRegression

from fastpop import ops
from fastpop.diagnostics import ScoreMoments, alignment, geometry, uniformity
from fastpop.regularizers import mean_cosine


def problem(seed=0, items=50, dim=5, contexts=80):
    rng = np.random.default_rng(seed)
    f = np.log(rng.pareto(1.0, items) + 0.1)
    item_VD = rng.standard_normal((items, dim)) @ np.diag(np.arange(1.0, dim + 1))
    item_VD[:, 0] += f
    return rng.standard_normal((contexts, dim)) + 1.0, item_VD + 2.0, f


def test_every_number_equals_its_definition():
    query, items, f = problem()
    g = geometry(ScoreMoments.of(query, items), f)
    centred = items - items.mean(axis=0)
    for spectrum, matrix in (
        (g.items_raw, items),
        (g.items_centred, centred),
        (g.queries_raw, query),
        (g.queries_centred, query - query.mean(axis=0)),
        (g.scores, query @ centred.T),
    ):
        s2 = np.linalg.svd(matrix, compute_uv=False)[: (6 if matrix.shape[1] == 50 else 5)] ** 2
        rho = s2 / s2.sum()
        rho = rho[rho > 1e-20]
        assert spectrum.r1 == pytest.approx(rho.max())
        assert spectrum.effective_rank == pytest.approx(np.exp(-(rho * np.log(rho)).sum()))
        assert spectrum.stable_rank == pytest.approx(
            np.linalg.norm(matrix) ** 2 / np.linalg.norm(matrix, 2) ** 2
        )
        assert spectrum.participation_ratio == pytest.approx(s2.sum() ** 2 / (s2**2).sum())
    covariance = np.cov(items.T)
    ratio = np.trace(covariance) ** 2 / np.linalg.norm(covariance) ** 2
    assert g.items_centred.isoscore == pytest.approx((ratio - 1) / 4)
    sigma = np.linalg.svd(query @ centred.T, compute_uv=False)
    assert g.balanced_r1 == pytest.approx(sigma[0] / sigma.sum())
    qq, ee = query.T @ query, items.T @ items
    assert g.balance_error == pytest.approx(
        np.linalg.norm(qq - ee) / (np.linalg.norm(qq) + np.linalg.norm(ee))
    )
    norm = np.linalg.norm(items, axis=1)
    assert g.mean_vector_ratio == pytest.approx(
        np.linalg.norm(items.mean(axis=0)) / np.sqrt(np.mean(norm**2))
    )
    for value, rows in ((g.average_cosine_raw, items), (g.average_cosine_centred, centred)):
        unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
        cosine = unit @ unit.T
        assert value == pytest.approx(cosine[~np.eye(50, dtype=bool)].mean(), rel=1e-9)
    assert g.norm_correlation == pytest.approx(np.corrcoef(norm, f)[0, 1])
    first = PCA(1).fit_transform(items)[:, 0]
    assert g.pc1_correlation == pytest.approx(abs(np.corrcoef(first, f)[0, 1]))
    fit = LinearRegression().fit(items, f)
    assert g.popularity_r2 == pytest.approx(fit.score(items, f))
    json.dumps(g.to_dict(), allow_nan=False)


def test_shuffled_popularity_reaches_the_null_r2_on_average():
    query, items, f = problem()
    m = ScoreMoments.of(query, items)
    rng = np.random.default_rng(0)
    r2 = [geometry(m, rng.permutation(f)).popularity_r2 for _ in range(300)]
    assert geometry(m, f).popularity_r2_null == 5 / 49
    assert abs(np.mean(r2) - 5 / 49) < 4 * np.std(r2) / 300**0.5


def test_the_gauge_moves_the_raw_cosine_and_nothing_centred():
    query, items, f = problem()
    before = geometry(ScoreMoments.of(query, items), f)
    after = geometry(ScoreMoments.of(query, items + 300.0), f)
    assert after.average_cosine_raw > 0.99
    assert before.average_cosine_raw < 0.9
    assert after.average_cosine_centred == pytest.approx(before.average_cosine_centred)
    assert after.items_centred.r1 == pytest.approx(before.items_centred.r1)
    assert after.scores.effective_rank == pytest.approx(before.scores.effective_rank)
    assert after.popularity_r2 == pytest.approx(before.popularity_r2)


def test_the_gauge_turns_the_raw_cosine_to_one_and_moves_no_likelihood():
    """E + 1 e0': every score of a context moves by as much, so that no probability does."""
    rng = np.random.default_rng(3)
    query, items = (torch.from_numpy(rng.standard_normal((n, 6))) for n in (40, 30))
    target, e0 = torch.from_numpy(rng.integers(0, 30, 40)), torch.from_numpy(rng.standard_normal(6))
    nll, cosine = [], []
    for table in (items, items + 20 * e0):
        nll.append(ops.full_softmax(query, table, target, reduction="mean").item())
        cosine.append(geometry(ScoreMoments.of(query, table), np.arange(30.0)).average_cosine_raw)
        assert mean_cosine(table).item() == pytest.approx(cosine[-1], abs=1e-9)
    assert abs(nll[1] - nll[0]) <= 1e-12
    assert cosine[1] - cosine[0] > 0.9


def test_rank_one_and_isotropic_ends_of_the_scale():
    f = np.arange(8.0)
    line = geometry(ScoreMoments.of(np.ones((3, 2)), np.outer(f, [1.0, 1.0])), f)
    assert line.items_centred.r1 == pytest.approx(1)
    assert line.items_centred.isoscore == pytest.approx(0, abs=1e-12)
    assert line.popularity_r2 == pytest.approx(1)
    assert line.popularity_r2_null == 1 / 7
    cube = np.array([[x, y, z] for x in (-1.0, 1) for y in (-1, 1) for z in (-1, 1)])
    even = geometry(ScoreMoments.of(np.ones((3, 3)), cube), f)
    assert even.items_centred.isoscore == pytest.approx(1)
    assert even.items_raw.effective_rank == pytest.approx(3)
    assert np.isnan(even.norm_correlation)  # all norms are equal
    assert even.to_dict()["norm_correlation"] is None


def test_a_balanced_pair_has_no_balance_error():
    rng = np.random.default_rng(1)
    u, s, vt = np.linalg.svd(rng.standard_normal((40, 30)), full_matrices=False)
    query, items = u[:, :5] * np.sqrt(s[:5]), vt[:5].T * np.sqrt(s[:5])
    g = geometry(ScoreMoments.of(query, items), np.arange(30.0))
    assert g.balance_error == pytest.approx(0, abs=1e-12)
    skewed = geometry(ScoreMoments.of(query * 10, items / 10), np.arange(30.0))
    assert skewed.balance_error > 0.9
    assert skewed.scores.r1 == pytest.approx(g.scores.r1)


def test_a_zero_table_has_undefined_numbers_and_raises_nothing():
    g = geometry(ScoreMoments.of(np.ones((3, 2)), np.zeros((6, 2))), np.arange(6.0))
    assert np.isnan(g.items_raw.r1)
    assert g.popularity_r2_null == 0
    json.dumps(g.to_dict(), allow_nan=False)


def test_uniformity_and_alignment_equal_their_definitions(monkeypatch):
    query, items, _ = problem()
    unit = items / np.linalg.norm(items, axis=1, keepdims=True)
    gap = ((unit[:, None] - unit[None]) ** 2).sum(axis=-1)
    pairs = ~np.eye(50, dtype=bool)
    assert uniformity(items) == pytest.approx(np.log(np.exp(-2 * gap[pairs]).mean()))
    assert uniformity(items, t=1e6) < -100  # no underflow to -inf
    assert np.isfinite(uniformity(items, t=1e6))
    pos = np.arange(80) % 50
    unit_q = query / np.linalg.norm(query, axis=1, keepdims=True)
    assert alignment(query, items, pos) == pytest.approx(((unit_q - unit[pos]) ** 2).sum(axis=1).mean())
    assert alignment(items, items, np.arange(50)) == 0


def test_bad_input_is_named():
    query, items, f = problem()
    with pytest.raises(ValueError, match=r"log_prior: expected shape \[50\]"):
        geometry(ScoreMoments.of(query, items), f[:-1])
    with pytest.raises(ValueError, match="items: expected rows that are not zero"):
        uniformity(np.zeros((3, 2)))
    with pytest.raises(ValueError, match="t: expected a finite number > 0"):
        uniformity(items, t=0)
    with pytest.raises(ValueError, match=r"pos_id: expected ids in \[0, 50\)"):
        alignment(query, items, np.full(80, 50))
    with pytest.raises(TypeError, match="pos_id: expected integers"):
        alignment(query, items, np.zeros(80))
