"""An audit of a large catalogue: in blocks of items and of columns, with the numbers of the whole, and
without copies of the table."""

import tracemalloc
from dataclasses import asdict

import numpy as np
import pytest
import torch

from fastpop.data import columns
from fastpop.diagnostics import ScoreMoments, audit, audit_many, many, moments
from fastpop.experiments import served
from fastpop.experiments.arms import projected
from fastpop.kernels import native


def parts(num_items=700, dim=10, seed=0, dtype=np.float32):
    rng = np.random.default_rng(seed)
    items = (rng.standard_normal((num_items, dim)) + 3).astype(dtype)
    counts = np.floor(rng.pareto(1, num_items) * 3)
    return rng.standard_normal((90, dim)), items, counts


def numbers(found):
    flat = {f"energy {name}": value for name, value in asdict(found.energy).items()}
    flat |= {f"geometry {name}": value for name, value in found.geometry.to_dict().items()}
    flat |= {"correlation": found.correlation, "lists": found.lists.mean_count, "unseen": found.unseen_energy}
    flat |= {name: getattr(found, name) for name in ("p_value_direction", "p_value_shared")}
    for test in (found.test_direction, found.test_shared):
        flat |= {f"{test.statistic} mean": test.null_mean, f"{test.statistic} variance": test.null_variance}
    return {name: value for name, value in flat.items() if not isinstance(value, dict)}


@pytest.mark.parametrize("null", ["label", "sign", "stratified"])
def test_blocks_of_items_and_of_columns_give_what_the_whole_does(monkeypatch, null):
    query, items, counts = parts()
    bias = np.random.default_rng(1).standard_normal(len(items))
    options = {"bias": bias, "permutations": 60, "null": null, "scale": 0.5}
    if null == "stratified":
        options["strata"] = np.arange(len(items)) % 3
    whole = numbers(audit(query, items, counts, **options))
    assert whole == pytest.approx(
        numbers(audit(query, items.astype(np.float64), counts, **options)), rel=1e-9
    )
    monkeypatch.setattr(moments, "BLOCK", 64)
    monkeypatch.setattr(many, "MOST_BYTES", 1)
    assert numbers(audit(query, items, counts, **options)) == pytest.approx(whole, rel=1e-9, abs=1e-12)


def test_permutations_of_parts_of_the_columns_have_the_bits_of_the_whole(monkeypatch):
    query, items, counts = parts(dim=19)
    made = ScoreMoments.of(query, items)
    log_p = np.log(counts + 1)
    whole = audit_many({"a": made}, log_p, permutations=40).direction["a"].null_P
    monkeypatch.setattr(many, "MOST_BYTES", 8 * 8 * len(items))
    calls = []
    rows = ScoreMoments.rows
    monkeypatch.setattr(ScoreMoments, "rows", lambda self, at: calls.append(at) or rows(self, at))
    assert (audit_many({"a": made}, log_p, permutations=40).direction["a"].null_P == whole).all()
    assert [at.start for at in calls] == [0, 8, 16]


@pytest.mark.parametrize("kind", [np.float32, np.float64, torch.float32])
def test_a_table_is_kept_where_it_lies(kind):
    query, items, _ = parts()
    table = torch.from_numpy(items) if kind is torch.float32 else items.astype(kind, copy=False)
    kept = ScoreMoments.of(query, table).item_VD
    assert np.shares_memory(kept, np.asarray(table))
    assert kept.dtype == np.asarray(table).dtype


def test_half_rows_become_float32():
    query, items, _ = parts()
    half = torch.from_numpy(items).bfloat16()
    kept = ScoreMoments.of(query, half).item_VD
    assert kept.dtype == np.float32
    assert (kept == half.float().numpy()).all()


def test_an_audit_makes_no_second_table(monkeypatch):
    num_items, dim = 150_000, 48
    rng = np.random.default_rng(0)
    items = rng.standard_normal((num_items, dim), dtype=np.float32)
    query, counts = rng.standard_normal((50, dim)), np.floor(rng.pareto(1, num_items) * 3)
    monkeypatch.setattr(moments, "BLOCK", 1 << 12)
    monkeypatch.setattr(many, "MOST_BYTES", 8 * 8 * num_items)  # a third of a float32 table
    audit(query, items[:100], counts[:100], permutations=20, top_k=0)  # what is compiled and imported once
    tracemalloc.start()
    audit(query, items, counts, permutations=20, top_k=0)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    # Items with events are copied once more, for the shares by count; the rest are vectors.
    kept = np.count_nonzero(counts) * dim * 4
    assert peak < kept + 18 * 8 * num_items


def test_the_moments_of_a_reading_stay_when_the_model_trains_on(monkeypatch):
    query, items, counts = parts(num_items=3000)
    table = items.copy()
    base = ScoreMoments.of(query, table)
    monkeypatch.setattr(served, "moments_of", lambda model, train: base)
    monkeypatch.setattr(columns, "ON_DISK", 1000)
    kept = served.families("standard", Model(), None, np.log(counts + 1))[0].moments
    table += 1
    assert (kept.item_VD == items).all()
    mapped = kept.item_VD
    while isinstance(mapped, np.ndarray):
        mapped = mapped.base
    assert isinstance(mapped, columns.Mapping | memoryview)
    b_V = np.log(counts + 1) - np.log(counts + 1).mean()
    assert np.abs(b_V @ projected(kept, np.log(counts + 1)).item_VD).max() < 1e-3 * np.abs(b_V @ items).max()


class Model:
    decoder = None


def test_a_read_only_array_is_read_where_it_lies():
    _, items, _ = parts()
    items.flags.writeable = False
    view = native.view_of(items)
    assert view.data_ptr() == items.ctypes.data
    assert (view.numpy() == items).all()
