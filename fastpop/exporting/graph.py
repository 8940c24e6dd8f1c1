"""What an exported model computes, as a module that torch.export takes."""

import copy
from typing import Any

import torch
from torch import Tensor, nn

from fastpop.data.cases import Cases
from fastpop.encoders import Encoder
from fastpop.model import Recommender

OUTPUTS = ("score", "query")


class OfHistories(nn.Module):
    """(score [B, V], query [B, D]) of histories, at weights of each row, beside any log p.

    score = λ scale <query, item> + (β - offset) f. A row without an item has a query of zeros, and the score
    β f: nothing is known but popularity.

    Args: encoder: reads histories. item_VD: what queries are multiplied with. scale: of the product.
    offset: of the prior. max_length: the longest history there may be.
    """

    inputs = ("history", "popularity_weight", "personal_weight", "log_prior")
    item_VD: Tensor

    def __init__(self, encoder: Encoder, item_VD: Tensor, scale: float, offset: float, max_length: int):
        super().__init__()
        self.encoder, self.scale, self.offset, self.max_length = encoder, scale, offset, max_length
        self.register_buffer("item_VD", item_VD)

    def forward(
        self, history: Tensor, popularity_weight: Tensor, personal_weight: Tensor, log_prior: Tensor
    ) -> Any:
        """history: [B, L] int64 places of items, oldest first, -1 after the end. The weights: [B] float32.
        log_prior: [V] float32, what β multiplies."""
        there_B = (history >= 0).any(1).to(self.item_VD.dtype)
        user_B = torch.zeros_like(history[:, 0])  # nobody's
        query_BD = self.encoder.last(user_B, history, self.item_VD) * there_B[:, None]
        weight_B = popularity_weight - self.offset * there_B
        score_BV = (query_BD @ self.item_VD.T) * (self.scale * personal_weight)[:, None]
        return score_BV + weight_B[:, None] * log_prior, query_BD

    def example(self) -> tuple[tuple[Tensor, ...], Any]:
        """(inputs of three rows, which sizes may differ)."""
        history = torch.zeros(3, self.max_length, dtype=torch.int64)
        history[1:, self.max_length // 2 :] = -1
        rows = torch.export.Dim("rows", max=2**31 - 1)
        any_length = self.max_length > 1 and not self.encoder.one_length
        length = {1: torch.export.Dim("length", max=self.max_length)} if any_length else {}
        weights = torch.ones(3), torch.ones(3), torch.zeros(len(self.item_VD))
        return (history, *weights), ({0: rows, **length}, {0: rows}, {0: rows}, {})


class OfUsers(nn.Module):
    """The same of users whose queries are a table: user [B] int64 are its rows."""

    inputs = ("user", "popularity_weight", "personal_weight", "log_prior")
    item_VD: Tensor
    query_UD: Tensor

    def __init__(self, query_UD: Tensor, item_VD: Tensor, scale: float, offset: float):
        super().__init__()
        self.scale, self.offset = scale, offset
        self.register_buffer("query_UD", query_UD)
        self.register_buffer("item_VD", item_VD)

    def forward(
        self, user: Tensor, popularity_weight: Tensor, personal_weight: Tensor, log_prior: Tensor
    ) -> Any:
        query_BD = self.query_UD[user]
        score_BV = (query_BD @ self.item_VD.T) * (self.scale * personal_weight)[:, None]
        return score_BV + (popularity_weight - self.offset)[:, None] * log_prior, query_BD

    def example(self) -> tuple[tuple[Tensor, ...], Any]:
        rows = torch.export.Dim("rows", max=2**31 - 1)
        user = torch.zeros(3, dtype=torch.int64)
        weights = torch.ones(3), torch.ones(3), torch.zeros(len(self.item_VD))
        return (user, *weights), ({0: rows}, {0: rows}, {0: rows}, {})


def graph_of(model: Recommender, users: Any) -> OfHistories | OfUsers:
    """The module that serves this model, on the CPU, in evaluation mode; it shares nothing with the model.

    users: places of the users that an encoder of users has a query for.
    """
    decoder = model.decoder
    with torch.no_grad():
        item_VD = decoder.item_vectors().detach().float().cpu().clone()
        scale, offset = float(decoder.scale), decoder.prior.offset
        if model.encoder.reads == "events":
            cases = Cases.of([[]] * len(users), [[]] * len(users), decoder.num_items, user=users)
            return OfUsers(model.encode(cases).float().cpu().clone(), item_VD, scale, offset).eval()
        encoder = copy.deepcopy(model.encoder).cpu()
        return OfHistories(encoder, item_VD, scale, offset, model.max_length).eval()
