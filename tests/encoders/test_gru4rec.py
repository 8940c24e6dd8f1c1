"""GRU4Rec: the equations of the paper, windows that know nothing of each other, and refusals."""

import pytest
import torch

from fastpop.encoders import GRU4Rec, GRU4RecEncoder


def test_the_query_is_the_state_of_the_gated_recurrence():
    torch.manual_seed(0)
    encoder = GRU4RecEncoder(6).double().eval()
    table_VD = torch.randn(10, 6, dtype=torch.float64)
    history = torch.tensor([[4, 2, 9, 2]])
    found = encoder(torch.zeros(1, dtype=torch.int64), history, table_VD)[0]
    gru, state = encoder.gru, torch.zeros(6, dtype=torch.float64)
    for at, item in enumerate(history[0]):
        of_item = (gru.weight_ih_l0 @ table_VD[item] + gru.bias_ih_l0).chunk(3)
        of_state = (gru.weight_hh_l0 @ state + gru.bias_hh_l0).chunk(3)
        reset, update = (torch.sigmoid(of_item[n] + of_state[n]) for n in (0, 1))
        new = torch.tanh(of_item[2] + reset * of_state[2])
        state = (1 - update) * new + update * state
        torch.testing.assert_close(found[at], state)


def test_a_wider_state_is_mapped_to_queries():
    encoder = GRU4RecEncoder(6, width=11, layers=2, input_dropout=0.5, state_dropout=0.5)
    history = torch.randint(10, (3, 4))
    query = encoder(torch.zeros(3, dtype=torch.int64), history, torch.randn(10, 6))
    assert query.shape == (3, 4, 6)
    assert encoder.gru.dropout == 0.5
    assert GRU4RecEncoder(6, state_dropout=0.5).gru.dropout == 0  # of one layer, on its output alone


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layers": 0}, r"encoder\.layers: expected an integer >= 1 <= 128; got 0"),
        ({"width": -1}, r"encoder\.width: expected an integer >= 0"),
        ({"input_dropout": 1.0}, r"encoder\.input_dropout: expected a number below 1; got 1\.0"),
        ({"state_dropout": -0.1}, r"encoder\.state_dropout: expected a finite number >= 0"),
    ],
)
def test_numbers_that_make_no_sense_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        GRU4Rec(**options)
