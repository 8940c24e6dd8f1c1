"""LightGCN: users and items smoothed over the graph of who has what."""

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from fastpop import checks
from fastpop.data import columns
from fastpop.data.interactions import Interactions
from fastpop.encoders.base import Encoder, EncoderOptions, Sizes
from fastpop.item_towers import ItemTower
from fastpop.ops import collectives
from fastpop.tables import normal_table

MOST_LAYERS = 16
STD = 0.02  # of initial user vectors, as of the item table


@dataclass(frozen=True)
class LightGCN(EncoderOptions):
    """Users and items smoothed over the training log's graph: see `LightGCNEncoder`. layers: K, how far."""

    name: ClassVar[str] = "lightgcn"
    reads: ClassVar[str] = "events"  # type: ignore[assignment, misc]
    own_tower: ClassVar[bool] = True
    takes_rows: ClassVar[bool] = True
    layers: int = 3

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.number("encoder.layers", self.layers, ge=0, le=MOST_LAYERS, integer=True)

    def build(self, sizes: Sizes) -> "LightGCNEncoder":
        if sizes.train is None:
            raise checks.wrong("sizes.train", "the events that are trained on, whose graph this reads", None)
        return LightGCNEncoder(sizes.train, sizes.dim, layers=self.layers, rows=sizes.rows)


class LightGCNEncoder(Encoder):
    """Rows of (1 / (K + 1)) sum_k A^k E, of users and of items (He et al. 2020, arXiv 2002.02126).

    E holds a free vector a user and the decoder's row an item; A = D^-1/2 [[0, R], [R', 0]] D^-1/2, R the
    users by items of the training log, 1 where there is an event, however many. Users and items are smoothed
    together, once a step, by `item_tower`; the query is then looked up. Users and items without events keep
    E / (K + 1). The graph is made of the log and is not saved.

    Args:
        train: the events. dim: D. layers: K. rows: of the items those that this process has, where all of
            torch.distributed share them: each then smooths its own, and user vectors, which all have, are
            summed.
    Cost: K passes over the graph a step, of 2 E D additions for E pairs of user and item, and K more for the
    gradient, which needs nothing kept. With rows, E of a part's, and 2 K sums over processes of U D numbers.
    """

    reads = "events"
    edge_E: Tensor
    offset_N: Tensor
    scale_N1: Tensor

    def __init__(self, train: Interactions, dim: int, *, layers: int = 3, rows: slice | None = None) -> None:
        super().__init__()
        self.layers, self.num_users = layers, train.num_users
        self.user_embedding = normal_table(train.num_users, dim, STD)
        self._take(train, rows)

    def _take(self, train: Interactions, rows: slice | None) -> None:
        self.is_part = rows is not None
        edge_E, offset_N = graph(train)
        degree_N = np.diff(offset_N)
        scale_N = np.where(degree_N > 0, np.maximum(degree_N, 1) ** -0.5, 0)
        if rows is not None:
            edge_E, offset_N = part_of_graph(edge_E, offset_N, self.num_users, rows)
            scale_N = np.concatenate([scale_N[: self.num_users], scale_N[self.num_users :][rows]])
        for name, array in (
            ("edge_E", edge_E),
            ("offset_N", offset_N),
            ("scale_N1", scale_N[:, None].astype(np.float32)),
        ):
            device = self.user_embedding.device
            self.register_buffer(name, torch.from_numpy(array).to(device), persistent=False)

    def take_all_rows(self, train: Interactions) -> None:
        self._take(train, None)

    def forward(self, user_B: Tensor, history_BL: Tensor | None, item_VD: Tensor) -> Tensor:
        user_UD = getattr(item_VD, "of_users", None)
        if user_UD is None:
            raise checks.wrong("item_VD", "what the item tower of this encoder made", text="another tensor")
        return F.embedding(user_B, user_UD)

    def last(self, user_C: Tensor, history_C: Tensor, item_VD: Tensor) -> Tensor:
        return self(user_C, None, item_VD)

    def tables(self) -> list[nn.Parameter]:
        return [self.user_embedding]

    def item_tower(self) -> "LightGCNTower":
        return LightGCNTower(self)

    def smoothed(self, item_VD: Tensor) -> tuple[Tensor, Tensor]:
        """(users [U, D], items [V, D]) of free item vectors."""
        if self.is_part:
            return SmoothPart.apply(self.user_embedding, item_VD, self)
        whole_ND = torch.cat([self.user_embedding, item_VD])
        whole_ND = Smooth.apply(whole_ND, self.edge_E, self.offset_N, self.scale_N1, self.layers)
        return whole_ND[: self.num_users], whole_ND[self.num_users :]


class LightGCNTower(ItemTower):
    """The items of a `LightGCNEncoder`, with the users that were made beside them, of_users [U, D]."""

    def __init__(self, encoder: LightGCNEncoder):
        super().__init__()
        self.of = (encoder,)  # in a tuple: a module of the model already

    def forward(self, item_VD: Tensor) -> Tensor:
        user_UD, made_VD = self.of[0].smoothed(item_VD)
        made_VD.of_users = user_UD  # type: ignore[attr-defined]
        return made_VD


class Smooth(torch.autograd.Function):
    """x -> mean of A^k x, k = 0..K. A is symmetric, so a gradient is smoothed likewise."""

    @staticmethod
    def forward(
        ctx: Any, x_ND: Tensor, edge_E: Tensor, offset_N: Tensor, scale_N1: Tensor, layers: int
    ) -> Tensor:
        ctx.save_for_backward(edge_E, offset_N, scale_N1)
        ctx.layers = layers
        return smooth(x_ND, edge_E, offset_N, scale_N1, layers)

    @staticmethod
    def backward(ctx: Any, *grad: Any) -> Any:
        edge_E, offset_N, scale_N1 = ctx.saved_tensors
        return smooth(grad[0], edge_E, offset_N, scale_N1, ctx.layers), None, None, None, None


def smooth(x_ND: Tensor, edge_E: Tensor, offset_N: Tensor, scale_N1: Tensor, layers: int) -> Tensor:
    """[N, D] the mean over k = 0..layers of A^k x, by Horner's rule. edge_E, offset_N: neighbours of each
    node, as `graph` gives them; scale_N1: degree^-1/2. One owner a row, so the same bits every time."""
    out_ND = x_ND = x_ND.contiguous()
    with torch.autocast(x_ND.device.type, enabled=False):
        for _ in range(layers):
            scaled_ND = out_ND * scale_N1
            sum_ND = F.embedding_bag(edge_E, scaled_ND, offset_N, mode="sum", include_last_offset=True)
            out_ND = torch.addcmul(x_ND, sum_ND, scale_N1)
    return out_ND / (layers + 1)


class SmoothPart(torch.autograd.Function):
    """`Smooth` where each process has all users and its own rows of the items: ([U, D], [n, D]).

    What a user has of items is summed over processes, once a layer; what an item has of users is there. The
    gradient of the users is this process's part of it, which is summed with the encoder's: the last layer's
    sum is left to that, and what comes from above, which each process has of its own rows, is summed first.
    """

    @staticmethod
    def forward(ctx: Any, user_UD: Tensor, item_nD: Tensor, part: "LightGCNEncoder") -> Any:  # type: ignore[override]
        ctx.part = part
        return smooth_part(user_UD, item_nD, part)

    @staticmethod
    def backward(ctx: Any, d_user_UD: Tensor, d_item_nD: Tensor) -> Any:  # type: ignore[override]
        return *smooth_part(d_user_UD, d_item_nD, ctx.part, in_parts=True), None


def smooth_part(
    user_UD: Tensor, item_nD: Tensor, part: LightGCNEncoder, *, in_parts: bool = False
) -> tuple[Tensor, Tensor]:
    """`smooth` on all users and this process's items. in_parts: the processes' users sum to those that are
    meant, before and after."""
    num_users, layers = part.num_users, part.layers
    with torch.autocast(user_UD.device.type, enabled=False):
        whole_UD = collectives.total(user_UD, None) if in_parts and layers else user_UD
        out_ND = x_ND = torch.cat([whole_UD, item_nD])
        for layer in range(layers):
            sum_ND = F.embedding_bag(
                part.edge_E, out_ND * part.scale_N1, part.offset_N, mode="sum", include_last_offset=True
            )
            if in_parts and layer == layers - 1:
                x_ND = torch.cat([user_UD, item_nD])
            else:
                sum_ND[:num_users] = collectives.total(sum_ND[:num_users], None)
            out_ND = torch.addcmul(x_ND, sum_ND, part.scale_N1)
        out_ND = out_ND / (layers + 1)
    return out_ND[:num_users], out_ND[num_users:]


def part_of_graph(
    edge_E: np.ndarray, offset_N: np.ndarray, num_users: int, rows: slice
) -> tuple[np.ndarray, np.ndarray]:
    """What `graph` gives, of all users and the items of these rows, which are numbered from the users on."""
    split = offset_N[num_users]
    of_users = edge_E[:split] - num_users
    there = (of_users >= rows.start) & (of_users < rows.stop)
    kept = np.concatenate([[0], np.cumsum(there)])[offset_N[: num_users + 1]]
    offset_n = offset_N[num_users:][rows.start : rows.stop + 1]
    edge = np.concatenate([of_users[there] - rows.start + num_users, edge_E[offset_n[0] : offset_n[-1]]])
    offset = np.concatenate([kept, kept[-1] + offset_n[1:] - offset_n[0]])
    return edge.astype(edge_E.dtype), offset.astype(offset_N.dtype)


def graph(log: Interactions) -> tuple[np.ndarray, np.ndarray]:
    """(edge [2 E], offset [U + V + 1]): the neighbours of each node, users before items, each pair once.

    int32 where that holds every number, else int64.
    """
    pair = columns.distinct(log.user.astype(np.int64) * log.num_items + log.item)
    user, item = np.divmod(pair, log.num_items)
    by_item = np.argsort(item, kind="stable")
    edge = np.concatenate([item + log.num_users, user[by_item]])
    degree = np.concatenate(
        [np.bincount(user, minlength=log.num_users), np.bincount(item, minlength=log.num_items)]
    )
    offset = np.concatenate([[0], np.cumsum(degree)])
    kind = np.int32 if max(len(edge), len(degree)) < 2**31 else np.int64
    return edge.astype(kind), offset.astype(kind)
