"""BERT4Rec: rows with hidden items, and a transformer that reads both ways."""

import numpy as np
import pytest
import torch
from helpers_logs import small_log

import fastpop
from fastpop.data import Masked
from fastpop.data.batches import PAD
from fastpop.encoders import BERT4Rec, BERT4RecEncoder


def uneven_log(users=300, seed=0):
    """Users of 1 to 17 events, ids that tell user and place."""
    rng = np.random.default_rng(seed)
    number_U = rng.integers(1, 18, users)
    user = np.repeat(np.arange(users), number_U)
    item = np.arange(len(user))
    return fastpop.Interactions.from_arrays(user, item, np.arange(len(user)))


@pytest.mark.parametrize("max_length", [1, 2, 3, 5, 50])
def test_windows_hold_every_event_in_order_and_hide_some_of_it(max_length):
    log = uneven_log()
    made = Masked(share=0.4, last=0.0).batches(log, max_length=max_length, batch_size=64, seed=1)
    seen = []
    for batch in made.epoch(0):
        hidden = batch.target != PAD
        assert np.array_equal(batch.history == log.num_items, hidden)
        assert hidden.any(1).all()
        assert batch.history.shape[1] <= max_length + 1
        whole = np.where(hidden, batch.target, batch.history)
        for user, row in zip(batch.user, whole):
            row = row[row != PAD]
            assert len(row) >= 2
            assert np.array_equal(row, np.arange(row[0], row[0] + len(row)))  # ids are places
            assert (log.user[row] == user).all()
            seen.append(row)
    number_U = np.diff(log.offsets)
    seen = np.sort(np.concatenate(seen))
    assert len(np.unique(seen)) == len(seen)
    left_out = np.setdiff1d(np.arange(log.num_events), seen)
    if max_length > 1:
        assert (number_U[log.user[left_out]] == 1).all()
    else:
        assert np.array_equal(np.bincount(log.user[left_out], minlength=log.num_users), number_U % 2)


def test_the_share_the_last_and_the_expected_counts_are_as_said():
    log = uneven_log(100)
    for share, last in ((0.2, 1 / 11), (0.5, 0.0), (0.1, 1.0)):
        made = Masked(share=share, last=last).batches(log, max_length=50, batch_size=256, seed=0)
        hidden_V, epochs = np.zeros(log.num_items), 400
        for epoch in range(epochs):
            for batch in made.epoch(epoch):
                np.add.at(hidden_V, batch.target[batch.target != PAD], 1)
        assert hidden_V.sum() / epochs == pytest.approx(made.num_rows, rel=0.02)
        expected_V = made.target_counts()
        assert expected_V.sum() == pytest.approx((np.diff(log.offsets)[log.user] > 1).sum())
        share_V = expected_V / expected_V.sum()
        spread_V = np.sqrt(share_V * hidden_V.sum()) + 1e-9
        assert (np.abs(hidden_V - share_V * hidden_V.sum()) <= 5 * spread_V).all()
        np.testing.assert_allclose(Masked(share=share, last=last).target_counts(log), expected_V)


def test_weights_are_those_of_the_hidden_events():
    log = small_log(weighted=True)
    made = Masked().batches(log, max_length=9, batch_size=64, seed=0)
    weight_of = {}
    for user in range(log.num_users):
        events = slice(log.offsets[user], log.offsets[user + 1])
        for item, weight in zip(log.item[events], log.weight[events]):
            weight_of.setdefault((user, int(item)), set()).add(float(weight))
    for batch in made.epoch(0):
        for row, column in np.argwhere(batch.target != PAD):
            key = (int(batch.user[row]), int(batch.target[row, column]))
            assert float(batch.weight[row, column]) in weight_of[key]
    assert (np.diff(log.offsets) > 1).all()
    assert made.target_counts().sum() == pytest.approx(log.weight.sum())


@pytest.mark.parametrize("weighted", [False, True])
def test_log_p_and_the_contexts_of_an_audit_are_of_what_is_hidden(weighted):
    options = {"dim": 8, "epochs": 1, "batch_size": 64, "max_length": 4, "progress": False}
    result = fastpop.train(small_log(weighted=weighted), encoder="bert4rec", **options)
    train = result.split.train
    np.testing.assert_array_equal(result.prior.counts_V, Masked().target_counts(train))
    contexts = sum(weight.sum() for _, weight, _ in result.model.training_contexts(train))
    assert contexts == pytest.approx(result.prior.counts_V.sum())
    assert result.audit(permutations=0).energy_total > 0


@pytest.mark.parametrize("share", [0.2, 0.34, 0.6, 1.0])
def test_an_audit_asks_for_every_event_once(share):
    log = uneven_log(80)
    asked_V = np.zeros(log.num_items)
    for batch in Masked(share=share).contexts(log, max_length=6, chunk=50):
        assert (batch.target != PAD).any(1).all()
        np.add.at(asked_V, batch.target[batch.target != PAD], 1)
    alone = np.diff(log.offsets)[log.user] == 1
    assert np.array_equal(asked_V, (~alone).astype(float))


def test_a_query_reads_both_ways_and_never_what_is_hidden_or_padding():
    torch.manual_seed(0)
    encoder = BERT4RecEncoder(8, max_length=6, dropout=0.0).eval()
    with torch.no_grad():  # attention that is not nearly even
        for block in encoder.blocks:
            block.qkv.weight.mul_(20)
    table_VD, user = torch.randn(40, 8), torch.zeros(1, dtype=torch.int64)
    history = torch.tensor([[3, 40, 5, 9, PAD, PAD]])
    before = encoder(user, history, table_VD)[0, 1]
    for at in (0, 2, 3):
        other = history.clone()
        other[0, at] = 11
        assert not torch.allclose(encoder(user, other, table_VD)[0, 1], before, atol=1e-4), at
    torch.testing.assert_close(encoder(user, history[:, :4], table_VD)[0, 1], before)
    torch.testing.assert_close(encoder(user, torch.where(history == 40, 47, history), table_VD)[0, 1], before)


def test_what_serves_is_the_query_of_a_hidden_item_after_the_history():
    torch.manual_seed(0)
    encoder = BERT4RecEncoder(8, max_length=6, dropout=0.0).eval()
    table_VD, user = torch.randn(40, 8), torch.zeros(2, dtype=torch.int64)
    history = torch.tensor([[3, 7, 5, 9, 1, 2], [4, 6, PAD, PAD, PAD, PAD]])
    served = encoder.last(user, history, table_VD)
    full = encoder(user[:1], torch.tensor([[3, 7, 5, 9, 1, 2, 40]]), table_VD)[0, -1]
    short = encoder(user[:1], torch.tensor([[4, 6, 40]]), table_VD)[0, -1]
    torch.testing.assert_close(served, torch.stack([full, short]))


def test_numbers_that_make_no_sense_are_refused():
    for options, message in (
        ({"share": 0.0}, r"encoder\.share: expected a finite number > 0 <= 1; got 0"),
        ({"last": 2.0}, r"encoder\.last: expected a finite number >= 0 <= 1; got 2"),
        ({"num_layers": 0}, r"encoder\.num_layers"),
    ):
        with pytest.raises(ValueError, match=message):
            BERT4Rec(**options)
    with pytest.raises(ValueError, match="num_heads: expected a divisor of dim = 8; got 3"):
        fastpop.TrainConfig(encoder="bert4rec", dim=8, num_heads=3)
    with pytest.raises(ValueError, match="at least one user with two training events"):
        fastpop.train(
            fastpop.Interactions.from_arrays(np.arange(9), np.arange(9) % 4, np.arange(9)),
            encoder="bert4rec",
            split="none",
        )
