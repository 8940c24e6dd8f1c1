"""Important lines, each with one way to get it wrong, and the assertion that must notice.

`python tests/mutants.py` tries all of them on copies of the package and prints a line each;
`python tests/mutants.py 3 c7` tries those. tests/test_mutants.py runs them under pytest.

A mutant is caught only by the test that it names, failing in the words that it names: another test, or
the same one for another reason, is no proof that this line is watched.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
CAUGHT = "caught"
OTHER_WORDS = "MISSED: it failed in other words:"


@dataclass(frozen=True)
class PythonMutant:
    what: str
    file: str  # from the root of the project
    right: str  # text that is there once
    wrong: str
    test: str  # the id of one test
    says: str  # part of its failure: of the message, or of the line that asserts
    path: str | None = None  # of the processor's, that the test needs
    often: bool = True  # quick enough for `make test`
    interpreted: bool = False  # the test is of Triton, under its interpreter


SAMPLED = "kernels/sampled_softmax/reference.py"
MUTANTS = [
    Mutant("sign of the log Q correction", SAMPLED,
           "neg_gsK = neg_gsK - (log_q_gK + log_count)",
           "neg_gsK = neg_gsK + (log_q_gK + log_count)",
           "tests/ops/test_sampled_softmax.py -k right_sign"),
    Mutant("log K left out of the corrected loss", SAMPLED,
           'math.log(max(num_drawn, 1)) if inputs.logq == "corrected" else 0.0', "0.0",
           "tests/ops/test_sampled_softmax.py -k right_sign"),
    Mutant("a dropped hit becomes a phantom of logit 0", SAMPLED,
           "neg_gsK = neg_gsK.masked_fill(hit_gsK, -math.inf)",
           "neg_gsK = neg_gsK.masked_fill(hit_gsK, 0.0)",
           "tests/ops/test_sampled_softmax.py -k phantom"),
    Mutant("in-batch rows drop a neighbour's slot", SAMPLED,
           "own_gsK = (slot_K == row_r[:, None])", "own_gsK = (slot_K == row_r[:, None] + 1)",
           "tests/ops/test_sampled_softmax.py -k in-batch"),
    Mutant("temperature multiplies the prior too", SAMPLED,
           "prior = inputs.prior_weight, inputs.log_prior_V",
           "prior = inputs.scale * inputs.prior_weight, inputs.log_prior_V",
           "tests/ops/test_sampled_softmax.py -k temperature"),
    Mutant("the knob of a standard model is off by one", "fastpop/decoder.py",
           'popularity_weight - 1 if self.prior == "none" else popularity_weight',
           "popularity_weight", "tests/training/test_decoder.py"),
    Mutant("p-values without the + 1", "fastpop/diagnostics/significance.py",
           "p_value = (1 + exceed) / (len(null_P) + 1)", "p_value = exceed / len(null_P)",
           "tests/diagnostics"),
    Mutant("seen items are not masked", "fastpop/evaluation/ranking.py",
           "history if mask_seen else None, allowed,", "None, allowed,",
           "tests/evaluation"),
    Mutant("the last but one event becomes the test", "fastpop/data/split.py",
           "end = end_U[count_U >= skipped + n + 1] - skipped",
           "end = end_U[count_U >= skipped + n + 1] - skipped - 1",
           "tests/data/test_split.py"),
    Mutant("log p is counted on the whole log: test events leak", "fastpop/training/run.py",
           "build.target_prior(parts.train,", "build.target_prior(log,",
           "tests/training/test_train.py -k reaches"),
    Mutant("items are not centred before the Gram product", "kernels/row_moments/reference.py",
           "            x_CR = x_CR - mean_R\n", "",
           "tests/kernels/test_score_energy.py"),
    Mutant("heterogeneous energy with the scale not squared", "fastpop/ops/energies.py",
           "scale**2 * float(u_D @ cov_DD @ u_D)", "scale * float(u_D @ cov_DD @ u_D)",
           "tests/diagnostics"),
    Mutant("alias threshold compared with <=", "kernels/alias_draw/reference.py",
           "pair_N2[:, 1] < row_N2[:, 0]", "pair_N2[:, 1] <= row_N2[:, 0]",
           "tests/kernels/test_alias_draw.py"),
    Mutant("a checkpoint forgets the optimisers", "fastpop/training/run.py",
           'checkpoint.restore_optimizers(optimizers, tensors["optimizer"])', "pass",
           "tests/training/test_resume.py -k two_more"),
    Mutant("training targets are the inputs themselves", "fastpop/data/batches.py",
           "target=np.where(real, log.item[np.where(real, at + 1, 0)].astype(np.int64), PAD),",
           "target=np.where(real, log.item[at].astype(np.int64), PAD),", "tests/encoders"),
    Mutant("row-wise Adagrad squares each duplicate alone", "kernels/row_update/reference.py",
           "    if ascending:\n", "    if True:\n", "tests/ops/test_row_update.py"),
    Mutant("post-hoc forgets to subtract", "fastpop/experiments/arms.py",
           "return moments.with_popularity(-1, log_prior_V)", "return moments",
           "tests/experiments/test_compare.py -k made_of_the_standard_model"),
    Mutant("the permuted control is not permuted", "fastpop/experiments/compare.py",
           'log_priors["permuted"] = priors["A"].permuted(seed).log_prior_V',
           'log_priors["permuted"] = priors["A"].log_prior_V',
           "tests/experiments -k control"),
    Mutant("labels not drawn fill the blanks in order", "kernels/permutation/_numba.py",
           "        _shuffle(key, start, moving, code_n, target)\n", "",
           "tests/kernels/test_permutation.py -k arrangement"),
    Mutant("strata share their bytes", "kernels/permutation/_numba.py",
           "_stream_key(_stream_key(key, s), attempt)", "_stream_key(_stream_key(key, 0), attempt)",
           "tests/kernels/test_permutation.py -k draws"),
    Mutant("in Triton a dropped hit becomes a phantom of logit 0",
           "kernels/sampled_softmax/_triton_kernels.py",
           'logit_bk = tl.where(id_k[None, :] == pos_id_b[:, None], float("-inf"),',
           "logit_bk = tl.where(id_k[None, :] == pos_id_b[:, None], 0.0,",
           "tests/ops/test_triton_sampled.py"),
    Mutant("in Triton equal top items go to the larger id", "kernels/top_items/_triton.py",
           "from_right_N = torch.arange(width, 0, -1,", "from_right_N = torch.arange(1, width + 1, 1,",
           "tests/ops/test_triton.py -k test_top_items"),
    Mutant("a target is its own rival", "kernels/target_ranks/reference.py",
           "        counts[is_here.nonzero()[:, 0], place_m[some][is_here]] = False\n", "",
           "tests/ops/test_target_ranks.py -k exact"),
    Mutant("a case's targets count against each other", "fastpop/evaluation/positions.py",
           "left_out = np.union1d(seen_key, pair_key)", "left_out = seen_key",
           "tests/evaluation -k definition"),
    Mutant("narrow ids multiply in their own type", "fastpop/data/own_test.py",
           "log.user[at].astype(np.int64) * log.num_items", "log.user[at] * log.num_items",
           "tests/data/test_prepared.py -k same_bits"),
    Mutant("a refreshed prior is lost on the way to disk", "fastpop/training/run.py",
           'if "prior" not in state:', "if True:", "tests/training/test_train.py -k comes_back"),
    Mutant("a living writer's draft is swept", "fastpop/files.py",
           "            _lock(file.fileno())  # before it has the name of what is swept\n", "",
           "tests/test_files.py -k living"),
    Mutant("ignored rows go into the kernels", "fastpop/ops/_counted.py",
           "if drop or num_kept == 0:", "if num_kept == 0:",
           "tests/ops/test_row_shapes.py -k reach_no_implementation"),
    Mutant("a padding row comes back at a prior weight of 0", "fastpop/ops/door.py",
           "    return log_prior + removed_V, prior_weight", "    return log_prior, prior_weight",
           "tests/ops/test_row_shapes.py -k padding_row_is_no_item"),
    Mutant("a forward-mode tangent is dropped in silence", "fastpop/ops/readable.py",
           "        return forward_ad.unpack_dual(value).tangent is not None\n", "        return False\n",
           "tests/ops/test_readable.py -k tangent"),
    Mutant("every process draws the same", "fastpop/objectives/softmax.py",
           "seed_of(self.seed, rank)", "self.seed",
           "tests/objectives/test_in_trainers.py -k draw_negatives"),
    Mutant("checkpointing counts the step again", "fastpop/objectives/softmax.py",
           "torch._C._current_graph_task_id() != -1", "False",
           "tests/objectives/test_in_trainers.py -k own_count_is_refused"),
    Mutant("entries that repeat are not summed before the norm", "fastpop/optim.py",
           "        return grad\n    return grad.coalesce()", "        return grad\n    return grad",
           "tests/test_clipping.py -k norm_and"),
    Mutant("a bad list of items is left out in part", "fastpop/data/faults.py",
           "if one.starts is not None:", "if False:",
           "tests/data/test_lists_and_names.py -k goes_whole"),
    Mutant("a bad row hides dates that look like seconds", "fastpop/data/faults.py",
           "tick = tick if tick is None or kind is None else tick[kind == log_rows.WHOLE_TICK]",
           "kind = None", "tests/data/test_mistaken.py -k does_not_hide"),
    Mutant("a path goes to DuckDB as a pattern", "fastpop/data/paths.py",
           "if _plain(whole):", "if True:", "tests/data/test_paths.py"),
]


Mutant = PythonMutant | CsrcMutant


def change(mutant: Mutant, copy: Path) -> None:
    """Makes the one change in a copy of the package."""
    if isinstance(mutant, CsrcMutant):
        return build(mutant.number, copy)
    file = copy / mutant.file if mutant.file.startswith("fastpop") else copy / "fastpop" / mutant.file
    text = file.read_text()
    if text.count(mutant.right) != 1:
        raise ValueError(f"{mutant.file}: expected once: {mutant.right!r}")
    file.write_text(text.replace(mutant.right, mutant.wrong))


def build(number: int, copy: Path) -> None:
    """fastpop._C of a copy with one mutant in it, 0: with none. Seconds: setup.py compiles what holds it
    and takes the other objects from the last build."""
    for built in (copy / "fastpop").glob("_C.*"):
        built.unlink()
    environment = os.environ | {"FASTPOP_MUTANT": str(number), "FASTPOP_CUDA": "0"}
    done = subprocess.run(
        [sys.executable, "setup.py", "-q", "build_ext", "--build-lib", str(copy), "--build-temp",
         str(copy / "objects")], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600)
    if done.returncode:
        raise RuntimeError(f"mutant {number} of csrc was not built\n{done.stdout}{done.stderr}")


def verdict(mutant: Mutant) -> str:
    """"caught", or what happened instead to the named test on a copy with this one change."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder)
        ignore = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / "fastpop", copy / "fastpop", ignore=ignore)
        shutil.copytree(ROOT / "kernels", copy / "fastpop" / "kernels", ignore=ignore)
        shutil.copytree(ROOT / "tests", copy / "tests", ignore=ignore)
        shutil.copy(ROOT / "pyproject.toml", copy)
        change(mutant, copy)
        environment = os.environ | {
            "PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1",
            "FASTPOP_TEST_DATA": os.environ.get("FASTPOP_TEST_DATA",
                                                str(ROOT.parent / "shared" / "data")),
        }
        environment.pop("CI", None)
        if isinstance(mutant, PythonMutant) and mutant.interpreted:
            environment["TRITON_INTERPRET"] = "1"
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--junitxml", "result.xml",
             mutant.test],
            cwd=copy, env=environment, capture_output=True, text=True, timeout=600)
        if done.returncode not in (0, 1):
            raise RuntimeError(f"{mutant.what}: pytest did not run\n{done.stdout}{done.stderr}")
        tests = list(ElementTree.parse(copy / "result.xml").iter("testcase"))
        if len(tests) != 1:
            raise ValueError(f"{mutant.test}: expected one test; got {len(tests)}")
        return judged(tests[0], mutant.says)


def judged(test: ElementTree.Element, says: str) -> str:
    """What a record of pytest's says of one test that should fail in these words."""
    failure = test.find("failure")
    if failure is None:
        other = next((one for one in test if one.tag in ("skipped", "error")), None)
        return "MISSED: it passed" if other is None else f"MISSED: {other.tag}: {other.get('message')}"
    # The message, and the lines that pytest marks: what it says of the failure, and where it was.
    marked = [line[1:].strip() for line in (failure.text or "").splitlines() if re.match("[>E] ", line)]
    words = "\n".join([failure.get("message", ""), *marked])
    return CAUGHT if says in words else f"{OTHER_WORDS} {words}"


def all_mutants() -> dict[str, Mutant]:
    """By label: 1, 2, ... in Python, c1, c2, ... in C++."""
    from mutants_of_csrc import CSRC_MUTANTS
    from mutants_of_python import PYTHON_MUTANTS

    numbered = {str(n): mutant for n, mutant in enumerate(PYTHON_MUTANTS, 1)}
    return numbered | {f"c{mutant.number}": mutant for mutant in CSRC_MUTANTS}


def of_day(day: int) -> list[str]:
    """Six labels, one of them of a mutant in C++, which has to be built. Days in a row go through all
    that are quick."""
    often = [label for label, mutant in all_mutants().items() if mutant.often]
    python, csrc = ([one for one in often if (one[0] == "c") == built] for built in (False, True))
    return [*(python[(5 * day + n) % len(python)] for n in range(5)), csrc[day % len(csrc)]]


def lacking(mutant: Mutant) -> str | None:
    """Why this machine cannot tell."""
    from fastpop.kernels import native

    if mutant.path is None or native.has_path(mutant.path):
        return None
    return f"this processor has no {mutant.path}"


def main(words: list[str]) -> int:
    everything = all_mutants()
    missed = skipped = 0
    for label in words or everything:
        mutant = everything[label]
        found = lacking(mutant)
        if found is not None:
            skipped += 1
            found = f"skipped: {found}"
        else:
            found = verdict(mutant)
            missed += found != CAUGHT
        said, *more = found.splitlines()
        print(f"{label:>3} {said}  {mutant.what}", *more, sep="\n    ", flush=True)
    tried = len(words or everything) - skipped
    print(f"{tried - missed} of {tried} caught")
    return missed


if __name__ == "__main__":
    import mutants  # under the name by which the lists know it

    sys.exit(mutants.main(sys.argv[1:]))
