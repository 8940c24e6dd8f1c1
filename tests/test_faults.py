"""A few trials of the quick faults that tests/faults.py counts; and what counts them sees a loss."""

import json
import random
import shutil

import faults
import pytest
from helpers_faults import FAULTS, WRITES, Bench, CannotBeDone, Lost, content, differences

# Quick ones, by the numbers of trials that draw no comparison.
QUICK = [
    ("kill prepare", 0),
    ("kill at a file, prepare", 0),
    ("kill at a file, train", 0),
    ("kill at a file, experiment", 0),
    ("second process", 0),
    ("full disk", 0),
    ("read-only folder", 0),
    ("damage, unfinished train", 0),
    ("damage, unfinished train", 1),
    ("damage, finished train", 0),
    ("damage, finished train", 1),
    ("damage, finished train", 2),
    ("damage, finished experiment", 0),
    ("damage, finished experiment", 1),
    ("damage, prepared log", 0),
    ("damage, prepared log", 1),
]


def number_without_comparison(name, number):
    """The first trial from this number on whose verb, where it draws one, is no comparison."""
    while random.Random(f"{name}/{number}").choice(WRITES) == "compare":
        number += 1
    return number


@pytest.fixture(scope="module")
def bench(commands):
    with Bench(commands) as found:
        yield found


@pytest.mark.parametrize(("name", "number"), QUICK)
def test_nothing_is_lost(bench, name, number):
    with bench.swept():
        try:
            went = FAULTS[name][1](bench, random.Random(f"{name}/{number_without_comparison(name, number)}"))
        except CannotBeDone as error:
            pytest.skip(str(error))
        assert went


@pytest.mark.slow
@pytest.mark.parametrize("name", list(FAULTS))
def test_nothing_is_lost_in_three_trials_of_each(bench, name):
    found = faults.tried(bench, name, [100, 101, 102])
    assert not found.get("lost")


def test_a_loss_is_seen_and_told(bench, monkeypatch, capsys):
    """A command that, given again, leaves one other byte of a weight, or a draft, is counted as lost."""
    again = bench.again

    def spoils(verb, out, *more, **options):
        done = again(verb, out, *more, **options)
        path = out / "model" / "model.safetensors"
        data = bytearray(path.read_bytes())
        data[-1] ^= 1
        path.write_bytes(data)
        return done

    bench.undisturbed("train")
    monkeypatch.setattr(bench, "again", spoils)
    monkeypatch.setitem(
        FAULTS,
        "one",
        ("in words", lambda bench, chance: bench.again("train", out := bench.new()) and judged(out)),
    )

    def judged(out):
        bench.must_be_whole("train", out)
        return "kept"

    found = faults.tried(bench, "one", [7])
    assert found["went"] == {}
    assert found["lost"] == ["7: Lost: train: differs from an undisturbed run in ['model/model.safetensors']"]
    assert "LOST one 7" in capsys.readouterr().err


def test_a_draft_that_is_left_is_seen(bench):
    with bench.swept():
        out = bench.new()
        shutil.copytree(bench.whole("train"), out)
        bench.must_be_whole("train", out)
        (out / ".log.0123abcd.fastpop-part").mkdir()
        with pytest.raises(Lost, match=r"train: left .*fastpop-part"):
            bench.must_be_whole("train", out)


def test_what_a_clock_says_is_no_difference(tmp_path):
    for name, seconds, metric in (("a", 1.0, 3), ("b", 2.0, 3), ("c", 1.0, 4)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "state.json").write_text(json.dumps({"rows": [{"seconds": seconds, "m": metric}]}))
        (tmp_path / name / "train.csv").write_text(f"epoch,seconds\n1,{seconds}\n")
    a, b, c = (content(tmp_path / name) for name in "abc")
    assert a == b
    assert differences(a, c) == ["state.json"]


def test_the_command_knows_every_fault_and_refuses_others(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["faults.py", "kill nothing"])
    with pytest.raises(SystemExit):
        faults.main()
    assert "'kill nothing' is none of" in capsys.readouterr().err


def test_a_record_keeps_the_faults_in_their_order():
    found = {name: {"name": name} for name in reversed(FAULTS)}
    assert [one["name"] for one in faults.record(found)["faults"]] == list(FAULTS)
