"""What the Triton kernels compile to, for every architecture that is tuned for: no GPU is needed.

Of each kernel with the tile that its table gives: no spills, shared memory within the limit, the
matrix instruction of the architecture for 16-bit operands, 16-byte loads where addresses divide.
`make test` compiles a few, `make test-slow` all.
"""

import importlib
import os
import re
import subprocess
from pathlib import Path

import pytest
import torch

triton = pytest.importorskip("triton", reason="triton is not installed")
if os.environ.get("TRITON_INTERPRET") == "1":
    pytest.skip("the interpreter does not compile", allow_module_level=True)

from triton.backends.compiler import GPUTarget  # noqa: E402
from triton.compiler import ASTSource  # noqa: E402

from fastpop.kernels import triton_tiles  # noqa: E402
from fastpop.kernels.full_softmax import _triton_kernels as full  # noqa: E402
from fastpop.kernels.sampled_softmax import _triton_kernels as sampled  # noqa: E402
from fastpop.kernels.sampled_softmax import _triton_pack as sampled_pack  # noqa: E402
from fastpop.kernels.sampled_softmax import _triton_rows as sampled_rows  # noqa: E402
from fastpop.kernels.score_energy import _triton_kernels as energy  # noqa: E402
from fastpop.kernels.target_ranks import _triton_kernels as ranks  # noqa: E402
from fastpop.kernels.top_items import _triton_kernels as top  # noqa: E402

CUOBJDUMP = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
SHARED_KIB = {80: 163, 90: 227, 100: 227}
SMALL_SHARED_KIB = {86: 99, 89: 99, 120: 99}
MATRIX = {80: "mma.sync", 90: "wgmma.mma_async", 100: "tcgen05.mma"}
TYPES = {torch.float32: "fp32", torch.bfloat16: "bf16", torch.float16: "fp16"}
IDS = {
    "pos_id_ptr": "*i64",
    "neg_id_ptr": "*i64",
    "id_ptr": "*i64",
    "source_ptr": "*i64",
    "counter_ptr": "*i64",
    "table_ptr": "*i32",
    "sums_ptr": "*fp64",
    "best_ptr": "*i32",
    "key_ptr": "*i32",
    "entry_ptr": "*i32",
    "out_id_ptr": "*i64",
    "hit_ptr": "*i32",
    "terms_ptr": "*i64",
    "pair_ptr": "*i32",
    "count_ptr": "*i32",
    **dict.fromkeys(("target_ptr", "target_offsets_ptr", "place_ptr", "excluded_ptr"), "*i64"),
    **dict.fromkeys(("exclude_offsets_ptr", "greater_ptr", "equal_ptr"), "*i64"),
    **dict.fromkeys(("slot_ptr", "banned_ptr", "tile_ptr", "first_ptr", "end_ptr"), "*i64"),
}
IN_OPERANDS = ("query_ptr", "item_ptr", "d_query_ptr", "d_item_ptr", "out_row_ptr")

IN_PLACE = ("row_ptr", "count_ptr")  # None where candidates stay in the table

# name: (kernel, its table of tiles, arguments that are None)
KERNELS = {
    "sampled forward": (sampled.forward_kernel, triton_tiles.SAMPLED_FORWARD, ("count_ptr",)),
    "sampled d_query": (sampled.query_kernel, triton_tiles.SAMPLED_QUERY, ("count_ptr",)),
    "sampled d_item": (sampled.item_kernel, triton_tiles.SAMPLED_ITEM, ("count_ptr",)),
    "sampled forward, merged": (sampled.forward_kernel, triton_tiles.SAMPLED_FORWARD, ()),
    "sampled d_query, merged": (sampled.query_kernel, triton_tiles.SAMPLED_QUERY, ()),
    "sampled d_item, merged": (sampled.item_kernel, triton_tiles.SAMPLED_ITEM, ()),
    "sampled forward, a set for each group": (sampled.forward_kernel, triton_tiles.SAMPLED_FORWARD, IN_PLACE),
    "sampled d_query, a set for each group": (sampled.query_kernel, triton_tiles.SAMPLED_QUERY, IN_PLACE),
    "sampled d_item, a set for each group": (sampled.item_kernel, triton_tiles.SAMPLED_ITEM, IN_PLACE),
    "full forward": (full.forward_kernel, triton_tiles.FORWARD, ()),
    "full d_query": (full.query_kernel, triton_tiles.QUERY, ()),
    "full d_item": (full.item_kernel, triton_tiles.ITEM, ()),
    "score sums": (energy.sums_kernel, triton_tiles.FORWARD, ()),
    "top maxima": (top.best_kernel, triton_tiles.MAXIMA, ()),
    "top maxima of pairs": (top.pairs_kernel, triton_tiles.MAXIMA, ("slot_ptr", "key_ptr")),
    "top scores of pairs": (top.pairs_kernel, triton_tiles.MAXIMA, ("best_ptr",)),
    "ranks": (ranks.ranks_kernel, triton_tiles.MAXIMA, ()),
    "ranks' pairs": (ranks.pairs_kernel, triton_tiles.MAXIMA, ()),
}
ON_TILES = (sampled.forward_kernel, sampled.query_kernel, sampled.item_kernel, sampled_pack.pack_kernel)
IN_ORDER = (sampled_pack.pack_kernel, sampled_pack.merge_kernel)
ROW_SUMS = (sampled_rows.chunk_kernel, sampled_rows.carry_kernel)
FEW = [(kernel, arch, 128, torch.bfloat16) for kernel in KERNELS for arch in SHARED_KIB]
FEW += [
    (kernel, 90, dim, dtype)
    for kernel in ("sampled forward", "sampled d_query", "sampled d_item")
    for dim, dtype in ((64, torch.bfloat16), (256, torch.bfloat16), (128, torch.float32))
]
# What can differ: an entry of a table (its blocks of dimensions are 64, 128 and 256, its types 16 bits or
# not) on an architecture that has one, and on sm_120, which takes sm_80's. float16 takes bfloat16's tiles,
# and other dimensions those of the next block, within which they have less to hold: a block of each is seen.
# sm_86 and sm_89 compile sm_80's tile into as much shared memory, to which that one is held here; one of
# each is seen.
ALL = [
    *((k, arch, dim, dtype) for k in KERNELS for arch in (*SHARED_KIB, 120) for dim in (64, 128, 256)
      for dtype in (torch.float32, torch.bfloat16)),
    *((k, arch, 128, torch.float16) for k in KERNELS for arch in (*SHARED_KIB, 120)),
    *((k, arch, dim, dtype) for k in KERNELS for arch, dim in ((80, 32), (90, 100), (100, 32), (120, 100))
      for dtype in (torch.float32, torch.bfloat16)),
    *((k, arch, 256, torch.bfloat16) for k in KERNELS for arch in (86, 89)),
]  # fmt: skip


class Compiled:
    """A kernel's code for one architecture."""

    def __init__(
        self,
        kernel,
        arch: int,
        constants: dict,
        dtype: torch.dtype,
        tmp_path: Path,
        num_warps: int,
        num_stages: int,
        table: torch.dtype | None = None,
    ):
        signature, attributes = {}, {}
        for at, (name, parameter) in enumerate(zip(kernel.arg_names, kernel.params)):
            if name in constants:
                signature[name] = "constexpr"
                continue
            if name.endswith("_ptr"):
                number = TYPES[dtype] if name in IN_OPERANDS else "fp32"
                if name == "item_ptr" and table is not None:
                    number = TYPES[table]
                signature[name] = IDS.get(name, f"*{number}")
                if kernel in ROW_SUMS and name in ("carry_bias_ptr", "out_bias_ptr"):
                    signature[name] = "*fp64"
                if kernel in ROW_SUMS and name == "id_ptr":
                    signature[name] = "*i32"
                if kernel in IN_ORDER and name in ("sorted_ptr", "first_ptr"):
                    signature[name] = "*i32"
                if kernel in ON_TILES and name in ("row_ptr", "id_ptr"):
                    signature[name] = f"*{TYPES[dtype]}" if name == "row_ptr" else "*i32"
            else:
                signature[name] = "fp32" if name in ("log_count", "unknown", "scale", "cap") else "i32"
            if (
                not parameter.do_not_specialize
                and signature[name] != "fp32"
                and (name != "dim" or constants.get("EVEN_D", True))
            ):
                attributes[at,] = [["tt.divisibility", 16]]
        constants = {name: value for name, value in constants.items() if name in kernel.arg_names}
        source = ASTSource(kernel, signature, constexprs=constants, attrs=attributes)
        built = triton.compile(
            source,
            target=GPUTarget("cuda", arch, 32),
            options={"num_warps": num_warps, "num_stages": num_stages, **triton_tiles.OPTIONS},
        )
        self.ptx, self.shared_kib = built.asm["ptx"], built.metadata.shared / 1024
        cubin = tmp_path / "kernel.cubin"
        cubin.write_bytes(built.asm["cubin"])
        usage = subprocess.run(
            [CUOBJDUMP, "--dump-resource-usage", cubin], capture_output=True, text=True, check=True
        ).stdout
        self.spilled = sum(int(size) for size in re.findall(r"(?:STACK|LOCAL):(\d+)", usage))
        assert "REG:" in usage

    @property
    def loads_16_bytes(self) -> bool:
        copies = re.search(r"cp\.async\.c[ag]\.shared\.global[^;]*0x10", self.ptx)
        return bool(copies or re.search(r"ld\.global[^;]*\.v4\.b32", self.ptx))


def compiled(kernel_name, arch, dim, dtype, tmp_path, fixed=(), of_items=None):
    kernel, table, absent = KERNELS[kernel_name]
    tile = triton_tiles.tile_for(table, arch, dim, dtype)
    block_d = triton_tiles.block_of(dim)
    constants = {
        "BLOCK_B": tile.rows,
        "BLOCK_K": tile.candidates,
        "BLOCK_V": tile.candidates,
        "BLOCK_D": block_d,
        "EVEN_D": dim == block_d,
        "CAPPED": True,
        "CORRECT_POSITIVE": True,
        "HITS": True,
        "DIAGONAL": False,
        "stride_qd": 1,
        "stride_ed": 1,
        **triton_tiles.dot_constants(dtype, dim),
        **dict.fromkeys(absent),
        **dict(fixed),
    }
    if dtype != torch.float16:
        constants["peak_ptr"] = None
    return Compiled(kernel, arch, constants, dtype, tmp_path, tile.num_warps, tile.num_stages, of_items)


def check(kernel_name, arch, dim, dtype, tmp_path):
    built = compiled(kernel_name, arch, dim, dtype, tmp_path)
    assert built.shared_kib <= (SHARED_KIB | SMALL_SHARED_KIB | {80: SMALL_SHARED_KIB[86]})[arch]
    # Tiles are tuned for these; elsewhere some spill up to 312 bytes, which is slow, not wrong.
    if arch in SHARED_KIB and dim == triton_tiles.block_of(dim):
        assert built.spilled == 0
        assert built.loads_16_bytes
    if dtype != torch.float32:
        assert MATRIX.get(arch, "mma.sync") in built.ptx
    elif dim <= 128:
        assert re.search(r"mma[^;]*tf32", built.ptx)
    else:
        assert "mma" not in built.ptx


@pytest.mark.parametrize(("kernel", "arch", "dim", "dtype"), FEW, ids=str)
def test_compiles_without_spills_and_with_the_right_instructions(kernel, arch, dim, dtype, tmp_path):
    check(kernel, arch, dim, dtype, tmp_path)


def test_every_entry_of_every_table_is_among_those_that_are_compiled():
    def entry(kernel, arch, dim, dtype):
        table, half = KERNELS[kernel][1], dtype != torch.float32
        of = 80 if arch >= 110 else arch
        least = max(one for one, is_half in table if one <= of and is_half == half)
        return id(table), least, half, triton_tiles.block_of(dim)

    seen = {entry(*one) for one in ALL}
    for _, table, _ in KERNELS.values():
        for (arch, half), by_dim in table.items():
            for block in by_dim:
                assert (id(table), arch, half, block) in seen


@pytest.mark.parametrize("arch", [86, 89])
@pytest.mark.parametrize("kernel", ["sampled forward", "top maxima of pairs"])
def test_small_cards_of_a_generation_take_its_shared_memory(kernel, arch, tmp_path):
    assert triton_tiles.tile_for(KERNELS[kernel][1], arch, 128, torch.bfloat16) == triton_tiles.tile_for(
        KERNELS[kernel][1], 80, 128, torch.bfloat16
    )
    small, large = (compiled(kernel, one, 128, torch.bfloat16, tmp_path) for one in (arch, 80))
    assert small.shared_kib == large.shared_kib


@pytest.mark.slow
@pytest.mark.parametrize(("kernel", "arch", "dim", "dtype"), ALL, ids=str)
def test_every_tile_of_every_table(kernel, arch, dim, dtype, tmp_path):
    check(kernel, arch, dim, dtype, tmp_path)


@pytest.mark.parametrize("kernel", ["sampled forward", "sampled d_query", "sampled d_item"])
@pytest.mark.parametrize("dim", [64, 128])
def test_rounded_rows_of_a_float32_table_are_multiplied_as_bfloat16(kernel, dim, tmp_path):
    """Under autocast: the table is float32, its packed rows are not."""
    built = compiled(kernel, 90, dim, torch.bfloat16, tmp_path, of_items=torch.float32)
    assert re.search(r"wgmma\.mma_async[^;]*bf16\.bf16", built.ptx)
    assert "tf32" not in built.ptx
    assert built.spilled == 0


@pytest.mark.parametrize("kernel", KERNELS)
def test_sizes_of_one_which_triton_makes_constants(kernel, tmp_path):
    built = compiled(
        kernel, 90, 1, torch.bfloat16, tmp_path, dict.fromkeys(("dim", "stride_qb", "stride_ev"), 1)
    )
    assert built.spilled == 0


@pytest.mark.parametrize(
    ("arch", "dim", "dtype"),
    [(80, 64, torch.float32), (90, 64, torch.float32), (90, 128, torch.bfloat16), (100, 128, torch.bfloat16)],
)
def test_scores_of_top_items_and_ranks_are_made_by_the_same_instructions(arch, dim, dtype, tmp_path):
    """Else a score could differ between the pass that chooses its tile and the one that returns it, and a
    target could stand above itself, or elsewhere than where it is listed."""
    used = [
        set(re.findall(rf"{MATRIX[arch]}[\w.:]*|mma\.sync[\w.:]*", built.ptx))
        for built in (
            compiled(kernel, arch, dim, dtype, tmp_path)
            for kernel in KERNELS
            if kernel.startswith(("top", "ranks"))
        )
    ]
    assert len(used) == 5
    assert used[0]
    assert all(one == used[0] for one in used)


# Of a logit, in the main loop on sm_90: {dimensions: (as it is, with accidental hits)}. More than that, and
# neither tensor cores nor exponentials bind (docs/performance.md). At 256 dimensions products do. A score
# that is ranked is compared twice and joins a sum of exponentials, which is four instructions each.
MOST_INSTRUCTIONS = {
    "sampled forward": {64: (8, 10), 128: (9, 11), 256: (9, 11)},
    "sampled d_query": {64: (6, 8.5), 128: (9, 12), 256: (9.5, 12)},
    "sampled d_item": {64: (8, 10.5), 128: (9, 12), 256: (14, 17)},
    # Of different draws alone, up to a count of the device: no more than of all.
    "sampled forward, merged": {64: (8, 10), 128: (9, 11)},
    "sampled d_query, merged": {64: (6, 8.5), 128: (9, 12)},
    "sampled d_item, merged": {64: (8, 10.5), 128: (9, 12)},
    "ranks": {64: (14.5,), 128: (15.5,), 256: (19.5,)},
    "top maxima": {64: (6.5,), 128: (7.5,), 256: (12,)},
}


@pytest.mark.parametrize(
    ("kernel", "dim", "hits"),
    [
        (kernel, dim, bool(hits))
        for kernel, by_dim in MOST_INSTRUCTIONS.items()
        for dim, most in by_dim.items()
        for hits in range(len(most))
    ],
)
def test_few_instructions_a_logit(monkeypatch, kernel, dim, hits, tmp_path):
    """What a logit needs of its row and its candidate are few loads a tile."""
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "bench"))
    instructions = importlib.import_module("gpu.instructions")
    fixed = {"HITS": hits, "d_scale_ptr": None, "d_bias_ptr": None}
    built = compiled(kernel, 90, dim, torch.bfloat16, tmp_path, fixed)
    sass = subprocess.run(
        [CUOBJDUMP.with_name("nvdisasm"), "-c", tmp_path / "kernel.cubin"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    loop = instructions.main_loop(sass)
    tile = triton_tiles.tile_for(KERNELS[kernel][1], 90, dim, torch.bfloat16)
    per_logit = len(loop) * 32 * tile.num_warps / (tile.rows * tile.candidates)
    assert per_logit <= MOST_INSTRUCTIONS[kernel][dim][hits]
    scalars = [one for one in loop if re.search(r"\b(LDG|LDGSTS)\.", one) and ".128" not in one]
    assert len(scalars) <= 16 * (1 + hits)
    assert built.spilled == 0
    # Results below 2^-126 are 0: without that an exponential is four instructions.
    assert "ex2.approx.f32" not in built.ptx


def test_excluded_candidates_of_a_tile_are_64_bits():
    assert all(tile.candidates <= 64 for by_dim in triton_tiles.MAXIMA.values() for tile in by_dim.values())


MERGED = ("sorted_ptr", "first_ptr", "count_ptr")
ABSENT = {
    "ids": ("table_ptr", "counter_ptr", *MERGED),
    "drawn": ("neg_id_ptr", *MERGED),
    "merged": ("neg_id_ptr",),
}


@pytest.mark.parametrize("given", ABSENT)
@pytest.mark.parametrize("arch", SHARED_KIB)
def test_packing_compiles_without_spills(arch, given, tmp_path):
    absent = ABSENT[given]
    for dim, dtype in ((128, torch.bfloat16), (256, torch.float32)):
        constants = {
            "stride_ed": 1,
            "BLOCK_K": sampled_pack.BLOCK,
            "BLOCK_D": dim,
            "DOT": triton_tiles.TL_DTYPES[dtype],
        } | dict.fromkeys(absent)
        built = Compiled(sampled_pack.pack_kernel, arch, constants, dtype, tmp_path, 4, 3)
        assert built.spilled == 0
        assert built.loads_16_bytes


@pytest.mark.parametrize("arch", SHARED_KIB)
def test_merging_compiles_without_spills(arch, tmp_path):
    constants = {"BLOCK_K": sampled_pack.MERGED, "SCAN": sampled_pack.SCANNED}
    kernel = sampled_pack.merge_kernel
    assert Compiled(kernel, arch, constants, torch.float32, tmp_path, 4, 3).spilled == 0


@pytest.mark.parametrize("kernel", ROW_SUMS)
@pytest.mark.parametrize("arch", SHARED_KIB)
def test_row_sums_compile_without_spills(kernel, arch, tmp_path):
    for dim, dtype in ((128, torch.bfloat16), (256, torch.float32)):
        constants = {"stride_qd": 1, "CHUNK": sampled_rows.CHUNK, "WALK": sampled_rows.WALK, "BLOCK_D": dim}
        built = Compiled(kernel, arch, constants, dtype, tmp_path, sampled_rows.sum_warps(dim), 3)
        assert built.spilled == 0
        assert built.loads_16_bytes
