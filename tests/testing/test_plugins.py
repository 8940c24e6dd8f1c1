"""Every plug point of training: a toy from outside goes all the way, and ours keep the same contracts."""

import contextlib
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pytest
import toy_parts

import fastpop
from fastpop import doctor, registry, testing
from fastpop.cli import main
from fastpop.encoders import EncoderOptions, Factor, SASRec
from fastpop.popularity import LogUniformProposal, MixtureProposal, PopularityProposal, UniformProposal

CHECKS = {
    "encoder": testing.check_encoder,
    "item_tower": testing.check_item_tower,
    "loss": testing.check_loss,
    "regularizer": testing.check_regularizer,
    "proposal": testing.check_proposal,
    "prior": testing.check_prior,
    "rows": testing.check_rows,
    "table_optimizer": testing.check_table_optimizer,
    "split": testing.check_split,
    "logger": testing.check_logger,
}
EVERY = [
    (kind, name)
    for kind in CHECKS
    for name in (*registry.all_of(kind), *(part.name for part in toy_parts.PARTS[kind]))
]
THREE = MixtureProposal(
    parts=(UniformProposal(), PopularityProposal(power=0.5), LogUniformProposal()), weights=(1, 2, 1.5)
)


@pytest.fixture(autouse=True)
def toys():
    """Known while a test of this file runs, and to no other."""
    with contextlib.ExitStack() as known:
        for kind, parts in toy_parts.PARTS.items():
            for part in parts:
                known.enter_context(registry.registered(kind, part))
        yield


@pytest.mark.parametrize(("kind", "name"), EVERY, ids=lambda value: value)
def test_parts_keep_their_contracts(kind, name):
    if name in ("wandb", "mlflow"):
        pytest.importorskip(name)  # tests/others has them, and test_loggers.py their interfaces
    options = {"reads": "events"} if name == "events" else {}
    if kind not in ("rows", "logger"):  # runs with ours are what the other tests are of
        options["in_a_run"] = name.startswith("toy")
    CHECKS[kind](name, **options)
    testing.check_options(registry.made(kind, name))


@pytest.mark.parametrize(
    "part",
    [
        SASRec(num_layers=1, hidden=12),
        Factor(base=False),
        THREE,
        toy_parts.Recurrent(width=4),
        toy_parts.BPR(margin=0.5),
        toy_parts.EveryTenth(every=7),
    ],
    ids=repr,
)
def test_parts_with_options_go_all_the_way(part):
    testing.check_options(part)
    testing.check_run(**{part.kind: part})


def test_a_name_and_an_object_are_one_choice():
    given = fastpop.TrainConfig(encoder=SASRec(num_layers=3), proposal=PopularityProposal(power=0.5))
    assert given == fastpop.TrainConfig(
        encoder="sasrec", num_layers=3, proposal="popularity", proposal_power=0.5
    )
    assert (given.encoder, given.num_layers) == ("sasrec", 3)
    wide = fastpop.TrainConfig(encoder=SASRec(hidden=12))
    assert (repr(wide.encoder), str(wide.encoder)) == ("SASRec(hidden=12)", "sasrec")
    assert wide.replace(num_layers=5).encoder == SASRec(num_layers=5, hidden=12)
    mine = fastpop.TrainConfig(encoder="toy-gru")
    assert mine.encoder_part == toy_parts.Recurrent()
    with pytest.raises(ValueError, match=r"num_layers: expected nothing beside encoder=SASRec\(num_layers"):
        fastpop.TrainConfig().replace(encoder=SASRec(num_layers=3), num_layers=2)
    with pytest.raises(TypeError, match=r"encoder: expected a name or a EncoderOptions; got the class SAS"):
        fastpop.TrainConfig(encoder=SASRec)
    with pytest.raises(TypeError, match=r"encoder: expected a name or a EncoderOptions; got LogUniform"):
        fastpop.TrainConfig(encoder=LogUniformProposal())
    with pytest.raises(ValueError, match=r"encoder\.num_layers: expected an integer >= 1 <= 128; got 0"):
        SASRec(num_layers=0)


def test_doctor_lists_every_name_of_every_kind():
    told = " ".join(doctor.report().split())
    for kind, about in registry.KINDS.items():
        assert f"{about.plural}: {', '.join(registry.all_of(kind))}" in told


def test_register_takes_parts_of_its_kind_under_free_names():
    for kind, parts in toy_parts.PARTS.items():
        for part in parts:
            assert fastpop.register(kind, part) is part  # again, as a module that is loaded anew does
            assert part.name in fastpop.available(registry.KINDS[kind].plural)
    with pytest.raises(
        ValueError,
        match=r"name: expected one that no other encoder has; got 'sasrec', which "
        r"is fastpop\.encoders\.sasrec\.SASRec",
    ):
        fastpop.register("encoder", toy_parts.Recurrent, name="sasrec")
    with pytest.raises(
        TypeError,
        match=r"part: expected a fastpop\.objectives\.Objective, its class or an "
        r"object; got Recurrent",
    ):
        fastpop.register("loss", toy_parts.Recurrent)
    with pytest.raises(ValueError, match=r"name: expected letters, digits, - and _, a letter first"):
        fastpop.register("encoder", toy_parts.Recurrent, name="a b")
    with pytest.raises(ValueError, match="kind: expected one of 'rows'"):
        fastpop.register("colour", toy_parts.Recurrent)


def test_a_run_folder_imports_nothing_and_says_what_is_missing(tmp_path):
    @dataclass(frozen=True)
    class Passing(toy_parts.Recurrent):
        name: ClassVar[str] = "toy-passing"

    fastpop.register("encoder", Passing)
    fastpop.train(
        testing.small_log(), encoder=Passing(width=3), out=tmp_path / "run", **testing.training.QUICK
    )
    found = fastpop.load(tmp_path / "run")
    assert found.config.encoder == Passing(width=3)
    Passing.version = 2
    with pytest.raises(registry.Missing, match=r"expected version 1 of 'toy-passing'.*; got 2"):
        fastpop.load(tmp_path / "run")
    del registry._parts["encoder"]["toy-passing"]
    with pytest.raises(
        ValueError,
        match=r"encoder: expected 'toy-passing' to be registered, as where this "
        r"was made; got none: first import what registers it .*Passing",
    ):
        fastpop.load(tmp_path / "run")


def fastpop_command(*words, **env):
    done = subprocess.run(
        [Path(sys.executable).parent / "fastpop", *map(str, words)],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])} | env,
    )
    return done.returncode, done.stdout, done.stderr


def test_the_command_line_reaches_parts_from_outside(tmp_path):
    log = tmp_path / "log.csv"
    small = testing.small_log()
    log.write_text(
        "user,item,time\n" + "".join(f"{u},{i},{t}\n" for u, i, t in zip(small.user, small.item, small.time))
    )
    read = [log, "--user", "user", "--item", "item", "--time", "time"]
    quick = ["--dim", 8, "--batch-size", 64, "--num-negatives", 8, "--permutations", 10]
    out = tmp_path / "run"
    code, _, said = fastpop_command(
        "--plugin",
        "toy_plugin",
        "train",
        *read,
        "--out",
        out,
        "--encoder",
        "toy-gru",
        "--encoder.width",
        4,
        "--loss",
        "toy-bpr",
        "--loss.margin=0.5",
        "--epochs",
        1,
        "--proposal",
        "mixture",
        "--proposal.parts",
        "uniform",
        "log_uniform",
        "--proposal.weights",
        1,
        3,
        "--regularizers",
        "l2",
        "toy-mean",
        "--regularizers.toy-mean.weight",
        0.01,
        *quick,
    )
    assert code == 0, said
    kept = json.loads((out / "config.json").read_text())
    assert kept["encoder"]["options"]["width"] == 4
    assert kept["loss"]["options"] == {"margin": 0.5}
    assert [part["name"] for part in kept["proposal"]["options"]["parts"]] == ["uniform", "log_uniform"]
    assert [part["options"]["weight"] for part in kept["regularizers"]] == [1e-4, 0.01]
    code, _, said = fastpop_command("evaluate", out)
    assert code == 2
    assert "encoder: expected 'toy-gru' to be registered" in said
    assert "first import what registers it (--plugin MODULE); its class was toy_parts.Recurrent" in said
    code, shown, said = fastpop_command("evaluate", out, "--plugin", "toy_plugin")
    assert code == 0, said
    assert "ndcg" in shown
    config = tmp_path / "run.toml"
    config.write_text(
        '[train]\nencoder = {name = "toy-gru", width = 4}\nepochs = 1\n'
        '[split]\nname = "toy-tenth"\nevery = 8\n'
        '[[regularizers]]\nname = "toy-mean"\nweight = 0.5\n'
    )
    code, shown, said = fastpop_command(
        "compare",
        "--plugin",
        "toy_plugin",
        *read,
        "--config",
        config,
        "--out",
        tmp_path / "compared",
        "--arms",
        "frozen",
        "--references",
        "popularity",
        "toy-longest",
        "--seeds",
        1,
        *quick,
    )
    assert code == 0, said
    assert "toy-longest" in shown
    made_by = json.loads((tmp_path / "compared" / "comparison.json").read_text())["made_by"]["config"]
    assert made_by["encoder"]["options"]["width"] == 4
    assert made_by["split"]["options"] == {"every": 8}
    assert made_by["regularizers"][0]["options"] == {"weight": 0.5}
    assert fastpop.TrainConfig.from_toml(config).encoder == toy_parts.Recurrent(width=4)
    assert fastpop.TrainConfig.from_toml(config).split == toy_parts.EveryTenth(every=8)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["--plugin", "no_such_module", "train"],
            "plugin: expected a module that can be imported; got 'no_such_module': ModuleNotFoundError",
        ),
        (
            ["train", "bundled", "--out", "x", "--encoder.num-layers", "3"],
            "encoder.num_layers: expected an option of 'factor' (dropout, base); got an unknown one",
        ),
        (
            ["train", "bundled", "--out", "x", "--encoder", "sasrec", "--encoder.hidden", "wide"],
            "encoder.hidden: expected an integer; got 'wide'",
        ),
        (
            ["train", "bundled", "--out", "x", "--encoder", "factr"],
            "encoder: expected one of ENCODERS (did you mean 'factor'?); got 'factr'",
        ),
        (
            ["train", "bundled", "--out", "x", "--regularizers.l2.weight", "1"],
            "regularizers.l2: expected one of those asked for, or its place from 1 (none); got 'l2'",
        ),
        (
            ["train", "bundled", "--out", "x", "--regularizers.weight", "1"],
            "--regularizers.weight: expected --regularizers.NAME.OPTION or --regularizers.PLACE.OPTION; got "
            "'--regularizers.weight'",
        ),
        (
            ["train", "bundled", "--out", "x", "--regularizers", "l2", "--regularizers.2.weight", "1"],
            "regularizers.2: expected one of those asked for, or its place from 1 (l2); got '2'",
        ),
        (
            ["train", "bundled", "--out", "x", "--encoder", "bert4rec", "--encoder.share", "1.5"],
            "encoder.share: expected a finite number > 0 <= 1; got 1.5",
        ),
        (
            ["train", "bundled", "--out", "x", "--encoder", "bert4rec", "--encoder.last", "1.5"],
            "encoder.last: expected a finite number >= 0 <= 1; got 1.5",
        ),
        (
            ["train", "bundled", "--out", "x", "--table-optimizer.lr", "1"],
            "table_optimizer: expected a name beside its options; got 'auto'",
        ),
    ],
)
def test_bad_words_about_parts_get_one_clear_error(words, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as end:
        main(words)
    assert end.value.code == 2
    said = capsys.readouterr().err
    names = ", ".join(map(repr, fastpop.available("encoders")))  # and those that tests before this registered
    assert said.startswith(f"fastpop: {message.replace('ENCODERS', names)}")
    assert len(said.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_two_regularizers_of_one_name_have_options_by_their_places(tmp_path):
    from fastpop.cli.parse import parse

    path = tmp_path / "run.toml"
    path.write_text(
        '[[regularizers]]\nname = "uniformity"\nof = "queries"\n[[regularizers]]\nname = "l2"\n'
        '[[regularizers]]\nname = "uniformity"\nof = "items"\nweight = 0.5\n'
    )
    Uniformity = fastpop.regularizers.Uniformity
    want = (Uniformity(of="queries"), fastpop.regularizers.L2(), Uniformity(of="items", weight=0.5))
    words = ["train", "bundled", "--out", "x"]
    three = ["--regularizers", "uniformity", "l2", "uniformity"]
    given = ["--regularizers.1.of", "queries", "--regularizers.3.of", "items", "--regularizers.3.weight=0.5"]
    assert parse([*words, *three, *given]).training.checked().regularizers == want
    assert parse([*words, "--config", str(path)]).training.checked().regularizers == want
    assert fastpop.TrainConfig.from_toml(path).regularizers == want


@pytest.mark.parametrize(
    ("words", "option", "value"),
    [
        (["--encoder", "sasrec", "--encoder.hidden", "12", "bundled"], "hidden", 12),
        (["--encoder.base", "bundled"], "base", True),
        (["--encoder.base", "no", "bundled"], "base", False),
        (["--encoder.base=no", "bundled"], "base", False),
    ],
)
def test_an_option_of_one_value_leaves_the_log_alone(words, option, value):
    from fastpop.cli.parse import parse

    parsed = parse(["train", "--out", "x", *words])
    assert parsed.reading.log == "bundled"
    assert parsed.training.checked().encoder_part.options()[option] == value


def test_help_names_parts_and_their_options():
    code, shown, _ = fastpop_command("train", "--encoder", "sasrec", "--help")
    assert code == 0
    assert "--encoder: factor, bag, sasrec, " in shown
    assert "--encoder.hidden  (default: 0)" in shown
    assert max(map(len, shown.splitlines())) <= 80


def test_an_options_base_has_no_name_of_its_own():
    assert EncoderOptions().name == ""
