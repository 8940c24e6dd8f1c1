"""Contracts of the parts that train. Each check raises AssertionError that says what does not hold; ours
pass the same ones. Plain asserts and small sizes: seconds, no test framework."""

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import fastpop
from fastpop import recipes, registry
from fastpop.components import Component
from fastpop.data.batches import PAD
from fastpop.data.interactions import Interactions
from fastpop.encoders import Encoder, EncoderOptions, Sizes
from fastpop.experiments import compare
from fastpop.item_towers import ItemSizes, ItemTowerOptions
from fastpop.objectives import LossInputs, Objective
from fastpop.popularity import InBatch, PopularityPrior, Proposal, ProposalOptions, UniformProposal
from fastpop.priors import Prior
from fastpop.recipes import Recipe
from fastpop.regularizers import RegularizerInputs, RegularizerOptions
from fastpop.training import TrainConfig
from fastpop.training.config import PARTS, SHORT

USERS, ITEMS, DIM, LENGTH, ROWS = 30, 25, 8, 6, 12
QUICK: dict[str, Any] = {
    "epochs": 2,
    "dim": DIM,
    "batch_size": 64,
    "num_negatives": 16,
    "max_length": LENGTH,
    "num_layers": 1,
    "learning_rate": 0.02,
    "progress": False,
}


def small_log(seed: int = 0, num_events: int = 1500) -> Interactions:
    """USERS users, ITEMS items of falling popularity, with times: what the checks train on."""
    rng = np.random.default_rng(seed)
    item = np.minimum(rng.geometric(0.12, num_events) - 1, ITEMS - 1)
    item[:ITEMS] = np.arange(ITEMS)
    user = rng.integers(0, USERS, num_events)
    return Interactions.from_arrays(
        user,
        item,
        np.sort(rng.integers(0, 10**7, num_events)),
        user_ids=np.arange(USERS),
        item_ids=np.arange(ITEMS),
    )


def check_run(**options: Any) -> None:
    """What holds of a run with any part: it learns, its loss is finite, it comes back from disk with the
    same metrics, goes on from a checkpoint to the same bits, and is audited and compared.

    options: as `fastpop.train` takes them.
    """
    own = {
        short
        for kind, part in options.items()
        if isinstance(part, Component)
        for short in SHORT.get(kind, {}).values()
    }
    options = {name: value for name, value in QUICK.items() if name not in own} | options
    log = small_log()
    with tempfile.TemporaryDirectory() as folder:
        whole = fastpop.train(log, out=Path(folder) / "whole", **options)
        assert len(whole.history) == options["epochs"], "an epoch is missing from the history"
        assert all(np.isfinite(row["loss"]) for row in whole.history), "a loss is not finite"
        _check_moved(whole, options)
        found = fastpop.load(Path(folder) / "whole")
        assert found.config == whole.config, "load gives another configuration"
        assert dict(found.metrics) == dict(whole.metrics), "load gives other metrics"
        assert dict(found.evaluate().metrics) == dict(whole.evaluate().metrics), (
            "a loaded model evaluates to other numbers"
        )
        audit, again = (result.audit(permutations=10) for result in (whole, found))
        assert audit.energy_total == again.energy_total, "a loaded model audits to other numbers"
        assert audit.energy_total > 0, "the scores say nothing about items"
        assert whole.split.test is not None
        whole.recommend(log.user_ids[whole.split.test.user[:3]], k=5)
        if options["epochs"] > 1:
            fastpop.train(log, out=Path(folder) / "half", **options | {"epochs": options["epochs"] - 1})
            on = fastpop.train(log, out=Path(folder) / "half", resume=True, **options)
            for name, value in whole.model.state_dict().items():
                assert torch.equal(value, on.model.state_dict()[name]), (
                    f"{name}: a run that was stopped and resumed ends in other bits"
                )
    compared = {name: value for name, value in options.items() if name not in ("prior", "progress")}
    if whole.config.loss_part.takes_prior:
        compare(log, arms=["standard", "frozen"], seeds=1, permutations=10, progress=False, **compared)


def _check_moved(result: Any, options: dict[str, Any]) -> None:
    fresh = fastpop.train(
        small_log(), **options | {"epochs": 1, "learning_rate": 1e-30, "table_learning_rate": 1e-30}
    )
    before = fresh.model.state_dict()
    still = [name for name, param in result.model.named_parameters() if torch.equal(param, before[name])]
    assert not still, f"parameters that training does not move: {', '.join(still)}"


def check_encoder(encoder: EncoderOptions | str, *, in_a_run: bool = True) -> None:
    """The contract of `Encoder` and its options. in_a_run: train, load, audit and compare with it, too."""
    part: EncoderOptions = registry.made("encoder", encoder)
    part.check(DIM)
    module, item_VD = _built(part)
    assert module.reads == part.reads, f"reads: options say {part.reads!r}, the module {module.reads!r}"
    again, _ = _built(part)
    for name, value in module.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), (
            f"{name}: initial values are no function of torch's generator"
        )
    user_B = torch.arange(ROWS) % USERS
    history_BL = torch.randint(ITEMS, (ROWS, LENGTH), generator=torch.Generator().manual_seed(1))
    _check_gradients(part, user_B, history_BL)
    module.eval()
    if part.reads == "events":
        query_BD = module(user_B, None, item_VD)
        assert query_BD.shape == (ROWS, DIM), f"forward: expected [B, D]; got {list(query_BD.shape)}"
        assert torch.equal(query_BD, module(user_B, None, item_VD)), "eval mode is not deterministic"
        torch.testing.assert_close(module.last(user_B, user_B, item_VD), query_BD)
    else:
        _check_histories(part, module, user_B, history_BL, item_VD)
    if in_a_run:
        check_run(encoder=part)


def _built(part: EncoderOptions, sparse: bool = False) -> tuple[Encoder, Tensor]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = part.build(Sizes(USERS, ITEMS, DIM, LENGTH, sparse, small_log()))
        tower = module.item_tower()
        assert (tower is not None) == part.own_tower, "item_tower: expected one where own_tower is true"
        table_VD = torch.randn(ITEMS, DIM, requires_grad=True)
        return module, table_VD if tower is None else tower(table_VD)


def _check_gradients(part: EncoderOptions, user_B: Tensor, history_BL: Tensor) -> None:
    for sparse in (False, True):
        module, item_VD = _built(part, sparse)
        history = None if part.reads == "events" else history_BL
        module(user_B, history, item_VD).square().sum().backward()
        for name, param in module.named_parameters():
            assert param.grad is not None, f"{name} gets no gradient"
        for param in module.tables():
            assert param.grad is not None
            assert not param.grad.is_sparse or sparse, "a table gives a sparse gradient unasked"


def _check_histories(
    part: EncoderOptions, module: Encoder, user_B: Tensor, history_BL: Tensor, item_VD: Tensor
) -> None:
    query_BLD = module(user_B, history_BL, item_VD)
    assert query_BLD.shape == (ROWS, LENGTH, DIM), f"forward: expected [B, L, D]; got {list(query_BLD.shape)}"
    assert torch.equal(query_BLD, module(user_B, history_BL, item_VD)), "eval mode is not deterministic"
    short_BL = history_BL[:, : LENGTH - 2]
    padded_BL = torch.cat([short_BL, torch.full((ROWS, 2), PAD)], 1)
    last_BD = module.last(user_B, short_BL, item_VD)
    assert last_BD.shape == (ROWS, DIM), f"last: expected [C, D]; got {list(last_BD.shape)}"
    torch.testing.assert_close(
        module.last(user_B, padded_BL, item_VD),
        last_BD,
        msg=lambda told: f"padding after the end changes a query: {told}",
    )
    if str(part.rows_part()) == "sequences":
        changed_BL = history_BL.clone()
        changed_BL[:, -1] = (changed_BL[:, -1] + 1) % ITEMS
        later_BLD = module(user_B, changed_BL, item_VD)
        assert torch.equal(query_BLD[:, :-1], later_BLD[:, :-1]), "a later item reaches an earlier query"
        torch.testing.assert_close(
            module.last(user_B, history_BL, item_VD),
            query_BLD[:, -1],
            msg=lambda told: f"what serves is not what was trained at the last position: {told}",
        )


def check_item_tower(tower: ItemTowerOptions | str, *, in_a_run: bool = True) -> None:
    """The contract of `ItemTower` and its options."""
    part: ItemTowerOptions = registry.made("item_tower", tower)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = part.build(ItemSizes(ITEMS, DIM, small_log()))
    if module is not None:
        item_VD = torch.randn(ITEMS, DIM, requires_grad=True)
        made_VD = module(item_VD)
        assert made_VD.shape == (ITEMS, DIM), f"forward: expected [V, D]; got {list(made_VD.shape)}"
        module.eval()
        assert torch.equal(module(item_VD), module(item_VD)), "eval mode is not deterministic"
        made_VD.square().sum().backward()
        for name, param in module.named_parameters():
            assert param.grad is not None, f"{name} gets no gradient"
    if in_a_run:
        check_run(item_tower=part)


def check_loss(loss: Objective | str, *, in_a_run: bool = True) -> None:
    """The contract of `Objective`: a sum over rows, ignored nowhere, linear in the rows' weights."""
    part: Objective = registry.made("loss", loss)
    counts_V = np.arange(1.0, ITEMS + 1)
    module = part.build(LossInputs(ITEMS, 0, False, UniformProposal(), lambda: counts_V, lambda: counts_V))
    assert not list(module.parameters()), "a loss has parameters of its own, which nothing trains or saves"
    generator = torch.Generator().manual_seed(0)
    query_RD, item_VD = (torch.randn(n, DIM, generator=generator, requires_grad=True) for n in (ROWS, ITEMS))
    pos_id_R = torch.arange(ROWS) % ITEMS
    draws = {"step": 3} if part.needs == "negatives" else {}

    def value(weight_R: Tensor | None, log_prior_V: Tensor | None = None, **more: Any) -> Tensor:
        terms = {"log_prior": log_prior_V, "prior_weight": 1.0, "scale": torch.tensor(1.0)} | more
        return module(query_RD, item_VD, pos_id_R, row_weight=weight_R, **terms, **draws)

    plain = value(None)
    assert plain.ndim == 0, f"forward: expected a scalar; got {list(plain.shape)}"
    torch.testing.assert_close(plain, value(torch.ones(ROWS)), msg=lambda told: f"weights of one: {told}")
    torch.testing.assert_close(
        2 * plain,
        value(torch.full((ROWS,), 2.0)),
        msg=lambda told: f"the loss is not linear in the weights: {told}",
    )
    first = torch.zeros(ROWS)
    first[0] = 1
    torch.testing.assert_close(
        value(first) + value(1 - first), plain, msg=lambda told: f"the loss is no sum over rows: {told}"
    )
    log_prior_V = torch.randn(ITEMS, generator=generator)
    with_prior = value(None, log_prior_V)
    changes = not torch.allclose(with_prior, plain)
    wrong = "log_prior changes nothing" if part.takes_prior else "log_prior changes a loss that takes none"
    assert changes == part.takes_prior, wrong
    torch.testing.assert_close(
        value(None, 0.5 * log_prior_V, prior_weight=2.0),
        with_prior,
        msg=lambda told: f"prior_weight does not multiply log_prior: {told}",
    )
    value(None, log_prior_V).backward()
    assert query_RD.grad is not None, "queries get no gradient"
    assert item_VD.grad is not None, "items get no gradient"
    if in_a_run:
        check_run(loss=part, **({} if part.takes_prior else {"prior": "none"}))


def check_regularizer(regularizer: RegularizerOptions | str, *, in_a_run: bool = True) -> None:
    """The contract of regularisers: a finite scalar with a gradient."""
    part: RegularizerOptions = registry.made("regularizer", regularizer)
    module = part.build(RegularizerInputs(ITEMS, DIM, 0, False))
    assert not list(module.parameters()), "a regulariser has parameters of its own"
    query_RD, item_VD = (torch.randn(n, DIM, requires_grad=True) for n in (ROWS, ITEMS))
    view = {"view": query_RD + 0.1 * torch.randn(ROWS, DIM)} if part.view else {}
    found = module(query_RD, item_VD, torch.arange(ROWS), torch.randn(ITEMS), **view)
    assert found.ndim == 0, f"expected a scalar; got {list(found.shape)}"
    assert torch.isfinite(found), f"expected a finite number; got {found}"
    found.backward()
    assert query_RD.grad is not None or item_VD.grad is not None, "it pulls at nothing"
    if in_a_run:
        check_run(regularizers=(part,))


def check_proposal(proposal: ProposalOptions | str, *, in_a_run: bool = True) -> None:
    """The contract of proposals: probabilities that sum to one, a function of the counts."""
    part: ProposalOptions = registry.made("proposal", proposal)
    counts_V = np.arange(1.0, ITEMS + 1)
    built, again = part.build(counts_V), part.build(counts_V)
    assert isinstance(built, InBatch if part.in_batch else Proposal), f"build gives {type(built).__name__}"
    assert built.num_items == ITEMS, f"{built.num_items} items of {ITEMS}"
    np.testing.assert_allclose(
        np.exp(built.log_proposal_V).sum(), 1, rtol=1e-6, err_msg="probabilities do not sum to one"
    )
    assert np.array_equal(built.log_proposal_V, again.log_proposal_V), "another one of the same counts"
    if in_a_run:
        check_run(proposal=part)


def check_prior(prior: Prior | str, *, in_a_run: bool = True) -> None:
    """The contract of priors: at the popularity_weight as trained, what is served is what was trained."""
    part: Prior = registry.made("prior", prior)
    known = PopularityPrior.from_counts(np.arange(1, ITEMS + 1))
    log_prior_V = part.log_prior(known, 0)
    assert np.shape(log_prior_V) == (ITEMS,), f"log_prior: expected [V]; got {list(np.shape(log_prior_V))}"
    assert np.isfinite(log_prior_V).all(), "log_prior: expected finite nats"
    decoder = fastpop.nn.Decoder(log_prior_V, DIM, prior=part)
    terms = decoder.training_terms()
    added_V = torch.zeros(ITEMS) if terms["log_prior"] is None else terms["prior_weight"] * terms["log_prior"]
    torch.testing.assert_close(
        decoder.served_bias(decoder.trained_weight),
        added_V.detach(),
        msg=lambda told: f"the scores served at the popularity_weight as trained are others: {told}",
    )
    steps = [decoder.served_bias(beta) for beta in (0.0, 1.0, 2.0)]
    torch.testing.assert_close(
        steps[2] - steps[1],
        steps[1] - steps[0],
        msg=lambda told: f"served scores are not linear in popularity_weight: {told}",
    )
    if in_a_run:
        check_run(prior=part)


def check_table_optimizer(optimizer: Any, *, in_a_run: bool = True) -> None:
    """The contract of optimisers of tables: they step [V, D] and [V] parameters, and resume."""
    part = registry.made("table_optimizer", optimizer)
    table, bias = torch.nn.Parameter(torch.randn(ITEMS, DIM)), torch.nn.Parameter(torch.zeros(ITEMS))
    made = part.build([{"params": [table]}, {"params": [bias], "lr": 0.5}], 0.1)
    before = table.detach().clone()
    row = torch.tensor([3])
    found = torch.nn.functional.embedding(row, table, sparse=part.row_gradients).sum() + bias[3]
    found.backward()
    made.step()
    moved = (table.detach() != before).any(1)
    assert moved[3], "the row that had a gradient did not move"
    if part.row_gradients:
        assert int(moved.sum()) == 1, "a row without a gradient moved"
    if in_a_run:
        check_run(table_optimizer=part)


def check_split(split: Any, *, in_a_run: bool = True) -> None:
    """The contract of splits: no test event is trained on, and a seed gives one split."""
    part = registry.made("split", split)
    log = small_log()
    found, again = part.cut(log, 0), part.cut(log, 0)
    assert np.array_equal(found.part, again.part), "two splits of one seed differ"
    assert found.train.num_events == int((found.part == 0).sum()), "train is not what part says"
    assert found.known.num_events == int((found.part != 2).sum()), "known holds test events"
    if in_a_run and part.keeps_test:
        check_run(split=part)


def check_logger(logger: Any) -> None:
    """The contract of loggers: what opens takes every epoch's row and closes, opens again where a run goes
    on, and changes no bit of what is trained. `logger` is registered, since its run is saved."""
    part = registry.made("logger", logger)
    part.check()
    longer = QUICK | {"epochs": QUICK["epochs"] + 1}
    plain = fastpop.train(small_log(), **longer)
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        fastpop.train(small_log(), out=out, loggers=(part,), **QUICK)
        try:
            told = fastpop.train(small_log(), out=out, loggers=(part,), resume=True, **longer)
        except Exception as error:
            raise AssertionError(f"{part}: a run with it does not go on: {error}") from error
    for name, value in plain.model.state_dict().items():
        assert torch.equal(value, told.model.state_dict()[name]), f"{part} changes what is trained: {name}"


def check_recipe(recipe: Recipe | str, *, in_a_run: bool = True) -> None:
    """The contract of recipes: words; options that there are and that go together; a TOML file that says the
    same; what is given wins. in_a_run: one small epoch of it trains and comes back from disk, too."""
    recipe = recipes.find(recipe) if isinstance(recipe, str) else recipe
    assert isinstance(recipe, Recipe), f"expected a Recipe; got {type(recipe).__name__}"
    assert registry.NAME.fullmatch(recipe.name), f"name: letters, digits, - and _; got {recipe.name!r}"
    config = TrainConfig.from_dict(dict(recipe.options))
    assert TrainConfig.from_dict(config.to_dict()) == config, f"{recipe.name} is lost in a configuration"
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "recipe.toml"
        path.write_text(recipe.to_toml(), encoding="utf-8")
        assert TrainConfig.from_toml(path) == config, f"{recipe.name}: its TOML file says something else"
        if not in_a_run:
            return
        small = {"dim": DIM, "batch_size": 64, "epochs": 1, "max_length": LENGTH}
        options = config.replace(**small)
        result = fastpop.train(small_log(), config=options, out=Path(folder) / "run", progress=False)
        assert result.config == options, f"{recipe.name}: what is given does not win"
        found = fastpop.load(Path(folder) / "run")
        assert found.config == options, f"{recipe.name}: load gives another configuration"
        assert dict(found.evaluate().metrics) == dict(result.evaluate().metrics), (
            f"{recipe.name}: a loaded model evaluates to other numbers"
        )


def _within(part: Component) -> list[Component]:
    """A part and those among its options."""
    found = [part]
    for value in part.options().values():
        for inner in value if isinstance(value, tuple) else (value,):
            if isinstance(inner, Component):
                found += _within(inner)
    return found


def check_options(part: Component) -> None:
    """What holds of every part: it prints as the line that makes it, and comes back from its record."""
    kind = part.kind
    scope = {type(one).__name__: type(one) for one in _within(part)}
    assert repr(eval(repr(part), scope)) == repr(part), f"{part!r} does not make itself"
    if registry.is_plain(part):
        assert registry.restored(registry.record(part)) == part, f"{part!r} is lost on its way to disk"
    if kind in PARTS:
        plain = {} if getattr(part, "takes_prior", True) else {"prior": "none"}
        config = TrainConfig().replace(**{kind: part}, **plain)
        assert TrainConfig.from_dict(config.to_dict()) == config, f"{part!r} is lost in a configuration"
