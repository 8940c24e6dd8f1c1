"""The alias draw: known Philox words, exact distribution, the same ids from every implementation."""

import os
import re
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers_device import gpu
from hypothesis import given, settings
from hypothesis import strategies as st

from fastpop import _C
from fastpop.kernels.alias_draw import _cpu, _cuda, reference

ROOT = Path(__file__).resolve().parents[2]
IMPLS = [reference, _cpu]


def draw(module, table_V2, seed, step, group, num_groups, num_draws):
    return module.forward(reference.Inputs(table_V2, (seed, step), group, num_groups, num_draws))


# Random123's kat_vectors: counter, key, words.
KNOWN = [
    ("00000000 00000000 00000000 00000000", "00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
]


def numbers(text):
    return [int(word, 16) for word in text.split()]


@pytest.mark.parametrize(("counter", "key", "expected"), KNOWN)
def test_philox_known_answers(counter, key, expected):
    counter_N4 = np.array([numbers(counter)], dtype=np.uint32)
    ours = reference.philox4x32(counter_N4, tuple(numbers(key)))
    assert ours[0].tolist() == numbers(expected)
    assert list(_C.philox4x32(*numbers(counter), *numbers(key))) == numbers(expected)


def test_words_follow_the_written_counter_layout():
    seed, step, group = 0x1122334455667788, 0x99AABBCCDDEEFF00, 0xFFFFFFFE
    pair_N2 = reference.words(seed, step, group, 0, 7)
    for k in range(7):
        block = _C.philox4x32(k // 2, group, 0xDDEEFF00, 0x99AABBCC, 0x55667788, 0x11223344)
        assert tuple(pair_N2[k]) == block[2 * (k % 2) : 2 * (k % 2) + 2]
    np.testing.assert_array_equal(reference.words(seed, step, group, 3, 7), pair_N2[3:])


def weights(kind, num_items):
    rng = np.random.default_rng(num_items)
    rank = np.arange(1.0, num_items + 1)
    return {
        "uniform": np.ones(num_items),
        "zipf": 1 / rank,
        "half zero": np.where(rank % 2 == 0, 0.0, 1.0) + np.where(rank == 2, 1e-3, 0),
        "one zero": np.where(rank == 3, 0.0, 1.0) + np.where(rank == 1, 1e-9, 0),
        "long range": np.exp(rng.normal(size=num_items) * 20) * (rng.random(num_items) < 0.5)
        + np.where(rank <= 2, 1e-300, 0.0),
    }[kind]


KINDS = ["uniform", "zipf", "half zero", "one zero", "long range"]


def python_mass(table_V2):
    """The distribution by the definition, in Python integers: bucket by bucket."""
    num_items = len(table_V2)
    start = [-(-j * 2**32 // num_items) for j in range(num_items + 1)]
    mass = [0] * num_items
    for j, (threshold, alias) in enumerate(table_V2.tolist()):
        words = start[j + 1] - start[j]
        mass[j] += words * threshold
        mass[alias] += words * (2**32 - threshold)
    return mass


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("num_items", [2, 3, 64, 1000])
def test_distribution_adds_up_to_one_in_integers_and_hits_its_target(kind, num_items):
    weight_V = weights(kind, num_items)
    target_V = reference.integer_mass(weight_V)
    assert sum(map(int, target_V)) == 2**64
    table_V2 = reference.build(target_V)
    mass = python_mass(table_V2)
    assert sum(mass) == 2**64
    assert mass == [int(m) for m in reference.mass_of(table_V2)]
    assert [m > 0 for m in mass] == [w > 0 for w in weight_V]
    # One threshold unit is 2^-32 of a bucket; a forced unit for each item below one adds to that.
    unit = 2**32 / num_items + 1
    tiny = sum(1 for m in target_V if 0 < int(m) < unit)
    worst = max(abs(a - int(b)) for a, b in zip(mass, target_V))
    assert worst <= unit * (2 + tiny)


def test_a_wrong_target_is_told_apart():
    weight_V = 1 / np.arange(1.0, 101)
    target_V = reference.integer_mass(weight_V)
    table_V2 = reference.build(target_V)
    table_V2[7, 0] ^= 1 << 20
    worst = np.abs(reference.mass_of(table_V2).astype(float) - target_V.astype(float)).max()
    assert worst > 3 * (2**32 / 100 + 1)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("num_items", [2, 3, 64, 1000, 70_001])
def test_both_builders_make_the_same_table(kind, num_items):
    target_V = reference.integer_mass(weights(kind, num_items))
    np.testing.assert_array_equal(_cpu.build(target_V), reference.build(target_V))


def test_a_large_table_resolves_two_to_the_minus_32_of_an_item():
    num_items = 2_000_003  # buckets of 2147 and 2148 words: a giver may be barely too short
    rng = np.random.default_rng(3)
    weight_V = rng.integers(0, 1000, num_items) ** 0.75
    target_V = reference.integer_mass(weight_V)
    mass_V = reference.mass_of(_cpu.build(target_V))
    error = np.abs(mass_V.astype(float) - target_V.astype(float)).max()
    assert error * num_items / 2**64 < 4 * 2**-32
    np.testing.assert_array_equal(mass_V > 0, weight_V > 0)
    high = int((mass_V >> np.uint64(32)).sum())
    low = int((mass_V & np.uint64(2**32 - 1)).sum())
    assert high * 2**32 + low == 2**64


@pytest.mark.parametrize("impl", IMPLS)
def test_a_giver_that_is_barely_long_waits(impl):
    """Item 0 has no mass and the widest bucket; item 1 is long by five units, too little to fill
    it. Giving all the same would take 2^32 units too many from item 1."""
    words = [int(n) for n in reference.bucket_words(3)]
    assert words == [1431655766, 1431655765, 1431655765]
    barely = words[1] * 2**32 + 5
    target_V = np.array([0, barely, 2**64 - barely], dtype=np.uint64)
    mass = python_mass(impl.build(target_V))
    assert mass[0] == 0
    assert max(abs(a - int(b)) for a, b in zip(mass, target_V)) <= 2 * words[0]


@pytest.mark.parametrize("impl", IMPLS)
def test_a_word_equal_to_the_threshold_takes_the_alias(impl):
    """The threshold counts the words below it: probability threshold / 2^32 exactly."""
    pair_N2 = reference.words(4, 5, 6, 0, 64)
    for k in (0, 1, 31, 63):
        bucket = int(pair_N2[k, 0]) * 2 >> 32
        for step, expected in ((0, 1 - bucket), (1, bucket)):
            table_V2 = np.array([[0, 0], [0, 1]], dtype=np.uint32)
            table_V2[bucket] = (int(pair_N2[k, 1]) + step, 1 - bucket)
            assert draw(impl, table_V2, 4, 5, 6, 1, 64)[0, k] == expected


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.one_of(st.just(0.0), st.floats(1e-300, 1e300), st.floats(0.9, 1.1)), min_size=2, max_size=40),
    st.integers(0, 2**64 - 1),
    st.integers(0, 2**64 - 1),
    st.integers(0, 2**32 - 8),
)
def test_any_weights_any_counter(weight_list, seed, step, group):
    weight_V = np.array(weight_list)
    if np.count_nonzero(weight_V) < 2:
        weight_V[:2] = 1.0
    target_V = reference.integer_mass(weight_V)
    assert sum(map(int, target_V)) == 2**64
    table_V2 = reference.build(target_V)
    np.testing.assert_array_equal(_cpu.build(target_V), table_V2)
    assert sum(python_mass(table_V2)) == 2**64
    id_GK = draw(reference, table_V2, seed, step, group, 3, 33)
    np.testing.assert_array_equal(draw(_cpu, table_V2, seed, step, group, 3, 33), id_GK)
    assert (weight_V[id_GK] > 0).all()


@pytest.mark.parametrize("impl", IMPLS)
def test_a_group_and_a_prefix_can_be_drawn_alone(impl):
    table_V2 = reference.build(reference.integer_mass(weights("zipf", 1000)))
    whole = draw(impl, table_V2, 1, 2, 5, 4, 40_001)
    for g in range(4):
        np.testing.assert_array_equal(draw(impl, table_V2, 1, 2, 5 + g, 1, 40_001)[0], whole[g])
    np.testing.assert_array_equal(draw(impl, table_V2, 1, 2, 5, 4, 101), whole[:, :101])
    assert len({row.tobytes() for row in whole}) == 4


def test_reference_chunks_do_not_show(monkeypatch):
    table_V2 = reference.build(reference.integer_mass(weights("zipf", 1000)))
    whole = draw(reference, table_V2, 9, 8, 7, 2, 1001)
    for chunk in (2, 7, 100):
        monkeypatch.setattr(reference, "_CHUNK", chunk)
        np.testing.assert_array_equal(draw(reference, table_V2, 9, 8, 7, 2, 1001), whole)


def test_ids_do_not_depend_on_threads():
    """300,000 draws, split over threads, against the same in one thread and in numpy."""
    code = (
        "import hashlib, numpy as np\n"
        "from fastpop.kernels.alias_draw import _cpu, reference\n"
        "t = reference.build(reference.integer_mass(1 / np.arange(1., 501)))\n"
        "ids = _cpu.forward(reference.Inputs(t, (3, 4), 0, 3, 100_001))\n"
        "print(hashlib.sha256(ids.tobytes()).hexdigest())\n"
    )
    seen = set()
    for threads in ("1", "2", "5"):
        environment = {**os.environ, "OMP_NUM_THREADS": threads, "OMP_DYNAMIC": "false"}
        done = subprocess.run(
            [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
        )
        seen.add(done.stdout)
    assert len(seen) == 1
    table_V2 = reference.build(reference.integer_mass(1 / np.arange(1.0, 501)))
    np.testing.assert_array_equal(
        draw(_cpu, table_V2, 3, 4, 0, 3, 100_001), draw(reference, table_V2, 3, 4, 0, 3, 100_001)
    )


def test_the_gil_is_free_while_drawing():
    table_V2 = _cpu.build(reference.integer_mass(np.ones(100_000)))
    worker = threading.Thread(target=draw, args=(_cpu, table_V2, 0, 0, 0, 1, 60_000_000))
    worker.start()
    time.sleep(0.01)
    ticks = 0
    while worker.is_alive():
        ticks += 1
        time.sleep(0.001)
    assert ticks > 5


def test_ids_above_two_to_the_24_are_whole():
    num_items = 2**24 + 12_345
    table_V2 = _cpu.build(reference.integer_mass(np.ones(num_items)))
    id_K = draw(_cpu, table_V2, 0, 0, 0, 1, 200_000)[0]
    np.testing.assert_array_equal(id_K, draw(reference, table_V2, 0, 0, 0, 1, 200_000)[0])
    above = id_K[id_K > 2**24]
    assert above.size > 50
    assert (above % 2 == 1).any()


def test_the_extension_refuses_other_layouts():
    with pytest.raises(TypeError):
        _C.alias_draw(np.zeros((3, 2), dtype=np.int64), 0, 0, 0, 1, 1)
    with pytest.raises(ValueError, match=r"table_V2: expected shape \[V, 2\]"):
        _C.alias_draw(np.zeros((3, 3), dtype=np.uint32), 0, 0, 0, 1, 1)


def test_unsupported_names_the_reason():
    here = reference.Inputs(np.zeros((1, 2), dtype=np.uint32), (0, 0), 0, 1, 1)
    assert reference.unsupported(here) is None
    assert _cpu.unsupported(here) is None
    assert "CUDA" in _cuda.unsupported(here)
    elsewhere = here._replace(table_V2=torch.zeros(1, 2, dtype=torch.int32, device="meta"))
    for module in IMPLS:
        assert "the table is on meta, and this draws on the host" in module.unsupported(elsewhere)


def nvcc():
    home = os.environ.get("CUDA_HOME", "")
    beside = Path(home) / "bin" / "nvcc"
    return str(beside) if home and beside.exists() else shutil.which("nvcc")


@pytest.mark.skipif(nvcc() is None, reason="nvcc is neither on PATH nor under CUDA_HOME")
@pytest.mark.parametrize("arch", ["80", "90", "100"])
def test_the_cuda_kernel_compiles_without_spills(arch, tmp_path):
    done = subprocess.run(
        [
            nvcc(),
            "-O3",
            "-std=c++17",
            f"-gencode=arch=compute_{arch},code=sm_{arch}",
            "-Xptxas",
            "-v",
            "-cubin",
            f"-I{ROOT / 'csrc'}",
            str(ROOT / "csrc/alias_draw/cuda.cu"),
            "-o",
            str(tmp_path / "cuda.cubin"),
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    said = done.stdout + done.stderr
    kernels = re.findall(r"Compiling entry function '(\w*alias_draw_kernel\w*)'", said)
    spills = re.findall(r"(\d+) bytes spill stores, (\d+) bytes spill loads", said)
    registers = [int(n) for n in re.findall(r"Used (\d+) registers", said)]
    assert len(kernels) == 1
    assert spills == [("0", "0")]
    assert "0 bytes stack frame" in said
    # 256 threads a block at 64 registers still fill a multiprocessor by half.
    assert max(registers) <= 64


@pytest.mark.gpu
def test_cuda_draws_the_same_ids():
    table_V2 = reference.build(reference.integer_mass(weights("zipf", 1000)))
    on_device = torch.tensor(table_V2.view(np.int32), device=gpu())
    assert _cuda.unsupported(reference.Inputs(on_device, (0, 0), 0, 1, 1)) is None
    for groups, draws in ((1, 1), (3, 1001), (2, 70_000)):
        ours = draw(_cuda, on_device, 2**63 + 5, 2**40 + 1, 7, groups, draws).cpu().numpy()
        expected = draw(reference, table_V2, 2**63 + 5, 2**40 + 1, 7, groups, draws)
        np.testing.assert_array_equal(ours, expected)
