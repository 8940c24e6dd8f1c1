"""What training takes of memory, counted before anything is made: a run that cannot fit is refused, not
killed in an hour.

    tables      4 bytes a number, 2 in bfloat16: item vectors, and what the encoder has a row a user or item
                for
    optimizer   what its optimiser keeps of them (`TableOptimizer.numbers_a_row`), with the gradients and the
                temporaries of one that steps over all rows
    best        a second copy of the parameters where patience keeps the best ones in memory
    counts      124 bytes an item, 24 a user, 16 an event (4 of an opened log, whose columns are pages of
                files): counts, log p, the distribution of negatives while it is made, orders of events
    periods     20 bytes an item for each period of a log p by period
    rows        on a device, where all else leaves room: 4 bytes an event for each column of the log that
                batches are made of (items, weights, and users where rows are events), and 256 MiB to make
                them in; elsewhere batches are made on the host and sent
    step        a batch: 80 bytes a number of its rows' vectors, 16 of the negatives'
    result      where several processes make a run without a folder: the whole item table, which each has then

Of several processes each has its rows of item vectors and of what is kept of them, its rows of a batch, and
everything else whole: counts, too.

Tables on disk, and what is kept of them there, are no part of it: the system has in memory what it has room
for.

The bytes an item, a user and an event were measured (docs/performance.md); the sum is within 10 % of what a
run takes beside the process, where tables are what takes it.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from fastpop import checks, pages
from fastpop.data import columns
from fastpop.data.interactions import Interactions
from fastpop.data.rows import Events, Sequences
from fastpop.encoders import Sizes
from fastpop.training import resident
from fastpop.training.build import checked_encoder
from fastpop.training.config import TrainConfig

FLOAT = 4
PERIOD = 20  # bytes an item: log p in float32, and counts in float64 twice while it is made
ITEM, USER, EVENT = 124, 24, 16  # bytes beside tables
MAPPED_EVENT = 4  # of a log that was opened from a folder: columns are pages of its files
ROW, NEGATIVE = 80, 16  # bytes of a step a number of a row's vector, of a negative's
SPARE = 64 << 20  # bytes left to the kernels' buffers, evaluation and the rest of the process
GIB = 1 << 30


@dataclass(frozen=True)
class Memory:
    """Bytes that a run takes beside what the process has already, by what takes them."""

    parts: dict[str, int]

    __repr__ = checks.brief

    @property
    def total(self) -> int:
        return sum(self.parts.values())

    @property
    def least(self) -> int:
        """Of a run whose rows are not kept on its device."""
        return self.total - self.parts["rows"]

    def words(self) -> str:
        """Of the least that the run takes."""
        named = ", ".join(
            f"{name} {_gib(size)}" for name, size in self.parts.items() if size and name != "rows"
        )
        return f"{_gib(self.least)} GiB ({named})"


def needed(
    config: TrainConfig, log: Interactions, *, kept_in_memory: bool = True, processes: int = 1
) -> Memory:
    """What `fastpop.train(log, config)` takes, of each of several processes. kept_in_memory: whether patience
    keeps its best parameters there, and the result its tables, for want of a folder."""
    rows = table_rows(config, log)
    rows["items"] = -(-rows["items"] // processes)
    numbers = sum(rows.values()) * config.dim
    whole = not config.sparse  # gradients of all rows
    longest = max(rows.values()) * config.dim
    by_event = config.encoder_part.reads == "events"
    rows_of_batch = min(config.batch_size, log.num_events if by_event else log.num_users)
    rows_of_part = -(-rows_of_batch // (config.accumulate * processes))
    length = 1 if by_event else config.max_length
    negatives = config.num_negatives if config.loss_part.needs == "negatives" else 0
    state = sum(rows.values()) * config.table_optimizer_part.numbers_a_row(config.dim)
    number, in_memory = config.table_kind.bytes_a_number, config.table_storage == "memory"
    return Memory(
        {
            "tables": number * numbers * in_memory,
            "optimizer": FLOAT * (state + (numbers + 2 * longest if whole else 0)) * in_memory,
            "best": number * numbers if config.patience and kept_in_memory else 0,
            "counts": ITEM * log.num_items
            + USER * log.num_users
            + (EVENT if log.storage is columns.MEMORY else MAPPED_EVENT) * log.num_events,
            "periods": PERIOD * log.num_items * _periods(config, log),
            "rows": _kept_rows(config, log, by_event, processes),
            "step": (ROW * rows_of_part * length + NEGATIVE * negatives) * config.dim,
            "result": number * log.num_items * config.dim if processes > 1 and kept_in_memory else 0,
        }
    )


def _kept_rows(config: TrainConfig, log: Interactions, by_event: bool, processes: int) -> int:
    """Bytes of the rows of a run that lie on its device."""
    alone = processes == 1 and config.accumulate == 1 and not config.prior_part.by_period
    can_be_made_there = type(config.encoder_part.rows_part()) in (Events, Sequences)
    if config.torch_device().type == "cpu" or not alone or not can_be_made_there:
        return 0
    return resident.bytes_of(log, config.max_length, by_event)


def _periods(config: TrainConfig, log: Interactions) -> int:
    part: Any = config.prior_part
    if not part.by_period:
        return 0
    if not part.width or log.time is None or not log.num_events:
        return int(part.periods)
    return int(np.ptp(log.time) // part.width) + 1


def table_rows(config: TrainConfig, log: Interactions) -> dict[str, int]:
    """Rows of the tables: of item vectors, and of the encoder, by its own word: it is made for a handful of
    users and items, which tells how many rows it has for each."""
    few, more = 2, 5
    base, users, items = (_encoder_rows(config, *sizes) for sizes in ((few, few), (more, few), (few, more)))
    a_user, an_item = (users - base) // (more - few), (items - base) // (more - few)
    rest = base - few * (a_user + an_item)
    return {"items": log.num_items, "encoder": rest + a_user * log.num_users + an_item * log.num_items}


def _encoder_rows(config: TrainConfig, num_users: int, num_items: int) -> int:
    events = np.arange(max(num_users, num_items) * 2)
    few = Interactions.from_arrays(
        events % num_users,
        events % num_items,
        events,
        user_ids=np.arange(num_users),
        item_ids=np.arange(num_items),
    )
    with torch.random.fork_rng(devices=[]):
        part = config.encoder_part
        sizes = Sizes(num_users, num_items, config.dim, config.max_length, config.sparse, few)
        module = checked_encoder(part, part.build(sizes))
    return sum(table.numel() for table in module.tables()) // config.dim


def free(device: torch.device) -> int | None:
    """Bytes that may still be taken, swap included; None where the system does not say."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return pages.free()


def check(
    config: TrainConfig,
    log: Interactions,
    *,
    kept_in_memory: bool = True,
    processes: int = 1,
    beside: int = 1,
) -> None:
    """Raises MemoryError where the run does not fit, and says what would. processes: that make it. beside:
    how many of them, or of processes with such runs of their own, are on this host, this one among them."""
    device = config.torch_device()
    left = free(device)
    if left is None:
        return
    each = ""
    if processes > 1 or beside > 1:
        left = left // beside if device.type == "cpu" else left
        each = f" for each of {beside} processes here"
    need = needed(config, log, kept_in_memory=kept_in_memory, processes=processes)
    if need.least + SPARE <= left:
        return
    raise MemoryError(
        f"memory: training needs {need.words()}; {_gib(left)} GiB are free on {device}{each}. "
        f"{_advice(config, log, left, kept_in_memory, processes)}"
    )


def keeps_rows(config: TrainConfig, log: Interactions, *, kept_in_memory: bool = True) -> bool:
    """Whether the rows of a run lie on its device, beside all else that it takes there."""
    device = config.torch_device()
    if device.type == "cpu":
        return False
    need, left = needed(config, log, kept_in_memory=kept_in_memory), free(device)
    return need.parts["rows"] > 0 and (left is None or need.total + SPARE <= left)


def _advice(config: TrainConfig, log: Interactions, left: int, kept_in_memory: bool, processes: int) -> str:
    """The changes that make it fit, the least one first; or that none does."""
    given: dict[str, Any] = {"kept_in_memory": kept_in_memory, "processes": processes}
    tried: list[dict[str, Any]] = [{"patience": 0}] if config.patience and kept_in_memory else []
    if config.sparse and config.table_optimizer_part.numbers_a_row(config.dim) > 1:
        tried.append({"table_optimizer": "row_adagrad"})
    tried += [{"dim": dim} for dim in (128, 64, 32, 16) if dim < config.dim]
    if config.sparse:
        tried += [{"table_optimizer": "row_adagrad", "dim": dim} for dim in (32, 16) if dim < config.dim]
    for change in tried:
        try:
            size = needed(config.replace(**change), log, **given).least
        except ValueError:  # heads that do not divide this dim, say: no advice
            continue
        if size + SPARE <= left:
            words = ", ".join(f"{name}={value!r}" for name, value in change.items())
            return f"With {words} it needs {_gib(size)}"
    return "It needs a larger machine, or fewer items (min_item_events)"


def _gib(size: int) -> str:
    return f"{size / GIB:.2f}"
