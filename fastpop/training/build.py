"""From a configuration to the parts of a run: model, loss, batches, optimisers."""

import numpy as np
import torch

from fastpop import checks, optim
from fastpop.data import columns
from fastpop.data.batches import EventBatches, SequenceBatches, check_order
from fastpop.data.cases import Cases
from fastpop.data.interactions import Interactions
from fastpop.decoder import Decoder
from fastpop.encoders import ENCODERS, make_encoder
from fastpop.model import Recommender
from fastpop.objectives import FullSoftmaxLoss, SampledSoftmaxLoss
from fastpop.popularity import PopularityPrior, proposal_from_name, uniform
from fastpop.training.config import TrainConfig


def target_counts(log: Interactions, encoder: str) -> np.ndarray:
    """[V] float64: the events of each item that an epoch on this log predicts, by weight.

    Encoders of the user alone predict every event; sequence encoders all but each user's first. It is
    the marginal that a model of this encoder learns, so log p, the direction of an audit and the
    weights of its contexts are all of these events.
    Raises: ValueError for a sequence encoder on a log without an order.
    """
    checks.one_of("encoder", encoder, ENCODERS)
    if ENCODERS[encoder].reads == "events":
        return log.item_counts()
    check_order(log)
    return log.item_counts(first_events=False)


def target_prior(
    log: Interactions, encoder: str, smoothing: str | float = "loo", min_count: float = 0
) -> PopularityPrior:
    """log p of `target_counts(log, encoder)`: what a run on this log trains beside and is audited along.

    smoothing, min_count: as in PopularityPrior.from_interactions, which leaves weighted events out by
    their weights.
    """
    checks.one_of("encoder", encoder, ENCODERS)
    reads = ENCODERS[encoder].reads
    if reads == "sequences":
        check_order(log)
    return PopularityPrior.from_interactions(log, smoothing, min_count, first_events=reads == "events")


def bounded(config: TrainConfig, log: Interactions, cases: Cases | None = None) -> TrainConfig:
    """The configuration with max_length no longer than any history there is to read, which is what
    tables of positions are made for."""
    longest = [int(np.diff(log.offsets).max(initial=1))]
    if cases is not None:
        longest.append(int(np.diff(cases.history_offsets).max(initial=1)))
    return config.replace(max_length=min(config.max_length, max(longest)))


def build_model(config: TrainConfig, log: Interactions, log_prior_V: np.ndarray) -> Recommender:
    """A freshly initialised model: a function of config.seed, the arm changes no initial value."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        decoder = Decoder(
            log_prior_V, config.dim, prior=config.prior,  # type: ignore[arg-type]
            prior_weight=config.prior_weight,
            temperature=config.temperature, learn_temperature=config.learn_temperature,
            bias_start=config.bias_start,
        )
        encoder = make_encoder(
            config.encoder, num_users=log.num_users, num_items=log.num_items, dim=config.dim,
            max_length=config.max_length, num_layers=config.num_layers, num_heads=config.num_heads,
            dropout=config.dropout, sparse=config.sparse, base=config.base,
        )
    return Recommender(encoder, decoder, max_length=config.max_length)


def build_loss(config: TrainConfig, batches: EventBatches | SequenceBatches) -> torch.nn.Module:
    """The loss of the configuration; its draws come from the events trained on and config.seed.

    Laws count events, whatever their weights: a batch holds each event once an epoch.
    """
    if config.loss == "full_softmax":
        return FullSoftmaxLoss(label_smoothing=config.label_smoothing, reduction="sum")
    log = batches.log
    counts_V = columns.bincount(log.item, log.num_items).astype(np.float64)
    if config.proposal == "in_batch":
        counts_V = batches.target_counts()
    proposal = proposal_from_name(config.proposal, counts_V, alpha=config.proposal_power)
    extra = uniform(len(counts_V)) if config.extra_negatives else None
    return SampledSoftmaxLoss(
        None, proposal, num_negatives=config.extra_negatives or config.num_negatives, extra=extra,
        logq=config.logq, hits=config.hits or None, group_size=config.group_size or None,
        seed=config.seed, sparse_grad=config.sparse, reduction="sum",
    )


def build_batches(
    config: TrainConfig, log: Interactions, reads: str
) -> EventBatches | SequenceBatches:
    if reads == "events":
        return EventBatches(log, config.batch_size, config.seed)
    return SequenceBatches(log, config.max_length, config.batch_size, config.seed)


def build_optimizers(config: TrainConfig, model: Recommender) -> list[torch.optim.Optimizer]:
    """[tables, the rest], without the empty ones."""
    embeddings = [model.decoder.item_embedding, *model.encoder.tables()]
    bias = [] if model.decoder.item_bias is None else [model.decoder.item_bias]
    is_table = {id(param) for param in (*embeddings, *bias)}
    others = [param for param in model.parameters() if id(param) not in is_table]
    lr = config.table_learning_rate or config.learning_rate
    tables: list[dict] = [{"params": embeddings + bias}]
    if bias and config.bias_learning_rate:
        tables = [{"params": embeddings}, {"params": bias, "lr": config.bias_learning_rate}]
    inside = config.update_in_backward
    kinds = {
        "adam": lambda: torch.optim.Adam(tables, lr=lr),
        "row_adam": lambda: optim.RowAdam(tables, lr=lr, update_in_backward=inside),
        "row_adagrad": lambda: optim.RowAdagrad(tables, lr=lr, update_in_backward=inside),
        "row_sgd": lambda: optim.RowSGD(tables, lr=lr, update_in_backward=inside),
    }
    optimizers = [kinds[config.resolved_table_optimizer]()]
    if others:
        optimizers.append(torch.optim.AdamW(others, lr=config.learning_rate,
                                            weight_decay=config.weight_decay))
    return optimizers
