"""The decoder: item vectors, temperature, and log p(i) kept outside the dot product."""

import copy
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fastpop import checks, registry
from fastpop.folding import fold
from fastpop.item_towers import ItemTower
from fastpop.pages import tensor_of
from fastpop.priors import Prior
from fastpop.tables import PLAIN, TableKind, normal_table


class WithLogProbabilities(nn.Module):
    """A module whose floating buffers, log p and its like, stay as they were made where a trainer casts
    the model or loads a cast one: beyond -16 nats, a rare item's log p, bfloat16 is off by up to .06 nats.

    On fresh memory, after to("meta") and to_empty(), they are NaN until a state dict is loaded: the ops
    refuse NaN, and would take what the memory held before.
    """

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        before = dict(self._buffers)
        super()._apply(fn, recurse)
        for name, vector in before.items():
            moved = self._buffers[name]
            if vector is None or moved is None:
                continue
            if vector.is_meta and not moved.is_meta:
                with torch.no_grad():
                    moved.fill_(torch.nan if moved.is_floating_point() else 0)
            elif vector.is_floating_point() and moved.dtype != vector.dtype:
                self._buffers[name] = vector.to(moved.device)
        return self

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *others: Any) -> None:
        dtypes = {name: vector.dtype for name, vector in self._buffers.items() if vector is not None}
        super()._load_from_state_dict(state_dict, prefix, *others)
        for name, dtype in dtypes.items():
            vector = self._buffers[name]
            if vector is not None and vector.dtype != dtype:  # with assign=True
                self._buffers[name] = vector.to(dtype)


class Decoder(WithLogProbabilities):
    """logit(b, i) = scale * <query[b], item[i]> + a popularity term.

    | prior | trained on | served at popularity_weight β |
    |---|---|---|
    | none | s | s + (β - 1) log p: β = 1 is the model as trained, β = 0 post-hoc subtraction |
    | frozen | s + τ log p | s + β log p |
    | by-period | s + τ log p_t, t each row's period, which `fastpop.train` knows | s + β log p, the newest |
    | permuted | s + τ log p of a fixed random relabelling | s + β times the same |
    | learned | s + a(i), a learned | s + β a(i) |

    where s = scale * <query, item>, the learned part, is what an audit measures. A second weight λ
    (personal_weight, 1 as trained) serves λ s instead of s.

    Args:
        log_prior: [V] log p(i), nats; of a relabelling for "permuted". Kept for serving and
            audits even with prior="none". It can be replaced later (`set_log_prior`).
        dim: D. prior: a name, or a `fastpop.priors.Prior` with its options. prior_weight: τ beside a name.
        temperature: > 0, 1 / scale. learn_temperature: scale = exp(log_scale) is a parameter.
        bias_start: beside "learned", where a(i) begins: "zero", or "log-prior", at log p(i).
        tower: makes item vectors of item_embedding; None: they are its rows. tables: how it is held.
        rows: of item_embedding and the bias these alone, as one of several processes has them.
    """

    log_prior_V: Tensor
    log_scale: Tensor

    def __init__(
        self,
        log_prior: np.ndarray | Tensor,
        dim: int,
        *,
        prior: str | Prior = "none",
        prior_weight: float = 1.0,
        temperature: float = 1.0,
        learn_temperature: bool = False,
        bias_start: str = "zero",
        tower: ItemTower | None = None,
        tables: TableKind = PLAIN,
        rows: slice | None = None,
    ):
        super().__init__()
        checks.score_weight("prior_weight", prior_weight)
        checks.one_of("bias_start", bias_start, ("zero", "log-prior"))
        checks.number("temperature", temperature, gt=0)
        checks.number("dim", dim, ge=1, integer=True)
        for name, value, default in (("prior_weight", prior_weight, 1.0), ("bias_start", bias_start, "zero")):
            if isinstance(prior, Prior) and value != default:
                raise checks.wrong(name, f"none beside prior={prior!r}, which has its own", value)
        self.prior: Prior = registry.made(
            "prior",
            prior,
            options={"weight": float(prior_weight), "start": bias_start},
            defaults={"weight": 1.0, "start": "zero"},
        )
        log_prior_V = tensor_of(np.asarray(log_prior), torch.float32)
        checks.shape("log_prior", log_prior_V, ("V",))
        num_items = log_prior_V.shape[0]
        self.item_embedding = normal_table(num_items, dim, kind=tables, rows=rows)
        self.register_buffer("log_prior_V", log_prior_V)
        bias_V = self.prior.bias(log_prior_V)
        if bias_V is not None and rows is not None:
            bias_V = bias_V[rows].clone()
        self.item_bias = None if bias_V is None else nn.Parameter(bias_V)
        self.tower = tower
        log_scale = -torch.log(torch.tensor(float(temperature)))
        if learn_temperature:
            self.log_scale = nn.Parameter(log_scale)
        else:
            self.register_buffer("log_scale", log_scale)

    @property
    def num_items(self) -> int:
        return self.item_embedding.shape[0]

    @property
    def dim(self) -> int:
        return self.item_embedding.shape[1]

    @property
    def scale(self) -> Tensor:
        return self.log_scale.exp()

    def item_vectors(self) -> Tensor:
        """[V, D]: what queries are multiplied with. Without a tower the table itself, whose gradient may
        be sparse."""
        if self.tower is None:
            return self.item_embedding
        item_VD = self.tower(self.item_embedding)
        if not isinstance(item_VD, Tensor):
            raise checks.wrong_type(type(self.tower).__name__, "a torch tensor", item_VD)
        checks.shape(type(self.tower).__name__, item_VD, tuple(self.item_embedding.shape))
        return item_VD

    def tables(self) -> list[nn.Parameter]:
        """Parameters with one row per item, but for the bias."""
        return [self.item_embedding, *([] if self.tower is None else self.tower.tables())]

    @property
    def trained_weight(self) -> float:
        """The β at which the served scores are the trained ones: τ, or 1 without a fixed prior."""
        return self.prior.trained_popularity_weight

    def popularity_term(self) -> Tensor:
        """[V] what popularity_weight multiplies: log p, or what is learned in its place."""
        return self.prior.term(self.log_prior_V, self.item_bias)

    def training_terms(self) -> dict[str, Any]:
        """log_prior, prior_weight and scale as the loss takes them."""
        if not self.prior.trained:
            return {"log_prior": None, "prior_weight": 1.0, "scale": self.scale}
        return {
            "log_prior": self.popularity_term(),
            "prior_weight": self.prior.prior_weight,
            "scale": self.scale,
        }

    def served_bias(self, popularity_weight: float) -> Tensor:
        """[V] what is added to s at β = popularity_weight."""
        checks.score_weight("popularity_weight", popularity_weight)
        term_V, weight = self.popularity_term().detach(), popularity_weight - self.prior.offset
        return weight * term_V if weight or self.item_bias is not None else torch.zeros_like(term_V)

    def served_scale(self, personal_weight: float) -> Tensor:
        """What multiplies <query, item> at personal weight λ: λ scale."""
        checks.score_weight("personal_weight", personal_weight)
        return self.scale.detach() * personal_weight

    def score(self, query_BD: Tensor, popularity_weight: float, personal_weight: float = 1.0) -> Tensor:
        """[B, V] served scores: λ s + the popularity term at these weights, float32."""
        query_BD = query_BD.to(self.item_embedding.dtype)
        score_BV = (query_BD @ self.item_vectors().detach().T).float()
        return score_BV * self.served_scale(personal_weight) + self.served_bias(popularity_weight)

    def set_log_prior(self, log_prior: np.ndarray | Tensor) -> None:
        """Replace log p(i), say with today's, without retraining (not for a learned bias).

        log_prior: [V] nats, finite.
        """
        if self.item_bias is not None:
            raise checks.wrong("log_prior", "a decoder with a fixed log p", text=f"prior={str(self.prior)!r}")
        new = torch.tensor(np.array(log_prior), dtype=torch.float32)
        checks.shape("log_prior", new, (self.num_items,))
        if not torch.isfinite(new).all():
            raise checks.wrong("log_prior", "finite numbers", text="a non-finite one")
        with torch.no_grad():
            self.log_prior_V.copy_(new)

    def with_prior(self, log_prior: np.ndarray | Tensor) -> "Decoder":
        """A decoder with another log p(i) beside this one, which stays as it is.

        The learned parameters are shared, not copied. log_prior: as in `set_log_prior`.
        """
        fork = copy.copy(self)
        fork._buffers = {**self._buffers, "log_prior_V": self.log_prior_V.clone()}
        fork.set_log_prior(log_prior)
        return fork

    def index_vectors(
        self, query_BD: Tensor, popularity_weight: float = 1.0, personal_weight: float = 1.0
    ) -> tuple[Tensor, Tensor]:
        """(items [V, D+1], queries [B, D+1]) whose plain dot product is the score served at these weights,
        for a nearest-neighbour index: items are [scale e, log p], whatever the weights, and queries
        [λ q, β] (β - 1 with prior="none").

        Where an index holds queries as they are, [q, β / λ] ranks the same for λ > 0.
        """
        checks.score_weight("popularity_weight", popularity_weight)
        checks.score_weight("personal_weight", personal_weight)
        query_BE, item_VE = fold(
            personal_weight * query_BD,
            self.item_vectors().detach(),
            self.popularity_term().detach(),
            popularity_weight - self.prior.offset,
            scale=float(self.scale),
        )
        return item_VE, query_BE
