"""Softmax losses as modules, for fastpop's trainer and for anybody else's."""

import warnings
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fastpop import checks, ops
from fastpop.decoder import WithLaws
from fastpop.ops.sampled_softmax import drops_hits
from fastpop.popularity import Draw, InBatch, PopularityPrior, Proposal
from fastpop.types import Hits, LogQ, Reduction

_EVAL_STEPS = 2**62


class _SoftmaxLoss(WithLaws):
    log_prior_V: Tensor | None

    def __init__(self, prior: Any, prior_weight: float, scale: float, reduction: str):
        super().__init__()
        checks.number("prior_weight", prior_weight)
        checks.number("scale", scale, above=0)
        checks.one_of("reduction", reduction, ("none", "mean", "sum"))
        self.prior_weight, self.scale, self.reduction = prior_weight, scale, reduction
        self.register_buffer("log_prior_V", _log_prior_of(prior), persistent=False)

    def _terms(self, terms: dict[str, Any], fixed: tuple[str, ...]) -> dict[str, Any]:
        """The module's own prior and scale, unless the caller's decoder brings them."""
        for name in fixed:
            if name in terms:
                raise checks.wrong(name, "an option of the module, not of a call", f"={terms[name]!r}")
        own = {"log_prior": self.log_prior_V, "prior_weight": self.prior_weight,
               "scale": self.scale, "reduction": self.reduction}
        return own | terms


class FullSoftmaxLoss(_SoftmaxLoss):
    """`fastpop.ops.full_softmax` with a fixed prior: cross-entropy over the whole catalogue.

    Args:
        prior: a PopularityPrior, [V] log p(i) in nats, or None.
        prior_weight: τ. scale: inverse temperature. label_smoothing: ε in [0, 1).
        reduction: "none", "mean" or "sum".

    forward(query [B, D], items [V, D], pos_id [B]) -> loss. Keywords of the op
    (`row_weight`, `log_prior`, `prior_weight`, `scale`, `reduction`, ...) override the module's.
    """

    def __init__(
        self, prior: PopularityPrior | Tensor | np.ndarray | None = None, *,
        prior_weight: float = 1.0, scale: float = 1.0, label_smoothing: float = 0.0,
        reduction: Reduction = "mean",
    ):
        super().__init__(prior, prior_weight, scale, reduction)
        checks.number("label_smoothing", label_smoothing, least=0)
        if label_smoothing >= 1:
            raise checks.wrong("label_smoothing", "a number in [0, 1)", label_smoothing)
        self.label_smoothing = label_smoothing

    def forward(self, query: Tensor, items: Tensor, pos_id: Tensor, **terms: Any) -> Tensor:
        return ops.full_softmax(query, items, pos_id, label_smoothing=self.label_smoothing,
                                **self._terms(terms, ("label_smoothing",)))


class SampledSoftmaxLoss(_SoftmaxLoss):
    """`fastpop.ops.sampled_softmax` that draws its own negatives.

    Args:
        prior: a PopularityPrior, [V] log p(i) in nats, or None: what is added to the dot product.
        proposal: the law of the negatives (`fastpop.popularity.uniform`, `power`, ...), or an
            InBatch: then the other rows' positives are the negatives, joined by `num_negatives`
            draws of `extra` when that is given, all corrected by the law of the mixture.
        num_negatives: K draws a group (unused by a plain InBatch).
        extra: the Proposal beside an InBatch.
        prior_weight: τ. scale: inverse temperature. logq, hits: see the op.
        group_size: rows that share a draw; None: all rows, 1: a draw for each row.
        seed: of the draws, which depend on (seed, step) alone. sparse_grad: see the op.
        reduction: "none", "mean" or "sum".

    forward(query [B, D], items [V, D], pos_id [B], step=None) -> loss. `step` numbers the draw;
    without it the module counts its own calls (`num_steps`, kept in the state dict), which
    torch.compile(fullgraph=True) cannot follow: give it there. In eval mode draws come from steps that
    training never reaches, the same after every eval(): validation losses compare, and leave training's
    draws alone. Keywords of the op (`row_weight`,
    `log_prior`, `prior_weight`, `scale`, ...) override the module's; what the module was made for
    (`logq`, `hits`, `sparse_grad`, ...) stays.
    """

    num_steps: Tensor
    log_proposal_V: Tensor

    def __init__(
        self, prior: PopularityPrior | Tensor | np.ndarray | None, proposal: Proposal | InBatch, *,
        num_negatives: int = 8192, extra: Proposal | None = None, prior_weight: float = 1.0,
        scale: float = 1.0, logq: LogQ = "standard", hits: Hits | None = None,
        group_size: int | None = None, seed: int = 0, sparse_grad: bool = False,
        reduction: Reduction = "mean",
    ):
        super().__init__(prior, prior_weight, scale, reduction)
        if not isinstance(proposal, (Proposal, InBatch)):
            raise checks.wrong_type("proposal", "a fastpop.popularity Proposal or InBatch", proposal)
        checks.one_of("logq", logq, ("standard", "corrected", "none"))
        in_batch = isinstance(proposal, InBatch)
        if extra is not None and not (in_batch and isinstance(extra, Proposal)):
            raise checks.wrong("extra", "a Proposal, beside proposal=InBatch only", extra)
        if in_batch and group_size is not None:
            raise checks.wrong("group_size", "None with in-batch negatives", group_size)
        drops_hits(hits, logq)
        checks.number("seed", seed, least=0, most=2**63 - 1, integer=True)
        if group_size is not None:
            checks.number("group_size", group_size, least=1, integer=True)
        if in_batch and logq == "none" and prior is not None and prior_weight > 0:
            warnings.warn(
                "in-batch negatives with logq='none' already take popularity out of the scores; "
                "prior= takes it out again. Use logq='standard', or prior=None.", UserWarning,
                stacklevel=2)
        if not in_batch or extra is not None:
            checks.number("num_negatives", num_negatives, least=1, integer=True)
        self.proposal, self.extra, self.num_negatives = proposal, extra, num_negatives
        self.logq, self.hits, self.group_size = logq, hits, group_size
        self.seed, self.sparse_grad = seed, sparse_grad
        log_law_V = torch.from_numpy(proposal.log_proposal_V.astype(np.float32))
        if self.log_prior_V is not None and self.log_prior_V.shape != log_law_V.shape:
            raise checks.wrong("prior", f"shape [{len(log_law_V)}], the items of the proposal",
                               self.log_prior_V)
        self.register_buffer("log_proposal_V", log_law_V, persistent=False)
        self.register_buffer("num_steps", torch.zeros((), dtype=torch.int64))
        self._num_eval_steps = 0

    def forward(
        self, query: Tensor, items: Tensor, pos_id: Tensor, *, step: int | None = None, **terms: Any
    ) -> Tensor:
        if step is None:
            step = self._next_step()
        fixed = ("logq", "hits", "sparse_grad", "log_proposal", "neg_id", "group_size", "exclude_own_slot")
        options = self._terms(terms, fixed) | {
            "logq": self.logq, "hits": self.hits, "sparse_grad": self.sparse_grad,
        }
        if isinstance(self.proposal, Proposal):
            draw = Draw(self.proposal, self.seed, step, self.num_negatives, self.group_size)
            return ops.sampled_softmax(query, items, pos_id, draw, log_proposal=self._law(), **options)
        if pos_id.ndim != 1:
            raise checks.wrong("pos_id", "shape [B] with in-batch negatives", pos_id)
        is_kept = pos_id != options.get("ignore_index", -100)
        if not torch.compiler.is_compiling() and (len(pos_id) == 0 or not is_kept.all()):
            return self._in_batch_of(is_kept, query, items, pos_id, step, options)
        return self._in_batch(query, items, pos_id, step, options)

    def train(self, mode: bool = True) -> "SampledSoftmaxLoss":
        self._num_eval_steps = 0
        return super().train(mode)

    def _next_step(self) -> int:
        if self.training:
            self.num_steps += 1
            return int(self.num_steps) - 1
        self._num_eval_steps += 1
        return _EVAL_STEPS + self._num_eval_steps - 1

    def _in_batch_of(
        self, is_kept: Tensor, query: Tensor, items: Tensor, pos_id: Tensor, step: int,
        options: dict[str, Any],
    ) -> Any:
        """Rows that are ignored are nobody's negatives, either."""
        if options.get("row_weight") is not None:
            options["row_weight"] = options["row_weight"][is_kept]
        kept, num_rows = is_kept.nonzero()[:, 0], len(pos_id)
        if len(kept) == 0:
            nothing = (query[:0].sum() + items[:0].sum()).float()
            found: Any = nothing if options["reduction"] != "none" else nothing.expand(0)
            if options.get("return_lse"):
                found = found, nothing.expand(0)
        else:
            found = self._in_batch(query[kept], items, pos_id[kept], step, options)

        def at_rows(rows: Tensor) -> Tensor:
            return rows.new_zeros(num_rows).index_put((kept,), rows)

        loss, *lse = found if isinstance(found, tuple) else (found,)
        loss = at_rows(loss) if options["reduction"] == "none" else loss
        return (loss, at_rows(lse[0])) if lse else loss

    def _in_batch(
        self, query: Tensor, items: Tensor, pos_id: Tensor, step: int, options: dict[str, Any]
    ) -> Any:
        neg_id = pos_id
        if self.extra is not None:
            draw = Draw(self.extra, self.seed, step, self.num_negatives)
            neg_id = torch.cat([pos_id, draw.tensor(1, pos_id.device)[0]])
        return ops.sampled_softmax(
            query, items, pos_id, neg_id, log_proposal=self._slot_law(len(pos_id)),
            exclude_own_slot=True, **options,
        )

    def _law(self) -> Tensor | None:
        return None if self.logq == "none" else self.log_proposal_V

    def _slot_law(self, num_rows: int) -> Tensor | None:
        """Law of a candidate slot: in-batch alone, or (B-1) p + K q over B-1+K."""
        if self.logq == "none" or self.extra is None:
            return self._law()
        log_extra_V = self.extra.log_proposal_on(self.log_proposal_V.device, torch.float32)
        others = max(num_rows - 1, 0)
        share = self.num_negatives / (others + self.num_negatives)
        if others == 0:
            return log_extra_V
        return torch.logaddexp(self.log_proposal_V + np.log1p(-share), log_extra_V + np.log(share))


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
