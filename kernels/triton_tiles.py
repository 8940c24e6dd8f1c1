"""What the Triton kernels share: who may run here, how work is cut, and the parts of a tile.

`TRITON_INTERPRET=1`, set before triton is imported, runs the kernels on CPU tensors, slowly, for
tests: programs one after another, products exact in float32. Without it they need a CUDA device.
"""

import contextlib
from functools import partial
from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from fastpop.kernels import fields

INTERPRETED = bool(triton.knobs.runtime.interpret)
TL_DTYPES = {torch.float32: tl.float32, torch.bfloat16: tl.bfloat16, torch.float16: tl.float16}
MAX_DIM = 256
# Ids and row numbers are 32 bits, up to a block past the end; offsets are made from them in 64.
MAX_ROWS = 2**31 - 2**17

# Under the interpreter products are float64, rounded once. Its own bfloat16 are integers, which its
# product takes for the numbers; and numpy's float32 product of q and e differs from that of e and q,
# where a tensor core adds the same terms in the same order.
WIDEN: tl.constexpr = tl.constexpr(INTERPRETED)


class Tile(NamedTuple):
    """The block that one program works on at a time, and how many warps and pipeline stages."""

    rows: int
    candidates: int
    num_warps: int
    num_stages: int


# {(least capability, 16-bit operands): {BLOCK_D: tile}}
Tiles = dict[tuple[int, bool], dict[int, Tile]]
# Of the three passes of both softmax ops: the largest that compile without spills, under the oldest triton
# that is allowed and the newest, within the 99 KiB of shared memory that sm_86, sm_89 and sm_120 have where
# those take the tile (tests/kernels/test_triton_compile.py), which is all that is known of them before they
# are timed.
FORWARD: Tiles = {
    (80, True): {64: Tile(128, 64, 4, 3), 128: Tile(128, 64, 8, 2), 256: Tile(128, 64, 8, 2)},
    (80, False): {64: Tile(32, 16, 4, 2), 128: Tile(64, 16, 4, 2), 256: Tile(32, 32, 8, 1)},
    (90, True): {64: Tile(64, 128, 4, 3), 128: Tile(128, 64, 8, 3), 256: Tile(128, 64, 8, 3)},
    (90, False): {64: Tile(64, 64, 4, 2), 128: Tile(64, 32, 4, 2), 256: Tile(32, 32, 8, 1)},
    (100, True): {64: Tile(128, 64, 8, 3), 128: Tile(128, 64, 8, 3), 256: Tile(64, 64, 8, 3)},
    (100, False): {64: Tile(16, 64, 4, 3), 128: Tile(32, 16, 4, 2), 256: Tile(32, 32, 8, 1)},
}
QUERY: Tiles = {
    (80, True): {64: Tile(128, 64, 8, 2), 128: Tile(64, 64, 8, 3), 256: Tile(64, 64, 8, 2)},
    (80, False): {64: Tile(32, 32, 4, 2), 128: Tile(16, 32, 4, 2), 256: Tile(32, 16, 8, 1)},
    (90, True): {64: Tile(64, 128, 4, 3), 128: Tile(128, 64, 8, 3), 256: Tile(64, 32, 8, 3)},
    (90, False): {64: Tile(64, 32, 4, 1), 128: Tile(16, 32, 4, 2), 256: Tile(32, 32, 8, 1)},
    (100, True): {64: Tile(128, 64, 8, 3), 128: Tile(64, 64, 8, 3), 256: Tile(64, 64, 8, 2)},
    (100, False): {64: Tile(32, 32, 4, 2), 128: Tile(16, 32, 4, 2), 256: Tile(32, 32, 8, 1)},
}
ITEM: Tiles = {
    (80, True): {64: Tile(64, 128, 8, 3), 128: Tile(64, 128, 8, 3), 256: Tile(64, 64, 8, 2)},
    (80, False): {64: Tile(32, 32, 4, 2), 128: Tile(32, 16, 4, 2), 256: Tile(16, 64, 8, 2)},
    (90, True): {64: Tile(64, 128, 8, 3), 128: Tile(64, 128, 8, 3), 256: Tile(32, 64, 8, 2)},
    (90, False): {64: Tile(16, 64, 4, 2), 128: Tile(32, 16, 4, 2), 256: Tile(16, 64, 8, 2)},
    (100, True): {64: Tile(64, 128, 8, 2), 128: Tile(64, 128, 8, 2), 256: Tile(64, 64, 8, 2)},
    (100, False): {64: Tile(32, 32, 4, 2), 128: Tile(32, 16, 4, 2), 256: Tile(16, 64, 8, 2)},
}
# Of the sampled softmax, whose candidates come packed: fewer numbers a logit are held beside the tile's own.
SAMPLED_FORWARD: Tiles = FORWARD | {
    (90, True): {64: Tile(128, 64, 4, 3), 128: Tile(128, 64, 4, 3), 256: Tile(128, 128, 8, 2)}
}
SAMPLED_QUERY: Tiles = QUERY | {
    (90, True): {64: Tile(128, 64, 4, 3), 128: Tile(64, 64, 4, 3), 256: Tile(128, 64, 8, 2)},
    (100, True): {64: Tile(128, 64, 8, 3), 128: Tile(64, 64, 8, 3), 256: Tile(64, 32, 8, 3)},
}
SAMPLED_ITEM: Tiles = ITEM | {
    (90, True): {64: Tile(64, 128, 4, 3), 128: Tile(128, 64, 4, 2), 256: Tile(64, 64, 4, 2)},
    (100, True): {64: Tile(64, 128, 8, 3), 128: Tile(64, 128, 8, 3), 256: Tile(64, 64, 4, 2)},
    (100, False): {64: Tile(16, 64, 4, 2), 128: Tile(32, 16, 4, 2), 256: Tile(16, 64, 8, 2)},
}
# Of the top items, where a tile has one maximum a row and 64 bits for excluded candidates, and of the ranks,
# whose scores have their bits.
# At 256 dimensions the half tiles of sm_80 also fit in the 99 KiB of sm_86, sm_89 and sm_120.
MAXIMA: Tiles = FORWARD | {
    (80, True): {64: Tile(128, 64, 4, 3), 128: Tile(128, 64, 8, 3), 256: Tile(128, 32, 8, 3)},
    (90, True): {64: Tile(128, 64, 4, 3), 128: Tile(128, 64, 4, 3), 256: Tile(128, 64, 8, 3)},
}
# What the interpreter runs: small enough that a test's 65 rows and 33 candidates are several tiles.
INTERPRETED_TILE = Tile(64, 32, 4, 1)


def unsupported(query_BD: Tensor, item_VD: Tensor) -> str | None:
    """Why the kernels, which compute in float32 on a CUDA device, do not take these."""
    for name, tensor in (("query", query_BD), ("items", item_VD)):
        if tensor.dtype not in TL_DTYPES:
            return f"{name} is {str(tensor.dtype)[6:]}, these kernels compute in float32"
    if (reason := cannot_run_on(query_BD.device)) is not None:
        return reason
    if query_BD.shape[1] > MAX_DIM:
        return f"query has {query_BD.shape[1]} dimensions, a tile holds {MAX_DIM}"
    if max(item_VD.shape[0], query_BD.shape[0]) > MAX_ROWS:
        return f"query or items have more than {MAX_ROWS} rows"
    return None


def cannot_run_on(device: torch.device) -> str | None:
    """Why Triton's kernels do not run on a device."""
    if device.type == "cpu":
        return (
            None
            if INTERPRETED
            else ("the tensors are on cpu (where these kernels run under TRITON_INTERPRET=1 only)")
        )
    if device.type != "cuda":
        return f"the tensors are on {device}"
    if capability(device) < 80:
        return f"the device is sm_{capability(device)}, these kernels need sm_80 or later"
    return None


def singles(rows: Tensor) -> Tensor:
    """float64 and integers as float32, which is what kernels compute in."""
    rows = rows.detach()
    return rows if rows.dtype in TL_DTYPES else rows.float()


def capability(device: torch.device) -> int:
    major, minor = torch.cuda.get_device_capability(device)
    return 10 * major + minor


def block_of(dim: int) -> int:
    return max(16, triton.next_power_of_2(dim))


def dot_dtype(query_BD: Tensor, item_VD: Tensor) -> torch.dtype:
    """The operands of the matrix products: what holds both inputs exactly."""
    return torch.promote_types(query_BD.dtype, item_VD.dtype)


def dot_constants(dtype: torch.dtype, dim: int) -> dict[str, Any]:
    """DOT, PRECISION and RANGE of the products.

    float32 is tf32x3: three products of the tensor cores, which keep 21 bits of each operand (plain
    tf32 keeps 11). Above 128 dimensions its operands pass the registers, and it is ieee: no tensor
    core. RANGE multiplies probabilities that become float16: 1e-4, as one of 10,000 candidates has,
    would sit at the edge of its subnormals.
    """
    return {
        "DOT": TL_DTYPES[dtype],
        "PRECISION": "tf32x3" if block_of(dim) <= 128 else "ieee",
        "RANGE": 4096.0 if dtype == torch.float16 else 1.0,
    }


def constants(
    query_BD: Tensor, item_VD: Tensor, tile: Tile, dtype: torch.dtype | None = None
) -> dict[str, Any]:
    """What every kernel on tiles is compiled for, but for its block of candidates. dtype: of the operands,
    where it is not what holds both inputs."""
    dim = query_BD.shape[1]
    block_d = block_of(dim)
    return {
        "EVEN_D": dim == block_d,
        "BLOCK_D": block_d,
        "BLOCK_B": tile.rows,
        "num_warps": tile.num_warps,
        "num_stages": tile.num_stages,
        **dot_constants(dtype or dot_dtype(query_BD, item_VD), dim),
    }


def choose(table: Tiles, device: torch.device, dim: int, dtype: torch.dtype) -> Tile:
    """The tile of a device from a written table."""
    if INTERPRETED and device.type == "cpu":
        return INTERPRETED_TILE
    return tile_for(table, capability(device), dim, dtype)


def tile_for(table: Tiles, arch: int, dim: int, dtype: torch.dtype) -> Tile:
    half = dtype != torch.float32
    arch = 80 if arch >= 110 else arch  # sm_120 has the instructions of sm_80, and not the memory of sm_100
    least = max(one for one, is_half in table if one <= arch and is_half == half)
    by_dim = table[least, half]
    return by_dim[min(block for block in by_dim if block >= block_of(dim))]


def split(num_programs: int, num_steps: int, device: torch.device) -> tuple[int, int]:
    """(splits, steps in each): cut the long loop of few programs until the device is full twice."""
    if device.type == "cuda":
        processors = torch.cuda.get_device_properties(device).multi_processor_count
        least_steps = 4
    else:
        processors, least_steps = 3, 1
    splits = min(-(-2 * processors // max(num_programs, 1)), num_steps // least_steps)
    steps = -(-num_steps // max(splits, 1))
    return -(-num_steps // steps), steps


def on_device(tensor: Tensor) -> contextlib.AbstractContextManager:
    """Triton launches on the current device: make it the tensor's."""
    return torch.cuda.device(tensor.device) if tensor.is_cuda else contextlib.nullcontext()


# A kernel of ours. Triton compiles one anew for an integer that is 1 or divides by 16 where another does
# not: of the sizes that change from batch to batch that would buy nothing (rows are read at clamped
# indices), and a ragged last batch would wait for compilers. Strides and the dimension, which say how
# wide a load may be, keep it.
SIZES = (
    "num_rows",
    "num_items",
    "num_negatives",
    "num_groups",
    "first_group",
    "group_size",
    "blocks_per_group",
    "split_size",
    "num_tiles",
    "split_tiles",
    "num_sources",
    "num_draws",
    "padded_rows",
    "num_padded",
    "num_targets",
    "num_pairs",
    "num_splits",
    "num_columns",
)
kernel = partial(triton.jit, do_not_specialize=SIZES)
# A product and a sum become one instruction by request: what Triton does unasked differs from version to
# version, and with it the speed and the last bit.
OPTIONS = {"enable_fp_fusion": True}


def launch(jitted: Any, grid: tuple[int, ...], **arguments: Any) -> None:
    """The one way in which kernels here are started: every argument by name."""
    jitted[grid](**arguments, **OPTIONS)


def tensors(inputs: Any) -> dict[str, Tensor | None]:
    """An op's tensors by the names that its kernels give them: query_ptr is query_BD."""
    structure: Any = type(inputs)
    return {
        f"{name}_ptr": one if one is None or is_rows else one.contiguous()
        for (name, is_rows), one in zip(fields.kinds(structure), inputs)
        if one is None or isinstance(one, Tensor)
    }


def taken(jitted: Any, shared: dict[str, Any]) -> dict[str, Any]:
    """Of arguments that several kernels share, those that one has. A tensor that it has not would be left
    out of the result in silence: an op's new input is refused until every kernel reads it."""
    for name, one in shared.items():
        if isinstance(one, Tensor) and name not in jitted.arg_names:
            raise TypeError(f"{jitted.__name__}: expected a kernel that reads {name}")
    return {name: shared[name] for name in jitted.arg_names if name in shared}


def padded_bias(bias_V: Tensor | None, num_items: int, tile: Tile, device: torch.device) -> Tensor:
    """[whole tiles] float32: zeros where there is none, -inf past the last item."""
    padded = torch.full(
        (triton.cdiv(num_items, tile.candidates) * tile.candidates,), -torch.inf, device=device
    )
    if bias_V is None:
        padded[:num_items] = 0
    else:
        padded[:num_items] = bias_V
    return padded


def strides(query_BD: Tensor, item_VD: Tensor) -> dict[str, int]:
    return {
        "stride_qb": query_BD.stride(0),
        "stride_qd": query_BD.stride(1),
        "stride_ev": item_VD.stride(0),
        "stride_ed": item_VD.stride(1),
    }


@triton.jit
def known_ids(id_n, num_items):
    """The int64 ids as int32, -1 for one out of range: item 0 is read in its place, and its rows' losses
    are NaN. As few instructions as can be, since every thread of a tile makes those of its candidates."""
    inside_n = id_n.to(tl.uint64, bitcast=True) < num_items.to(tl.uint64)  # no id below 0 is
    return tl.where(inside_n, id_n.to(tl.int32), -1)


@triton.jit
def load_rows(
    base_ptr,
    row_n,
    stride_row,
    stride_dim,
    dim,
    DOT: tl.constexpr,
    EVEN_D: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """[N, BLOCK_D] of the rows row_n (int64: id * stride passes 2^31 at V = 20M, D = 128), as DOT."""
    offs_d = tl.arange(0, BLOCK_D)
    ptr_nd = base_ptr + row_n[:, None] * stride_row + offs_d[None, :].to(tl.int64) * stride_dim
    tile_nd = tl.load(ptr_nd) if EVEN_D else tl.load(ptr_nd, mask=offs_d[None, :] < dim, other=0.0)
    return tile_nd.to(DOT)


@triton.jit
def load_rows_there(
    base_ptr, row_n, there_n, stride_row, stride_dim, dim, DOT: tl.constexpr, BLOCK_D: tl.constexpr
):
    """The same, zeros for the rows that are not there: what they hold may be NaN, and 0 * NaN is."""
    offs_d = tl.arange(0, BLOCK_D)
    ptr_nd = base_ptr + row_n[:, None] * stride_row + offs_d[None, :].to(tl.int64) * stride_dim
    return tl.load(ptr_nd, mask=there_n[:, None] & (offs_d[None, :] < dim), other=0.0).to(DOT)


@triton.jit
def product(left, right, PRECISION: tl.constexpr):
    """left @ right in float32."""
    if WIDEN:
        left, right = left.to(tl.float32).to(tl.float64), right.to(tl.float32).to(tl.float64)
        return tl.dot(left, right, out_dtype=tl.float64).to(tl.float32)
    else:
        return tl.dot(left, right, input_precision=PRECISION)


@triton.jit
def add_product(total, left, right, PRECISION: tl.constexpr):
    """total + left @ right in float32."""
    if WIDEN:
        return total + product(left, right, PRECISION)
    else:
        return tl.dot(left, right, total, input_precision=PRECISION)


@triton.jit
def _larger(left, right):
    return tl.maximum(left, right, propagate_nan=tl.PropagateNan.ALL)


@triton.jit
def row_maximum(tile_bv):
    """[B] maximum of each row, NaN where there is one."""
    if WIDEN:  # where a reduction by a function of ours is a loop in Python
        has_nan_b = tl.max((tile_bv != tile_bv).to(tl.int32), 1) == 1
        return tl.where(has_nan_b, float("nan"), tl.max(tl.where(tile_bv == tile_bv, tile_bv, 0.0), 1))
    else:
        return tl.reduce(tile_bv, 1, _larger)


@triton.jit
def item_tile(
    item_ptr,
    tile,
    num_items,
    stride_ev,
    stride_ed,
    dim,
    DOT: tl.constexpr,
    EVEN_D: tl.constexpr,
    BLOCK_V: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """[BLOCK_V, BLOCK_D] rows of a tile of the catalogue, zeros past the last. One address a tile is made;
    the rows lie from it where they did in the tile before."""
    offs_v, offs_d = tl.arange(0, BLOCK_V).to(tl.int64), tl.arange(0, BLOCK_D).to(tl.int64)
    first = tl.full([], BLOCK_V, tl.int64) * tile
    ptr_vd = item_ptr + first * stride_ev + (offs_v[:, None] * stride_ev + offs_d[None, :] * stride_ed)
    there = (offs_v < num_items - first)[:, None]
    return tl.load(ptr_vd, mask=there if EVEN_D else there & (offs_d < dim)[None, :], other=0.0).to(DOT)


@triton.jit
def score_tile(query_bd, item_vd, bias_v, scale, PRECISION: tl.constexpr):
    """[BLOCK_B, BLOCK_V] float32 scale * <query, item> + bias, -inf where the bias is.

    Of one (row, item) the same bits in every kernel with a tile of this shape: the same instructions add its
    products in the same order."""
    dot_bv = product(query_bd, tl.trans(item_vd), PRECISION)
    # Written as one instruction: two kernels must not be free to round differently.
    score_bv = tl.fma(
        dot_bv, tl.full(dot_bv.shape, scale, tl.float32), tl.broadcast_to(bias_v[None, :], dot_bv.shape)
    )
    # A removed item is none whatever its row holds: NaN and -inf are NaN.
    return tl.where(bias_v[None, :] != float("-inf"), score_bv, float("-inf"))
