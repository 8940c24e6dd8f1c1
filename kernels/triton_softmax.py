"""What the Triton kernels of both softmaxes share: a row's terms, running sums, gradients to memory."""

from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from fastpop.kernels import triton_tiles
from fastpop.kernels.triton_tiles import WIDEN, known_ids, load_rows, load_rows_there

LOG2E: tl.constexpr = tl.constexpr(1.4426950216293335)  # of the float32 numbers the nearest
LN2: tl.constexpr = tl.constexpr(0.6931471805599453)
# The base of a sum without terms: finite, so that exp(-inf) is 0 in it, and below that of any logit.
NO_BASE: tl.constexpr = tl.constexpr(-3.4e38)


class Groups(NamedTuple):
    """Rows in groups of `size`, the last of which may be smaller, each padded to whole tiles of rows."""

    number: int
    size: int
    padded: int


class Rows(NamedTuple):
    """What the backward kernels read of their rows: see `row_gradients_kernel`. [G P] of padded groups
    but for own."""

    terms_GP: Tensor  # int64: the bits of base and weight
    hit_GP: Tensor
    own_B: Tensor

    @property
    def weights(self) -> Tensor:
        """float32 [G P]."""
        return self.terms_GP.view(torch.float32)[1::2]


def row_gradients(
    lse_B: Tensor,
    pos_logit_B: Tensor,
    d_lse_B: Tensor,
    d_pos_B: Tensor | None,
    pos_id_B: Tensor,
    num_items: int,
    groups: Groups,
    *,
    positive_apart: bool,
    id_B: Tensor | None = None,
    loss_B: Tensor | None = None,
) -> Rows:
    """d_pos: None where it is -d_lse, as of a loss. id, loss: filled where they are given."""
    num_padded = groups.number * groups.padded
    terms_GP, hit_GP = (lse_B.new_empty(num_padded, dtype=dtype) for dtype in (torch.int64, torch.int32))
    rows = Rows(terms_GP, hit_GP, torch.empty_like(lse_B))
    triton_tiles.launch(
        row_gradients_kernel,
        (triton.cdiv(num_padded, 256),),
        lse_ptr=lse_B.contiguous(),
        pos_logit_ptr=pos_logit_B.contiguous(),
        d_lse_ptr=d_lse_B.float().contiguous(),
        d_pos_ptr=None if d_pos_B is None else d_pos_B.float().contiguous(),
        pos_id_ptr=pos_id_B.contiguous(),
        terms_ptr=rows.terms_GP,
        hit_ptr=rows.hit_GP,
        own_ptr=rows.own_B,
        id_ptr=id_B,
        loss_ptr=loss_B,
        num_rows=lse_B.shape[0],
        num_items=num_items,
        group_size=groups.size,
        padded_rows=groups.padded,
        num_padded=num_padded,
        POSITIVE_APART=positive_apart,
        BLOCK_B=256,
    )
    return rows


def peak_of(dtype: torch.dtype, *numbers: Tensor) -> Tensor | None:
    """0-d: the largest magnitude, by which weights are divided before they become float16."""
    if dtype != torch.float16:
        return None
    return torch.stack([one.abs().amax() for one in numbers]).amax().clamp(min=1e-30)


def query_outputs(
    query_BD: Tensor, splits: int, needs: Any, *, wide: bool = False
) -> tuple[Tensor | None, Tensor | None]:
    """What `store_query_gradients` writes to: (d_query [S, B, D], d_scale [S, B]), None if not needed.
    wide: float32 whatever the queries are."""
    num_rows, dim = query_BD.shape
    d_query_SBD = d_scale_SB = None
    if needs.query:
        dtype = query_BD.dtype if splits == 1 and not wide else torch.float32
        d_query_SBD = query_BD.new_empty(splits, num_rows, dim, dtype=dtype)
    if needs.scale:
        d_scale_SB = query_BD.new_empty(splits, num_rows, dtype=torch.float32)
    return d_query_SBD, d_scale_SB


def summed_query(
    d_query_SBD: Tensor | None, d_scale_SB: Tensor | None
) -> tuple[Tensor | None, Tensor | None]:
    """(d_query [B, D], d_scale 0-d)."""
    # fp64: one number gathers the cancelling terms of a whole batch.
    d_scale = None if d_scale_SB is None else d_scale_SB.sum(dtype=torch.float64).float()
    return over_splits(d_query_SBD), d_scale


def over_splits(one: Tensor | None) -> Tensor | None:
    """Summed over the first dimension; as it is where that is one."""
    if one is None:
        return None
    return one[0] if one.shape[0] == 1 else one.sum(0)


@triton_tiles.kernel
def row_gradients_kernel(
    lse_ptr,
    pos_logit_ptr,
    d_lse_ptr,
    d_pos_ptr,
    pos_id_ptr,
    terms_ptr,
    hit_ptr,
    own_ptr,
    id_ptr,
    loss_ptr,
    num_rows,
    num_items,
    group_size,
    padded_rows,
    num_padded,
    POSITIVE_APART: tl.constexpr,
    BLOCK_B: tl.constexpr,
):
    """One program owns BLOCK_B places of padded groups: what backward multiplies their candidates by.

    terms: base and weight, each in 32 bits of one number, which a tile then loads at once.
    base: lse in units of log 2, rounded; +inf for a row that gives no gradient (its positive is removed):
    2^(z - inf) is 0 whatever the logits are.
    weight: d_lse, or 0 for such a row; times what the rounding of base left, so that weight x powers(z, base)
    is d_lse x exp(z - lse) to the last digit.
    hit: the positive as int32, -2 for one out of range, which no candidate is.
    own: the gradient of the positive's logit; where the positive is also one of the candidates
    (not POSITIVE_APART), only what comes on top of weight x probability.
    id, where wanted: the positive, 0 for one out of range.
    loss, where wanted: d_lse x (lse - positive logit), 0 where d_lse is, whatever the row holds, and
    infinite, not NaN, where the positive is removed.
    Past the last row of a group base is +inf and weight 0.
    """
    at_b = tl.program_id(0) * BLOCK_B + tl.arange(0, BLOCK_B)
    group_b, in_group_b = at_b // padded_rows, at_b % padded_rows
    offs_b = group_b * group_size + in_group_b
    inside_b = (in_group_b < group_size) & (offs_b < num_rows)
    lse_b = tl.load(lse_ptr + offs_b, mask=inside_b, other=float("inf"))
    pos_b = tl.load(pos_logit_ptr + offs_b, mask=inside_b, other=0.0)
    weight_b = tl.load(d_lse_ptr + offs_b, mask=inside_b, other=0.0)
    own_b = -weight_b
    if d_pos_ptr is not None:
        own_b = tl.load(d_pos_ptr + offs_b, mask=inside_b, other=0.0)
    pos_id_b = known_ids(tl.load(pos_id_ptr + offs_b, mask=inside_b, other=-1), num_items)
    infinity = float("inf")
    if loss_ptr is not None:
        loss_b = tl.where(pos_b == -infinity, infinity, lse_b - pos_b)
        tl.store(loss_ptr + offs_b, tl.where(weight_b == 0.0, 0.0, loss_b * weight_b), mask=inside_b)
    if id_ptr is not None:
        tl.store(id_ptr + offs_b, tl.maximum(pos_id_b, 0), mask=inside_b)
    # NaN is less than nothing: it counts as not live, as with isfinite.
    live_b = (tl.abs(lse_b) < infinity) & (tl.abs(pos_b) < infinity)
    weight_b = tl.where(live_b, weight_b, 0.0)
    if POSITIVE_APART:
        own_b += weight_b * tl.exp(tl.where(live_b, pos_b - lse_b, 0.0))
    base_b = lse_b * LOG2E
    rest_b = tl.where(live_b, exponents(lse_b, base_b), 0.0)
    at_inside_b = at_b < num_padded
    base_b, weight_b = tl.where(live_b, base_b, infinity), weight_b * tl.exp2(-rest_b)
    low_b = base_b.to(tl.uint32, bitcast=True).to(tl.int64)
    terms_b = low_b | (weight_b.to(tl.int32, bitcast=True).to(tl.int64) << 32)
    tl.store(terms_ptr + at_b, terms_b, mask=at_inside_b)
    tl.store(hit_ptr + at_b, tl.where(pos_id_b < 0, -2, pos_id_b), mask=at_inside_b)
    tl.store(own_ptr + offs_b, tl.where(live_b, own_b, 0.0), mask=inside_b)


@triton.jit
def row_terms(terms_ptr, at_b):
    """(base, weight) of rows, as `row_gradients_kernel` wrote them."""
    terms_b = tl.load(terms_ptr + at_b)
    weight_b = (terms_b >> 32).to(tl.int32).to(tl.float32, bitcast=True)
    return terms_b.to(tl.int32).to(tl.float32, bitcast=True), weight_b


@triton.jit
def row_dots(
    query_ptr,
    query_row_b,
    stride_qb,
    stride_qd,
    item_ptr,
    item_row_b,
    stride_ev,
    stride_ed,
    dim,
    CHUNK_D: tl.constexpr,
    DOT: tl.constexpr = tl.float32,
):
    """[B] float32 <query row, item row as DOT>, CHUNK_D dimensions at a time: whole tiles would not fit in
    registers beside what their callers hold."""
    dot_b = tl.zeros(query_row_b.shape, tl.float32)
    for first in range(0, dim, CHUNK_D):
        offs_d = (first + tl.arange(0, CHUNK_D)).to(tl.int64)
        inside_d = offs_d[None, :] < dim
        query_ptr_bd = query_ptr + query_row_b[:, None] * stride_qb + offs_d[None, :] * stride_qd
        item_ptr_bd = item_ptr + item_row_b[:, None] * stride_ev + offs_d[None, :] * stride_ed
        query_bd = tl.load(query_ptr_bd, mask=inside_d, other=0.0).to(tl.float32)
        item_bd = tl.load(item_ptr_bd, mask=inside_d, other=0.0).to(DOT).to(tl.float32)
        dot_b += tl.sum(query_bd * item_bd, 1)
    return dot_b


@triton.jit
def prior_term(id_n, log_prior_ptr, prior_weight):
    """prior_weight * log_prior[id]; a weight of 0 ignores the prior, with any other -inf removes."""
    log_prior_n = tl.load(log_prior_ptr + id_n)
    term_n = tl.where(log_prior_n == float("-inf"), log_prior_n, prior_weight * log_prior_n)
    return tl.where(prior_weight == 0.0, 0.0, term_n)


@triton.jit
def candidate_rows(
    item_ptr,
    id_n,
    bias_n,
    log_prior_ptr,
    stride_ev,
    stride_ed,
    dim,
    DOT: tl.constexpr,
    EVEN_D: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """[N, BLOCK_D] item rows, zeros for what the prior removes."""
    if log_prior_ptr is not None:
        there_n = bias_n != float("-inf")
        return load_rows_there(item_ptr, id_n, there_n, stride_ev, stride_ed, dim, DOT, BLOCK_D)
    else:
        return load_rows(item_ptr, id_n, stride_ev, stride_ed, dim, DOT, EVEN_D, BLOCK_D)


@triton.jit
def logit(dot, scale, bias):
    """scale * dot + bias; a candidate of bias -inf is not there, whatever its row holds."""
    return tl.where(bias == float("-inf"), bias, dot * scale + bias)


@triton.jit
def exponents(logit, base):
    """logit / log 2 - base, rounded once: of a base that is logit / log 2 rounded, what the rounding left."""
    if WIDEN:
        return (logit.to(tl.float64) * LOG2E - base.to(tl.float64)).to(tl.float32)
    else:
        return tl.fma(logit, LOG2E, -base)


@triton.jit
def powers(logit, base):
    """exp(logit) / 2^base in two instructions: a multiply-add, and the exponential itself, which without ftz
    is four, for results below 2^-126."""
    power = exponents(logit, base)
    if WIDEN:
        return tl.exp2(power)
    else:
        return tl.inline_asm_elementwise(
            "ex2.approx.ftz.f32 $0, $1;", "=r,r", [power], dtype=tl.float32, is_pure=True, pack=1
        )


@triton.jit
def start_sum(logit_b):
    """(largest, base, sum) of rows with one logit each: sum = exp(logit) / 2^base."""
    base_b = tl.maximum(logit_b * LOG2E, NO_BASE)
    return logit_b, base_b, powers(logit_b, base_b)


@triton.jit
def empty_sum(BLOCK_B: tl.constexpr):
    """(largest, base, sum) of rows without logits."""
    minus_b = tl.full([BLOCK_B], float("-inf"), tl.float32)
    return minus_b, tl.full([BLOCK_B], NO_BASE, tl.float32), tl.zeros([BLOCK_B], tl.float32)


@triton.jit
def largest_of(logit_bk):
    """[B] of each row, past NaN."""
    if WIDEN:  # numpy warns of rows that hold nothing else
        logit_bk = tl.where(logit_bk == logit_bk, logit_bk, float("-inf"))
    return tl.max(logit_bk, 1)


@triton.jit
def online_sum(largest_b, base_b, sum_b, logit_bk):
    """(largest, base, sum) of each row after another tile; base: that of the largest in units of log 2.

    base is rounded, and what its rounding leaves is known: log_sum takes it off again. So the probability
    of a dominant candidate is 1 to the last digit, as in nats, without a multiplication more a logit.
    It is finite: a logit of +inf makes the sum +inf, and NaN is left to what is none.
    """
    largest_b = tl.maximum(largest_b, largest_of(logit_bk))
    new_base_b = tl.minimum(tl.maximum(base_b, largest_b * LOG2E), -NO_BASE)
    sum_b = sum_b * tl.exp2(base_b - new_base_b) + tl.sum(powers(logit_bk, new_base_b[:, None]), 1)
    return largest_b, new_base_b, sum_b


@triton.jit
def log_sum(largest_b, base_b, sum_b):
    """The log-sum-exp in nats. The sum tells whether there are terms: a maximum looks past NaN."""
    rest_b = tl.where(base_b == NO_BASE, 0.0, exponents(largest_b, base_b))
    rest_b = tl.where(sum_b == float("inf"), 0.0, rest_b)
    return tl.where(sum_b == 0.0, float("-inf"), largest_b + (tl.log(sum_b) - rest_b * LN2))


@triton.jit
def store_query_gradients(
    d_query_bd,
    d_scale_b,
    weight_b,
    offs_b,
    inside_b,
    row_b,
    pos_id_b,
    query_ptr,
    item_ptr,
    own_ptr,
    d_query_ptr,
    d_scale_ptr,
    scale,
    num_rows,
    dim,
    stride_qb,
    stride_qd,
    stride_ev,
    stride_ed,
    RANGE: tl.constexpr,
    BLOCK_D: tl.constexpr,
    DOT: tl.constexpr = tl.float32,
):
    """To d_query [split, B, D] and d_scale [split, B], each where its pointer is given: the sums of
    probabilities times the row's weight; split 0 adds own * the positive's item."""
    is_first = tl.program_id(1) == 0
    own_b = tl.where(is_first, tl.load(own_ptr + row_b), 0.0)
    split_row_b = tl.program_id(1).to(tl.int64) * num_rows + offs_b
    if d_query_ptr is not None:
        # In halves of at most 128 dimensions: the items' rows take registers of their own.
        HALF: tl.constexpr = BLOCK_D // 2 if BLOCK_D > 128 else BLOCK_D
        d_query_bd *= (weight_b / RANGE)[:, None]
        if BLOCK_D > 128:
            halves = tl.reshape(d_query_bd, [d_query_bd.shape[0], 2, HALF])
            d_query_bd, right_bd = tl.split(tl.permute(halves, (0, 2, 1)))
        for half in tl.static_range(BLOCK_D // HALF):
            if half == 1:
                d_query_bd = right_bd
            offs_d = half * HALF + tl.arange(0, HALF)
            inside_d = offs_d[None, :] < dim
            item_ptr_bd = item_ptr + pos_id_b[:, None] * stride_ev + offs_d[None, :].to(tl.int64) * stride_ed
            item_bd = tl.load(item_ptr_bd, mask=(own_b != 0.0)[:, None] & inside_d, other=0.0)
            tl.store(
                d_query_ptr + split_row_b[:, None] * dim + offs_d[None, :],
                scale * (d_query_bd + own_b[:, None] * item_bd.to(DOT).to(tl.float32)),
                mask=inside_b[:, None] & inside_d,
            )
    if d_scale_ptr is not None:
        d_scale_b *= weight_b
        if is_first:
            pos_dot_b = row_dots(
                query_ptr, row_b, stride_qb, stride_qd, item_ptr, pos_id_b, stride_ev, stride_ed, dim, 16, DOT
            )
            d_scale_b += tl.where(own_b == 0.0, 0.0, own_b * pos_dot_b)
        tl.store(d_scale_ptr + split_row_b, d_scale_b, mask=inside_b)


@triton.jit
def store_item_gradients(
    d_item_nd,
    d_bias_n,
    out_n,
    inside_n,
    d_item_ptr,
    d_bias_ptr,
    scale,
    peak,
    dim,
    RANGE: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """To rows out_n of d_item [., D] and d_bias [.], each where its pointer is given."""
    if d_item_ptr is not None:
        offs_d = tl.arange(0, BLOCK_D)
        tl.store(
            d_item_ptr + out_n[:, None] * dim + offs_d[None, :],
            d_item_nd * (scale * peak / RANGE),
            mask=inside_n[:, None] & (offs_d[None, :] < dim),
        )
    if d_bias_ptr is not None:
        tl.store(d_bias_ptr + out_n, d_bias_n * peak, mask=inside_n)
