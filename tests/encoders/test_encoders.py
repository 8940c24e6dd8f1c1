"""The contract every encoder keeps."""

import numpy as np
import pytest
import torch
from helpers_logs import small_log

import fastpop
from fastpop import registry
from fastpop.data import Csr
from fastpop.data.batches import PAD, SequenceBatches
from fastpop.encoders import SASRecEncoder, Sizes
from fastpop.model import Recommender
from fastpop.nn import Decoder

NAMES = fastpop.available("encoders")
PAIRS = fastpop.Interactions.from_arrays(np.arange(60), np.arange(60) % 40, np.arange(60))
READS = {name: registry.made("encoder", name).reads for name in NAMES}
SEQUENCE = [name for name in NAMES if READS[name] == "sequences"]
CAUSAL = [name for name in SEQUENCE if registry.made("encoder", name).rows_part().name == "sequences"]


def build(name, dim=8, sparse=False, dropout=0.0, users=60, items=40, base=True):
    torch.manual_seed(0)
    part = registry.made("encoder", name, options={"dropout": dropout, "base": base})
    encoder = part.build(Sizes(users, items, dim, max_length=10, sparse=sparse, train=PAIRS))
    return encoder, torch.randn(items, dim)


@pytest.mark.parametrize("name", CAUSAL)
def test_later_items_do_not_reach_earlier_queries(name):
    encoder, table = build(name)
    encoder.eval()
    history = torch.randint(40, (5, 10))
    before = encoder(torch.zeros(5, dtype=torch.int64), history, table)
    history[:, -1] = (history[:, -1] + 1) % 40
    after = encoder(torch.zeros(5, dtype=torch.int64), history, table)
    assert torch.equal(before[:, :-1], after[:, :-1])
    assert not torch.equal(before[:, -1], after[:, -1])


@pytest.mark.parametrize("name", SEQUENCE)
def test_padding_changes_nothing(name):
    encoder, table = build(name)
    encoder.eval()
    user = torch.zeros(3, dtype=torch.int64)
    short = torch.randint(40, (3, 4))
    long = torch.cat([short, torch.full((3, 6), PAD)], 1)
    torch.testing.assert_close(encoder.last(user, short, table), encoder.last(user, long, table))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("sparse", [True, False])
def test_every_parameter_gets_a_gradient_of_the_asked_layout(name, sparse):
    encoder, table = build(name, sparse=sparse)
    table.requires_grad_()
    history = torch.randint(40, (5, 10)) if READS[name] == "sequences" else None
    tower = encoder.item_tower()
    item = table if tower is None else tower(table)
    encoder(torch.arange(5), history, item).square().sum().backward()
    for param in encoder.parameters():
        assert param.grad is not None
    for param in encoder.tables():
        assert param.grad.is_sparse == (sparse and tower is None)


@pytest.mark.parametrize("name", ["factor", *CAUSAL])
def test_training_rows_and_serving_queries_agree(name):
    """The query that a window trains at its last position is the one that serves that history."""
    log = small_log()
    encoder, _ = build(name)
    decoder = Decoder(np.zeros(40), 8)
    model = Recommender(encoder, decoder, max_length=10).eval()
    parts = fastpop.data.split(log)
    served = model.encode(parts.test)
    assert served.shape == (parts.test.num_cases, 8)
    if name == "factor":
        expected = encoder.base + encoder.user_embedding[parts.test.user.copy()]
        torch.testing.assert_close(served, expected)
        return
    history = torch.from_numpy(parts.test.history(0)[-10:].copy())[None]
    trained = encoder(torch.zeros(1, dtype=torch.int64), history, decoder.item_embedding)[0, -1]
    torch.testing.assert_close(served[0], trained)


def test_bag_is_the_running_mean():
    encoder, table = build("bag")
    history = torch.tensor([[3, 5, 3, PAD]])
    rows = encoder.history_embedding
    got = encoder(torch.zeros(1, dtype=torch.int64), history, table)[0] - encoder.base
    torch.testing.assert_close(got[0], rows[3])
    torch.testing.assert_close(got[1], (rows[3] + rows[5]) / 2)
    torch.testing.assert_close(got[2], (2 * rows[3] + rows[5]) / 3)


@pytest.mark.parametrize("name", ["factor", "bag"])
def test_without_a_base_nothing_is_shared(name):
    """A user or a history without vectors of its own scores every item alike."""
    for base in (True, False):
        encoder, table = build(name, base=base)
        encoder.eval()
        assert ("base" in dict(encoder.named_parameters())) == base
        with torch.no_grad():
            encoder.tables()[0].zero_()
        history = None if name == "factor" else torch.randint(40, (3, 5))
        score = encoder(torch.arange(3), history, table) @ table.T
        assert (score.std() > 0.1) if base else torch.equal(score, torch.zeros_like(score))


def test_windows_cover_every_event_with_a_predecessor_once():
    log = small_log(events=2000)
    batches = SequenceBatches(log, 7, 64, 0)
    targets = []
    for batch in batches.epoch(0):
        assert batch.history.shape[1] <= 7
        real = batch.target != PAD
        assert np.array_equal(real, batch.history != PAD)
        user = np.broadcast_to(batch.user[:, None], real.shape)[real]
        targets += list(zip(user, batch.history[real], batch.target[real]))
        for row in range(len(batch.user)):
            held = log.history(int(batch.user[row]))
            line = np.append(batch.history[row][real[row]], batch.target[row][real[row]][-1])
            windows = np.lib.stride_tricks.sliding_window_view(held, len(line))
            assert (windows == line).all(1).any()
    expected = [
        (u, a, b) for u in range(log.num_users) for a, b in zip(log.history(u)[:-1], log.history(u)[1:])
    ]
    assert sorted(targets) == sorted(expected)


def test_last_items_are_the_last_ones():
    rows = Csr(np.array([0, 3, 3, 8]), np.arange(8))
    assert rows.last(2).tolist() == [[1, 2], [PAD, PAD], [6, 7]]
    assert rows.last(9).tolist() == [[0, 1, 2, PAD, PAD], [PAD] * 5, [3, 4, 5, 6, 7]]


def test_cases_that_cannot_be_encoded_are_named():
    encoder, _ = build("sasrec")
    model = Recommender(encoder, Decoder(np.zeros(40), 8), max_length=10)
    empty = fastpop.data.Cases(
        np.array([0, 1]), np.array([0, 1, 1]), np.array([3]), np.array([0, 1, 2]), np.array([1, 2]), 40
    )
    with pytest.raises(ValueError, match="none in case 1"):
        model.encode(empty)


def test_sasrec_refuses_heads_that_do_not_divide_dim_and_long_histories():
    with pytest.raises(ValueError, match="num_heads: expected a divisor of dim = 8; got 3"):
        SASRecEncoder(8, num_heads=3)
    encoder, table = build("sasrec")
    with pytest.raises(ValueError, match="history: expected at most 10 items"):
        encoder(torch.zeros(1, dtype=torch.int64), torch.zeros(1, 11, dtype=torch.int64), table)


@pytest.mark.parametrize("name", NAMES)
def test_encoders_learn_under_bfloat16(name, one_thread):
    """The loss of the last epoch is that of float32, to the digits that bfloat16 has."""
    options = {"dim": 8, "epochs": 3, "batch_size": 64, "learning_rate": 0.02, "progress": False}
    loss = {
        precision: fastpop.train(small_log(), encoder=name, precision=precision, **options).history
        for precision in ("fp32", "bf16")
    }
    assert loss["bf16"][-1]["loss"] < loss["bf16"][0]["loss"]
    assert loss["bf16"][-1]["loss"] == pytest.approx(loss["fp32"][-1]["loss"], rel=0.02)
