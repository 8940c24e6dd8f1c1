"""Properties of row-wise steps on a GPU, and, where there is none, of what its CUDA kernels compute: the host
emulation runs the same code, lanes in a loop, behind the same Python. Values: test_row_update.py."""

import ops.test_row_update as contract
import pytest
import torch
from helpers_device import HOST_AND_GPU, device_of, gpu

from fastpop import ops, optim
from fastpop.kernels.row_sum import _cuda as row_sum
from fastpop.kernels.row_update import _cuda, reference

RULES, problem, many = contract.STATE, contract.problem, contract.many


@pytest.fixture(params=HOST_AND_GPU)
def device(request, monkeypatch):
    return device_of(request.param, monkeypatch)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_fp32_gradients_of_a_half_table_are_not_rounded_first(device, rule, dtype):
    inputs = contract.fresh(problem(dim=32), torch.float32)
    inputs["table"] = inputs["table"].to(dtype)
    wide = {name: value.clone() for name, value in inputs.items()}
    wide["table"] = wide["table"].float()
    contract.run(rule, inputs, "cuda", device)
    contract.run(rule, wide, "reference")
    torch.testing.assert_close(inputs["table"], wide["table"].to(dtype))


@pytest.mark.parametrize("rule", RULES)
def test_padding_is_no_second_step(device, rule):
    """A device's gradient: sorted ids, then the last one again with zeros."""
    plain, padded = (contract.fresh(problem(ids=(2, 5, 8)), torch.float32) for _ in range(2))
    padded["ids"] = torch.cat([padded["ids"], torch.full((40,), 8)])
    padded["rows"] = torch.cat([padded["rows"], torch.zeros(40, 24)])
    contract.run(rule, plain, "cuda", device)
    contract.run(rule, padded, "cuda", device)
    for name in ("table", "mean", "square", "step"):
        assert torch.equal(plain[name], padded[name])


def step_on(device, rule, inputs, **given):
    """The table and its state after a step with the options of the public functions."""
    there = {name: value.clone().to(device) for name, value in inputs.items()}
    state = {name: there[name] for name in RULES[rule]}
    numbers = {} if rule == "sgd" else {"eps": contract.EPS}
    numbers |= {"betas": contract.BETAS} if rule == "adam" else {}
    function = getattr(ops, f"row_{rule}_")
    rows = (there["table"], there["ids"], there["rows"])
    function(*rows, **state, lr=contract.LR, **numbers, **given, impl="cuda")
    return {name: there[name] for name in ("table", *RULES[rule])}


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("dim", [24, 128])
def test_ids_that_are_summed_need_no_sort(device, monkeypatch, rule, dim):
    """The bits of the same gradient sorted and summed: a repeated id carries zeros after its first row."""
    inputs = contract.in_order(contract.fresh(many(num=400, items=90, dim=dim), torch.float32))
    again = torch.cat([torch.tensor([False]), inputs["ids"][1:] == inputs["ids"][:-1]])
    inputs["rows"][again] = 0
    assert again.any()
    expected = step_on(device, rule, inputs)
    monkeypatch.setattr(row_sum, "sort", lambda _: pytest.fail("sorted"))
    found = step_on(device, rule, inputs, summed=True)
    assert all(torch.equal(found[name], expected[name]) for name in expected)


@pytest.mark.parametrize("summed", [False, True])
@pytest.mark.parametrize("rule", RULES)
def test_no_step_is_made_where_the_stop_says_so(device, rule, summed):
    inputs = contract.in_order(contract.fresh(problem(), torch.float32))
    stop = torch.zeros((), device=device)
    moved = step_on(device, rule, inputs, found_inf=stop, summed=summed)
    assert not torch.equal(moved["table"].cpu(), inputs["table"])
    for value in (1.0, float("nan")):
        found = step_on(device, rule, inputs, found_inf=stop.fill_(value), summed=summed)
        assert all(torch.equal(found[name].cpu(), inputs[name]) for name in found)


@pytest.mark.parametrize("rule", RULES)
def test_bitwise_repeatable(device, rule):
    one, other = (contract.fresh(many(dim=32), torch.float32) for _ in range(2))
    contract.run(rule, one, "cuda", device)
    contract.run(rule, other, "cuda", device)
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("rule", RULES)
def test_an_id_out_of_range_makes_no_step(device, rule):
    inputs = contract.fresh(problem(ids=(7, 3)), torch.float32)
    wild = contract.fresh(problem(ids=(7, 3)), torch.float32)
    wild["ids"] = torch.cat([wild["ids"], torch.tensor([50, -1, 2**40])])
    wild["rows"] = torch.cat([wild["rows"], torch.ones(3, 24)])
    there = {name: value.to(device) for name, value in wild.items()}
    fields = {"mean": "mean_VD", "square": "square_V", "step": "step_V"}
    state = {fields[name]: there[name] for name in RULES[rule]}
    _cuda.forward(
        reference.Inputs(
            rule,
            there["table"],
            there["ids"],
            there["rows"],
            contract.LR,
            **state,
            beta1=contract.BETAS[0],
            beta2=contract.BETAS[1],
            eps=contract.EPS,
        )
    )
    contract.run(rule, inputs, "cuda", device)
    assert torch.equal(there["table"].cpu(), inputs["table"])


def test_rows_of_ids_that_come_once_are_not_read_by_the_sum(device):
    """NaN where nothing should read; the sums of the others, chunk after chunk."""
    generator = torch.Generator().manual_seed(0)
    ids = torch.cat([torch.arange(1000, 1500), torch.randint(30, (3000,), generator=generator)])
    ids = ids[torch.randperm(3500, generator=generator)].to(device)
    rows = torch.randn(3500, 40, generator=generator).to(device)
    rows[ids >= 1000] = torch.nan
    entries = row_sum.sort_ids(ids, 2000)
    sums = row_sum.sum_repeats(entries, rows)[:30]
    expected = torch.zeros(30, 40, dtype=torch.float64, device=device)
    expected.index_add_(0, ids[ids < 30], rows[ids < 30].double())
    torch.testing.assert_close(sums.double(), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("num_entries", "chunk"),
    [(1, 32), (2**21, 32), (2**22, 64), (2**22 + 1, 128), (2**26, 1024), (2**40, 1024)],
)
def test_chunks_are_cut_by_the_number_of_entries_alone(num_entries, chunk):
    assert row_sum.chunk_of(num_entries) == chunk


def test_what_it_does_not_take_is_refused_with_the_reason(device):
    def reason(table, **state):
        ids = torch.arange(len(table), device=table.device)
        return _cuda.unsupported(reference.Inputs("adam", table, ids, table, 0.1, **state))

    table = torch.zeros(9, 4, device=device)
    assert reason(table) is None
    assert reason(table.double()) == "table is float64, these kernels compute in float32"
    assert "lie on each other" in reason(table[:1].expand(9, 4))
    assert "square is not contiguous" in reason(table, square_V=torch.zeros(18, device=device)[::2])
    assert "mean has strides [1, 9]" in reason(table, mean_VD=torch.zeros(4, 9, device=device).T)


@pytest.mark.gpu
@pytest.mark.parametrize("kind", [optim.RowSGD, optim.RowAdagrad, optim.RowAdam])
def test_a_sparse_step_waits_for_nothing(kind):
    device = gpu()
    table = torch.nn.Parameter(torch.randn(500, 32, device=device))
    query = torch.randn(64, 32, device=device)
    pos_id = torch.randint(500, (64,), device=device)
    neg_id = torch.randint(500, (64, 20), device=device)
    scale = torch.ones((), device=device)
    optimizer = kind([table], lr=0.1)

    def step():
        optimizer.zero_grad()
        loss = ops.sampled_softmax(
            query,
            table,
            pos_id,
            neg_id,
            logq="none",
            scale=scale,
            prior_weight=scale,
            sparse_grad=True,
            impl="cuda",
            reduction="sum",
        )
        loss.backward()
        optimizer.step()
        return loss

    first = step()
    torch.cuda.set_sync_debug_mode("error")
    try:
        for _ in range(5):
            last = step()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert last.item() < first.item()
