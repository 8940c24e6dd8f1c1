"""What a process of test_vocab_parallel.py does: the ops on parts against the ops on whole tables."""

import sys

import helpers_shared_losses
import pytest
import torch
import torch.distributed as dist
from helpers_ranks import join

from fastpop import ops
from fastpop.ops import collectives
from fastpop.ops.row_shard import RowShard, even_rows
from fastpop.popularity import power

V, D, B = 23, 5, 12
# Of one, two and three processes: a part without rows among them, in any order of ranks.
CUTS = {1: [(0, 23)], 2: [(16, 23), (0, 16)], 3: [(0, 9), (9, 9), (9, 23)]}


def problem(dtype, seed=0):
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)

    def ids(*shape):
        return torch.randint(0, V, shape, generator=generator)

    counts = torch.rand(V, generator=generator, dtype=torch.float64) + 0.05
    log_q = (counts / counts.sum()).log().to(dtype)
    pos_id = ids(B)
    pos_id[3] = -100
    removed = normal(V)
    removed[[2, 7]] = -torch.inf
    pos_id[5], pos_id[6] = 7, 22  # one that is removed
    many = ids(B, 3)
    many[2, 1:] = -100
    many[4] = -100
    return {
        "query": normal(B, D),
        "items": normal(V, D),
        "pos_id": pos_id,
        "many": many,
        "log_prior": normal(V),
        "removed": removed,
        "log_q": log_q,
        "neg_K": ids(17),
        "neg_GK": ids(4, 9),
        "neg_BK": ids(B, 6),
        "row_weight": torch.rand(B, generator=generator, dtype=torch.float64).to(dtype),
        "prior_weight": torch.tensor(0.7, dtype=dtype),
        "scale": torch.tensor(1.3, dtype=dtype),
        "diagonal": ids(B),
    }


def full_cases(p):
    yield "plain", {}
    yield "prior", {"log_prior": p["log_prior"], "prior_weight": 0.6}
    yield "removed", {"log_prior": p["removed"], "prior_weight": p["prior_weight"], "scale": p["scale"]}
    yield "ignored prior", {"log_prior": p["removed"], "prior_weight": torch.zeros_like(p["scale"])}
    yield "padding", {"padding_idx": 22, "row_weight": p["row_weight"], "reduction": "mean"}
    yield "padding prior", {"padding_idx": 0, "log_prior": p["log_prior"], "reduction": "sum"}
    yield "many", {"pos_id": p["many"], "reduction": "mean", "log_prior": p["log_prior"]}
    yield "smoothed", {"label_smoothing": 0.1, "log_prior": p["removed"], "scale": p["scale"]}
    yield "smoothed plain", {"label_smoothing": 0.2, "reduction": "mean"}


def sampled_cases(p):
    law = power(p["log_q"].double().exp().numpy(), 1.0)
    standard = {"log_proposal": p["log_q"]}
    yield "shared", {"neg_id": p["neg_K"], **standard}
    yield "drop", {"neg_id": p["neg_K"], "accidental_hits": "drop", **standard}
    yield "corrected", {"neg_id": p["neg_K"], "logq": "corrected", "reduction": "mean", **standard}
    yield "corrected groups", {"neg_id": p["neg_GK"], "group_size": 3, "logq": "corrected", **standard}
    yield "rows", {"neg_id": p["neg_BK"], "log_prior": p["log_prior"], "scale": p["scale"], **standard}
    yield (
        "removed",
        {"neg_id": p["neg_K"], "log_prior": p["removed"], "prior_weight": p["prior_weight"], **standard},
    )
    yield (
        "ignored prior",
        {
            "neg_id": p["neg_K"],
            "log_prior": p["removed"],
            "prior_weight": torch.zeros_like(p["scale"]),
            "logq": "none",
        },
    )
    yield "padding", {"neg_id": p["neg_K"], "padding_idx": 7, "reduction": "sum", **standard}
    yield "many", {"neg_id": p["neg_K"], "pos_id": p["many"], "row_weight": p["row_weight"], **standard}
    yield "draw", {"neg_id": ops.Draw(law, 3, 5, 20), "log_prior": p["log_prior"]}
    yield "draw groups", {"neg_id": ops.Draw(law, 3, 6, 7, 5), "reduction": "mean"}
    diagonal = torch.cat([p["diagonal"], p["neg_K"]])
    yield (
        "diagonal",
        {
            "pos_id": p["diagonal"],
            "neg_id": diagonal,
            "exclude_diagonal": True,
            "logq": "corrected",
            **standard,
        },
    )


LEARNED = ("query", "items", "log_prior", "prior_weight", "scale")


def outcome(call, given, *, upstream=None):
    """(losses, lse, gradients by name) of one call; z-loss, so that lse has a gradient, too."""
    given = dict(given)
    leaves = {}
    for name in LEARNED:
        if isinstance(given.get(name), torch.Tensor):
            given[name] = leaves[name] = given[name].detach().clone().requires_grad_()
    loss, lse = call(**given, return_lse=True)
    finite = torch.where(torch.isfinite(loss), loss, 0)
    (finite.sum() + 1e-2 * torch.where(torch.isfinite(lse), lse, 0).square().sum()).backward()
    grads = {name: leaf.grad for name, leaf in leaves.items() if leaf.grad is not None}
    return loss.detach(), lse.detach(), grads


def close(found, expected, dtype, what):
    """To 1e-6 in float32. A gradient of many terms to as many roundings of the largest."""
    largest = expected.abs().nan_to_num(posinf=0, neginf=0).max().item() if expected.numel() else 0.0
    eps = torch.finfo(dtype).eps
    tolerance = {"rtol": 8 * eps, "atol": (V if "gradient" in what else 4) * eps * max(largest, 1.0)}
    torch.testing.assert_close(found, expected, **tolerance, msg=lambda text: f"{what}: {text}")


def dense(grad):
    return grad.to_dense() if grad.is_sparse else grad


def check_same(op, cases, dtype, shard, rows, whole_vectors):
    """All processes bring the same queries."""
    p = problem(dtype)
    for name, options in cases(p):
        given = {"query": p["query"], "items": p["items"], "pos_id": p["pos_id"]} | options
        loss, lse, grads = outcome(op, given)
        part = dict(given)
        part["items"] = given["items"][rows]
        for vector in ("log_prior", "log_proposal"):
            if vector in part and not whole_vectors:
                part[vector] = part[vector][rows]
        sparse = {"sparse_grad": True} if op is ops.sampled_softmax and not whole_vectors else {}
        found, lse_found, own = outcome(op, part | {"shard": shard} | sparse)
        what = f"{op.__name__} {name} {dtype}"
        close(found, loss, dtype, what)
        close(lse_found, lse, dtype, what)
        assert own.keys() == grads.keys(), what
        for leaf, grad in own.items():
            grad, expected = dense(grad), grads[leaf]
            if leaf == "items" or (leaf == "log_prior" and not whole_vectors):
                expected = expected[rows]
            elif leaf == "log_prior":
                grad, expected = grad[rows], expected[rows]
            close(grad, expected, dtype, f"{what} gradient of {leaf}")


def check_each(op, cases, dtype, world, rank, rows, first, gradients):
    """Processes bring rows of their own, of different numbers; the whole is one process with all of them."""
    p = problem(dtype)
    mine = (
        [slice(0, B), slice(0, 5), slice(5, B)]
        if world == 3
        else [slice(*even_rows(B, world, r)) for r in range(world)]
    )
    if world == 3:
        mine = [slice(0, 7), slice(7, 7), slice(7, B)]  # one without rows
    own = mine[rank]
    shard = RowShard(first, V, queries="each", gradients=gradients)
    for name, options in cases(p):
        draw = options.get("neg_id")
        if isinstance(draw, torch.Tensor) and (draw.ndim > 1 or "exclude_diagonal" in options):
            continue
        options = {key: value for key, value in options.items() if key != "reduction"}
        given = {"query": p["query"], "items": p["items"], "pos_id": p["pos_id"]} | options
        loss, lse, grads = outcome(op, given)
        part = dict(given) | {
            "items": given["items"][rows],
            "query": given["query"][own],
            "pos_id": given["pos_id"][own],
        }
        if "row_weight" in part:
            part["row_weight"] = part["row_weight"][own]
        found, lse_found, got = outcome(op, part | {"shard": shard})
        what = f"{op.__name__} {name} each {dtype}"
        close(found, loss[own], dtype, what)
        close(lse_found, lse[own], dtype, what)
        share = 1 / world if gradients == "mean" else 1.0
        close(got["query"], grads["query"][own], dtype, f"{what} gradient of query")
        close(got["items"], share * grads["items"][rows], dtype, f"{what} gradient of items")
        if "log_prior" in got:
            close(
                got["log_prior"][rows], share * grads["log_prior"][rows], dtype, f"{what} gradient of log p"
            )
        for leaf in ("scale", "prior_weight"):  # parts of them, to be summed with the encoder's
            if leaf in grads:
                close(collectives.total(got[leaf], None), grads[leaf], dtype, f"{what} gradient of {leaf}")


def check_half(rank, world, rows, first):
    """Half queries and tables travel as they are, and what is summed is summed in float32."""
    p = problem(torch.float32)
    query, items = (p[name].bfloat16() for name in ("query", "items"))
    for queries in ("same", "each"):
        own = slice(None) if queries == "same" else slice(*even_rows(B, world, rank))
        one, part = query[own].clone().requires_grad_(), items[rows].clone().requires_grad_()
        shard = RowShard(first, V, queries=queries)
        ops.full_softmax(one, part, p["pos_id"][own], shard=shard).sum().backward()
        whole, table = query.clone().requires_grad_(), items.clone().requires_grad_()
        ops.full_softmax(whole, table, p["pos_id"]).sum().backward()
        for found, expected in ((one.grad, whole.grad[own]), (part.grad, table.grad[rows])):
            torch.testing.assert_close(found, expected, rtol=2e-2, atol=2e-2)


def check_bytes(world, shard, rows):
    """What a step sends is what docs/distributed.md says."""
    p = problem(torch.float32)
    query = p["query"].clone().requires_grad_()
    items = p["items"][rows].clone().requires_grad_()
    ring = (world - 1) / world
    with collectives.counted() as traffic:
        loss = ops.full_softmax(query, items, p["pos_id"], shard=shard, reduction="sum")
    assert traffic.calls == {"max": 1, "sum": 1}
    assert traffic.sent == round(2 * ring * 4 * B) + round(2 * ring * 8 * B)
    with collectives.counted() as traffic:
        loss.backward()
    assert traffic.calls == {"sum": 1}
    assert traffic.sent == round(2 * ring * 4 * B * D)


def refused(kind, message, call):
    with pytest.raises(kind) as caught:
        call()
    assert message in str(caught.value), caught.value


def check_refusals(world, rank, first, rows, shard):
    p = problem(torch.float32)
    items, query, pos_id = p["items"][rows], p["query"], p["pos_id"]
    refused(
        ValueError,
        "shard: expected parts that cover one catalogue once",
        lambda: ops.full_softmax(query, items, pos_id, shard=RowShard(first, V + 1)),
    )
    refused(
        TypeError,
        "shard: expected a fastpop.ops.RowShard or None",
        lambda: ops.full_softmax(query, items, pos_id, shard=first),
    )
    refused(
        ValueError,
        f"log_prior: expected [{len(items)}], of this process's rows, or [{V}], of all",
        lambda: ops.full_softmax(query, items, pos_id, shard=shard, log_prior=torch.zeros(V + 3)),
    )
    refused(
        ValueError,
        "neg_id: expected shared negatives [K] or a Draw",
        lambda: ops.sampled_softmax(
            query, items, pos_id, p["neg_BK"], logq="none", shard=RowShard(first, V, queries="each")
        ),
    )
    if len(items):
        refused(
            ValueError,
            "items: expected at most 1 rows from 22 on" if len(items) > 1 else "",
            lambda: ops.full_softmax(query, items, pos_id, shard=RowShard(V - 1, V)),
        )
    bad = torch.full((V,), -torch.inf)
    if len(items):  # the item is named by its place in the catalogue
        refused(
            ValueError,
            f"got -inf for item {first}",
            lambda: ops.sampled_softmax(
                query,
                items,
                torch.full_like(pos_id, -100),
                torch.tensor([first]),
                log_proposal=bad,
                shard=shard,
            ),
        )


def main():
    rank, world = join(sys.argv)
    first, last = CUTS[world][rank]
    rows, shard = slice(first, last), RowShard(first, V)
    for dtype in (torch.float64, torch.float32):
        for whole_vectors in (True, False):
            check_same(ops.full_softmax, full_cases, dtype, shard, rows, whole_vectors)
            check_same(ops.sampled_softmax, sampled_cases, dtype, shard, rows, whole_vectors)
        for gradients in ("sum", "mean") if dtype == torch.float64 else ("mean",):
            check_each(ops.full_softmax, full_cases, dtype, world, rank, rows, first, gradients)
            check_each(ops.sampled_softmax, sampled_cases, dtype, world, rank, rows, first, gradients)
    check_half(rank, world, rows, first)
    check_bytes(world, shard, rows)
    helpers_shared_losses.check(world, rank, first, rows)
    if world > 1:
        check_refusals(world, rank, first, rows, shard)
    dist.destroy_process_group()
    print("fine")


if __name__ == "__main__":
    main()
