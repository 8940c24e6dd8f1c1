"""A comparison on disk while it runs: what was asked, seeds that are measured, arms that are trained.

    out/unfinished/asked.json             the question, under a seal
    out/unfinished/seconds.json           how long each run took, in all processes that worked on it; of
                                          those side by side, the second has seconds-1.json, and so on
    out/unfinished/seed-0.json            all that is kept of a seed once its arms are measured
    out/unfinished/seed-1-frozen/         checkpoints of an arm, until its seed is measured

It goes once report.html and comparison.json stand; comparison.json is written last.
"""

import contextlib
import json
import shutil
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fastpop import checks, deprecated, report
from fastpop.experiments.twice import TRAINED
from fastpop.training import checkpoint, sealed
from fastpop.training.config import TrainConfig
from fastpop.training.folder import others_in

FOLDER = "unfinished"
FINISHED = "comparison.json"
SUMS = "sha256"  # a key there: checksums of what stands beside it


def state_of(out: Path) -> str:
    """What a comparison that was stopped left in `out`, and how it goes on, in words."""
    if (out / FINISHED).exists():
        return f"the comparison in {out} is finished"
    try:
        asked = sealed.read(out / FOLDER / "asked.json")
    except (OSError, ValueError):
        return "nothing was written: the same command starts anew"
    arms, seeds = asked["arms"], asked["seeds"]
    done = sum(
        len(arms)
        if (out / FOLDER / f"seed-{seed}.json").exists()
        else sum(is_trained(out / FOLDER / f"seed-{seed}-{arm}") for arm in arms)
        for seed in seeds
    )
    return f"{done} of {len(arms) * len(seeds)} runs are in {out}: the same command goes on"


def is_trained(folder: Path) -> bool:
    return (folder / TRAINED).exists()


class Unfinished:
    """The account of one comparison in a folder that is held.

    Raises ValueError for a folder of something else, or of another question.
    """

    def __init__(self, out: Path, asked: dict[str, Any]):
        self.out, self.folder = out, out / FOLDER
        check_folder(out)
        asked = json.loads(json.dumps(asked))
        if (self.folder / "asked.json").exists():
            with checkpoint.explained(self.folder):
                refuse_another_question(out, sealed.read(self.folder / "asked.json"), asked)
        else:
            with checkpoint.explained(self.folder):
                sealed.write(self.folder / "asked.json", asked)

    def arm_folder(self, seed: int, arm: str) -> Path:
        return self.folder / f"seed-{seed}-{arm}"

    def measured(self, seed: int) -> dict[str, Any] | None:
        """What `keep` was given for this seed. A damaged file is warned of, and measured anew."""
        path = self.folder / f"seed-{seed}.json"
        if not path.exists():
            return None
        try:
            return sealed.read(path)
        except sealed.Damaged as error:
            warnings.warn(f"{error}. Seed {seed} is run anew.", UserWarning, stacklevel=3)
            return None

    def keep(self, seed: int, measured: dict[str, Any]) -> None:
        """A seed is done: its numbers stay, its checkpoints go."""
        with checkpoint.explained(self.folder):
            sealed.write(self.folder / f"seed-{seed}.json", measured)
        for arm_folder in self.folder.glob(f"seed-{seed}-*"):
            shutil.rmtree(arm_folder, ignore_errors=True)

    def seconds(self) -> dict[str, float]:
        """What runs took so far, by run; empty where nothing is known."""
        found: dict[str, float] = {}
        for path in self.folder.glob("seconds*.json"):
            with contextlib.suppress(sealed.Damaged, OSError):
                for run, seconds in sealed.read(path).items():
                    found[run] = max(seconds, found.get(run, 0.0))  # who goes on has those before it, too
        return found

    @contextlib.contextmanager
    def unless_refused(self) -> Iterator[None]:
        """An error within, before anything is kept that took training, leaves no question behind: what is
        then asked instead is another one."""
        try:
            yield
        except Exception:
            if not any(self.folder.glob("seed-*.json")) and not any(map(_holds, self.folder.glob("seed-*/"))):
                self.close()
            raise

    def close(self) -> None:
        """The report stands: nothing here is needed any more."""
        shutil.rmtree(self.folder, ignore_errors=True)


def _holds(arm_folder: Path) -> bool:
    """Whether an arm was trained there, or can go on."""
    return is_trained(arm_folder) or checkpoint.latest(arm_folder) is not None


class Stopwatch:
    """How long a comparison took, by run, whichever processes worked on it. What a killed one had not told
    yet is lost."""

    def __init__(self, account: Unfinished | None, rank: int = 0):
        self.account, self.rank, self.since = account, rank, time.perf_counter()
        self.seconds = account.seconds() if account else {}

    def lap(self, run: str) -> None:
        """The time since the last lap was this run's."""
        now = time.perf_counter()
        self.seconds[run] = self.seconds.get(run, 0.0) + now - self.since
        self.since = now
        if self.account:
            with contextlib.suppress(OSError):  # nothing that a run should end for
                name = f"seconds-{self.rank}.json" if self.rank else "seconds.json"
                sealed.write(self.account.folder / name, self.seconds)

    def join(self) -> None:
        """The time since the last lap was spent waiting for others, whose runs count from now on."""
        assert self.account is not None
        self.seconds, self.since = self.account.seconds(), time.perf_counter()

    def total(self) -> float:
        return round(sum(self.seconds.values()) + time.perf_counter() - self.since, 1)


def check_folder(out: Path) -> None:
    """ValueError where `out` has files that are no comparison's. Makes nothing."""
    if out.is_dir() and others_in(out) and not any((out / name).exists() for name in (FOLDER, FINISHED)):
        raise checks.wrong(
            "out",
            "a new or an empty folder, or one of an unfinished comparison",
            text=f"{out}, which has other files",
        )


def finished(out: Path, asked: dict[str, Any]) -> report.schema.Comparison | None:
    """The comparison that stands in `out`; None where none does. ValueError for another question:
    it is not overwritten."""
    path = out / FINISHED
    if not path.exists():
        return None
    try:
        comparison: Any = sealed.read(path, older=True)
        comparison.pop(SUMS, None)
        before = dict(comparison["made_by"]["asked"])
        before["config"] = dict(before["config"])
    except sealed.Damaged as error:
        raise checks.wrong("out", "a new folder", text=f"a damaged comparison: {error}") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise checks.wrong(
            "out", "a new folder", text=f"{out}, whose {FINISHED} cannot be read: {type(error).__name__}"
        ) from None
    refuse_another_question(out, before, json.loads(json.dumps(asked)))
    missing = report.schema.Comparison.__required_keys__ - comparison.keys()
    if missing:
        raise checks.wrong(
            "out",
            "a comparison as this version writes it, or a new folder",
            text=f"{out}, whose {FINISHED} has no {min(missing)!r}",
        )
    return comparison


def damaged(out: Path) -> list[str]:
    """What stands beside a finished comparison.json and is not as it was written, by its checksums there; an
    earlier version wrote none."""
    return sealed.differing(out, sealed.read(out / FINISHED, older=True).get(SUMS, {}))


def refuse_another_question(out: Path, before: dict[str, Any], asked: dict[str, Any]) -> None:
    """ValueError that names the first option in which two questions differ."""
    before = {"others": {}, "metrics": [], "diagnostics": [], **before}  # as where nothing was asked for
    kept = deprecated.current(before.get("config", {}), TrainConfig.RENAMED, silent=True)
    flat_before, flat = before | kept, asked | asked["config"]
    for name, value in flat.items():
        if name != "config" and flat_before.get(name) != value:
            had = "another" if name == "log_sha256" else repr(flat_before.get(name))
            raise checks.wrong(
                "log" if name == "log_sha256" else name,
                f"{had}, as in the comparison in {out} (or a new folder)",
                value,
                text="others" if name == "log_sha256" else None,
            )
