"""Several positives a row whose others are no negatives: against every logit written out, by every
implementation that runs here."""

import math

import pytest
import torch
from helpers_device import device_of
from helpers_softmax import assert_as_exact_as_reference, implementations_here, in_dtype, loss_and_gradients

import fastpop
from fastpop.nn import FullSoftmaxLoss, SampledSoftmaxLoss
from fastpop.ops import full_softmax, sampled_softmax, validation
from fastpop.popularity import power

V, D, B, M = 23, 5, 7, 3
WANTED = ("query", "items", "log_prior", "scale", "prior_weight")


def problem(seed=0, sure=False):
    """sure: one of a row's positives has all of the probability but a millionth, so that the others' sums are
    differences of numbers that are alike."""
    generator = torch.Generator().manual_seed(seed)
    query = torch.randn(B, D, generator=generator, dtype=torch.float64)
    items = torch.randn(V, D, generator=generator, dtype=torch.float64)
    pos_id = torch.stack([torch.randperm(V, generator=generator)[:M] for _ in range(B)])
    star = next(one for one in range(V) if not (pos_id == one).any())
    pos_id[[0, 6], 0] = star
    pos_id[1, 2], pos_id[2, 1:] = -100, -100  # two positives, one
    pos_id[3] = -100  # none
    pos_id[4, 2] = pos_id[4, 0]  # one of them twice
    log_prior = torch.linspace(-4, -1, V, dtype=torch.float64)
    log_prior[pos_id[5, 1]] = -math.inf  # one of them removed
    if sure:
        log_prior[star] += 18.0
    return {
        "query": query,
        "items": items,
        "pos_id": pos_id,
        "log_prior": log_prior,
        "scale": torch.tensor(0.8, dtype=torch.float64),
        "prior_weight": torch.tensor(0.9, dtype=torch.float64),
    }


def entries(loss_BM, pos_id):
    """[B] mean over a row's entries."""
    real = pos_id != -100
    return torch.where(real, loss_BM, 0).sum(1) / real.sum(1).clamp(min=1)


def logits_of(query, items, log_prior, scale, prior_weight):
    gone = log_prior == -math.inf
    term = prior_weight * torch.where(gone, 0, log_prior)
    return torch.where(gone, -math.inf, scale * query @ torch.where(gone[:, None], 0, items).T + term)


def losses(pos_z, rest_z, pos_id):
    """[B, M] of positives' logits [B, M] and those of what stands against each [B, M, n]."""
    removed = pos_z == -math.inf
    pos_z = torch.where(removed, 0, pos_z)
    loss = torch.logsumexp(torch.cat([pos_z[..., None], rest_z], 2), 2) - pos_z
    return entries(torch.where(removed, math.inf, loss), pos_id)


def dense_full(query, items, pos_id, **terms):
    z = logits_of(query, items, **terms)
    real, safe = pos_id != -100, pos_id.clamp(min=0)
    is_positive = torch.zeros(B, V, dtype=torch.bool)
    for m in range(M):
        is_positive[real[:, m], safe[real[:, m], m]] = True
    rest = torch.where(is_positive, -math.inf, z)[:, None].expand(-1, M, -1)
    return losses(z.gather(1, safe), rest, pos_id)


def dense_sampled(query, items, pos_id, neg_BK, log_proposal, logq, hits, **terms):
    z = logits_of(query, items, **terms)
    real, safe = pos_id != -100, pos_id.clamp(min=0)
    pos_z, neg_z = z.gather(1, safe), z.gather(1, neg_BK)
    if logq == "standard":
        pos_z = pos_z - log_proposal[safe]
        neg_z = neg_z - log_proposal[neg_BK]
    elif logq == "corrected":
        neg_z = neg_z - log_proposal[neg_BK] - math.log(neg_BK.shape[1])
    is_positive = ((neg_BK[:, None] == safe[..., None]) & real[..., None]).any(1)
    is_own = neg_BK[:, None] == safe[..., None]
    keep = ~is_positive[:, None] | (is_own & (hits == "keep"))
    return losses(pos_z, torch.where(keep, neg_z[:, None], -math.inf), pos_id)


def check(function, oracle, inputs, impl, wanted=WANTED):
    for dtype in (torch.float32, *([torch.float64] if impl == "reference" else [])):
        given = in_dtype(inputs, dtype)
        given |= {name: inputs[name].to(dtype) for name in ("scale", "prior_weight")}
        doubled = {
            name: one.double() if isinstance(one, torch.Tensor) and one.is_floating_point() else one
            for name, one in given.items()
        }
        got, grads = loss_and_gradients(function, given, wanted)
        plain, plain_grads = loss_and_gradients(oracle, given, wanted)
        truth, true_grads = loss_and_gradients(oracle, doubled, wanted)
        assert_as_exact_as_reference(got, plain, truth, dtype, "loss", largest=10.0)
        for name in wanted:
            assert_as_exact_as_reference(
                grads[name], plain_grads[name], true_grads[name], dtype, name, largest=10.0
            )


@pytest.mark.parametrize("impl", implementations_here("full_softmax"))
@pytest.mark.parametrize("sure", [False, True], ids=["unsure", "sure"])
def test_the_full_softmax(impl, sure):
    def ours(**given):
        return full_softmax(**given, mask_positives=True, impl=impl)

    check(ours, dense_full, problem(sure=sure), impl)


def negatives(form, pos_id):
    """(what is given, [B, K] as each row reads it), with positives of the rows among them."""
    generator = torch.Generator().manual_seed(1)
    shape = {"shared": (1, 9), "groups": (3, 9), "rows": (B, 9)}[form]
    neg = torch.randint(V, shape, generator=generator)
    size = {"shared": B, "groups": 3, "rows": 1}[form]
    for group in range(len(neg)):
        neg[group, :3] = pos_id[min(group * size, B - 1)].clamp(min=0)
        neg[group, 3] = neg[group, 0]  # one of them twice
    row = torch.arange(B) // size
    if form == "shared":
        return {"neg_id": neg[0]}, neg.expand(B, -1)
    return {"neg_id": neg, **({"group_size": 3} if form == "groups" else {})}, neg[row]


MODES = [("standard", "keep"), ("standard", "drop"), ("corrected", "drop"), ("none", "keep")]


def check_sampled(impl, form, logq, hits):
    inputs = problem()
    given, neg_BK = negatives(form, inputs["pos_id"])
    inputs["log_proposal"] = torch.log_softmax(torch.linspace(0, 2, V, dtype=torch.float64), 0)

    def ours(log_proposal, **terms):
        log_q = None if logq == "none" else log_proposal
        return sampled_softmax(
            **terms,
            **given,
            log_proposal=log_q,
            logq=logq,
            accidental_hits=hits,
            mask_positives=True,
            impl=impl,
        )

    def theirs(log_proposal, **terms):
        return dense_sampled(**terms, neg_BK=neg_BK, log_proposal=log_proposal, logq=logq, hits=hits)

    check(ours, theirs, inputs, impl)


@pytest.mark.parametrize("impl", ["reference", "cpu"])
@pytest.mark.parametrize("form", ["shared", "groups", "rows"])
@pytest.mark.parametrize(("logq", "hits"), MODES)
def test_the_sampled_softmax(impl, form, logq, hits):
    check_sampled(impl, form, logq, hits)


@pytest.mark.parametrize("impl", ["reference", "cpu", "cuda"])
@pytest.mark.parametrize("form", ["shared", "rows"])
@pytest.mark.parametrize(("logq", "hits"), MODES)
def test_on_a_device_every_entry_has_a_set_of_its_own(impl, form, logq, hits, monkeypatch):
    """Of "cuda" the host emulation, which takes sets for each row."""
    monkeypatch.setattr(validation, "can_read", lambda tensor: False)
    if impl == "cuda":
        device_of("host emulation", monkeypatch)
    check_sampled(impl, form, logq, hits)


def test_negatives_that_are_the_catalogue_give_the_full_softmax():
    inputs = problem(sure=True)
    whole = full_softmax(**inputs, mask_positives=True)
    log_q = torch.full((V,), -math.log(V), dtype=torch.float64)
    options = {"logq": "standard", "accidental_hits": "drop", "mask_positives": True}
    sampled = sampled_softmax(**inputs, neg_id=torch.arange(V), log_proposal=log_q, **options)
    torch.testing.assert_close(sampled, whole, rtol=1e-12, atol=1e-12)


def test_one_positive_a_row_is_as_ever():
    inputs = problem()
    inputs["pos_id"] = inputs["pos_id"][:, 0]
    torch.testing.assert_close(
        full_softmax(**inputs, mask_positives=True), full_softmax(**inputs), rtol=0, atol=0
    )
    inputs["pos_id"] = inputs["pos_id"][:, None]
    torch.testing.assert_close(
        full_softmax(**inputs, mask_positives=True), full_softmax(**inputs), rtol=0, atol=0
    )


@pytest.mark.parametrize("group_size", [None, 2, 1])
def test_draws_reductions_weights_and_padding(group_size):
    inputs = in_dtype(problem(), torch.float32)
    inputs |= {"scale": 0.8, "prior_weight": 0.9}
    proposal = power(torch.arange(1, V + 1).numpy(), 0.5)
    draw = fastpop.Draw(proposal, 3, 5, 12, group_size)
    neg = draw.tensor(B)
    given = {"neg_id": neg, "group_size": group_size} if group_size else {"neg_id": neg[0]}
    log_q = proposal.log_proposal_on("cpu", torch.float32)
    weight = torch.linspace(0, 2, B)
    for padding_idx in (None, int(inputs["pos_id"][0, 1])):
        options = {"mask_positives": True, "padding_idx": padding_idx, "row_weight": weight}
        each = sampled_softmax(**inputs, **given, log_proposal=log_q, **options)
        drawn, lse = sampled_softmax(**inputs, neg_id=draw, return_lse=True, **options)
        assert torch.equal(each, drawn)
        assert lse.shape == inputs["pos_id"].shape
        finite = torch.isfinite(each)
        assert finite.sum() == B - 1  # but the row of a removed positive
        kept = {name: one[finite] for name, one in inputs.items() if name in ("query", "pos_id")}
        some = {"neg_id": neg[torch.arange(B) // (group_size or B)][finite], "log_proposal": log_q}
        options["row_weight"] = weight[finite]
        mean = sampled_softmax(**(inputs | kept), **some, reduction="mean", **options)
        counts = (kept["pos_id"] != -100) & (kept["pos_id"] != (padding_idx or -100))
        total = (weight[finite] * counts.any(1)).sum()
        torch.testing.assert_close(mean, each[finite].sum() / total)


def test_leading_dimensions_and_sparse_gradients():
    inputs = in_dtype(problem(), torch.float32) | {"scale": 0.8, "prior_weight": 0.9}
    flat = full_softmax(**inputs, mask_positives=True)
    shaped = {"query": inputs["query"][:6].view(2, 3, D), "pos_id": inputs["pos_id"][:6].view(2, 3, M)}
    assert torch.equal(full_softmax(**(inputs | shaped), mask_positives=True).flatten(), flat[:6])
    neg = torch.arange(9)
    options = {"logq": "none", "mask_positives": True}
    grads = []
    for sparse in (False, True):
        items = inputs["items"].clone().requires_grad_()
        loss = sampled_softmax(**(inputs | {"items": items}), neg_id=neg, sparse_grad=sparse, **options)
        loss[torch.isfinite(loss)].sum().backward()
        assert items.grad.is_sparse == sparse
        grads.append(items.grad.to_dense())
    torch.testing.assert_close(*grads)


def test_modules_take_it_in_a_call():
    inputs = in_dtype(problem(), torch.float32)
    given = [inputs[name] for name in ("query", "items", "pos_id")]
    prior = torch.linspace(-4, -1, V)
    head = FullSoftmaxLoss(prior, reduction="none")
    want = full_softmax(*given, log_prior=prior, mask_positives=True)
    assert torch.equal(head(*given, mask_positives=True), want)
    assert (want < head(*given))[[0, 1, 4, 6]].all()  # what stood against them is gone
    drawing = SampledSoftmaxLoss(prior, power(torch.arange(1, V + 1).numpy(), 0.5), num_negatives=8)
    assert drawing(*given, step=1, mask_positives=True) <= drawing(*given, step=1)


def test_a_sampled_graph_takes_it_and_a_full_one_says_why_not():
    inputs = in_dtype(problem(), torch.float32)
    given = [inputs[name] for name in ("query", "items", "pos_id")]
    neg = torch.arange(9)

    def sampled(*given):
        return sampled_softmax(*given, neg, logq="none", mask_positives=True)

    compiled = torch.compile(sampled, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(*given), sampled(*given))
    whole = torch.compile(
        lambda *given: full_softmax(*given, mask_positives=True), backend="eager", fullgraph=True
    )
    with pytest.raises(Exception, match="mask_positives: expected False under"):
        whole(*given)
    with pytest.raises(ValueError, match="label_smoothing: expected 0 beside mask_positives"):
        full_softmax(*given, label_smoothing=0.1, mask_positives=True)
    with pytest.raises(ValueError, match="exclude_diagonal: expected one positive a row"):
        sampled_softmax(*given, torch.arange(9), logq="none", exclude_diagonal=True, mask_positives=True)
