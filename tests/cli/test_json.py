"""What a program reads of a command: one document on standard output, one object a line on standard error."""

import json
import logging
import re
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest

import fastpop
from fastpop import bars, cli
from fastpop.cli import messages
from fastpop.cli.parse import VERBS

QUICK = ["--epochs", "2", "--dim", "8", "--num-negatives", "16", "--batch-size", "64", "--permutations", "20"]
PAGE = Path(__file__).resolve().parents[2] / "docs" / "command_line.md"


def documented():
    """Verb → the keys that the page gives it."""
    found = {}
    for verbs, keys in re.findall(r"^\| (`[a-z-]+`.*?) \| (.*) \|$", PAGE.read_text(), re.MULTILINE):
        names = re.findall(r"`([a-z_]+)`", re.sub(r": `[^;]*?(?=, `out`|, `part|$)", "", keys))
        for verb in re.findall(r"`([a-z-]+)`", verbs):
            found[verb] = (names, keys)
    return found


def lines(text):
    return [json.loads(line) for line in text.splitlines()]


@pytest.fixture(scope="module")
def run(commands, clicks, tmp_path_factory):
    out = tmp_path_factory.mktemp("run") / "run"
    return out, commands.run("train", *clicks, *QUICK, "--out", out, "--json")


def the_document(done, verb):
    """The only thing on standard output, with the keys that the page names."""
    assert done.stdout.count("\n") == 1
    found = json.loads(done.stdout)
    assert found["fastpop"] == fastpop.__version__
    assert found["verb"] == verb
    text = documented()[verb][1]
    for key in found.keys() - {"fastpop", "verb"}:
        assert f"`{key}`" in text or "..." in text, key
    return found


def test_every_verb_is_on_the_page():
    assert documented().keys() >= {*VERBS, "version"}


def test_train(run):
    out, done = run
    found = the_document(done, "train")
    assert done.stderr == ""
    assert found["out"] == str(out)
    assert [row["epoch"] for row in found["history"]] == [1, 2]
    assert found["metrics"] == json.loads((out / "metrics.json").read_text())
    audit = json.loads((out / "audit.json").read_text())
    assert found["audit"]["energy_total"] == audit["energy_total"]
    assert found["config"]["dim"] == 8
    assert found["log"]["num_events"] == 1500
    assert found["no_audit"] is None


def test_verbs_that_read_a_run(commands, run, tmp_path):
    out = run[0]
    found = the_document(commands.run("evaluate", out, "--against", out, "--json"), "evaluate")
    assert found["evaluations"][0]["popularity_weight"] == 1.0
    assert found["paired"][0]["metrics"][0]["difference"] == 0.0
    found = the_document(
        commands.run("--json", "recommend", out, "--users", "u1", "u2", "--k", "3"), "recommend"
    )
    assert [one["user"] for one in found["users"]] == ["u1", "u2"]
    scores = [item["score"] for item in found["users"][0]["items"]]
    assert len(scores) == 3
    assert scores == sorted(scores, reverse=True)
    found = the_document(commands.run("audit", out, "--permutations", "20", "--json"), "audit")
    assert found["audit"]["energy_total"] > 0


def test_verbs_that_need_no_run(commands, clicks, tmp_path):
    prepared = the_document(commands.run("prepare", *clicks, "--out", tmp_path / "log", "--json"), "prepare")
    assert prepared["bytes"] == sum(path.stat().st_size for path in (tmp_path / "log").iterdir())
    assert prepared["log"]["num_users"] == 40
    assert "sasrec" in the_document(commands.run("recipe", "--json"), "recipe")["recipes"]
    assert "toml" in the_document(commands.run("recipe", "bpr", "--json"), "recipe")
    assert isinstance(the_document(commands.run("doctor", "--json"), "doctor")["problems"], list)
    assert the_document(commands.run("--version", "--json"), "version")["version"] == fastpop.__version__
    rows = the_document(
        commands.run("bench", "step", "--items", "1000", "--rounds", "1", "--batch", "64", "--json"), "bench"
    )["rows"]
    assert rows[0]["items"] == 1000


def test_an_experiment(commands, clicks, tmp_path):
    words = ["experiment", "decomposition", *clicks, "--quick", "--out", tmp_path, "--json"]
    found = the_document(commands.run(*words), "experiment")
    assert found["answers"]["decomposition"]["values"]
    assert found["left_out"] == {}


def test_a_comparison(commands, clicks, tmp_path):
    words = [
        "compare",
        *clicks,
        *QUICK,
        "--epochs",
        "1",
        "--max-epochs",
        "1",
        "--seeds",
        "1",
        "--arms",
        "frozen",
    ]
    done = commands.run(*words, "--out", tmp_path / "c", "--json")
    found = the_document(done, "compare")["comparison"]
    kept = json.loads((tmp_path / "c" / "comparison.json").read_text())
    assert found["rows"] == kept["rows"]
    assert not [line for line in lines(done.stderr) if line["level"] == "error"]


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["trainn", "x"], 2, r"^verb: expected one of .*did you mean train\?$"),
        (["train", "no-such.csv", "--out", "OUT", "--user", "u", "--item", "i"], 2, "no-such.csv"),
        (["train", "x", "--out", "OUT", "--no-such", "3"], 2, "^Unrecognized options.*--no-such"),
        (["evaluate", "OUT"], 2, r"^folder: expected the out= folder of fastpop\.train; got"),
        (["train", "x", "--out", "OUT", "--epochs", "many"], 2, "expected an integer; got 'many'"),
        (["doctor", "--log-level", "loud"], 2, r"^log_level: expected one of debug, info, .*; got 'loud'$"),
        (["doctor", "--log-format=xml"], 2, r"^log_format: expected one of text, json; got 'xml'$"),
        (["doctor", "--log-format"], 2, r"^log_format: expected one of text, json; got '--json'$"),
    ],
)
def test_an_error_is_one_object_with_its_exit_code(commands, tmp_path, words, code, message):
    words = [str(tmp_path / "out") if word == "OUT" else word for word in words]
    done = commands.run(*words, "--json", code=code)
    assert done.stdout == ""
    (error,) = lines(done.stderr)
    assert error.keys() == {"time", "level", "logger", "message", "exit_code"}
    assert (error["level"], error["exit_code"]) == ("error", code)
    assert re.search(message, error["message"])
    assert not re.search(r"[\u2500-\u257f\x1b\n]", error["message"])
    assert datetime.fromisoformat(error["time"]).utcoffset().total_seconds() == 0


def test_a_stop_is_an_object_too(commands, clicks, tmp_path):
    words = ["train", *clicks, *QUICK, "--epochs", "100000", "--out", tmp_path / "run", "--json"]
    done = commands.start(*words, "--deadline", "3s").wait()
    assert (done.returncode, done.stdout) == (75, "")
    assert lines(done.stderr)[-1]["exit_code"] == 75
    assert lines(done.stderr)[-1]["message"].startswith("stopped at --deadline; ")


def test_warnings_are_objects_of_their_level(commands, clicks, tmp_path):
    words = ["train", *clicks, *QUICK, "--out", tmp_path / "run"]
    commands.run(*words)
    path = tmp_path / "run" / "train.csv"
    path.write_bytes(path.read_bytes()[:-2])
    done = commands.run("evaluate", tmp_path / "run", "--json")
    (warning,) = lines(done.stderr)
    assert warning["level"] == "warning"
    assert "train.csv: expected what model/state.json says" in warning["message"]


def test_a_log_in_lines(commands, clicks, tmp_path):
    words = ["train", *clicks, *QUICK, "--out", tmp_path / "run"]
    done = commands.run(*words, "--log-format", "json")
    assert "Interactions" in done.stdout  # for people, as ever
    found = lines(done.stderr)
    epochs = [line for line in found if line["logger"] == "fastpop.training.loop"]
    assert [(line["level"], line["epoch"]) for line in epochs] == [("info", 1), ("info", 2)]
    kept = (tmp_path / "run" / "train.csv").read_text().splitlines()
    assert [line["loss"] for line in epochs] == [float(line.split(",")[2]) for line in kept[1:]]
    saved = [line["step"] for line in found if line["logger"] == "fastpop.training.checkpoint"]
    assert saved == [line["step"] for line in epochs]


def test_a_log_in_text_and_none_unless_asked_for(commands, clicks, tmp_path):
    words = ["train", *clicks, *QUICK, "--out"]
    assert commands.run(*words, tmp_path / "a").stderr == ""
    said = commands.run(*words, tmp_path / "b", "--log-level", "info").stderr.splitlines()
    assert all(line.startswith("fastpop: ") for line in said)
    assert [line for line in said if re.match(r"fastpop: epoch [12]: loss \d", line)].__len__() == 2
    assert commands.run(*words, tmp_path / "c", "--log-format", "json", "--log-level", "error").stderr == ""


def test_a_caller_s_logging_and_bars_are_put_back(capsys, tmp_path):
    log = logging.getLogger("fastpop")
    before = (log.level, list(log.handlers), bars.quiet)
    cli.main(["recipe", "--json"])
    assert (log.level, list(log.handlers), bars.quiet) == before
    with pytest.raises(SystemExit):
        cli.main(["evaluate", str(tmp_path), "--json"])
    assert (log.level, list(log.handlers), bars.quiet) == before
    said = capsys.readouterr()
    assert json.loads(said.out)["recipes"]
    assert json.loads(said.err)["exit_code"] == 2
    with pytest.raises(SystemExit):
        cli.main(["evaluate", str(tmp_path)])
    assert capsys.readouterr().err.startswith("fastpop: ")  # and the form of messages


@pytest.mark.parametrize(
    ("words", "left", "asked"),
    [
        (["train", "--json", "x"], ["train", "x"], messages.Asked(True, "json", "warning")),
        (["--log-format=json", "train"], ["train"], messages.Asked(False, "json", "info")),
        (["train", "--log-level", "debug"], ["train"], messages.Asked(False, "text", "debug")),
        (["train", "--json", "--log-format", "text"], ["train"], messages.Asked(True, "text", "warning")),
        (["train"], ["train"], messages.Asked()),
    ],
)
def test_words_for_programs_stand_anywhere(words, left, asked):
    try:
        assert messages.taken(words) == (left, asked)
    finally:
        messages.terminal.set_format("text")


def test_numbers_that_nobody_knows_are_null(capsys):
    messages.write("x", {"a": float("nan"), "b": np.float32(1.5), "c": Path("d"), "e": np.arange(2)})
    assert json.loads(capsys.readouterr().out) == {
        "fastpop": fastpop.__version__,
        "verb": "x",
        "a": None,
        "b": 1.5,
        "c": "d",
        "e": [0, 1],
    }


def test_help_says_that_there_is_json(commands):
    for words in (["--help"], ["prepare", "--help"], ["train", "--help"]):
        assert "--json" in commands.run(*words).stdout
