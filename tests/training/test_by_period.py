"""A log p for each period in training: with one period, with levels that drift, and what it refuses."""

import numpy as np
import pytest
import torch
import toy_parts

import fastpop
from fastpop import registry, testing
from fastpop.cli import main
from fastpop.data import Interactions
from fastpop.data.batches import Batch
from fastpop.popularity import TemporalPrior, decayed_counts
from fastpop.priors import ByPeriod
from fastpop.synthetic import TwinBlock
from fastpop.testing.training import QUICK
from fastpop.training import TrainConfig, build
from fastpop.training.loop import train_step
from fastpop.training.row_losses import summed_loss

STALE = 0.024911150210  # nats: KL(z_t || z) of a tilt by level^.2, tests/diagnostics/test_more_nulls.py


def same_bits(one, other):
    first, second = one.model.state_dict(), other.model.state_dict()
    return all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize(
    ("encoder", "options"),
    [
        ("factor", {"loss": "bpr"}),
        ("factor", {"accumulate": 3}),
        ("factor", {"update_in_backward": True}),
        ("sasrec", {"loss": "full_softmax", "regularizers": "l2"}),
        ("sasrec", {"precision": "bf16"}),
        ("bert4rec", {}),
    ],
    ids=str,
)
def test_one_period_is_the_frozen_prior_to_the_bit(encoder, options):
    log = testing.small_log()
    options = {**QUICK, "encoder": encoder, **options}
    frozen, one, five = (
        fastpop.train(log, prior=prior, **options)
        for prior in ("frozen", ByPeriod(periods=1), ByPeriod(periods=5))
    )
    assert same_bits(frozen, one)
    assert dict(frozen.metrics) == dict(one.metrics)
    assert not same_bits(frozen, five)


def test_a_run_by_period_goes_all_the_way():
    testing.check_run(prior=ByPeriod(periods=3, weight=0.5))
    testing.check_prior(ByPeriod(periods=3, weight=0.5))
    testing.check_options(ByPeriod(width=86_400))


@pytest.mark.parametrize("loss", ["full_softmax", "sampled_softmax"])
def test_the_loss_of_a_batch_is_the_sum_over_its_rows_beside_their_own_log_p(loss):
    """Row by row, weighted, on the draws of one step; and its gradient."""
    log = testing.small_log()
    weighted = Interactions.from_arrays(
        log.user, log.item, log.time, weight=np.linspace(0.5, 2, log.num_events), item_ids=log.item_ids
    )
    options = {name: QUICK[name] for name in QUICK if name != "progress"}
    config = TrainConfig(**options, encoder="sasrec", loss=loss, prior=ByPeriod(periods=4), dropout=0.0)
    parts = build.assemble(config, weighted, weighted, np.zeros(log.num_items))
    batch = next(iter(parts.batches.epoch(0)))
    item_VD = parts.model.decoder.item_vectors()
    query_RD, pos_id_R, weight_R = parts.model.rows(batch, item_VD)
    terms = parts.model.decoder.training_terms() | ({"step": 3} if parts.draws else {})
    found = summed_loss(parts, batch, query_RD, item_VD, pos_id_R, weight_R, terms)
    period_R = batch.period[batch.target >= 0]
    assert set(period_R) == {0, 1, 2, 3}
    wanted = sum(
        parts.loss(
            query_RD[r : r + 1],
            item_VD,
            pos_id_R[r : r + 1],
            row_weight=weight_R[r : r + 1],
            **terms | {"log_prior": torch.tensor(parts.temporal.log_prior_TV[period_R[r]]).float()},
        )
        for r in range(len(pos_id_R))
    )
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=0)
    grads = (torch.autograd.grad(value, query_RD, retain_graph=True)[0] for value in (found, wanted))
    torch.testing.assert_close(*grads, rtol=1e-4, atol=1e-6)


def test_regularizers_and_steps_are_taken_once():
    log = testing.small_log()
    options = {name: QUICK[name] for name in QUICK if name != "progress"}
    calls = []
    config = TrainConfig(**options, prior=ByPeriod(periods=4), regularizers="l2")
    parts = build.assemble(config, log, log, np.zeros(log.num_items))
    (part, module) = parts.regularizers[0]
    module.register_forward_hook(lambda *_: calls.append(part))
    train_step(parts, next(iter(parts.batches.epoch(0))), 0)
    assert len(calls) == 1


def test_it_serves_beside_the_newest_period_until_a_fresher_one():
    log = testing.small_log()
    result = fastpop.train(log, prior=ByPeriod(periods=4), **QUICK)
    temporal = build.temporal_prior(result.config, result.split.train)
    assert temporal.num_buckets == 4
    held = result.model.decoder.log_prior_V.numpy()
    np.testing.assert_array_equal(held, temporal.log_prior_TV[-1].astype(np.float32))
    np.testing.assert_array_equal(result.prior.log_prior_V, temporal.log_prior_TV[-1])
    assert result.prior.smoothing == "hierarchical"
    counts_V = result.split.train.item_counts()
    assert temporal.counts_TV.sum() == counts_V.sum()
    fresh = result.refresh_prior(counts_V)
    assert not np.array_equal(fresh.model.decoder.log_prior_V.numpy(), held)
    # A sequence encoder predicts no user's first event, so no period counts it.
    sequences = TrainConfig(encoder="sasrec", prior=ByPeriod(periods=4))
    train = result.split.train
    np.testing.assert_array_equal(
        build.temporal_prior(sequences, train).counts_TV.sum(axis=0), train.item_counts(first_events=False)
    )
    weeks = build.temporal_prior(TrainConfig(prior=ByPeriod(width=7 * 86_400)), train)
    assert (np.diff(weeks.start_T) == 7 * 86_400).all()


def test_with_a_half_life_a_period_counts_what_came_before_it_decayed():
    """By the definition, event by event; what is served is what `decayed_counts` gives."""
    log, half_life = testing.small_log(), 5 * 86_400.0
    config = TrainConfig(prior=ByPeriod(periods=4, half_life=half_life))
    temporal = build.temporal_prior(config, log)
    end_T = [*temporal.start_T[1:], log.time.max() + 1]
    for row_V, end in zip(temporal.counts_TV, end_T, strict=True):
        wanted_V = np.zeros(log.num_items)
        for item, time in zip(log.item.tolist(), log.time.tolist()):
            wanted_V[item] += 0.5 ** ((end - time) / half_life) if time < end else 0.0
        np.testing.assert_allclose(row_V, wanted_V, rtol=1e-9)
    served = config.prior_part.served(temporal)
    counts_V = decayed_counts(log.item, log.time, log.num_items, half_life=half_life, at=int(end_T[-1]))
    shrunk_V = (counts_V + temporal.alpha * temporal.pooled_V) / (counts_V.sum() + temporal.alpha)
    np.testing.assert_allclose(served.log_prior_V, np.log(shrunk_V), atol=1e-12)
    # One period is then not frozen: it is decayed counts. And it goes all the way.
    one = build.temporal_prior(TrainConfig(prior=ByPeriod(periods=1, half_life=half_life)), log)
    np.testing.assert_allclose(one.counts_TV[0], counts_V, rtol=1e-9)
    assert one.counts_TV.sum() < log.num_events
    testing.check_run(prior=ByPeriod(periods=3, half_life=half_life, drift=0.5))


def test_what_is_served_drifts_on_as_it_went():
    """Shares that move by the same step: a drift of 1 serves those of the period to come, to the digit."""
    world = TwinBlock(4, 12, 1.1, 0.5)
    p_V, step_V = np.exp(world.log_prior_V), 2e-3 * (-1.0) ** world.level_V
    shares = [p_V, p_V + step_V, p_V + 2 * step_V]
    period, item = (index.reshape(-1) for index in np.indices((2, world.num_items)))
    log = Interactions.from_arrays(
        np.zeros(len(item), int),
        item,
        1_000 * period,
        weight=1e6 * np.concatenate(shares[:2]),
        item_ids=np.arange(world.num_items),
    )
    for drift, wanted_V in ((0.0, shares[1]), (0.5, (shares[1] + shares[2]) / 2), (1.0, shares[2])):
        config = TrainConfig(prior=ByPeriod(periods=2, alpha=1e-6, drift=drift), smoothing=0.0)
        temporal = build.temporal_prior(config, log)
        served = config.prior_part.served(temporal)
        np.testing.assert_allclose(np.exp(served.log_prior_V), wanted_V, rtol=1e-9)
        np.testing.assert_allclose(temporal.log_prior_TV, np.log(shares[:2]), atol=1e-9)  # trained as ever
    parts = build.assemble(config, log, log, np.zeros(log.num_items))
    held_V = parts.model.decoder.log_prior_V.numpy()
    np.testing.assert_array_equal(held_V, served.log_prior_V.astype(np.float32))
    # What would fall below nothing is left what all events say of it; no events tell nothing.
    gone = TemporalPrior.from_events([0, 1, 1, 1, 0, 1], [0, 0, 9, 9, 9, 9], 2, num_buckets=2, alpha=2.0)
    left = gone.pooled_V[0] * 2 / (4 + 2)
    assert np.exp(gone.newest(9.0).log_prior_V) == pytest.approx([left, 1 - left])
    empty = TemporalPrior.from_events([0, 1, 1], [0, 25, 25], 2, bucket=10, alpha=2.0)
    assert not empty.counts_TV[1].any()
    np.testing.assert_array_equal(empty.newest(1.0).log_prior_V, empty.log_prior_TV[-1])
    with pytest.raises(ValueError, match=r"^drift: expected a finite number >= 0; got -1"):
        empty.newest(-1.0)


def tilted(world, theta, *, told):
    """Every (context, item) in two periods, weighted by how often it happens: p_t(i | k) = p_t(i) exp(PMI),
    p_1 = p, p_2 tilted by level^theta. told: whether contexts, which are users, tell the time.

    Returns the log, log p_t [2, V], and p(t, c, i) [2, C, V].
    """
    log_p_2V = np.stack([world.log_prior_V, world.log_prior_V + theta * np.log(1 + world.level_V)])
    log_p_2V -= np.log(np.exp(log_p_2V).sum(axis=1, keepdims=True))
    mass_2CV = np.exp(log_p_2V[:, None] + world.pmi()) / (2 * world.groups)
    period, context, item = (index.reshape(-1) for index in np.indices(mass_2CV.shape))
    user = context + world.groups * period if told else context
    log = Interactions.from_arrays(
        user, item, 1_000 * period, weight=1e6 * mass_2CV.reshape(-1), item_ids=np.arange(world.num_items)
    )
    return log, log_p_2V, mass_2CV


def trained(log, prior):
    """(log p_t or None, what is said [users, V]) where the loss of a run is least: by L-BFGS in float64 on
    the batch that holds every event."""
    config = TrainConfig(
        dim=4, batch_size=log.num_events, loss="full_softmax", smoothing=0.0, prior=prior, dropout=0.0
    )
    pooled = build.target_prior(log, "factor", 0.0)
    parts = build.assemble(config, log, log, pooled.log_prior_V)
    model, batch = parts.model.double(), next(iter(parts.batches.epoch(0)))
    optimizer = torch.optim.LBFGS(
        model.parameters(),
        max_iter=400,
        tolerance_grad=1e-9,
        tolerance_change=0,
        line_search_fn="strong_wolfe",
    )

    def loss():
        optimizer.zero_grad()
        item_VD = model.decoder.item_vectors()
        query_RD, pos_id_R, weight_R = model.rows(batch, item_VD)
        terms = model.decoder.training_terms()
        value = summed_loss(parts, batch, query_RD, item_VD, pos_id_R, weight_R.double() / 1e6, terms)
        value.backward()
        return value

    optimizer.step(loss)
    item_VD = model.decoder.item_vectors()
    query_UD = model.encoder(torch.arange(log.num_users), None, item_VD)
    own_TV = None if parts.temporal is None else parts.temporal.log_prior_TV
    return own_TV, (query_UD @ item_VD.T).detach().numpy()


def nll(mass_CV, score_CV):
    """Nats an event of contexts with these scores."""
    log_q_CV = score_CV - np.log(np.exp(score_CV).sum(axis=1, keepdims=True))
    return -float((mass_CV * log_q_CV).sum() / mass_CV.sum())


def entropy(mass_CV):
    return nll(mass_CV, np.log(mass_CV))


def test_levels_that_drift_cost_a_stale_log_p_their_divergence():
    world = TwinBlock(4, 30, 1.1, 0.5)
    log, log_p_2V, mass_2CV = tilted(world, 0.2, told=False)
    own_TV, said_CV = trained(log, ByPeriod(periods=2, alpha=1e-6))
    np.testing.assert_allclose(own_TV, log_p_2V, atol=1e-6)
    fresh = [nll(mass_2CV[t], said_CV + own_TV[t]) for t in range(2)]
    assert fresh == pytest.approx([entropy(mass_CV) for mass_CV in mass_2CV], abs=1e-5)
    assert nll(mass_2CV[1], said_CV + own_TV[0]) - fresh[1] == pytest.approx(STALE, abs=1e-5)


def test_where_contexts_tell_the_time_one_log_p_leaves_it_to_the_scores():
    """The best scores beside the pooled log p hold log p_t - log p, so that a fresh one counts it twice."""
    world = TwinBlock(4, 12, 1.1, 0.5)
    log, log_p_2V, mass_2CV = tilted(world, 0.8, told=True)
    pooled_V = np.log(np.exp(log_p_2V).mean(axis=0))
    found = {}
    for prior in (ByPeriod(periods=2, alpha=1e-6), "frozen"):
        found[str(prior)] = said_2CV = trained(log, prior)[1].reshape(2, world.groups, -1)
        beside = log_p_2V if str(prior) == "by-period" else [pooled_V] * 2
        for t in range(2):
            best = entropy(mass_2CV[t])
            assert nll(mass_2CV[t], said_2CV[t] + beside[t]) == pytest.approx(best, abs=1e-5)
    for t in range(2):
        left_V = log_p_2V[t] - pooled_V
        moved_V = (found["frozen"][t] - found["by-period"][t]).mean(axis=0)
        np.testing.assert_allclose(moved_V - moved_V.mean(), left_V - left_V.mean(), atol=0.02)
        twice = nll(mass_2CV[t], world.pmi() + 2 * log_p_2V[t] - pooled_V) - entropy(mass_2CV[t])
        excess = nll(mass_2CV[t], found["frozen"][t] + log_p_2V[t]) - entropy(mass_2CV[t])
        assert twice > 0.01
        assert excess == pytest.approx(twice, abs=1e-4)


def test_what_cannot_be_trained_by_period_is_refused():
    log = testing.small_log()
    timeless = Interactions.from_arrays(log.user, log.item)
    with pytest.raises(ValueError, match=r"^log: expected events with times, which prior='by-p"):
        fastpop.train(timeless, prior="by-period", split="random-by-user", **QUICK)
    for options, words in (
        ({"proposal": "in_batch"}, "in-batch negatives, which compares rows of different periods"),
        ({"loss": "partitioned_softmax"}, "loss='partitioned_softmax', which compares rows"),
        ({"loss": "bpr_max"}, "loss='bpr_max', which compares rows"),
    ):
        with pytest.raises(ValueError, match=rf"^prior: expected .* with {words}.*; got 'by-period'$"):
            TrainConfig(prior="by-period", **options)
    with (
        registry.registered("rows", toy_parts.Backwards),
        pytest.raises(ValueError, match=r"^prior: expected .* rows='toy-backwards', which say no period"),
    ):
        TrainConfig(prior="by-period", encoder=toy_parts.RecurrentBackwards())
    for options, name in (
        ({"periods": 0}, "periods"),
        ({"width": -1}, "width"),
        ({"weight": 1e9}, "weight"),
        ({"half_life": -1.0}, "half_life"),
        ({"drift": float("inf")}, "drift"),
    ):
        with pytest.raises(ValueError, match=rf"^prior\.{name}: expected"):
            ByPeriod(**options)
    with pytest.raises(ValueError, match=r"^prior\.periods: expected an integer >= 1 <= \d+; got 5000$"):
        fastpop.train(log, prior=ByPeriod(periods=5000), **QUICK)
    config = TrainConfig(prior="by-period", dim=8)
    parts = build.assemble(config, log, log, np.zeros(log.num_items))
    with pytest.raises(ValueError, match=r"^rows events: expected batches that say the periods of their"):
        train_step(parts, Batch(np.arange(3), np.arange(3)), 0)


def test_the_command_line_knows_it(tmp_path):
    log = testing.small_log()
    path = tmp_path / "log.csv"
    rows = zip(log.user.tolist(), log.item.tolist(), log.time.tolist())
    path.write_text("user,item,time\n" + "".join(f"{u},{i},{t}\n" for u, i, t in rows))
    quick = ["--epochs", "1", "--dim", "8", "--num-negatives", "16", "--out", str(tmp_path / "run")]
    columns = ["--user", "user", "--item", "item", "--time", "time"]
    prior = ["--prior", "by-period", "--prior.periods", "3", "--prior-weight", ".5"]
    main(["train", str(path), *columns, *prior, *quick])
    assert fastpop.load(tmp_path / "run").config.prior == ByPeriod(periods=3, weight=0.5)
    assert "by-period" in fastpop.available("priors")
