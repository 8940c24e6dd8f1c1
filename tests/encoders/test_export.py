"""What serving exports: one graph for any number of cases and any length of history."""

import warnings

import numpy as np
import pytest
import torch

import fastpop
from fastpop import ops, registry
from fastpop.data.batches import PAD
from fastpop.encoders import Sizes
from fastpop.nn import Decoder, FullSoftmaxLoss, SampledSoftmaxLoss
from fastpop.popularity import uniform

NAMES = [name for name in fastpop.available("encoders") if not registry.made("encoder", name).own_tower]
SIZES = ((1, 1), (7, 10), (3, 2))


class Serve(torch.nn.Module):
    def __init__(self, name):
        super().__init__()
        torch.manual_seed(0)
        self.encoder = registry.made("encoder", name).build(Sizes(60, 40, 8, max_length=10))
        self.decoder = Decoder(np.linspace(-9, -1, 40), 8)

    def forward(self, user, history):
        return self.decoder.score(self.encoder.last(user, history, self.decoder.item_embedding), 0.5)


def cases(num_cases, length):
    generator = torch.Generator().manual_seed(num_cases)
    history = torch.randint(40, (num_cases, length), generator=generator)
    for row in range(num_cases):
        history[row, 1 + row % length :] = PAD
    return torch.arange(num_cases), history


@pytest.mark.filterwarnings("ignore:The tensor attributes self.encoder.gru._flat_weights")  # torch's own GRU
@pytest.mark.parametrize("strict", [False, True], ids=["traced", "by dynamo"])
@pytest.mark.parametrize("name", NAMES)
def test_an_exported_encoder_serves_any_batch_and_length(name, strict):
    model = Serve(name).eval()
    num_cases = torch.export.Dim("cases")
    # torch.export writes a recurrence out step by step: a graph for each length.
    length = None if name == "gru4rec" else torch.export.Dim("length", max=10)
    exported = torch.export.export(
        model, cases(3, 4), dynamic_shapes=({0: num_cases}, {0: num_cases, 1: length}), strict=strict
    )
    for many, long in SIZES:
        asked = cases(many, 4 if length is None else long)
        torch.testing.assert_close(exported.module()(*asked), model(*asked))


@pytest.mark.parametrize("name", NAMES)
def test_a_traced_encoder_holds_no_batch_size(name):
    """What ONNX's older exporter records."""
    model = Serve(name).eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        traced = torch.jit.trace(model, cases(3, 4), check_trace=False)
    for sizes in SIZES:
        torch.testing.assert_close(traced(*cases(*sizes)), model(*cases(*sizes)))


class Loss(torch.nn.Module):
    def __init__(self, head):
        super().__init__()
        self.head = head

    def forward(self, query, items, pos_id):
        return self.head(query, items, pos_id)


@pytest.mark.parametrize(
    "head",
    [FullSoftmaxLoss(torch.linspace(-9, -1, 40)), SampledSoftmaxLoss(None, uniform(40), num_negatives=8)],
    ids=["full", "sampled"],
)
def test_an_exported_loss_takes_any_batch(head):
    rows = torch.export.Dim("rows", min=2)
    generator = torch.Generator().manual_seed(0)
    items = torch.randn(40, 8, generator=generator)
    given = [(torch.randn(n, 8, generator=generator), items, torch.arange(n)) for n in (5, 11)]
    exported = torch.export.export(Loss(head), given[0], dynamic_shapes=({0: rows}, {}, {0: rows}))
    module = exported.module()
    for step, one in enumerate(given):  # the graph counts its calls, as the module does
        expected = head(*one, **({} if isinstance(head, FullSoftmaxLoss) else {"step": step}))
        torch.testing.assert_close(module(*one), expected)


def test_last_is_the_query_at_the_last_item():
    model = Serve("sasrec").eval()
    user, history = cases(5, 6)
    whole = model.encoder(user, history, model.decoder.item_embedding)
    last = model.encoder.last(user, history, model.decoder.item_embedding)
    for row in range(5):
        assert torch.equal(last[row], whole[row, row % 6])


def test_ops_of_the_catalogue_are_not_for_graphs():
    """How many exclusions there are is read: refused, not frozen."""

    class Best(torch.nn.Module):
        def forward(self, query, items):
            return ops.top_items(query, items, 3)

    with pytest.raises(torch._dynamo.exc.Unsupported):
        torch.export.export(Best(), (torch.randn(3, 8), torch.randn(40, 8)), strict=True)
