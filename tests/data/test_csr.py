"""Rows end to end: what every list of lists of the package is kept as."""

import numpy as np
import pytest

from fastpop.data import Cases, Csr, columns

LISTS = [[3, 1, 3], [], [0], [2, 2, 4, 2]]


@pytest.fixture
def rows():
    return Csr.of("rows", LISTS)


def lists_of(rows):
    return [rows.row(r).tolist() for r in range(len(rows))]


@pytest.mark.parametrize("dtype", [np.uint8, np.uint32, np.int32, np.int64])
def test_rows_come_as_lists_as_a_pair_or_as_they_are(rows, dtype):
    pair = (np.array([0, 3, 3, 4, 8]), np.concatenate([*map(np.array, LISTS)]).astype(dtype))
    given = Csr.of("rows", pair, num_rows=4, num_items=5)
    assert lists_of(given) == lists_of(rows) == LISTS
    assert given.item.dtype == (dtype if np.dtype(dtype).kind == "u" else np.int64)
    assert Csr.of("rows", given, num_items=5) is given
    assert repr(given) == "Csr(4 rows, 8 items)"
    with pytest.raises(ValueError, match="read-only"):
        given.item[0] = 1


def test_lengths_rows_keys_parts_and_places(rows):
    assert rows.lengths().tolist() == [3, 0, 1, 4]
    assert rows.row_of_each().tolist() == [0, 0, 0, 2, 3, 3, 3, 3]
    assert rows.keys(5).tolist() == [3, 1, 3, 10, 17, 17, 19, 17]
    assert lists_of(rows.part(1, 3)) == LISTS[1:3]
    assert rows.part(1, 3).keys(5).tolist() == [5]
    assert rows.places(2, 4) == slice(3, 8)
    assert len(rows.part(2, 2)) == 0
    assert len(Csr.of("rows", [])) == 0


def test_rows_are_taken_in_any_order_and_freed_of_repeats(rows):
    order = np.array([3, 0, 3, 1])
    assert lists_of(rows.take(order)) == [LISTS[r] for r in order]
    assert lists_of(rows.take(np.empty(0, np.int64))) == []
    kept, repeats = rows.distinct()
    assert lists_of(kept) == [[3, 1], [], [0], [2, 4]]
    assert repeats == 3
    assert kept.distinct() == (kept, 0)


@pytest.mark.parametrize(
    ("value", "kind", "words"),
    [
        (([0, 2], [1]), ValueError, "rows offsets: expected offsets that rise from 0 to 1; got 0 … 2"),
        (([0, 2, 1, 3], [1, 2, 3]), ValueError, "rows offsets: expected offsets that rise"),
        (([1, 3], [1, 2, 3]), ValueError, "rows offsets: expected offsets that rise"),
        (([0.0, 1.0], [1]), TypeError, "rows: expected integers"),
        ([[1.5]], TypeError, "rows: expected integers"),
        (
            "abc",
            TypeError,
            "rows: expected .offsets, item., a Csr, a sparse matrix, or a list of lists; got str",
        ),
        ([[1], [5]], ValueError, r"rows items: expected ids in \[0, 5\); got 5 at position 1"),
        ([[1]], ValueError, r"^rows: expected 2 rows; got 1$"),
    ],
)
def test_an_error_names_what_is_wrong(value, kind, words):
    with pytest.raises(kind, match=words):
        Csr.of("rows", value, num_rows=2 if kind is ValueError and value == [[1]] else None, num_items=5)


def test_rows_of_a_sparse_matrix(rows):
    scipy = pytest.importorskip("scipy.sparse")
    dense = np.array([[1, 0, 2], [0, 0, 0], [0, 5, 0]])
    for kind in (scipy.csr_array, scipy.coo_matrix):
        assert lists_of(Csr.of("rows", kind(dense), num_rows=3, num_items=3)) == [[0, 2], [], [1]]


def test_cases_of_lists():
    cases = Cases.of([[0, 1], []], [[2], [3, 3, 1]], 4)
    assert [cases.history(c).tolist() for c in (0, 1)] == [[0, 1], []]
    assert [cases.targets(c).tolist() for c in (0, 1)] == [[2], [3, 1]]
    assert cases.user.tolist() == [-1, -1]
    assert Cases.of([[0]], [[1]], 4, user=[7], time=[9]).take([0]).time.tolist() == [9]
    asked = Cases.of([[0], [1], [2]], [[1], [], [0]], 4, user=[5, 6, 7]).with_targets()
    assert asked.user.tolist() == [5, 7]
    with pytest.raises(ValueError, match=r"^targets: expected 1 rows, as histories; got 2"):
        Cases.of([[0]], [[1], [2]], 4)
    with pytest.raises(ValueError, match=r"^user: expected \[2\], one a row of histories; got int64 \[1\]"):
        Cases.of([[0], [1]], [[1], [2]], 4, user=[7])
    with pytest.raises(ValueError, match=r"^time: expected whole seconds, shape \[2\]; got int64 \[1\]"):
        Cases.of([[0], [1]], [[1], [2]], 4, time=[7])
    with pytest.raises(ValueError, match=r"histories items: expected ids in \[0, 4\)"):
        Cases.of([[4]], [[1]], 4)


def test_a_stored_zero_of_a_sparse_matrix_is_no_item():
    import scipy.sparse

    matrix = scipy.sparse.csr_matrix(([0.0, 5.0], [0, 1], [0, 1, 2]), shape=(2, 3))
    rows = Csr.of("rows", matrix)
    assert rows.offsets.tolist() == [0, 0, 1]
    assert rows.item.tolist() == [1]
    assert matrix.nnz == 2  # the caller's own stays as it was


@pytest.mark.parametrize("values", [[], [7], [3, 1, 3, -2, 1, 3], [1 << 62, 0, 1 << 62]])
def test_distinct_numbers_ascend(values):
    found = columns.distinct(np.array(values, np.int64))
    assert found.tolist() == sorted(set(values))
    assert found.dtype == np.int64
