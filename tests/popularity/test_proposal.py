"""Proposals: what is drawn follows the distribution that is written, and bad input gets one clear error."""

import copy
import json
import pickle
import subprocess
import sys

import numpy as np
import pytest
import torch
from helpers_device import gpu
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

from fastpop import ops, registry
from fastpop.popularity import (
    Draw,
    InBatch,
    InBatchProposal,
    MixtureProposal,
    Proposal,
    UniformProposal,
    log_uniform,
    mixture,
    power,
    proposal_from_name,
    slot_log_proposal,
    uniform,
)

COUNTS = np.array([0.0, 3, 40, 1, 0, 7, 7, 120, 2, 1, 15, 5])
DRAWN = {
    "uniform": lambda: uniform(12),
    "one item": lambda: uniform(1),
    "popularity": lambda: power(COUNTS),
    "power .75": lambda: power(COUNTS, 0.75),
    "power -.5": lambda: power(COUNTS, -0.5),
    "log_uniform": lambda: log_uniform(COUNTS),
    "mixture": lambda: mixture([(uniform(12), 0.3), (power(COUNTS, 0.5), 0.7)]),
    "single positive": lambda: power(np.array([0.0, 0, 5, 0])),
    "large": lambda: power(np.random.default_rng(0).integers(0, 50, 3001), 0.75),
}


def probability(proposal):
    return np.exp(proposal.log_proposal_V)


@pytest.mark.parametrize("name", DRAWN)
@pytest.mark.parametrize("impl", ["cpu", "reference"])
def test_draws_follow_the_exact_distribution(name, impl):
    proposal = DRAWN[name]()
    drawn = proposal.sample(11, 5, (4, 60_000), impl=impl)
    observed = np.bincount(drawn.ravel(), minlength=proposal.num_items)
    expected = probability(proposal) * drawn.size
    possible = expected > 0
    assert observed[~possible].sum() == 0
    if possible.sum() == 1:
        assert (observed[possible] == drawn.size).all()
    else:
        assert stats.chisquare(observed[possible], expected[possible]).pvalue > 1e-4


def test_the_chi_square_would_see_a_small_error():
    proposal = power(COUNTS, 0.75)
    observed = np.bincount(proposal.sample(11, 5, 240_000), minlength=12)
    off = probability(power(COUNTS, 0.78))
    possible = off > 0
    assert stats.chisquare(observed[possible], off[possible] * 240_000).pvalue < 1e-4


@pytest.mark.parametrize("name", DRAWN)
def test_so_many_draws_differ_as_are_expected_to(name):
    proposal = DRAWN[name]()
    for num_draws in (1, 2, 30):
        drawn = np.sort(proposal.sample(3, 1, (20_000, num_draws)), 1)
        different = 1 + (np.diff(drawn, axis=1) != 0).sum(1)
        expected = proposal.expected_distinct(num_draws)
        assert expected == pytest.approx(different.mean(), abs=6 * different.std() / 20_000**0.5 + 1e-9)
        assert proposal.expected_distinct(num_draws) == expected
    assert proposal.expected_distinct(0) == 0
    with pytest.raises(ValueError, match="num_draws: expected an integer >= 0; got -1"):
        proposal.expected_distinct(-1)


def test_consecutive_draws_steps_and_groups_are_independent():
    proposal = power(COUNTS, 0.5)
    drawn = proposal.sample(1, 1, (2, 60_000))
    other_step = proposal.sample(1, 2, 60_000)
    other_seed = proposal.sample(2, 1, 60_000)
    pairs = [
        (drawn[0, ::2], drawn[0, 1::2]),
        (drawn[0, 1:-1:2], drawn[0, 2::2]),
        (drawn[0], drawn[1]),
        (drawn[0], other_step),
        (drawn[0], other_seed),
    ]
    for first, second in pairs:
        table = np.zeros((12, 12))
        np.add.at(table, (first, second), 1)
        used = table.sum(axis=1) > 0
        assert stats.chi2_contingency(table[used][:, used]).pvalue > 1e-4


def test_distributions_match_their_formulas():
    np.testing.assert_allclose(probability(uniform(12)), 1 / 12, rtol=1e-9)
    np.testing.assert_allclose(probability(power(COUNTS)), COUNTS / COUNTS.sum(), rtol=1e-7)
    np.testing.assert_array_equal(probability(power(COUNTS, 0.75)) > 0, COUNTS > 0)
    rooted = np.where(COUNTS > 0, np.maximum(COUNTS, 1) ** -0.5, 0)
    np.testing.assert_allclose(probability(power(COUNTS, -0.5)), rooted / rooted.sum(), rtol=1e-7)
    np.testing.assert_allclose(
        probability(mixture([(uniform(12), 3), (power(COUNTS), 7)])),
        0.3 / 12 + 0.7 * COUNTS / COUNTS.sum(),
        rtol=1e-7,
    )


def test_log_uniform_ranks_by_training_counts_with_ties_by_id():
    expected = {}
    for r, item in enumerate([7, 2, 10, 5, 6, 11, 1, 8, 3, 9, 0, 4]):
        expected[item] = np.log((r + 2) / (r + 1)) / np.log(13)
    ours = probability(log_uniform(COUNTS))
    np.testing.assert_allclose(ours, [expected[i] for i in range(12)], rtol=1e-7)


@pytest.mark.parametrize("alpha", [50.0, -50.0, 1000.0])
def test_extreme_powers_do_not_overflow(alpha):
    proposal = power(COUNTS * 1e200, alpha)
    assert np.isfinite(probability(proposal)).all()
    assert probability(proposal).sum() == pytest.approx(1)
    assert probability(proposal)[0] == 0


def test_sample_shapes_and_prefixes():
    proposal = power(COUNTS)
    row = proposal.sample(3, 4, 7, group=2)
    assert row.shape == (7,)
    assert row.dtype == np.int64
    np.testing.assert_array_equal(proposal.sample(3, 4, (7,), group=2), row)
    both = proposal.sample(3, 4, (3, 7), group=1)
    np.testing.assert_array_equal(both[1], row)
    assert proposal.sample(3, 4, (2, 0)).shape == (2, 0)
    assert proposal.sample(3, 4, (0, 5)).shape == (0, 5)
    np.testing.assert_array_equal(
        proposal.sample(3, 4, (3, 7), impl="reference"), proposal.sample(3, 4, (3, 7))
    )


def test_the_draw_of_a_release_stays_the_draw():
    """Written down once: a change here breaks the replay of every old run."""
    assert power(COUNTS).sample(42, 7, 8).tolist() == [2, 5, 10, 6, 7, 2, 7, 7]
    last = uniform(10**7).sample(2**64 - 1, 2**64 - 1, 3, group=2**32 - 1)
    assert last.tolist() == [9405599, 6857895, 7462134]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 1000), min_size=1, max_size=30), st.floats(-2, 2))
def test_any_counts_give_a_distribution_over_seen_items(count_list, alpha):
    counts = np.array(count_list, dtype=float)
    if not counts.any():
        counts[0] = 1
    proposal = power(counts, alpha)
    assert probability(proposal).sum() == pytest.approx(1, abs=1e-12)
    np.testing.assert_array_equal(probability(proposal) > 0, counts > 0)
    assert np.isfinite(proposal.log_q(proposal.sample(0, 0, 50))).all()


def test_in_batch_has_a_distribution_and_no_draws():
    proposal = InBatch.from_counts(COUNTS)
    np.testing.assert_allclose(probability(proposal), COUNTS / COUNTS.sum())
    assert proposal.log_q([0, 7]).tolist() == [-np.inf, np.log(COUNTS[7] / COUNTS.sum())]
    with pytest.raises(TypeError, match="proposal: expected one that draws ids; got in_batch"):
        proposal.sample(0, 0, 5)
    with pytest.raises(TypeError, match="proposal: expected a Proposal that draws"):
        Draw(proposal, 0, 0, 5)


def test_slot_distribution_is_the_distribution_of_a_random_slot():
    batch, negatives = 33, 20
    in_batch, drawn = InBatch.from_counts(COUNTS), uniform(12)
    log_proposal_V = slot_log_proposal(in_batch, drawn, batch, negatives)
    assert np.exp(log_proposal_V).sum() == pytest.approx(1)
    rng = np.random.default_rng(0)
    others = rng.choice(12, size=(3000, batch - 1), p=probability(in_batch))
    sampled = drawn.sample(0, 0, (3000, negatives))
    observed = np.bincount(np.concatenate([others, sampled], axis=1).ravel(), minlength=12)
    expected = np.exp(log_proposal_V) * observed.sum()
    assert stats.chisquare(observed, expected).pvalue > 1e-4
    np.testing.assert_allclose(
        slot_log_proposal(in_batch, drawn, batch, 0), in_batch.log_proposal_V, rtol=1e-12
    )
    np.testing.assert_allclose(slot_log_proposal(in_batch, drawn, 1, 4), drawn.log_proposal_V)
    with pytest.raises(ValueError, match="at least one candidate"):
        slot_log_proposal(in_batch, drawn, 1, 0)
    with pytest.raises(ValueError, match="proposal: expected 12 items; got 5"):
        slot_log_proposal(in_batch, uniform(5), 4, 4)


@pytest.mark.parametrize("name", ["uniform", "popularity", "log_uniform", "in_batch", "mixture"])
def test_every_name_makes_a_proposal_with_a_json_spec(name):
    part = registry.made("proposal", name, options={"power": 0.75})
    proposal = part.build(COUNTS)
    assert proposal.name == name
    spec = json.loads(json.dumps(proposal.spec()))
    assert spec["name"] == name
    assert spec["num_items"] == 12
    again = part.build(COUNTS)
    np.testing.assert_array_equal(again.log_proposal_V, proposal.log_proposal_V)
    assert again.spec() == spec
    changed = COUNTS + np.eye(12)[3]
    assert (part.build(changed).spec() == spec) == (name == "uniform")


def test_named_mixture_can_be_all_uniform():
    ours = MixtureProposal(power=1.0, uniform_share=1).build(COUNTS)
    np.testing.assert_allclose(probability(ours), 1 / 12, rtol=1e-8)
    quarter = MixtureProposal(power=1.0, uniform_share=0.25).build(COUNTS)
    np.testing.assert_allclose(probability(quarter), 0.25 / 12 + 0.75 * COUNTS / COUNTS.sum(), rtol=1e-7)


def test_proposals_cannot_be_written_to():
    proposal = power(COUNTS)
    in_batch = InBatch.from_counts(COUNTS)
    for array in (proposal.log_proposal_V, proposal.table_V2, in_batch.log_proposal_V):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 1
    with pytest.raises(AttributeError):
        proposal.name = "other"


BAD = [
    (lambda: power([1, -2.0]), ValueError, "counts: expected numbers >= 0; got -2.0 at item 1"),
    (lambda: power([1, np.nan]), ValueError, "counts: expected finite numbers; got nan"),
    (lambda: power([1, np.inf]), ValueError, "counts: expected finite numbers; got inf"),
    (lambda: power([0, 0]), ValueError, "counts: expected at least one event; got 2 items"),
    (lambda: power([]), ValueError, "counts: expected at least one item"),
    (lambda: power([[1.0]]), ValueError, "counts: expected a 1-d array"),
    (lambda: power(["a"]), TypeError, "counts: expected a 1-d array of real numbers"),
    (lambda: power([1.0], np.nan), ValueError, "alpha: expected a finite number"),
    (lambda: uniform(0), ValueError, "num_items: expected an integer >= 1"),
    (lambda: uniform(2**31), ValueError, "num_items: expected an integer"),
    (lambda: uniform(3.0), TypeError, "num_items: expected an integer"),
    (lambda: Proposal.from_weights([0, -1.0]), ValueError, "weights: expected numbers >= 0"),
    (lambda: Proposal.from_weights([0.0]), ValueError, "weights: expected at least one number > 0"),
    (lambda: mixture([]), ValueError, "parts: expected a list"),
    (lambda: mixture([uniform(2)]), ValueError, r"parts\[0\]: expected \(proposal, weight\)"),
    (lambda: mixture([(uniform(2), 0)]), ValueError, r"parts\[0\] weight: expected"),
    (lambda: mixture([(uniform(2), 1), (uniform(3), 1)]), ValueError, "expected 2 items; got 3"),
    (lambda: mixture([(InBatch.from_counts([1]), 1)]), TypeError, "slot_log_proposal"),
    (lambda: proposal_from_name("zipf", COUNTS), ValueError, "proposal: expected one of 'uniform'"),
    (lambda: MixtureProposal(parts=(UniformProposal(),)), ValueError, "proposal.weights: expected 1 numbers"),
    (
        lambda: MixtureProposal(parts=(InBatchProposal(),), weights=(1,)),
        TypeError,
        r"proposal.parts\[0\]: expected a proposal that draws; got in_batch",
    ),
    (
        lambda: MixtureProposal(parts=(UniformProposal(),), weights=(1,), uniform_share=0.1),
        ValueError,
        r"proposal.uniform_share: expected none beside parts, which have their own; got 0.1",
    ),
    (lambda: uniform(2).sample(-1, 0, 1), ValueError, "seed: expected an integer >= 0"),
    (lambda: uniform(2).sample(2**64, 0, 1), ValueError, "seed: expected an integer"),
    (lambda: uniform(2).sample(0, -1, 1), ValueError, "step: expected an integer >= 0"),
    (lambda: uniform(2).sample(0, 2**64, 1), ValueError, "step: expected an integer"),
    (lambda: uniform(2).sample(1.5, 0, 1), TypeError, "seed: expected an integer"),
    (lambda: uniform(2).sample(0, 0, 1, group=2**32), ValueError, "group: expected an integer"),
    (lambda: uniform(2).sample(0, 0, (3, 1), group=2**32 - 2), ValueError, "number of groups"),
    (lambda: uniform(2).sample(0, 0, -1), ValueError, "number of draws: expected"),
    (lambda: uniform(2).sample(0, 0, (1, 1, 1)), ValueError, "shape: expected K"),
    (lambda: uniform(2).sample(0, 0, 1, impl="gpu"), ValueError, "impl: expected one of"),
    (lambda: uniform(2).log_q([2]), ValueError, r"ids: expected ids in \[0, 2\); got 2"),
    (lambda: uniform(2).log_q([-1]), ValueError, r"ids: expected ids in \[0, 2\); got -1"),
    (lambda: uniform(2).log_q([0.5]), TypeError, "ids: expected integers"),
    (lambda: Draw(uniform(2), -1, 0, 4), ValueError, "seed: expected an integer >= 0"),
    (lambda: Draw(uniform(2), 0, 0, 0), ValueError, "num_negatives: expected an integer >= 1"),
    (lambda: Draw(uniform(2), 0, 0, 4, 0), ValueError, "group_size: expected an integer >= 1"),
    (lambda: Draw(uniform(2), 0, 0, 4).ids(-1), ValueError, "num_rows: expected an integer >= 0"),
]


@pytest.mark.parametrize("at", range(len(BAD)))
def test_bad_input_gets_one_clear_error(at):
    call, kind, message = BAD[at]
    with pytest.raises(kind, match=message):
        call()


def test_draw_groups_rows():
    proposal = power(COUNTS)
    shared = Draw(proposal, 5, 6, 9)
    assert shared.ids(100).shape == (1, 9)
    np.testing.assert_array_equal(shared.ids(100)[0], proposal.sample(5, 6, 9))
    grouped = Draw(proposal, 5, 6, 9, group_size=4)
    assert [grouped.num_groups(n) for n in (0, 1, 4, 5, 8, 9)] == [0, 1, 1, 2, 2, 3]
    np.testing.assert_array_equal(grouped.ids(9), proposal.sample(5, 6, (3, 9)))
    assert shared.ids(0).shape == (0, 9)
    torch = pytest.importorskip("torch")
    on_cpu = grouped.tensor(9)
    assert on_cpu.dtype == torch.int64
    np.testing.assert_array_equal(on_cpu.numpy(), grouped.ids(9))
    table = proposal.table_on("cpu")
    assert table.dtype == torch.int32
    np.testing.assert_array_equal(table.numpy().view(np.uint32), proposal.table_V2)
    assert proposal.table_on("cpu") is table


@pytest.mark.parametrize("proposal", [power(COUNTS), InBatch.from_counts(COUNTS)])
def test_the_distribution_on_a_device_is_a_kept_copy(proposal):
    torch = pytest.importorskip("torch")
    single = proposal.log_proposal_on("cpu")
    assert single.dtype == torch.float32
    assert proposal.log_proposal_on(torch.device("cpu")) is single
    double = proposal.log_proposal_on("cpu", torch.float64)
    np.testing.assert_array_equal(double.numpy(), proposal.log_proposal_V)


@pytest.mark.parametrize("proposal", [power(COUNTS), InBatch.from_counts(COUNTS)])
def test_a_copy_has_the_arrays_and_not_the_tensors_that_were_made_of_them(proposal):
    before = len(pickle.dumps(proposal))
    proposal.log_proposal_on("cpu")
    assert len(pickle.dumps(proposal)) == before
    for copied in (pickle.loads(pickle.dumps(proposal)), copy.deepcopy(proposal)):
        assert copied.log_proposal_on("cpu") is not proposal.log_proposal_on("cpu")
        assert torch.equal(copied.log_proposal_on("cpu"), proposal.log_proposal_on("cpu"))


@pytest.mark.gpu
def test_draw_on_a_gpu_gives_the_same_ids():
    draw = Draw(power(COUNTS), 5, 6, 1001, group_size=4)
    np.testing.assert_array_equal(draw.tensor(9, gpu()).cpu().numpy(), draw.ids(9))


def test_importing_and_drawing_needs_neither_numba_nor_torch():
    code = (
        "import sys; from fastpop.popularity import power; power([1, 2.]).sample(0, 0, 3)\n"
        "bad = {'numba', 'torch', 'duckdb', 'triton', 'pandas', 'scipy'} & set(sys.modules)\n"
        "print(sorted(bad))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_what_a_proposal_keeps_is_made_for_every_later_use():
    """Not an inference tensor, which autograd cannot save, nor a symbol of a trace or transform."""
    proposal = power(np.arange(1, 40), 0.5)
    with torch.inference_mode():
        proposal.log_proposal_on("cpu")
        proposal.table_on("cpu")
    assert not proposal.log_proposal_on("cpu").is_inference()
    assert not proposal.table_on("cpu").is_inference()
    query = torch.randn(3, 4, requires_grad=True)
    ops.sampled_softmax(
        query, torch.randn(39, 4), torch.arange(3), Draw(proposal, 0, 0, 5), reduction="mean"
    ).backward()

    for inside in (torch.func.functionalize, torch.func.grad):
        proposal = power(np.arange(1, 40), 0.5)
        inside(lambda one, proposal=proposal: (proposal.log_proposal_on("cpu") + one).sum())(torch.zeros(39))
        assert not torch._is_functional_tensor(proposal.log_proposal_on("cpu"))
    proposal = power(np.arange(1, 40), 0.5)
    with FakeTensorMode():
        assert isinstance(proposal.table_on("cpu"), FakeTensor)
    np.testing.assert_array_equal(proposal.table_on("cpu").numpy().view(np.uint32), proposal.table_V2)
