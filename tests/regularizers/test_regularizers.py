"""Regularisers against their definitions, pair by pair, and what they leave of the plain model."""

import itertools
import math

import numpy as np
import pytest
import torch
from helpers_losses import PLAIN, built, rows

import fastpop
from fastpop import objectives, registry, regularizers, testing
from fastpop.data import Interactions
from fastpop.encoders import Bag
from fastpop.regularizers import CosReg, DuoRec, ReSN, SimGCL, Uniformity, spectral
from fastpop.regularizers.contrast import same_target
from fastpop.testing.training import QUICK
from fastpop.training import TrainConfig, build
from fastpop.training import loop as training_loop

EVERY = ("alignment", "uniformity", "cosreg", "simgcl", "duorec", "resn")
EXACT = {"rtol": 0, "atol": 1e-12}


def module_of(part):
    given = regularizers.RegularizerInputs(9, 5, 0, False)
    return registry.made("regularizer", part).build(given)


def cosine(x, y):
    return float(x @ y / (x.norm() * y.norm()))


def uniformity_by_pairs(row_RD):
    unit = [row / row.norm() for row in row_RD]
    pairs = [math.exp(-2 * float((x - y) @ (x - y))) for x, y in itertools.combinations(unit, 2)]
    return math.log(sum(pairs) / len(pairs))


def info_nce(one, two, temperature):
    total = 0.0
    for r in range(len(one)):
        logits = [float(one[r] @ other) / temperature for other in two]
        total += math.log(sum(map(math.exp, logits))) - logits[r]
    return total / len(one)


def nt_xent(one, two, temperature):
    every, num = [*one, *two], len(one)
    total = 0.0
    for r, row in enumerate(every):
        logits = {s: float(row @ other) / temperature for s, other in enumerate(every) if s != r}
        total += math.log(sum(map(math.exp, logits.values()))) - logits[(r + num) % (2 * num)]
    return total / (2 * num)


def test_alignment_uniformity_and_directau_pair_by_pair():
    query, items, pos_id = rows()
    positive = items[pos_id]
    aligned = [float((x / x.norm() - y / y.norm()).square().sum()) for x, y in zip(query, positive)]
    spread = [uniformity_by_pairs(query), uniformity_by_pairs(positive)]
    assert module_of("alignment")(query, items, pos_id, None).item() == pytest.approx(
        np.mean(aligned), abs=1e-12
    )
    for of, expected in (("queries", spread[0]), ("items", spread[1]), ("both", np.mean(spread))):
        found = module_of(Uniformity(of=of))(query, items, pos_id, None)
        assert found.item() == pytest.approx(expected, abs=1e-12)
    loss = built(objectives.DirectAU(gamma=0.7), 9)
    expected = sum(aligned) + 4 * 0.7 * np.mean(spread)
    assert loss(query, items, pos_id, **PLAIN).item() == pytest.approx(expected, abs=1e-12)
    weight = torch.tensor([1.0, 0, 2, 0], dtype=torch.float64)
    expected = aligned[0] + 2 * aligned[2] + 3 * 0.7 * np.mean(spread)
    found = loss(query, items, pos_id, **PLAIN | {"row_weight": weight})
    assert found.item() == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("squared", [False, True])
def test_mean_cosines_are_means_over_pairs(squared):
    _, items, _ = rows()
    power = 2 if squared else 1
    expected = np.mean([cosine(x, y) ** power for x, y in itertools.permutations(items, 2)])
    found = module_of(CosReg(squared=squared))(None, items, None, None)
    assert found.item() == pytest.approx(expected, abs=1e-12)


def test_noise_has_its_length_and_the_signs_of_the_row():
    query, _, _ = rows()
    torch.manual_seed(0)
    one, two = (regularizers.noisy(query, 0.3) - query for _ in range(2))
    for noise in (one, two):
        torch.testing.assert_close(noise.norm(dim=1), torch.full((4,), 0.3, dtype=torch.float64), **EXACT)
        assert (noise * query > 0).all()
    assert not torch.allclose(one, two)


def test_simgcl_is_info_nce_of_noisy_cosines():
    query, items, _ = rows()
    pos_id = torch.tensor([3, 1, 3, 0])
    torch.manual_seed(5)
    found = module_of(SimGCL(temperature=0.3, noise=0.2))(query, items, pos_id, None)
    torch.manual_seed(5)
    expected = 0.0
    for vectors in (query, items[[0, 1, 3]]):
        views = []
        for _ in range(2):
            uniform = torch.rand_like(vectors)
            noise = 0.2 * uniform / uniform.norm(dim=1, keepdim=True) * vectors.sign()
            views.append([row / row.norm() for row in vectors + noise])
        expected += info_nce(*views, 0.3)
    assert found.item() == pytest.approx(expected, abs=1e-12)


def test_simgcl_without_noise_sees_one_view():
    query, items, pos_id = rows()
    found = module_of(SimGCL(noise=0.0))(query, items, pos_id, None)
    unit = [[row / row.norm() for row in some] for some in (query, items[pos_id.unique()])]
    assert found.item() == pytest.approx(sum(info_nce(some, some, 0.2) for some in unit), abs=1e-12)


def test_duorec_is_nt_xent_of_dropout_views_and_of_equal_targets():
    query, items, _ = rows()
    view = query + 0.1 * torch.randn(
        query.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1)
    )
    pos_id = torch.tensor([3, 1, 3, 0])
    partner = [2, 1, 0, 3]  # the other row of item 3; the rest meet themselves
    own, others = nt_xent(query, view, 0.8), nt_xent(query, view[partner], 0.8)
    for options, expected in (
        ({}, others),
        ({"supervised": 0.5}, 0.5 * others),
        ({"unsupervised": 0.5}, others + 0.5 * own),
        ({"supervised": 0.0, "unsupervised": 1.0}, own),
        ({"supervised": 0.0}, 0.0),
    ):
        part = DuoRec(temperature=0.8, **options)
        found = module_of(part)(query, items, pos_id, None, view=view)
        assert found.item() == pytest.approx(expected, abs=1e-12), options


def test_partners_are_other_rows_of_the_item_each_as_often():
    pos_id = torch.tensor([2, 7, 2, 5, 2, 7, 2])
    torch.manual_seed(0)
    drawn = torch.stack([same_target(pos_id) for _ in range(3000)])
    assert (pos_id[drawn] == pos_id).all()
    assert (drawn[:, 3] == 3).all()
    assert (drawn[:, 1] == 5).all()
    assert not (drawn[:, 0] == 0).any()
    share = torch.bincount(drawn[:, 0], minlength=7)[[2, 4, 6]] / 3000
    torch.testing.assert_close(share, torch.full((3,), 1 / 3), rtol=0, atol=0.04)


@pytest.mark.parametrize("shape", [(4, 9, 5), (12, 7, 3), (3, 20, 8)], ids=str)
@pytest.mark.parametrize("top", [spectral.top_by_eigh, spectral.top_by_powers])
def test_the_spectral_norm_is_that_of_an_svd_with_its_gradient(monkeypatch, top, shape):
    monkeypatch.setattr(spectral, "top_by_eigh", top)  # what a device does, too
    query, items, _ = rows(*shape)
    query.requires_grad_()
    items.requires_grad_()
    found = regularizers.squared_spectral_norm(query, items)
    expected = torch.linalg.svdvals(query @ items.T)[0].square()
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=0)
    for mine, theirs in zip(*(torch.autograd.grad(one, (query, items)) for one in (found, expected))):
        torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-10 * theirs.abs().max().item())
    again = module_of(ReSN())(query, items, torch.zeros(shape[0], dtype=torch.int64), None)
    torch.testing.assert_close(again, expected / shape[0], rtol=1e-12, atol=0)


@pytest.mark.parametrize("gap", [0.0, 1e-9, 1e-6, 1e-3])
def test_powers_find_the_norm_of_directions_that_are_nearly_as_strong(monkeypatch, gap):
    monkeypatch.setattr(spectral, "top_by_eigh", spectral.top_by_powers)
    basis, _ = torch.linalg.qr(rows(6, 6, 6)[0])
    query = basis * torch.tensor([1.0, 1 - gap, 0.5, 1e-3, 0, 0], dtype=torch.float64)
    found = regularizers.squared_spectral_norm(query, torch.eye(6, dtype=torch.float64))
    assert found.item() == pytest.approx(1, rel=2**-24)


def test_powers_find_the_norm_of_rows_that_are_nearly_orthogonal(monkeypatch):
    monkeypatch.setattr(spectral, "top_by_eigh", spectral.top_by_powers)
    query = torch.tensor([[1.0, 1e-9, 0]], dtype=torch.float64)
    items = torch.tensor([[0.0, 1, 0], [0, 0, 1]], dtype=torch.float64)
    assert regularizers.squared_spectral_norm(query, items).item() == pytest.approx(1e-18, rel=1e-9)


@pytest.mark.parametrize("top", [spectral.top_by_eigh, spectral.top_by_powers])
def test_the_spectral_norm_of_nothing_is_nothing(monkeypatch, top):
    monkeypatch.setattr(spectral, "top_by_eigh", top)
    query = torch.zeros(3, 4, requires_grad=True)
    found = regularizers.squared_spectral_norm(query, torch.randn(6, 4))
    found.backward()
    assert found.item() == 0
    assert torch.isfinite(query.grad).all()


@pytest.mark.parametrize(("name", "encoder"), [*((name, "bag") for name in EVERY), ("simgcl", "lightgcn")])
def test_weight_zero_is_the_plain_model_bit_for_bit(name, encoder):
    part = registry.find("regularizer", name)(weight=0.0)
    options = QUICK | {"epochs": 1, "encoder": encoder}
    plain = fastpop.train(testing.small_log(), **options).model.state_dict()
    other = fastpop.train(testing.small_log(), regularizers=(part,), **options).model.state_dict()
    for key, value in plain.items():
        assert torch.equal(value, other[key]), key


@pytest.mark.parametrize("name", EVERY)
def test_they_keep_the_contract_and_resume(name):
    part = registry.find("regularizer", name)(weight=0.01)
    testing.check_regularizer(part, in_a_run=False)
    testing.check_run(regularizers=(part,), encoder="bag", accumulate=2)


@pytest.mark.parametrize("name", EVERY)
def test_autocast_changes_no_bit(name):
    query, items, pos_id = rows(dtype=torch.float32)
    found = []
    for enabled in (False, True):
        torch.manual_seed(0)
        more = {"view": query + 0.1} if name == "duorec" else {}
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            found.append(module_of(name)(query, items, pos_id, None, **more))
    assert torch.equal(*found)


def seen_views(dropout):
    """(query, view) of a training step."""
    log: Interactions = testing.small_log()
    config = TrainConfig(
        encoder=Bag(dropout=dropout), dim=8, batch_size=64, regularizers=(DuoRec(),), num_negatives=8
    )
    parts = build.assemble(config, log, log, np.zeros(log.num_items))
    seen = []

    class Looking(torch.nn.Module):
        def forward(self, query, items, pos_id, log_prior, view):
            seen.append((query, view))
            return view.square().mean()

    object.__setattr__(parts, "regularizers", ((DuoRec(), Looking()),))
    parts.model.train()
    training_loop.train_step(parts, next(iter(parts.batches.epoch(0))), 0)
    return seen[0]


def test_views_differ_in_dropout_alone():
    query, view = seen_views(1e-9)  # none, as good as
    assert torch.equal(query, view)
    query, view = seen_views(0.5)
    base = (query - view).abs().sum(1)
    assert (base > 0).float().mean() > 0.9
    # Of a mean of history, dropout .5 keeps an entry doubled or leaves the base: where both keep, they agree.
    assert (query == view).float().mean().item() == pytest.approx(0.5, abs=0.05)


def test_bad_options_are_named():
    with pytest.raises(ValueError, match=r"^regularizers\.simgcl\.temperature: expected a finite number > 0"):
        SimGCL(temperature=0.0)
    with pytest.raises(ValueError, match=r"^regularizers\.duorec\.supervised: expected a finite number >= 0"):
        DuoRec(supervised=-1.0)
    with pytest.raises(ValueError, match=r"^regularizers\.simgcl\.noise: expected a finite number; got nan"):
        SimGCL(noise=float("nan"))
    with pytest.raises(ValueError, match=r"prior: expected 'none' with loss='directau', which has no scores"):
        TrainConfig(loss="directau")


def test_directau_keeps_the_contract_and_trains():
    testing.check_loss("directau")
