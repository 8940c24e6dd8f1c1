"""The command line as a user runs it: a real process, 80 columns, real files."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

import fastpop
from fastpop.ops import availability

pytest.importorskip("duckdb", reason="duckdb, which reads logs, is not installed")
pytest.importorskip("tyro", reason="tyro, which reads a command line, is not installed")

QUICK = ["--epochs", "2", "--dim", "8", "--num-negatives", "32", "--permutations", "50"]


started = []


@pytest.fixture(scope="module", autouse=True)
def in_forks(commands):
    """`run` starts commands in forks of one process."""
    started.append(commands)
    yield
    started.clear()


def run(*words, code=0, cwd=None):
    return started[0].run(*words, code=code, cwd=cwd)


def alone(*words):
    """A process of its own, from the script on."""
    environment = os.environ | {"COLUMNS": "80", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [str(Path(sys.executable).parent / "fastpop"), *map(str, words)],
        capture_output=True,
        text=True,
        env=environment,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done


@pytest.fixture(scope="module")
def log(tmp_path_factory):
    path = tmp_path_factory.mktemp("cli") / "log.csv"
    rng = np.random.default_rng(0)
    lines = ["who,what,when"]
    for n in range(1500):
        lines.append(f"u{rng.integers(40)},{min(int(rng.zipf(1.5)), 50)},{1_500_000_000 + n}")
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture(scope="module")
def trained(log):
    out = log.parent / "run"
    done = run("train", log, "--user", "who", "--item", "what", "--time", "when", "--out", out, *QUICK)
    return out, done.stdout


def test_train_prints_metrics_and_the_audit_and_fills_a_folder(trained):
    out, text = trained
    assert "1,500 events, 40 users" in text
    assert "ndcg" in text
    assert "Popularity audit" in text
    assert {"config.json", "log", "metrics.json", "model", "train.csv", "audit.json"} <= {
        path.name for path in out.iterdir()
    }
    assert json.loads((out / "audit.json").read_text())["energy_total"] > 0


@pytest.mark.parametrize(
    "words",
    [
        ["--help"],
        ["train", "--help"],
        ["compare", "--help"],
        ["audit", "--help"],
        ["fit-serving", "--help"],
        ["recommend", "--help"],
        ["evaluate", "--help"],
        ["doctor"],
        ["demo", "--help"],
    ],
)
def test_help_and_doctor_fit_eighty_columns(words):
    text = run(*words).stdout
    assert text.strip()
    assert max(map(len, text.splitlines())) <= 80


def test_doctor_says_which_path_runs_and_why_others_do_not(monkeypatch):
    monkeypatch.setenv("FASTPOP_CPU", "baseline")
    text = alone("doctor").stdout
    path = f"CPU kernels take the path baseline on threads of {availability.threads_of()}"
    assert path in " ".join(text.split())  # whatever the width of the lines
    if not torch.cuda.is_available():
        assert re.search("cuda does not run here: (no CUDA device|.*built without CUDA)", text)
    monkeypatch.setenv("FASTPOP_CPU", "junk")
    assert "expected auto or one of" in alone("doctor").stdout


def test_recommend(trained, tmp_path):
    out, _ = trained
    text = run(
        "recommend",
        out,
        "--users",
        "u1",
        "u2",
        "--k",
        3,
        "--popularity-weight",
        0.5,
        "--out",
        tmp_path / "top.csv",
    ).stdout
    assert "popularity weight 0.5" in text
    lines = (tmp_path / "top.csv").read_text().splitlines()
    assert lines[0] == "user,rank,item,score"
    assert len(lines) == 7


def test_recommend_with_todays_counts(trained, tmp_path):
    out, _ = trained
    log = fastpop.Interactions.load(out / "log")
    counts = np.ones(log.num_items)
    counts[7] = 1e6
    np.save(tmp_path / "today.npy", counts)
    text = run(
        "recommend",
        out,
        "--users",
        "u1",
        "--k",
        1,
        "--popularity-weight",
        5,
        "--counts",
        tmp_path / "today.npy",
        "--include-seen",
    ).stdout
    assert text.splitlines()[1].split(": ")[1] == str(log.item_ids[7])
    np.save(tmp_path / "short.npy", counts[:-1])
    done = run("recommend", out, "--users", "u1", "--counts", tmp_path / "short.npy", code=2)
    assert "counts: expected shape" in done.stderr


def test_counts_with_fractions_and_their_smoothing(trained, tmp_path):
    out, _ = trained
    log = fastpop.Interactions.load(out / "log")
    np.save(tmp_path / "late.npy", log.item_counts() / 3)
    words = ["recommend", out, "--users", "u1", "--out", tmp_path / "top.csv"]
    scores = []
    for more in ([], ["--smoothing", "100"]):
        run(*words, "--counts", tmp_path / "late.npy", *more)
        scores.append((tmp_path / "top.csv").read_text())
    assert scores[0] != scores[1]
    assert "smoothing: expected none without --counts" in run(*words, "--smoothing", "1", code=2).stderr
    done = run(*words, "--counts", tmp_path / "late.npy", "--smoothing", "much", code=2)
    assert "smoothing: expected loo, good-turing or a number" in done.stderr


def test_the_personal_weight_is_served(trained):
    text = run("recommend", trained[0], "--users", "u1", "--personal-weight", 0, "--include-seen").stdout
    assert "popularity weight 1, personal weight 0" in text
    result = fastpop.load(trained[0])
    popular = result.log.decode_items(np.argsort(-result.prior.log_prior_V, kind="stable")[:3])
    assert text.splitlines()[1].split(": ")[1].split()[:3] == [str(item) for item in popular]
    text = run("evaluate", trained[0], "--personal-weight", 0.5, "--popularity-weight", 0, 1).stdout
    assert "popularity weight 0, personal weight 0.5\n" in text
    assert "popularity weight 1, personal weight 0.5\n" in text
    done = run("evaluate", trained[0], "--personal-weight", "1e39", code=2)
    assert "personal_weight: expected" in done.stderr
    done = run("recommend", trained[0], "--users", "u1", "--personal-weight", "nan", code=2)
    assert "personal_weight: expected" in done.stderr


@pytest.mark.parametrize("prior", [[], ["--recent"], ["--counts"]])
def test_weights_are_fitted_once_and_served_from_then_on(trained, tmp_path, prior):
    out = tmp_path / "run"
    shutil.copytree(trained[0], out)
    train = fastpop.load(out).split.train
    if prior == ["--counts"]:
        np.save(tmp_path / "counts.npy", train.item_counts() / 2)
        prior = ["--counts", tmp_path / "counts.npy", "--smoothing", "0.5"]
    text = run("fit-serving", out, *prior).stdout
    assert "served with personal weight" in text
    assert ("half-life" in text) == (prior == ["--recent"])
    kept = fastpop.load(out)
    shown = (
        f"popularity weight {kept.serving.popularity_weight:g}, personal weight "
        f"{kept.serving.personal_weight:g}"
    )
    assert shown in run("evaluate", out).stdout
    assert shown in run("recommend", out, "--users", "u1").stdout
    if len(prior) > 1:
        assert kept.prior.alpha == 0.5
    done = run("fit-serving", out, "--recent", "--counts", "x.npy", code=2)
    assert "recent: expected not beside --counts" in done.stderr


def test_evaluate_at_several_knobs(trained):
    text = run("evaluate", trained[0], "--popularity-weight", 0, 1).stdout
    assert "popularity weight 0\n" in text
    assert "popularity weight 1\n" in text


def test_audit_within_strata(trained, tmp_path):
    items = fastpop.load(trained[0]).log.num_items
    np.save(tmp_path / "strata.npy", np.arange(items) % 2)
    text = run(
        "audit",
        trained[0],
        "--null",
        "stratified",
        "--strata",
        tmp_path / "strata.npy",
        "--permutations",
        50,
        "--out",
        tmp_path / "a",
    ).stdout
    assert "strata" in text
    assert json.loads((tmp_path / "a" / "audit.json").read_text())["null"] == "stratified"


def test_audit_of_a_run_and_of_arrays(trained, tmp_path):
    text = run("audit", trained[0], "--permutations", 20, "--out", tmp_path / "a").stdout
    assert "Popularity audit" in text
    assert (tmp_path / "a" / "report.html").stat().st_size > 5_000
    rng = np.random.default_rng(0)
    for name, array in (
        ("q", rng.normal(size=(30, 4))),
        ("e", rng.normal(size=(20, 4))),
        ("c", np.arange(1.0, 21)),
    ):
        np.save(tmp_path / f"{name}.npy", array)
    text = run(
        "audit",
        "--query",
        tmp_path / "q.npy",
        "--items",
        tmp_path / "e.npy",
        "--counts",
        tmp_path / "c.npy",
        "--permutations",
        20,
    ).stdout
    assert "30 contexts, 20 items, dim 4" in text
    assert "slope has no unit" in " ".join(text.split())
    np.save(tmp_path / "some.npy", np.arange(20) > 4)
    text = run(
        "audit",
        "--query",
        tmp_path / "q.npy",
        "--items",
        tmp_path / "e.npy",
        "--counts",
        tmp_path / "c.npy",
        "--permutations",
        20,
        "--min-count",
        8,
        "--subset",
        tmp_path / "some.npy",
        "--logits",
        "--top-k",
        3,
        "--out",
        tmp_path / "b",
    ).stdout
    assert max(map(len, text.splitlines()[:-2])) <= 80
    told = " ".join(text.split())
    for words in (
        "30 contexts, 13 items, dim 4",
        "13 of 20, those of the subset given with 8 events or more",
        "0: popularity is outside the scores",
        "top 3, nothing masked, 30 contexts",
    ):
        assert words in told
    saved = json.loads((tmp_path / "b" / "audit.json").read_text())
    assert saved["item_ids"] == list(range(7, 20))
    assert saved["top_lists"]["k"] == 3
    part = run("audit", trained[0], "--permutations", 0, "--min-count", 2, "--top-k", 0).stdout
    assert "with 2 events or more" in part
    assert "none were asked for" in part


def test_an_audit_without_a_direction_says_so_once_and_goes_on(tmp_path):
    rng = np.random.default_rng(0)
    for name, array in (
        ("q", rng.normal(size=(30, 4))),
        ("e", rng.normal(size=(200, 4))),
        ("c", 3 + np.arange(200) % 2),
    ):
        np.save(tmp_path / f"{name}.npy", array)
    done = run(
        "audit",
        "--query",
        tmp_path / "q.npy",
        "--items",
        tmp_path / "e.npy",
        "--counts",
        tmp_path / "c.npy",
        "--permutations",
        20,
        "--out",
        tmp_path / "a",
    )
    assert done.stderr.count("log p has no direction here") == 1
    assert done.stderr.startswith("fastpop: audit: log p has no direction here")
    page = (tmp_path / "a" / "report.html").read_text()
    for text in (done.stdout, page):
        assert "associated" not in text
        assert "floor" not in text
    assert "Log p has no direction here" in page


def test_compare_writes_a_report(log, tmp_path):
    text = run(
        "compare",
        log,
        "--user",
        "who",
        "--item",
        "what",
        "--time",
        "when",
        "--seeds",
        1,
        "--arms",
        "standard",
        "frozen",
        "--out",
        tmp_path / "r",
        *QUICK,
    ).stdout
    assert "Shared energy ranks nothing" in " ".join(text.split())
    assert (tmp_path / "r" / "report.html").exists()


def test_compare_refuses_an_unknown_arm_before_it_reads_the_log(tmp_path):
    done = run("compare", tmp_path / "nowhere.csv", "--arms", "frozn", "--out", tmp_path / "r", code=2)
    assert done.stderr.startswith("fastpop: arms: expected one of 'standard', 'frozen', 'learned'")
    assert "did you mean 'frozen'?" in done.stderr


def test_options_come_from_toml_and_the_command_line_wins(log, tmp_path):
    (tmp_path / "c.toml").write_text('[train]\nencoder = "bag"\ndim = 4\nepochs = 1\n')
    run(
        "train",
        log,
        "--user",
        "who",
        "--item",
        "what",
        "--time",
        "when",
        "--out",
        tmp_path / "run",
        "--config",
        tmp_path / "c.toml",
        "--dim",
        6,
        "--permutations",
        10,
    )
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert (config["encoder"], config["dim"], config["epochs"]) == ("bag", 6, 1)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["train", "missing.csv", "--user", "a", "--item", "b", "--out", "x"], "missing.csv"),
        (["train", "{log}", "--user", "nobody", "--item", "what", "--out", "x"], "nobody"),
        (["train", "{log}", "--preset", "nope", "--out", "x"], "preset: expected one of"),
        (["recommend", "nowhere", "--users", "1"], "folder: expected the out= folder"),
        (["audit"], "RUN: expected a run folder, or --query, --items and --counts"),
        (["audit", "--query", "{log}", "--items", "{log}", "--counts", "{log}"], "query: expected a .npy"),
        (["recommend", "{run}", "--users", "nobody"], "nobody"),
        (["evaluate", "{run}", "--part", "x"], "part: expected one of"),
        (
            ["train", "{log}", "--user", "who", "--item", "what", "--out", "x", "--epochs", "0"],
            "epochs: expected an integer >= 1; got 0",
        ),
        (
            ["compare", "{log}", "--user", "who", "--item", "what", "--out", "x", "--encoder", "y"],
            "encoder: expected one of",
        ),
    ],
)
def test_bad_input_is_one_line_and_exit_code_two(log, trained, tmp_path, words, message):
    words = [word.format(log=log, run=trained[0]) for word in words]
    done = run(*words, code=2, cwd=tmp_path)
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stderr.startswith("fastpop: ")


def test_ctrl_c_leaves_a_checkpoint_and_says_how_to_go_on(log, tmp_path):
    command = [
        str(Path(sys.executable).parent / "fastpop"),
        "train",
        str(log),
        "--user",
        "who",
        "--item",
        "what",
        "--time",
        "when",
        "--out",
        str(tmp_path / "run"),
        "--epochs",
        "100000",
        "--dim",
        "8",
        "--num-negatives",
        "32",
    ]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not list((tmp_path / "run").glob("checkpoint-*")):
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "the same command goes on from it" in errors
    assert "Traceback" not in errors
    assert list((tmp_path / "run").glob("checkpoint-*"))


def test_version():
    assert alone("--version").stdout.startswith("fastpop ")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["audit", "{run}", "--scale", "3"], "RUN: expected a run or arrays, not both; got RUN and --scale"),
        (["audit", "{run}", "--logits"], "RUN: expected a run or arrays, not both; got RUN and --logits"),
        (["audit", "{run}", "--min-count", "-2"], "min_count: expected a finite number >= 0; got -2"),
        (
            ["audit", "{run}", "--min-count", "1e9"],
            "min_count: expected one that leaves at least 4 items; got 0",
        ),
        (["audit", "{run}", "--subset", "{log}"], "subset: expected a .npy file"),
        (["audit", "{run}", "--top-k", "-1"], "top_k: expected an integer >= 0; got -1"),
        (["audit", "{run}", "--permutations", "-1"], "permutations: expected an integer >= 0; got -1"),
        (
            ["audit", "{run}", "--null", "labels"],
            "null: expected one of 'label', 'stratified', 'sign' (did you mean",
        ),
        (
            ["audit", "{run}", "--null", "stratified"],
            "strata: expected a file with --null stratified, and only there; got None",
        ),
        (
            ["audit", "{run}", "--strata", "x.npy"],
            "strata: expected a file with --null stratified, and only there",
        ),
        (
            ["audit", "--popularity-weight", "1", "--query", "a", "--items", "b", "--counts", "c"],
            "popularity_weight: expected none with arrays",
        ),
        (["audit", "{run}", "--out", "{log}"], "out: expected a folder"),
    ],
)
def test_options_that_an_audit_cannot_use_are_refused(log, trained, words, message):
    words = [word.format(log=log, run=trained[0]) for word in words]
    assert message in run(*words, code=2).stderr


def test_evaluate_against_another_run_and_into_a_file(log, trained, tmp_path):
    run(
        "train",
        log,
        "--user",
        "who",
        "--item",
        "what",
        "--time",
        "when",
        "--out",
        tmp_path / "other",
        "--prior",
        "none",
        "--smoothing",
        "0.5",
        *QUICK,
    )
    text = run(
        "evaluate", trained[0], "--against", tmp_path / "other", "--k", 5, "--out", tmp_path / "m.json"
    ).stdout
    assert "paired over cases" in text
    assert "ndcg@5" in text
    assert "ndcg@5" in json.loads((tmp_path / "m.json").read_text())[0]["metrics"]


def test_skipped_rows_are_counted_and_written(tmp_path):
    lines = ["u,i,t"] + [f"{n % 9},{n % 7},{1500000000 + n}" for n in range(300)] + ["1,2,never"]
    (tmp_path / "log.csv").write_text("\n".join(lines) + "\n")
    common = [tmp_path / "log.csv", "--user", "u", "--item", "i", "--time", "t", "--on-bad-row", "skip"]
    text = run("train", *common, "--out", tmp_path / "run", *QUICK).stdout
    assert "1 bad rows left out" in text
    assert "never" in (tmp_path / "run" / "log" / "rejected.csv").read_text()
    run("compare", *common, "--seeds", 1, "--arms", "standard", "--out", tmp_path / "c", *QUICK)
    assert "never" in (tmp_path / "c" / "rejected.csv").read_text()


def test_a_test_part_is_read_like_its_log(shared_data, tmp_path):
    text = run(
        "train",
        shared_data / "coat.biased.csv.gz",
        "--preset",
        "coat",
        "--min-rating",
        4,
        "--test",
        shared_data / "coat.random.csv.gz",
        "--out",
        tmp_path / "coat",
        *QUICK,
    ).stdout
    assert "ndcg" in text
    text = run(
        "train",
        shared_data / "lastfm-s3rec.seq.txt.gz",
        "--preset",
        "sequence",
        "--encoder",
        "bag",
        "--out",
        tmp_path / "lastfm",
        *QUICK,
    ).stdout
    assert "ndcg" in text
