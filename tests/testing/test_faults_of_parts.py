"""One clear error for each fault of a part that somebody else wrote; configurations come back whole."""

import copy
import dataclasses
import json
import os
import pickle
import random
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from masked_parts import PARTS, Bert, Partly
from torch import nn
from torch.nn import functional as F  # noqa: N812

import fastpop
from fastpop import TrainConfig, registry, testing
from fastpop.components import Component
from fastpop.data import SplitRule
from fastpop.diagnostics import Null
from fastpop.encoders import Bag, Encoder, EncoderOptions, Factor, SASRec
from fastpop.evaluation import Metric
from fastpop.item_towers import ItemTower, ItemTowerOptions, Linear
from fastpop.objectives import FullSoftmax, Objective, SampledSoftmax
from fastpop.popularity import LogUniformProposal, MixtureProposal, PopularityProposal, UniformProposal
from fastpop.priors import Frozen, Learned, Prior
from fastpop.regularizers import L2, RegularizerOptions
from fastpop.table_optimizers import RowAdagrad, TableOptimizer
from fastpop.testing.training import DIM, ITEMS, LENGTH, QUICK
from fastpop.training import Logger
from fastpop.training.config import SHORT


def a_part(base, **members):
    return dataclass(frozen=True)(type("X", (base,), {"name": "x", **members}))()


def with_module(base, module, **members):
    """A part that builds what is given, whatever it is told."""
    return a_part(base, build=lambda self, *given, **more: module, **members)


class Given(nn.Module):
    """forward gives what a function makes of its arguments."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, *given, **more):
        return self.function(*given)


def encoder(function, last=None, reads="sequences", **members):
    class Asked(Encoder):
        def forward(self, user_B, history_BL, item_VD):
            return function(F.embedding(history_BL.clamp(min=0), item_VD))

    if reads:
        Asked.reads = reads
    if last:
        Asked.last = last
    return with_module(EncoderOptions, Asked(), **members)


class Tower(Given, ItemTower):
    pass


def encoded(function, **more):
    return {"encoder": encoder(function, **more)}


def lost(function):
    return {"loss": with_module(Objective, Given(function))}


def split_by(function):
    return {"split": a_part(SplitRule, part=lambda self, log, seed: function(log.num_events))}


def prior_of(function):
    return {"prior": a_part(Prior, log_prior=lambda self, prior, seed: function(prior.log_prior_V))}


BUILD = r"X\(\)\.build: expected "
FORWARD = rf"Asked\.forward: expected shape \[\d+, {LENGTH}, {DIM}\]; got float32 "
SUM = r"Given\.forward: expected a scalar tensor with a gradient, the sum over rows; got "
WRONG_PARTS = [
    (encoded(lambda row_BLD: row_BLD[:, -1]), ValueError, FORWARD + rf"\[\d+, {DIM}\]"),
    (encoded(lambda row_BLD: row_BLD[:, 1:]), ValueError, FORWARD + rf"\[\d+, \d, {DIM}\]"),
    (
        encoded(lambda row_BLD: torch.cat([row_BLD] * 2, 2)),
        ValueError,
        FORWARD + rf"\[\d+, {LENGTH}, {2 * DIM}\]",
    ),
    (encoded(lambda row_BLD: None), TypeError, r"Asked\.forward: expected a torch tensor; got NoneType"),
    (
        encoded(lambda row_BLD: row_BLD, last=lambda self, user_C, history_CL, item_VD: item_VD[history_CL]),
        ValueError,
        rf"Asked\.last: expected shape \[\d+, {DIM}\]; got float32",
    ),
    (
        encoded(None, reads="events"),
        ValueError,
        BUILD + "a module with reads = 'sequences', as its options have; got 'events'",
    ),
    (encoded(None, reads=None), ValueError, BUILD + ".* as its options have; got None"),
    (
        encoded(None, rows="events"),
        ValueError,
        "rows events: expected batches with histories where the encoder reads sequences, and only there",
    ),
    (
        {"encoder": with_module(EncoderOptions, nn.Linear(2, 2))},
        TypeError,
        BUILD + r"a fastpop\.encoders\.Encoder; got Linear",
    ),
    (lost(lambda query, items, pos_id: -(query * items[pos_id]).sum(1)), ValueError, SUM + r"float32 \[64\]"),
    (lost(lambda *given: torch.tensor(1.0)), ValueError, SUM + "one without a gradient"),
    (lost(lambda *given: 1.0), TypeError, r"Given\.forward: expected a scalar tensor, the sum over rows"),
    (
        {"regularizers": [with_module(RegularizerOptions, Given(lambda query, *rest: query.sum(1)))]},
        ValueError,
        SUM + r"float32 \[64\]",
    ),
    (
        {"item_tower": with_module(ItemTowerOptions, Tower(lambda item_VD: item_VD[:-1]))},
        ValueError,
        rf"Tower: expected shape \[{ITEMS}, {DIM}\]; got float32 \[{ITEMS - 1}, {DIM}\]",
    ),
    (
        {"item_tower": with_module(ItemTowerOptions, Tower(lambda item_VD: None))},
        TypeError,
        "Tower: expected a torch tensor; got NoneType",
    ),
    (
        {"item_tower": with_module(ItemTowerOptions, "a")},
        TypeError,
        BUILD + r"a fastpop\.item_towers\.ItemTower or None; got str",
    ),
    (
        prior_of(lambda log_p_V: log_p_V[1:]),
        ValueError,
        rf"X\(\)\.log_prior: expected shape \[{ITEMS}\]; got float64 \[{ITEMS - 1}\]",
    ),
    (
        prior_of(lambda log_p_V: log_p_V * np.nan),
        ValueError,
        r"X\(\)\.log_prior: expected finite numbers; got nan at \[0\]",
    ),
    (
        {"table_optimizer": with_module(TableOptimizer, None)},
        TypeError,
        BUILD + r"a torch\.optim\.Optimizer; got NoneType",
    ),
    (
        {"loggers": [a_part(Logger, needs_folder=False, open=lambda self, out, config: None)]},
        TypeError,
        r"X\(\)\.open: expected what has epoch\(row\) and close\(\); got NoneType",
    ),
    (
        split_by(np.zeros),
        ValueError,
        r"split x: part: expected 0 \(train\), 1 \(validation\) or 2 \(test\) "
        r"for each event; got float64 \[1500\]",
    ),
    (
        split_by(lambda number: np.full(number, 2)),
        ValueError,
        r"split x: part: expected some events that train \(0\); got none",
    ),
]


@pytest.mark.parametrize(("options", "error", "message"), WRONG_PARTS, ids=range(len(WRONG_PARTS)))
def test_a_wrong_part_is_named(options, error, message):
    with pytest.raises(error, match=f"^{message}"):
        fastpop.train(testing.small_log(), **QUICK | {"epochs": 1} | options)


@pytest.mark.parametrize(
    ("members", "message"),
    [
        (
            {"value": lambda self, known, k: np.array(["a"] * known.num_cases)},
            r"value of the metric 'x@10': expected \[30\] numbers, a case each; got <U1 \[30\]",
        ),
        (
            {
                "value": lambda self, known, k: np.ones(known.num_cases),
                "size": lambda self, known: np.ones(3),
            },
            r"size of the metric 'x@10': expected \[30\] numbers, a case each; got float64 \[3\]",
        ),
        (
            {
                "value": lambda self, known, k: np.ones(known.num_cases),
                "size": lambda self, known: -np.ones(known.num_cases),
            },
            r"size of the metric 'x@10': expected numbers >= 0; got -1",
        ),
    ],
)
def test_a_wrong_metric_is_named(members, message):
    result = fastpop.train(testing.small_log(), **QUICK | {"epochs": 1})
    with pytest.raises(ValueError, match=f"^{message}"):
        result.evaluate(metrics=[a_part(Metric, **members)])


def test_a_null_cannot_change_what_the_next_draw_is_of():
    label_V = np.array([0.6, -0.8, 0.0, 0.0])
    null = a_part(Null, draw=lambda self, label_V, rng, stratum_V: np.negative(label_V, out=label_V))
    with pytest.raises(ValueError, match="read-only"):
        null.project(label_V, np.eye(4), 2)
    assert label_V[0] == 0.6


def test_tensorboard_asked_for_twice_writes_once():
    assert len(TrainConfig(tensorboard=True, loggers="tensorboard").logger_parts) == 1


@pytest.fixture
def my_parts(tmp_path):
    """A folder that holds a module with parts."""
    (tmp_path / "my_parts.py").write_text(
        f"import sys\nsys.path.append({str(Path(__file__).parents[1])!r})\nimport fastpop, masked_parts\n"
        "for part in masked_parts.PARTS:\n    fastpop.register(part.kind, part)\n"
    )
    return tmp_path


def fastpop_command(*words, folder):
    """From the script on, in a folder to which nothing else leads."""
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [Path(sys.executable).parent / "fastpop", *map(str, words)],
        capture_output=True,
        text=True,
        cwd=folder,
        env=env,
    )
    return done.returncode, done.stderr


TRAIN = ("--plugin", "my_parts", "train", "bundled", "--out", "run")


@pytest.mark.parametrize(
    ("words", "text", "message"),
    [
        (
            ["--encoder", "sasrec", "--num-layers", "1", "--encoder.num-layers", "3"],
            "",
            "encoder.num_layers: expected nothing beside --num-layers, which is the same; got 3",
        ),
        (
            ["--encoder", "out-bert", "--encoder.width=1", "--encoder.width", "2"],
            "",
            "--encoder.width: expected an option once; got '--encoder.width'",
        ),
        (
            ["--regularizers", "l2", "l2", "--regularizers.l2.weight", "1"],
            "",
            "regularizers.l2: expected its place (1 or 2) instead of a name that several have (l2, l2); got",
        ),
        (
            ["--encoder", "out-must"],
            "",
            "encoder.width: expected a value, since 'out-must' has no default; got none",
        ),
        (
            [],
            '[encoder]\nname = "factor"\nnum_layers = 3\n',
            "encoder.num_layers: expected an option of 'factor' (dropout, base); got an unknown one",
        ),
        (
            [],
            '[train]\nnum_layers = 2\n[encoder]\nname = "sasrec"\nnum_layers = 3\n',
            "run.toml: num_layers: expected an option once; got 3",
        ),
        (
            [],
            '[proposal]\nname = "mixture"\nparts = [{power = 0.5}]\nweights = [1]\n',
            "proposal.parts: expected one of 'uniform', 'popularity', ",
        ),
    ],
)
def test_nothing_that_was_given_is_left_aside(commands, words, text, message, my_parts):
    (my_parts / "run.toml").write_text(text)
    done = commands.run(*TRAIN, *words, "--config", "run.toml", cwd=my_parts, code=2)
    assert done.stderr.startswith(f"fastpop: {message}")
    assert not (my_parts / "run").exists()


def test_the_command_line_finds_parts_where_it_is_called_and_asks_them_for_their_defaults(commands, my_parts):
    log = testing.small_log()
    (my_parts / "log.csv").write_text(
        "user,item,time\n" + "".join(f"{u},{i},{t}\n" for u, i, t in zip(log.user, log.item, log.time))
    )
    (my_parts / "run.toml").write_text('dropout = 0.2\n[encoder]\nname = "out-bert"\nwidth = 8\n')
    read = [
        "--plugin",
        "my_parts",
        "train",
        "log.csv",
        "--user",
        "user",
        "--item",
        "item",
        "--time",
        "time",
        "--dim",
        "8",
        "--batch-size",
        "64",
        "--num-negatives",
        "8",
        "--epochs",
        "1",
        "--permutations",
        "5",
    ]
    for out, words, width, dropout, weight in (
        ("a", ["--encoder", "out-bert", "--prior", "out-partly"], 16, 0.05, 0.5),
        (
            "b",
            ["--encoder", "out-bert", "--dropout", "0.2", "--prior", "out-partly", "--prior-weight", "1"],
            16,
            0.2,
            1.0,
        ),
        ("c", ["--config", "run.toml", "--prior", "out-partly"], 8, 0.2, 0.5),
        ("d", ["--config", "run.toml", "--prior", "out-partly", "--encoder.dropout", "0.4"], 8, 0.4, 0.5),
    ):
        commands.run(*read, "--out", out, *words, cwd=my_parts)
        kept = json.loads((my_parts / out / "config.json").read_text())
        assert kept["encoder"]["options"] == {"width": width, "dropout": dropout, "mask": "free"}, out
        assert kept["prior"]["options"] == {"weight": weight}, out
    code, said = fastpop_command("evaluate", "a", folder=my_parts)
    assert code == 2
    assert said.startswith("fastpop: encoder: expected 'out-bert' to be registered, as where this was made")
    assert fastpop_command("evaluate", "a", "--plugin", "my_parts", folder=my_parts)[0] == 0


PARTS_TO_TRY = {
    "encoder": [
        "factor",
        "bag",
        "sasrec",
        "out-bert",
        SASRec(num_layers=1),
        SASRec(hidden=7, dropout=0.3),
        Factor(base=False),
        Bag(dropout=0.1),
        Bert(width=3),
        Bert(dropout=0.2),
        Bert(mask="zero"),
    ],
    "prior": [
        "none",
        "frozen",
        "permuted",
        "learned",
        "out-partly",
        Frozen(weight=0.5),
        Learned(start="log-prior", learning_rate=0.1),
        Partly(weight=1.0),
        Partly(weight=0.25),
    ],
    "loss": [
        "full_softmax",
        "sampled_softmax",
        FullSoftmax(label_smoothing=0.1),
        SampledSoftmax(num_negatives=4, group_size=1, logq="none"),
    ],
    "proposal": [
        "uniform",
        "popularity",
        "mixture",
        PopularityProposal(power=0.5),
        MixtureProposal(power=0.5),
        MixtureProposal(uniform_share=0.2),
        MixtureProposal(
            parts=(UniformProposal(), MixtureProposal(parts=(LogUniformProposal(),), weights=(1,))),
            weights=(1, 2.5),
        ),
    ],
    "item_tower": ["table", "linear", Linear(depth=2)],
    "table_optimizer": ["auto", "row_sgd", RowAdagrad()],
    "split": ["leave-last-out", "leave-last-n", "global-time", "none"],
    "regularizers": ["l2", (L2(weight=1),), (L2(), L2(weight=0.5))],
    "loggers": ["tensorboard", ()],
    "num_layers": [2, 3],
    "num_heads": [2, 4],
    "dropout": [0.2, 0.4],
    "base": [True, False],
    "prior_weight": [1.0, 0.5, 0.75],
    "bias_start": ["zero", "log-prior"],
    "num_negatives": [4, 1024],
    "group_size": [0, 1],
    "label_smoothing": [0.0, 0.1],
    "proposal_power": [0.75, 0.5],
    "split_n": [1, 2],
    "logq": ["standard", "none"],
    "smoothing": ["loo", 1.5],
    "epochs": [np.int64(3)],
}


def toml(value):
    if isinstance(value, Component):
        return toml({"name": str(value), **value.options()})
    if isinstance(value, dict):
        return "{" + ", ".join(f"{name} = {toml(inner)}" for name, inner in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(toml, value)) + "]"
    return json.dumps(value.item() if isinstance(value, np.generic) else value)


def test_a_configuration_comes_back_from_wherever_it_was_put(tmp_path):
    rng, tried = random.Random(0), 0
    path = tmp_path / "run.toml"
    for _ in range(300):
        given = {name: rng.choice(values) for name, values in PARTS_TO_TRY.items() if rng.random() < 0.25}
        try:
            config = TrainConfig().replace(**given)
        except ValueError:  # two that do not go together
            continue
        tried += 1
        path.write_text("".join(f"{name} = {toml(value)}\n" for name, value in given.items()))
        whole = {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}
        there = config.replace(epochs=9)
        for found in (
            TrainConfig.from_dict(config.to_dict()),
            TrainConfig.from_toml(path),
            TrainConfig.from_dict(json.loads(config.to_json())),
            TrainConfig(**whole),
            config.replace(),
            there.replace(epochs=config.epochs),
            pickle.loads(pickle.dumps(config)),
            copy.deepcopy(config),
        ):
            assert found == config, given
            for kind in SHORT:
                assert getattr(found, f"{kind}_part") == getattr(config, f"{kind}_part"), given
        for kind, short in SHORT.items():
            options = getattr(config, f"{kind}_part").options()
            for option, own in short.items():
                assert own not in given or option not in options or options[option] == given[own], given
    assert tried > 150


@pytest.fixture(autouse=True)
def known():
    """These are known while a test of this file runs, and to no other."""
    import contextlib

    with contextlib.ExitStack() as names:
        for part in PARTS:
            names.enter_context(registry.registered(part.kind, part))
        yield
