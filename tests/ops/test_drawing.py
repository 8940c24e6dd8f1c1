"""Drawing as an op: one implementation that is named or the first that takes the table, and no other."""

import numpy as np
import pytest
import torch
from helpers_device import gpu
from helpers_softmax import implementations_here

import fastpop
from fastpop import ops, popularity
from fastpop.kernels.alias_draw.reference import Inputs
from fastpop.ops import _dispatch
from fastpop.ops.alias_table import table_of

PROPOSAL = popularity.power(np.arange(1, 98), 0.7)


@pytest.mark.parametrize("impl", [*implementations_here("alias_draw"), "auto"])
def test_every_implementation_draws_the_same_ids_numpy_or_torch(impl):
    expected = PROPOSAL.sample(2**64 - 1, 7, (3, 33), group=5, impl="reference")
    if impl != "triton":
        got = ops.alias_draw(PROPOSAL.table_V2, 2**64 - 1, 7, 3, 33, group=5, impl=impl)
        assert isinstance(got, np.ndarray)
        np.testing.assert_array_equal(got, expected)
    for step in (7, torch.tensor([7])):
        got = ops.alias_draw(PROPOSAL.table_on("cpu"), 2**64 - 1, step, 3, 33, group=5, impl=impl)
        assert got.dtype == torch.int64
        np.testing.assert_array_equal(got.numpy(), expected)


@pytest.mark.parametrize(("num_groups", "num_draws"), [(0, 4), (3, 0), (1, 1)])
def test_few_ids_or_none(num_groups, num_draws):
    for impl in ("reference", "cpu"):
        assert ops.alias_draw(PROPOSAL.table_V2, 0, 0, num_groups, num_draws, impl=impl).shape == (
            num_groups,
            num_draws,
        )


BAD = {
    "table": ({"table": [[0, 0]]}, TypeError, "^table: expected an alias table"),
    "dtype": ({"table": np.zeros((3, 2))}, TypeError, r"^table: expected uint32 \[V, 2\]"),
    "bits": ({"table": torch.zeros(3, 2)}, TypeError, r"^table: expected int32 \[V, 2\]"),
    "shape": ({"table": np.zeros((3, 3), np.uint32)}, ValueError, "^table: expected shape"),
    "empty": ({"table": np.zeros((0, 2), np.uint32)}, ValueError, "^table: expected at least one item"),
    "meta": (
        {"table": torch.zeros(3, 2, dtype=torch.int32, device="meta")},
        ValueError,
        "^table: expected a tensor on cpu or cuda; got meta",
    ),
    "seed": ({"seed": -1}, ValueError, "^seed: expected an integer >= 0"),
    "step": ({"step": 2**64}, ValueError, "^step: expected an integer >= 0"),
    "a float step": ({"step": torch.tensor(1.0)}, ValueError, "^step: expected an integer or a one-element"),
    "groups": ({"num_groups": -1}, ValueError, "^number of groups: expected"),
    "impl": ({"impl": "gpu"}, ValueError, "^impl: expected one of"),
}


@pytest.mark.parametrize("what", BAD)
def test_bad_input_has_one_clear_error(what):
    change, kind, message = BAD[what]
    given = {"table": PROPOSAL.table_V2, "seed": 0, "step": 0, "num_groups": 1, "num_draws": 2}
    with pytest.raises(kind, match=message):
        ops.alias_draw(**given | change)


@pytest.mark.parametrize("impl", ["cuda", "triton"])
def test_a_named_implementation_runs_or_raises(impl):
    if impl == "triton" and "triton" in implementations_here("alias_draw"):
        pytest.skip("here it runs")
    with pytest.raises(NotImplementedError, match=f"of alias_draw for impl='{impl}': {impl}: "):
        fastpop.Draw(PROPOSAL, 0, 0, 4).tensor(3, impl=impl)


def test_a_table_on_a_device_is_never_drawn_from_on_the_host(monkeypatch):
    """A tensor without numbers stands for one on a card: nothing may fetch it, and an error says what."""

    def no_copy(*_, **__):
        pytest.fail("the table was fetched from its device")

    table = torch.zeros(9, 2, dtype=torch.int32, device="meta")
    counter = torch.zeros(2, dtype=torch.int64, device="meta")
    for name in ("cpu", "numpy", "tolist", "item"):
        monkeypatch.setattr(torch.Tensor, name, no_copy)
    for impl, why in (("auto", ("cuda: ", "triton: ", "Draw.ids gives ids there")), ("cpu", ("Draw.ids",))):
        with pytest.raises(NotImplementedError) as raised:
            _dispatch.choose("alias_draw", impl, "cuda", Inputs(table, counter, 0, 1, 4))
        assert all(word in str(raised.value) for word in why)


def test_on_a_device_the_first_that_takes_the_table_draws_there(monkeypatch):
    """Beside a build without CUDA, Triton's: the ids stay on the device."""
    seen = []
    module = pytest.importorskip("fastpop.kernels.alias_draw._triton")
    monkeypatch.setattr(module, "unsupported", lambda inputs: None)
    monkeypatch.setattr(
        module,
        "forward",
        lambda inputs: (
            seen.append(inputs)
            or torch.zeros(inputs.num_groups, inputs.num_draws, dtype=torch.int64, device="meta")
        ),
    )
    table = torch.zeros(9, 2, dtype=torch.int32, device="meta")
    inputs = Inputs(table, torch.zeros(2, dtype=torch.int64, device="meta"), 0, 3, 4)
    chosen = _dispatch.choose("alias_draw", "auto", "cuda", inputs)
    assert chosen is module
    assert chosen.forward(inputs).device.type == "meta"
    assert seen == [inputs]


def test_a_reference_on_the_cpu_draws_the_groups_that_it_reads():
    """The specification of the softmax is given ids; those of a Draw come group by group, the same ones."""
    query, items = torch.randn(40, 5, dtype=torch.float64), torch.randn(97, 5, dtype=torch.float64)
    draw = fastpop.Draw(PROPOSAL, 3, 4, 11, 4)
    given = {"log_proposal": PROPOSAL.log_proposal_on("cpu", torch.float64), "impl": "reference"}
    pos_id = torch.arange(40)
    drawn = ops.sampled_softmax(query, items, pos_id, draw, **given)
    ids = draw.tensor(40)
    assert torch.equal(drawn, ops.sampled_softmax(query, items, pos_id, ids, group_size=4, **given))


def test_drawing_under_torch_compile():
    compiled = torch.compile(lambda step: fastpop.Draw(PROPOSAL, 1, step, 6, 4).tensor(9), fullgraph=True)
    for step in (3, 2**40):
        expected = fastpop.Draw(PROPOSAL, 1, step, 6, 4).ids(9)
        np.testing.assert_array_equal(compiled(torch.tensor(step)).numpy(), expected)


def test_anything_with_an_alias_table_can_be_drawn_from():
    table_V2, log_proposal_V = table_of([1.0, 0.0, 3.0])
    draw = fastpop.Draw(ops.AliasTable(3, log_proposal_V, table_V2), 0, 0, 500)
    ids = draw.tensor(1)
    assert set(ids.unique().tolist()) == {0, 2}
    with pytest.raises(TypeError, match="proposal: expected a Proposal that draws"):
        fastpop.Draw(popularity.InBatch.from_counts([1.0, 2.0]), 0, 0, 4)


def test_names_of_before_are_still_there():
    from fastpop.popularity import draw

    assert fastpop.Draw is popularity.Draw is ops.Draw is draw.Draw


def test_what_is_available_says_why_the_rest_is_not():
    found = ops.available("alias_draw")
    assert list(found) == ["reference", "cpu", "triton", "cuda"]
    assert found["reference"] is None
    assert found["cpu"] is None
    if not torch.cuda.is_available():
        assert found["cuda"]
    assert list(ops.available("permutation")) == ["reference", "cpu"]
    with pytest.raises(ValueError, match="op: expected one of 'sampled_softmax'"):
        ops.available("softmax")


@pytest.mark.gpu
@pytest.mark.parametrize("impl", ["auto", "triton", "cuda"])
def test_on_a_gpu_ids_are_those_of_the_host(impl):
    draw = fastpop.Draw(PROPOSAL, 2**63 + 5, 2**40 + 1, 1001, 4)
    if impl != "auto" and ops.available("alias_draw")[impl] is not None:
        pytest.skip(ops.available("alias_draw")[impl])
    ids = draw.tensor(9, gpu(), impl=impl)
    assert ids.is_cuda
    np.testing.assert_array_equal(ids.cpu().numpy(), draw.ids(9))
