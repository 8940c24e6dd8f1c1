"""What a process of test_ddp.py does: python helpers_ddp.py RANK WORLD STORE. Ends with "fine"."""

import sys
import warnings

import numpy as np
import torch
import torch.distributed as dist
from helpers_ranks import join
from torch.nn.parallel import DistributedDataParallel

from fastpop import optim
from fastpop.nn import FullSoftmaxLoss, SampledSoftmaxLoss

COUNTS = np.array([5, 1, 8, 2, 4, 3, 9])
ROWS = 3  # a process and step


class Towers(torch.nn.Module):
    """Two towers with the loss in forward, as DDP wants it."""

    def __init__(self, head: torch.nn.Module, sparse: bool):
        super().__init__()
        generator = torch.Generator().manual_seed(3)
        self.items = torch.nn.Embedding(len(COUNTS), 4, sparse=sparse)
        self.encoder = torch.nn.Linear(4, 4)
        for one in self.parameters():
            torch.nn.init.normal_(one, generator=generator)
        self.head = head

    def forward(self, history: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return self.head(self.encoder(self.items(history).mean(1)), self.items.weight, target)

    def optimizers(self) -> list[torch.optim.Optimizer]:
        rows = optim.RowAdam([self.items.weight], lr=0.1)
        return [rows, torch.optim.AdamW(self.encoder.parameters(), lr=0.1)]


def batches(world: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Four steps: ids of histories [W, B, L] and of targets [W, B]."""
    generator = torch.Generator().manual_seed(1)
    shapes = (world, ROWS, 2), (world, ROWS)
    return [
        tuple(torch.randint(len(COUNTS), shape, generator=generator) for shape in shapes) for _ in range(4)
    ]


def step(model: torch.nn.Module, optimizers: list, *given: torch.Tensor) -> torch.Tensor:
    """Returns the norm of the gradients before they are clipped."""
    model(*given).backward()
    norm = optim.clip_grad_norm_(model.parameters(), 0.5)
    for optimizer in optimizers:
        optimizer.step()
        optimizer.zero_grad()
    return norm


def check_steps(rank: int, world: int, sparse: bool) -> None:
    """The steps of one process with all the rows, row-wise and clipped; sparse: drawn alike."""

    def made() -> Towers:
        if not sparse:
            return Towers(FullSoftmaxLoss.from_counts(COUNTS), sparse)
        drawn = {"num_negatives": 6, "rank": 0, "sparse_grad": True}
        return Towers(SampledSoftmaxLoss.from_counts(COUNTS, **drawn), sparse)

    inner, plain = made(), made()
    model, ours, whole = DistributedDataParallel(inner), inner.optimizers(), plain.optimizers()
    for history, target in batches(world):
        norm = step(model, ours, history[rank], target[rank])
        torch.testing.assert_close(norm, step(plain, whole, history.flatten(0, 1), target.flatten()))
    for one, other in zip(inner.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(inner.head.served_bias(), plain.head.served_bias())


def check_sampled(rank: int, world: int) -> None:
    """Each process draws negatives of its own, and all have the same weights, bit for bit."""
    head = SampledSoftmaxLoss.from_counts(COUNTS, num_negatives=3, sparse_grad=True)
    inner = Towers(head, sparse=True)
    model, optimizers = DistributedDataParallel(inner), inner.optimizers()
    history, target = batches(world)[0]
    with torch.no_grad():
        alike = model(history[0], target[0])  # the same rows everywhere
    every = [torch.empty(()) for _ in range(world)]
    dist.all_gather(every, alike)
    assert len({float(one) for one in every}) == world, every
    for history, target in batches(world):
        step(model, optimizers, history[rank], target[rank])
    for one in inner.parameters():
        parts = [torch.empty_like(one) for _ in range(world)]
        dist.all_gather(parts, one.detach())
        assert all(torch.equal(part, parts[0]) for part in parts)


def main() -> None:
    warnings.simplefilter("ignore")
    rank, world = join(sys.argv)
    for sparse in (False, True):
        check_steps(rank, world, sparse)
    check_sampled(rank, world)
    dist.destroy_process_group()
    print("fine")


if __name__ == "__main__":
    main()
