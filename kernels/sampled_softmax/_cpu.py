"""Sampled softmax in C++ (csrc/sampled_softmax/cpu.cpp), fused, on all of torch's threads.

Logits live in registers and L1, exponentials of a block of rows in a buffer of about 1.2 MiB (four of them
with several threads), packed items in K D numbers (in twice as many where rows are no whole vectors of
float32); neither [B, K] nor gathered [B, K, D] exists. Each negative id of a group is computed once, with
log(its count) in its bias. Float32 inside, for 16-bit inputs too; the same bits on any number of threads.
Where rows of a float32 table are to be rounded, those that are read are first, into a table of their own.

Cost: 2 B K D FLOPs forward, 6 B K D backward, 6 B K D for both at once in `forward_backward`.
"""

from typing import Any

import torch
from torch import Tensor

from fastpop import _C, checks
from fastpop.kernels import native
from fastpop.kernels.alias_draw import _cpu as alias_draw
from fastpop.kernels.alias_draw.reference import Inputs as DrawInputs
from fastpop.kernels.sampled_softmax.reference import Gradients, Inputs, Needs, prior_gradients


def unsupported(inputs: Inputs) -> str | None:
    return native.unsupported(query=inputs.query_BD, items=inputs.item_VD)


def can_fuse(inputs: Inputs) -> bool:
    """Whether `forward_backward` keeps within its memory bounds."""
    num_rows, dim = inputs.query_BD.shape
    return _C.sampled_softmax_can_fuse(
        num_rows=num_rows, group_size=inputs.group_size, K=inputs.num_negatives, D=dim
    )


def forward(inputs: Inputs) -> tuple[Tensor, Tensor]:
    """(lse [B], pos_logit [B]); equals `reference.forward` within rounding."""
    lse_B, pos_logit_B = _empty_rows(inputs), _empty_rows(inputs)
    inputs, id_of = _rounded(inputs)
    _run(inputs, "forward", lse_B, pos_logit_B, id_of)
    return lse_B, pos_logit_B


def backward(
    inputs: Inputs, lse_B: Tensor, pos_logit_B: Tensor, d_lse_B: Tensor, d_pos_B: Tensor, needs: Needs
) -> Gradients:
    """Gradients of sum(d_lse * lse + d_pos * pos_logit); equals `reference.backward`."""
    return _gradients(
        inputs,
        "backward",
        lse_B,
        pos_logit_B,
        needs,
        d_lse_B.to(torch.float32).contiguous(),
        d_pos_B.to(torch.float32).contiguous(),
    )


def forward_backward(inputs: Inputs, weight_B: Tensor, needs: Needs) -> tuple[Tensor, Tensor, Gradients]:
    """(lse, pos_logit, gradients of sum(weight * (lse - pos_logit))) in one pass."""
    lse_B, pos_logit_B = _empty_rows(inputs), _empty_rows(inputs)
    weight_B = weight_B.to(torch.float32).contiguous()
    grads = _gradients(inputs, "fused", lse_B, pos_logit_B, needs, weight_B, None)
    return lse_B, pos_logit_B, grads


def _gradients(
    inputs: Inputs,
    mode: str,
    lse_B: Tensor,
    pos_logit_B: Tensor,
    needs: Needs,
    d_lse_B: Tensor,
    d_pos_B: Tensor | None,
) -> Gradients:
    inputs, id_of = _rounded(inputs)
    needs_prior = (needs.log_prior or needs.prior_weight) and inputs.log_prior_V is not None
    num_rows, dim = inputs.query_BD.shape
    d_query_BD = native.new(num_rows, dim) if needs.query else None
    index = id_n = d_item_nD = d_bias_n = None
    if needs.item or needs_prior:
        index = _index_of(inputs)
        id_n = native.new(len(index), dtype=torch.int64)
        index.write_ids(native.address(id_n))
        d_item_nD = native.new(len(index), dim) if needs.item else None
        d_bias_n = native.new(len(index), dtype=torch.float64) if needs_prior else None
    d_scale = _run(
        inputs,
        mode,
        lse_B,
        pos_logit_B,
        id_of,
        d_lse=native.address(d_lse_B),
        d_pos=native.address(d_pos_B),
        index=index,
        d_query=native.address(d_query_BD),
        d_item=native.address(d_item_nD),
        d_bias=native.address(d_bias_n),
        wants_scale=needs.scale,
    )
    log_prior_n = d_prior_weight = None
    if id_n is not None and d_bias_n is not None:
        log_prior_n, d_prior_weight = prior_gradients(inputs, id_n, d_bias_n)
    return Gradients(
        query_BD=d_query_BD,
        id_n=id_n if id_n is None or id_of is None else id_of[id_n],
        item_nD=d_item_nD,
        log_prior_n=log_prior_n if needs.log_prior else None,
        prior_weight=d_prior_weight if needs.prior_weight else None,
        scale=torch.tensor(d_scale, dtype=torch.float32, device="cpu") if needs.scale else None,
    )


def _rounded(inputs: Inputs) -> tuple[Inputs, Tensor | None]:
    """(inputs on a table of the rows that are read alone, rounded to query's dtype; the ids that its rows
    had), where round_items asks for that; else as they came. O((B + G K) log n + n D)."""
    if not inputs.round_items or not len(inputs.query_BD):
        return inputs._replace(round_items=False), None
    index = _index_of(inputs)
    id_n = native.new(len(index), dtype=torch.int64)
    index.write_ids(native.address(id_n))
    neg_id_GK = inputs.neg_id_GK
    if neg_id_GK is None:
        shape = (0, inputs.num_groups, inputs.num_negatives)
        drawn = alias_draw.forward(DrawInputs(inputs.table_V2, inputs.counter_2, *shape))
        neg_id_GK = torch.from_numpy(drawn)
    log_prior_V, log_proposal_V = (
        None if one is None else one[id_n] for one in (inputs.log_prior_V, inputs.log_proposal_V)
    )
    return inputs._replace(
        item_VD=inputs.item_VD[id_n].to(inputs.query_BD.dtype),
        pos_id_B=torch.searchsorted(id_n, inputs.pos_id_B.contiguous()),  # a column of rows, say
        neg_id_GK=torch.searchsorted(id_n, neg_id_GK.contiguous()),
        table_V2=None,
        counter_2=None,
        log_prior_V=log_prior_V,
        log_proposal_V=log_proposal_V,
        round_items=False,
    ), id_n


def _index_of(inputs: Inputs) -> _C.RowIndex:
    """The sorted set of the ids of positives and negatives."""
    num_rows, num_items = inputs.query_BD.shape[0], inputs.item_VD.shape[0]
    threads = native.all_threads()
    index = _C.RowIndex(num_items=num_items, num_ids=num_rows + inputs.num_groups * inputs.num_negatives)
    if num_rows:
        pos_id_B = inputs.pos_id_B.contiguous()
        index.add(ids=native.address(pos_id_B), num=num_rows, threads=threads)
        if inputs.neg_id_GK is not None:
            neg_id_GK = inputs.neg_id_GK.contiguous()
            index.add(ids=native.address(neg_id_GK), num=neg_id_GK.numel(), threads=threads)
        elif inputs.table_V2 is not None and inputs.counter_2 is not None:
            seed, step = (word % 2**64 for word in inputs.counter_2.tolist())
            index.add_draws(
                table=native.address(inputs.table_V2),
                seed=seed,
                step=step,
                num_items=num_items,
                num_groups=inputs.num_groups,
                num_draws=inputs.num_negatives,
                threads=threads,
            )
    index.finish()
    return index


def _empty_rows(inputs: Inputs) -> Tensor:
    return native.new(inputs.query_BD.shape[0])


def _run(
    inputs: Inputs, mode: str, lse_B: Tensor, pos_logit_B: Tensor, id_of: Tensor | None, **wanted: Any
) -> float:
    """id_of: the ids that rows of the table had, where errors name others."""
    given, _held = native.named(inputs)
    del given["merge_repeats"]  # they always are
    lse_B, pos_logit_B = lse_B.contiguous(), pos_logit_B.contiguous()
    num_rows, dim = inputs.query_BD.shape
    d_scale, bad_prior_id, bad_proposal_id = _C.sampled_softmax(
        mode=mode,
        **given,
        B=num_rows,
        V=inputs.item_VD.shape[0],
        D=dim,
        lse=native.address(lse_B),
        pos_logit=native.address(pos_logit_B),
        threads=native.threads_for(2 * num_rows * inputs.num_negatives * dim),
        path=native.path,
        **wanted,
    )
    if bad_prior_id >= 0 and inputs.log_prior_V is not None:
        bad = bad_prior_id if id_of is None else int(id_of[bad_prior_id])
        raise checks.no_prior(bad, float(inputs.log_prior_V[bad_prior_id]))
    if bad_proposal_id >= 0 and inputs.log_proposal_V is not None:
        bad = bad_proposal_id if id_of is None else int(id_of[bad_proposal_id])
        raise checks.no_proposal("neg_id", bad, float(inputs.log_proposal_V[bad_proposal_id]))
    return d_scale
