"""full_softmax as torch operators: what autograd, torch.compile and graph capture see of it.

forward gives (lse, pos_logit) of every row, backward the gradients of
sum(d_lse * lse + d_pos * pos_logit). Which implementation runs is decided inside them, where real
tensors are. Under torch.compile ids are range-checked here: the public function could not check them.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from fastpop.kernels.full_softmax import reference
from fastpop.kernels.full_softmax.reference import Gradients, Inputs, Needs
from fastpop.ops import _dispatch, readable, validation
from fastpop.ops._counted import CountedRows
from fastpop.ops._signature import Signature


class Options(NamedTuple):
    """What the operators are told beside the inputs."""

    ignore_index: int
    impl: str
    check_ids: bool


SIGNATURE = Signature(Inputs, Options, Needs)
GRADIENTS = ", ".join(f"Tensor d_{name}" for name in Needs._fields)


def forward(*args: Any) -> tuple[Tensor, Tensor]:
    rows, inputs, module, _ = _enter(args)
    with validation.without_autocast(inputs.query_BD):
        lse_B, pos_logit_B = module.forward(inputs)
        # The positive is one of the sum's terms, made in another order there: a loss is never negative.
        return rows.spread(torch.maximum(lse_B, pos_logit_B)), rows.spread(pos_logit_B)


def backward(*args: Any) -> tuple[Tensor, ...]:
    rows, inputs, module, (*upstream, bits) = _enter(args)
    with validation.without_autocast(inputs.query_BD):
        grads: Gradients = module.backward(inputs, *rows.gathered(*upstream), SIGNATURE.needs_of(bits))
    if inputs.query_BD is not args[0]:
        grads = grads._replace(query_BD=rows.spread(grads.query_BD))
    return tuple(
        inputs.query_BD.new_empty(0) if grad is None or like is None else grad.to(like.dtype)
        for grad, like in zip(grads, SIGNATURE.likes(args))
    )


def _enter(args: tuple) -> tuple[CountedRows, Inputs, Any, tuple]:
    inputs, options, rest = SIGNATURE.read(args)
    if options.check_ids:
        validation.check_range(
            "pos_id", inputs.pos_id_B, len(inputs.item_VD), ignore_index=options.ignore_index
        )
    rows = CountedRows(inputs.query_BD, inputs.pos_id_B, options.ignore_index)
    if rows.query is not inputs.query_BD:
        inputs = inputs._replace(query_BD=rows.query, pos_id_B=rows.pos_id)
    device = inputs.query_BD.device.type
    module = _dispatch.choose("full_softmax", options.impl, device, inputs)
    if module is reference and device == "cpu":
        validation.check_found(reference.bad_ids(inputs), inputs.log_prior_V, None)
    return rows, inputs, module, rest


def _fake_forward(*args: Any) -> tuple[Tensor, Tensor]:
    readable.outside_jvp("query")
    query = args[0]
    dtype = torch.float64 if query.dtype == torch.float64 else torch.float32
    return query.new_empty(query.shape[0], dtype=dtype), query.new_empty(query.shape[0], dtype=dtype)


def _fake_backward(*args: Any) -> tuple[Tensor, ...]:
    readable.outside_jvp("query")
    needs = SIGNATURE.needs_of(args[-1])
    if SIGNATURE.value(args, "log_prior") is None:
        needs = needs._replace(prior_weight=False)
    return tuple(
        torch.empty_like(like, memory_format=torch.contiguous_format)
        if need and like is not None
        else args[0].new_empty(0)
        for need, like in zip(needs, SIGNATURE.likes(args))
    )


def _save(ctx: Any, inputs: tuple, output: tuple) -> None:
    SIGNATURE.keep(ctx, inputs, *output)
    ctx.set_materialize_grads(False)


def _gradient(ctx: Any, d_lse_B: Tensor | None, d_pos_B: Tensor | None) -> tuple:
    args, (lse_B, pos_logit_B) = SIGNATURE.kept(ctx)
    zero_B, needs = torch.zeros_like(lse_B), SIGNATURE.asked(ctx)
    grads = torch.ops.fastpop.full_softmax_backward(
        *args,
        lse_B,
        pos_logit_B,
        zero_B if d_lse_B is None else d_lse_B,
        zero_B if d_pos_B is None else d_pos_B,
        SIGNATURE.bits(needs),
    )
    if SIGNATURE.value(args, "log_prior") is None:
        needs = needs._replace(log_prior=False, prior_weight=False)
    return SIGNATURE.gradients([grad if need else None for grad, need in zip(grads, needs)])


def _register() -> None:
    operator = torch.library.custom_op(
        "fastpop::full_softmax_forward",
        forward,
        mutates_args=(),
        schema=f"({SIGNATURE.schema}) -> (Tensor lse, Tensor pos_logit)",
    )
    operator.register_fake(_fake_forward)
    operator.register_autograd(_gradient, setup_context=_save)
    operator = torch.library.custom_op(
        "fastpop::full_softmax_backward",
        backward,
        mutates_args=(),
        schema=f"({SIGNATURE.schema}, Tensor lse, Tensor pos_logit, Tensor d_lse, Tensor d_pos, int needs) "
        f"-> ({GRADIENTS})",
    )
    operator.register_fake(_fake_backward)
    validation.refuse_second_derivative(operator, "full_softmax")


_register()
