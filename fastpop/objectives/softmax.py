"""Softmax losses as modules, for fastpop's trainer and for anybody else's.

State dicts hold log p (`log_prior_V`) where there is a prior, and the sampled loss's count of its calls;
the distribution of negatives comes with the proposal, from the constructor. load_state_dict replaces
log p by what was saved. One saved before log p was kept leaves the module's own in place, strict or not;
otherwise strict=True wants it, and refuses one where the module was made without a prior.
"""

import warnings
from collections.abc import Iterable, Mapping
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from fastpop import checks, deprecated
from fastpop.decoder import WithLogProbabilities
from fastpop.folding import with_column
from fastpop.objectives.item_rows import ItemRows
from fastpop.ops import RowShard, all_rows, full_softmax, readable, row_shard, sampled_softmax, validation
from fastpop.ops.draw import Draw, seed_of
from fastpop.ops.sampled_softmax import drops_accidental_hits
from fastpop.popularity import InBatch, PopularityPrior, Proposal, proposal_from_name
from fastpop.types import AccidentalHits, LogQ, Reduction

_EVAL_STEPS = 2**62


class _SoftmaxLoss(WithLogProbabilities):
    _version = 2  # of the state dict: 1 had no log p
    log_prior_V: Tensor | None

    def __init__(
        self,
        prior: Any,
        prior_weight: float,
        scale: float,
        reduction: str,
        padding_idx: int | None,
        ignore_index: int | None,
    ):
        super().__init__()
        checks.number("prior_weight", prior_weight)
        checks.number("scale", scale, gt=0)
        checks.one_of("reduction", reduction, ("none", "mean", "sum"))
        self.prior_weight, self.scale, self.reduction = prior_weight, scale, reduction
        self.ignore_index = ignore_index
        self.register_buffer("log_prior_V", _log_prior_of(prior))
        num_items = None if self.log_prior_V is None else len(self.log_prior_V)
        self.padding_idx = _checked_padding(padding_idx, num_items)
        self.served_elsewhere = False
        self._log_p_was_used, self._has_warned = True, False

    def logits(self, query: Tensor, items: Tensor, popularity_weight: float | None = None) -> Tensor:
        """scale * query @ items.T + popularity_weight * log p: the scores to rank by, [..., V].

        query [..., D], items [V, D]: differentiable; float32 scores, or float64 where query is.
        popularity_weight: β; None: as trained, the module's prior_weight. Items that log p removes, and
        padding_idx, are -inf at every β. Without a prior the product alone. Writes all scores down:
        `fastpop.recommend` and `fastpop.evaluate` rank without that.
        Raises TypeError or ValueError: the argument, what was expected, what came.
        """
        query, lead = validation.check_query_and_items(query, items)
        bias_V = self._bias_beside(items, popularity_weight)
        checks.shape("items", items, (len(bias_V), query.shape[1]))
        dtype = torch.float64 if query.dtype == torch.float64 else torch.float32
        with validation.without_autocast(query):
            score_BV = self.scale * (query.to(dtype) @ items.to(dtype).T)
        is_removed_V = bias_V == -torch.inf
        bias_V = bias_V.to(score_BV).masked_fill(is_removed_V, 0)
        score_BV = (score_BV + bias_V).masked_fill(is_removed_V, -torch.inf)
        return score_BV.view(*lead, -1)

    def served_bias(self, popularity_weight: float | None = None, *, item_id: Tensor | None = None) -> Tensor:
        """[V] float32 nats: what a bias of the output layer is where `scale` is 1, say
        `model.lm_head.bias = torch.nn.Parameter(loss.served_bias(), requires_grad=False)`.

        popularity_weight: β; None: as trained. -inf at items that log p removes and at padding_idx.
        item_id: int64 ids of any shape, whose bias is asked for: of candidates, say. None: all.
        Raises ValueError where the module has no prior.
        """
        if self.log_prior_V is None:
            raise checks.wrong("prior", "a module with a prior, which served scores are to hold", None)
        weight = self.prior_weight if popularity_weight is None else popularity_weight
        checks.score_weight("popularity_weight", weight)
        self._log_p_was_used = True
        bias_V = (weight * self.log_prior_V).masked_fill(self.log_prior_V == -torch.inf, -torch.inf)
        if self.padding_idx is not None:
            bias_V[self.padding_idx] = -torch.inf
        return bias_V if item_id is None else bias_V[item_id]

    def _bias_beside(self, items: Tensor, popularity_weight: float | None) -> Tensor:
        """`served_bias`; of a module without a prior, that of the rows which are no items."""
        if self.log_prior_V is not None or popularity_weight:
            return self.served_bias(popularity_weight)
        bias_V = torch.zeros(len(items), device=items.device)
        if self.padding_idx is not None:
            bias_V[self.padding_idx] = -torch.inf
        return bias_V

    def fold(
        self, query: Tensor, items: Tensor, popularity_weight: float | None = None
    ) -> tuple[Tensor, Tensor]:
        """cat([query, 1], -1), cat([scale * items, served_bias], 1): `logits` as a dot product.

        For a trainer that ranks by query @ items.T: what it then ranks by is
        scale * <query, items[i]> + popularity_weight * log p(i), and -inf at items that log p removes and
        at padding_idx, at every weight. `fastpop.fold` keeps the weight in the queries instead, so that
        one index of items serves all weights, and has no place for a row that is no item.

        query [..., D], items [V, D]: differentiable. popularity_weight: β; None: as trained.
        Returns ([..., D + 1], [V, D + 1]), float32, or float64 where query or items are.
        Raises TypeError or ValueError: the argument, what was expected, what came. Cost: a copy of both.
        """
        rows, _ = validation.check_query_and_items(query, items)
        bias_V = self._bias_beside(items, popularity_weight)
        checks.shape("items", items, (len(bias_V), rows.shape[1]))
        return with_column(query, 1.0, items, bias_V, self.scale)

    def train(self, mode: bool = True) -> Any:
        """As of any module. Warns once where a trainer evaluated, between eval() and train() or the next
        training step, without asking for log p: that trainer's scores are of the personal part alone, and
        so is what it serves. `served_elsewhere = True` says that it is added elsewhere."""
        if not mode:
            self._log_p_was_used = False
        elif not self.training:
            self._warn_if_forgotten()
        return super().train(mode)

    def _warn_if_forgotten(self) -> None:
        if not self._is_forgotten():
            return
        self._has_warned = True
        warnings.warn(
            f"{type(self).__name__}: this model was just evaluated without log p, which is outside its "
            "dot products: what was ranked is the personal part alone. Rank by .logits(query, items), "
            "add .served_bias() to the scores, or .fold(query, items) log p into the vectors. Where that "
            "is done already, set .served_elsewhere = True.",
            UserWarning,
            stacklevel=3,
        )

    def _is_forgotten(self) -> bool:
        has_prior = self.log_prior_V is not None and self.prior_weight != 0
        return has_prior and not (self._log_p_was_used or self.served_elsewhere or self._has_warned)

    def _terms(self, terms: dict[str, Any], fixed: tuple[str, ...]) -> dict[str, Any]:
        """The module's own prior and scale, unless the caller's decoder brings them."""
        for name in fixed:
            if name in terms:
                raise checks.wrong(name, "an option of the module, not of a call", text=f"{terms[name]!r}")
        if not torch.compiler.is_compiling() and self.training:
            self._warn_if_forgotten()  # where a trainer puts modes back by their flags, as Lightning does
        self._log_p_was_used = True
        own = {
            "log_prior": self.log_prior_V,
            "prior_weight": self.prior_weight,
            "scale": self.scale,
            "reduction": self.reduction,
            "ignore_index": self.ignore_index,
        }
        return own | terms | {"padding_idx": self.padding_idx}

    def _load_from_state_dict(self, state_dict: Any, prefix: str, metadata: Any, *others: Any) -> None:
        name = f"{prefix}log_prior_V"
        if name not in state_dict and (metadata.get("version") or 1) < 2 and self._has_prior():
            state_dict[name] = self.log_prior_V
        super()._load_from_state_dict(state_dict, prefix, metadata, *others)

    def _has_prior(self) -> bool:
        """Whether there are numbers in it, not fresh memory."""
        prior_V = self.log_prior_V
        return prior_V is not None and not prior_V.is_meta and not bool(prior_V.isnan().any())

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Of a copy, or of a module that an earlier version pickled."""
        super().__setstate__(state)
        later = {
            "padding_idx": None,
            "ignore_index": -100,
            "served_elsewhere": False,
            "_log_p_was_used": True,
            "_has_warned": False,
        }
        self.__dict__.update({name: value for name, value in later.items() if name not in self.__dict__})
        self._non_persistent_buffers_set.discard("log_prior_V")


class FullSoftmaxLoss(_SoftmaxLoss):
    """`fastpop.ops.full_softmax` with a fixed prior: cross-entropy over the whole catalogue.

    Args:
        prior: a PopularityPrior, [V] log p(i) in nats, or None. Kept in the state dict.
        prior_weight: τ. scale: inverse temperature. label_smoothing: ε in [0, 1).
        padding_idx: a row of items that is no item: no gradient, in no sum, and rows whose pos_id it is
            are ignored.
        ignore_index: see the op.
        reduction: "none", "mean" or "sum".

    forward(query [..., D], items [V, D], pos_id [...] or [..., M]) -> loss. Keywords of the op
    (`row_weight`, `log_prior`, `prior_weight`, `scale`, `reduction`, `shard`, ...) override the module's.
    items may be a DTensor that is sharded by rows (docs/distributed.md).
    """

    def __init__(
        self,
        prior: PopularityPrior | Tensor | np.ndarray | None = None,
        *,
        prior_weight: float = 1.0,
        scale: float = 1.0,
        label_smoothing: float = 0.0,
        padding_idx: int | None = None,
        ignore_index: int | None = -100,
        reduction: Reduction = "mean",
    ):
        super().__init__(prior, prior_weight, scale, reduction, padding_idx, ignore_index)
        checks.number("label_smoothing", label_smoothing, ge=0)
        if label_smoothing >= 1:
            raise checks.wrong("label_smoothing", "a number in [0, 1)", label_smoothing)
        self.label_smoothing = label_smoothing

    @classmethod
    def from_counts(
        cls,
        counts: Any,
        *,
        smoothing: str | float = "loo",
        first_item: int = 0,
        item_ids: Iterable[Any] | None = None,
        **options: Any,
    ) -> Self:
        """The loss with log p of training counts.

        counts: [V - first_item] events per item, or a mapping with item_ids.
        smoothing: as in `PopularityPrior.from_counts`.
        first_item: rows of the table before it are no items (padding, masks): nobody's negatives, and
        rows whose pos_id is 0 are ignored. item_ids: what the table's rows stand for, in order, where
        counts is a mapping {id: events}; rows whose id it lacks come first and are no items.
        options: the module's own.
        Raises TypeError or ValueError: the argument, what was expected, what came.
        """
        counts, first_item = _by_row(counts, item_ids, first_item)
        prior = PopularityPrior.from_counts(counts, smoothing)
        return cls(_behind(first_item, prior.log_prior_V), **_padded(first_item, options))

    def forward(self, query: Tensor, items: Tensor, pos_id: Tensor, **terms: Any) -> Tensor:
        return full_softmax(
            query,
            items,
            pos_id,
            label_smoothing=self.label_smoothing,
            **self._terms(terms, ("label_smoothing", "padding_idx")),
        )


class SampledSoftmaxLoss(_SoftmaxLoss):
    """`fastpop.ops.sampled_softmax` that draws its own negatives.

    Args:
        prior: a PopularityPrior, [V] log p(i) in nats, or None: what is added to the dot product. Kept in
            the state dict.
        proposal: the distribution of the negatives (`fastpop.popularity.uniform`, `power`, ...), or an
            InBatch: then the other rows' positives are the negatives, joined by `num_negatives`
            draws of `extra` when that is given, all corrected by the distribution of the mixture.
        num_negatives: K draws a group (unused by a plain InBatch).
        extra: the Proposal beside an InBatch.
        prior_weight: τ. scale: inverse temperature. accidental_hits: see the op.
        logq: see the op. "standard" is exact in expectation for every K; "corrected" is biased at small
            K: the learned score's slope on log p(i|c), which should be 1, is 1.7 to 2.1 with one uniform
            negative, 1.3 to 1.5 with two, 1.02 to 1.04 with 16, 1.001 with 256.
        group_size: rows that share a draw; None: all rows, 1: a draw for each row.
        seed: of the draws, which depend on (seed, rank, step) alone. sparse_grad: see the op.
        rank: which of the processes that share a seed this one is. None: torch.distributed.get_rank()
            where that is initialised, otherwise 0, so that data-parallel processes draw negatives of
            their own: R processes see R K of them a step. Where they share a catalogue (`shard=`, a DTensor)
            all draw as rank 0. Others that must draw the same give the same number, say 0.
        padding_idx: a row of items that is no item: no gradient, nobody's negative even where the
            proposal draws it, and rows whose pos_id it is are ignored.
        ignore_index: see the op.
        reduction: "none", "mean" or "sum".

    forward(query [..., D], items [V, D], pos_id [...] or [..., M], step=None) -> loss. `step` numbers the
    draw, an integer or a one-element int64 tensor; without it the module counts its own calls
    (`num_steps`, kept in the state dict). Under torch.compile(fullgraph=True) both work: a tensor and the
    own count are compiled once, ints twice: torch takes a first one for a constant, and then any.
    In eval mode draws come from steps that training never reaches, the same after every eval():
    validation losses compare, and leave training's draws alone. Gradient checkpointing, which calls
    forward again within backward, needs `step`: the own count has moved on, and is refused there.

    items may be a DTensor that is sharded by rows, or `shard=` says which rows it is (docs/distributed.md).
    Keywords of the op (`row_weight`, `log_prior`, `prior_weight`, `scale`, ...) override the module's;
    what the module was made for (`logq`, `accidental_hits`, `sparse_grad`, ...) stays.
    """

    num_steps: Tensor
    num_eval_steps: Tensor
    hits = deprecated.attribute("hits", "accidental_hits")

    @deprecated.arguments(hits="accidental_hits")
    def __init__(
        self,
        prior: PopularityPrior | Tensor | np.ndarray | None,
        proposal: Proposal | InBatch,
        *,
        num_negatives: int = 8192,
        extra: Proposal | None = None,
        prior_weight: float = 1.0,
        scale: float = 1.0,
        logq: LogQ = "standard",
        accidental_hits: AccidentalHits | None = None,
        group_size: int | None = None,
        seed: int = 0,
        rank: int | None = None,
        sparse_grad: bool = False,
        padding_idx: int | None = None,
        ignore_index: int | None = -100,
        reduction: Reduction = "mean",
    ):
        super().__init__(prior, prior_weight, scale, reduction, padding_idx, ignore_index)
        if not isinstance(proposal, (Proposal, InBatch)):
            raise checks.wrong_type("proposal", "a fastpop.popularity Proposal or InBatch", proposal)
        checks.one_of("logq", logq, ("standard", "corrected", "none"))
        in_batch = isinstance(proposal, InBatch)
        if extra is not None and not (in_batch and isinstance(extra, Proposal)):
            raise checks.wrong("extra", "a Proposal, beside proposal=InBatch only", extra)
        if in_batch and group_size is not None:
            raise checks.wrong("group_size", "None with in-batch negatives", group_size)
        drops_accidental_hits(accidental_hits, logq)
        checks.number("seed", seed, ge=0, le=2**63 - 1, integer=True)
        if rank is not None:
            checks.number("rank", rank, ge=0, integer=True)
        if group_size is not None:
            checks.number("group_size", group_size, ge=1, integer=True)
        if in_batch and logq == "none" and prior is not None and prior_weight > 0:
            warnings.warn(
                "in-batch negatives with logq='none' already take popularity out of the scores; "
                "prior= takes it out again. Use logq='standard', or prior=None.",
                UserWarning,
                stacklevel=2,
            )
        if not in_batch or extra is not None:
            checks.number("num_negatives", num_negatives, ge=1, integer=True)
        self.proposal, self.extra, self.num_negatives = proposal, extra, num_negatives
        self.logq, self.accidental_hits, self.group_size = logq, accidental_hits, group_size
        self.seed, self.rank, self.sparse_grad = seed, rank, sparse_grad
        _checked_padding(padding_idx, proposal.num_items)
        if self.log_prior_V is not None and len(self.log_prior_V) != proposal.num_items:
            raise checks.wrong(
                "prior", f"shape [{proposal.num_items}], the items of the proposal", self.log_prior_V
            )
        self.register_buffer("num_steps", torch.zeros((), dtype=torch.int64))
        self.register_buffer("num_eval_steps", torch.zeros((), dtype=torch.int64), persistent=False)

    @classmethod
    def from_counts(
        cls,
        counts: Any,
        *,
        proposal: str = "mixture",
        smoothing: str | float = "loo",
        first_item: int = 0,
        item_ids: Iterable[Any] | None = None,
        **options: Any,
    ) -> Self:
        """The loss with log p of training counts, and negatives drawn by them.

        counts: [V - first_item] events per item, or a mapping with item_ids.
        proposal: a name of `proposal_from_name`, from the same counts.
        smoothing: as in `PopularityPrior.from_counts`. first_item: rows of the table before it are no items
        (padding, masks): never drawn, and rows whose pos_id is 0 are ignored. item_ids: what the table's
        rows stand for, in order, where counts is a mapping {id: events}; rows whose id it lacks come first
        and are no items. options: the module's own.
        Raises TypeError or ValueError: the argument, what was expected, what came.
        """
        counts, first_item = _by_row(counts, item_ids, first_item)
        prior = PopularityPrior.from_counts(counts, smoothing)
        log_prior_V = _behind(first_item, prior.log_prior_V)
        negatives = proposal_from_name(proposal, counts)
        if isinstance(negatives, InBatch):
            negatives = InBatch.from_counts(np.concatenate([np.zeros(first_item), prior.counts_V]))
        elif first_item:
            negatives = negatives.behind(first_item)
        return cls(log_prior_V, negatives, **_padded(first_item, options))

    @property
    def log_proposal_V(self) -> Tensor:  # noqa: N802
        """[V] float32 nats: the distribution of the negatives, on the module's device."""
        return self.proposal.log_proposal_on(self.num_steps.device, torch.float32)

    def forward(
        self, query: Tensor, items: Tensor, pos_id: Tensor, *, step: int | Tensor | None = None, **terms: Any
    ) -> Any:
        is_shared = terms.get("shard") is not None or row_shard.is_dtensor(items)
        if not is_shared:
            readable.tensor("items", items)
        fixed = (
            "logq",
            "accidental_hits",
            "sparse_grad",
            "log_proposal",
            "neg_id",
            "group_size",
            "exclude_diagonal",
            "padding_idx",
        )
        options = self._terms(terms, fixed) | {
            "logq": self.logq,
            "accidental_hits": self.accidental_hits,
            "sparse_grad": self.sparse_grad,
        }
        if isinstance(self.proposal, Proposal):
            draw = self._draw(self.proposal, step, self.group_size, same_everywhere=is_shared)
            return sampled_softmax(
                query, items, pos_id, draw, log_proposal=self._log_proposal(items), **options
            )
        shard = terms.get("shard")
        if is_shared and not (isinstance(shard, RowShard) and shard.queries == "each"):
            expected = (
                "a table in one piece, or rows with a RowShard of queries='each', beside an InBatch proposal"
            )
            raise checks.wrong("items", expected, text="one that processes share")
        neg_id = None
        if self.extra is not None:
            draw = self._draw(self.extra, step, same_everywhere=is_shared)
            neg_id = draw.tensor(1, items.device)[0]
        return self._in_batch_rows(query, items, pos_id, neg_id, options)

    def train(self, mode: bool = True) -> Any:
        self.num_eval_steps.zero_()
        return super().train(mode)

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self.__dict__.setdefault("rank", None)
        if "hits" in self.__dict__:
            self.accidental_hits = self.__dict__.pop("hits")
        self.__dict__.pop("_num_eval_steps", None)
        self._buffers.pop("log_proposal_V", None)
        self._non_persistent_buffers_set.discard("log_proposal_V")
        if "num_eval_steps" not in self._buffers:
            self.register_buffer("num_eval_steps", torch.zeros_like(self.num_steps), persistent=False)

    def _draw(
        self, proposal: Proposal, step: Any, group_size: int | None = None, *, same_everywhere: bool = False
    ) -> Draw:
        rank = self.rank
        if rank is None:
            rank = 0 if same_everywhere else own_rank()
        step = self._next_step() if step is None else step
        return Draw(proposal, seed_of(self.seed, rank), step, self.num_negatives, group_size)

    def _next_step(self) -> int | Tensor:
        if not torch.compiler.is_compiling() and torch._C._current_graph_task_id() != -1:
            raise RuntimeError(
                "step: expected the number of the draw where forward runs within backward, as gradient "
                "checkpointing makes it: the module's own count has moved on; got None"
            )
        count, first = (self.num_steps, 0) if self.training else (self.num_eval_steps, _EVAL_STEPS)
        # Read before it moves on. A device is not waited for, and a traced count is no constant.
        step = int(count) if validation.can_read(count) else count.clone()
        count += 1
        return step + first

    def _in_batch_rows(
        self, query: Tensor, items: Tensor, pos_id: Tensor, neg_id: Tensor | None, options: dict[str, Any]
    ) -> Any:
        """Rows that are ignored are nobody's negatives, either: only the others go in."""
        for name, value in (("query", query), ("pos_id", pos_id)):
            readable.tensor(name, value)
        lead = query.shape[:-1]
        if query.ndim < 2 or pos_id.shape != lead:
            raise checks.wrong("pos_id", "one positive a query with in-batch negatives", pos_id)
        query, pos_id = query.reshape(-1, query.shape[-1]), pos_id.reshape(-1)
        weight = options.get("row_weight")
        if weight is not None:
            checks.shape("row_weight", weight, tuple(lead))
            options["row_weight"] = weight.reshape(-1)
        is_kept = validation.counted(pos_id, options["ignore_index"])
        if is_kept is None and len(pos_id) == 0:
            is_kept = torch.ones_like(pos_id, dtype=torch.bool)
        if is_kept is not None and self.padding_idx is not None:
            is_kept = is_kept & (pos_id != self.padding_idx)
        if is_kept is not None and not torch.compiler.is_compiling() and not (len(pos_id) and is_kept.all()):
            found = self._in_batch_of(is_kept, query, items, pos_id, neg_id, options)
        else:
            found = self._in_batch(query, items, pos_id, neg_id, options)
        loss, *lse = found if isinstance(found, tuple) else (found,)
        loss = loss.view(lead) if options["reduction"] == "none" else loss
        return (loss, lse[0].view(lead)) if lse else loss

    def _in_batch_of(
        self,
        is_kept: Tensor,
        query: Tensor,
        items: Tensor,
        pos_id: Tensor,
        neg_id: Tensor | None,
        options: dict[str, Any],
    ) -> Any:
        if options.get("row_weight") is not None:
            options["row_weight"] = options["row_weight"][is_kept]
        kept, num_rows = is_kept.nonzero()[:, 0], len(pos_id)
        if len(kept) == 0 and options.get("shard") is None:
            nothing = (query[:0].sum() + items[:0].sum()).float()
            found: Any = nothing if options["reduction"] != "none" else nothing.expand(0)
            if options.get("return_lse"):
                found = found, nothing.expand(0)
        else:
            found = self._in_batch(query[kept], items, pos_id[kept], neg_id, options)

        def at_rows(rows: Tensor) -> Tensor:
            return rows.new_zeros(num_rows).index_put((kept,), rows)

        loss, *lse = found if isinstance(found, tuple) else (found,)
        loss = at_rows(loss) if options["reduction"] == "none" else loss
        return (loss, at_rows(lse[0])) if lse else loss

    def _in_batch(
        self, query: Tensor, items: Tensor, pos_id: Tensor, neg_id: Tensor | None, options: dict[str, Any]
    ) -> Any:
        if options.get("shard") is not None:
            return self._in_batch_of_all(query, items, pos_id, neg_id, options)
        log_proposal_V = self._slot_log_proposal(len(pos_id), items)
        if log_proposal_V is not None and validation.can_read(pos_id):
            # As negatives they would be refused by a name that the caller did not give.
            checks.ids_in_range("pos_id", pos_id, len(log_proposal_V))
            bad = pos_id[~torch.isfinite(log_proposal_V[pos_id])]
            if len(bad):
                raise checks.no_proposal("pos_id", int(bad[0]), float(log_proposal_V[bad[0]]))
        return sampled_softmax(
            query,
            items,
            pos_id,
            pos_id if neg_id is None else torch.cat([pos_id, neg_id]),
            log_proposal=log_proposal_V,
            exclude_diagonal=True,
            **options,
        )

    def _in_batch_of_all(
        self, query: Tensor, items: Tensor, pos_id: Tensor, neg_id: Tensor | None, options: dict[str, Any]
    ) -> Any:
        """`_in_batch` of this process's rows beside those of all others, whose items' vectors it fetches."""
        shard = options["shard"]
        every_id = all_rows(pos_id, shard=shard)
        first, total = shard.place_among(len(pos_id), pos_id.device)
        # A row leaves out the slot of its number: its own positive.
        slot_id = every_id.roll(-first)
        slot_id = slot_id if neg_id is None else torch.cat([slot_id, neg_id])
        sparse = {"sparse": self.sparse_grad, "sparse_log_p": self.sparse_grad}
        rows = ItemRows(items, options["log_prior"], slot_id, **sparse, shard=shard)
        assert rows.ids is not None
        log_proposal_V = self._slot_log_proposal(total, items)
        if log_proposal_V is not None:
            bad = every_id[~torch.isfinite(log_proposal_V[every_id])]
            if len(bad):
                raise checks.no_proposal("pos_id", int(bad[0]), float(log_proposal_V[bad[0]]))
        given = options | {
            "log_prior": rows.log_prior,
            "log_proposal": None if log_proposal_V is None else log_proposal_V[rows.ids],
            "sparse_grad": False,
            "padding_idx": None,  # such rows are nobody's by now
            "shard": None,
        }
        if len(pos_id) == 0:  # who has what was fetched waits for its gradients
            log_p = 0.0 if rows.log_prior is None else rows.log_prior.sum()
            nothing = (query.sum() + 0 * (rows.items.sum() + log_p)).float()
            found: Any = nothing if options["reduction"] != "none" else nothing.expand(0)
            return (found, nothing.expand(0)) if options.get("return_lse") else found
        places = rows.places(pos_id), rows.places(slot_id)
        return sampled_softmax(query, rows.items, *places, exclude_diagonal=True, **given)

    def _log_proposal(self, items: Tensor) -> Tensor | None:
        return None if self.logq == "none" else self.proposal.log_proposal_on(items.device, torch.float32)

    def _slot_log_proposal(self, num_rows: int, items: Tensor) -> Tensor | None:
        """log q of a candidate: in-batch alone, or of the mixture (B-1) p + K q over B-1+K."""
        log_proposal_V = self._log_proposal(items)
        if log_proposal_V is None or self.extra is None:
            return log_proposal_V
        log_extra_V = self.extra.log_proposal_on(items.device, torch.float32)
        others = max(num_rows - 1, 0)
        share = self.num_negatives / (others + self.num_negatives)
        if others == 0:
            return log_extra_V
        return torch.logaddexp(log_proposal_V + np.log1p(-share), log_extra_V + np.log(share))


def own_rank() -> int:
    """The process among those of torch.distributed; 0 where there are none."""
    distributed = torch.distributed
    return distributed.get_rank() if distributed.is_available() and distributed.is_initialized() else 0


def _checked_padding(padding_idx: int | None, num_items: int | None) -> int | None:
    if padding_idx is not None:
        most = None if num_items is None else num_items - 1
        checks.number("padding_idx", padding_idx, ge=0, le=most, integer=True)
    return padding_idx


def _log_prior_of(prior: Any) -> Tensor | None:
    if prior is None:
        return None
    if isinstance(prior, PopularityPrior):
        prior = prior.log_prior_V
    if isinstance(prior, (str, bytes)):
        raise checks.wrong_type("prior", "a PopularityPrior, [V] nats or None", prior)
    if not isinstance(prior, Tensor):
        prior = torch.from_numpy(checks.float_array("prior", prior, 1, np.float32))
    vector = prior.detach().float().clone()
    checks.shape("prior", vector, ("V",))
    return vector


def _by_row(counts: Any, item_ids: Iterable[Any] | None, first_item: int) -> tuple[Any, int]:
    """Counts in the order of the table's rows, and the first row that is an item."""
    if item_ids is None:
        if isinstance(counts, Mapping):
            raise checks.wrong("item_ids", "the ids of the table's rows, beside counts by id", None)
        return counts, first_item
    if not isinstance(counts, Mapping):
        raise checks.wrong_type("counts", "a mapping {id: events} beside item_ids", counts)
    if first_item != 0:
        raise checks.wrong("first_item", "0 beside item_ids, which say it", first_item)
    ids = list(item_ids)
    first_item = next((row for row, one in enumerate(ids) if one in counts), len(ids))
    lacking = [row for row in range(first_item, len(ids)) if ids[row] not in counts]
    if lacking or first_item == len(ids):
        row = lacking[0] if lacking else 0
        raise checks.wrong(
            "item_ids",
            "ids that counts has, but for rows before the first item",
            text=f"{ids[row : row + 1]}",
        )
    return [counts[one] for one in ids[first_item:]], first_item


def _behind(first_item: int, log_prior_V: np.ndarray) -> Tensor:
    """log p of a table whose first rows are no items."""
    checks.number("first_item", first_item, ge=0, integer=True)
    return torch.tensor(np.concatenate([np.full(first_item, -np.inf), log_prior_V]))


def _padded(first_item: int, options: dict[str, Any]) -> dict[str, Any]:
    return {"padding_idx": 0, **options} if first_item else options
