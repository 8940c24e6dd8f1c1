"""The vectors of the permutation kernel, against Python integers."""

import numba
import numpy as np
import pytest

from fastpop.kernels.permutation import _vector, reference


@numba.njit
def words_and_edges(key, first, edges):
    out = np.zeros(64, np.uint8)
    drawn = _vector.words(np.uint64(key), np.uint64(first))
    _vector.store(out, 0, drawn)
    masks = np.zeros(len(edges), np.uint64)
    for n in range(len(edges)):
        masks[n] = _vector.at_least(drawn, edges[n])
    return out, masks


def test_vector_words_are_the_words_of_the_stream():
    key = reference.stream_key(3, 4)
    out, masks = words_and_edges(key, 16, np.arange(256))
    want = reference.bytes_of(key, 24 * 8)[128:]
    assert (out == want).all()
    for edge in range(256):
        assert int(masks[edge]) == sum(1 << i for i in range(64) if want[i] >= edge)


@numba.njit
def lists_by_table(masks, out):
    for b in range(len(masks)):
        _vector.list_by_table(out, 128 * b, masks[b, 0])
        _vector.list_by_table(out, 128 * b + 64, masks[b, 1])


@numba.njit
def lists_by_compress(masks, out):
    for b in range(len(masks)):
        _vector.list_by_compress(out, 128 * b, masks[b, 0])
        _vector.list_by_compress(out, 128 * b + 64, masks[b, 1])


@pytest.mark.parametrize(
    "way",
    [
        lists_by_table,
        pytest.param(
            lists_by_compress,
            marks=pytest.mark.skipif(
                _vector.binding.llvm_version_info < (19,), reason="this LLVM has no compress"
            ),
        ),
    ],
)
def test_lists_hold_the_places_of_the_bits(way):
    rng = np.random.default_rng(0)
    share = rng.random((500, 2, 1)).round(1)
    bits = rng.random((500, 2, 64)) < share
    masks = np.packbits(bits, axis=-1, bitorder="little").view(np.uint64)[..., 0]
    assert 0 in masks
    assert 2**64 - 1 in masks
    out = np.full(128 * 500 + 16, 99, np.uint8)
    way(masks, out)
    for found, want in zip(out[: 128 * 500].reshape(1000, 64), bits.reshape(1000, 64)):
        places = np.flatnonzero(want)
        assert (found[: len(places)] == places).all()
        # Filled up to a multiple of four with the row of zeros.
        assert (found[len(places) : -(-len(places) // 4) * 4] == _vector.NOWHERE).all()


@numba.njit
def weighted_rows(total, values, rows):
    found = _vector.load(total, 0, 8)
    for n in range(len(values)):
        found = _vector.add_row(found, values[n], rows, 8 * n)
    doubled = _vector.scaled(2.0, found)
    _vector.store(total, 0, found)
    _vector.store(total, 8, _vector.plus(doubled, found))


def test_vector_arithmetic_is_that_of_arrays():
    rng = np.random.default_rng(0)
    total, values, rows = rng.standard_normal(24), rng.standard_normal(5), rng.standard_normal((5, 8))
    want = total[:8] + values @ rows
    kept = total[16:].copy()
    weighted_rows(total, values, rows.ravel())
    np.testing.assert_allclose(total[:8], want, rtol=1e-14, atol=1e-15)
    np.testing.assert_allclose(total[8:16], 3 * want, rtol=1e-14, atol=1e-15)
    assert (total[16:] == kept).all()


def test_lanes_must_be_known_when_compiling():
    @numba.njit
    def wrong(array, lanes):
        _vector.store(array, 0, _vector.load(array, 0, lanes))

    with pytest.raises(numba.errors.NumbaError, match="lanes"):
        wrong(np.zeros(8), 8)
