"""What a process of test_shared_ranking.py does: lists, ranks, energies, rows of parts against the whole."""

import sys

import numpy as np
import torch
import torch.distributed as dist
from helpers_ranks import join

from fastpop import evaluation, ops
from fastpop.data.cases import Cases
from fastpop.evaluation import DotScores
from fastpop.ops import collectives
from fastpop.ops.row_shard import RowShard
from fastpop.ops.score_energy import GramStream

V, D, B = 203, 7, 40
# In any order of ranks, and a part without rows.
CUTS = {2: [(90, 203), (0, 90)], 3: [(90, 203), (50, 50), (0, 90)]}


def lists(rng, most):
    rows = [rng.integers(0, V, rng.integers(0, most + 1)) for _ in range(B)]
    offsets = np.concatenate([[0], np.cumsum([len(row) for row in rows])])
    return offsets, np.concatenate(rows).astype(np.int64)


def problem(dtype, whole_numbers):
    generator = torch.Generator().manual_seed(1)
    draw = torch.randn if not whole_numbers else lambda *s, **k: torch.randint(-2, 3, s, **k).double()
    query = draw(B, D, generator=generator).to(dtype)
    items = draw(V, D, generator=generator).to(dtype)
    bias = draw(V, generator=generator).to(dtype)
    bias[[3, 150]] = -torch.inf
    items[3] = torch.nan  # of a removed row, which may hold anything
    items[77] = items[11]  # the same row in two parts
    bias[77] = bias[11]
    return query, items, bias


def check_ranking(shard, rows):
    rng = np.random.default_rng(0)
    exclude, targets = lists(rng, 30), lists(rng, 3)
    exclude[1][:3] = exclude[1][0]  # repeats
    left_out = {"exclude_offsets": exclude[0], "exclude_item": exclude[1]}
    for dtype in (torch.float32, torch.bfloat16, torch.float64):
        for whole_numbers in (True, False):
            if dtype == torch.float64 and not whole_numbers:
                continue  # the reference's products, whose last bits depend on their shape
            query, items, bias = problem(dtype, whole_numbers)
            for options in ({"bias": bias}, {"bias": bias, **left_out, "scale": 0.5, "padding_idx": 9}):
                for k in (5, 220):
                    ids, score = ops.top_items(query, items, k, **options)
                    for part_bias in (bias, bias[rows]):
                        found = ops.top_items(
                            query, items[rows], k, **options | {"bias": part_bias}, shard=shard
                        )
                        assert torch.equal(found[0], ids), (dtype, k)
                        assert torch.equal(found[1], score), (dtype, k)
                wanted = [targets[0], np.where(targets[1] == 9, 10, targets[1])]
                expected = ops.target_ranks(query, items, *wanted, **options)
                found = ops.target_ranks(query, items[rows], *wanted, **options, shard=shard)
                for name in ("greater", "equal", "score"):
                    assert torch.equal(getattr(found, name), getattr(expected, name)), (dtype, name)
                torch.testing.assert_close(found.lse, expected.lse, rtol=1e-6, atol=1e-6)


def check_evaluation(shard, rows):
    """The metrics are the numbers of one process: ranks are the same, NLL to its rounding."""
    rng = np.random.default_rng(2)
    histories = [rng.integers(0, V, rng.integers(0, 9)) for _ in range(B)]
    cases = Cases.of(histories, [rng.choice(V, 2, replace=False) for _ in range(B)], V)
    query, items, bias = problem(torch.float32, False)
    items[3], bias[[3, 150]] = 1, 0
    counts = rng.integers(0, 50, V)
    whole = evaluation.evaluate(DotScores(query, items, bias), cases, counts=counts)
    found = evaluation.evaluate(DotScores(query, items[rows], bias, shard=shard), cases, counts=counts)
    for name, value in whole.metrics.items():
        if name in ("nll", "perplexity"):
            np.testing.assert_allclose(found.metrics[name], value, rtol=1e-6)
        else:
            assert found.metrics[name] == value, name


def check_energies(shard, rows):
    rng = np.random.default_rng(3)
    query, items, bias = rng.normal(size=(500, D)), rng.normal(size=(V, D)), rng.normal(size=V)
    log_prior = np.log(rng.integers(1, 90, V) / 1000)
    rank, world = dist.get_rank(), dist.get_world_size()
    along = (
        np.outer(log_prior - log_prior.mean(), rng.normal(size=D)) + 1e-9 * items
    )  # nearly all along log p
    for table in (items, along):
        for options in ({}, {"centring": "prior", "scale": 0.7}):
            if options:
                log_prior = log_prior - np.log(np.exp(log_prior).sum())
            expected = ops.score_energy(
                query, table, log_prior, bias=bias if not options else None, **options
            )
            for own, part_bias in ((query, bias[rows]), (query[rank::world], bias)):
                part_bias = None if options else part_bias
                found = ops.score_energy(own, table[rows], log_prior, bias=part_bias, shard=shard, **options)
                for name, value in vars(expected).items():
                    # Of `along` what is off log p is 1e-18 of the total: differences of rounded numbers.
                    rtol = 1e-6 if table is along and name == "off_direction" else 1e-9
                    np.testing.assert_allclose(getattr(found, name), value, rtol=rtol, err_msg=name)
    whole = GramStream(D).add(query)
    merged = GramStream(D).add(query[rank::world]).merge_over()
    assert merged.num_contexts == 500
    np.testing.assert_allclose(merged.covariance, whole.covariance, rtol=1e-12, atol=1e-13)


def check_rows(shard, rows):
    rank, world = dist.get_rank(), dist.get_world_size()
    items = torch.randn(V, D, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    generator = torch.Generator().manual_seed(rank)
    ids = torch.randint(V, (3, 5 * rank), generator=generator)  # another number on each; none on the first
    weight = torch.randn(3, 5 * rank, D, generator=generator, dtype=torch.float64)
    for sparse in (True, False):
        part = items[rows].clone().requires_grad_()
        with collectives.counted() as traffic:
            found = ops.shared_rows(part, ids, shard=shard, sparse_grad=sparse)
            (found * weight).sum().backward()
        assert torch.equal(found, items[ids])
        # docs/distributed.md: how many each has for each, ids of others, their rows, and gradients back.
        elsewhere = (~shard.holds(ids.unique(), len(part))).sum()
        sent, wanted = collectives.total(torch.tensor([traffic.sent, elsewhere]), None).tolist()
        assert sent == 8 * world * (world - 1) + wanted * (8 + 8 * D + 8 * D)
        assert part.grad.is_sparse == sparse
        every = [None] * dist.get_world_size()
        dist.all_gather_object(every, (ids, weight))
        expected = torch.zeros_like(items)
        for one, weights in every:
            expected.index_put_((one.reshape(-1),), weights.reshape(-1, D), accumulate=True)
        torch.testing.assert_close(part.grad.to_dense(), expected[rows])
        column = items[rows, 0].clone().requires_grad_()
        one = ops.shared_rows(column, ids, shard=shard, sparse_grad=sparse)
        (one * weight[..., 0]).sum().backward()
        assert torch.equal(one, items[ids, 0])
        assert column.grad.is_sparse == sparse
        torch.testing.assert_close(column.grad.to_dense(), expected[rows, 0])


def check_rows_of_all(rank, world):
    """Every process has the rows of all, of any numbers, and the sums of the gradients of its own; the first
    alone is given them piece by piece."""
    sizes = [3, 0, 2][:world]
    every = torch.randn(sum(sizes), D, generator=torch.Generator().manual_seed(1))
    weights = [torch.randn(len(every), D, generator=torch.Generator().manual_seed(r)) for r in range(world)]
    place = sum(sizes[:rank]), sum(sizes)
    own = every[place[0] : place[0] + sizes[rank]].clone().requires_grad_()
    shard = ops.RowShard.even(5, queries="each")
    assert shard.place_among(sizes[rank]) == place
    found = ops.all_rows(own, shard=shard)
    assert torch.equal(found, every)
    (found * weights[rank]).sum().backward()
    torch.testing.assert_close(own.grad, sum(weights)[place[0] : place[0] + sizes[rank]])
    assert torch.equal(ops.all_rows(own.detach(), shard=shard), every)
    before, collectives.PIECE = collectives.PIECE, 2 * 4 * D  # two rows
    with collectives.counted() as traffic:
        pieces = list(collectives.at_first(own.detach(), sizes, None))
        whole = collectives.everywhere(own.detach(), sizes, None)
    collectives.PIECE = before
    assert torch.equal(whole, every)
    assert traffic.bytes["to first"] == (4 * D * sizes[rank] if rank else 0)
    assert [len(piece) for piece in pieces] == ([] if rank else [2, 1, 2][: len(sizes)])
    assert rank or torch.equal(torch.cat(pieces), every)


def main():
    rank, world = join(sys.argv)
    first, last = CUTS[world][rank]
    rows, shard = slice(first, last), RowShard(first, V)
    check_ranking(shard, rows)
    check_evaluation(shard, rows)
    check_energies(shard, rows)
    check_rows(shard, rows)
    check_rows_of_all(rank, world)
    dist.destroy_process_group()
    print("fine")


if __name__ == "__main__":
    main()
