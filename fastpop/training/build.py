"""From a configuration to the parts of a run, put together: `assemble`."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from fastpop import checks, optim, registry
from fastpop.data import columns
from fastpop.data.batches import Batch
from fastpop.data.cases import Cases
from fastpop.data.interactions import Interactions
from fastpop.data.rows import Batches
from fastpop.decoder import Decoder
from fastpop.encoders import Encoder, EncoderOptions, Sizes
from fastpop.item_towers import ItemSizes, ItemTower
from fastpop.model import Recommender
from fastpop.objectives import LossInputs, Objective
from fastpop.popularity import PopularityPrior, TemporalPrior
from fastpop.regularizers import RegularizerInputs, RegularizerOptions
from fastpop.training import ranks as processes
from fastpop.training.config import TrainConfig
from fastpop.training.late import Stop, stop_of
from fastpop.training.ranks import Ranks
from fastpop.training.resident import Resident, ResidentBatch, made_of


@dataclass(frozen=True, eq=False)
class Assembly:
    """Everything that takes a training step, on one device, freshly initialised.

    config: bounded by the log. loss, regularizers: modules without parameters of their own; regularizers
    with their options, those of weight 0 left out. draws: whether the loss is told the number of the step,
    for its draws. optimizers: of the tables, and of the rest where there is any. adapt: what a loss that
    adapts does after each step. temporal: log p of each period, of a prior by period; period_log_prior_TV:
    the same [T, V] as the loss takes it. stop: what keeps the optimisers from a step past a loss that is not
    finite, on a device that is not waited for; None: the loss is waited for. ranks: the processes that make
    the run; None: this one. resident: the rows on the device, where they are kept there.
    """

    config: TrainConfig
    model: Recommender
    batches: Batches
    loss: nn.Module
    draws: bool
    regularizers: tuple[tuple[RegularizerOptions, nn.Module], ...]
    optimizers: list[torch.optim.Optimizer]
    adapt: Callable[[], None] | None = None
    temporal: TemporalPrior | None = None
    period_log_prior_TV: torch.Tensor | None = None
    stop: Stop | None = None
    ranks: Ranks | None = None
    resident: Resident | None = None

    __repr__ = checks.brief

    def epoch(self, epoch: int, skip: int = 0, step: int = 0) -> Iterator[Batch | ResidentBatch]:
        """What steps take: the batches of an epoch from number `skip` on, which is the run's step number
        `step`."""
        if self.resident is None:
            return self.batches.epoch(epoch, skip)
        return self.resident.epoch(epoch, skip, step)


def assemble(
    config: TrainConfig,
    log: Interactions,
    train: Interactions,
    log_prior_V: np.ndarray,
    *,
    keep_rows: bool = True,
) -> Assembly:
    """The parts of a run. Initial values are a function of config.seed; the prior changes none of them.

    log: whose users and items there are. train: the events to train on. log_prior_V: [V] nats, that the
    model keeps; of a prior by period it keeps what that serves instead. keep_rows: whether a device has room
    for rows (`memory.keeps_rows`); no bit of a run depends on it.
    """
    rows, dated, temporal = config.encoder_part.rows_part(), {}, None
    if config.prior_part.by_period:
        temporal = temporal_prior(config, train)
        log_prior_V = config.prior_part.served(temporal).log_prior_V
        dated = {"period": period_of_events(train, temporal)}
    batches = rows.batches(
        train, max_length=config.max_length, batch_size=config.batch_size, seed=config.seed, **dated
    )
    ranks = processes.here(log.num_items)
    if ranks is not None:
        processes.check(config)
    own = None if ranks is None else ranks.own_rows
    model = build_model(config, log, log_prior_V, train, own).to(config.torch_device())
    loss = build_loss(config, train, batches).to(model.device)
    given = RegularizerInputs(log.num_items, config.dim, config.seed, config.sparse)
    regularizers = tuple(
        (part, _bare(part, part.build(given)).to(model.device)) for part in config.regularizers if part.weight
    )
    optimizers = build_optimizers(config, model, ranks)
    return Assembly(
        config,
        model,
        batches,
        loss,
        config.loss_part.needs == "negatives",
        regularizers,
        optimizers,
        _adapt_of(config.loss_part, loss),
        temporal,
        None if temporal is None else torch.tensor(temporal.log_prior_TV).float().to(model.device),
        stop_of([*optimizers, *([loss] if config.loss_part.adapts else [])], model.device)
        if ranks is None
        else None,
        ranks,
        made_of(
            batches,
            model.device,
            _why_sent(config, ranks is not None, bool(dated), keep_rows),
            config.max_length if config.cuda_graph else None,
        ),
    )


def _why_sent(config: TrainConfig, is_shared: bool, is_dated: bool, keep_rows: bool) -> list[str]:
    """Why the batches of a run are made on the host and sent to its device, by its configuration."""
    found = {
        "there is no room for the log on the device": not keep_rows,
        "several processes make the run": is_shared,
        "log p is by period": is_dated,
        f"accumulate is {config.accumulate}": config.accumulate != 1,
    }
    return [words for words, holds in found.items() if holds]


def target_counts(log: Interactions, encoder: str | EncoderOptions) -> np.ndarray:
    """[V] float64: the events of each item that an epoch on this log predicts, by weight.

    Encoders of the user alone predict every event; sequence encoders all but each user's first. It is
    the marginal that a model of this encoder learns, so log p, the direction of an audit and the
    weights of its contexts are all of these events.
    Raises: ValueError for a sequence encoder on a log without an order.
    """
    return registry.made("encoder", encoder).rows_part().target_counts(log)


def target_prior(
    log: Interactions, encoder: str | EncoderOptions, smoothing: str | float = "loo", min_count: float = 0
) -> PopularityPrior:
    """log p of `target_counts(log, encoder)`: what a run on this log trains beside and is audited along.

    smoothing, min_count: as in PopularityPrior.from_interactions, which leaves weighted events out by
    their weights.
    """
    rows = registry.made("encoder", encoder).rows_part()
    rows.check(log)
    if rows.first_events is None:
        return PopularityPrior.from_counts(rows.target_counts(log), smoothing=smoothing, min_count=min_count)
    return PopularityPrior.from_interactions(log, smoothing, min_count, first_events=rows.first_events)


def temporal_prior(config: TrainConfig, log: Interactions) -> TemporalPrior:
    """log p_t of the events that a run with a prior by period predicts on this log.

    Raises ValueError for a log without times.
    """
    part, rows = config.prior_part, config.encoder_part.rows_part()
    if log.time is None:
        raise checks.wrong(
            "log", f"events with times, which prior={str(part)!r} asks for", text="a log without times"
        )
    at, weight_N = rows.target_events(log)
    pooled = target_prior(log, config.encoder_part, config.smoothing)
    return part.temporal(
        log.item[at].astype(np.int64), log.time[at].astype(np.int64), weight_N, pooled, config.smoothing
    )


def period_of_events(log: Interactions, temporal: TemporalPrior) -> np.ndarray:
    """[N] int64: the period of each event; what is before the first one counts as of it."""
    assert log.time is not None
    return temporal.bucket_of(np.maximum(log.time.astype(np.int64), temporal.start_T[0]))


def bounded(config: TrainConfig, log: Interactions, cases: Cases | None = None) -> TrainConfig:
    """The configuration with max_length no longer than any history there is to read, which is what
    tables of positions are made for."""
    longest = [int(np.diff(log.offsets).max(initial=1))]
    if cases is not None:
        longest.append(int(np.diff(cases.history_offsets).max(initial=1)))
    return config.replace(max_length=min(config.max_length, max(longest)))


def build_model(
    config: TrainConfig,
    log: Interactions,
    log_prior_V: np.ndarray,
    train: Interactions,
    rows: slice | None = None,
) -> Recommender:
    """A freshly initialised model: a function of config.seed, the arm changes no initial value.

    rows: of the item table these alone, with the numbers that they have in the whole one.
    """
    encoder = config.encoder_part
    _check_log_prior(config, log_prior_V, log.num_items)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        decoder = Decoder(
            log_prior_V,
            config.dim,
            prior=config.prior_part,
            temperature=config.temperature,
            learn_temperature=config.learn_temperature,
            tables=config.table_kind,
            rows=rows,
        )
        module = checked_encoder(
            encoder,
            encoder.build(
                Sizes(
                    log.num_users,
                    log.num_items,
                    config.dim,
                    config.max_length,
                    config.sparse,
                    train,
                    config.table_kind,
                    rows,
                )
            ),
        )
        decoder.tower = (
            module.item_tower()
            if encoder.own_tower
            else config.item_tower_part.build(ItemSizes(log.num_items, config.dim, train))
        )
    if not isinstance(decoder.tower, ItemTower | None):
        raise checks.wrong_type(
            f"{config.item_tower_part!r}.build", "a fastpop.item_towers.ItemTower or None", decoder.tower
        )
    return Recommender(module, decoder, max_length=config.max_length, rows=encoder.rows_part())


def build_loss(config: TrainConfig, train: Interactions, batches: Batches) -> nn.Module:
    """The loss of the configuration; its draws come from the events trained on and config.seed."""
    part = config.loss_part

    def event_counts() -> np.ndarray:
        return columns.bincount(train.item, train.num_items).astype(np.float64)

    given = LossInputs(
        train.num_items, config.seed, config.sparse, config.proposal_part, event_counts, batches.target_counts
    )
    return _bare(part, part.build(given))


def build_optimizers(
    config: TrainConfig, model: Recommender, ranks: Ranks | None = None
) -> list[torch.optim.Optimizer]:
    """[tables, the rest], without the empty ones. ranks: the processes whose gradients steps are of."""
    embeddings = [*model.decoder.tables(), *model.encoder.tables()]
    bias = [] if model.decoder.item_bias is None else [model.decoder.item_bias]
    is_table = {id(param) for param in (*embeddings, *bias)}
    others = [param for param in model.parameters() if id(param) not in is_table]
    lr, bias_lr = config.table_learning_rate or config.learning_rate, config.prior_part.bias_learning_rate
    groups: list[dict] = [{"params": embeddings + bias}]
    if bias and bias_lr:
        groups = [{"params": embeddings}, {"params": bias, "lr": bias_lr}]
    part = config.table_optimizer_part
    more: dict[str, Any] = {"rounding_seed": config.seed} if config.table_dtype == "bfloat16" else {}
    if ranks is not None and config.update_in_backward:
        more["complete"] = lambda table: ranks.complete(model, table)
    optimizers = [part.build(groups, lr, update_in_backward=config.update_in_backward, **more)]
    if not isinstance(optimizers[0], torch.optim.Optimizer):
        raise checks.wrong_type(f"{part!r}.build", "a torch.optim.Optimizer", optimizers[0])
    if others:
        optimizers.append(
            torch.optim.AdamW(
                others,
                lr=config.learning_rate,
                weight_decay=config.weight_decay,
                **optim.fused_where(model.device),
            )
        )
    return optimizers


def _check_log_prior(config: TrainConfig, log_prior_V: Any, num_items: int) -> None:
    name = f"{config.prior_part!r}.log_prior"
    checks.shape(name, checks.float_array(name, log_prior_V, 1), (num_items,))


def checked_encoder(part: EncoderOptions, module: Any) -> Encoder:
    """The module of an encoder, which reads what its options say."""
    if not isinstance(module, Encoder):
        raise checks.wrong_type(f"{part!r}.build", "a fastpop.encoders.Encoder", module)
    reads = getattr(module, "reads", None)
    if reads != part.reads:
        raise checks.wrong(
            f"{part!r}.build", f"a module with reads = {part.reads!r}, as its options have", reads
        )
    return module


def _adapt_of(part: Objective, module: Any) -> Callable[[], None] | None:
    """`adapt` of the module of a loss that adapts."""
    if not part.adapts:
        return None
    if not callable(getattr(module, "adapt", None)):
        raise checks.wrong_type(f"{part!r}.build", "a module with adapt(), since the loss adapts", module)
    return module.adapt


def _bare(part: object, module: nn.Module) -> nn.Module:
    """The module of a part that is not kept with the model."""
    if not isinstance(module, nn.Module):
        raise checks.wrong_type(f"{part!r}.build", "a torch.nn.Module", module)
    own = [name for name, _ in module.named_parameters()]
    if own:
        raise checks.wrong(
            f"{part!r}.build",
            "a module without parameters of its own, which would be neither trained nor saved",
            text=f"{', '.join(own)}",
        )
    return module
