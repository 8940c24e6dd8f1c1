"""sampled_softmax as torch operators: what autograd, torch.compile and graph capture see of it.

Three opaque operators over the same inputs:

- forward: (lse, pos_logit) of every row; its gradient is asked of `backward`.
- loss: the weighted sum of the rows' losses, and its gradients in the same pass: the logits are
  made once instead of twice. Its own gradient only multiplies by what comes from upstream.
- backward: gradients of sum(d_lse * lse + d_pos * pos_logit).

Which implementation runs is decided inside them, where real tensors are. `fixed_rows` is set under
torch.compile and graph capture, where a result's shape may not depend on values: then the gradient
of the table has B + G K rows (zeros after the unique ids), and ids are range-checked here, because
the public function could not check them. Rows that are ignored stay out of the implementation
(`_counted.py`); their lse and pos_logit are 0.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from fastpop.kernels.sampled_softmax import reference
from fastpop.kernels.sampled_softmax.reference import Gradients, Inputs, Needs
from fastpop.ops import _dispatch, _draw_op, readable, summed_ids, validation
from fastpop.ops._counted import CountedRows
from fastpop.ops._signature import Signature


class Options(NamedTuple):
    """What the operators are told beside the inputs."""

    ignore_index: int
    impl: str
    sparse_grad: bool
    fixed_rows: bool


SIGNATURE = Signature(Inputs, Options, Needs)
# As in Needs, with the ids whose rows those of the tables are.
GRADIENTS = "Tensor d_query, Tensor id, Tensor d_item, Tensor d_log_prior, Tensor d_weight, Tensor d_scale"


def forward(*args: Any) -> tuple[Tensor, Tensor]:
    rows, inputs, module, _ = _enter(args)
    with validation.without_autocast(inputs.query_BD):
        lse_B, pos_logit_B = module.forward(inputs)
    return rows.spread(lse_B), rows.spread(pos_logit_B)


def loss(*args: Any) -> tuple[Tensor, ...]:
    rows, inputs, module, (weight_B, bits) = _enter(args)
    needs = SIGNATURE.needs_of(bits)
    if rows.kept is not None:
        weight_B = weight_B[rows.kept]
    with validation.without_autocast(inputs.query_BD):
        if hasattr(module, "loss_and_gradients"):
            total, grads = module.loss_and_gradients(inputs, weight_B, needs)
        else:
            if hasattr(module, "forward_backward") and module.can_fuse(inputs):
                lse_B, pos_logit_B, grads = module.forward_backward(inputs, weight_B, needs)
            else:
                lse_B, pos_logit_B = module.forward(inputs)
                grads = Gradients(*[None] * len(Gradients._fields))
                if any(needs):
                    grads = module.backward(inputs, lse_B, pos_logit_B, weight_B, -weight_B, needs)
            total = validation.weighted(validation.loss_of(lse_B, pos_logit_B), weight_B).sum()
    return (total, *_gradients(args, rows, grads, wide=True))


def backward(*args: Any) -> tuple[Tensor, ...]:
    rows, inputs, module, (*upstream, bits) = _enter(args)
    with validation.without_autocast(inputs.query_BD):
        grads = module.backward(inputs, *rows.gathered(*upstream), SIGNATURE.needs_of(bits))
    return _gradients(args, rows, grads)


def _enter(args: tuple) -> tuple[CountedRows, Inputs, Any, tuple]:
    inputs, options, rest = SIGNATURE.read(args)
    if options.fixed_rows:
        num_items = inputs.item_VD.shape[0]
        validation.check_range("pos_id", inputs.pos_id_B, num_items, ignore_index=options.ignore_index)
        if inputs.neg_id_GK is not None:
            validation.check_range("neg_id", inputs.neg_id_GK, num_items)
    # Rows move up only where that changes neither their negatives nor the in-batch diagonal.
    own_ids = inputs.neg_id_GK is not None and inputs.group_size == 1
    rows = CountedRows(
        inputs.query_BD,
        inputs.pos_id_B,
        options.ignore_index,
        drop=(inputs.num_groups == 1 or own_ids) and not inputs.exclude_diagonal,
    )
    if rows.kept is not None:
        inputs = _with_groups_of(inputs, rows.kept, own_ids)
    if rows.query is not inputs.query_BD:
        inputs = inputs._replace(query_BD=rows.query, pos_id_B=rows.pos_id)
    module = _dispatch.choose("sampled_softmax", options.impl, inputs.query_BD.device.type, inputs)
    return rows, _for_the_reference(inputs) if module is reference else inputs, module, rest


def _with_groups_of(inputs: Inputs, kept: Tensor, own_ids: bool) -> Inputs:
    """The groups of the rows that are kept: their own sets, one set for all, or any where none is kept."""
    neg_id_GK = inputs.neg_id_GK
    if own_ids and len(kept):
        return inputs._replace(neg_id_GK=neg_id_GK[kept], num_groups=len(kept))  # type: ignore[index]
    return inputs._replace(
        neg_id_GK=None if neg_id_GK is None else neg_id_GK[:1], num_groups=1, group_size=max(len(kept), 1)
    )


def _for_the_reference(inputs: Inputs) -> Inputs:
    """It is given ids, and refuses no number: what others do themselves is done for it."""
    if inputs.neg_id_GK is None:
        ids: Any = _draw_op.IdsWhenRead(inputs.table_V2, inputs.counter_2, inputs.num_negatives)
        inputs = inputs._replace(neg_id_GK=ids)
    if inputs.query_BD.device.type == "cpu":
        validation.check_found(reference.bad_ids(inputs), inputs.log_prior_V, inputs.log_proposal_V)
    return inputs


def _most_rows(inputs: Inputs) -> int:
    return inputs.query_BD.shape[0] + inputs.num_groups * inputs.num_negatives


def _gradients(args: tuple, rows: CountedRows, grads: Gradients, *, wide: bool = False) -> tuple[Tensor, ...]:
    """Gradients in the dtypes of their inputs, empty where not needed. wide: in float32 for half inputs:
    they are yet to be multiplied, and a loss scale is there to lift them above what float16 drops."""
    inputs, options, _ = SIGNATURE.split(args)

    def done(grad: Tensor | None, like: Tensor | None) -> Tensor:
        if grad is None or like is None:
            return inputs.query_BD.new_empty(0)
        return grad.to(_widened(like.dtype) if wide else like.dtype)

    id_n, item_nD, log_prior_n = grads.id_n, grads.item_nD, grads.log_prior_n
    missing = _most_rows(inputs) - len(id_n) if options.fixed_rows and id_n is not None else 0
    if missing and id_n is not None:
        last = id_n[-1:] if len(id_n) else id_n.new_zeros(1)
        id_n = torch.cat([id_n, last.expand(missing)])
        if item_nD is not None:
            item_nD = torch.cat([item_nD, item_nD.new_zeros(missing, item_nD.shape[1])])
        if log_prior_n is not None:
            log_prior_n = torch.cat([log_prior_n, log_prior_n.new_zeros(missing)])
    return (
        done(rows.spread(grads.query_BD), inputs.query_BD),
        inputs.pos_id_B.new_empty(0) if id_n is None else id_n,
        done(item_nD, inputs.item_VD),
        done(log_prior_n, inputs.log_prior_V),
        done(grads.prior_weight, inputs.prior_weight),
        done(grads.scale, inputs.scale),
    )


def _widened(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype == torch.float64 else torch.float32


def _fake_forward(*args: Any) -> tuple[Tensor, Tensor]:
    readable.outside_jvp("query")
    query = args[0]
    dtype = _widened(query.dtype)
    return query.new_empty(query.shape[0], dtype=dtype), query.new_empty(query.shape[0], dtype=dtype)


def _fake_loss(*args: Any) -> tuple[Tensor, ...]:
    lse_B, _ = _fake_forward(*args)
    return lse_B.new_empty(()), *_fake_gradients(args, args[-1], wide=True)


def _fake_backward(*args: Any) -> tuple[Tensor, ...]:
    return _fake_gradients(args, args[-1])


def _fake_gradients(args: tuple, bits: int, *, wide: bool = False) -> tuple[Tensor, ...]:
    readable.outside_jvp("query")
    (inputs, options, _), needs = SIGNATURE.split(args), SIGNATURE.needs_of(bits)
    needs_prior = (needs.log_prior or needs.prior_weight) and inputs.log_prior_V is not None
    none = inputs.query_BD.new_empty(0)
    if not (needs.item or needs_prior):
        num_rows: Any = 0
    elif options.fixed_rows:
        num_rows = _most_rows(inputs)
    else:
        num_rows = torch.library.get_ctx().new_dynamic_size()

    def dtype_of(like: Tensor) -> torch.dtype:
        return _widened(like.dtype) if wide else like.dtype

    return (
        inputs.query_BD.new_empty(inputs.query_BD.shape, dtype=dtype_of(inputs.query_BD))
        if needs.query
        else none,
        inputs.pos_id_B.new_empty(num_rows),
        inputs.item_VD.new_empty(num_rows, inputs.item_VD.shape[1], dtype=dtype_of(inputs.item_VD))
        if needs.item
        else none,
        inputs.log_prior_V.new_empty(num_rows)
        if needs.log_prior and inputs.log_prior_V is not None
        else none,
        inputs.prior_weight.new_empty(()) if needs.prior_weight and needs_prior else none,
        inputs.scale.new_empty(()) if needs.scale else none,
    )


def _save_forward(ctx: Any, inputs: tuple, output: tuple) -> None:
    SIGNATURE.keep(ctx, inputs, *output)
    ctx.set_materialize_grads(False)


def _forward_gradient(ctx: Any, d_lse_B: Tensor | None, d_pos_B: Tensor | None) -> tuple:
    args, (lse_B, pos_logit_B) = SIGNATURE.kept(ctx)
    zero_B, needs = torch.zeros_like(lse_B), SIGNATURE.asked(ctx)
    grads = torch.ops.fastpop.sampled_softmax_backward(
        *args,
        lse_B,
        pos_logit_B,
        zero_B if d_lse_B is None else d_lse_B,
        zero_B if d_pos_B is None else d_pos_B,
        SIGNATURE.bits(needs),
    )
    return _to_inputs(args, grads, needs)


def _save_loss(ctx: Any, inputs: tuple, output: tuple) -> None:
    ctx.mark_non_differentiable(*output[1:])
    traced = SIGNATURE.value(inputs, "fixed_rows")
    SIGNATURE.keep(ctx, inputs, inputs[SIGNATURE.size], *(output[1:] if traced else ()))
    ctx.grads = None if traced else output[1:]
    ctx.set_materialize_grads(False)


def _loss_gradient(ctx: Any, d_loss: Tensor | None, *_: Any) -> tuple:
    """Eager: the first call hands out the gradients that were made with the loss, scaled in place, so
    that they exist once; a later one (retain_graph) makes them anew. Traced: saved like any other."""
    if d_loss is None:
        return SIGNATURE.gradients((), num_added=2)
    args, (weight_B, *grads) = SIGNATURE.kept(ctx)
    needs, traced = SIGNATURE.asked(ctx), SIGNATURE.value(args, "fixed_rows")
    if not traced:
        grads = _eager_gradients(ctx, args, weight_B, SIGNATURE.bits(needs))
    d_query, id_n, *others = grads
    if traced or is_batched(d_loss):
        scaled = [torch.mul(grad, d_loss.to(grad.dtype)) for grad in (d_query, *others)]
    else:
        scaled = [d_query, *others]
        _scale(scaled, d_loss)
    scaled = [
        grad if like is None else grad.to(like.dtype) for grad, like in zip(scaled, SIGNATURE.likes(args))
    ]
    return _to_inputs(args, (scaled[0], id_n, *scaled[1:]), needs, num_added=2)


def _scale(grads: list[Tensor], factor: Tensor) -> None:
    """In place; on a device all of them in one launch."""
    if factor.device.type == "cpu":
        for grad in grads:
            grad.mul_(factor.to(grad.dtype))
    else:
        torch._foreach_mul_([grad for grad in grads if grad.numel()], factor)


def _eager_gradients(ctx: Any, args: tuple, weight_B: Tensor, bits: int) -> Any:
    if torch.is_grad_enabled():  # create_graph: by an operator that a second backward sees, and refuses
        lse_B, pos_logit_B = torch.ops.fastpop.sampled_softmax_forward(*args)
        return torch.ops.fastpop.sampled_softmax_backward(
            *args, lse_B, pos_logit_B, weight_B, -weight_B, bits
        )
    grads, ctx.grads = ctx.grads, None
    return torch.ops.fastpop.sampled_softmax_loss(*args, weight_B, bits)[1:] if grads is None else grads


def _to_inputs(args: tuple, grads: Any, needs: Needs, num_added: int = 0) -> tuple:
    """What an operator found as the gradients of its arguments."""
    inputs, options, _ = SIGNATURE.split(args)
    d_query, id_n, d_item_nD, d_log_prior_n, d_prior_weight, d_scale = grads
    # As many rows as there were positives and negatives: an implementation that did not count them.
    repeats = options.fixed_rows or len(id_n) == _most_rows(inputs)

    def table(like: Tensor, rows_n: Tensor) -> Tensor:
        return table_gradient(like, id_n, rows_n, options.sparse_grad, repeats)

    has_prior = inputs.log_prior_V is not None
    return SIGNATURE.gradients(
        (
            d_query if needs.query else None,
            table(inputs.item_VD, d_item_nD) if needs.item else None,
            table(inputs.log_prior_V, d_log_prior_n) if needs.log_prior and has_prior else None,
            d_prior_weight if needs.prior_weight and has_prior else None,
            d_scale if needs.scale else None,
        ),
        num_added,
    )


def table_gradient(table: Tensor, id_n: Tensor, rows_n: Tensor, sparse: bool, repeats: bool) -> Tensor:
    """(ids, rows) as a gradient of `table`: sparse, or dense with zeros elsewhere."""
    # A device that is not waited for cannot know how many ids differ: it repeats the last one.
    repeats = repeats or table.is_cuda
    if sparse:
        summed_ids.mark(id_n)
        return torch.sparse_coo_tensor(
            id_n[None], rows_n, table.shape, check_invariants=False, is_coalesced=None if repeats else True
        )
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
    given = SIGNATURE.schema
    for name, schema, function, fake in (
        ("forward", f"({given}) -> (Tensor lse, Tensor pos_logit)", forward, _fake_forward),
        ("loss", f"({given}, Tensor row_weight, int needs) -> (Tensor loss, {GRADIENTS})", loss, _fake_loss),
        (
            "backward",
            f"({given}, Tensor lse, Tensor pos_logit, Tensor d_lse, Tensor d_pos, "
            f"int needs) -> ({GRADIENTS})",
            backward,
            _fake_backward,
        ),
    ):
        operator = torch.library.custom_op(
            f"fastpop::sampled_softmax_{name}", function, mutates_args=(), schema=schema
        )
        operator.register_fake(fake)
        if name == "forward":
            operator.register_autograd(_forward_gradient, setup_context=_save_forward)
        elif name == "loss":
            operator.register_autograd(_loss_gradient, setup_context=_save_loss)
        else:
            validation.refuse_second_derivative(operator, "sampled_softmax")


_register()
