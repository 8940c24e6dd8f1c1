"""Odd and hostile uses of the command line: the right outcome of each, in one line where it is an error."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import fastpop
from fastpop.cli.options import LogOptions, TrainOptions
from fastpop.cli.train import Compare, Train

QUICK = ["--epochs", "1", "--dim", "8", "--num-negatives", "16", "--permutations", "20"]
FOLDER = "model, metrics.json, train.csv"


@pytest.fixture(scope="module")
def trained(commands, clicks, tmp_path_factory):
    out = tmp_path_factory.mktemp("edges") / "run"
    commands.run("train", *clicks, "--out", out, *QUICK)
    return out


def one_line(done):
    lines = done.stderr.splitlines()
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("fastpop: ")
    return lines[0]


# sizes and numbers


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["recommend", "{run}", "--users"], "users: expected at least one id, or --history"),
        (["recommend", "{run}", "--users", "u1", "--k", "9" * 20], "k: expected an integer >= 1 of 64 bits"),
        (["recommend", "{run}", "--users", "u1", "--k", "0"], "k: expected an integer >= 1"),
        (
            ["recommend", "{run}", "--users", "u1", "--popularity-weight", "1e39"],
            "popularity_weight: expected",
        ),
        (
            ["recommend", "{run}", "--users", "u1", "--popularity-weight", "nan"],
            "popularity_weight: expected",
        ),
        (["evaluate", "{run}", "--popularity-weight", "0", "-1e39"], "popularity_weight: expected"),
        (["evaluate", "{run}", "--k", "9" * 20], "k: expected an integer >= 1 of 64 bits"),
        (["audit", "{run}", "--popularity-weight", "inf"], "popularity_weight: expected"),
        (["audit", "{run}", "--permutations", "9" * 20], "permutations: expected an integer >= 0 of 64 bits"),
        (
            ["train", "{log}", "--out", "x", "--num-layers", "300"],
            "num_layers: expected an integer >= 1 <= 128",
        ),
        (["train", "{log}", "--out", "x", "--dim", "1000000000"], "dim: expected an integer >= 1 <= 16384"),
        (["train", "{log}", "--out", "x", "--num-negatives", "1000000000"], "num_negatives: expected"),
        (["train", "{log}", "--out", "x", "--prior-weight", "1e39"], "prior_weight: expected"),
        (["train", "{log}", "--out", "x", "--temperature", "1e-39"], "temperature: expected a number that"),
        (
            ["train", "{log}", "--out", "x", "--learning-rate", "1e39"],
            "learning_rate: expected a number that",
        ),
        (["train", "{log}", "--out", "x", "--epochs", "9" * 30], "epochs: expected an integer"),
        (["compare", "{log}", "--out", "x", "--seeds", "9" * 20], "seeds: expected an integer"),
        (["demo", "--seeds", "0"], "seeds: expected an integer >= 1; got 0"),
    ],
)
def test_numbers_out_of_bounds_are_refused_before_the_work(
    commands, clicks, trained, tmp_path, words, message
):
    given = []
    for word in words:
        given += clicks if word == "{log}" else [word.format(run=trained)]
    done = commands.run(*given, code=2, cwd=tmp_path)
    assert message in one_line(done)
    assert not list(tmp_path.iterdir())


def test_sizes_are_bounded_by_the_data(commands, clicks, trained, tmp_path):
    many = commands.run(
        "recommend", trained, "--users", "u1", "u2", "--k", "1000000000", "--out", tmp_path / "all.csv"
    ).stdout
    log = fastpop.Interactions.open(trained / "log")
    assert many.startswith(f"top {log.num_items} items")
    rows = (tmp_path / "all.csv").read_text().splitlines()[1:]
    assert len(rows) == sum(
        log.num_items - len(set(log.history(int(log.encode_users([user])[0])))) for user in ("u1", "u2")
    )
    commands.run("evaluate", trained, "--k", "1000000000")
    commands.run(
        "train",
        *clicks,
        "--out",
        tmp_path / "long",
        *QUICK,
        "--encoder",
        "sasrec",
        "--max-length",
        "1000000000",
        "--batch-size",
        "1000000000",
        "--accumulate",
        "1000000000",
    )
    longest = int(np.diff(log.offsets).max())
    found = fastpop.load(tmp_path / "long")
    assert found.config.max_length == 1_000_000_000
    assert found.model.max_length == found.model.encoder.position.shape[0] == longest


# words


def test_words_are_understood_or_answered(commands, tmp_path):
    assert one_line(commands.run("tain", code=2)).endswith("got 'tain'; did you mean train?")
    assert one_line(commands.run("Evalute", code=2)).endswith("did you mean evaluate?")
    assert "did you mean" not in commands.run("xyz", code=2).stderr
    missing = commands.run("train", code=2).stderr
    assert "LOG" in missing
    assert "--out PATH" in missing
    assert "reading" not in missing
    assert (
        "expected an integer; got 'x'"
        in commands.run("train", "log", "--out", "o", "--epochs", "x", code=2).stderr
    )
    assert (
        "expected an integer; got '1e3'"
        in commands.run("train", "log", "--out", "o", "--dim", "1e3", code=2).stderr
    )
    assert "recommend" in commands.run().stdout


@pytest.mark.parametrize(
    "verb", ["train", "compare", "audit", "recommend", "evaluate", "export", "demo", "bench"]
)
def test_help_is_for_people(commands, verb):
    text = commands.run(verb, "--help").stdout
    for parsers_word in ("STR", "INT", "FLOAT", "{None}", "(default: )", "None", "''", "tuple"):
        assert parsers_word not in text, parsers_word
    assert max(map(len, text.splitlines())) <= 80


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        (["--users", "-a0"], "-a0: "),
        (["--users", "-a0", "u1"], "-a0: "),
        (["--users=-a0"], "-a0: "),
        (["--users", "-5x"], "-5x: "),
        (["--users", "-"], "-: "),
    ],
)
def test_ids_that_look_like_options(commands, tmp_path_factory, words, shown):
    folder = tmp_path_factory.getbasetemp() / "dashes"
    if not folder.exists():
        folder.mkdir()
        rows = ["-who,what"]
        rows += [f"{('-a0', 'u1', '-5x', '-')[n % 4]},{n % 7}" for n in range(200)]
        (folder / "log.csv").write_text("\n".join(rows) + "\n")
        commands.run(
            "train",
            folder / "log.csv",
            "--user",
            "-who",
            "--item",
            "what",
            "--split",
            "none",
            "--out",
            folder / "run",
            *QUICK,
        )
    assert shown in commands.run("recommend", folder / "run", *words, "--include-seen").stdout


def test_ids_cannot_steer_the_terminal(commands, tmp_path):
    names = ["\x1b[2J", "two\nlines", "tab\t", "‮gnp.exe", "\x9b31m", "plain é"]
    rows = [{"user": f"u{n % 9}\x1b]0;x\x07", "item": names[n % 6]} for n in range(120)]
    log = fastpop.Interactions.from_arrays([r["user"] for r in rows], [r["item"] for r in rows])
    log.save(tmp_path / "log")
    commands.run("train", tmp_path / "log", "--split", "none", "--out", tmp_path / "run", *QUICK)
    done = commands.run("recommend", tmp_path / "run", "--users", "u1\x1b]0;x\x07", "--include-seen")
    assert "\\x1b[2J" in done.stdout
    assert "two\\nlines" in done.stdout
    assert "\\u202egnp.exe" in done.stdout
    assert "plain é" in done.stdout
    unknown = commands.run("recommend", tmp_path / "run", "--users", "\x1b[2Jno\nbody", code=2)
    missing = commands.run("audit", tmp_path / "\x1b[31mrun", code=2)
    for text in (done.stdout, unknown.stderr, missing.stderr):
        assert all(c.isprintable() or c == "\n" for c in text)
    assert len(unknown.stderr.splitlines()) == 1
    assert len(done.stdout.splitlines()) == 2


# a whole run in a file


def toml_of(options, path):
    lines = [f"{name} = {json.dumps(value)}" for name, value in options.items()]
    path.write_bytes("\n".join(lines).encode("utf-8-sig") + b"\n")


def test_a_toml_file_holds_a_whole_run_and_begins_with_a_mark(commands, clicks, tmp_path):
    whole = {
        "log": str(clicks[0]),
        "user": "who",
        "item": "what",
        "time": "when",
        "out": "~/run",
        "permutations": 20,
        "epochs": 1,
        "dim": 8,
        "num_negatives": 16,
        "min_user_events": 2,
        "seeds": 1,
        "arms": ["standard", "frozen"],
    }
    toml_of(whole, tmp_path / "run.toml")
    done = commands.run("train", "--config", tmp_path / "run.toml", HOME=str(tmp_path))
    assert "20 draws" in done.stdout
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert (config["epochs"], config["dim"]) == (1, 8)
    # One file serves both verbs, and the command line wins.
    commands.run("compare", "--config", tmp_path / "run.toml", "--out", tmp_path / "c", "--arms", "frozen")
    arms = json.loads((tmp_path / "c" / "comparison.json").read_text())["arms"]
    assert [arm["name"] for arm in arms] == [
        "standard",
        "frozen",
        "post-hoc",
        "post-hoc-fitted",
        "projected",
        "popularity",
        "recency",
        "recency-window",
        "markov",
    ]


def test_options_in_tables_and_columns_by_position(commands, tmp_path):
    (tmp_path / "log.csv").write_text("".join(f"u{n % 9},{n % 7}\n" for n in range(200)))
    (tmp_path / "c.toml").write_text(
        f'out = "{tmp_path}/run"\n[read]\nlog = "{tmp_path}/log.csv"\nuser = 0\nitem = 1\n'
        '[train]\nepochs = 1\ndim = 4\nsplit = "none"\nlearning_rate = 1\nsmoothing = 0.5\n'
    )
    commands.run("train", "--config", tmp_path / "c.toml", "--permutations", "0")
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert (config["learning_rate"], config["smoothing"]) == (1.0, 0.5)
    assert fastpop.TrainConfig.from_toml(tmp_path / "c.toml").dim == 4


def test_every_option_can_stand_in_a_file(tmp_path):
    import dataclasses

    import tyro

    from fastpop.cli import toml

    for kind in (Train, Compare):
        names = {}
        for cls in (kind, LogOptions, TrainOptions):
            for field in dataclasses.fields(cls):
                if field.name not in ("reading", "training", "config"):
                    default = field.default
                    missing = default is dataclasses.MISSING or default is None
                    names[field.name] = "x" if missing else default
        names |= {"out": "x", "min_rating": 1.5, "recipe": "factor"}
        toml_of(names, tmp_path / "all.toml")
        made, *_ = toml.defaults(kind, tmp_path / "all.toml", tyro.MISSING)
        assert made.reading == LogOptions(
            **{
                field.name: tuple(names[field.name])
                if isinstance(names[field.name], tuple)
                else names[field.name]
                for field in dataclasses.fields(LogOptions)
            }
        )
        assert made.out == Path("x")


def test_the_file_that_the_docs_show(tmp_path):
    import tyro

    from fastpop.cli import toml

    page = (Path(__file__).parents[2] / "docs" / "command_line.md").read_text()
    (tmp_path / "run.toml").write_text(page.split("```toml\n")[1].split("```")[0])
    made, *_ = toml.defaults(Train, tmp_path / "run.toml", tyro.MISSING)
    assert (made.reading.log, made.reading.time, made.training.encoder) == ("clicks.csv", "t", "sasrec")
    assert made.out == Path.home() / "runs" / "one"
    assert fastpop.TrainConfig.from_toml(tmp_path / "run.toml").epochs == 10


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "usr = 'who'",
            "usr: expected an option of `fastpop train`; got an unknown one; did you mean 'user'?",
        ),
        ("user = 3.5", "user: expected a string; got float"),
        ("epochs = 'many'", "epochs: expected an integer; got str"),
        ("mask_seen = 1", "mask_seen: expected true or false; got int"),
        ("epochs = true", "epochs: expected an integer; got bool"),
        ("epochs = ", "expected a TOML file"),
        ("[read]\nuser = 'a'\n[train]\nuser = 'b'", "user: expected an option once; got 'a' and 'b'"),
        ("min-rating = 1\n[read]\nmin_rating = 2", "min_rating: expected an option once; got 1 and 2"),
    ],
)
def test_bad_lines_of_a_file_are_named(commands, tmp_path, text, message):
    (tmp_path / "c.toml").write_text(text + "\n")
    done = commands.run("train", "--config", tmp_path / "c.toml", "--out", tmp_path / "x", code=2)
    assert message in one_line(done)
    assert str(tmp_path / "c.toml") in done.stderr


def test_a_folder_of_something_else_is_no_log(commands, tmp_path):
    for verb, out in (("train", "x"), ("prepare", "y"), ("compare", "z")):
        done = commands.run(verb, tmp_path, "--out", tmp_path / out, code=2)
        assert one_line(done) == (
            f"fastpop: log: expected a file, a quoted glob, or a folder that `fastpop "
            f"prepare` wrote; got {tmp_path}, a folder of something else"
        )


# runs that succeed say what is left out


def table_of(path, users, items):
    rows = ["u,i,t"]
    rows += [f"{u},{i},{1_500_000_000 + u * items + i}" for u in range(users) for i in range(items)]
    path.write_text("\n".join(rows) + "\n")
    return [path, "--user", "u", "--item", "i", "--time", "t"]


def test_equal_counts_train_and_say_why_there_is_no_audit(commands, tmp_path):
    same = table_of(tmp_path / "same.csv", 60, 6)
    text = commands.run("train", *same, "--split", "none", "--out", tmp_path / "a", *QUICK).stdout
    assert "no metrics: split 'none' keeps no test part" in text
    assert "no audit: all items have as good as equally many training events" in text
    assert text.endswith(f"{FOLDER.rpartition(', ')[0]} and train.csv are in {tmp_path / 'a'}\n")
    assert not (tmp_path / "a" / "audit.json").exists()
    commands.run("train", *same, "--out", tmp_path / "b", *QUICK)
    two = table_of(tmp_path / "two.csv", 60, 2)
    text = commands.run("train", *two, "--out", tmp_path / "c", *QUICK).stdout
    assert "no audit: an audit needs at least 4 items; the log has 2" in text
    singles = table_of(tmp_path / "singles.csv", 60, 1)
    singles[0].write_text("u,i,t\n" + "".join(f"u{n},{n % 7},1500000000\n" for n in range(60)))
    text = commands.run("train", *singles, "--out", tmp_path / "d", *QUICK).stdout
    assert "no metrics: the split 'leave-last-out' leaves no test case in this log" in text
    done = commands.run(
        "compare",
        *same,
        "--split",
        "none",
        "--out",
        tmp_path / "e",
        *QUICK,
        "--seeds",
        "1",
        "--arms",
        "standard",
    )
    assert "fastpop: CAUTION: log p has no direction here: its alpha ran to the largest" in done.stderr


# places


def test_home_is_expanded_before_the_work(commands, clicks, trained, tmp_path):
    commands.run("train", *clicks, "--out", "~/runs/one", *QUICK, HOME=str(tmp_path), cwd=tmp_path)
    assert (tmp_path / "runs" / "one" / "model").is_dir()
    assert not (tmp_path / "~").exists()
    done = commands.run(
        "recommend", "~/runs/one", "--users", "u1", "--out", "~/top.csv", HOME=str(tmp_path), cwd=tmp_path
    )
    assert "written to" in done.stdout
    assert (tmp_path / "top.csv").exists()
    np.save(tmp_path / "counts.npy", np.arange(1.0, fastpop.Interactions.open(trained / "log").num_items + 1))
    commands.run("recommend", "~/runs/one", "--users", "u1", "--counts", "~/counts.npy", HOME=str(tmp_path))
    commands.run("audit", "~/runs/one", "--permutations", "0", "--out", "~/audit", HOME=str(tmp_path))
    assert (tmp_path / "audit" / "report.html").exists()


@pytest.mark.parametrize(
    "words",
    [
        ["recommend", "{run}", "--users", "u1", "--out", "{file}/x.csv"],
        ["evaluate", "{run}", "--out", "{folder}"],
        ["audit", "{run}", "--out", "{file}"],
        ["train", "{log}", "--out", "{file}"],
        ["compare", "{log}", "--out", "{file}/x"],
    ],
)
def test_a_place_that_cannot_be_written_is_found_out_first(commands, clicks, trained, tmp_path, words):
    (tmp_path / "file").write_text("mine")
    (tmp_path / "folder").mkdir()
    given = []
    for word in words:
        given += (
            clicks
            if word == "{log}"
            else [word.format(run=trained, file=tmp_path / "file", folder=tmp_path / "folder")]
        )
    done = commands.start(*given).wait()
    assert done.returncode in (1, 2)
    assert "out: expected" in one_line(done)
    assert done.stdout == ""
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize(
    ("words", "package", "extra"),
    [
        (["audit", "{run}", "--out", "a"], "matplotlib", "report"),
        (["compare", "{log}", "--out", "a"], "matplotlib", "report"),
        (["demo", "--out", "a"], "matplotlib", "report"),
        (["train", "{log}", "--out", "a", "--tensorboard"], "tensorboard", "tb"),
    ],
)
def test_a_missing_extra_is_said_first_and_nothing_is_made(
    commands, clicks, trained, tmp_path, words, package, extra
):
    given = []
    for word in words:
        given += clicks if word == "{log}" else [word.format(run=trained)]
    done = commands.run(*given, cwd=tmp_path, without=[package], code=1)
    assert (
        f"needs the package '{package}', which is not installed: pip install 'fastpop[{extra}]'"
        in one_line(done)
    )
    assert done.stdout == ""
    assert not list(tmp_path.iterdir())


# pipes


def test_a_reader_that_leaves_stops_nothing(clicks, tmp_path):
    script = Path(sys.executable).parent / "fastpop"
    words = " ".join(map(str, [*clicks, *QUICK]))
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        f"{script} train {words} --out {tmp_path / 'run'} | head -1; echo ${{PIPESTATUS[0]}}",
        shell=True,
        executable="/bin/bash",
        env=environment,
        capture_output=True,
        text=True,
    )
    assert [line.partition("(")[0] for line in done.stdout.splitlines()] == ["Interactions", "0"]
    assert done.stderr == ""
    assert (tmp_path / "run" / "audit.json").exists()


def test_standard_output_that_is_full_is_one_error(commands, trained):
    done = commands.start("evaluate", trained, stdout="/dev/full").wait()
    assert done.returncode == 1
    assert "No space left on device" in one_line(done)


def test_python_m_fastpop():
    done = subprocess.run([sys.executable, "-m", "fastpop", "--version"], capture_output=True, text=True)
    assert done.stdout == f"fastpop {fastpop.__version__}\n"


def test_every_option_of_read_log_is_one_of_the_command_line():
    import inspect

    known = set(LogOptions.__dataclass_fields__)
    asked = set(inspect.signature(fastpop.read_log).parameters)
    assert asked - known == {"source", "columns", "threads", "temp_folder", "progress"}
    assert LogOptions("x")._layout() == {}
    assert LogOptions("x", header="no", ordered="yes", null_values=("-",))._layout() == {
        "header": False,
        "ordered": True,
        "null_values": ("-",),
    }
    with pytest.raises(ValueError, match="header: expected one of 'auto', 'yes', 'no'; got 'x'"):
        LogOptions("x", header="x")._layout()


def test_weights_that_cannot_be_kept_are_not_fitted(trained, monkeypatch, capsys):
    from fastpop.cli.serve import FitServing

    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(PermissionError, match=f"run_folder: expected a writable place; got {trained}"):
        FitServing(trained).run()
    assert capsys.readouterr().out == ""
