"""Tables in bfloat16 and on disk: what trains, saves, resumes and is judged as with plain ones."""

import numpy as np
import pytest
import torch
from helpers_logs import small_log

import fastpop
from fastpop.data import columns
from fastpop.training import TrainConfig, memory

QUICK = {"dim": 16, "epochs": 3, "num_negatives": 32, "batch_size": 64, "progress": False}


def weights(result):
    return dict(result.model.state_dict())


@pytest.mark.parametrize("optimizer", ["row_adam", "row_adagrad", "row_sgd"])
def test_on_disk_is_bit_for_bit_in_memory(monkeypatch, optimizer):
    plain = fastpop.train(small_log(), table_optimizer=optimizer, **QUICK)
    monkeypatch.setattr(columns, "ON_DISK", 100)
    there = fastpop.train(small_log(), table_optimizer=optimizer, table_storage="disk", **QUICK)
    assert there.model.decoder.item_embedding.storage_kind == "disk"
    for name, value in weights(plain).items():
        assert torch.equal(value, weights(there)[name]), name
    assert there.metrics == plain.metrics


@pytest.mark.parametrize("encoder", ["factor", "bag", "sasrec", "gru4rec"])
def test_bfloat16_trains_as_well_and_is_judged(tmp_path, encoder):
    options = {"encoder": encoder, "table_optimizer": "row_adam", **QUICK, "epochs": 6}
    plain = fastpop.train(small_log(), **options)
    half = fastpop.train(small_log(), table_dtype="bfloat16", out=tmp_path / "run", **options)
    assert half.model.decoder.item_embedding.dtype == torch.bfloat16
    assert half.metrics["nll"] == pytest.approx(plain.metrics["nll"], rel=0.02)
    back = fastpop.load(tmp_path / "run")
    for name, value in weights(half).items():
        assert torch.equal(value, weights(back)[name]), name
    assert back.evaluate().metrics["nll"] == pytest.approx(half.metrics["nll"])
    assert np.isfinite(half.audit(permutations=20).energy.total)
    user = half.log.user_ids[:3]
    assert (half.recommend(user, 3).item == back.recommend(user, 3).item).all()


def test_a_resumed_run_rounds_as_the_whole_one(tmp_path):
    options = {**QUICK, "table_dtype": "bfloat16"}
    whole = fastpop.train(small_log(), **{**options, "epochs": 4})
    fastpop.train(small_log(), out=tmp_path, **{**options, "epochs": 2})
    rest = fastpop.train(small_log(), out=tmp_path, resume=True, **{**options, "epochs": 4})
    for name, value in weights(whole).items():
        assert torch.equal(value, weights(rest)[name]), name


def test_memory_is_counted_by_kind():
    log = small_log()
    plain, half, disk = (
        memory.needed(TrainConfig(**kind), log).parts
        for kind in ({}, {"table_dtype": "bfloat16"}, {"table_storage": "disk"})
    )
    assert half["tables"] * 2 == plain["tables"]
    assert half["optimizer"] == plain["optimizer"]
    assert disk["tables"] == disk["optimizer"] == 0
    assert disk["counts"] == plain["counts"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"encoder": "lightgcn"}, "'float32' with encoder='lightgcn'"),
        ({"loss": "bpr"}, "'float32' with loss='bpr'"),
        ({"item_tower": "linear"}, "'float32' with item_tower='linear'"),
        ({"table_optimizer": "adam"}, "'float32' with table_optimizer='adam'"),
        ({"regularizers": ("l2",)}, "'float32' with regularizers"),
    ],
)
def test_what_takes_no_such_tables_is_refused(options, message):
    with pytest.raises(ValueError, match=f"table_dtype: expected {message}"):
        TrainConfig(table_dtype="bfloat16", **options)
    with pytest.raises(ValueError, match="table_storage: expected 'memory' with"):
        TrainConfig(table_storage="disk", **options)


def test_columns_of_an_opened_log_are_pages_of_its_files(tmp_path):
    log = small_log()
    opened = type(log).open(log.save(tmp_path / "log"))
    there, mapped = (memory.needed(TrainConfig(), one).parts["counts"] for one in (log, opened))
    assert there - mapped == (memory.EVENT - memory.MAPPED_EVENT) * log.num_events
