"""Bytes of somebody else: nothing is executed, nothing hangs, nothing takes the machine."""

import ast
import gzip
import io
import json
import random
import zipfile
from pathlib import Path
from types import SimpleNamespace

import fuzz
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import fastpop
from fastpop.data import scan
from fastpop.training import TrainConfig, sealed

ROOT = Path(__file__).resolve().parents[1]
EXECUTE = {"pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve", "yaml"}
CALLS = {"eval", "exec", "compile", "__import__"}


def test_nothing_that_reads_can_execute():
    """No module of pickles, no torch.load, no allow_pickle=True, no eval: what a file holds is data."""
    read = [path for path in ROOT.glob("fastpop/**/*.py") if "testing" not in path.parts]  # which read code
    for path in [*read, *ROOT.glob("kernels/**/*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            where = f"{path.relative_to(ROOT)}:{getattr(node, 'lineno', 0)}"
            if isinstance(node, ast.Import):
                assert not {alias.name.split(".")[0] for alias in node.names} & EXECUTE, where
            elif isinstance(node, ast.ImportFrom):
                assert (node.module or "").split(".")[0] not in EXECUTE, where
            elif isinstance(node, ast.Call):
                called = ast.unparse(node.func)
                assert called not in CALLS, where
                assert called not in ("torch.load", "np.memmap.load"), where
                for word in node.keywords:
                    if word.arg == "allow_pickle":
                        assert ast.unparse(word.value) == "False", where
                    if word.arg == "shell":
                        assert ast.unparse(word.value) == "False", where


class Executes:
    def __reduce__(self):
        return (Path.touch, (Path("executed"),))


def hostile_npy():
    out = io.BytesIO()
    np.save(out, np.array([Executes(), Executes()], dtype=object), allow_pickle=True)
    return out.getvalue()


def test_a_pickle_in_an_array_is_refused_wherever_arrays_are_read(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    bad = hostile_npy()
    with pytest.raises(ValueError, match=r"counts: expected a \.npy file"):
        fuzz.TARGETS["npy"].read(bad, tmp_path)
    names = sorted(fuzz._prepared())
    for number, name in enumerate(names):
        if name.endswith(".npy"):
            with pytest.raises(ValueError, match=name):
                fuzz.TARGETS["prepared"].read(bytes([number]) + bad, tmp_path)
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name in ("user", "history_offsets", "history_item", "target_offsets", "target_item"):
            archive.writestr(f"{name}.npy", bad)
    folder = tmp_path / "cases"
    folder.mkdir()
    (folder / "cases.npz").write_bytes(packed.getvalue())
    (folder / "cases.json").write_text(json.dumps({"num_items": 2, "facts": {}}))
    with pytest.raises(ValueError, match=r"expected a folder that Cases\.save wrote"):
        fastpop.data.Cases.load(folder)
    assert not (tmp_path / "executed").exists()


# what is made of sound inputs


@pytest.mark.parametrize("name", list(fuzz.TARGETS))
def test_seeds_are_read_and_what_is_made_of_them_is_read_or_refused(name):
    target = fuzz.TARGETS[name]
    fuzz.plainly(target, iter(target.seeds))
    fuzz.plainly(target, (fuzz.mutated(target, random.Random(f"{name}/{n}")) for n in range(60)))


def test_the_fuzzer_sees_what_gets_through():
    def crashes(data, folder):
        raise KeyError("not said")

    def silent(data, folder):
        raise ValueError("")

    def long(data, folder):
        raise ValueError("x" * 100_000)

    for read, said in (
        (crashes, "KeyError"),
        (silent, "ValueError says 0 characters"),
        (long, "100000 characters"),
    ):
        with pytest.raises(fuzz.Broken, match=rf"{said}.*bytes b'abc'"):
            fuzz.plainly(fuzz.Target(read, []), iter([b"abc"]))


def test_the_fuzzer_sees_memory_and_time(monkeypatch):
    peaks = iter([100 << 10, 900 << 10])  # kB
    monkeypatch.setattr(fuzz.resource, "getrusage", lambda who: SimpleNamespace(ru_maxrss=next(peaks)))
    with pytest.raises(fuzz.Broken, match=r"3 bytes took .* and 800 MiB"):
        fuzz.tried(fuzz.Target(lambda data, folder: None, []), b"abc")
    monkeypatch.undo()
    monkeypatch.setattr(fuzz, "SLOWEST", 0.0)
    with pytest.raises(fuzz.Broken, match="3 bytes took"):
        fuzz.tried(fuzz.Target(lambda data, folder: None, []), b"abc")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=9), inner, max_size=4),
    max_leaves=12,
)
QUICK = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@QUICK
@given(st.dictionaries(st.text(max_size=9).filter(lambda key: key != sealed.SEAL), JSON, max_size=5))
def test_any_document_comes_back_from_under_its_seal(tmp_path, document):
    text = sealed.sealed_text(document)
    (tmp_path / "a.json").write_text(text)
    found = sealed.read(tmp_path / "a.json")
    assert json.dumps(found) == json.dumps(document)
    wrong = bytearray(text.encode())
    wrong[len(wrong) // 2] ^= 1
    (tmp_path / "a.json").write_bytes(wrong)
    with pytest.raises(sealed.Damaged):
        sealed.read(tmp_path / "a.json")


OPTIONS = sorted(TrainConfig().to_dict())


@QUICK
@given(st.dictionaries(st.sampled_from(OPTIONS) | st.text(max_size=9), JSON, max_size=4))
def test_any_configuration_is_taken_or_refused_by_the_name_of_an_option(options):
    try:
        config = TrainConfig.from_dict(options)
    except (ValueError, TypeError) as error:
        said = str(error)
        assert 0 < len(said) < fuzz.LONGEST
    else:
        assert TrainConfig.from_dict(config.to_dict()) == config


IDS = st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=12)


@QUICK
@given(st.lists(IDS, min_size=1, max_size=12))
def test_any_text_is_an_id_and_comes_back(tmp_path, words):
    log = fastpop.Interactions.from_arrays(words, words[::-1])
    log.save(tmp_path / "log")
    for verify in (False, True):
        again = fastpop.Interactions.open(tmp_path / "log", verify=verify)
        assert again.user_ids.tolist() == sorted(set(words), key=lambda word: word.encode())
        assert again.item_ids.tolist() == again.user_ids.tolist()


# bombs


def test_a_gzip_bomb_is_refused_by_its_ratio(tmp_path, monkeypatch):
    """Rows that are sound, 1,000 to one: at the bound and not after what they unpack to."""
    monkeypatch.setattr(scan, "RATIO_FROM", 1 << 20)
    row = b"1,2\n" * (1 << 18)
    path = tmp_path / "bomb.csv.gz"
    with gzip.open(path, "wb", compresslevel=9) as file:
        file.write(b"u,i\n")
        for _ in range(40):
            file.write(row)
    assert 40 * len(row) > 900 * path.stat().st_size
    with pytest.raises(
        ValueError, match=r"bomb\.csv\.gz, near line .*: expected a gzip file of at most 250 times"
    ):
        fastpop.read_log(path, user="u", item="i", progress=False)
    taken = []
    real = scan.Stream.read_into

    def counted(self, buffer):
        size = real(self, buffer)
        taken.append(size)
        return size

    monkeypatch.setattr(scan.Stream, "read_into", counted)
    with pytest.raises(ValueError, match="expected a gzip file of at most"):
        fastpop.read_log(path, user="u", item="i", on_bad_row="skip", progress=False)
    assert sum(taken) < 20 << 20  # of 40 MiB
    monkeypatch.setattr(scan, "MOST_RATIO", 2_000)
    assert fastpop.read_log(path, user="u", item="i", progress=False).num_events == 40 << 18


def test_a_small_file_and_a_real_log_are_no_bombs(tmp_path):
    path = tmp_path / "small.csv.gz"
    path.write_bytes(gzip.compress(b"u,i\n" + b"1,2\n" * 200_000))  # 800 kB in 1 kB
    assert fastpop.read_log(path, user="u", item="i", progress=False).num_events == 200_000


def test_a_line_without_an_end_is_refused_before_it_fills_the_memory(tmp_path):
    path = tmp_path / "line.csv.gz"
    with gzip.open(path, "wb", compresslevel=1) as file:
        for _ in range(80):
            file.write(b"x" * (1 << 20))
    with pytest.raises(ValueError, match=r"line\.csv\.gz"):
        fastpop.read_log(path, user=0, item=1, progress=False)
