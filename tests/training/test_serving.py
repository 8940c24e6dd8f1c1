"""Two weights to serve with: fitted where they are known, kept, and used."""

import numpy as np
import pytest
import torch
from helpers_logs import small_log

import fastpop
from fastpop.data import Cases
from fastpop.encoders import FactorEncoder
from fastpop.model import Recommender
from fastpop.nn import Decoder
from fastpop.popularity import PopularityPrior, recency_counts
from fastpop.training import Serving, serving
from fastpop.training.serving import fit_weights

QUICK = {
    "epochs": 3,
    "dim": 8,
    "batch_size": 64,
    "num_negatives": 16,
    "max_length": 10,
    "num_layers": 1,
    "learning_rate": 0.02,
    "progress": False,
}
U, V, D = 40, 60, 4


def a_model(prior="frozen", seed=0, **options):
    """Vectors that mean something, and log p of a Zipf distribution."""
    torch.manual_seed(seed)
    log_p = np.log((w := 1 / np.arange(1.0, V + 1)) / w.sum())
    model = Recommender(FactorEncoder(U, D), Decoder(log_p, D, prior=prior, **options)).eval()
    with torch.no_grad():
        model.decoder.item_embedding.normal_()
        model.encoder.user_embedding.normal_()
        if prior == "learned":
            model.decoder.item_bias.copy_(torch.tensor(log_p))
    return model


def cases_of(user, offsets, target):
    nothing = np.zeros(len(user) + 1, np.int64)
    return Cases(user, nothing, np.zeros(0, np.int64), offsets, target, V)


def drawn(model, popularity_weight, personal_weight, count, seed=0, a_case=1):
    """Cases whose targets are drawn from the softmax of the scores served at these weights."""
    rng = np.random.default_rng(seed)
    score_UV = model.decoder.score(
        model.encoder(torch.arange(U), None, None).detach(), popularity_weight, personal_weight
    ).double()
    p_UV = score_UV.softmax(1).numpy()
    user = rng.integers(0, U, count)
    target = np.concatenate([rng.choice(V, a_case, replace=False, p=p_UV[u]) for u in user])
    return cases_of(user, a_case * np.arange(count + 1), target)


def fit(model, cases, **options):
    return fit_weights(model, cases, **{"fitted_on": "these", "most_cases": 10**6, "seed": 0} | options)


@pytest.mark.parametrize(
    ("prior", "options"),
    [("frozen", {}), ("none", {}), ("learned", {}), ("frozen", {"temperature": 0.5, "prior_weight": 0.5})],
)
def test_known_weights_are_found_within_their_errors(prior, options):
    model = a_model(prior, **options)
    found = fit(model, drawn(model, 0.7, 0.4, 20_000))
    assert found.popularity_error < 0.02
    assert found.personal_error < 0.02
    assert abs(found.popularity_weight - 0.7) < 4 * found.popularity_error
    assert abs(found.personal_weight - 0.4) < 4 * found.personal_error
    assert found.nll < min(found.nll_as_trained, found.nll_popularity)
    assert max(map(len, found.table().splitlines())) <= 80


def test_a_personal_part_that_the_cases_do_not_show_to_help_is_said():
    model = a_model()
    assert fit(model, drawn(model, 0.7, 0.4, 500)).undecided == ""
    fitted = fit(model, drawn(model, 0.7, 0.0, 500))  # drawn by popularity alone
    assert fitted.personal_weight < 1.96 * fitted.personal_error
    assert fitted.undecided.startswith(f"the weight of the personal part is {fitted.personal_weight:.3g} +- ")


def test_standard_errors_are_those_of_repetition():
    model = a_model()
    found = [fit(model, drawn(model, 0.7, 0.4, 800, seed)) for seed in range(60)]
    for name, value in (("popularity", 0.7), ("personal", 0.4)):
        z = np.array(
            [(getattr(one, f"{name}_weight") - value) / getattr(one, f"{name}_error") for one in found]
        )
        assert abs(z.mean()) < 4 / np.sqrt(60)
        assert 0.7 < z.std() < 1.3
    weights = np.array([(one.personal_weight, one.popularity_weight) for one in found])
    assert np.corrcoef(weights.T)[0, 1] == pytest.approx(np.mean([one.correlation for one in found]), abs=0.3)


def test_it_is_where_the_nll_of_evaluate_is_least():
    model = a_model("none")
    cases = drawn(model, 0.6, 1.4, 300, a_case=3)
    found = fit(model, cases)

    def nll(popularity_weight, personal_weight):
        scores = model.decoder.score(model.encode(cases), popularity_weight, personal_weight).double()
        return fastpop.evaluation.evaluate(scores, cases).metrics["nll"]

    beta, lam = found.popularity_weight, found.personal_weight
    assert found.nll == pytest.approx(nll(beta, lam), rel=1e-6)
    assert found.nll_as_trained == pytest.approx(nll(1.0, 1.0), rel=1e-6)
    for db, dl in ((0.05, 0), (-0.05, 0), (0, 0.05), (0, -0.05)):
        assert nll(beta + db, lam + dl) > found.nll
    curve = min(nll(b, 0.0) for b in np.linspace(-1, 3, 81))
    assert found.nll_popularity <= curve + 1e-6
    assert found.nll_popularity == pytest.approx(curve, abs=1e-3)


def test_what_changes_no_distribution_changes_no_weight(monkeypatch):
    model = a_model()
    cases = drawn(model, 0.7, 0.4, 500, a_case=2)
    plain = fit(model, cases)
    shifted = fit(model.with_prior(model.decoder.log_prior_V.numpy() + 5), cases)
    with torch.no_grad():
        model.decoder.item_embedding += 3 * torch.ones(D)  # the same for all items: an offset a row
    gauged = fit(model, cases)
    monkeypatch.setattr(serving, "CHUNK_BYTES", 8 * V * 7)
    chunked = fit(model, cases)
    for other in (shifted, gauged, chunked):
        for name in ("popularity_weight", "personal_weight", "popularity_error", "personal_error", "nll"):
            assert getattr(other, name) == pytest.approx(getattr(plain, name), rel=2e-5)
    with torch.no_grad():
        model.decoder.item_embedding *= 2
    assert fit(model, cases).personal_weight == pytest.approx(plain.personal_weight / 2, rel=1e-5)
    thin = fit(model, cases, most_cases=100)
    assert thin.num_cases == 100
    assert thin == fit(model, cases, most_cases=100)
    assert thin != fit(model, cases, most_cases=100, seed=1)


def test_weights_that_no_data_decide_are_refused():
    model = a_model()
    cases = drawn(model, 0.7, 0.4, 200)
    with pytest.raises(ValueError, match="cases, prior: expected scores and log p that differ"):
        fit(model.with_prior(np.full(V, -np.log(V))), cases)
    same = a_model()
    with torch.no_grad():  # s is log p, for every user
        same.decoder.item_embedding.zero_()
        same.decoder.item_embedding[:, 0] = same.decoder.log_prior_V
        same.encoder.user_embedding.zero_()
        same.encoder.base.copy_(torch.eye(D)[0])
    with pytest.raises(ValueError, match="which leave the weights undecided"):
        fit(same, cases)
    best = model.decoder.score(model.encode(cases), 0.0).argmax(1).numpy()
    for few in (1, 2):  # whose gradients leave nothing over: errors of 0, as if all were known
        with pytest.raises(ValueError, match=f"cases: expected at least 3, for two weights .*; got {few}"):
            fit(model, cases.take(np.arange(few)))
    sure = cases_of(np.array(cases.user), np.arange(201), best)
    with pytest.raises(ValueError, match="cases: expected cases that are likeliest at weights below 200"):
        fit(model, sure)


def test_scores_that_are_no_logits_have_no_nll_as_trained_and_say_so(monkeypatch):
    run = fastpop.train(
        small_log(), recipe="bpr", **{key: QUICK[key] for key in ("dim", "epochs", "progress")}
    )
    with pytest.warns(UserWarning, match="60 cases do not show that it helps beside popularity"):
        fitted = run.fit_serving().serving
    assert not fitted.logits
    assert "none as trained (no logits)," in fitted.table()
    assert "weights as trained" not in fitted.table()
    monkeypatch.setattr(serving, "MOST", 1.5)  # that of popularity alone is below
    with pytest.raises(ValueError, match=r"^cases: .*scores that are no logits: .*any weight\); got weights"):
        run.fit_serving()


@pytest.mark.parametrize("prior", ["none", "frozen", "learned"])
def test_an_index_gives_what_is_served(prior):
    model = a_model(prior, temperature=0.5)
    query = torch.randn(5, D)
    for beta, lam in ((1.0, 1.0), (0.3, 0.5), (0.0, 2.0), (1.7, 0.0)):
        items, queries = model.decoder.index_vectors(query, beta, lam)
        served = model.score(query, beta, lam)
        torch.testing.assert_close(queries @ items.T, served, rtol=1e-5, atol=1e-5)
        learned = model.decoder.scale * query @ model.decoder.item_embedding.T
        personal = served - model.score(query, beta, 0.0)
        torch.testing.assert_close(personal, lam * learned, rtol=1e-4, atol=1e-4)


def test_what_was_fitted_is_served_kept_and_loaded(tmp_path):
    log = small_log()
    result = fastpop.train(log, out=tmp_path / "run", **QUICK)
    fitted = result.fit_serving(prior=recency_counts(result.split.train).prior())
    assert result.serving is None
    assert fitted.metrics == {}
    assert isinstance(fitted.serving, Serving)
    beta, lam = fitted.serving.popularity_weight, fitted.serving.personal_weight
    assert fitted.serving_weights() == (beta, lam)
    assert fitted.serving_weights(popularity_weight=0.5) == (0.5, lam)
    assert result.serving_weights() == (1.0, 1.0)
    valid = fitted.evaluate("valid").metrics["nll"]
    assert valid == pytest.approx(fitted.serving.nll, rel=1e-5)
    assert valid == fitted.evaluate("valid", popularity_weight=beta, personal_weight=lam).metrics["nll"]
    users = log.user_ids[:6]
    shown = fitted.recommend(users, 5)
    assert (shown.popularity_weight, shown.personal_weight) == (beta, lam)
    assert f"personal weight {lam:g}" in shown.table()
    query = fitted.model.encode(fitted.split.test)
    by_hand = fitted.model.score(query, beta, lam).double()
    assert fitted.evaluate().metrics["nll"] == pytest.approx(
        fastpop.evaluation.evaluate(by_hand, fitted.split.test).metrics["nll"], rel=1e-5
    )
    fitted.save(tmp_path / "run")
    back = fastpop.load(tmp_path / "run")
    assert back.serving == fitted.serving
    assert back.recommend(users, 5).item.tolist() == shown.item.tolist()
    fresh = back.refresh_prior(log.item_counts())
    assert fresh.serving == fitted.serving
    assert "served with personal weight" in repr(back)


def test_an_nll_at_weights_that_nothing_was_trained_or_fitted_for_says_so():
    result = fastpop.train(small_log(), **QUICK)
    fitted = result.fit_serving()
    beta, lam = fitted.serving_weights()
    words = "a score is no model of p(i | c)"
    for meant in (
        result.evaluate(),
        result.evaluate(popularity_weight=1.0),
        fitted.evaluate(),
        fitted.evaluate(popularity_weight=beta, personal_weight=lam),
        fitted.evaluate(popularity_weight=1.0, personal_weight=1.0),
        result.evaluate(popularity_weight=0.0, logits=False),  # no NLL there
    ):
        assert words not in meant.rule
    for other in (result.evaluate(popularity_weight=0.0), fitted.evaluate(popularity_weight=0.5)):
        assert words in " ".join(other.table().split())
        assert words in other.to_dict()["rule"]


@pytest.mark.parametrize("encoder", ["factor", "sasrec"])
def test_later_events_can_be_fitted_to(encoder):
    log = small_log()
    cut = int(np.sort(log.time)[800])
    result = fastpop.train(log.take(log.time < cut), split="none", encoder=encoder, **QUICK)
    later = log.take(log.time >= cut)
    fitted = result.fit_serving(later)
    assert fitted.serving.num_targets <= later.num_events
    assert "100 given events" in fitted.serving.table()
    with pytest.raises(ValueError, match="part: expected a valid part in the split"):
        result.fit_serving()
    with pytest.raises(ValueError, match="cases: expected events over the item_ids of the log"):
        result.fit_serving(fastpop.Interactions.from_arrays(log.user, log.item * 2, user_ids=log.user_ids))
    with pytest.raises(TypeError, match="cases: expected Cases, Interactions or None"):
        result.fit_serving("later")
    with pytest.raises(ValueError, match="most_cases: expected an integer >= 3"):
        result.fit_serving(later, most_cases=0)
    with pytest.raises(ValueError, match="personal_weight: expected"):
        result.recommend(log.user_ids[:1], personal_weight=float("inf"))


def test_fresh_popularity_beside_a_stale_model_on_the_bundled_log():
    """Fitted on the weeks after training: better there than as trained, and than popularity alone."""
    log = fastpop.data.bundled_log()
    log = log.take(log.time < int(np.sort(log.time)[60_000]))
    result = fastpop.train(log, split="global-time", epochs=3, progress=False)
    recent = recency_counts(result.split.train)
    fitted = result.fit_serving(prior=recent.prior(), most_cases=500)
    found = fitted.serving
    assert found.nll < found.nll_as_trained
    assert found.nll < found.nll_popularity
    assert PopularityPrior.from_interactions(result.split.train).alpha > 3 * recent.alpha
