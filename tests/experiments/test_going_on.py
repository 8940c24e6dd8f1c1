"""A comparison that stops goes on in its folder; one that is finished stays."""

import json
import shutil
import time
import warnings

import pytest
from helpers_logs import small_log
from torch.distributed import HashStore

import fastpop
from fastpop.experiments import Dealt, state_of, twice, unfinished
from fastpop.training import CheckpointError, sealed

QUICK = {
    "epochs": 2,
    "dim": 8,
    "batch_size": 64,
    "num_negatives": 16,
    "learning_rate": 0.03,
    "permutations": 19,
    "progress": False,
    "arms": ["standard", "frozen"],
}


def without_time(found):
    comparison = json.loads(json.dumps(found.comparison))
    comparison["made_by"].pop("seconds")
    return comparison


@pytest.fixture(scope="module")
def whole():
    return without_time(fastpop.compare(small_log(), seeds=2, **QUICK))


@pytest.fixture(scope="module")
def died(tmp_path_factory):
    """A comparison whose fourth run died: a seed is measured, an arm of the other is trained."""
    out = tmp_path_factory.mktemp("died") / "report"
    real, runs = twice.fit, []

    def dies(*given, **options):
        runs.append(1)
        if len(runs) == 4:
            raise OSError(28, "No space left on device")
        return real(*given, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(twice, "fit", dies)
        with pytest.raises(OSError, match="No space left"):
            fastpop.compare(small_log(), seeds=2, out=out, **QUICK)
    return out


@pytest.fixture
def stopped(died, tmp_path):
    """A copy of it, to go on with."""
    return shutil.copytree(died, tmp_path / "report")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The folder of a comparison of one run."""
    out = tmp_path_factory.mktemp("finished") / "report"
    fastpop.compare(small_log(), **QUICK | {"seeds": 1, "out": out, "arms": ["standard"]})
    return out


def test_it_goes_on_where_it_was_and_to_the_same_numbers(stopped, whole, monkeypatch):
    assert state_of(stopped) == f"3 of 4 runs are in {stopped}: the same command goes on"
    steps = []
    real = fastpop.training.loop.train_step
    monkeypatch.setattr(
        fastpop.training.loop, "train_step", lambda *given: (steps.append(1), real(*given))[1]
    )
    found = fastpop.compare(small_log(), seeds=2, out=stopped, **QUICK)
    taken = len(steps)
    fastpop.compare(small_log(), seeds=[1], **QUICK | {"arms": ["standard"]})
    assert taken == len(steps) - taken
    assert without_time(found) == whole
    assert {path.name for path in stopped.iterdir()} == {
        "report.html",
        "comparison.json",
        "rows.csv",
        "table.txt",
    }


def test_its_seconds_are_those_of_every_process(stopped):
    """What the stopped one spent is kept by run, and added."""
    path = stopped / "unfinished" / "seconds.json"
    spent = sealed.read(path)
    assert set(spent) == {"seed-0-standard", "seed-0-frozen", "seed-0", "seed-1-standard", "seed-1-frozen"}
    assert all(seconds >= 0 for seconds in spent.values())
    sealed.write(path, spent | {"seed-0": 1000.0})
    started = time.perf_counter()
    found = fastpop.compare(small_log(), seeds=2, out=stopped, **QUICK)
    passed = time.perf_counter() - started
    before = sum(spent.values()) - spent["seed-0"] + 1000.0
    assert before <= found.comparison["made_by"]["seconds"] + 0.1
    assert found.comparison["made_by"]["seconds"] <= before + passed + 0.1


@pytest.mark.parametrize("damage", ["seed", "checkpoint", "asked"])
def test_what_is_damaged_is_made_anew_or_named(stopped, whole, damage):
    folder = stopped / "unfinished"
    if damage == "seed":
        path = folder / "seed-0.json"
        path.write_text(path.read_text().replace("0.", "1.", 1))
        with pytest.warns(UserWarning, match=r"seed-0\.json: expected the bytes.*Seed 0 is run anew"):
            found = fastpop.compare(small_log(), seeds=2, out=stopped, **QUICK)
        assert without_time(found) == whole
    elif damage == "checkpoint":
        state = next(folder.glob("seed-1-standard/checkpoint-*/state.json"))
        state.write_text("{}")
        with pytest.warns(UserWarning, match=r"state\.json: expected the bytes.*trained anew"):
            found = fastpop.compare(small_log(), seeds=2, out=stopped, **QUICK)
        assert without_time(found) == whole
    else:
        (folder / "asked.json").write_text("{")
        with pytest.raises((CheckpointError, ValueError), match=r"asked\.json"):
            fastpop.compare(small_log(), seeds=2, out=stopped, **QUICK)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"epochs": 3}, "epochs: expected 2, as in the comparison in"),
        ({"seeds": 3}, "seeds: expected \\[0, 1\\], as in"),
        ({"arms": ["standard"]}, "arms: expected \\['standard', 'frozen'\\], as in"),
        ({"permutations": 20}, "permutations: expected 19, as in"),
        ({"popularity_weights": [2.0]}, "popularity_weights: expected"),
    ],
)
def test_another_question_is_refused_by_name(stopped, change, message):
    with pytest.raises(ValueError, match=message):
        fastpop.compare(small_log(), out=stopped, **{"seeds": 2} | QUICK | change)
    with pytest.raises(ValueError, match="log: expected another, as in the comparison in"):
        fastpop.compare(small_log(seed=1), seeds=2, out=stopped, **QUICK)
    assert (stopped / "unfinished" / "seed-0.json").exists()


def test_how_often_checkpoints_are_written_is_no_part_of_the_question(stopped, whole):
    found = fastpop.compare(small_log(), seeds=2, out=stopped, checkpoint_minutes=1.0, **QUICK)
    assert found.comparison["rows"] == whole["rows"]


def test_a_finished_one_is_given_back_and_never_overwritten(stopped, whole, monkeypatch):
    first = fastpop.compare(small_log(), seeds=2, out=stopped, **QUICK)
    page = (stopped / "report.html").read_bytes()
    monkeypatch.setattr(twice, "fit", None)
    with pytest.warns(UserWarning, match="is finished: it is shown, and nothing is trained"):
        again = fastpop.compare(small_log(), seeds=2, out=stopped, **QUICK)
    assert again.table() == first.table()
    assert again.headline == first.headline
    assert again.value("frozen", "energy_shared") == first.value("frozen", "energy_shared")
    with pytest.raises(ValueError, match="seeds: expected"):
        fastpop.compare(small_log(), seeds=1, out=stopped, **QUICK)
    monkeypatch.undo()
    other = fastpop.compare(small_log(), seeds=1, **QUICK)
    with pytest.raises(ValueError, match="seeds: expected"):
        other.save(stopped)
    assert (stopped / "report.html").read_bytes() == page
    first.save(stopped)
    assert state_of(stopped) == f"the comparison in {stopped} is finished"


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (
            lambda made: made.pop("readings"),
            "out: expected a comparison as this version writes it.*'readings'",
        ),
        (
            lambda made: made["made_by"]["asked"].update(version="0.0.1"),
            "version: expected '0.0.1', as in the",
        ),
        (lambda made: made["made_by"].update(asked=[1]), "out: expected a new folder; .* cannot be read"),
        (lambda made: made["made_by"]["asked"].update(config=None), "out: expected a new folder; .* be read"),
    ],
)
def test_a_finished_one_of_another_version_is_refused_by_one_error(finished, tmp_path, damage, message):
    out = shutil.copytree(finished, tmp_path / "report")
    asked = QUICK | {"seeds": 1, "out": out, "arms": ["standard"]}
    made = json.loads((out / "comparison.json").read_text())
    damage(made)
    del made["seal"]  # as an earlier version wrote it
    (out / "comparison.json").write_text(json.dumps(made))
    with pytest.raises(ValueError, match=message):
        fastpop.compare(small_log(), **asked)


@pytest.mark.parametrize("name", ["report.html", "rows.csv", "table.txt"])
def test_what_stands_beside_a_finished_one_is_found_and_written_anew(finished, tmp_path, name):
    out = shutil.copytree(finished, tmp_path / "report")
    sound = (out / name).read_bytes()
    (out / name).write_bytes(sound[:-9] + b"X" + sound[-8:])
    said = rf"expected {name} as written; got other bytes\. Written anew"
    with pytest.warns(UserWarning, match=said), pytest.warns(UserWarning, match="is finished: it is shown"):
        fastpop.compare(small_log(), **QUICK | {"seeds": 1, "out": out, "arms": ["standard"]})
    assert (out / name).read_bytes() == sound


def test_any_changed_byte_of_a_finished_one_is_found(finished, tmp_path):
    out = shutil.copytree(finished, tmp_path / "report")
    path = out / "comparison.json"
    sound = path.read_bytes()
    for at in (3, len(sound) // 2, sound.index(b'"seal"') + 2, len(sound) - 9):
        path.write_bytes(sound[:at] + bytes([sound[at] ^ 1]) + sound[at + 1 :])
        with pytest.raises(ValueError, match=r"a damaged comparison: .*comparison\.json: expected the bytes"):
            fastpop.compare(small_log(), **QUICK | {"seeds": 1, "out": out, "arms": ["standard"]})


@pytest.mark.parametrize("kept", ["best", "equal"])
def test_weights_kept_for_the_end_that_are_damaged_have_the_arm_trained_anew(stopped, whole, kept):
    folder = stopped / "unfinished" / "seed-1-standard"
    if not (folder / kept).exists():
        pytest.skip(f"this arm keeps no {kept} weights")
    path = folder / kept / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.warns(UserWarning, match=rf"{kept}/model.safetensors: .*This run is trained anew"):
        found = fastpop.compare(small_log(), seeds=2, out=stopped, **QUICK)
    assert without_time(found) == whole


def test_a_kill_while_the_report_is_written_is_mended_by_the_same_call(stopped, whole, monkeypatch):
    real = fastpop.report.write_compare_report

    def dies(*given):
        raise MemoryError("as if killed")

    monkeypatch.setattr(fastpop.report, "write_compare_report", dies)
    with pytest.raises(MemoryError):
        fastpop.compare(small_log(), seeds=2, out=stopped, **QUICK)
    assert not (stopped / "comparison.json").exists()
    monkeypatch.setattr(fastpop.report, "write_compare_report", real)
    assert without_time(fastpop.compare(small_log(), seeds=2, out=stopped, **QUICK)) == whole
    # and between the last file and the removal of what is not needed any more
    (stopped / "unfinished").mkdir()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fastpop.compare(small_log(), seeds=2, out=stopped, **QUICK)
    assert not (stopped / "unfinished").exists()


def test_a_kill_before_the_question_is_written_leaves_a_folder_that_will_do(tmp_path, whole):
    (tmp_path / "unfinished").mkdir()
    (tmp_path / "unfinished" / ".asked.json.0123abcd.part").write_text("{")
    assert state_of(tmp_path) == "nothing was written: the same command starts anew"
    found = fastpop.compare(small_log(), seeds=2, out=tmp_path, **QUICK)
    assert without_time(found) == whole


def test_counts_without_a_direction_are_warned_of():
    import numpy as np

    same = fastpop.Interactions.from_arrays(
        np.repeat(np.arange(60), 6), np.tile(np.arange(6), 60), np.arange(360)
    )
    with pytest.warns(UserWarning, match="CAUTION: log p has no direction here: its alpha ran to the"):
        fastpop.compare(same, split="none", seeds=1, **QUICK | {"arms": ["standard"]})
    with pytest.raises(ValueError, match="log: expected items of different counts, for log p to have"):
        fastpop.compare(same, split="none", smoothing=1e30, **QUICK)


def test_a_comparison_is_a_few_lines(stopped):
    found = fastpop.compare(small_log(), seeds=2, out=stopped, **QUICK)
    assert len(repr(found)) < 700
    assert (
        "arms: standard, frozen, post-hoc, post-hoc-fitted, projected, popularity, recency, "
        "recency-window, markov; 2 seeds"
    ) in repr(found)
    assert found._repr_html_().startswith("<b>CompareResult: Popularity separation, factor")
    shutil.rmtree(stopped)
    assert unfinished.FINISHED == "comparison.json"
    assert sealed.SEAL not in found.comparison


class Left(Exception):
    """A process would wait here for another."""


def test_seeds_that_are_dealt_out_make_the_comparison_of_one_process(whole, tmp_path, monkeypatch):
    store, out, real, fits = HashStore(), tmp_path / "report", twice.fit, []
    monkeypatch.setattr(twice, "fit", lambda *given, **options: fits.append(1) or real(*given, **options))

    def leave(self, what, *ranks):
        if not self.store.check([f"{what}/{rank}" for rank in ranks]):
            raise Left(what)

    monkeypatch.setattr(Dealt, "wait_for", leave)
    first, second = (Dealt(rank, 2, store) for rank in range(2))
    with pytest.raises(Left, match="begun"):  # nobody begins before the first holds the folder
        fastpop.compare(small_log(), seeds=2, out=out, dealt=second, **QUICK)
    store.set("begun/0", "done")
    with pytest.raises(Left, match="written"):
        fastpop.compare(small_log(), seeds=2, out=out, dealt=second, **QUICK)
    assert [path.name for path in (out / "unfinished").glob("seed-*")] == ["seed-1.json"]
    assert len(fits) == 2
    found = fastpop.compare(small_log(), seeds=2, out=out, dealt=first, **QUICK)
    assert len(fits) == 4
    assert without_time(found) == whole
    assert found.comparison["made_by"]["seconds"] > 0
    again = fastpop.compare(small_log(), seeds=2, out=out, dealt=second, **QUICK)
    assert again.comparison == json.loads(json.dumps(found.comparison))
    assert not (out / "unfinished").exists()


def test_processes_meet_in_a_folder():
    with pytest.raises(ValueError, match="out: expected a folder, in which processes with dealt= meet"):
        fastpop.compare(small_log(), dealt=Dealt(0, 2, HashStore()), **QUICK)
    with pytest.raises(ValueError, match="rank: expected"):
        Dealt(2, 2, HashStore())
