"""Negative controls: what an audit must refuse, find everywhere, or not find."""

import numpy as np
import pytest
from scipy import stats

from fastpop import synthetic
from fastpop.diagnostics import audit


def run(control, **more):
    return audit(
        control.query, control.items, control.counts, bias=control.bias, **{"permutations": 199, **more}
    )


def test_uniform_popularity_is_refused():
    with pytest.raises(ValueError, match="uniform"):
        run(synthetic.uniform_popularity())


def test_no_association_is_all_popularity_and_rank_one():
    got = run(synthetic.popularity_only(), smoothing=0.0)
    assert got.fraction_shared == pytest.approx(1, abs=1e-12)
    assert got.energy_heterogeneous == 0
    assert got.slope_mean == pytest.approx(1)
    assert got.p_value_shared == 1 / 200
    assert got.geometry.scores.effective_rank == pytest.approx(1)


def test_p_values_are_uniform_when_popularity_is_independent_of_the_scores():
    seen = [run(synthetic.independent(seed=seed), seed=seed) for seed in range(250)]
    for name in ("p_value_direction", "p_value_shared"):
        p = [getattr(a, name) for a in seen]
        assert stats.kstest(p, "uniform").pvalue > 1e-3, name
    fraction = np.array([a.fraction_direction for a in seen])
    assert abs(fraction.mean() - seen[0].chance_level) < 4 * fraction.std() / len(seen) ** 0.5


def test_gauge_shifts_leave_the_audit_alone():
    control = synthetic.independent(seed=3)
    before, after = run(control), run(synthetic.gauge_shift(control))
    for name in ("energy_total", "energy_direction", "energy_shared", "energy_heterogeneous"):
        assert getattr(after, name) == pytest.approx(getattr(before, name), rel=1e-10)
    assert after.p_value_direction == before.p_value_direction
    assert after.geometry.average_cosine_raw > 0.9 > before.geometry.average_cosine_raw


def test_confounded_norms_fool_only_the_plain_null():
    small = {"label": [], "sign": []}
    for seed in range(40):
        for null, values in small.items():
            got = run(synthetic.norm_confounded(seed=seed), seed=seed, null=null)
            values.append(got.p_value_direction <= 0.05)
    assert np.mean(small["label"]) > 0.5
    assert np.mean(small["sign"]) < 0.2


def test_bad_input_is_named():
    with pytest.raises(ValueError, match="num_items: expected an integer >= 4"):
        synthetic.independent(3)
    with pytest.raises(ValueError, match="seed: expected an integer >= 0"):
        synthetic.independent(seed=-1)
