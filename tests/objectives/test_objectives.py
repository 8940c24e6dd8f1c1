"""The losses as modules: what somebody drops into another trainer."""

import numpy as np
import pytest
import torch

from fastpop import ops, popularity
from fastpop.nn import Decoder, FullSoftmaxLoss, SampledSoftmaxLoss

V, B, D = 50, 12, 6


@pytest.fixture
def tensors():
    torch.manual_seed(0)
    return torch.randn(B, D), torch.randn(V, D), torch.randint(V, (B,))


@pytest.fixture
def counts():
    return np.random.default_rng(0).integers(1, 30, V)


def test_sampled_loss_is_the_op_with_its_own_draws(tensors, counts):
    query, items, pos_id = tensors
    prior = popularity.PopularityPrior.from_counts(counts)
    proposal = popularity.power(counts, 0.75)
    head = SampledSoftmaxLoss(prior, proposal, num_negatives=16, seed=4)
    expected = ops.sampled_softmax(
        query,
        items,
        pos_id,
        torch.from_numpy(proposal.sample(4, 9, 16)),
        log_prior=torch.tensor(prior.log_prior_V),
        reduction="mean",
        log_proposal=torch.tensor(proposal.log_proposal_V),
    )
    torch.testing.assert_close(head(query, items, pos_id, step=9), expected)


def test_the_module_counts_its_calls_and_a_state_dict_keeps_the_count(tensors, counts):
    proposal = popularity.uniform(V)
    head = SampledSoftmaxLoss(None, proposal, num_negatives=4)
    losses = [head(*tensors).item() for _ in range(3)]
    assert len(set(losses)) == 3
    twin = SampledSoftmaxLoss(None, proposal, num_negatives=4)
    twin.load_state_dict(head.state_dict())
    assert twin(*tensors).item() == head(*tensors).item()
    assert SampledSoftmaxLoss(None, proposal, num_negatives=4)(*tensors).item() == losses[0]


def test_evaluation_has_draws_of_its_own_the_same_each_time(tensors):
    head, twin = (SampledSoftmaxLoss(None, popularity.uniform(V), num_negatives=4) for _ in range(2))
    trained = [head(*tensors).item(), twin(*tensors).item()]
    seen = []
    for _ in range(2):
        head.eval()
        seen.append([head(*tensors).item() for _ in range(3)])
        head.train()
    assert seen[0] == seen[1]
    assert len({*seen[0], *trained}) == 4
    assert head(*tensors).item() == twin(*tensors).item()


def test_distributions_stay_float32_where_a_trainer_casts_the_model(tensors, counts):
    query, items, pos_id = (one.bfloat16() if one.is_floating_point() else one for one in tensors)
    prior = popularity.PopularityPrior.from_counts(counts)
    head = SampledSoftmaxLoss(prior, popularity.power(counts, 0.75), num_negatives=16)
    expected = head(query, items, pos_id, step=3)
    for cast in (head.bfloat16(), head.to(torch.float16), head.double()):
        assert cast.log_prior_V.dtype == cast.log_proposal_V.dtype == torch.float32
        assert cast(query, items, pos_id, step=3) == expected
    decoder = Decoder(prior.log_prior_V, D, temperature=0.3).bfloat16()
    assert decoder.item_embedding.dtype == torch.bfloat16
    np.testing.assert_array_equal(decoder.log_prior_V, prior.log_prior_V.astype(np.float32))
    assert decoder.scale.item() == pytest.approx(1 / 0.3, rel=1e-6)
    assert decoder.to("meta").log_prior_V.device.type == "meta"


def test_in_batch_rows_leave_out_the_diagonal_only(tensors, counts):
    query, items, _ = tensors
    pos_id = torch.tensor([1, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11])
    in_batch = popularity.InBatch.from_counts(counts)
    got = SampledSoftmaxLoss(None, in_batch, reduction="none")(query, items, pos_id)
    log_q = torch.tensor(in_batch.log_proposal_V, dtype=torch.float32)
    logit = query @ items[pos_id].T - log_q[pos_id]
    # The other row with item 1 stays in row 0's sum: B logits, the diagonal standing for the positive.
    expected = torch.logsumexp(logit, 1) - logit.diagonal()
    torch.testing.assert_close(got, expected)


def test_extra_draws_beside_in_batch_are_corrected_by_the_mixture(tensors, counts):
    query, items, pos_id = tensors
    in_batch, extra = popularity.InBatch.from_counts(counts), popularity.uniform(V)
    head = SampledSoftmaxLoss(
        None, in_batch, extra=extra, num_negatives=20, reduction="none", logq="corrected"
    )
    got = head(query, items, pos_id, step=3)
    neg_id = torch.cat([pos_id, torch.from_numpy(extra.sample(0, 3, 20))])
    log_q = torch.tensor(popularity.slot_log_proposal(in_batch, extra, B, 20))
    expected = ops.sampled_softmax(
        query, items, pos_id, neg_id, log_proposal=log_q, logq="corrected", exclude_diagonal=True
    )
    torch.testing.assert_close(got, expected)


def test_full_loss_is_the_op(tensors, counts):
    query, items, pos_id = tensors
    log_prior = torch.tensor(counts / counts.sum()).log()
    head = FullSoftmaxLoss(log_prior, prior_weight=0.5, scale=2.0, label_smoothing=0.1)
    expected = ops.full_softmax(
        query,
        items,
        pos_id,
        log_prior=log_prior,
        prior_weight=0.5,
        scale=2.0,
        label_smoothing=0.1,
        reduction="mean",
    )
    torch.testing.assert_close(head(query, items, pos_id), expected)


def test_keywords_of_the_caller_win(tensors, counts):
    head = FullSoftmaxLoss(np.log(counts / counts.sum()))
    without = head(*tensors, log_prior=None)
    torch.testing.assert_close(without, ops.full_softmax(*tensors, reduction="mean"))


def test_bad_arguments_are_named(counts):
    with pytest.raises(TypeError, match=r"proposal: expected a fastpop\.popularity Proposal"):
        SampledSoftmaxLoss(None, "uniform")
    with pytest.raises(ValueError, match="num_negatives: expected an integer >= 1; got 0"):
        SampledSoftmaxLoss(None, popularity.uniform(V), num_negatives=0)
    with pytest.raises(ValueError, match="group_size: expected None with in-batch"):
        SampledSoftmaxLoss(None, popularity.InBatch.from_counts(counts), group_size=4)
    with pytest.raises(ValueError, match="extra: expected a Proposal, beside"):
        SampledSoftmaxLoss(None, popularity.uniform(V), extra=popularity.uniform(V))
    with pytest.raises(ValueError, match="accidental_hits: expected one of"):
        SampledSoftmaxLoss(None, popularity.uniform(V), accidental_hits="x")
    with pytest.warns(UserWarning, match="takes it out again"):
        SampledSoftmaxLoss(counts / counts.sum(), popularity.InBatch.from_counts(counts), logq="none")


def test_a_single_row_has_no_in_batch_negatives_and_no_loss(counts):
    head = SampledSoftmaxLoss(None, popularity.InBatch.from_counts(counts))
    query = torch.randn(1, D, requires_grad=True)
    loss = head(query, torch.randn(V, D), torch.tensor([1]))
    loss.backward()
    assert loss.item() == 0
    assert torch.equal(query.grad, torch.zeros(1, D))
