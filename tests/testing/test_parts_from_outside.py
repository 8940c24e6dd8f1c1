"""Parts that somebody else wrote: what their names stand for, and what is kept of them."""

import contextlib
import json
import sys
from dataclasses import dataclass, field, replace
from typing import ClassVar, Literal

import numpy as np
import pytest
from masked_parts import PARTS, Bert, Masked, Must, Partly

import fastpop
from fastpop import TrainConfig, registry, testing
from fastpop.data import SplitRule
from fastpop.encoders import EncoderOptions, SASRec
from fastpop.evaluation import Metric
from fastpop.evaluation.accuracy import HitRate
from fastpop.experiments import Arm
from fastpop.objectives import Objective
from fastpop.testing.training import QUICK

QUICKER = {name: value for name, value in QUICK.items() if name not in ("num_layers", "num_negatives")}


@pytest.fixture(autouse=True)
def known():
    """These are known while a test of this file runs, and to no other."""
    with contextlib.ExitStack() as names:
        for part in PARTS:
            names.enter_context(registry.registered(part.kind, part))
        yield


def test_an_encoder_with_rows_of_its_own_goes_all_the_way():
    testing.check_rows("out-masked")
    testing.check_encoder(Bert(width=8))
    testing.check_prior(Partly(weight=0.25))


def test_a_run_of_parts_that_are_not_here_says_what_to_import(tmp_path, monkeypatch):
    """Of a metric and of rows a run keeps nothing but the name."""

    class Mine(HitRate):
        name = "mine"

    options = {"loss": "full_softmax", **QUICKER, "evaluate_every": 1}
    with registry.registered("metric", Mine):
        fastpop.train(testing.small_log(), metric="mine@10", out=tmp_path / "metric", **options)
    fastpop.train(testing.small_log(), encoder="out-bert", out=tmp_path / "rows", **options)
    monkeypatch.delitem(registry._parts["rows"], "out-masked")
    for kind, name in (("metric", "mine"), ("rows", "out-masked")):
        with pytest.raises(
            registry.Missing,
            match=rf"^{kind}: expected '{name}' to be registered, .*; got none: first import .*--plugin",
        ):
            fastpop.load(tmp_path / kind)


def test_the_name_of_somebody_elses_part_stands_for_its_own_defaults():
    config = TrainConfig(encoder="out-bert", prior="out-partly")
    assert (config.encoder_part, config.prior_part) == (Bert(dropout=0.05), Partly(weight=0.5))
    assert config == TrainConfig(encoder=Bert(), prior=Partly())
    assert (config.dropout, config.prior_weight) == (0.2, 1.0)  # of our own parts
    asked = TrainConfig().replace(encoder="out-bert", dropout=0.2, prior="out-partly", prior_weight=1.0)
    assert (asked.encoder, asked.prior) == (Bert(dropout=0.2), Partly(weight=1.0))
    assert TrainConfig(prior="out-partly", prior_weight=0.75).prior == Partly(weight=0.75)
    assert config.replace(prior_weight=0.75).prior == Partly(weight=0.75)
    assert asked.replace(prior="frozen").prior_weight == 1.0
    with pytest.raises(
        ValueError,
        match=r"^prior_weight: expected nothing beside prior=Partly\(weight=0.25\)"
        r", which has its own weight; got 0.5$",
    ):
        TrainConfig(prior=Partly(weight=0.25), prior_weight=0.5)
    with pytest.raises(ValueError, match=r"^num_layers: expected nothing beside encoder=SASRec"):
        TrainConfig(encoder=SASRec(num_layers=3), num_layers=5)


def test_a_decoder_asks_a_name_for_its_own_defaults_too():
    log_p_V = np.zeros(3)
    assert fastpop.nn.Decoder(log_p_V, 2, prior="out-partly").prior == Partly(weight=0.5)
    assert fastpop.nn.Decoder(log_p_V, 2, prior="out-partly", prior_weight=0.75).prior == Partly(weight=0.75)
    assert fastpop.nn.Decoder(log_p_V, 2, prior="frozen", prior_weight=0.75).trained_weight == 0.75
    with pytest.raises(ValueError, match=r"^prior_weight: expected none beside prior=Partly\(\), "):
        fastpop.nn.Decoder(log_p_V, 2, prior=Partly(), prior_weight=0.75)


def test_an_arm_trains_beside_its_own_prior(monkeypatch):
    from fastpop.training import build

    seen, made = [], build.build_model
    monkeypatch.setattr(
        build, "build_model", lambda config, *rest: (seen.append(config.prior_part), made(config, *rest))[1]
    )
    with registry.registered("arm", Arm("out-half", "s + log p / 2", "s + beta log p", "out-partly")):
        fastpop.compare(testing.small_log(), arms=["out-half"], seeds=1, permutations=5, **QUICK)
    assert [part.prior_weight for part in seen] == [1.0, 0.5]
    assert seen[1] == Partly()


@pytest.mark.parametrize(
    ("arm", "message"),
    [
        (Arm("out-a", "s", "s", "nope"), r"^prior of the arm 'out-a': expected one of 'none', "),
        (
            Arm("out-a", "s", "s", "out-partly", bias_start="log-prior"),
            r"^bias_start of the arm 'out-a': expected 'zero' with the prior 'out-partly', which has none",
        ),
    ],
)
def test_an_arm_that_cannot_train_is_refused_before_any_does(arm, message, monkeypatch):
    monkeypatch.setattr(sys.modules["fastpop.experiments.compare"], "train_arm", None)
    with registry.registered("arm", arm), pytest.raises(ValueError, match=message):
        fastpop.compare(testing.small_log(), arms=["out-a"], seeds=1)


def test_arms_take_no_loggers():
    with pytest.raises(ValueError, match=r"^loggers: expected none: curves over epochs are in the report"):
        fastpop.compare(testing.small_log(), seeds=1, loggers="tensorboard")


def test_a_run_keeps_version_and_options_of_a_part_at_its_defaults(tmp_path):
    fastpop.train(testing.small_log(), encoder="out-bert", out=tmp_path / "run", **QUICKER)
    kept = json.loads((tmp_path / "run" / "config.json").read_text())
    assert kept["encoder"] == {
        "kind": "encoder",
        "name": "out-bert",
        "version": 1,
        "class": "masked_parts:Bert",
        "options": {"width": 16, "dropout": 0.05, "mask": "free"},
    }
    assert kept["prior"] == "frozen"
    assert fastpop.load(tmp_path / "run").config.encoder == "out-bert"

    @dataclass(frozen=True)
    class Wider(Bert):
        width: int = 32

    del registry._parts["encoder"]["out-bert"]
    with pytest.raises(registry.Missing, match=r"^encoder: expected 'out-bert' to be registered"):
        fastpop.load(tmp_path / "run")
    fastpop.register("encoder", Wider)
    assert fastpop.load(tmp_path / "run").config.encoder == Wider(width=16)
    Wider.version = 2
    with pytest.raises(registry.Missing, match=r"^encoder: expected version 1 of 'out-bert'"):
        fastpop.load(tmp_path / "run")
    with pytest.raises(
        ValueError,
        match=r"^encoder: expected 'out-bert', version 1, with \{'width': 16, .*; "
        r"got 'out-bert', version 2, with \{'width': 32",
    ):
        fastpop.train(testing.small_log(), encoder="out-bert", out=tmp_path / "run", resume=True, **QUICKER)


def test_parts_that_no_name_finds_are_not_saved(tmp_path):
    @dataclass(frozen=True)
    class Nobodys(SASRec):
        """Under the name of ours, which load would make instead."""

    message = (
        r"^encoder: expected a part that is registered \(fastpop\.register\('encoder', \.\.\.\)\) "
        r"where a run is saved, which finds it by its name; got Nobodys\(num_layers=1\)$"
    )
    with pytest.raises(ValueError, match=message):
        fastpop.train(testing.small_log(), encoder=Nobodys(num_layers=1), out=tmp_path / "run", **QUICKER)
    result = fastpop.train(testing.small_log(), encoder=Nobodys(num_layers=1), **QUICKER | {"epochs": 1})
    with pytest.raises(ValueError, match=message):
        result.save(tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_installed_parts_are_found_when_a_run_is_loaded(monkeypatch):
    kept = TrainConfig(encoder=Bert(width=3)).to_dict()
    del registry._parts["encoder"]["out-bert"]

    class Point:
        name, value = "out-bert", "package:Bert"

        def load(self):
            return Bert

    offered = {"fastpop.encoders": [Point()]}
    monkeypatch.setattr("importlib.metadata.entry_points", lambda group: offered.get(group, []))
    monkeypatch.setattr(registry, "_loaded", set())
    assert TrainConfig.from_dict(kept).encoder == Bert(width=3)


def a_class(base, name="out-x", **members):
    """A part of one kind, as somebody might write it; fields as field_... = default."""
    return dataclass(frozen=True)(type("X", (base,), {"name": name, **members}))


def with_option(hint, default):
    return a_class(
        EncoderOptions, width=default, build=lambda self, sizes: None, __annotations__={"width": hint}
    )


class Undecorated(EncoderOptions):
    name = "out-undecorated"
    width: int = 3

    def build(self, sizes):
        return None


@pytest.mark.parametrize(
    ("kind", "part", "error", "message"),
    [
        (
            "encoder",
            with_option(np.ndarray, None),
            TypeError,
            r"X\.width: expected an int, float, bool, str, "
            r"Literal, a part or a tuple of these; got <class 'numpy\.ndarray'>",
        ),
        (
            "encoder",
            with_option(list, field(default_factory=list)),
            TypeError,
            r"X\.width: .*; got <class 'list",
        ),
        ("encoder", with_option(tuple[np.ndarray, ...], ()), TypeError, r"X\.width: .*; got tuple\["),
        (
            "encoder",
            Undecorated,
            TypeError,
            "part: expected a frozen dataclass; got Undecorated, whose width is "
            r"no field: put @dataclass\(frozen=True\) above it",
        ),
        ("encoder", a_class(EncoderOptions), TypeError, r"X\.build: expected a method of its own; got none"),
        ("split", a_class(SplitRule), TypeError, r"X\.part or cut: expected a method of its own; got none"),
        (
            "encoder",
            a_class(EncoderOptions, reads="both", build=None),
            ValueError,
            r"X\.reads: expected one of 'events', 'sequences'; got 'both'",
        ),
        ("loss", a_class(Objective, needs="negs", build=None), ValueError, r"X\.needs: expected one of 'cat"),
        (
            "metric",
            a_class(Metric, needs="counts", value=None),
            TypeError,
            r"X\.needs: expected a tuple; got s",
        ),
        (
            "encoder",
            a_class(EncoderOptions, version="2", build=None),
            TypeError,
            r"X\.version: expected an int",
        ),
    ],
)
def test_a_class_that_cannot_be_a_part_is_refused(kind, part, error, message):
    with pytest.raises(error, match=f"^{message}"):
        fastpop.register(kind, part)
    if part is not Undecorated:
        with pytest.raises(error, match=f"^{message}"):
            registry.made(kind, part())
    assert "out-x" not in fastpop.available(registry.KINDS[kind].plural)


def test_a_class_has_one_name():
    with pytest.raises(ValueError, match=r"^name: expected 'sasrec', as this encoder is registered "):
        fastpop.register("encoder", SASRec, name="m")
    assert SASRec.name == "sasrec"


def test_a_part_without_a_default_says_what_it_needs():
    assert TrainConfig.from_dict(TrainConfig(encoder=Must(3)).to_dict()).encoder == Must(3)
    with pytest.raises(TypeError, match=r"^encoder\.width: expected a value, since 'out-must' has no"):
        TrainConfig(encoder="out-must")


@dataclass(frozen=True)
class Shaped(EncoderOptions):
    name: ClassVar[str] = "out-shaped"
    sizes: tuple[int, ...] = (4, 4)
    pair: tuple[str, float] = ("a", 1.0)
    most: int | None = None
    rate: Literal["auto"] | float = "auto"

    def build(self, sizes):
        return None


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"sizes": "abc"}, TypeError, r"encoder\.sizes: expected a tuple; got str"),
        ({"sizes": (1, "a")}, TypeError, r"encoder\.sizes\[1\]: expected an integer; got str"),
        ({"sizes": np.zeros(2)}, TypeError, r"encoder\.sizes: expected a tuple; got float64 \[2\]"),
        ({"pair": ("a",)}, ValueError, r"encoder\.pair: expected 2 values; got \('a',\)"),
        ({"pair": ("a", float("nan"))}, ValueError, r"encoder\.pair\[1\]: expected a finite number; got nan"),
        ({"most": "x"}, TypeError, r"encoder\.most: expected an integer or None; got str"),
        ({"rate": "often"}, ValueError, r"encoder\.rate: expected one of 'auto'; got 'often'"),
        ({"rate": float("inf")}, ValueError, r"encoder\.rate: expected a finite number; got inf"),
        ({"most": True}, TypeError, r"encoder\.most: expected an integer or None; got bool"),
    ],
)
def test_options_have_the_types_that_they_are_declared_with(options, error, message):
    with pytest.raises(error, match=f"^{message}$"):
        Shaped(**options)


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["--encoder.sizes", "3", "5", "7", "--encoder.most", "4"], Shaped(sizes=(3, 5, 7), most=4)),
        (["--encoder.pair", "b", "0.5", "--encoder.sizes"], Shaped(pair=("b", 0.5), sizes=())),
        (["--encoder.most=none"], Shaped(most=None)),
        (["--encoder.most=-1"], Shaped(most=-1)),
        (["--encoder.rate", "auto"], Shaped()),
        (["--encoder.rate", "0.5"], Shaped(rate=0.5)),
        (["--encoder.most", "x"], "encoder.most: expected an integer; got 'x'"),
        (["--encoder.pair", "b"], "encoder.pair: expected 2 values; got b"),
    ],
)
def test_words_become_what_the_option_is_declared_as(words, part):
    from fastpop.cli.parse import parse

    with registry.registered("encoder", Shaped):
        asked = ["train", "bundled", "--out", "x", "--encoder", "out-shaped", *words]
        if isinstance(part, str):
            with pytest.raises(ValueError) as told:
                parse(asked)
            assert str(told.value) == part
        else:
            assert parse(asked).training.checked().encoder_part == part


def test_options_are_kept_as_a_file_holds_them():
    part = Shaped(sizes=[np.int64(3), 5], pair=("b", np.float32(0.25)), most=np.int32(7))
    assert repr(part) == "Shaped(sizes=(3, 5), pair=('b', 0.25), most=7)"
    with registry.registered("encoder", Shaped):
        config = TrainConfig(encoder=part, epochs=np.int64(3), learning_rate=np.float32(0.5))
        assert TrainConfig.from_dict(json.loads(config.to_json())) == config
    assert type(config.epochs) is int
    assert type(config.learning_rate) is float


def test_the_suite_of_rows_sees_ids_that_wrap_in_their_own_type():
    @dataclass(frozen=True)
    class Wrapping(Masked):
        def contexts(self, log, *, max_length, chunk):
            for batch in super().contexts(log, max_length=max_length, chunk=chunk):
                yield replace(batch, target=batch.target.astype(log.item.dtype).astype(np.int64))

    with pytest.raises(AssertionError, match="targets of a log opened from a folder, whose ids are narrower"):
        testing.check_rows(Wrapping())
