"""Properties of the Triton kernels, under their interpreter: test_triton.py runs this file in a process that
has TRITON_INTERPRET=1. Fresh memory is NaN here, so that nothing unwritten can be read unnoticed."""

import math
from functools import partial

import numpy as np
import pytest
import torch
from helpers_softmax import in_dtype, loss_and_gradients
from hypothesis import given, settings
from hypothesis import strategies as st
from ops import test_full_softmax, test_mask_positives, test_target_ranks, test_top_items, test_torch_library
from ops.test_sampled_softmax import make, with_draw, with_hits

import fastpop
from fastpop import ops, popularity
from fastpop.kernels import triton_tiles
from fastpop.kernels.sampled_softmax import _triton, _triton_rows
from fastpop.kernels.top_items import _triton as top_items_triton
from fastpop.ops import validation

WANTED = ("query", "items", "log_prior", "scale", "prior_weight")
sampled_softmax = partial(ops.sampled_softmax, impl="triton")
full_softmax = partial(ops.full_softmax, impl="triton")
top_items = partial(ops.top_items, impl="triton")
target_ranks = partial(ops.target_ranks, impl="triton")


@pytest.fixture(autouse=True)
def fresh_memory_is_nan():
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


def single(**inputs):
    return in_dtype(inputs, torch.float32) | {
        name: inputs[name].float() for name in ("scale", "prior_weight")
    }


def assert_close(got, expected, exact=2e-6):
    torch.testing.assert_close(got[0], expected[0], rtol=exact, atol=exact)
    for name in expected[1]:
        torch.testing.assert_close(got[1][name], expected[1][name], rtol=10 * exact, atol=exact)


@pytest.mark.parametrize("soft_cap", [None, 2.0])
@pytest.mark.parametrize(("contexts", "items", "dim"), [(1, 2, 1), (70, 131, 24)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_streamed_energies_are_those_of_the_reference(dtype, contexts, items, dim, soft_cap):
    generator = torch.Generator().manual_seed(0)
    query, table = (
        torch.randn(rows, 2 * dim, generator=generator).to(dtype)[:, ::2] for rows in (contexts, items)
    )
    log_prior, bias = (np.random.default_rng(n).normal(size=items) + 100 * n for n in (0, 1))
    found = [
        ops.score_energy(
            query,
            table,
            log_prior,
            bias=bias,
            scale=1.7,
            soft_cap=soft_cap and 60.0,
            form="streamed",
            impl=impl,
        )
        for impl in ("triton", "reference")
    ]
    for name in ("total", "direction", "shared"):
        got, want = (getattr(one, name) for one in found)
        assert got == pytest.approx(want, rel=2e-4, abs=2e-5 * found[1].total)


def test_energies_in_gram_form_are_float64():
    rows = torch.randn(300, 7, generator=torch.Generator().manual_seed(0))
    log_prior = np.random.default_rng(0).normal(size=300)
    found = [ops.score_energy(rows, rows, log_prior, impl=impl) for impl in ("triton", "reference")]
    assert found[0] == found[1]


SMALL_TILES = [triton_tiles.Tile(16, 16, 4, 1), triton_tiles.Tile(64, 16, 4, 1)]


def assert_top_items(inputs):
    (got_id, got_score), (want_id, want_score) = top_items(**inputs), test_top_items.by_stable_sort(**inputs)
    assert torch.equal(got_score.double(), want_score)
    assert torch.equal(got_id, want_id)


@pytest.mark.parametrize("tile", SMALL_TILES, ids=str)
@pytest.mark.parametrize("seen", [0, 60])
def test_top_items_in_blocks_of_rows_and_sections_of_the_catalogue(monkeypatch, tile, seen):
    monkeypatch.setattr(triton_tiles, "INTERPRETED_TILE", tile)
    monkeypatch.setattr(top_items_triton, "_ELEMENTS", 16 * tile.rows)
    inputs = test_top_items.exact(67, 500, 5, 3, levels=2, seen=seen)
    block, section = top_items_triton._blocks(67, 500, 3, tile)
    assert block < 67
    assert section < 500
    assert_top_items(inputs)


@given(rows=st.integers(1, 10**6), items=st.integers(1, 2**31), k=st.integers(1, 2**31), half=st.booleans())
def test_no_array_of_top_items_passes_its_limit(rows, items, k, half):
    for tile in triton_tiles.MAXIMA[90, half].values():
        block, section = top_items_triton._blocks(rows, items, k, tile)
        tiles = min(section, items + tile.candidates - 1) // tile.candidates
        assert 1 <= block * tiles <= top_items_triton._ELEMENTS
        assert block * min(k, tiles) * tile.candidates <= top_items_triton._ELEMENTS
        assert section <= 2**29  # whose columns are counted twice in 31 bits


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    rows=st.integers(1, 40),
    items=st.integers(1, 150),
    k=st.integers(1, 40),
    levels=st.integers(0, 3),
    seen=st.sampled_from([0, 3, 400]),
    elements=st.sampled_from([256, 2**20]),
)
def test_top_items_with_ties_across_tiles(seed, rows, items, k, levels, seen, elements):
    inputs = test_top_items.exact(rows, items, 2, k, seed=seed, levels=levels, seen=seen)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(triton_tiles, "INTERPRETED_TILE", SMALL_TILES[0])
        patch.setattr(top_items_triton, "_ELEMENTS", elements)
        assert_top_items(inputs)


def test_top_items_when_the_best_tiles_are_excluded_whole():
    """More exclusions than k: without them another tile's best is 1,000 items further down."""
    inputs = test_top_items.exact(65, 1500, 1, 4, bias=None, scale=1.0)
    inputs |= {"query": torch.ones(65, 1), "items": 1500 - torch.arange(1500.0)[:, None]}
    lists = [np.repeat(np.arange(16 * row), 2) for row in range(65)]
    inputs["exclude_offsets"], inputs["exclude_item"] = test_top_items.csr(lists)
    assert_top_items(inputs)
    assert top_items(**inputs)[0][:, 0].tolist() == [16 * row for row in range(65)]


@settings(deadline=None)
@given(seed=st.integers(0, 10**6), width=st.integers(1, 30), data=st.data())
def test_select_takes_the_leftmost_of_equal_keys(seed, width, data):
    key = torch.from_numpy(np.random.default_rng(seed).integers(-2, 3, (5, width), np.int32))
    k = data.draw(st.integers(1, width))
    want = key.sort(dim=1, descending=True, stable=True).indices[:, :k].sort(1).values
    assert torch.equal(top_items_triton.select(key, k), want)


def test_top_items_repeat_bit_for_bit_whatever_the_neighbours():
    generator = torch.Generator().manual_seed(0)
    query, items = (torch.randn(rows, 24, generator=generator) for rows in (70, 900))
    first, second = (top_items(query, items, 20) for _ in range(2))
    parts = [torch.cat(part) for part in zip(*(top_items(some, items, 20) for some in query.split(17)))]
    for item_id, score in (second, parts):
        assert torch.equal(item_id, first[0])
        assert torch.equal(score, first[1])


def test_top_items_of_mixed_dtypes_and_of_no_items():
    inputs = test_top_items.exact(20, 100, 5, 3, seen=4)
    assert_top_items(inputs | {"query": inputs["query"].bfloat16()})
    item_id, score = top_items(torch.ones(3, 2), torch.ones(0, 2), 2)
    assert item_id.tolist() == [[-1, -1]] * 3
    assert (score == -torch.inf).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_a_target_stands_where_top_items_lists_it(dtype):
    """Real numbers: the same bits in both, else an item could stand above itself."""
    generator = torch.Generator().manual_seed(0)
    query, items = (torch.randn(n, 37, generator=generator).to(dtype) for n in (3, 200))
    items[1::2] = items[::2]  # every score twice, and some in tiles apart
    items[150:] = items[:50]
    bias = torch.randn(100, generator=generator).repeat_interleave(2)
    bias[150:] = bias[:50]
    listed, score = top_items(query, items, 200, bias=bias, scale=0.3)
    found = target_ranks(query, items, torch.arange(4) * 200, listed.reshape(-1), bias=bias, scale=0.3)
    assert torch.equal(found.score.view(3, 200), score)
    assert (found.equal >= 1).all()
    place = torch.arange(200).repeat(3)
    assert (found.greater <= place).all()
    assert (place <= found.greater + found.equal).all()


@pytest.mark.parametrize("tile", [triton_tiles.Tile(16, 64, 4, 1), triton_tiles.Tile(64, 16, 4, 1)], ids=str)
def test_tiles_and_splits_change_no_rank(monkeypatch, tile):
    inputs = test_target_ranks.exact(40, 300, 5, targets=3, seen=30)
    want = target_ranks(**inputs)
    monkeypatch.setattr(triton_tiles, "INTERPRETED_TILE", tile)
    found = [target_ranks(**inputs)]
    monkeypatch.setattr(triton_tiles, "split", lambda programs, steps, device: (1, steps))
    found.append(target_ranks(**inputs))
    for one in found:
        assert all(torch.equal(got, other) for got, other in zip(one[:3], want[:3]))
        torch.testing.assert_close(one.lse, want.lse)


def test_ranks_repeat_bit_for_bit_whatever_the_neighbours():
    generator = torch.Generator().manual_seed(0)
    query, items = (torch.randn(rows, 24, generator=generator) for rows in (70, 900))
    target = torch.randint(900, (70,), generator=generator)

    def ranks(rows):
        return target_ranks(query[rows], items, torch.arange(len(query[rows]) + 1), target[rows])

    whole, again = (ranks(slice(None)) for _ in range(2))
    parts = [ranks(slice(start, start + 17)) for start in range(0, 70, 17)]
    assert all(torch.equal(one, other) for one, other in zip(again, whole))
    assert all(torch.equal(torch.cat(some), one) for some, one in zip(list(zip(*parts))[:3], whole[:3]))


def test_zeros_of_either_sign_are_level_and_so_are_infinities():
    items = torch.tensor([[0.0], [-0.0], [1.0], [-1.0]])
    for scale in (1.0, -1.0):
        for number in (1.0, -1.0):
            found = target_ranks(torch.full((1, 1), number), items, [0, 2], [0, 1], scale=scale)
            assert found.greater.tolist() == [1, 1]
            assert found.equal.tolist() == [1, 1]
    wide = torch.full((2, 3), 1e30), torch.full((5, 3), 1e30), [0, 1, 2], [1, 1]
    for found in (target_ranks(*wide), ops.target_ranks(*wide, impl="reference")):
        assert (found.greater.tolist(), found.equal.tolist()) == ([0, 0], [4, 4])
        assert (found.lse == torch.inf).all()


def test_ranks_of_no_items_and_of_mixed_dtypes():
    found = target_ranks(torch.ones(2, 3), torch.ones(0, 3), [0, 0, 0], [])
    assert (found.lse == -torch.inf).all()
    inputs = test_target_ranks.exact(20, 100, 5, seen=4)
    want = test_target_ranks.by_counting(**inputs)
    found = target_ranks(**inputs | {"query": inputs["query"].bfloat16()})
    assert torch.equal(found.greater, want[0])
    assert torch.equal(found.equal, want[1])


@pytest.mark.parametrize("num_items", [1, 2, 97, 100_000])
@pytest.mark.parametrize(("seed", "step"), [(0, 0), (2**64 - 1, 2**63 + 5), (2**33 + 1, 2**40)])
def test_draws_are_those_of_the_host(num_items, seed, step):
    proposal = popularity.power(np.arange(1, num_items + 1), 0.7)
    draw = fastpop.Draw(proposal, seed, step, 301, 16)
    got = draw.tensor(65, impl="triton")
    assert np.array_equal(got.numpy(), draw.ids(65))


@pytest.mark.parametrize("group_size", [None, 16])
def test_a_draw_inside_the_kernel_is_its_ids(group_size):
    inputs = single(**with_draw(group_size, accidental_hits="drop"))
    ids = torch.from_numpy(inputs["neg_id"].ids(65))
    given = inputs | ({"neg_id": ids[0]} if group_size is None else {"neg_id": ids, "group_size": group_size})
    drawn, told = (loss_and_gradients(sampled_softmax, one, WANTED) for one in (inputs, given))
    assert torch.equal(drawn[0], told[0])
    assert all(torch.equal(drawn[1][name], told[1][name]) for name in WANTED)


def test_bitwise_repeatable():
    inputs = single(**with_hits(shape="groups"))
    first, second = (loss_and_gradients(sampled_softmax, inputs, WANTED) for _ in range(2))
    assert torch.equal(first[0], second[0])
    assert all(torch.equal(first[1][name], second[1][name]) for name in WANTED)


@pytest.mark.parametrize("shape", ["shared", "groups"])
@pytest.mark.parametrize("tile", [triton_tiles.Tile(16, 64, 4, 1), triton_tiles.Tile(128, 16, 4, 1)])
def test_tiles_and_splits_change_nothing(monkeypatch, shape, tile):
    inputs = single(**with_hits(rows=90, negatives=150, shape=shape, accidental_hits="drop"))
    expected = loss_and_gradients(sampled_softmax, inputs, WANTED)
    monkeypatch.setattr(triton_tiles, "INTERPRETED_TILE", tile)
    assert_close(loss_and_gradients(sampled_softmax, inputs, WANTED), expected)
    monkeypatch.setattr(triton_tiles, "split", lambda programs, steps, device: (1, steps))
    assert_close(loss_and_gradients(sampled_softmax, inputs, WANTED), expected)


def test_a_single_group_may_claim_more_rows_than_there_are():
    inputs = single(**with_draw())
    claims = inputs | {"neg_id": fastpop.Draw(inputs["neg_id"].proposal, 3, 7, 33, 10**12)}
    assert torch.equal(sampled_softmax(**claims), sampled_softmax(**inputs))


@pytest.mark.parametrize("tile", [triton_tiles.Tile(16, 64, 4, 1), triton_tiles.Tile(128, 16, 4, 1)])
def test_tiles_and_splits_change_nothing_in_the_full_softmax(monkeypatch, tile):
    inputs = single(**test_full_softmax.make(90, 150))
    expected = loss_and_gradients(full_softmax, inputs, WANTED)
    again = loss_and_gradients(full_softmax, inputs, WANTED)
    assert all(torch.equal(expected[1][name], again[1][name]) for name in WANTED)
    monkeypatch.setattr(triton_tiles, "INTERPRETED_TILE", tile)
    assert_close(loss_and_gradients(full_softmax, inputs, WANTED), expected)
    monkeypatch.setattr(triton_tiles, "split", lambda programs, steps, device: (1, steps))
    assert_close(loss_and_gradients(full_softmax, inputs, WANTED), expected)


def test_full_softmax_loss_and_gradients_of_no_rows_are_zero():
    inputs = single(**test_full_softmax.make(0))
    loss, grads = loss_and_gradients(
        lambda **given: full_softmax(**given, reduction="sum")[None], inputs, WANTED
    )
    assert loss.item() == 0
    assert all((grads[name] == 0).all() for name in WANTED)


def test_a_dropped_hit_is_no_phantom_negative_of_logit_zero():
    inputs = single(**with_hits(accidental_hits="drop", logq="none")) | {"prior_weight": 1.0}
    before = sampled_softmax(**inputs)
    after = sampled_softmax(**inputs | {"log_prior": inputs["log_prior"] - 8})
    torch.testing.assert_close(after, before, rtol=1e-5, atol=1e-5)


def test_a_removed_positive_has_an_infinite_loss_and_gives_no_gradient():
    inputs = single(**make(rows=3))
    inputs["log_prior"][inputs["pos_id"][1]] = -math.inf
    query = inputs["query"].requires_grad_()
    loss = sampled_softmax(**inputs)
    assert torch.isfinite(loss).tolist() == [True, False, True]
    loss.sum().backward()
    assert query.grad.abs().sum(1).ne(0).tolist() == [True, False, True]


WILD = [97, -1, 2**40, -(2**40), 2**32 + 5]  # the last would be item 5 in 32 bits


def assert_only_these_rows_are_lost(function, clean, wild, lost):
    """Their losses are NaN and they give no gradient; the others' do not notice."""
    keep = torch.ones(len(clean["query"]), dtype=torch.bool)
    keep[lost] = False
    found = []
    for inputs, upstream in ((clean, keep.float()), (wild, torch.ones(len(keep)))):
        leaves = {name: inputs[name].clone().requires_grad_() for name in WANTED}
        loss = function(**inputs | leaves)
        loss.backward(upstream)
        found.append((loss.detach(), {name: leaf.grad.to_dense() for name, leaf in leaves.items()}))
    (want, want_grads), (got, got_grads) = found
    assert torch.isnan(got[~keep]).all()
    assert torch.equal(got[keep], want[keep])
    for name in WANTED:
        torch.testing.assert_close(got_grads[name], want_grads[name], rtol=1e-5, atol=1e-6)


@pytest.fixture
def unchecked_ids(monkeypatch):
    """As on a device, where reading ids would wait for it."""
    monkeypatch.setattr(validation, "check_range", lambda *_, **__: None)


@pytest.mark.parametrize("logq", ["none", "corrected"])
def test_an_id_out_of_range_is_seen_in_the_loss_and_nowhere_else(unchecked_ids, logq):
    clean = single(**with_hits(shape="groups", logq=logq, accidental_hits="drop"))
    wild = clean | {"neg_id": clean["neg_id"].clone(), "pos_id": clean["pos_id"].clone()}
    wild["neg_id"][1, 3:8] = torch.tensor(WILD)
    wild["pos_id"][40:45] = torch.tensor(WILD)
    # What a row's own positive would be in 32 bits is no hit.
    wild["neg_id"][3] = clean["pos_id"][50]
    wild["neg_id"][3, 7] = 2**32 + clean["pos_id"][50]
    clean["neg_id"][3] = wild["neg_id"][3] % 2**32
    assert_only_these_rows_are_lost(
        sampled_softmax, clean, wild, [*range(16, 32), *range(40, 45), *range(48, 64)]
    )


@pytest.mark.parametrize("at", [0, 32])
def test_an_id_out_of_range_is_seen_among_removed_items(unchecked_ids, at):
    """[33 negatives: the last is a tile of its own] whose sum holds NaN alone, and no maximum."""
    clean = single(**make(logq="none"))
    clean["log_prior"][7] = -math.inf
    clean |= {"neg_id": torch.full((33,), 7), "pos_id": torch.full((65,), 3)}
    wild = clean | {"neg_id": clean["neg_id"].clone()}
    wild["neg_id"][at] = 97
    assert_only_these_rows_are_lost(sampled_softmax, clean, wild, [*range(65)])


def test_a_positive_out_of_range_is_seen_in_its_row_of_the_full_softmax(unchecked_ids):
    clean = single(**test_full_softmax.make())
    wild = clean | {"pos_id": clean["pos_id"].clone()}
    wild["pos_id"][20:25] = torch.tensor(WILD)
    assert_only_these_rows_are_lost(full_softmax, clean, wild, [*range(20, 25)])


def test_ids_of_row_gradients_are_sorted_and_repeats_carry_zeros():
    inputs = single(**with_hits()) | {"sparse_grad": True}
    expected = loss_and_gradients(ops.sampled_softmax, inputs, ("items", "log_prior"))
    leaves = {name: inputs[name].clone().requires_grad_() for name in ("items", "log_prior")}
    sampled_softmax(**inputs | leaves).mul(torch.arange(1, 66) / 2145).sum().backward()
    for name, leaf in leaves.items():
        ids, rows = leaf.grad._indices()[0], leaf.grad._values()
        assert len(ids) == 65 + 33
        assert torch.equal(ids, ids.sort().values)
        assert (rows[1:][ids[1:] == ids[:-1]] == 0).all()
        assert not leaf.grad.is_coalesced()
        torch.testing.assert_close(leaf.grad.to_dense(), expected[1][name], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("positions", [1, 63, 64, 65, 127, 128, 129, 400])
def test_segments_of_every_length_are_summed_by_their_first_position(positions):
    """The chunks that a segment fills are summed beforehand; wherever it begins and ends."""
    generator = torch.Generator().manual_seed(positions)
    for before in (0, 1, 63, 64, 70):
        id_n = torch.cat(
            [
                torch.zeros(before, dtype=torch.int64),
                torch.ones(positions, dtype=torch.int64),
                torch.tensor([5, 9, 9]),
            ]
        )
        id_n = id_n[torch.randperm(len(id_n), generator=generator)]
        query, own = (torch.randn(len(id_n) // 3, *shape, generator=generator) for shape in ((3,), ()))
        rows = len(id_n) - len(query)
        row, bias = (torch.randn(rows, *shape, generator=generator) for shape in ((3,), ()))
        inputs = _triton.Inputs(
            query_BD=query,
            item_VD=torch.empty(10, 3),
            pos_id_B=id_n[: len(query)],
            prior_weight=torch.tensor(1.0),
            scale=torch.tensor(2.0),
            num_groups=1,
            num_negatives=rows,
            group_size=len(query),
            neg_id_GK=id_n[None, len(query) :],
        )
        ids, out, out_bias = _triton_rows.sum_by_id(inputs, id_n.int(), own, row, bias, torch.float32)
        values = torch.cat([2 * own[:, None] * query, row])
        dense = torch.zeros(10, 3).index_add_(0, id_n, values)
        assert torch.equal(ids, id_n.sort().values)
        torch.testing.assert_close(torch.zeros(10, 3).index_add_(0, ids, out), dense, rtol=1e-4, atol=1e-4)
        first = torch.cat([torch.tensor([True]), ids[1:] != ids[:-1]])
        assert (out[~first] == 0).all()
        assert (out_bias[~first] == 0).all()
        expected = torch.zeros(10, dtype=torch.float64).index_add_(0, id_n, torch.cat([own, bias]).double())
        torch.testing.assert_close(out_bias[first], expected[ids[first]])


def test_offsets_beyond_two_to_the_31_are_exact():
    num_items, dim = 2**24 + 64, 130
    torch.use_deterministic_algorithms(False)  # which would touch all 4 GiB
    items = torch.empty(num_items, dim, dtype=torch.float16)
    items[-1], items[-2] = 3 / dim, -1 / dim
    query = torch.ones(1, dim, dtype=torch.float16, requires_grad=True)
    loss = sampled_softmax(
        query, items, torch.tensor([num_items - 1]), torch.tensor([num_items - 2]), logq="none"
    )
    assert loss.item() == pytest.approx(math.log1p(math.exp(-4)), abs=1e-2)
    loss.sum().backward()
    assert torch.isfinite(query.grad).all()


@pytest.mark.parametrize(
    ("query", "items"),
    [(torch.bfloat16, torch.float32), (torch.float32, torch.float16), (torch.float16, torch.bfloat16)],
)
def test_mixed_dtypes_meet_in_what_holds_both(query, items):
    inputs = single(**make())
    inputs |= {"query": inputs["query"].to(query), "items": inputs["items"].to(items)}
    got, expected = (
        loss_and_gradients(function, inputs, WANTED) for function in (sampled_softmax, ops.sampled_softmax)
    )
    torch.testing.assert_close(got[0], expected[0], rtol=2e-6, atol=2e-6)
    for name in WANTED:
        assert got[1][name].dtype == inputs[name].dtype
        torch.testing.assert_close(got[1][name], expected[1][name])


@pytest.mark.parametrize("shape", ["shared", "groups"])
def test_under_autocast_rows_are_rounded_as_on_the_cpu(shape):
    """The table and its gradient stay float32."""
    inputs = single(**make(shape=shape))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got, expected = (
            loss_and_gradients(function, inputs, WANTED)
            for function in (sampled_softmax, ops.sampled_softmax)
        )
    half = inputs | {name: inputs[name].bfloat16() for name in ("query", "items")}
    torch.testing.assert_close(got[0], expected[0], rtol=2e-6, atol=2e-6)
    torch.testing.assert_close(got[0], ops.sampled_softmax(**half), rtol=2e-6, atol=2e-6)
    for name in WANTED:
        assert got[1][name].dtype == torch.float32
        # Shares are rounded to bfloat16 before they multiply.
        torch.testing.assert_close(got[1][name], expected[1][name], rtol=2.0**-6, atol=2e-4)


def test_small_weights_do_not_vanish_in_float16():
    """Shares of 1e-10 of a thousand rows add up to 5e-4, though float16 knows no share below 6e-8."""
    inputs = make(rows=1000, spread=1.0) | {"scale": 1.0, "prior_weight": 1.0}
    inputs |= {
        "query": (4000 + 1000 * inputs["query"]).half(),
        "items": (inputs["items"] / 1e5).half(),
        "log_prior": inputs["log_prior"].float(),
        "log_proposal": inputs["log_proposal"].float(),
        "row_weight": torch.full((1000,), 2.0**-28),
        "reduction": "sum",
    }
    got, expected = (
        loss_and_gradients(function, inputs, ("items",))[1]["items"]
        for function in (sampled_softmax, partial(ops.sampled_softmax, impl="reference"))
    )
    assert expected.abs().max() > 1e-4
    torch.testing.assert_close(got, expected, rtol=2e-3, atol=2e-6)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda: make(), "query is float64"),
        (lambda: single(**make(dim=300)), "query has 300 dimensions, a tile holds 256"),
        (lambda: single(**make(shape="rows")), "groups of 1 rows, tensor cores want 16"),
    ],
)
def test_what_it_does_not_take_is_said(change, reason):
    with pytest.raises(NotImplementedError, match=f"triton: {reason}"):
        sampled_softmax(**change())


def test_auto_on_the_cpu_is_not_the_interpreter(monkeypatch):
    monkeypatch.setattr(_triton, "forward", lambda inputs: pytest.fail("auto took triton"))
    ops.sampled_softmax(**single(**make()))


@pytest.mark.parametrize("draw", [False, True], ids=["ids", "drawn inside"])
def test_opcheck(draw):
    torch.use_deterministic_algorithms(False)  # opcheck compares fresh memory
    *inputs, _, sparse_grad, _ = test_torch_library.operator_inputs(True, draw, torch.bfloat16)
    weight = torch.rand(65)
    for fixed_rows in (True, False):
        plain = [one.detach() if isinstance(one, torch.Tensor) else one for one in inputs]
        plain += ["triton", sparse_grad, fixed_rows]
        torch.library.opcheck(torch.ops.fastpop.sampled_softmax_forward.default, plain)
        lse, pos_logit = torch.ops.fastpop.sampled_softmax_forward(*plain)
        torch.library.opcheck(
            torch.ops.fastpop.sampled_softmax_backward.default,
            (*plain, lse, pos_logit, weight, weight, test_torch_library.ALL_NEEDED),
        )


@pytest.mark.parametrize("sure", [False, True])
def test_masked_positives_with_triton(sure):
    test_mask_positives.test_the_full_softmax("triton", sure)
