"""sampled_softmax as torch operators: what autograd, torch.compile and graph capture see of it.

Three opaque operators over the same inputs:

- forward: (lse, pos_logit) of every row; its gradient is asked of `backward`.
- loss: the weighted sum of the rows' losses, and its gradients in the same pass: the logits are
  made once instead of twice. Its own gradient only multiplies by what comes from upstream.
- backward: gradients of sum(d_lse * lse + d_pos * pos_logit).

Which implementation runs is decided inside them, where real tensors are. `fixed_rows` is set under
torch.compile and graph capture, where a result's shape may not depend on values: then the gradient
of the table has B + G K rows (zeros after the unique ids), and ids are range-checked here, because
the public door could not look at them. Rows that are ignored stay out of the implementation
(`_counted.py`); their lse and pos_logit are 0.
"""

from typing import Any

import torch
from torch import Tensor

from fastpop.kernels.sampled_softmax.reference import Gradients, Inputs, Needs, Negatives
from fastpop.ops import _dispatch, _door
from fastpop.ops._counted import CountedRows

INPUTS = (
    "Tensor query, Tensor items, Tensor pos_id, Tensor? neg_id, Tensor? table, Tensor? counter, "
    "Tensor? log_prior, Tensor prior_weight, Tensor? log_proposal, Tensor scale, Tensor? key, "
    "SymInt num_groups, SymInt num_negatives, SymInt group_size, "
    "str logq, bool drop_hits, bool exclude_own_slot, int ignore_index, str impl, bool sparse_grad, "
    "bool fixed_rows"
)
NUM_INPUTS = INPUTS.count(",") + 1
NUM_TENSORS = 11
GRADIENTS = "(Tensor d_query, Tensor id, Tensor d_item, Tensor d_log_prior, Tensor d_weight, Tensor d_scale)"


def forward(*args: Any) -> tuple[Tensor, Tensor]:
    rows, inputs, module = _enter(args)
    with _door.without_autocast(inputs.query_BD):
        lse_B, pos_logit_B = module.forward(inputs)
    return rows.spread(lse_B), rows.spread(pos_logit_B)


def loss(*args: Any) -> tuple[Tensor, ...]:
    rows, inputs, module = _enter(args[:NUM_INPUTS])
    weight_B, needs = args[NUM_INPUTS], _door.needs_of_bits(args[NUM_INPUTS + 1])
    if rows.kept is not None:
        weight_B = weight_B[rows.kept]
    with _door.without_autocast(inputs.query_BD):
        if hasattr(module, "forward_backward") and module.can_fuse(inputs):
            lse_B, pos_logit_B, grads = module.forward_backward(inputs, weight_B, needs)
        else:
            lse_B, pos_logit_B = module.forward(inputs)
            grads = module.backward(inputs, lse_B, pos_logit_B, weight_B, -weight_B, needs)
        total = _door.weighted(_door.loss_of(lse_B, pos_logit_B), weight_B).sum()
    return (total, *_gradients(args, rows, grads, wide=True))


def backward(*args: Any) -> tuple[Tensor, ...]:
    rows, inputs, module = _enter(args[:NUM_INPUTS])
    upstream, needs = rows.gathered(*args[NUM_INPUTS:-1]), args[-1]
    with _door.without_autocast(inputs.query_BD):
        grads = module.backward(inputs, *upstream, _door.needs_of_bits(needs))
    return _gradients(args, rows, grads)


def _enter(args: tuple) -> tuple[CountedRows, Inputs, Any]:
    inputs, ignore_index = inputs_of(args), args[NUM_INPUTS - 4]
    negatives = inputs.negatives
    if args[NUM_INPUTS - 1]:
        num_items = inputs.item_VD.shape[0]
        _door.check_range("pos_id", inputs.pos_id_B, num_items, ignore_index=ignore_index)
        if negatives.id_GK is not None:
            _door.check_range("neg_id", negatives.id_GK, num_items)
    # Rows move up only where that changes neither their negatives nor their own slot.
    own_ids = negatives.id_GK is not None and negatives.group_size == 1
    rows = CountedRows(inputs.query_BD, inputs.pos_id_B, ignore_index,
                       drop=(negatives.num_groups == 1 or own_ids) and not inputs.exclude_own_slot)
    if rows.kept is not None:
        negatives = _negatives_of(negatives, rows.kept, own_ids)
    inputs = inputs._replace(query_BD=rows.query, pos_id_B=rows.pos_id, negatives=negatives)
    impl = args[NUM_INPUTS - 3]
    return rows, inputs, _dispatch.choose("sampled_softmax", impl, inputs.query_BD.device.type, inputs)


def _negatives_of(negatives: Negatives, kept: Tensor, own_ids: bool) -> Negatives:
    """The groups of the rows that are kept: their own sets, one set for all, or any where none is kept."""
    if own_ids and len(kept):
        return negatives._replace(id_GK=negatives.id_GK[kept], num_groups=len(kept))  # type: ignore[index]
    first_1K = None if negatives.id_GK is None else negatives.id_GK[:1]
    return negatives._replace(id_GK=first_1K, num_groups=1, group_size=max(len(kept), 1))


def inputs_of(args: tuple) -> Inputs:
    (query, items, pos_id, neg_id, table, counter, log_prior, prior_weight, log_proposal, scale, key,
     num_groups, num_negatives, group_size, logq, drop_hits, exclude_own_slot, *_) = args
    negatives = Negatives(neg_id, table, counter, num_groups, num_negatives, group_size)
    return Inputs(query, items, pos_id, negatives, log_prior, prior_weight, log_proposal, scale,
                  logq, drop_hits, exclude_own_slot, key)


def _most_rows(inputs: Inputs) -> int:
    return inputs.query_BD.shape[0] + inputs.negatives.num_groups * inputs.negatives.num_negatives


def _gradients(
    args: tuple, rows: CountedRows, grads: Gradients, *, wide: bool = False
) -> tuple[Tensor, ...]:
    """Gradients in the dtypes of their inputs, empty where not needed. wide: in float32 for half inputs:
    they are yet to be multiplied, and a loss scale is there to lift them above what float16 drops."""
    inputs, fixed_rows = inputs_of(args), args[NUM_INPUTS - 1]

    def done(grad: Tensor | None, like: Tensor | None) -> Tensor:
        if grad is None or like is None:
            return inputs.query_BD.new_empty(0)
        return grad.to(_widened(like.dtype) if wide else like.dtype)

    id_n, item_nD, log_prior_n = grads.id_n, grads.item_nD, grads.log_prior_n
    if fixed_rows and id_n is not None:
        missing = _most_rows(inputs) - len(id_n)
        last = id_n[-1:] if len(id_n) else id_n.new_zeros(1)
        id_n = torch.cat([id_n, last.expand(missing)])
        if item_nD is not None:
            item_nD = torch.cat([item_nD, item_nD.new_zeros(missing, item_nD.shape[1])])
        if log_prior_n is not None:
            log_prior_n = torch.cat([log_prior_n, log_prior_n.new_zeros(missing)])
    return (
        done(rows.spread(grads.query_BD), inputs.query_BD),
        inputs.pos_id_B.new_empty(0) if id_n is None else id_n,
        done(item_nD, inputs.item_VD), done(log_prior_n, inputs.log_prior_V),
        done(grads.prior_weight, inputs.prior_weight), done(grads.scale, inputs.scale),
    )


def _widened(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype == torch.float64 else torch.float32


def _fake_forward(*args: Any) -> tuple[Tensor, Tensor]:
    query = args[0]
    dtype = _widened(query.dtype)
    return query.new_empty(query.shape[0], dtype=dtype), query.new_empty(query.shape[0], dtype=dtype)


def _fake_loss(*args: Any) -> tuple[Tensor, ...]:
    lse_B, _ = _fake_forward(*args)
    return lse_B.new_empty(()), *_fake_gradients(args, args[NUM_INPUTS + 1], wide=True)


def _fake_backward(*args: Any) -> tuple[Tensor, ...]:
    return _fake_gradients(args, args[-1])


def _fake_gradients(args: tuple, bits: int, *, wide: bool = False) -> tuple[Tensor, ...]:
    inputs, needs = inputs_of(args), _door.needs_of_bits(bits)
    needs_prior = (needs.log_prior or needs.prior_weight) and inputs.log_prior_V is not None
    none = inputs.query_BD.new_empty(0)
    if not (needs.item or needs_prior):
        num_rows: Any = 0
    elif args[NUM_INPUTS - 1]:
        num_rows = _most_rows(inputs)
    else:
        num_rows = torch.library.get_ctx().new_dynamic_size()

    def dtype_of(like: Tensor) -> torch.dtype:
        return _widened(like.dtype) if wide else like.dtype

    return (
        inputs.query_BD.new_empty(inputs.query_BD.shape, dtype=dtype_of(inputs.query_BD))
        if needs.query else none,
        inputs.pos_id_B.new_empty(num_rows),
        inputs.item_VD.new_empty(num_rows, inputs.item_VD.shape[1], dtype=dtype_of(inputs.item_VD))
        if needs.item else none,
        inputs.log_prior_V.new_empty(num_rows)
        if needs.log_prior and inputs.log_prior_V is not None else none,
        inputs.prior_weight.new_empty(()) if needs.prior_weight and needs_prior else none,
        inputs.scale.new_empty(()) if needs.scale else none,
    )


def _save_forward(ctx: Any, inputs: tuple, output: tuple) -> None:
    ctx.save_for_backward(*inputs[:NUM_TENSORS], *output)
    ctx.options = inputs[NUM_TENSORS:]
    ctx.set_materialize_grads(False)


def _forward_gradient(ctx: Any, d_lse_B: Tensor | None, d_pos_B: Tensor | None) -> tuple:
    *tensors, lse_B, pos_logit_B = ctx.saved_tensors
    zero_B = torch.zeros_like(lse_B)
    needs = _needs_of(ctx)
    grads = torch.ops.fastpop.sampled_softmax_backward(
        *tensors, *ctx.options, lse_B, pos_logit_B, zero_B if d_lse_B is None else d_lse_B,
        zero_B if d_pos_B is None else d_pos_B, _door.bits_of_needs(needs))
    return _to_inputs(tensors, ctx.options, grads, needs)


def _save_loss(ctx: Any, inputs: tuple, output: tuple) -> None:
    ctx.mark_non_differentiable(*output[1:])
    ctx.options = inputs[NUM_TENSORS:NUM_INPUTS]
    traced = ctx.options[-1]
    ctx.save_for_backward(*inputs[:NUM_TENSORS], inputs[NUM_INPUTS], *(output[1:] if traced else ()))
    ctx.grads = None if traced else output[1:]
    ctx.set_materialize_grads(False)


def _loss_gradient(ctx: Any, d_loss: Tensor | None, *_: Any) -> tuple:
    """Eager: the first call hands out the gradients that were made with the loss, scaled in place, so
    that they exist once; a later one (retain_graph) makes them anew. Traced: saved like any other."""
    if d_loss is None:
        return (None,) * (NUM_INPUTS + 2)
    saved = ctx.saved_tensors
    tensors, weight_B, grads = saved[:NUM_TENSORS], saved[NUM_TENSORS], saved[NUM_TENSORS + 1:]
    likes = [tensors[at] for at in (0, 1, 6, 7, 9)]
    needs = _needs_of(ctx)
    if ctx.options[-1]:
        d_query, id_n, *others = grads
        scaled = [(grad * d_loss.to(grad.dtype)).to(grad.dtype if like is None else like.dtype)
                  for grad, like in zip((d_query, *others), likes)]
        return *_to_inputs(tensors, ctx.options, (scaled[0], id_n, *scaled[1:]), needs), None, None
    bits = _door.bits_of_needs(needs)
    if torch.is_grad_enabled():  # create_graph: by an operator that a second backward sees, and refuses
        lse_B, pos_logit_B = torch.ops.fastpop.sampled_softmax_forward(*tensors, *ctx.options)
        grads = torch.ops.fastpop.sampled_softmax_backward(
            *tensors, *ctx.options, lse_B, pos_logit_B, weight_B, -weight_B, bits)
    else:
        grads, ctx.grads = ctx.grads, None
        if grads is None:
            grads = torch.ops.fastpop.sampled_softmax_loss(*tensors, *ctx.options, weight_B, bits)[1:]
    d_query, id_n, *others = grads
    times = torch.mul if is_batched(d_loss) else Tensor.mul_
    scaled = [times(grad, d_loss.to(grad.dtype)).to(grad.dtype if like is None else like.dtype)
              for grad, like in zip((d_query, *others), likes)]
    return *_to_inputs(tensors, ctx.options, (scaled[0], id_n, *scaled[1:]), needs), None, None


def _needs_of(ctx: Any) -> Needs:
    asked = ctx.needs_input_grad
    return Needs(query=asked[0], item=asked[1], log_prior=asked[6], prior_weight=asked[7],
                 scale=asked[9])


def _to_inputs(tensors: Any, options: tuple, grads: Any, needs: Needs) -> tuple:
    """The gradients in the order of the operator's inputs."""
    d_query, id_n, d_item_nD, d_log_prior_n, d_prior_weight, d_scale = grads
    items, log_prior = tensors[1], tensors[6]
    sparse_grad, fixed_rows = options[-2:]
    # As many rows as there were positives and negatives: an implementation that did not count them.
    repeats = fixed_rows or len(id_n) == len(tensors[0]) + options[0] * options[1]
    return (
        d_query if needs.query else None,
        table_gradient(items, id_n, d_item_nD, sparse_grad, repeats) if needs.item else None,
        None, None, None, None,
        table_gradient(log_prior, id_n, d_log_prior_n, sparse_grad, repeats)
        if needs.log_prior and log_prior is not None else None,
        d_prior_weight if needs.prior_weight and log_prior is not None else None,
        None,
        d_scale if needs.scale else None, None,
        *(None,) * len(options),
    )


def table_gradient(
    table: Tensor, id_n: Tensor, rows_n: Tensor, sparse: bool, repeats: bool
) -> Tensor:
    """(ids, rows) as a gradient of `table`: sparse, or dense with zeros elsewhere."""
    # A device that is not waited for cannot know how many ids differ: it repeats the last one.
    repeats = repeats or table.is_cuda
    if sparse:
        return torch.sparse_coo_tensor(id_n[None], rows_n, table.shape, check_invariants=False,
                                       is_coalesced=None if repeats else True)
    zeros = torch.zeros_like(table, memory_format=torch.contiguous_format)
    return zeros.index_add(0, id_n, rows_n) if is_batched(rows_n) else zeros.index_add_(0, id_n, rows_n)


def is_batched(upstream: Tensor) -> bool:
    """Whether many gradients come as one (is_grads_batched), which nothing takes in place."""
    if torch.compiler.is_compiling():
        return False
    try:
        upstream.data_ptr()
    except RuntimeError:  # such a tensor has no storage
        return True
    return False


def _register() -> None:
    for name, schema, function, fake in (
        ("forward", f"({INPUTS}) -> (Tensor lse, Tensor pos_logit)", forward, _fake_forward),
        ("loss", f"({INPUTS}, Tensor row_weight, int needs) -> (Tensor loss, {GRADIENTS[1:]}", loss,
         _fake_loss),
        ("backward", f"({INPUTS}, Tensor lse, Tensor pos_logit, Tensor d_lse, Tensor d_pos, "
         f"int needs) -> {GRADIENTS}", backward, _fake_backward),
    ):
        operator = torch.library.custom_op(f"fastpop::sampled_softmax_{name}", function,
                                           mutates_args=(), schema=schema)
        operator.register_fake(fake)
        if name == "forward":
            operator.register_autograd(_forward_gradient, setup_context=_save_forward)
        elif name == "loss":
            operator.register_autograd(_loss_gradient, setup_context=_save_loss)
        else:
            _door.refuse_second_derivative(operator, "sampled_softmax")


_register()
