"""What a gradient of the softmax ops may be off by, entry by entry: the same backward on absolute values.

A gradient is a sum of terms u (p - target) x, u the upstream gradient, x a number of an item or a query.
Its running bound is the sum of u (p + target) |x|: nothing rounded on the way can be larger.
"""

import math
from collections import Counter
from collections.abc import Callable
from typing import NamedTuple

import torch
from helpers_softmax import (
    dense_full_logits,
    dense_sampled_logits,
    in_dtype,
    loss_and_gradients,
    upstream_of,
    without_removed,
)
from torch import Tensor

# What implementations round to 16 bits on the way to a gradient of rows: a probability, the query with
# its factor, the sum itself. Each is off by eps / 2 of its term at most.
ROUNDINGS = 3


class Softmax(NamedTuple):
    """The rows of a batch as candidates; J = 1 + K or V."""

    logit_BJ: Tensor
    id_BJ: Tensor  # int64
    target_BJ: Tensor  # what the loss holds the probabilities against


def sampled(inputs: dict) -> Softmax:
    """The rows of `ops.sampled_softmax`, float64."""
    inputs = in_dtype(inputs, torch.float64)
    logit_BJ, id_BJ = dense_sampled_logits(**inputs)
    target_BJ = torch.zeros_like(logit_BJ)
    target_BJ[:, 0] = 1
    return Softmax(logit_BJ, id_BJ, target_BJ)


def full(inputs: dict) -> Softmax:
    """The rows of `ops.full_softmax`, float64."""
    inputs = in_dtype(inputs, torch.float64)
    options = {name: value for name, value in inputs.items() if name not in ("query", "items")}
    logit_BJ = dense_full_logits(inputs["query"], inputs["items"], **options)
    smoothing = inputs.get("label_smoothing", 0.0)
    kept_BJ = torch.isfinite(logit_BJ)
    target_BJ = smoothing * kept_BJ.double() / kept_BJ.sum(1, keepdim=True).clamp(min=1)
    pos_B1 = inputs["pos_id"].clamp(min=0)[:, None]
    target_BJ.scatter_add_(1, pos_B1, torch.full(pos_B1.shape, 1 - smoothing, dtype=torch.float64))
    id_BJ = torch.arange(logit_BJ.shape[1]).expand_as(logit_BJ)
    return Softmax(logit_BJ, id_BJ, target_BJ)


def gradients(softmax: Softmax, inputs: dict, loss_B: Tensor, absolute: bool = False) -> dict[str, Tensor]:
    """Gradients by the formula, float64, at the upstream gradients of these tests; `absolute`: their
    running bounds. Rows that are ignored or infinite give none."""
    inputs = in_dtype(inputs, torch.float64)
    size = torch.abs if absolute else torch.clone
    query_BD, item_VD, log_prior_V = inputs["query"], inputs["items"], inputs.get("log_prior")
    if isinstance(inputs.get("prior_weight"), float) and inputs["prior_weight"] == 0:
        log_prior_V = None
    if log_prior_V is not None:
        item_VD = without_removed(item_VD, log_prior_V)
    upstream_B = upstream_of(loss_B.double())
    upstream_B = torch.where(inputs["pos_id"] >= 0, upstream_B, 0)
    p_BJ = torch.softmax(softmax.logit_BJ, 1).nan_to_num(0.0)
    d_BJ = p_BJ + softmax.target_BJ if absolute else p_BJ - softmax.target_BJ
    d_BJ = upstream_B[:, None] * d_BJ
    scale = torch.as_tensor(inputs.get("scale", 1.0), dtype=torch.float64)
    weight = torch.as_tensor(inputs.get("prior_weight", 1.0), dtype=torch.float64)
    query_BD, item_VD = size(query_BD), size(item_VD)
    d_BV = torch.zeros(len(query_BD), len(item_VD), dtype=torch.float64)
    d_BV.scatter_add_(1, softmax.id_BJ, d_BJ)
    of_logits_V = d_BV.sum(0)
    found = {
        "query": size(scale) * (d_BV @ item_VD),
        "items": size(scale) * (d_BV.T @ query_BD),
        "scale": (d_BV * (query_BD @ item_VD.T)).sum(),
    }
    if log_prior_V is not None:
        finite_V = torch.isfinite(log_prior_V)
        found["log_prior"] = torch.where(finite_V, size(weight) * of_logits_V, 0)
        found["prior_weight"] = (of_logits_V * size(torch.where(finite_V, log_prior_V, 0))).sum()
    return found


class Budget(NamedTuple):
    """What the gradients of one case may be off by."""

    plain: dict[str, Tensor]  # plain torch's, in float32 (float64 where the case is)
    truth: dict[str, Tensor]  # float64
    bound: dict[str, Tensor]  # running bounds

    def check(self, grads: dict[str, Tensor], dtypes: dict[str, torch.dtype]) -> None:
        for name, grad in grads.items():
            self.check_one(name, grad, dtypes[name])

    def check_one(self, name: str, got: Tensor, dtype: torch.dtype) -> None:
        """err <= 2 (error of plain torch + eps of the largest running bound) in float32; an entry that
        16 bits hold may be off by ROUNDINGS / 2 eps of its own running bound, too."""
        assert got.dtype == dtype
        truth, bound = self.truth[name], self.bound[name]
        assert torch.isfinite(got).all(), f"gradient of {name}: not finite"
        if not truth.numel():
            return
        wide = self.plain[name].dtype
        if wide == torch.float64:
            # No truth is above it: two orders of summation may differ by rounding.
            allowed = torch.full_like(truth, 1e-13 * max(bound.max().item(), 1.0))
        else:
            own = (self.plain[name].double() - truth).abs().max().item()
            # A probability is off by eps times its logit, whoever rounds it: where the sum is of nothing
            # else, the bound is the sum of the upstream gradients.
            largest = 1.0 if name == "log_prior" else bound.max().item()
            allowed = torch.full_like(truth, 2 * (own + torch.finfo(wide).eps * largest))
        if dtype != wide:
            info = torch.finfo(dtype)
            allowed = allowed + ROUNDINGS / 2 * info.eps * bound + info.smallest_normal * info.eps / 2
        error = (got.double() - truth).abs()
        worst = int((error / allowed).argmax())
        assert (error <= allowed).all(), (
            f"gradient of {name}: error {error.flatten()[worst]:.3g}, allowed "
            f"{allowed.flatten()[worst]:.3g} at entry {worst}, whose running bound is "
            f"{bound.flatten()[worst]:.3g}"
        )


ROWS = ("query", "items")


class Trial(NamedTuple):
    """A case as a judge of backwards: does it notice one that is wrong?"""

    inputs: dict
    budget: Budget
    candidates: Callable[[dict], Softmax]
    loss_B: Tensor

    @classmethod
    def of(cls, inputs: dict, dtype: torch.dtype, losses: Callable, candidates: Callable) -> "Trial":
        inputs = inputs | {name: inputs[name].to(dtype) for name in ROWS}
        loss_B, truth = loss_and_gradients(losses, in_dtype(inputs, torch.float64), ROWS)
        _, plain = loss_and_gradients(losses, in_dtype(inputs, torch.float32), ROWS)
        bound = gradients(candidates(inputs), inputs, loss_B, absolute=True)
        return cls(inputs, Budget(plain, truth, bound), candidates, loss_B)

    def gradients(self, **others) -> dict[str, Tensor]:
        """By the formula, with the probabilities of other inputs."""
        found = gradients(self.candidates(self.inputs | others), self.inputs, self.loss_B)
        return {name: found[name] for name in ROWS}

    def notices(self, grads: dict[str, Tensor]) -> bool:
        dtype = self.inputs["query"].dtype
        try:
            self.budget.check(
                {name: grad.to(dtype) for name, grad in grads.items()}, dict.fromkeys(grads, dtype)
            )
        except AssertionError as said:
            if "running bound" not in str(said):  # another assertion
                raise
            return True
        return False


def _without_prior(trial: Trial) -> dict[str, Tensor]:
    log_prior_V = trial.inputs["log_prior"]
    if log_prior_V is None:
        return trial.gradients()
    return trial.gradients(log_prior=torch.where(log_prior_V == -math.inf, log_prior_V, 0))


def _with_log_q_flipped(trial: Trial) -> dict[str, Tensor]:
    log_proposal_V = trial.inputs.get("log_proposal")
    return trial.gradients() if log_proposal_V is None else trial.gradients(log_proposal=-log_proposal_V)


# Backwards that are wrong: the gradients of rows that they would give.
MUTATIONS = {
    "times .95": lambda trial: {name: 0.95 * grad for name, grad in trial.budget.truth.items()},
    "times .98": lambda trial: {name: 0.98 * grad for name, grad in trial.budget.truth.items()},
    "the prior left out of the probabilities": _without_prior,
    "log Q with the other sign": _with_log_q_flipped,
}


def noticed_by(cases: dict, dtype: torch.dtype, losses: Callable, candidates: Callable) -> Counter:
    """How many cases notice each mutation; one must where its gradients change, and only there."""
    noticed: Counter = Counter()
    for case, make in cases.items():
        trial = Trial.of(make(), dtype, losses, candidates)
        assert not trial.notices(trial.budget.truth)
        for name, mutation in MUTATIONS.items():
            wrong = mutation(trial)
            changes = any(
                not torch.allclose(wrong[one], trial.budget.truth[one], rtol=1e-3, atol=1e-12)
                for one in wrong
            )
            assert trial.notices(wrong) == changes, (case, name)
            noticed[name] += changes
    return noticed
