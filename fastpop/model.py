"""A recommender: an encoder and a decoder."""

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fastpop import checks, registry
from fastpop.data.batches import PAD, Batch
from fastpop.data.cases import Cases
from fastpop.data.interactions import Interactions
from fastpop.data.rows import Rows
from fastpop.decoder import Decoder
from fastpop.encoders import Encoder
from fastpop.ops.upload import uploaded


@dataclass(frozen=True, eq=False)
class Placed:
    """A batch on a model's device, ids as int64.

    user_B, history_BL: what the encoder reads. at_R: where in [B L] the targets stand, None without
    histories. weight_R: float32, None: all are 1.
    """

    user_B: Tensor
    history_BL: Tensor | None
    at_R: Tensor | None
    target_R: Tensor
    weight_R: Tensor | None

    __repr__ = checks.brief


class Recommender(nn.Module):
    """query = encoder(user, history); scores = decoder(query).

    Args:
        encoder, decoder: they share D. max_length: the longest history that is read. rows: what the
            encoder trains on; None: the rows named as what it reads.
    """

    def __init__(
        self, encoder: Encoder, decoder: Decoder, *, max_length: int = 50, rows: str | Rows | None = None
    ):
        super().__init__()
        self.encoder, self.decoder, self.max_length = encoder, decoder, max_length
        self.train_rows: Rows = registry.made("rows", encoder.reads if rows is None else rows)

    @property
    def device(self) -> torch.device:
        return self.decoder.item_embedding.device

    def rows(
        self, batch: Batch | Placed, item_VD: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """(query [R, D], pos_id [R], weight [R] or None) of a training batch. item_VD: the decoder's
        item vectors, where they are made already."""
        item_VD = self.decoder.item_vectors() if item_VD is None else item_VD
        placed = self.placed(batch) if isinstance(batch, Batch) else batch
        contexts = placed.target_R if placed.history_BL is None else placed.history_BL
        query = self.encoder(placed.user_B, placed.history_BL, item_VD)
        query = self._query("forward", query, contexts.shape)
        if placed.at_R is not None:
            query = query.reshape(-1, query.shape[-1]).index_select(0, placed.at_R)
        return query, placed.target_R, placed.weight_R

    def placed(self, batch: Batch) -> Placed:
        """A copy of a batch on the model's device, which is not waited for."""
        if (batch.history is None) != (self.encoder.reads == "events"):
            given = "none" if batch.history is None else "some"
            raise checks.wrong(
                f"rows {self.train_rows}",
                "batches with histories where the encoder reads "
                f"sequences, and only there ({self.encoder.reads})",
                text=given,
            )
        user_B, target, weight = self.upload(batch.user), batch.target, batch.weight
        history_BL = at_R = None
        if batch.history is not None:
            history_BL = self.upload(batch.history)
            # The places of targets are looked for here, where nothing has to be waited for.
            at = np.flatnonzero(target >= 0)
            at_R = self.upload(at)
            target = target.reshape(-1)[at]
            weight = None if weight is None else weight.reshape(-1)[at]
        weight_R = None if weight is None else self.upload(weight).float()
        return Placed(user_B, history_BL, at_R, self.upload(target), weight_R)

    @torch.no_grad()
    def encode(self, cases: Cases, item_VD: Tensor | None = None) -> Tensor:
        """[C, D] queries of the cases, in evaluation mode, on the model's device. item_VD: the decoder's item
        vectors, where they are made already.

        Raises ValueError for a case without what the encoder reads: a user (-1 is none) or a
        history.
        """
        was_training = self.training
        self.eval()
        try:
            item_VD = self.decoder.item_vectors() if item_VD is None else item_VD
            if self.encoder.reads == "events":
                anonymous = np.flatnonzero(cases.user < 0)
                if anonymous.size:
                    raise checks.wrong(
                        "cases",
                        "a known user in each for an encoder that reads the user",
                        text=f"none in case {anonymous[0]}",
                    )
                return self._last(self.upload(cases.user), self.upload(cases.user), item_VD)
            empty = np.flatnonzero(cases.history_rows.lengths() == 0)
            if empty.size:
                raise checks.wrong("cases", "a history in each", text=f"none in case {empty[0]}")
            history_CL = cases.history_rows.last(self.max_length, PAD)
            return self.encode_histories(cases.user, history_CL, item_VD)
        finally:
            self.train(was_training)

    def encode_histories(self, user: Any, history: Any, item_VD: Tensor, chunk: int = 512) -> Tensor:
        """[C, D] queries of users [C] and histories [C, L] of rows of item_VD, all of them or some."""
        user_C, history_CL = self.upload(user), self.upload(history)
        parts = [
            self._last(user_C[i : i + chunk], history_CL[i : i + chunk], item_VD)
            for i in range(0, len(user_C), chunk)
        ]
        if not parts:
            return self.decoder.item_embedding.new_empty(0, self.decoder.dim)
        return torch.cat(parts)

    def _last(self, user_C: Tensor, history_C: Tensor, item_VD: Tensor) -> Tensor:
        return self._query("last", self.encoder.last(user_C, history_C, item_VD), user_C.shape)

    def _query(self, method: str, query: Any, rows: Any) -> Tensor:
        """What the encoder gave for [*rows] contexts, which somebody else may have written."""
        name = f"{type(self.encoder).__name__}.{method}"
        if not isinstance(query, Tensor):
            raise checks.wrong_type(name, "a torch tensor", query)
        checks.shape(name, query, (*rows, self.decoder.dim))
        return query

    def with_prior(self, log_prior: np.ndarray | Tensor) -> "Recommender":
        """A model with another log p(i) beside this one, which stays as it is.

        Encoder and item table are shared, not copied. log_prior: [V] nats, finite.
        """
        fork = copy.copy(self)
        fork._modules = {**self._modules, "decoder": self.decoder.with_prior(log_prior)}
        return fork

    def score(self, query_BD: Tensor, popularity_weight: float = 1.0, personal_weight: float = 1.0) -> Tensor:
        """[B, V] served scores at both weights; see `Decoder` for what each arm serves."""
        with torch.no_grad():
            return self.decoder.score(query_BD, popularity_weight, personal_weight)

    def served(self, popularity_weight: float | None = None, personal_weight: float = 1.0) -> "ServedModel":
        """What is served at two weights, as a `fastpop.types.DotModel`; None: as trained."""
        trained = self.decoder.trained_weight
        weight = trained if popularity_weight is None else popularity_weight
        return ServedModel(self, weight, personal_weight)

    def queries(self, cases: Cases) -> Tensor:
        """[C, D] of `encode`: a Recommender is a `fastpop.types.DotModel`, served as trained."""
        return self.encode(cases)

    def items(self) -> Tensor:
        """[V, D] what queries are multiplied with."""
        return self.served().items()

    def item_bias(self) -> Tensor:
        """[V] nats, what is added to the product as trained."""
        return self.served().item_bias()

    def scale(self) -> float:
        """What multiplies the product."""
        return self.served().scale()

    @torch.no_grad()
    def training_contexts(
        self, log: Interactions, chunk: int = 8192
    ) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray | None]]:
        """(query [b, D] float64, weight [b], pos_id [b] or None) over the contexts of a log.

        One context a training event: its weights sum over the log to the number (or the weight)
        of events that the encoder trains on. Encoders that read only the user give one row per user
        with the user's number of events, and no pos_id.
        """
        was_training = self.training
        self.eval()
        try:
            item_VD = self.decoder.item_vectors()
            for batch in self.train_rows.contexts(log, max_length=self.max_length, chunk=chunk):
                if batch.history is None:
                    user_B = self.upload(batch.user)
                    query, pos_id = self._last(user_B, user_B, item_VD), None
                    weight = batch.weight
                else:
                    query, pos_id_R, weight_R = self.rows(batch, item_VD)
                    pos_id = pos_id_R.cpu().numpy()
                    weight = None if weight_R is None else weight_R.double().cpu().numpy()
                weight = np.ones(len(query)) if weight is None else weight
                yield query.double().cpu().numpy(), weight, pos_id
        finally:
            self.train(was_training)

    def upload(self, array: Any) -> Tensor:
        """A copy of an array on the model's device, ids as int64. A GPU is not waited for."""
        # ids of an opened log are narrower than torch's indices
        kind = np.int64 if np.asarray(array).dtype.kind in "iu" else None
        return uploaded(np.array(array, dtype=kind), self.device)


@dataclass(frozen=True, eq=False)
class ServedModel:
    """A model at two weights, as a `fastpop.types.DotModel`: score = λ scale <query, item> + what β adds."""

    model: Recommender
    popularity_weight: float
    personal_weight: float = 1.0

    __repr__ = checks.brief

    def queries(self, cases: Cases) -> Tensor:
        """[C, D]. Raises ValueError for a case that the encoder cannot read."""
        return self.model.encode(cases).detach()

    def items(self) -> Tensor:
        """[V, D]"""
        return self.model.decoder.item_vectors().detach()

    def item_bias(self) -> Tensor:
        """[V] nats."""
        return self.model.decoder.served_bias(self.popularity_weight)

    def scale(self) -> float:
        """Of the product."""
        return float(self.model.decoder.served_scale(self.personal_weight))
