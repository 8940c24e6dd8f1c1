"""A run that several processes make together: rows of a batch, rows of the item table, what they tell.

Every process makes the same batches and takes its share of their rows. The item table lies in equal parts,
one a process, with its optimiser's state; encoders, and tables of users, are whole everywhere and get the
sums of the gradients. So the steps are those of one process, but for the order of sums, and for dropout,
which has a mask of its own on every process.
"""

import contextlib
import socket
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from safetensors.torch import load_file
from torch import Tensor, nn

from fastpop import checks, registry
from fastpop.data.batches import PAD, Batch
from fastpop.data.cases import Cases
from fastpop.data.paths import engine_name
from fastpop.evaluation import DotScores
from fastpop.model import Recommender
from fastpop.objectives import Objective
from fastpop.ops import RowShard, all_rows, collectives, shared_rows
from fastpop.ops.row_shard import even_rows
from fastpop.regularizers import RegularizerOptions
from fastpop.training.config import TrainConfig


@dataclass(frozen=True, eq=False)
class Ranks:
    """This process among those of a run. shard: its rows of the item table."""

    rank: int
    world: int
    shard: RowShard

    @property
    def leads(self) -> bool:
        """Whether it is the one that writes and speaks."""
        return self.rank == 0

    def own(self, batch: Batch) -> Batch:
        """This process's rows of a batch. Where it has none of a batch with histories, the first row, without
        targets: what it is part of has to be made together."""
        first, last = even_rows(len(batch.user), self.world, self.rank)
        mine = np.arange(first, last)
        if batch.history is None or len(mine):
            return _rows_of(batch, mine)
        one = _rows_of(batch, np.arange(1))
        return replace(one, target=np.full_like(one.target, PAD))

    def rows(self, model: Recommender, batch: Batch, item_nD: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """`Recommender.rows` of this process's batch, items of histories from whoever has them. item_nD:
        the item vectors of this process."""
        if batch.history is None:
            return model.rows(batch, item_nD)
        history_BL, item_mD = self._histories(model, batch.history, item_nD)
        return model.rows(replace(batch, history=history_BL), item_mD)

    def _histories(
        self, model: Recommender, history_BL: np.ndarray, item_nD: Tensor
    ) -> tuple[np.ndarray, Tensor]:
        """(histories of places, the rows [m, D] at them). What is no item stays none: PAD below, and beyond
        the last place what an encoder hides items behind."""
        num_items = self.shard.num_items
        if not model.encoder.reads_items:
            return history_BL, item_nD
        is_item = (history_BL >= 0) & (history_BL < num_items)
        ids = np.unique(history_BL[is_item])
        place_BL = np.where(is_item, np.searchsorted(ids, history_BL), history_BL)
        place_BL = np.where(history_BL >= num_items, history_BL - num_items + len(ids), place_BL)
        asked = torch.from_numpy(ids.astype(np.int64)).to(item_nD.device)
        sparse = bool(getattr(model.encoder, "sparse", False)) and item_nD.is_leaf
        return place_BL, shared_rows(item_nD, asked, shard=self.shard, sparse_grad=sparse)

    def regularized(
        self,
        part: RegularizerOptions,
        module: nn.Module,
        rows: tuple[Tensor, Tensor, Tensor, dict[str, Tensor]],
        model: Recommender,
        config: TrainConfig,
        seed: int,
    ) -> Any:
        """What a regulariser gives for this process's rows (query, item vectors, pos_id, other views), or
        where it compares rows, or reads all items, for those of all processes. seed: of its random numbers,
        then the same on all of them."""
        query, item_nD, pos_id, views = rows
        log_prior_V, shard = model.decoder.log_prior_V, self.shard
        if part.takes_shard:
            with self._as_one(query.device, seed):
                return module(query, item_nD, pos_id, log_prior_V, shard=shard, **views)
        together = part.reads == "rows"
        if together:
            query, pos_id = all_rows(query, shard=shard), all_rows(pos_id, shard=shard)
            views = {name: all_rows(view, shard=shard) for name, view in views.items()}
        ids, place = pos_id.unique(return_inverse=True)
        items = shared_rows(item_nD, ids, shard=shard, sparse_grad=config.sparse and item_nD.is_leaf)
        given = query, items, place, log_prior_V[ids]
        if not together:
            return module(*given, **views)
        with self._as_one(query.device, seed):
            return module(*given, **views)

    @staticmethod
    @contextlib.contextmanager
    def _as_one(device: torch.device, seed: int) -> Iterator[None]:
        """All processes draw the same random numbers within."""
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            torch.manual_seed(seed)
            yield

    @torch.no_grad()
    def encode(self, model: Recommender, cases: Cases, item_nD: Tensor) -> Tensor:
        """`Recommender.encode`: each process encodes its share of the cases, and has the queries of all.
        item_nD: the item vectors of this process."""
        cuts = [even_rows(cases.num_cases, self.world, rank) for rank in range(self.world)]
        mine = cases.take(np.arange(*cuts[self.rank]))
        was_training = model.training
        model.eval()
        try:
            if model.encoder.reads == "events":
                query = model.encode(mine, item_nD)
            else:
                history_CL = mine.history_rows.last(model.max_length, PAD)
                places_CL, item_mD = self._histories(model, history_CL.astype(np.int64), item_nD)
                query = model.encode_histories(mine.user, places_CL, item_mD)
        finally:
            model.train(was_training)
        return collectives.gathered(query, [last - first for first, last in cuts], self.shard.group)

    def scores(self, model: Recommender, cases: Cases) -> DotScores:
        """The scores of cases as trained, ranked by all processes together."""
        decoder = model.decoder
        with torch.no_grad():
            item_nD = decoder.item_vectors()
        return DotScores(
            self.encode(model, cases, item_nD),
            item_nD.detach(),
            decoder.served_bias(decoder.trained_weight),
            float(decoder.served_scale(1.0)),
            shard=replace(self.shard, queries="same"),
        )

    def told(self, *numbers: float) -> list[float]:
        """The sums of numbers over processes."""
        mine = torch.tensor(numbers, dtype=torch.float64, device=collectives.home(self.shard.group))
        return collectives.total(mine, self.shard.group).tolist()

    def meet(self) -> None:
        """Nobody goes on before all are here. A number is summed, as nothing is no reason to wait."""
        self.told(0)

    def from_first(self, value: Any) -> Any:
        """What the first process gives."""
        told = [value]
        dist.broadcast_object_list(told, src=0)
        return told[0]

    def together(self, mine: dict[str, Any]) -> dict[str, Any]:
        """The entries of all processes' dicts."""
        every: list[Any] = [None] * self.world
        dist.all_gather_object(every, mine)
        return {name: value for one in every for name, value in one.items()}

    def on_this_host(self) -> int:
        """How many of the processes."""
        host = socket.gethostname()
        return list(self.together({str(self.rank): host}).values()).count(host)

    def complete(self, model: Recommender, param: Tensor) -> None:
        """Makes the gradient of one table that of all processes, as `sum_gradients` does."""
        assert param.grad is not None
        if self.is_shared(model, param):
            return
        is_sparse, grad = param.grad.is_sparse, param.grad
        param.grad = self._side_by_side(grad) if is_sparse else collectives.total(grad, self.shard.group)

    def sum_gradients(self, model: Recommender, but: Iterable[Tensor] = ()) -> None:
        """Of everything but the item table and its bias, whose rows have theirs: dense ones as one run of
        numbers, sparse ones side by side. but: tables that have made their step."""
        done = {id(param) for param in but}
        params = [
            param for param in model.parameters() if not (self.is_shared(model, param) or id(param) in done)
        ]
        dense = [param for param in params if param.grad is None or not param.grad.is_sparse]
        dense = [param for param in dense if param.requires_grad]
        for param in dense:
            if param.grad is None:
                param.grad = torch.zeros_like(param)
        if dense:
            grads: list[Any] = [param.grad for param in dense]
            flat = collectives.total(torch.cat([grad.reshape(-1) for grad in grads]), self.shard.group)
            for grad, summed in zip(grads, flat.split([grad.numel() for grad in grads])):
                grad.copy_(summed.view_as(grad))
        for param in params:
            if param.grad is not None and param.grad.is_sparse:
                param.grad = self._side_by_side(param.grad)

    def _side_by_side(self, grad: Tensor) -> Tensor:
        ids, rows = grad._indices()[0], grad._values()
        sizes = collectives.counts(len(ids), self.shard.group, ids.device)
        all_ids = collectives.gathered(ids, sizes, self.shard.group)
        all_rows = collectives.gathered(rows, sizes, self.shard.group)
        return torch.sparse_coo_tensor(all_ids[None], all_rows, grad.shape, check_invariants=False)

    def squared_norm(self, model: Recommender, squares: dict[nn.Parameter, Tensor]) -> Tensor:
        """Of all gradients as one vector, from those of each parameter here."""
        here = [square for param, square in squares.items() if self.is_shared(model, param)]
        once = [square for param, square in squares.items() if not self.is_shared(model, param)]
        total = collectives.total(
            torch.stack([*here, torch.zeros_like(next(iter(squares.values())))]).sum(), self.shard.group
        )
        return torch.stack([total, *once]).sum()

    @staticmethod
    def is_shared(model: Recommender, param: Tensor) -> bool:
        """Whether each process has rows of it."""
        return param is model.decoder.item_embedding or param is model.decoder.item_bias

    def part_like(self, param: Tensor, value: Tensor) -> Tensor:
        """Of something of a whole table, the rows that a process has of it."""
        if value.ndim and len(value) == self.shard.num_items and len(param) != len(value):
            return value[self.shard.slice_of(len(param))]
        return value

    def parts_of(self, model: Recommender, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """A state dict of a whole model, or of a part of it, as this process's part."""
        own = model.state_dict()
        return {
            name: self.part_like(own[name], value) if name in own else value
            for name, value in tensors.items()
        }

    @property
    def own_rows(self) -> slice:
        """This process's rows of the item table."""
        return slice(*even_rows(self.shard.num_items, self.world, self.rank))

    def at_first(self, part: Tensor) -> Iterator[Tensor]:
        """Pieces of the whole that this is a part of, with the first process; the others send theirs."""
        return collectives.at_first(part, self._sizes(), self.shard.group)

    def unshare(self, model: Recommender, file: Path | None) -> None:
        """The whole item table on every process: as pages of the file of the finished model, on the CPU; or
        in memory, where there is no file."""
        names = {name: getattr(model.decoder, name) for name in ("item_embedding", "item_bias")}
        if file is None:
            for name, part in names.items():
                if part is not None:
                    whole = collectives.everywhere(part.detach(), self._sizes(), self.shard.group)
                    setattr(model.decoder, name, nn.Parameter(whole))
            return
        model.cpu()
        mapped = load_file(engine_name(file))
        for name, part in names.items():
            if part is not None:
                setattr(model.decoder, name, nn.Parameter(mapped[f"decoder.{name}"]))

    def _sizes(self) -> list[int]:
        cuts = (even_rows(self.shard.num_items, self.world, rank) for rank in range(self.world))
        return [last - first for first, last in cuts]


def here(num_items: int) -> Ranks | None:
    """The processes of torch.distributed, where there are several."""
    if not are_several():
        return None
    shard = RowShard.even(num_items, queries="each")
    return Ranks(collectives.rank_in(None), collectives.size_of(None), shard)


def are_several() -> bool:
    """Whether several processes of torch.distributed run together."""
    return collectives.is_running() and collectives.size_of(None) > 1


def leads() -> bool:
    """Whether this process is the first of those that run together, or alone."""
    return not collectives.is_running() or collectives.rank_in(None) == 0


def check(config: TrainConfig) -> None:
    """Raises ValueError for what processes cannot make together."""
    loss, tower, encoder = config.loss_part, config.item_tower_part, config.encoder_part
    losses = sorted(name for name, part in registry.all_of("loss").items() if _is_cut(part))
    uncut = [part for part in config.regularizers if not _is_cut_regularizer(part)]
    for name, expected, refused in (
        ("loss", f"one of items that lie in parts ({', '.join(losses)})", [] if _is_cut(loss) else [loss]),
        ("regularizers", "none that read vectors of all items, but with takes_shard", uncut),
        ("item_tower", "one that makes each item of its own row", [] if tower.by_row else [tower]),
        (
            "encoder",
            "one whose item tower, where it has one, takes rows of the table",
            [encoder] if encoder.own_tower and not encoder.takes_rows else [],
        ),
    ):
        if refused:
            names = ", ".join(repr(str(part)) for part in refused)
            raise checks.wrong(name, f"{expected}, with several processes", text=names)


def _is_cut(part: Objective | type[Objective]) -> bool:
    return part.takes_shard or part.reads_rows


def _is_cut_regularizer(part: RegularizerOptions) -> bool:
    return part.weight == 0 or part.reads != "items" or part.takes_shard


def _rows_of(batch: Batch, rows: np.ndarray) -> Batch:
    def of(array: np.ndarray | None) -> np.ndarray | None:
        return None if array is None else array[rows]

    return Batch(batch.user[rows], batch.target[rows], of(batch.history), of(batch.weight), of(batch.period))
