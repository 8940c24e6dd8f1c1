"""Faults of processes: killed, stopped, doubled, on a clock that jumps."""

import random
import shutil
import signal
import time
from pathlib import Path

from helpers_cli import Done
from helpers_faults import WRITES, Bench, Lost, Trial, fault, left_in

STOPPED = WRITES[1:]


def killed_at_random(verb: str) -> Trial:
    def trial(bench: Bench, chance: random.Random) -> str:
        for _ in range(20):
            out = bench.new()
            older = verb == "prepare" and chance.random() < 0.5
            if older:
                shutil.copytree(bench.whole("prepare"), out)
            running = bench.at_random(verb, chance, out)
            running.send_signal(signal.SIGKILL)
            if running.wait().returncode == -signal.SIGKILL:
                left = left_in(verb, out)
                if older and left == "nothing":
                    raise Lost("prepare: the older log is gone")
                return _went_on(bench, verb, out, left)
        raise Lost(f"{verb}: ended before it could be killed, twenty times")

    return trial


def killed_at_an_operation(verb: str, fragment: str = "") -> Trial:
    def trial(bench: Bench, chance: random.Random) -> str:
        out = bench.new()
        bench.killed_at(verb, out, fragment, chance.randint(1, bench.operations(verb, fragment)))
        return _went_on(bench, verb, out, left_in(verb, out))

    return trial


def _went_on(bench: Bench, verb: str, out: Path, left: str) -> str:
    """The same command, to its end, unless that was there: it leaves what an undisturbed one does."""
    done = left == "finished" and verb in ("train", "checkpoint")
    if not done:
        started = time.monotonic()
        bench.again(verb, out)
        if left == "nothing":
            bench.takes_now(verb, time.monotonic() - started)
    bench.must_be_whole(verb, out, locks=done)
    return left


for _verb in ("prepare", "train", "compare", "experiment"):
    fault(f"kill {_verb}", f"SIGKILL at a random moment of `fastpop {_verb}`")(killed_at_random(_verb))
fault("kill checkpoint", "SIGKILL at a random operation on files of checkpoints, one after every step")(
    killed_at_an_operation("checkpoint", "checkpoint-")
)
for _verb in WRITES:
    fault(f"kill at a file, {_verb}", f"SIGKILL at a random operation on files of `fastpop {_verb}`")(
        killed_at_an_operation(_verb)
    )


@fault("SIGTERM", "SIGTERM at a random moment of train, compare or experiment: exit code 143, one line")
def terminated(bench: Bench, chance: random.Random) -> str:
    verb, out = chance.choice(STOPPED), bench.new()
    running = bench.at_random(verb, chance, out)
    running.send_signal(signal.SIGTERM)
    done = running.wait()
    if done.returncode == -signal.SIGTERM and not out.exists():
        return _went_on(bench, verb, out, "before the command had begun")
    return _stopped(bench, verb, out, done, 143, "fastpop: stopped by SIGTERM")


@fault("deadline", "--deadline at a random moment of train, compare or experiment: exit code 75, one line")
def at_deadline(bench: Bench, chance: random.Random) -> str:
    verb, out = chance.choice(STOPPED), bench.new()
    seconds = chance.uniform(0.01, 1) * bench.seconds(verb)
    done = bench.start(verb, out, "--deadline", f"{seconds:.3f}s").wait()
    return _stopped(bench, verb, out, done, 75, "fastpop: stopped at --deadline")


def _stopped(bench: Bench, verb: str, out: Path, done: Done, code: int, word: str) -> str:
    """Stopped in one line that says what is there, and gone on with."""
    left = left_in(verb, out)
    if done.returncode:
        said = [line for line in done.stderr.splitlines() if line.startswith("fastpop: ")]
        if done.returncode != code or len(said) != 1 or not said[0].startswith(word):
            raise Lost(f"{verb}: expected {code} and one line; got {done.returncode}: {done.stderr}")
        if verb == "train" and ("is in" in said[0]) != (left == "a checkpoint"):
            raise Lost(f"train: {left} is there, and it says {said[0]}")
    return _went_on(bench, verb, out, left if done.returncode else "finished")


@fault("second process", "the same command beside one that runs: exit code 1, and the number of the first")
def second(bench: Bench, chance: random.Random) -> str:
    verb, out = chance.choice(WRITES), bench.new()
    first = bench.at_random(verb, chance, out)
    other = bench.start(verb, out)
    pair = ((first.pid, first.wait()), (other.pid, other.wait()))
    refused = [done for _, done in pair if "is writing now" in done.stderr]
    if len(refused) > 1:
        raise Lost(f"{verb}: both were refused: {pair}")
    for done in refused:
        winner = next(pid for pid, one in pair if one is not done)
        lines = done.stderr.splitlines()
        if (
            done.returncode != 1
            or len(lines) != 1
            or f"which process {winner} is writing now" not in lines[0]
        ):
            raise Lost(f"{verb}: expected 1 and process {winner}; got {done.returncode}: {done.stderr}")
    for _, done in pair:
        ended = not done.returncode or "which holds a finished run" in done.stderr
        if not ended and done not in refused:
            raise Lost(f"{verb}: ended with {done.returncode}: {done.stderr}")
    bench.must_be_whole(verb, out)
    return "one was refused" if refused else "one after the other"


@fault("clock jumps", "the clock of the day jumps by up to twenty years, both ways, again and again")
def on_a_wrong_clock(bench: Bench, chance: random.Random) -> str:
    verb, out = chance.choice(WRITES), bench.new()
    jumps = {"FAULT_CLOCK": f"{chance.randint(1, 40)},{int(10 ** chance.uniform(0, 8.8))}"}
    commands, words = bench.on_a_wrong_clock(), bench.words(verb, out)
    killed = False
    if chance.random() < 0.5:
        running = commands.start(*words, **jumps)
        time.sleep(chance.uniform(0, bench.seconds(verb)))
        running.send_signal(signal.SIGKILL)
        killed = running.wait().returncode != 0
    finished = verb == "train" and left_in(verb, out) == "finished"
    if not finished:
        done = commands.start(*words, **jumps).wait()
        if done.returncode:
            raise Lost(f"{verb} ended with {done.returncode}: {done.stderr}")
    bench.must_be_whole(verb, out, locks=finished)
    return "killed, and given again" if killed else "not killed"
