"""Several models over one stream of permutations."""

import numpy as np
import pytest

from fastpop.diagnostics import ScoreMoments, audit_many


def models(seed=0, num_items=70):
    rng = np.random.default_rng(seed)
    f = np.log(rng.pareto(1.1, num_items) + 0.1)
    f = f - np.log(np.exp(f).sum())
    query = rng.standard_normal((40, 4))
    items = rng.standard_normal((num_items, 4))
    separate = ScoreMoments.of(query, items)
    return {"standard": separate.with_popularity(1.0, f), "separate": separate}, f


def test_a_model_that_carries_log_p_is_told_from_one_that_does_not():
    found, f = models()
    result = audit_many(found, f, permutations=999)
    pair = result.pairs["standard", "separate"]
    assert pair.shared.p_value == 1 / 1000
    assert pair.direction.p_value == 1 / 1000
    gap = result.energy["standard"].shared - result.energy["separate"].shared
    assert pair.shared.observed == pytest.approx(gap)
    assert result.energy["standard"].slope_mean == pytest.approx(
        result.energy["separate"].slope_mean + 1, rel=1e-10
    )
    back = audit_many(found, f, permutations=999, pairs=[("separate", "standard")])
    assert back.pairs["separate", "standard"].shared.p_value == 1.0


def test_a_model_against_itself_is_a_tie_everywhere():
    found, f = models()
    same = {"one": found["standard"], "two": found["standard"]}
    pair = audit_many(same, f, permutations=99).pairs["one", "two"]
    assert pair.direction.observed == 0
    assert pair.direction.p_value == 1.0
    assert pair.shared.p_value == 1.0
    # Another gauge and basis of the same scores: rounding differs, the answer must not.
    m = found["standard"]
    turn = np.linalg.qr(np.random.default_rng(3).standard_normal((4, 4)))[0]
    moved = ScoreMoments(
        m.query_mean_D @ turn, turn.T @ m.query_cov_DD @ turn, m.item_VD @ turn + 5.0, m.bias_V, 1.0, 40
    )
    pair = audit_many({"one": m, "two": moved}, f, permutations=99).pairs["one", "two"]
    assert pair.direction.p_value == 1.0
    assert pair.shared.p_value == 1.0


def test_one_model_alone_and_among_others_is_the_same_test():
    found, f = models()
    alone = audit_many({"separate": found["separate"]}, f, permutations=50, seed=4)
    among = audit_many(found, f, permutations=50, seed=4)
    assert (alone.direction["separate"].null_P == among.direction["separate"].null_P).all()
    assert alone.pairs == {}


def test_threads_change_no_bit():
    found, f = models()
    one = audit_many(found, f, permutations=200, threads=1)
    two = audit_many(found, f, permutations=200, threads=2)
    for name in found:
        assert (one.direction[name].null_P == two.direction[name].null_P).all()
        assert one.shared[name].p_value == two.shared[name].p_value


def test_stratified_null_keeps_labels_in_their_strata():
    found, f = models()
    # Strata of equal log p leave nothing to permute: every draw ties with the data.
    levels = np.unique(np.round(f, 12), return_inverse=True)[1]
    result = audit_many(found, f, permutations=50, null="stratified", strata=levels)
    assert result.shared["standard"].p_value == 1.0
    size = result.shared["standard"].observed
    assert result.shared["standard"].null_variance < (1e-7 * size) ** 2
    assert result.shared["standard"].null_mean == pytest.approx(result.shared["standard"].observed, rel=1e-10)
    halves = (f > np.median(f)).astype(int)
    coarse = audit_many(found, f, permutations=500, null="stratified", strata=halves)
    plain = audit_many(found, f, permutations=500)
    # Between-strata popularity is kept, so the null sits higher than the plain one.
    assert coarse.shared["standard"].null_P.mean() > 3 * plain.shared["standard"].null_P.mean()


def test_pairs_serialise():
    found, f = models()
    pair = audit_many(found, f, permutations=9).pairs["standard", "separate"]
    assert pair.to_dict()["direction"]["num_permutations"] == 9
    assert len(pair.to_dict(samples=True)["shared"]["samples"]) == 9


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"models": {}}, ValueError, "models: expected at least one model"),
        ({"models": {"a": 3}}, TypeError, "models: expected a dict of name to ScoreMoments"),
        ({"log_prior": np.arange(5.0)}, ValueError, r"models\['standard'\]: expected 5 items"),
        ({"log_prior": np.zeros(70)}, ValueError, "log_prior: expected a popularity that varies"),
        ({"pairs": [("standard", "x")]}, ValueError, "pairs: expected one of"),
        ({"permutations": -1}, ValueError, "permutations: expected an integer >= 0"),
        ({"null": "x"}, ValueError, "null: expected one of"),
    ],
)
def test_each_bad_input_has_one_clear_error(change, error, words):
    found, f = models()
    arguments = {"models": found, "log_prior": f, "permutations": 5, **change}
    with pytest.raises(error, match=words):
        audit_many(arguments.pop("models"), arguments.pop("log_prior"), **arguments)
