"""What others do on the same shapes: torch eager and compiled, Liger, cut-cross-entropy."""

import importlib
from collections.abc import Callable, Iterator
from functools import partial
from types import ModuleType

import torch
from bench_full_softmax import case_of as full_case
from bench_full_softmax import eager as full_eager
from bench_full_softmax import ours as our_full
from bench_sampled_softmax import case_of, eager, torch_way
from shapes import GPU_FULL, GPU_SHARED, Softmax
from softmax_gate import check

from gpu import figures
from gpu.context import Context, Skip


def items(context: Context) -> Iterator[tuple[str, Callable[[], None]]]:
    shape = next((one for one in GPU_SHARED if one.dim == 128), GPU_SHARED[0])
    yield "sampled, torch eager", partial(sampled, context, shape, "torch eager", eager)
    for full_shape in GPU_FULL:
        for name, function in FULL.items():
            yield f"full, {name}", partial(full, context, full_shape, name, function)
    yield "sampled, torch.compile", partial(compiled, context, shape)


def sampled(context: Context, shape: Softmax, name: str, function: Callable) -> None:
    case = case_of(shape)
    query, table = case.query.detach().requires_grad_(), case.items.detach().requires_grad_()

    def step():
        query.grad = table.grad = None
        loss = torch_way(case, query, table, shared=partial(function, sparse=True), grouped=None)
        loss.sum().backward()
        return loss

    error = check(step().detach(), query, table, case)
    context.time(figures.sampled_peer(shape, name), step, error=error)


def compiled(context: Context, shape: Softmax) -> None:
    """On a processor without its compiler, which takes long: the same code is traced."""
    torch._dynamo.reset()
    backend = "inductor" if context.cuda else "eager"
    function = torch.compile(logits_and_loss, dynamic=False, backend=backend)
    sampled(context, shape, "torch.compile", partial(around, function))


def around(function: Callable, query, items, pos_id, neg_id, log_proposal, *, sparse):
    """Rows are looked up outside: a compiled function gives dense gradients, of a million rows."""
    pos_item = torch.nn.functional.embedding(pos_id, items, sparse=sparse)
    neg_item = torch.nn.functional.embedding(neg_id, items, sparse=sparse)
    return function(query, pos_item, neg_item, log_proposal[pos_id], log_proposal[neg_id], pos_id, neg_id)


def logits_and_loss(query, pos_item, neg_item, pos_log_q, neg_log_q, pos_id, neg_id):
    pos = (query * pos_item).sum(1) - pos_log_q
    neg = query @ neg_item.T - neg_log_q
    neg = neg.masked_fill(pos_id[:, None] == neg_id, -torch.inf)
    return torch.logsumexp(torch.cat([pos[:, None], neg], 1), 1) - pos


def needed(module: str) -> ModuleType:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise Skip(f"{error}; docs/gpu-day.md says how it is carried") from None


def liger(case, query, items, *, cuda: bool):
    kernels = needed("liger_kernel.transformers.functional")
    if not cuda:
        raise Skip("no CUDA device: Liger's cross-entropy is a Triton kernel")
    loss = kernels.liger_fused_linear_cross_entropy(
        query, items, case.pos_id, bias=case.log_prior.to(query.dtype), reduction="sum"
    )
    loss.backward()
    return loss


def cut(case, query, items, *, cuda: bool, impl: str):
    """It takes no bias that learns nothing: log p is one more column of the items, against a 1."""
    function = needed("cut_cross_entropy").linear_cross_entropy
    if not cuda:
        raise Skip("no CUDA device: this form of cut-cross-entropy is a Triton kernel")
    pad = torch.nn.functional.pad
    # A row of 8 more numbers, so that it stays a whole number of 16-byte loads.
    queries = pad(torch.cat([query, query.new_ones(len(query), 1)], 1), (0, 7))
    table = pad(torch.cat([items, case.log_prior.to(items.dtype)[:, None]], 1), (0, 7))
    loss = function(queries, table, case.pos_id, reduction="none", impl=impl)
    loss.float().sum().backward()
    return loss


FULL = {
    "fastpop": lambda case, query, items, *, cuda: our_full(
        case, query, items, impl="triton" if cuda else "cpu"
    ),
    "torch eager": lambda case, query, items, *, cuda: full_eager(case, query, items),
    "Liger": liger,
    "CCE, exact": partial(cut, impl="cce_exact"),
    "CCE, filtered": partial(cut, impl="cce"),
}


def full(context: Context, shape: Softmax, name: str, function: Callable) -> None:
    case = full_case(shape)
    query, table = case.query.detach().requires_grad_(), case.items.detach().requires_grad_()

    def step():
        query.grad = table.grad = None
        return function(case, query, table, cuda=context.cuda)

    loss = step().detach()
    facts = {}
    try:
        facts["error"] = check(loss, query, table, case)
    except AssertionError as error:
        if name.startswith("fastpop"):
            raise
        facts["wrong"] = str(error)  # a peer's time is shown all the same, with what is wrong
    context.time(figures.full(shape, name), step, **facts)
