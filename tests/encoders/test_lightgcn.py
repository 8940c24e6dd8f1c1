"""LightGCN: what is smoothed is the sum of powers of the graph, forward and backward."""

import copy

import numpy as np
import pytest
import torch
from helpers_logs import small_log

import fastpop
from fastpop.encoders import LightGCN, LightGCNEncoder, Sizes
from fastpop.encoders.lightgcn import Smooth, graph, smooth


def dense(log) -> torch.Tensor:
    """A = D^-1/2 [[0, R], [R', 0]] D^-1/2 in float64, straight from the definition."""
    users, whole = log.num_users, log.num_users + log.num_items
    adjacency_NN = np.zeros((whole, whole))
    for user, item in zip(log.user, log.item):
        adjacency_NN[user, users + item] = adjacency_NN[users + item, user] = 1
    degree_N = adjacency_NN.sum(1)
    scale_N = np.divide(1, np.sqrt(degree_N), out=np.zeros(whole), where=degree_N > 0)
    return torch.from_numpy(scale_N[:, None] * adjacency_NN * scale_N)


def part_of_a_log():
    """Some events of a log: there are users and items without any, and pairs that come again."""
    log = small_log()
    few = log.take(np.flatnonzero((log.user > 3) & (log.item > 2) & (np.arange(log.num_events) % 3 == 0)))
    assert (np.diff(few.offsets) == 0).any()
    assert len(np.unique(few.user * few.num_items + few.item)) < few.num_events
    return few


@pytest.mark.parametrize("layers", [0, 1, 2, 3, 5])
def test_smoothing_is_the_mean_of_dense_powers(layers):
    log = part_of_a_log()
    torch.manual_seed(0)
    encoder = LightGCNEncoder(log, 6, layers=layers)
    table_VD = torch.randn(log.num_items, 6, requires_grad=True)
    item_VD = encoder.item_tower()(table_VD)
    user_UD = encoder(torch.arange(log.num_users), None, item_VD)
    found_ND = torch.cat([user_UD, item_VD])
    graph_NN = dense(log)
    start_ND = torch.cat([encoder.user_embedding, table_VD]).detach().double().requires_grad_()
    powers = [start_ND]
    for _ in range(layers):
        powers.append(graph_NN @ powers[-1])
    expected_ND = torch.stack(powers).mean(0)
    assert (found_ND - expected_ND).abs().max() <= 1e-6
    upstream_ND = torch.randn_like(found_ND)
    (found_ND * upstream_ND).sum().backward()
    (expected_ND * upstream_ND).sum().backward()
    got_ND = torch.cat([encoder.user_embedding.grad, table_VD.grad])
    assert (got_ND - start_ND.grad).abs().max() <= 1e-5


def test_gradients_are_those_of_differences():
    log = part_of_a_log()
    encoder = LightGCNEncoder(log, 2, layers=3).double()
    shape = (log.num_users + log.num_items, 2)
    x_ND = torch.randn(*shape, dtype=torch.float64, requires_grad=True)
    parts = (encoder.edge_E, encoder.offset_N, encoder.scale_N1)
    assert torch.autograd.gradcheck(lambda x: Smooth.apply(x, *parts, 3), x_ND)
    assert torch.equal(smooth(x_ND, *parts, 3), smooth(x_ND, *parts, 3))


def test_the_graph_has_each_pair_once_both_ways():
    log = part_of_a_log()
    edge, offset = graph(log)
    assert edge.dtype == offset.dtype == np.int32
    pairs = set(zip(log.user.tolist(), log.item.tolist()))
    node = np.repeat(np.arange(len(offset) - 1), np.diff(offset))
    there = set(zip(node.tolist(), edge.tolist()))
    users = log.num_users
    assert len(edge) == len(there) == 2 * len(pairs)
    assert there == {(u, users + i) for u, i in pairs} | {(users + i, u) for u, i in pairs}


def test_without_layers_it_is_a_vector_a_user():
    """K = 0 and the plain factor model from the same values make the same step."""
    log = small_log()
    options = {"dim": 4, "epochs": 1, "batch_size": 128, "loss": "full_softmax", "progress": False}
    found = fastpop.train(log, encoder=LightGCN(layers=0), **options)
    plain = fastpop.train(log, encoder="factor", base=False, dropout=0.0, **options)
    assert found.history[0]["loss"] == pytest.approx(plain.history[0]["loss"], rel=1e-4)


def test_the_graph_is_of_training_events_alone_and_is_not_saved(tmp_path):
    log = small_log()
    options = {"dim": 4, "epochs": 1, "batch_size": 128, "progress": False}
    result = fastpop.train(log, encoder="lightgcn", out=tmp_path / "run", **options)
    train = result.split.train
    edge, _ = graph(train)
    assert torch.equal(result.model.encoder.edge_E, torch.from_numpy(edge))
    assert train.num_events < log.num_events
    assert not [name for name in result.model.state_dict() if "edge" in name or "offset" in name]
    found = fastpop.load(tmp_path / "run")
    cases = result.split.test
    assert torch.equal(found.model.encode(cases), result.model.encode(cases))


def test_a_copy_smooths_its_own_vectors():
    result = fastpop.train(small_log(), encoder="lightgcn", dim=4, epochs=1, progress=False)
    other = copy.deepcopy(result.model)
    with torch.no_grad():
        other.encoder.user_embedding.zero_()
    cases = result.split.test
    assert not torch.equal(other.encode(cases), result.model.encode(cases))
    assert torch.equal(other.decoder.tower.of[0].user_embedding, other.encoder.user_embedding)


def test_what_does_not_go_with_it_is_refused():
    with pytest.raises(ValueError, match=r"item_tower: expected 'table' with encoder='lightgcn'"):
        fastpop.TrainConfig(encoder="lightgcn", item_tower="linear")
    with pytest.raises(ValueError, match=r"sizes\.train: expected the events that are trained on"):
        LightGCN().build(Sizes(3, 4, 5))
    encoder = LightGCN().build(Sizes(60, 40, 5, train=small_log()))
    with pytest.raises(ValueError, match="item_VD: expected what the item tower of this encoder made"):
        encoder(torch.arange(3), None, torch.randn(40, 5))
    with pytest.raises(ValueError, match=r"encoder\.layers: expected an integer >= 0"):
        LightGCN(layers=-1)
    config = fastpop.TrainConfig(encoder="lightgcn")
    assert not config.sparse
    assert str(config.table_optimizer_part) == "adam"
