"""Every public function that takes an array takes what people hold: frames, series, arrow, lists; or
refuses it by name."""

import decimal
from datetime import UTC, datetime, timedelta, timezone

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import scipy.sparse
import torch

import fastpop
from fastpop import checks
from fastpop.data import Cases, Interactions
from fastpop.evaluation import DotScores, evaluate
from fastpop.popularity import PopularityPrior, proposal_from_name

RNG = np.random.default_rng(0)
QUERY, ITEMS = RNG.normal(size=(40, 3)), RNG.normal(size=(9, 3))
COUNTS = np.array([5, 1, 9, 2, 2, 7, 1, 3, 4])

VECTORS = {
    "list": lambda x: x.tolist(),
    "tuple": lambda x: tuple(x.tolist()),
    "pandas series": pd.Series,
    "pandas Int64": lambda x: pd.Series(x, dtype="Int64" if x.dtype.kind == "i" else "Float64"),
    "pandas object": lambda x: pd.Series(x.tolist(), dtype=object),
    "pandas index": pd.Index,
    "polars series": pl.Series,
    "arrow array": pa.array,
    "arrow chunks": lambda x: pa.chunked_array([x[:3], x[3:]]),
    "torch": torch.tensor,
    "masked, no mask": np.ma.masked_array,
    "read-only": lambda x: np.frombuffer(x.tobytes(), dtype=x.dtype),
}
TABLES = {
    "lists": lambda x: x.tolist(),
    "pandas frame": pd.DataFrame,
    "pandas frame, shuffled index": lambda x: pd.DataFrame(x, index=np.arange(len(x))[::-1]),
    "pandas object frame": lambda x: pd.DataFrame(x).astype(object),
    "polars frame": lambda x: pl.DataFrame(x, orient="row"),
    "arrow table": lambda x: pa.table({str(n): x[:, n] for n in range(x.shape[1])}),
    "matrix": np.asmatrix,
    "torch": torch.tensor,
    "fortran": np.asfortranarray,
}


def cases() -> Cases:
    target = np.arange(40) % 9
    return Cases(np.arange(40), np.zeros(41, int), np.empty(0, int), np.arange(41), target, 9)


@pytest.mark.parametrize("kind", VECTORS)
def test_counts_in_every_form(kind):
    given = VECTORS[kind](COUNTS)
    want = PopularityPrior.from_counts(COUNTS)
    got = PopularityPrior.from_counts(given)
    assert got.log_prior_V.tobytes() == want.log_prior_V.tobytes()
    assert got.counts_V.flags.writeable is False
    for name in ("popularity", "in_batch", "log_uniform", "uniform", "mixture"):
        proposal = proposal_from_name(name, given)
        assert proposal.log_proposal_V.tobytes() == proposal_from_name(name, COUNTS).log_proposal_V.tobytes()
    found = evaluate(lambda rows: QUERY[rows] @ ITEMS.T, cases(), counts=given, ks=(3,))
    assert (
        found.metrics == evaluate(lambda rows: QUERY[rows] @ ITEMS.T, cases(), counts=COUNTS, ks=(3,)).metrics
    )
    weights = VECTORS[kind](np.arange(40) % 3 + 1.0)
    found = evaluate(lambda rows: QUERY[rows] @ ITEMS.T, cases(), weight=weights, ks=(3,))
    assert found.case_weight.tolist() == (np.arange(40) % 3 + 1.0).tolist()


@pytest.mark.filterwarnings("ignore:the matrix subclass:PendingDeprecationWarning")  # numpy on its own
@pytest.mark.parametrize("kind", TABLES)
def test_tables_in_every_form(kind):
    query, items = TABLES[kind](QUERY), TABLES[kind](ITEMS)
    options = {"permutations": 50, "pos_id": pd.Series(np.arange(40) % 9)}
    if kind == "lists":
        options.pop("pos_id")  # a list of rows is taken as rows; targets need one array
    want = fastpop.audit(QUERY, ITEMS, COUNTS, **options)
    got = fastpop.audit(query, items, pd.Series(COUNTS), **options)
    assert got.to_dict(samples=True) == want.to_dict(samples=True)
    energy = fastpop.ops.score_energy(QUERY, ITEMS, np.log(COUNTS))
    assert fastpop.ops.score_energy(query, items, np.log(COUNTS).tolist()) == energy
    score = QUERY @ ITEMS.T
    want = evaluate(lambda rows: score[rows], cases(), counts=COUNTS, ks=(3,))
    assert evaluate(TABLES[kind](score), cases(), counts=COUNTS, ks=(3,)).metrics == want.metrics
    dots = evaluate(DotScores(query, items, np.zeros(9)), cases(), ks=(3,))
    tensors = evaluate(
        DotScores(torch.tensor(QUERY), torch.tensor(ITEMS), torch.zeros(9).double()), cases(), ks=(3,)
    )
    assert dots.metrics == tensors.metrics


def test_frames_of_float32_keep_their_numbers():
    query = pd.DataFrame(QUERY.astype(np.float32))
    want = fastpop.audit(QUERY.astype(np.float32), ITEMS, COUNTS, permutations=0)
    assert fastpop.audit(query, ITEMS, COUNTS, permutations=0).to_dict() == want.to_dict()
    assert DotScores(query, ITEMS.astype(np.float32)).query.dtype == torch.float32


REFUSED = {
    "sparse": (
        scipy.sparse.csr_matrix(QUERY),
        TypeError,
        r"expected a dense array; got csr_matrix \[40, 3\] \(\.toarray\(\) makes one\)",
    ),
    "sparse array": (scipy.sparse.coo_array(QUERY), TypeError, "expected a dense array; got coo_array"),
    "torch sparse": (torch.tensor(QUERY).to_sparse(), TypeError, "expected a dense array"),
    "meta": (torch.empty(40, 3, device="meta"), ValueError, "expected an array that holds numbers"),
    "text": ("q.npy", TypeError, "query: expected an array"),
    "dict": ({"a": [1.0]}, TypeError, "query: expected an array"),
    "strings": (pd.DataFrame({"a": ["x"], "b": ["y"], "c": ["z"]}), TypeError, "query: expected real num"),
    "complex": (QUERY * 1j, TypeError, "query: expected real num"),
    "masked": (np.ma.masked_greater(QUERY, 0), ValueError, "query: expected numbers, none of them masked"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_no_array_is_refused_by_name(kind):
    value, error, says = REFUSED[kind]
    with pytest.raises(error, match=says):
        fastpop.audit(value, ITEMS, COUNTS, permutations=0)


def test_counts_in_another_order_than_the_items_are_refused():
    bought = pd.Series([3, 1, 1, 2, 2, 2])
    with pytest.raises(
        ValueError,
        match="counts: expected a series in the order of the items; got one whose index does not rise",
    ):
        PopularityPrior.from_counts(bought.value_counts())
    assert PopularityPrior.from_counts(bought.value_counts().sort_index()).counts_V.tolist() == [2, 3, 1]
    assert PopularityPrior.from_counts(bought.groupby(bought).size()).counts_V.tolist() == [2, 3, 1]


@pytest.mark.parametrize(
    ("value", "error", "says"),
    [
        (
            pd.Series([1, None], dtype="Int64"),
            ValueError,
            r"counts: expected (numbers, none missing|finite numbers); got (<NA>|nan) at",
        ),
        (pl.Series([1.0, None]), ValueError, "counts: expected finite numbers; got nan"),
        ([[1, 2], [3]], ValueError, "counts: expected a rectangular array; got lists of several lengths"),
        (pd.DataFrame(COUNTS), ValueError, r"counts: expected a 1-d array; got int64 \[9, 1\]"),
        (np.asmatrix(COUNTS), ValueError, r"counts: expected a 1-d array; got int64 \[1, 9\]"),
        (scipy.sparse.csr_matrix(COUNTS), TypeError, "counts: expected a dense array; got csr_matrix"),
        ("popularity", TypeError, "counts: expected an array, a frame or a list of numbers; got str"),
        (None, TypeError, "counts: expected an array, a frame or a list of numbers; got NoneType"),
        (iter([1, 2]), TypeError, "counts: expected an array"),
        (["1", "2"], TypeError, "counts: expected a 1-d array of real numbers"),
        (pd.Series(["1", 2], dtype=object), TypeError, "counts: expected real numbers; got str at"),
        ([decimal.Decimal(1)], TypeError, "counts: expected real numbers; got Decimal"),
        (pd.Series(["a"], dtype="category"), TypeError, "counts: expected"),
    ],
)
def test_bad_counts_say_what_they_are(value, error, says):
    for function in (
        PopularityPrior.from_counts,
        lambda x: fastpop.audit(QUERY, ITEMS, x),
        lambda x: proposal_from_name("popularity", x),
    ):
        with pytest.raises(error, match=says):
            function(value)


def test_evaluate_says_what_it_wanted():
    with pytest.raises(TypeError, match="score: expected a dense array; got csr_matrix"):
        evaluate(scipy.sparse.csr_matrix(QUERY @ ITEMS.T), cases())
    with pytest.raises(ValueError, match=r"score: expected shape \[40, 9\]; got float64 \[40, 3\]"):
        evaluate(QUERY, cases())
    with pytest.raises(TypeError, match=r"cases: expected fastpop\.data\.Cases"):
        evaluate(QUERY @ ITEMS.T, pd.DataFrame(COUNTS))
    with pytest.raises(TypeError, match="score: expected an array"):
        evaluate("ndcg", cases())


@pytest.mark.parametrize(
    "kind",
    [
        "pandas series",
        "pandas Int64",
        "polars series",
        "arrow array",
        "arrow chunks",
        "list",
        "torch",
        "pandas object",
        "pandas index",
    ],
)
def test_logs_from_columns_of_every_form(kind):
    user, item = np.array([3, 1, 3, 2, 1]), np.array([70, 80, 90, 70, 70])
    time = np.array([5, 4, 3, 2, 1])
    want = Interactions.from_arrays(user, item, time)
    got = Interactions.from_arrays(*(VECTORS[kind](column) for column in (user, item, time)))
    for name in ("user", "item", "time", "row", "user_ids", "item_ids"):
        assert getattr(got, name).tolist() == getattr(want, name).tolist(), name
    mask = np.array([True, False, True, True, False])
    if kind != "pandas Int64":
        assert got.take(VECTORS[kind](mask)).row.tolist() == want.take(mask).row.tolist()
    assert got.decode_items(VECTORS[kind](np.array([0, 2, 1]))).tolist() == [70, 90, 80]


@pytest.mark.parametrize(
    "form",
    [
        list,
        pd.Series,
        lambda x: pd.Series(x, dtype="category"),
        lambda x: pd.Series(x, dtype="string"),
        pl.Series,
        pa.array,
        np.array,
        lambda x: np.array(x, dtype=object),
    ],
)
def test_text_ids_of_every_form(form):
    log = Interactions.from_arrays(form(["b", "a", "b"]), form(["x", "ß", "007"]))
    assert log.user_ids.tolist() == ["a", "b"]
    assert log.item_ids.tolist() == ["007", "x", "ß"]


def test_missing_ids_and_times_are_named():
    for user in (
        pd.Series([1, None], dtype="Int64"),
        [1, None],
        pd.Series(["a", None]),
        pd.Series(["a", pd.NA], dtype="string"),
        pl.Series(["a", None]),
    ):
        with pytest.raises(ValueError, match=r"user: .*none missing; got .* at position 1"):
            Interactions.from_arrays(user, [1, 2])
    with pytest.raises(ValueError, match="time: expected no missing times"):
        Interactions.from_arrays([1, 2], [1, 2], pd.to_datetime(pd.Series(["2024-01-01", None])))


def test_times_as_people_hold_them():
    want = [1704067200, 1704067201]
    stamps = pd.to_datetime(pd.Series(want), unit="s")
    zoned = stamps.dt.tz_localize("UTC").dt.tz_convert("Asia/Tokyo")
    told = [datetime(2024, 1, 1), datetime(2024, 1, 1, 1, 0, 1, tzinfo=timezone(timedelta(hours=1)))]
    for time in (
        stamps,
        zoned,
        told,
        pl.Series([datetime(2024, 1, 1, tzinfo=UTC), told[1]]),
        pa.array(stamps),
        np.array(want, dtype="datetime64[s]"),
    ):
        assert Interactions.from_arrays([1, 1], [1, 2], time).time.tolist() == want


def test_times_that_cannot_hold_what_they_claim_are_refused():
    seconds = np.array([1704067200, 1704067210], dtype=np.float32)
    with pytest.raises(
        ValueError,
        match=r"time: expected whole or float64 seconds \(float32 has steps "
        r"of 128 s there\); got float32",
    ):
        Interactions.from_arrays([1, 1], [1, 2], seconds)
    with pytest.raises(ValueError, match="float16 has steps of 2 s there"):
        Interactions.from_arrays([1, 1], [1, 2], np.array([2049, 3000], dtype=np.float16))
    small = Interactions.from_arrays([1, 1], [1, 2], np.array([5, 4], dtype=np.float32))
    assert small.time.tolist() == [4, 5]


def test_one_function_says_what_an_array_is():
    tensor = torch.zeros(2, requires_grad=True)
    assert checks.array_like("x", tensor) is tensor
    array = np.zeros(3)
    assert np.shares_memory(checks.array_like("x", array), array)
    assert np.shares_memory(checks.array_like("x", pd.Series(array, copy=False)), array)
    assert checks.int_array("x", []).dtype == np.int64
