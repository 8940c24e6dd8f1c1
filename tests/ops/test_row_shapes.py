"""Rows of queries: ignored ones stay outside, leading dimensions are rows in order; padding is no item."""

import pytest
import torch

from fastpop import Draw, ops
from fastpop.nn import FullSoftmaxLoss, SampledSoftmaxLoss
from fastpop.ops import _full_softmax_op, _sampled_softmax_op
from fastpop.popularity import InBatch, power, uniform

V, B, D, K = 40, 30, 8, 12
IGNORED = [0, 3, 4, 17, 29]
PROPOSAL = uniform(V)


def made(seed=0, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    query = torch.randn(B, D, generator=generator).to(dtype)
    items = torch.randn(V, D, generator=generator).to(dtype)
    pos_id = torch.randint(1, V, (B,), generator=generator)
    neg_id = torch.randint(V, (B, K), generator=generator)
    return query, items, pos_id, neg_id, torch.randn(V, generator=generator)


# What a row's loss is made of, and the same of some rows alone.
OPS = {
    "full": lambda q, e, p, n, lp, rows, **more: ops.full_softmax(q, e, p, log_prior=lp, **more),
    "smooth": lambda q, e, p, n, lp, rows, **more: ops.full_softmax(
        q, e, p, log_prior=lp, label_smoothing=0.1, **more
    ),
    "shared": lambda q, e, p, n, lp, rows, **more: ops.sampled_softmax(
        q, e, p, n[0], log_prior=lp, logq="none", accidental_hits="drop", **more
    ),
    "shared draw": lambda q, e, p, n, lp, rows, **more: ops.sampled_softmax(
        q, e, p, Draw(PROPOSAL, 1, 2, K), log_prior=lp, **more
    ),
    "rows": lambda q, e, p, n, lp, rows, **more: ops.sampled_softmax(
        q, e, p, n[rows], log_prior=lp, log_proposal=PROPOSAL.log_proposal_on("cpu"), **more
    ),
}
GROUPED = {
    "groups": lambda q, e, p, n, lp, **more: ops.sampled_softmax(
        q, e, p, n[:5], group_size=6, log_prior=lp, logq="none", **more
    ),
    "draws for rows": lambda q, e, p, n, lp, **more: ops.sampled_softmax(
        q, e, p, Draw(PROPOSAL, 1, 2, K, 1), log_prior=lp, **more
    ),
    "in-batch diagonal": lambda q, e, p, n, lp, **more: ops.sampled_softmax(
        q, e, p, torch.arange(B + 3), log_prior=lp, logq="none", exclude_diagonal=True, **more
    ),
}


def gradients(call, query, items, log_prior, **more):
    leaves = [one.clone().requires_grad_() for one in (query, items, log_prior)]
    scale = torch.tensor(0.7, requires_grad=True)
    found = call(*leaves, scale=scale, **more)
    loss, lse = found if isinstance(found, tuple) else (found, None)
    total = loss.sum() if lse is None else loss.sum() + 0.1 * lse.square().sum()
    total.backward()
    return [loss.detach(), None if lse is None else lse.detach(), *(one.grad for one in (*leaves, scale))]


@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
@pytest.mark.parametrize("return_lse", [False, True])
@pytest.mark.parametrize("impl", ["reference", "cpu"])
@pytest.mark.parametrize("op", OPS)
def test_a_batch_has_the_bits_of_its_rows_that_count(op, impl, reduction, return_lse):
    query, items, pos_id, neg_id, log_prior = made()
    kept = torch.ones(B, dtype=torch.bool)
    kept[IGNORED] = False
    pos_id[~kept] = -100
    query[~kept] = torch.nan
    options = {"impl": impl, "reduction": reduction, "return_lse": return_lse}
    rows = torch.arange(B)
    whole = gradients(
        lambda q, e, lp, **more: OPS[op](q, e, pos_id, neg_id, lp, rows, **more),
        query,
        items,
        log_prior,
        **options,
    )
    alone = gradients(
        lambda q, e, lp, **more: OPS[op](q, e, pos_id[kept], neg_id, lp, rows[kept], **more),
        query[kept],
        items,
        log_prior,
        **options,
    )
    for at, name in enumerate(("loss", "lse", "query", "items", "log_prior", "scale")):
        one, other = whole[at], alone[at]
        if one is None:
            continue
        if one.ndim and len(one) == B:
            assert (one[~kept] == 0).all(), name
            one = one[kept]
        if op == "smooth" or (name == "loss" and one.ndim == 0):  # where plain torch sums over all rows
            torch.testing.assert_close(one, other)
        else:
            assert torch.equal(one, other), name


@pytest.mark.parametrize("impl", ["reference", "cpu"])
@pytest.mark.parametrize("op", GROUPED)
def test_rows_that_are_ignored_in_groups_leave_the_others_as_they_are(op, impl):
    query, items, pos_id, neg_id, log_prior = made()
    log_prior[0] = torch.nan  # which no row reads
    neg_id = neg_id.clamp(min=1)
    if op != "groups":
        log_prior[0] = 0.0  # which somebody draws
    full = gradients(
        lambda q, e, lp, **more: GROUPED[op](q, e, pos_id, neg_id, lp, **more),
        query,
        items,
        log_prior,
        impl=impl,
        return_lse=True,
    )
    kept = torch.ones(B, dtype=torch.bool)
    kept[IGNORED] = False
    pos_id = torch.where(kept, pos_id, -100)
    query[~kept] = torch.nan
    found = gradients(
        lambda q, e, lp, **more: GROUPED[op](q, e, pos_id, neg_id, lp, **more),
        query,
        items,
        log_prior,
        impl=impl,
        return_lse=True,
    )
    for one, other in zip(found[:3], full[:3]):
        assert (one[~kept] == 0).all()
        assert torch.equal(one[kept], other[kept])
    assert torch.isfinite(found[3]).all()


@pytest.mark.parametrize("op", [*OPS, *GROUPED])
@pytest.mark.parametrize("reduction", ["none", "mean"])
def test_no_row_that_counts(op, reduction):
    query, items, pos_id, neg_id, log_prior = made()
    pos_id[:] = -100
    log_prior[0] = torch.nan
    given = (neg_id, log_prior, torch.arange(B)) if op in OPS else (neg_id, log_prior)
    items.requires_grad_()
    loss = (OPS | GROUPED)[op](query, items, pos_id, *given, reduction=reduction)
    if op == "smooth":  # whose mean logit is over the catalogue
        return
    loss.sum().backward()
    assert (loss == 0).all()
    assert (items.grad == 0).all()


@pytest.mark.parametrize("fixed", [False, True])
def test_ignored_rows_reach_no_implementation(fixed, monkeypatch):
    """By the number of rows that it is given: half of a padded batch costs half."""
    query, items, pos_id, neg_id, _ = made()
    pos_id[::2] = -100
    seen = []
    for module, call in (
        (_full_softmax_op, lambda: ops.full_softmax(query, items, pos_id, reduction="mean")),
        (_sampled_softmax_op, lambda: ops.sampled_softmax(query, items, pos_id, neg_id[0], logq="none")),
        (_sampled_softmax_op, lambda: ops.sampled_softmax(query, items, pos_id, neg_id, logq="none")),
        (_full_softmax_op, lambda: ops.full_softmax(query, items, pos_id.view(-1, 1).expand(-1, 3))),
    ):

        def choose(op, impl, device, inputs, found=module._dispatch.choose):
            seen.append(len(inputs.query_BD))
            return found(op, impl, device, inputs)

        monkeypatch.setattr(module._dispatch, "choose", choose)
        (torch.compile(call, fullgraph=True, backend="aot_eager") if fixed else call)()
        monkeypatch.undo()
    assert seen == [B // 2, B // 2, B // 2, 3 * B // 2]


def test_log_p_of_item_0_is_not_read_for_an_ignored_row():
    query, items, pos_id, neg_id, log_prior = made()
    pos_id[5], log_prior[0], neg_id = -100, torch.nan, neg_id.clamp(min=1)
    for negatives in (neg_id[0], neg_id):
        loss = ops.sampled_softmax(query, items, pos_id, negatives, log_prior=log_prior, logq="none")
        assert torch.isfinite(loss).all()
        assert loss[5] == 0


def test_an_id_of_minus_one_is_not_taken_for_an_ignored_one():
    query, items, pos_id, neg_id, _ = made()
    pos_id[7] = -1
    for call in (
        lambda: ops.full_softmax(query, items, pos_id),
        lambda: ops.sampled_softmax(query, items, pos_id, neg_id[0], logq="none"),
    ):
        for form in (call, torch.compile(call, fullgraph=True, backend="aot_eager")):
            with pytest.raises(ValueError, match=r"pos_id: expected ids in \[0, 40\); got -1 at position 7"):
                form()
    assert ops.full_softmax(query, items, pos_id, ignore_index=-1)[7] == 0


# op -> (of [..., D] queries, of the same rows flat); every argument in the queries' dimensions
LEADING = {
    "full": lambda q, e, p, n, w, **more: ops.full_softmax(q, e, p, row_weight=w, **more),
    "shared": lambda q, e, p, n, w, **more: ops.sampled_softmax(
        q, e, p, n.reshape(-1, K)[0], logq="none", row_weight=w, **more
    ),
    "rows": lambda q, e, p, n, w, **more: ops.sampled_softmax(q, e, p, n, logq="none", row_weight=w, **more),
    "groups": lambda q, e, p, n, w, **more: ops.sampled_softmax(
        q, e, p, n.reshape(-1, K)[:8], logq="none", row_weight=w, group_size=4, **more
    ),
    "draw": lambda q, e, p, n, w, **more: ops.sampled_softmax(
        q, e, p, Draw(PROPOSAL, 0, 1, K, 4), row_weight=w, **more
    ),
    "gathered": lambda q, e, p, n, w, **more: ops.gathered_softmax(
        q,
        e[p],
        e[:5],
        pos_id=p,
        neg_id=torch.arange(5),
        pos_log_prior=e[p, 0],
        neg_log_prior=e[:5, 0],
        logq="corrected",
        neg_log_proposal=torch.zeros(5),
        row_weight=w,
        **more,
    ),
    "FullSoftmaxLoss": lambda q, e, p, n, w, reduction="none", **more: FullSoftmaxLoss(reduction=reduction)(
        q, e, p, row_weight=w, **more
    ),
    "SampledSoftmaxLoss": lambda q, e, p, n, w, reduction="none", **more: SampledSoftmaxLoss(
        None, PROPOSAL, num_negatives=K, reduction=reduction
    )(q, e, p, row_weight=w, **more),
    "in batch": lambda q, e, p, n, w, reduction="none", **more: SampledSoftmaxLoss(
        None, InBatch.from_counts(torch.ones(V)), extra=PROPOSAL, num_negatives=K, reduction=reduction
    )(q, e, p, row_weight=w, **more),
}


@pytest.mark.parametrize("lead", [(5, 6), (2, 3, 5), (30, 1), (1, 30)])
@pytest.mark.parametrize("op", LEADING)
def test_leading_dimensions_are_rows_in_order(op, lead):
    query, items, pos_id, neg_id, _ = made()
    weight = torch.rand(B)
    if op != "gathered":
        pos_id[IGNORED] = -100
    flat = (query, items, pos_id, neg_id, weight)
    shaped = (query.view(*lead, D), items, pos_id.view(lead), neg_id.view(*lead, K), weight.view(lead))
    loss, lse = LEADING[op](*shaped, return_lse=True)
    expected = LEADING[op](*flat, return_lse=True)
    assert loss.shape == lse.shape == lead
    assert torch.equal(loss.reshape(-1), expected[0])
    assert torch.equal(lse.reshape(-1), expected[1])
    assert LEADING[op](*shaped).shape == lead
    for reduction in ("mean", "sum"):
        one, other = (LEADING[op](*given, reduction=reduction) for given in (shaped, flat))
        assert torch.equal(one, other)
    leaves = [one.clone().requires_grad_() for one in (query, shaped[0])]
    for leaf, given in zip(leaves, (flat, shaped)):
        LEADING[op](leaf, *given[1:], reduction="mean").backward()
    assert torch.equal(leaves[0].grad, leaves[1].grad.view(B, D))


def test_several_positives_stand_behind_the_leading_dimensions():
    query, items, _, neg_id, _ = made()
    pos_id = torch.randint(V, (5, 6, 3))
    pos_id[:, :, 2] = -100
    for call in (
        lambda q, p: ops.full_softmax(q, items, p, return_lse=True),
        lambda q, p: ops.sampled_softmax(q, items, p, neg_id[0], logq="none", return_lse=True),
    ):
        loss, lse = call(query.view(5, 6, D), pos_id)
        expected = call(query, pos_id.view(B, 3))
        assert loss.shape == (5, 6)
        assert lse.shape == (5, 6, 3)
        assert torch.equal(loss.view(B), expected[0])
        assert torch.equal(lse.view(B, 3), expected[1])


def test_lists_and_ranks_in_leading_dimensions():
    query, items, pos_id, *_ = made()
    offsets = torch.arange(B + 1)
    lists, expected = (
        ops.top_items(one, items, 4, exclude_offsets=offsets, exclude_item=pos_id)
        for one in (query.view(5, 6, D), query)
    )
    assert lists[0].shape == lists[1].shape == (5, 6, 4)
    assert torch.equal(lists[0].view(B, 4), expected[0])
    ranks, flat = (ops.target_ranks(one, items, offsets, pos_id) for one in (query.view(5, 6, D), query))
    assert ranks.lse.shape == (5, 6)
    assert torch.equal(ranks.lse.view(B), flat.lse)
    assert torch.equal(ranks.greater, flat.greater)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"query": torch.zeros(D)}, r"query: expected shape \[B, D\], or \[..., D\] with leading dimensions"),
        ({"pos_id": torch.zeros(6, 5, dtype=torch.int64)}, r"pos_id: expected shape \[5, 6\] or \[5, 6, M\]"),
        (
            {"pos_id": torch.zeros(30, dtype=torch.int64)},
            r"pos_id: expected shape \[5, 6\] or \[5, 6, M\]; got",
        ),
        ({"row_weight": torch.ones(30)}, r"row_weight: expected shape \[5, 6\]; got float32 \[30\]"),
        (
            {"neg_id": torch.zeros(30, K, 1, dtype=torch.int64)},
            r"neg_id: expected \[K\], \[G, K\] or \[B, K\]",
        ),
        (
            {"neg_id": torch.zeros(3, K, dtype=torch.int64)},
            r"neg_id: expected \[5, 6, K\], a set for each row",
        ),
        ({"padding_idx": V}, "padding_idx: expected an integer >= 0 <= 39; got 40"),
        ({"padding_idx": -1}, "padding_idx: expected an integer >= 0 <= 39; got -1"),
    ],
)
def test_shapes_that_do_not_fit_are_named(change, message):
    query, items, pos_id, neg_id, _ = made()
    given = {
        "query": query.view(5, 6, D),
        "items": items,
        "pos_id": pos_id.view(5, 6),
        "neg_id": neg_id,
        "logq": "none",
    } | change
    with pytest.raises(ValueError, match=message):
        ops.sampled_softmax(**given)


PAD = 7
PADDED = {
    "full": lambda q, e, p, n, log_q, **more: ops.full_softmax(q, e, p, **more),
    "smooth": lambda q, e, p, n, log_q, **more: ops.full_softmax(q, e, p, label_smoothing=0.2, **more),
    "given": lambda q, e, p, n, log_q, **more: ops.sampled_softmax(q, e, p, n, log_proposal=log_q, **more),
    "none": lambda q, e, p, n, log_q, **more: ops.sampled_softmax(q, e, p, n, logq="none", **more),
    "sparse": lambda q, e, p, n, log_q, **more: ops.sampled_softmax(
        q, e, p, n, logq="none", sparse_grad=True, **more
    ),
    "drawn": lambda q, e, p, n, log_q, **more: ops.sampled_softmax(q, e, p, Draw(PROPOSAL, 5, 6, 60), **more),
    "drawn corrected": lambda q, e, p, n, log_q, **more: ops.sampled_softmax(
        q, e, p, Draw(PROPOSAL, 5, 6, 60, 4), logq="corrected", **more
    ),
}
PRIORS = {
    "no prior": lambda lp: {},
    "prior": lambda lp: {"log_prior": lp},
    "ignored": lambda lp: {"log_prior": lp, "prior_weight": 0.0},
    "learned weight": lambda lp: {"log_prior": lp, "prior_weight": torch.tensor(0.6)},
    "a weight of 0": lambda lp: {"log_prior": lp, "prior_weight": torch.tensor(0.0)},
    "removed": lambda lp: {"log_prior": torch.where(torch.arange(V) == 3, -torch.inf, lp)},
}


def without_padding(table, pos_id, neg_id, log_q, prior):
    """The same, of items from which the padding row is taken out by hand: as log p = -inf."""
    weight = prior.get("prior_weight", 1.0)
    log_prior = prior.get("log_prior", torch.zeros(V))
    term = torch.where(torch.isfinite(log_prior), weight * log_prior, -torch.inf if weight != 0 else 0.0)
    term[PAD] = -torch.inf
    log_q = log_q.clone()
    log_q[PAD] = 0
    return table, torch.where(pos_id == PAD, -100, pos_id), neg_id, log_q, {"log_prior": term}


@pytest.mark.parametrize("impl", ["reference", "cpu"])
@pytest.mark.parametrize("prior", PRIORS)
@pytest.mark.parametrize("op", PADDED)
def test_a_padding_row_is_no_item(op, prior, impl):
    query, items, pos_id, neg_id, log_prior = made()
    pos_id[[2, 9]] = PAD
    pos_id[pos_id == 3] = 4
    log_q = PROPOSAL.log_proposal_on("cpu").clone()
    log_q[PAD] = -torch.inf
    neg_id[:, 5] = PAD
    items[PAD] = torch.nan
    given = PRIORS[prior](log_prior)
    table, other_id, other_neg, other_log_q, other = without_padding(items, pos_id, neg_id, log_q, given)
    found = []
    for ids, neg, one_log_q, options in (
        (pos_id, neg_id, log_q, given | {"padding_idx": PAD}),
        (other_id, other_neg, other_log_q, other),
    ):
        leaves = query.clone().requires_grad_(), table.clone().requires_grad_()
        loss = PADDED[op](*leaves, ids, neg, one_log_q, impl=impl, **options)
        loss.sum().backward()
        found.append((loss.detach(), leaves[0].grad, leaves[1].grad.to_dense()))
    for one, other in zip(*found):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)
    loss, d_query, d_items = found[0]
    assert torch.isfinite(loss).all()
    assert (loss[[2, 9]] == 0).all()
    assert (d_query[[2, 9]] == 0).all()
    assert (d_items[PAD] == 0).all()
    assert (d_items != 0).any()


@pytest.mark.parametrize("sparse_grad", [False, True])
def test_a_learned_prior_beside_a_padding_row(sparse_grad):
    query, items, pos_id, neg_id, log_prior = made()
    found = []
    for padding_idx in (PAD, None):
        leaf = log_prior.clone()
        if padding_idx is None:
            leaf[PAD] = -torch.inf
        leaf.requires_grad_()
        pos = torch.where(pos_id == PAD, -100, pos_id)
        ops.sampled_softmax(
            query,
            items,
            pos,
            neg_id,
            log_prior=leaf,
            logq="none",
            reduction="mean",
            sparse_grad=sparse_grad,
            padding_idx=padding_idx,
        ).backward()
        assert leaf.grad.is_sparse == sparse_grad
        found.append(leaf.grad.to_dense())
    assert torch.equal(*found)
    assert found[0][PAD] == 0
    weight = torch.tensor(0.0, requires_grad=True)
    ops.full_softmax(
        query, items, pos_id, log_prior=log_prior, prior_weight=weight, padding_idx=PAD, reduction="mean"
    ).backward()
    assert weight.grad.abs() > 1e-3  # a weight that starts at 0 can leave it
    with pytest.raises(ValueError, match="prior_weight: expected a number beside padding_idx, sparse_grad"):
        ops.sampled_softmax(
            query,
            items,
            pos_id,
            neg_id,
            log_prior=log_prior.clone().requires_grad_(),
            logq="none",
            sparse_grad=True,
            padding_idx=PAD,
            prior_weight=weight,
        )


def test_lists_and_ranks_without_the_padding_row():
    query, items, *_ = made()
    items[PAD] = 100 * query[0]
    ids, _ = ops.top_items(query, items, V, padding_idx=PAD)
    assert not (ids == PAD).any()
    assert (ids[:, -1] == -1).all()
    bias = torch.randn(V)
    kept = torch.arange(V) != PAD
    target = torch.arange(B) % PAD
    found = ops.target_ranks(query, items, torch.arange(B + 1), target, bias=bias, padding_idx=PAD)
    expected = ops.target_ranks(query, items[kept], torch.arange(B + 1), target, bias=bias[kept])
    assert torch.equal(found.greater, expected.greater)
    torch.testing.assert_close(found.lse, expected.lse)
    assert bias[PAD] != -torch.inf  # the caller's own
    with pytest.raises(ValueError, match="target_item: expected no target that is padding_idx; got 7"):
        ops.target_ranks(
            query, items, torch.arange(B + 1), torch.where(target == 3, PAD, target), padding_idx=PAD
        )


HEADS = {
    "full": lambda **more: FullSoftmaxLoss(torch.linspace(-3, 0, V), **more),
    "full without a prior": lambda **more: FullSoftmaxLoss(**more),
    "sampled": lambda **more: SampledSoftmaxLoss(
        torch.linspace(-3, 0, V), PROPOSAL, num_negatives=300, **more
    ),
    "in batch": lambda **more: SampledSoftmaxLoss(None, InBatch.from_counts(torch.arange(V) != PAD), **more),
    "in batch corrected": lambda **more: SampledSoftmaxLoss(
        None, InBatch.from_counts(torch.arange(V) != PAD), logq="corrected", **more
    ),
    "in batch and more": lambda **more: SampledSoftmaxLoss(
        None, InBatch.from_counts(torch.arange(V) != PAD), extra=PROPOSAL, num_negatives=300, **more
    ),
}


@pytest.mark.parametrize("head", HEADS)
def test_modules_of_tables_with_a_padding_row(head):
    query, items, pos_id, *_ = made()
    pos_id[pos_id == PAD] = 8
    pos_id = pos_id.view(5, 6)
    pos_id[:, 4:] = PAD  # a padded sequence, as its loader made it
    items[PAD] = torch.nan
    items.requires_grad_()
    loss = HEADS[head](padding_idx=PAD)(query.view(5, 6, D), items, pos_id)
    loss.backward()
    assert torch.isfinite(loss)
    assert (items.grad[PAD] == 0).all()
    assert torch.isfinite(items.grad).all()
    with pytest.raises(ValueError, match="padding_idx: expected an option of the module"):
        HEADS[head]()(query, items, pos_id, padding_idx=PAD)


def test_errors_of_in_batch_negatives_name_what_the_caller_gave():
    query, items, pos_id, *_ = made()
    pos_id[3] = PAD
    for logq in ("standard", "corrected"):
        head = SampledSoftmaxLoss(None, InBatch.from_counts(torch.arange(V) != PAD), logq=logq)
        with pytest.raises(ValueError, match=r"every id in pos_id: .* got -inf for item 7"):
            head(query, items, pos_id)
        with pytest.raises(ValueError, match=r"pos_id: expected ids in \[0, 40\); got 40"):
            head(query, items, torch.full((B,), V))


def test_a_distribution_that_draws_the_padding_row_is_still_unbiased():
    """Draws of it count among K, and the others are corrected by their own chance: the sum over the
    catalogue without it is what many draws converge to."""
    query, items, pos_id, *_ = made()
    pos_id[pos_id == PAD] = 8
    log_q = power(torch.arange(1, V + 1), 0.5)
    exact = ops.full_softmax(query, items, pos_id, padding_idx=PAD)
    draw = Draw(log_q, 0, 0, 200_000)
    got = ops.sampled_softmax(query, items, pos_id, draw, logq="corrected", padding_idx=PAD)
    torch.testing.assert_close(got, exact, rtol=0.02, atol=0.02)
