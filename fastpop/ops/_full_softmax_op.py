"""full_softmax as torch operators: what autograd, torch.compile and graph capture see of it.

forward gives (lse, pos_logit) of every row, backward the gradients of
sum(d_lse * lse + d_pos * pos_logit). Which implementation runs is decided inside them, where real
tensors are. Under torch.compile ids are range-checked here: the public door could not look at them.
"""

from typing import Any

import torch
from torch import Tensor

from fastpop.kernels.full_softmax.reference import Gradients, Inputs
from fastpop.kernels.sampled_softmax.reference import Needs
from fastpop.ops import _dispatch, _door
from fastpop.ops._counted import CountedRows

INPUTS = ("Tensor query, Tensor items, Tensor pos_id, Tensor? log_prior, Tensor prior_weight, "
          "Tensor scale, int ignore_index, str impl, bool check_ids")
NUM_INPUTS = INPUTS.count(",") + 1
NUM_TENSORS = 6
GRADIENTS = "(Tensor d_query, Tensor d_items, Tensor d_log_prior, Tensor d_weight, Tensor d_scale)"


def forward(*args: Any) -> tuple[Tensor, Tensor]:
    rows, inputs, module = _enter(args)
    with _door.without_autocast(inputs.query_BD):
        lse_B, pos_logit_B = module.forward(inputs)
        # The positive is one of the sum's terms, made in another order there: a loss is never negative.
        return rows.spread(torch.maximum(lse_B, pos_logit_B)), rows.spread(pos_logit_B)


def backward(*args: Any) -> tuple[Tensor, ...]:
    rows, inputs, module = _enter(args[:NUM_INPUTS])
    upstream, needs = rows.gathered(*args[NUM_INPUTS:-1]), args[-1]
    with _door.without_autocast(inputs.query_BD):
        grads: Gradients = module.backward(inputs, *upstream, _door.needs_of_bits(needs))
    of = (inputs.query_BD, inputs.item_VD, inputs.log_prior_V, inputs.prior_weight, inputs.scale)
    grads = Gradients(rows.spread(grads.query_BD), *grads[1:])
    return tuple(inputs.query_BD.new_empty(0) if grad is None or like is None else grad.to(like.dtype)
                 for grad, like in zip(grads, of))


def _enter(args: tuple) -> tuple[CountedRows, Inputs, Any]:
    query, items, pos_id, *others, ignore_index, impl, check_ids = args
    if check_ids:
        _door.check_range("pos_id", pos_id, items.shape[0], ignore_index=ignore_index)
    rows = CountedRows(query, pos_id, ignore_index)
    inputs = Inputs(rows.query, items, rows.pos_id, *others)
    return rows, inputs, _dispatch.choose("full_softmax", impl, query.device.type, inputs)


def _fake_forward(*args: Any) -> tuple[Tensor, Tensor]:
    query = args[0]
    dtype = torch.float64 if query.dtype == torch.float64 else torch.float32
    return query.new_empty(query.shape[0], dtype=dtype), query.new_empty(query.shape[0], dtype=dtype)


def _fake_backward(*args: Any) -> tuple[Tensor, ...]:
    inputs, needs = Inputs(*args[:NUM_TENSORS]), _door.needs_of_bits(args[-1])
    of = (inputs.query_BD, inputs.item_VD, inputs.log_prior_V,
          None if inputs.log_prior_V is None else inputs.prior_weight, inputs.scale)
    return tuple(torch.empty_like(like, memory_format=torch.contiguous_format)
                 if need and like is not None else inputs.query_BD.new_empty(0)
                 for need, like in zip(needs, of))


def _save(ctx: Any, inputs: tuple, output: tuple) -> None:
    ctx.save_for_backward(*inputs[:NUM_TENSORS], *output)
    ctx.options = inputs[NUM_TENSORS:]
    ctx.set_materialize_grads(False)


def _gradient(ctx: Any, d_lse_B: Tensor | None, d_pos_B: Tensor | None) -> tuple:
    *tensors, lse_B, pos_logit_B = ctx.saved_tensors
    zero_B = torch.zeros_like(lse_B)
    asked = ctx.needs_input_grad
    needs = Needs(query=asked[0], item=asked[1], log_prior=asked[3], prior_weight=asked[4],
                  scale=asked[5])
    d_query, d_items, d_log_prior, d_weight, d_scale = torch.ops.fastpop.full_softmax_backward(
        *tensors, *ctx.options, lse_B, pos_logit_B, zero_B if d_lse_B is None else d_lse_B,
        zero_B if d_pos_B is None else d_pos_B, _door.bits_of_needs(needs))
    has_prior = tensors[3] is not None
    return (
        d_query if needs.query else None, d_items if needs.item else None, None,
        d_log_prior if needs.log_prior and has_prior else None,
        d_weight if needs.prior_weight and has_prior else None,
        d_scale if needs.scale else None, None, None, None,
    )


def _register() -> None:
    operator = torch.library.custom_op(
        "fastpop::full_softmax_forward", forward, mutates_args=(),
        schema=f"({INPUTS}) -> (Tensor lse, Tensor pos_logit)")
    operator.register_fake(_fake_forward)
    operator.register_autograd(_gradient, setup_context=_save)
    operator = torch.library.custom_op(
        "fastpop::full_softmax_backward", backward, mutates_args=(),
        schema=f"({INPUTS}, Tensor lse, Tensor pos_logit, Tensor d_lse, Tensor d_pos, int needs) "
               f"-> {GRADIENTS}")
    operator.register_fake(_fake_backward)
    _door.refuse_second_derivative(operator, "full_softmax")


_register()
