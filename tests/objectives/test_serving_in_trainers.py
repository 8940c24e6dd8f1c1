"""What another trainer serves: scores with log p, from the module, from a bias, from folded vectors."""

import copy
import io
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import fastpop
from fastpop import popularity
from fastpop.nn import FullSoftmaxLoss, SampledSoftmaxLoss

V, D = 40, 6
COUNTS = np.arange(1, V + 1)
PRIOR = popularity.PopularityPrior.from_counts(COUNTS)
LOG_P = torch.tensor(PRIOR.log_prior_V)
LOSSES = {
    "full": lambda **options: FullSoftmaxLoss(PRIOR, **options),
    "sampled": lambda **options: SampledSoftmaxLoss(PRIOR, popularity.power(COUNTS), **options),
}


def vectors(dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    query = torch.randn(3, 5, D, generator=generator, dtype=torch.float64).to(dtype)
    return query, torch.randn(V, D, generator=generator, dtype=torch.float64).to(dtype)


# ---- fold


@settings(deadline=None)
@given(st.floats(-5, 5), st.floats(0.1, 10), st.sampled_from(["torch", "numpy"]))
def test_a_dot_product_of_folded_vectors_is_the_served_score(weight, scale, kind):
    query, items = vectors()
    wanted = scale * query @ items.T + weight * LOG_P
    if kind == "numpy":
        query, items = query.numpy(), items.numpy()
    folded, table = fastpop.fold(query, items, PRIOR, weight, scale=scale)
    assert isinstance(folded, np.ndarray) == isinstance(table, np.ndarray) == (kind == "numpy")
    assert folded.shape == (3, 5, D + 1)
    assert table.shape == (V, D + 1)
    torch.testing.assert_close(torch.as_tensor(folded @ table.T), wanted, rtol=1e-12, atol=1e-12)


def test_another_weight_changes_queries_alone_and_another_log_p_one_column():
    query, items = vectors()
    _, table = fastpop.fold(query, items, PRIOR, 1.0)
    _, other = fastpop.fold(query, items, PRIOR, 0.25)
    assert torch.equal(table, other)
    _, fresh = fastpop.fold(query, items, LOG_P.flip(0), 1.0)
    assert torch.equal(fresh[:, :-1], table[:, :-1])
    assert torch.equal(fresh[:, -1], LOG_P.flip(0))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_log_p_keeps_its_digits_beside_16_bit_vectors(dtype):
    query, table = fastpop.fold(*vectors(dtype), PRIOR)
    assert query.dtype == table.dtype == torch.float32
    assert torch.equal(table[:, -1], LOG_P.float())


def test_gradients_reach_both_vectors():
    query, items = (one.requires_grad_() for one in vectors())
    folded, table = fastpop.fold(query, items, PRIOR, 0.5, scale=2.0)
    (folded @ table.T).sum().backward()
    torch.testing.assert_close(query.grad, (2 * items.detach().sum(0)).expand(query.shape))
    assert items.grad.abs().sum() > 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"query": np.zeros((2, D + 1))}, rf"^query: expected \[..., {D}\]"),
        ({"items": np.zeros(V)}, r"^items: expected shape \[V, D\]"),
        ({"query": np.array([["a"] * D])}, r"^query: expected"),
        ({"prior": LOG_P[1:]}, rf"^prior: expected shape \[{V}\]"),
        (
            {"prior": LOG_P.index_fill(0, torch.tensor(3), -torch.inf)},
            r"^prior: expected finite.*-inf at item 3",
        ),
        ({"weight": np.nan}, r"^weight: expected"),
        ({"scale": 0}, r"^scale: expected"),
        ({"items": torch.zeros(V, D, dtype=torch.int64)}, r"^items: expected real numbers in floating point"),
    ],
)
def test_what_cannot_be_folded_is_refused(change, message):
    query, items = vectors()
    with pytest.raises((TypeError, ValueError), match=message):
        fastpop.fold(**{"query": query, "items": items, "prior": PRIOR, **change})


# ---- logits and served_bias


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("weight", [None, 0.0, 0.3, 2.0])
def test_logits_are_scores_at_a_weight(loss, weight):
    query, items = vectors()
    loss = LOSSES[loss](prior_weight=0.7, scale=3.0)
    wanted = 3 * query @ items.T + (0.7 if weight is None else weight) * LOG_P.float()
    torch.testing.assert_close(loss.logits(query, items, weight), wanted, rtol=1e-12, atol=1e-12)
    bias = loss.served_bias(weight)
    torch.testing.assert_close(bias, (0.7 if weight is None else weight) * LOG_P.float())
    item_id = torch.tensor([[3, 1], [39, 3]])
    assert torch.equal(loss.served_bias(weight, item_id=item_id), bias[item_id])


def test_the_trained_weight_s_cross_entropy_is_the_loss():
    query, items = vectors()
    pos_id = torch.randint(V, (3, 5), generator=torch.Generator().manual_seed(3))
    loss = FullSoftmaxLoss(PRIOR, prior_weight=0.7, scale=3.0)
    logits = loss.logits(query, items)
    wanted = torch.nn.functional.cross_entropy(logits.flatten(0, 1), pos_id.flatten())
    torch.testing.assert_close(loss(query, items, pos_id), wanted, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("loss", LOSSES)
def test_padding_and_removed_items_stay_out_at_every_weight(loss):
    prior = LOG_P.clone()
    prior[7] = -torch.inf
    loss = {
        "full": lambda: FullSoftmaxLoss(prior, padding_idx=0),
        "sampled": lambda: SampledSoftmaxLoss(prior, popularity.uniform(V), padding_idx=0),
    }[loss]()
    for weight in (None, 0.0, -1.0):
        logits = loss.logits(*vectors(), weight)
        assert logits.isneginf().sum() == 2 * 15
        assert logits[..., [0, 7]].isneginf().all()
        assert not logits.isnan().any()


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("weight", [None, 0.0, 0.3, -2.0])
def test_folded_by_the_module_a_dot_product_is_its_logits(loss, weight):
    prior = LOG_P.clone()
    prior[7] = -torch.inf
    loss = {
        "full": lambda: FullSoftmaxLoss(prior, prior_weight=0.7, scale=3.0, padding_idx=0),
        "sampled": lambda: SampledSoftmaxLoss(
            prior, popularity.uniform(V), prior_weight=0.7, scale=3.0, padding_idx=0
        ),
    }[loss]()
    query, items = vectors()
    items.requires_grad_()
    folded, table = loss.fold(query, items, weight)
    assert folded.shape == (3, 5, D + 1)
    score = folded @ table.T
    assert score[..., [0, 7]].isneginf().all()
    torch.testing.assert_close(score, loss.logits(query, items, weight), rtol=1e-12, atol=1e-12)
    table[1:7, :-1].sum().backward()
    torch.testing.assert_close(items.grad[1:7], torch.full_like(items[1:7], 3.0))
    half, table = loss.fold(query.bfloat16(), items.detach().bfloat16())
    assert half.dtype == table.dtype == torch.float32
    assert torch.equal(table[:, -1], loss.served_bias())


def test_a_language_model_s_output_layer_serves_log_p_in_its_bias():
    query, items = vectors(torch.float32)
    loss = FullSoftmaxLoss(PRIOR)
    lm_head = torch.nn.Linear(D, V, bias=False)
    lm_head.weight = torch.nn.Parameter(items)
    lm_head.bias = torch.nn.Parameter(loss.served_bias(), requires_grad=False)
    torch.testing.assert_close(lm_head(query), loss.logits(query, items))


def test_without_a_prior_there_is_nothing_to_serve():
    with pytest.raises(ValueError, match=r"^prior: expected a module with a prior"):
        FullSoftmaxLoss().served_bias()
    with pytest.raises((TypeError, ValueError), match=r"^items: expected shape"):
        FullSoftmaxLoss(PRIOR).logits(torch.zeros(2, D), torch.zeros(V + 1, D))
    with pytest.raises((TypeError, ValueError), match=r"^items: expected shape"):
        FullSoftmaxLoss(PRIOR).fold(torch.zeros(2, D), torch.zeros(V + 1, D))


# ---- from counts


@pytest.mark.parametrize("proposal", ["mixture", "uniform", "popularity", "log_uniform", "in_batch"])
def test_from_counts_is_prior_and_proposal_by_hand(proposal):
    query, items = vectors(torch.float32)
    pos_id = torch.randint(V, (3, 5), generator=torch.Generator().manual_seed(3))
    by_hand = SampledSoftmaxLoss(PRIOR, popularity.proposal_from_name(proposal, COUNTS), num_negatives=16)
    made = SampledSoftmaxLoss.from_counts(COUNTS, proposal=proposal, num_negatives=16)
    assert torch.equal(made(query, items, pos_id), by_hand(query, items, pos_id))
    full = FullSoftmaxLoss.from_counts(COUNTS, smoothing=0.5)
    assert torch.equal(
        full.log_prior_V, torch.tensor(np.log((COUNTS + 0.5) / (COUNTS + 0.5).sum()), dtype=torch.float32)
    )


@pytest.mark.parametrize("proposal", ["mixture", "uniform", "popularity", "log_uniform", "in_batch"])
@pytest.mark.parametrize("first_item", [1, 3])
def test_rows_before_the_first_item_are_no_items(proposal, first_item):
    """The loss of shifted ids on a shifted table, whose first rows hold NaN and are never read."""
    generator = torch.Generator().manual_seed(5)
    query, items = torch.randn(30, D, generator=generator), torch.randn(V, D, generator=generator)
    pos_id = torch.randint(V, (30,), generator=generator)
    plain = SampledSoftmaxLoss.from_counts(COUNTS, proposal=proposal, num_negatives=512)
    behind = SampledSoftmaxLoss.from_counts(
        COUNTS, proposal=proposal, num_negatives=512, first_item=first_item
    )
    table = torch.cat([torch.full((first_item, D), torch.nan), items])
    shifted = pos_id + first_item
    assert behind.log_proposal_V[:first_item].isneginf().all()
    torch.testing.assert_close(behind.log_proposal_V[first_item:], plain.log_proposal_V)
    loss = behind(query, table, shifted)
    if proposal == "in_batch":
        torch.testing.assert_close(loss, plain(query, items, pos_id))
    assert loss.isfinite()
    ignored = behind(
        torch.cat([query, query[:4]]), table, torch.cat([shifted, torch.zeros(4, dtype=torch.int64)]), step=0
    )
    assert ignored.isfinite()
    full = FullSoftmaxLoss.from_counts(COUNTS, first_item=first_item)
    torch.testing.assert_close(
        full(query, torch.cat([torch.zeros(first_item, D), items]), shifted),
        FullSoftmaxLoss.from_counts(COUNTS)(query, items, pos_id),
    )


@pytest.mark.parametrize("loss", [FullSoftmaxLoss, SampledSoftmaxLoss])
@pytest.mark.parametrize("extra", [[], ["PAD"], ["PAD", "MASK"]])
def test_counts_by_id_go_to_the_rows_of_a_table_in_its_own_order(loss, extra):
    order = np.random.default_rng(0).permutation(V)
    by_id = {f"item {i}": int(COUNTS[i]) for i in range(V)} | {"not in the table": 3}
    made = loss.from_counts(by_id, item_ids=iter([*extra, *(f"item {i}" for i in order)]))
    wanted = loss.from_counts(COUNTS[order], first_item=len(extra))
    assert torch.equal(made.log_prior_V, wanted.log_prior_V)
    assert made.padding_idx == wanted.padding_idx == (0 if extra else None)
    if loss is SampledSoftmaxLoss:
        assert torch.equal(made.log_proposal_V, wanted.log_proposal_V)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"counts": {"a": 1}}, "^item_ids: expected the ids of the table's rows"),
        ({"counts": COUNTS, "item_ids": ["a"]}, "^counts: expected a mapping"),
        ({"counts": {"a": 1}, "item_ids": ["a"], "first_item": 1}, "^first_item: expected 0"),
        ({"counts": {"a": 1, "b": 2}, "item_ids": ["p", "a", "x", "b"]}, r"^item_ids: .*got \['x'\]"),
        ({"counts": {"a": 1}, "item_ids": ["p", "q"]}, r"^item_ids: .*got \['p'\]"),
        ({"counts": {"a": 1}, "item_ids": []}, r"^item_ids: .*got \[\]"),
    ],
)
def test_ids_and_counts_that_do_not_go_together_are_refused(given, message):
    for loss in (FullSoftmaxLoss, SampledSoftmaxLoss):
        with pytest.raises((TypeError, ValueError), match=message):
            loss.from_counts(given["counts"], **{k: v for k, v in given.items() if k != "counts"})


@pytest.mark.parametrize("first_item", [-1, 1.5, True, "1"])
def test_what_is_no_first_item_is_refused(first_item):
    for loss in (FullSoftmaxLoss, SampledSoftmaxLoss):
        with pytest.raises((TypeError, ValueError), match=r"^first_item: expected"):
            loss.from_counts(COUNTS, first_item=first_item)


# ---- a trainer that forgets log p

FORGOTTEN = r"evaluated without log p"


class Model(torch.nn.Module):
    """Somebody's model, with our loss inside."""

    def __init__(self, loss):
        super().__init__()
        self.loss = loss


def epoch(model, use=None):
    model.train()
    model.loss(*vectors(), torch.zeros(3, 5, dtype=torch.int64))
    model.eval()
    if use is not None:
        use(model.loss)
    model.train()


@pytest.mark.parametrize("loss", LOSSES)
def test_a_validation_without_log_p_warns_once(loss):
    model = Model(LOSSES[loss]())
    with pytest.warns(UserWarning, match=FORGOTTEN):
        epoch(model)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        epoch(model)


@pytest.mark.parametrize("loss", LOSSES)
def test_the_next_training_step_warns_where_a_mode_is_put_back_by_its_flag(loss):
    model = Model(LOSSES[loss]())
    given = *vectors(), torch.zeros(3, 5, dtype=torch.int64)
    model.loss(*given)
    model.eval()
    model.loss.training = True
    with pytest.warns(UserWarning, match=FORGOTTEN):
        model.loss(*given)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.loss(*given)
    model = Model(LOSSES[loss]())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.eval()
        model.loss.logits(*vectors())
        model.loss.training = True
        model.loss(*given)


USES = {
    "logits": lambda loss: loss.logits(*vectors()),
    "bias": lambda loss: loss.served_bias(),
    "fold": lambda loss: loss.fold(*vectors()),
    "validation loss": lambda loss: loss(*vectors(), torch.zeros(3, 5, dtype=torch.int64)),
    "elsewhere": lambda loss: setattr(loss, "served_elsewhere", True),
}


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("loss", LOSSES)
def test_a_validation_with_log_p_does_not_warn(loss, use):
    model = Model(LOSSES[loss]())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        epoch(model, USES[use])
        model.train(), model.train(), model.eval(), model.eval()


@pytest.mark.parametrize(
    "loss", [FullSoftmaxLoss(), FullSoftmaxLoss(PRIOR, prior_weight=0.0)], ids=["no prior", "weight 0"]
)
def test_where_nothing_is_outside_nothing_is_forgotten(loss):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        epoch(Model(loss))


def test_copies_and_pickles_of_before_warn_too():
    loss = FullSoftmaxLoss(PRIOR)
    for name in ("served_elsewhere", "_log_p_was_used", "_has_warned"):
        del loss.__dict__[name]  # as an earlier version pickled it
    held = io.BytesIO()
    torch.save(loss, held)
    held.seek(0)
    for again in (copy.deepcopy(loss), torch.load(held, weights_only=False)):
        with pytest.warns(UserWarning, match=FORGOTTEN):
            epoch(Model(again))


@pytest.mark.parametrize("padding_idx", [None, 0])
def test_a_module_without_a_prior_serves_the_product(padding_idx):
    query, items = vectors()
    head = FullSoftmaxLoss(None, scale=2.0, padding_idx=padding_idx)
    wanted = 2 * query @ items.T
    if padding_idx is not None:
        wanted[..., padding_idx] = -torch.inf
    for weight in (None, 0.0):
        torch.testing.assert_close(head.logits(query, items, weight), wanted)
        one, other = head.fold(query, items, weight)
        torch.testing.assert_close(one @ other.T, wanted)
    for served in (head.logits, head.fold):
        with pytest.raises(ValueError, match=r"^prior: expected a module with a prior"):
            served(query, items, 0.5)
