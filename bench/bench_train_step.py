"""One training step of a factor model as fastpop.train makes it, beside the same step in plain torch."""

from functools import lru_cache

import numpy as np
import pytest
import torch
from measuring import DEVICE, judged
from shapes import TRAIN_STEP, Softmax
from torch.nn.functional import dropout, embedding

from fastpop.data.interactions import Interactions
from fastpop.training import TrainConfig, build
from fastpop.training.loop import stepping

STEPS = 64  # batches made; a longer measurement starts over


@lru_cache(maxsize=1)
def log_of(shape: Softmax) -> Interactions:
    """Random events whose items follow a Zipf proposal."""
    rng = np.random.default_rng(0)
    num_events = shape.rows * STEPS
    item = (rng.zipf(1.3, num_events) - 1) % shape.items
    num_users = max(num_events // 20, 1)
    return Interactions.from_arrays(
        rng.integers(0, num_users, num_events),
        item,
        user_ids=np.arange(num_users),
        item_ids=np.arange(shape.items),
    )


class Ours:
    """The trainer's own step: log p frozen, log Q, sparse rows, row-wise Adam."""

    def __init__(self, shape: Softmax, **options):
        log = log_of(shape)
        self.config = TrainConfig(
            **options,
            encoder="factor",
            dim=shape.dim,
            num_negatives=shape.negatives,
            batch_size=shape.rows,
            device=str(DEVICE),
        )
        counts = log.item_counts()
        log_prior_V = np.log((counts + 1) / (counts.sum() + shape.items))
        self.parts = build.assemble(self.config, log, log, log_prior_V)
        self.loss = self.parts.loss
        self.batches = list(self.parts.epoch(0))
        self.step_number = 0
        self.make = stepping(self.parts)

    def step(self) -> float:
        """The loss; of a device a tensor that was not waited for."""
        batch = self.batches[self.step_number % len(self.batches)]
        loss, _ = self.make(self.parts, batch, self.step_number)
        self.step_number += 1
        return loss


class Plain:
    """The same model, loss and sparse gradients in plain torch, with torch's optimiser for them."""

    def __init__(self, shape: Softmax):
        self.ours = Ours(shape)
        self.batches = list(self.ours.parts.batches.epoch(0))
        generator = torch.Generator().manual_seed(0)
        config = self.ours.config
        log = log_of(shape)
        self.users, self.items = (
            (0.05 * torch.randn(n, shape.dim, generator=generator)).to(DEVICE).requires_grad_()
            for n in (log.num_users, shape.items)
        )
        self.base = torch.zeros(shape.dim, device=DEVICE, requires_grad=True)
        proposal = self.ours.loss.proposal
        counts = log.item_counts()
        log_prior_V = np.log((counts + 1) / (counts.sum() + shape.items))
        self.bias = torch.from_numpy(log_prior_V - proposal.log_proposal_V).float().to(DEVICE)
        self.sampler = proposal
        self.dropout = config.dropout
        self.num_negatives = shape.negatives
        self.optimizers = [
            torch.optim.SparseAdam([self.users, self.items], lr=config.learning_rate),
            torch.optim.AdamW([self.base], lr=config.learning_rate),
        ]

    def step(self) -> float:
        batch = self.batches[self.ours.step_number % len(self.batches)]
        self.ours.step_number += 1
        user, pos_id = (torch.from_numpy(np.asarray(one)).to(DEVICE) for one in (batch.user, batch.target))
        pos_id = pos_id.reshape(-1)
        neg_id = torch.from_numpy(self.sampler.sample(0, self.ours.step_number, self.num_negatives))
        neg_id = neg_id.to(DEVICE)
        for optimizer in self.optimizers:
            optimizer.zero_grad()
        query = dropout(self.base + embedding(user, self.users, sparse=True), self.dropout)
        pos = (query * embedding(pos_id, self.items, sparse=True)).sum(1) + self.bias[pos_id]
        neg = query @ embedding(neg_id, self.items, sparse=True).T + self.bias[neg_id]
        loss = (torch.logsumexp(torch.cat([pos[:, None], neg], 1), 1) - pos).mean()
        loss.backward()
        for optimizer in self.optimizers:
            optimizer.step()
        return loss.item()


CONTENDERS = {"fastpop.train": Ours, "torch, sparse embeddings and SparseAdam": Plain}


@pytest.mark.parametrize("contender", CONTENDERS)
@pytest.mark.parametrize("shape", TRAIN_STEP, ids=str)
def test_train_step(shape, contender, measure):
    run = CONTENDERS[contender](shape)
    with judged(contender):
        # Scores start near zero: the loss is near that of the prior, log Q being the candidates' proposal.
        first = run.step()
        assert 0 < first < 20, first
    measure(
        contender,
        shape,
        run.step,
        examples_per_step=shape.rows,
        work=6 * shape.rows * shape.negatives * shape.dim,
        ceiling="gemm_float32",
    )
