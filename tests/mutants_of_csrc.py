"""The MUTANT(n, wrong, right) of csrc/, and who notices each: see mutants.py. Eight are of bfloat16."""

from mutants import CsrcMutant

SAMPLED = "tests/ops/test_sampled_softmax.py::test_"
ON_EVERY_PATH = "every_path_of_the_processor_on_any_number_of_threads"
VALUES = f"{SAMPLED}values_and_gradients[cpu-torch.float32-cpu-"
PAIRS, TILES = "avx512_bf16", "avx512_amx_emulation"

CSRC_MUTANTS = [
    CsrcMutant(
        "in bfloat16 the even rows' factors are 5 % short",
        1,
        f"{SAMPLED}{ON_EVERY_PATH}[{PAIRS}-1]",
        "gradient of items: error",
        PAIRS,
    ),
    CsrcMutant(
        "to bfloat16 by cutting off, not to nearest",
        2,
        f"{SAMPLED}{ON_EVERY_PATH}[{PAIRS}-1]",
        "gradient of items: error",
        PAIRS,
    ),
    CsrcMutant(
        "on tile registers a row of a pair takes the other's place",
        3,
        f"{SAMPLED}{ON_EVERY_PATH}[{TILES}-1]",
        "gradient of items: error",
        TILES,
    ),
    CsrcMutant(
        "on tile registers earlier chunks keep their weight",
        4,
        f"{SAMPLED}{ON_EVERY_PATH}[{TILES}-1]",
        "gradient of query: error",
        TILES,
    ),
    CsrcMutant(
        "a tile product sums in another order",
        5,
        f"tests/kernels/test_native.py::test_tile_products_have_the_bits_of_the_manual"
        f"[ordinary-ordinary-{TILES}]",
        "assert np.array_equal(got[~nan], expected[~nan])",
        TILES,
    ),
    CsrcMutant(
        "in bfloat16 the probabilities of a backward lack the prior",
        6,
        f"tests/ops/test_full_softmax.py::test_{ON_EVERY_PATH}[{PAIRS}-1]",
        "gradient of query: error",
        PAIRS,
    ),
    CsrcMutant(
        "in bfloat16 a backward has log Q with the other sign",
        7,
        f"{SAMPLED}{ON_EVERY_PATH}[{PAIRS}-1]",
        "gradient of query: error",
        PAIRS,
    ),
    CsrcMutant(
        "in bfloat16 a row without gradient clears its neighbour's exponentials",
        8,
        f"{SAMPLED}{ON_EVERY_PATH}[{PAIRS}-1]",
        "gradient of items: error",
        PAIRS,
    ),
    CsrcMutant("a repeated negative counts once", 9, f"{VALUES}repeated negatives]", "loss: error"),
    CsrcMutant(
        "the in-batch diagonal is among the negatives",
        10,
        f"{VALUES}in-batch: diagonal excluded]",
        "loss: error",
    ),
    CsrcMutant(
        "a positive's share of the table's gradient lacks the scale",
        11,
        f"{VALUES}ragged rows, negatives and dimension]",
        "gradient of items: error",
    ),
    CsrcMutant(
        "two threads share a run of equal ids",
        12,
        f"tests/ops/test_row_update.py::test_{ON_EVERY_PATH}[avx2-3]",
        "table: error",
        "avx2",
    ),
    CsrcMutant(
        "excluded items that score above a target are counted",
        13,
        f"tests/ops/test_target_ranks.py::test_{ON_EVERY_PATH}[baseline-1]",
        "assert torch.equal(got.greater, want[0]), case",
    ),
    CsrcMutant(
        "excluded items are among the best",
        14,
        f"tests/ops/test_top_items.py::test_{ON_EVERY_PATH}[baseline-1]",
        "assert torch.equal(got_score.double(), want_score), case",
    ),
    CsrcMutant(
        "the exponential's log 2 lacks its second part",
        15,
        "tests/kernels/test_native.py::test_the_exponential_is_within_1_2_ulp[baseline]",
        "assert error.max() <= 1.2",
        often=False,
    ),
    CsrcMutant(
        "a time east of UTC is taken for one west of it",
        16,
        "tests/data/test_read_log.py::test_times[2014-12-06T02:03:04+02:00-1417824184]",
        "[1417824184]",
    ),
]
