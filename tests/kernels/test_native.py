"""What the C++ kernels are made of: the exponential on every path, and the bits of tile products."""

import numpy as np
import pytest

from fastpop import _C
from fastpop.kernels import native


@pytest.mark.parametrize("path", native.PATHS)
def test_the_exponential_is_within_1_2_ulp(path):
    if not native.has_path(path):
        pytest.skip(f"this processor has no {path}")
    x = np.linspace(-87.3, 3, 1 << 18, dtype=np.float32)
    truth = np.exp(x.astype(np.float64))
    error = np.abs(native.exp(x, path) - truth) / np.spacing(truth.astype(np.float32))
    assert error.max() <= 1.2
    edge = np.full(64, -np.inf, np.float32)
    edge[:3] = (-88, np.nan, 0)
    got = native.exp(edge, path)
    assert got[0] == 0
    assert np.isnan(got[1])
    assert got[2] == 1
    assert (got[3:] == 0).all()


def tdpbf16ps(a_IT, b_JT):
    """a b^T of bfloat16 bits as Intel's manual defines a chain of TDPBF16PS: in blocks of 32 numbers,
    first and second numbers of the pairs summed apart from 0, in order, then added to what there was.
    A fused multiply-add of bfloat16 is a product (exact) and a sum in float64, rounded once to float32."""

    def flushed(x):
        x = x.astype(np.float32)
        return np.where(np.abs(x) < np.finfo(np.float32).tiny, np.float32(0), x)

    def real(bits):
        with np.errstate(invalid="ignore"):  # a signalling NaN
            return flushed((bits.astype(np.uint32) << 16).view(np.float32)).astype(np.float64)

    a, b = real(a_IT), real(b_JT)
    total = np.zeros((len(a), len(b)), np.float32)
    with np.errstate(over="ignore", invalid="ignore"):
        for block in range(0, a.shape[1], 32):
            sums = [np.zeros_like(total), np.zeros_like(total)]
            for t in range(block, block + 32):
                sums[t % 2] = flushed(np.outer(a[:, t], b[:, t]) + sums[t % 2])
            pair = flushed(sums[0].astype(np.float64) + sums[1])
            total = flushed(total.astype(np.float64) + pair)
    return total


def bfloat16_bits(generator, shape, kind):
    sign = generator.integers(0, 2, shape) << 15
    low, high = {
        "ordinary": (120, 134),
        "any exponent": (1, 254),
        "products that underflow": (40, 90),
        "subnormal": (0, 3),
        "with infinities": (250, 256),
    }[kind]
    exponent = generator.integers(low, high, shape) << 7
    return (sign | exponent | generator.integers(0, 128, shape)).astype(np.uint16)


KINDS_OF_NUMBERS = ["ordinary", "any exponent", "products that underflow", "subnormal", "with infinities"]


@pytest.mark.parametrize("path", ["avx512_amx_emulation", "avx512_amx"])
@pytest.mark.parametrize("left", KINDS_OF_NUMBERS)
@pytest.mark.parametrize("right", KINDS_OF_NUMBERS)
def test_tile_products_have_the_bits_of_the_manual(path, left, right):
    """On the emulation, and on the hardware where there is some: so the two agree bit by bit."""
    if not native.has_path(path):
        pytest.skip(f"this processor has no {path}")
    generator = np.random.default_rng(0)
    a, b = bfloat16_bits(generator, (64, 96), left), bfloat16_bits(generator, (128, 96), right)
    got, expected = native.bf16_products(a, b, path), tdpbf16ps(a, b)
    nan = np.isnan(expected)
    assert np.array_equal(np.isnan(got), nan)
    assert np.array_equal(got[~nan], expected[~nan])


def test_the_order_of_sums_is_visible():
    """The pair products of AVX-512, which sum in another order, have other bits: the test above can fail."""
    if not native.has_path("avx512_amx_emulation"):
        pytest.skip("this processor has no avx512_bf16")
    generator = np.random.default_rng(0)
    a, b = (bfloat16_bits(generator, (rows, 96), "ordinary") for rows in (48, 64))
    one, other = (native.bf16_products(a, b, path) for path in ("avx512_bf16", "avx512_amx_emulation"))
    assert (one != other).mean() > 0.1
    np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-2)


@pytest.mark.parametrize(
    ("arches", "runs", "refused"),
    [
        ("80,90,100+PTX", (80, 86, 89, 90, 100, 103, 110, 120, 121), (70, 75)),
        ("80,90,100", (80, 86, 89, 90, 100, 103), (75, 110, 120, 121)),
        ("90", (90,), (80, 89, 100, 120)),
        ("90a", (90,), (80, 91, 100)),
        ("120+PTX", (120, 121, 130), (90, 100)),
    ],
)
def test_a_device_that_the_build_has_no_code_for_is_refused_with_a_sentence(arches, runs, refused):
    """What runs where CUDA would say 'no kernel image is available for execution on the device'."""
    assert [native.without_code(one, arches) for one in runs] == [None] * len(runs)
    for one in refused:
        assert native.without_code(one, arches) == (
            f"the device is sm_{one}, this build of fastpop._C has code for {arches} "
            f"(build it with FASTPOP_CUDA_ARCHES={one})"
        )


def test_the_module_knows_what_it_was_built_for():
    assert bool(_C.cuda_arches) == _C.has_cuda
    for arch in filter(None, _C.cuda_arches.replace("+PTX", "").split(",")):
        assert native.without_code(int(arch), _C.cuda_arches) is None
