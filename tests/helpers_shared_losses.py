"""Losses and regularisers that read all items, on parts of them: values, gradients, bytes. Asked by
helpers_vocab_parallel.py, in its processes."""

import functools

import numpy as np
import torch

from fastpop import Interactions
from fastpop.encoders import LightGCN, Sizes
from fastpop.objectives import Entmax, ImportanceSampling, LossInputs
from fastpop.ops import collectives
from fastpop.ops.row_shard import RowShard
from fastpop.popularity import PopularityProposal
from fastpop.regularizers import CosReg, RegularizerInputs, ReSN

V, D, B, U = 23, 5, 12, 9
ROWS = {1: [slice(0, 12)], 2: [slice(0, 5), slice(5, 12)], 3: [slice(0, 7), slice(7, 7), slice(7, 12)]}
LEARNED = ("query", "items", "log_prior", "prior_weight", "scale")
SAMPLED = {
    "blocks": ImportanceSampling(block=4, most=50, effective=8.0, rate=0.2),
    "one block": ImportanceSampling(block=16, most=16, effective=1.0),
}
REGULARIZERS = {"cosreg": CosReg(), "of squares": CosReg(squared=True), "resn": ReSN()}


def problem(dtype):
    generator = torch.Generator().manual_seed(1)

    def normal(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)

    return {
        "query": normal(B, D),
        "items": normal(V, D),
        "pos_id": torch.randint(0, V, (B,), generator=generator),
        "row_weight": normal(B).abs() + 0.1,
        "log_prior": normal(V),
        "prior_weight": torch.tensor(0.7, dtype=dtype),
        "scale": torch.tensor(1.3, dtype=dtype),
    }


def loss_of(part):
    counts = np.arange(1.0, V + 1)
    return part.build(LossInputs(V, 5, False, PopularityProposal(), lambda: counts, lambda: counts))


def gradients(module, given, learned, **more):
    """(value, gradients by name) of a call; given: in the order of a loss's arguments."""
    leaves = {name: given[name].detach().clone().requires_grad_() for name in learned}
    value = module(**{**given, **leaves}, **more)
    (value / more.pop("world", 1)).backward()
    return value.detach(), {name: leaf.grad for name, leaf in leaves.items()}


def close(found, expected, dtype, what):
    """To 1e-6 of the largest in float32."""
    tolerance = 1e-6 if dtype == torch.float32 else 1e-11
    atol = tolerance * max(float(expected.abs().max()) if expected.numel() else 0.0, 1e-3)
    torch.testing.assert_close(found, expected, rtol=tolerance, atol=atol, msg=lambda text: f"{what}: {text}")


def check_losses(dtype, world, rank, rows, shard):
    p, own = problem(dtype), ROWS[world][rank]
    of_rows = ("query", "pos_id", "row_weight")
    for name, part in {"entmax": Entmax(), **SAMPLED}.items():
        for learned in (LEARNED, ("query", "items")):
            module, alone = loss_of(part), loss_of(part)
            more = {}
            if name != "entmax":
                more = {"step": 3}
                alone.draws = functools.partial(alone.draws, shared=True)  # those of the first process
            given = p if len(learned) > 2 else p | {"log_prior": None, "row_weight": None}
            expected, wanted = gradients(alone, given, learned, **more)
            mine = {
                key: value[own] if key in of_rows and value is not None else value
                for key, value in given.items()
            }
            mine["items"] = p["items"][rows]
            if given["log_prior"] is not None:  # learned: it lies as the items do
                mine["log_prior"] = p["log_prior"][rows]
            value, found = gradients(module, mine, learned, shard=shard, **more)
            what = f"{name} {dtype}"
            close(collectives.total(value, None), expected, dtype, what)
            cut = {"query": own, "items": rows, "log_prior": rows}
            for leaf, grad in found.items():
                if leaf in cut:
                    close(grad, wanted[leaf][cut[leaf]], dtype, f"{what} gradient of {leaf}")
                else:  # parts, to be summed with the encoder's
                    close(collectives.total(grad, None), wanted[leaf], dtype, f"{what} gradient of {leaf}")
            if name != "entmax":
                module.adapt(), alone.adapt()
                torch.testing.assert_close(module.follows_V, alone.follows_V, rtol=1e-6, atol=0)
                assert not torch.equal(module.follows_V, module.base_V) or not part.rate


def check_regularizers(dtype, world, rank, rows, shard):
    p, own = problem(dtype), ROWS[world][rank]
    for name, part in REGULARIZERS.items():
        module = part.build(RegularizerInputs(V, D, 0, False))
        given = [p["query"].clone().requires_grad_(), p["items"].clone().requires_grad_()]
        expected = module(*given, p["pos_id"], p["log_prior"])
        expected.backward()
        mine = [p["query"][own].clone().requires_grad_(), p["items"][rows].clone().requires_grad_()]
        value = module(*mine, p["pos_id"][own], p["log_prior"], shard=shard)
        (value / world).backward()  # as each adds its share
        close(value.detach(), expected.detach(), dtype, name)
        for leaf, whole, cut in zip(mine, given, (own, rows)):
            if whole.grad is not None:
                close(leaf.grad, whole.grad[cut], dtype, f"{name} {dtype} gradient")


def graph_of_a_log():
    rng = np.random.default_rng(0)
    user, item = rng.integers(0, U, 60), rng.integers(0, V, 60)
    return Interactions.from_arrays(user, item, user_ids=np.arange(U), item_ids=np.arange(V))


def encoder_of(layers, rows):
    torch.manual_seed(4)
    return LightGCN(layers=layers).build(Sizes(U, V, D, train=graph_of_a_log(), rows=rows))


def check_graph(world, rows):
    """Users and items smoothed in parts, and their gradients, each process's own from above of the users."""
    generator = torch.Generator().manual_seed(2)
    up_item_VD, up_user_UD = torch.randn(V, D, generator=generator), torch.randn(U, D, generator=generator)
    for layers in (0, 1, 3):
        found = []
        for cut in (None, rows):
            encoder = encoder_of(layers, cut)
            items = problem(torch.float32)["items"][slice(None) if cut is None else cut]
            items = items.clone().requires_grad_()
            made = encoder.item_tower()(items)
            share = 1 if cut is None else 1 / world
            upstream = up_item_VD if cut is None else up_item_VD[cut]
            ((made * upstream).sum() + share * (made.of_users * up_user_UD).sum()).backward()
            found.append((made.detach(), made.of_users.detach(), items.grad, encoder.user_embedding.grad))
        whole, part = found
        close(part[0], whole[0][rows], torch.float32, f"items, {layers} layers")
        close(part[1], whole[1], torch.float32, f"users, {layers} layers")
        close(part[2], whole[2][rows], torch.float32, f"gradient of items, {layers} layers")
        d_user_UD = collectives.total(part[3], None)
        close(d_user_UD, whole[3], torch.float32, f"gradient of users, {layers} layers")
        encoder.take_all_rows(graph_of_a_log())
        again = encoder.item_tower()(problem(torch.float32)["items"])
        assert torch.equal(again, whole[0])


def counts(traffic, **expected):
    """The bytes of each collective are these."""
    expected = {name.replace("_", " "): round(value) for name, value in expected.items()}
    found = {name: value for name, value in traffic.bytes.items() if value or name in expected}
    assert found == expected, (found, expected)


def check_bytes(world, rank, rows, shard):
    """What the tables of docs/distributed.md say, of a process with b rows."""
    p, own = problem(torch.float32), ROWS[world][rank]
    most = max(one.stop - one.start for one in ROWS[world])
    ring = (world - 1) / world
    summed = 2 * ring

    def given():
        leaves = {"query": p["query"][own].clone(), "items": p["items"][rows].clone()}
        leaves = {name: leaf.requires_grad_() for name, leaf in leaves.items()}
        terms = {"row_weight": None, "log_prior": None, "prior_weight": 1.0, "scale": 1.0, "shard": shard}
        return leaves | terms | {"pos_id": p["pos_id"][own]}

    rows_go = (world - 1) * (8 + 4 * most * D + 8 * most + 4 * most)  # and what comes from above
    back = ring * 4 * world * most * D
    with collectives.counted() as traffic:
        loss_of(Entmax())(**given()).backward()
    rounds = traffic.calls["sum"] - 1
    assert 3 < rounds < 10
    counts(
        traffic,
        gather=rows_go,
        max=summed * 4 * B,
        sum=rounds * round(summed * 16 * B) + round(summed * 8 * B) + round(summed * 4 * B),
        own_sums=back,
    )
    with collectives.counted() as traffic:
        loss_of(SAMPLED["one block"])(**given(), step=1).backward()
    counts(
        traffic,
        gather=rows_go,
        max=2 * round(summed * 4 * B),
        sum=2 * round(summed * 8 * B) + round(summed * 8 * 16),
        own_sums=back,
    )
    for name, numbers in (("cosreg", D), ("of squares", D * D), ("resn", 2 * D * D)):
        module = REGULARIZERS[name].build(RegularizerInputs(V, D, 0, False))
        leaves = [p["query"][own].clone().requires_grad_(), p["items"][rows].clone().requires_grad_()]
        with collectives.counted() as traffic:
            module(*leaves, p["pos_id"][own], p["log_prior"], shard=shard).backward()
        more = {"gather": (world - 1) * 8} if name == "resn" else {}
        counts(traffic, sum=2 * round(summed * 4 * numbers), **more)
    encoder = encoder_of(3, rows)
    items = p["items"][rows].clone().requires_grad_()
    with collectives.counted() as traffic:
        encoder.item_tower()(items).sum().backward()
    counts(traffic, sum=6 * round(summed * 4 * U * D))


def check(world, rank, first, rows):
    shard = RowShard(first, V, queries="each")
    for dtype in (torch.float64, torch.float32):
        check_losses(dtype, world, rank, rows, shard)
        check_regularizers(dtype, world, rank, rows, shard)
    check_graph(world, rows)
    check_bytes(world, rank, rows, shard)
