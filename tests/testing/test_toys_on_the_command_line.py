"""Every kind of part from outside is reached by its name on the command line."""

import contextlib
import json

import pytest
import toy_judges
import toy_parts

from fastpop import cli, registry, testing

QUICK = ["--dim", "8", "--batch-size", "64", "--num-negatives", "8", "--epochs", "1"]
TOYS = toy_parts.PARTS | toy_judges.PARTS


@pytest.fixture(scope="module", autouse=True)
def toys():
    with contextlib.ExitStack() as known:
        known.enter_context(registry.registered("preset", toy_judges.PIPES, name="toy-pipes"))
        for kind, parts in TOYS.items():
            for part in parts:
                known.enter_context(registry.registered(kind, part))
        yield


@pytest.fixture(scope="module")
def log(tmp_path_factory):
    path = tmp_path_factory.mktemp("toys") / "log.txt"
    events = testing.small_log()
    rows = (f"{u}|{i}|{t}\n" for u, i, t in zip(events.user, events.item, events.time))
    path.write_text("who|what|when\n" + "".join(rows))
    return path


def fastpop_command(capsys, *words):
    cli.main([str(word) for word in words])
    return capsys.readouterr().out


def test_there_is_a_toy_of_every_kind():
    assert {*TOYS, "preset"} == set(registry.KINDS)


def test_parts_that_train(log, tmp_path, capsys):
    run = tmp_path / "run"
    fastpop_command(
        capsys, "train", log, "--preset", "toy-pipes", "--out", run, *QUICK, "--permutations", 10,
        "--encoder", "toy-gru-backwards", "--encoder.width", 4, "--item-tower", "toy-gate",
        "--prior", "toy-half", "--proposal", "toy-root", "--proposal.added", 2.5, "--split", "toy-tenth",
        "--split.every", 8, "--table-optimizer", "toy-momentum", "--table-optimizer.momentum", 0.5,
        "--loss", "toy-bpr", "--loss.margin", 0.5, "--regularizers", "toy-mean", "--loggers", "toy-list",
        "--metric", "toy-within", "--evaluate-every", 1,
    )  # fmt: skip
    kept = json.loads((run / "config.json").read_text())
    assert kept["encoder"]["options"] == {"width": 4, "dropout": 0.0}
    assert kept["item_tower"]["name"] == "toy-gate"
    assert kept["loss"]["options"] == {"margin": 0.5}
    assert kept["prior"]["name"] == "toy-half"
    assert kept["proposal"]["options"] == {"added": 2.5}
    assert kept["split"]["options"] == {"every": 8}
    assert kept["table_optimizer"]["options"] == {"momentum": 0.5}
    assert kept["loggers"][0]["name"] == "toy-list"
    assert toy_parts.Remember.told[-2]["valid_toy-within"] >= 0
    assert toy_parts.Remember.told[-1] == "closed"
    told = fastpop_command(
        capsys, "evaluate", run, "--metrics", "toy-within", "--against", run, "--out", tmp_path / "found.json"
    )
    assert "ndcg" in told
    [found] = json.loads((tmp_path / "found.json").read_text())
    within = f"{found['metrics']['toy-within']:.4f}"
    words = " ".join(told.split())
    assert f" toy-within {within} " in words
    assert f" toy-within {within} - {within} = +0.0000" in words
    told = fastpop_command(
        capsys, "audit", run, "--null", "toy-flipped", "--permutations", 10, "--diagnostics", "toy-spread"
    )
    assert "minus log p shuffled over items" in " ".join(told.split())
    assert "Toy spread" in told


def test_parts_that_compare(log, tmp_path, capsys):
    out = tmp_path / "compared"
    told = fastpop_command(
        capsys, "compare", log, "--preset", "toy-pipes", "--out", out, "--recipe", "toy-small", *QUICK[2:],
        "--arms", "toy-halved", "--references", "toy-longest", "--nulls", "toy-flipped", "--permutations", 10,
        "--seeds", 1, "--encoder", "toy-gru-backwards", "--item-tower", "toy-gate", "--proposal", "toy-root",
        "--table-optimizer", "toy-momentum", "--regularizers", "toy-mean", "--split", "toy-tenth",
        "--metrics", "toy-within", "--diagnostics", "toy-spread",
    )  # fmt: skip
    assert "Within two: Share of cases" in " ".join(told.split())
    assert "Toy spread: Standard deviation" in " ".join(told.split())
    assert "toy-halved" in told
    assert "toy-longest" in told
    assert "own, toy-flipped" in " ".join(told.split())
    kept = json.loads((out / "comparison.json").read_text())
    config = kept["made_by"]["config"]
    assert [one["name"] for one in kept["made_by"]["asked"]["metrics"]] == ["toy-within"]
    assert all("toy-spread" in row["values"] for row in kept["rows"] if row["popularity_weight"] is None)
    assert config["dim"] == 8
    assert config["item_tower"]["name"] == "toy-gate"


def test_names_for_questions_and_options(log, tmp_path, capsys):
    told = fastpop_command(capsys, "experiment", "toy-users", log, "--preset", "toy-pipes", "--out", tmp_path)
    assert f"{testing.training.USERS} users." in told
    assert "epochs = 1" in fastpop_command(capsys, "recipe", "toy-small")
    with pytest.raises(SystemExit):
        fastpop_command(capsys, "recipe", "toy-smal")
    assert "did you mean 'toy-small'?" in capsys.readouterr().err
