"""How the Triton kernels are started: what is compiled anew when a batch is ragged. No GPU is needed."""

import os

import numpy as np
import pytest
import torch

triton = pytest.importorskip("triton", reason="triton is not installed")
if os.environ.get("TRITON_INTERPRET") == "1":
    pytest.skip("the interpreter does not compile", allow_module_level=True)

from torch.utils._python_dispatch import TorchDispatchMode  # noqa: E402
from triton.backends.compiler import GPUTarget  # noqa: E402
from triton.compiler import make_backend  # noqa: E402
from triton.runtime.jit import compute_cache_key, create_function_from_signature  # noqa: E402

from fastpop.kernels import triton_tiles  # noqa: E402
from fastpop.kernels.alias_draw import _triton as alias_draw  # noqa: E402
from fastpop.kernels.full_softmax import _triton as full  # noqa: E402
from fastpop.kernels.full_softmax.reference import Inputs as FullInputs  # noqa: E402
from fastpop.kernels.sampled_softmax import _triton as sampled  # noqa: E402
from fastpop.kernels.sampled_softmax.reference import Inputs, Needs  # noqa: E402
from fastpop.kernels.score_energy import _triton as energy  # noqa: E402
from fastpop.kernels.target_ranks import _triton as target_ranks  # noqa: E402
from fastpop.kernels.top_items import _triton as top_items  # noqa: E402

ITEMS, DIM, NEGATIVES = 1003, 64, 250
BACKEND = make_backend(GPUTarget("cuda", 90, 32))


@pytest.fixture
def variants(monkeypatch):
    """The keys under which Triton keeps what it compiles for an H100, one for each launch; nothing runs."""
    found = set()

    def launch(jitted, grid, **arguments):
        assert all(size > 0 for size in grid)
        binder = create_function_from_signature(jitted.signature, jitted.params, BACKEND)
        _, specialization, options = binder(**arguments, **triton_tiles.OPTIONS)
        found.add((jitted.__name__, compute_cache_key({}, specialization, options)))
        if "out_id_ptr" in arguments:
            arguments["out_id_ptr"].zero_()  # which torch reads afterwards

    monkeypatch.setattr(triton_tiles, "launch", launch)
    monkeypatch.setattr(triton_tiles, "capability", lambda device: 90)
    return found


def softmax_inputs(rows, dtype):
    query = torch.zeros(rows, DIM, dtype=dtype)
    return query, torch.zeros(ITEMS, DIM, dtype=dtype), torch.zeros(rows, dtype=torch.int64)


def both_passes(module, inputs):
    lse_B, pos_logit_B = module.forward(inputs)
    module.backward(inputs, lse_B, pos_logit_B, lse_B, lse_B, Needs(*[True] * 5))


def sampled_step(rows, dtype, **negatives):
    query, items, pos_id = softmax_inputs(rows, dtype)
    log_V, one = torch.zeros(ITEMS), torch.ones(())
    both_passes(
        sampled,
        Inputs(
            query,
            items,
            pos_id,
            one,
            one,
            num_negatives=NEGATIVES,
            log_prior_V=log_V,
            log_proposal_V=log_V,
            logq="corrected",
            drop_accidental_hits=True,
            **negatives,
        ),
    )


def shared_step(rows, dtype=torch.bfloat16):
    ids = torch.zeros(1, NEGATIVES, dtype=torch.int64)
    sampled_step(rows, dtype, neg_id_GK=ids, num_groups=1, group_size=rows)


def drawn_step(rows, dtype=torch.float32, group_size=48):
    table, counter = torch.zeros(ITEMS, 2, dtype=torch.int32), torch.zeros(2, dtype=torch.int64)
    num_groups = -(-rows // group_size)
    sampled_step(rows, dtype, table_V2=table, counter_2=counter, num_groups=num_groups, group_size=group_size)


def full_step(rows, dtype=torch.bfloat16):
    query, items, pos_id = softmax_inputs(rows, dtype)
    one = torch.ones(())
    both_passes(full, FullInputs(query, items, pos_id, one, one, torch.zeros(ITEMS)))


def top_of(rows):
    query, items, _ = softmax_inputs(rows, torch.float32)
    offsets = torch.arange(rows + 1) * 3
    top_items.forward(
        top_items.Inputs(query, items, 5, torch.zeros(ITEMS), 1.0, offsets, torch.zeros(3 * rows).long())
    )


def ranks_of(rows):
    query, items, target = softmax_inputs(rows, torch.float32)
    offsets = torch.arange(rows + 1)
    target_ranks.forward(
        target_ranks.Inputs(
            query, items, offsets, target, torch.zeros(ITEMS), 1.0, 3 * offsets, torch.zeros(3 * rows).long()
        )
    )


def energy_of(rows):
    query, items, _ = softmax_inputs(rows, torch.float32)
    energy.forward(energy.Inputs(query, items, np.zeros(ITEMS), 1.0, 0.0, np.zeros(ITEMS)))


def draw(rows):
    table, counter = torch.zeros(ITEMS, 2, dtype=torch.int32), torch.zeros(2, dtype=torch.int64)
    alias_draw.forward(alias_draw.Inputs(table, counter, 0, rows, NEGATIVES))


@pytest.mark.parametrize(
    ("step", "num_kernels", "full_batch", "ragged"),
    [
        (shared_step, 8, 256, (240, 255, 130, 37, 16, 1)),
        (drawn_step, 8, 960, (948, 951, 97, 49)),
        (full_step, 4, 256, (240, 255, 130, 37, 16, 1)),
        (top_of, 3, 512, (496, 511, 130, 37, 16, 1)),
        (ranks_of, 3, 512, (496, 511, 130, 37, 16, 1)),
        (energy_of, 1, 512, (496, 511, 130, 37, 16, 1)),
        (draw, 1, 16, (15, 2, 1)),
    ],
    ids=lambda one: getattr(one, "__name__", None),
)
def test_a_ragged_batch_compiles_nothing_anew(variants, step, num_kernels, full_batch, ragged):
    step(full_batch)
    before = set(variants)
    assert len(before) == num_kernels
    for rows in ragged:
        step(rows)
        assert variants == before


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("step", [shared_step, full_step])
def test_where_few_rows_are_split_one_kernel_writes_wider_numbers(variants, step, dtype):
    """d_query of many rows is written once, in its own dtype; partial sums are float32."""
    step(4096, dtype)
    before = set(variants)
    step(37, dtype)
    assert {name for name, _ in variants - before} == (set() if dtype == torch.float32 else {"query_kernel"})


def test_another_size_of_what_stays_the_same_is_another_kernel(variants):
    """That keys are told apart at all: strides and the dimension say how wide a load may be."""
    for dim in (64, 60):
        query = torch.zeros(32, dim)
        energy.forward(energy.Inputs(query, query, np.zeros(32), 1.0))
    assert len(variants) == 2


# What does nothing on a device: fresh memory, and the filling of it that the tests add.
NO_LAUNCH = ("empty", "empty_like", "empty_strided", "new_empty", "fill_", "promote_types")


class Operators(TorchDispatchMode):
    """Names of torch's operators that do something on a device."""

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function.__name__.split(".")[0]
        if not function.is_view and name not in NO_LAUNCH:
            self.names.append(name)
        return function(*args, **kwargs or {})


@pytest.mark.parametrize(("rows", "items"), [(4096, 200_000), (37, 1003)])
def test_ranks_of_all_rows_are_four_launches_and_wait_for_nothing(monkeypatch, rows, items):
    """The reference makes some 25 launches a tile of 16 MiB of scores, and waits three times."""
    launched = []
    monkeypatch.setattr(
        triton_tiles, "launch", lambda jitted, grid, **arguments: launched.append((jitted.__name__, grid))
    )
    monkeypatch.setattr(triton_tiles, "capability", lambda device: 90)
    offsets = torch.arange(rows + 1)
    query, item = (torch.zeros(1, DIM).expand(number, DIM) for number in (rows, items))
    inputs = target_ranks.Inputs(
        query, item, offsets, torch.zeros(rows).long(), None, 1.0, 20 * offsets, torch.zeros(20 * rows).long()
    )
    with Operators() as operators:
        target_ranks.forward(inputs)
    assert [name for name, _ in launched] == ["pairs_kernel", "ranks_kernel", "pairs_kernel", "finish_kernel"]
    assert len(operators.names) <= 16, operators.names
    assert not {"_local_scalar_dense", "nonzero", "is_nonzero", "equal"} & {*operators.names}


@pytest.mark.parametrize("table", ["FORWARD", "QUERY", "ITEM", "MAXIMA"])
def test_every_architecture_has_a_tile_one_that_nobody_knows_of_too(table):
    for arch in (80, 86, 87, 89, 90, 100, 101, 103, 110, 120, 121, 130, 999):
        for dim in (1, 64, 100, 256):
            for dtype in (torch.float32, torch.bfloat16):
                tile = triton_tiles.tile_for(getattr(triton_tiles, table), arch, dim, dtype)
                assert tile.rows >= 16


def test_an_architecture_before_sm_80_is_refused_with_a_sentence(monkeypatch):
    class OnCuda:
        device, dtype, shape = torch.device("cuda", 0), torch.float32, (4, 8)

    monkeypatch.setattr(triton_tiles, "capability", lambda device: 75)
    assert triton_tiles.unsupported(OnCuda(), OnCuda()) == (
        "the device is sm_75, these kernels need sm_80 or later"
    )
