"""Where all cases take too long: how long they would take, and estimates from some, asked for by name."""

import math
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from fastpop import checks
from fastpop.data.csr import Csr
from fastpop.evaluation.dot_scores import DotScores
from fastpop.evaluation.models import CaseScores, of_matrix
from fastpop.evaluation.result import Evaluation
from fastpop.stats import weighted_interval
from fastpop.types import DotModel

FEW, MORE = 32, 288  # cases that are timed: the more have a chunk of a large catalogue, 256, beside the few
LEAST_SECONDS = 0.3  # that the more take beyond the few, where there are cases for it: below, it is noise


def estimate(
    evaluate: Callable[..., Evaluation], score: Any, cases: Any, size: int, seed: int, options: dict[str, Any]
) -> Evaluation:
    """`evaluate` of `size` cases, drawn without replacement, with an interval for each mean over cases.

    What is of all lists together (coverage, Gini, ...) has no unbiased estimate in some of them and is left
    out. A mean over one case, or over cases of one value, has no interval, and the rule says so.
    """
    num_cases, per_item = int(cases.num_cases), int(cases.num_items)
    checks.number("sample_cases", size, ge=2, integer=True)
    checks.number("sample_seed", seed, ge=0, integer=True)
    if size >= num_cases:
        return evaluate(score, cases, **options)
    chosen = np.sort(np.random.default_rng(seed).permutation(num_cases)[:size])
    found = evaluate(*part(score, cases, chosen, per_item), **_options_of(chosen, num_cases, options))
    left = math.sqrt(1 - size / num_cases)  # a sample of all of them is no estimate
    intervals: dict[str, tuple[float, float]] = {}
    without: dict[str, list[str]] = {}
    for name, value_C in found.per_case.items():
        weight_C = found.weight_of(name)
        there = ~np.isnan(value_C) & (weight_C > 0)
        why = _no_interval(value_C[there])
        if why is not None:
            without.setdefault(why, []).append(name)
        elif there.any():
            mean, low, high = weighted_interval(value_C[there], weight_C[there].astype(float))
            intervals[name] = (mean - left * (mean - low), mean + left * (high - mean))
    rule = (
        f"estimates from {size:,} of {num_cases:,} cases drawn at random (seed {seed}), 95 % intervals; "
        "what is of all lists together is left out"
    )
    for why, names in without.items():
        rule += f"; no interval where a value is {why}: {', '.join(names)}"
    return replace(
        found,
        metrics={name: value for name, value in found.metrics.items() if name in found.per_case},
        rule=f"{found.rule}; {rule}",
        intervals=intervals,
        exposure={},
    )


def _no_interval(value_n: np.ndarray) -> str | None:
    """Why drawn values say nothing of how far off their mean may be; None where they do or there are none."""
    if len(value_n) == 1:
        return "of one of these cases alone"
    if not np.isfinite(value_n).all():
        return "infinite"
    if len(value_n) and np.ptp(value_n) == 0:  # the interval would have no width, as if all cases were known
        return "equal in all of these cases, too few to see a spread"
    return None


def predicted_seconds(
    evaluate: Callable[..., Evaluation], score: Any, cases: Any, options: dict[str, Any]
) -> float:
    """Seconds that all cases will take, from 32 of them and from so many more that these take a while."""
    num_cases, num_items = int(cases.num_cases), int(cases.num_items)

    def timed(size: int) -> float:
        chosen = np.linspace(0, num_cases - 1, size).astype(np.int64)
        given = part(score, cases, chosen, num_items)
        started = time.perf_counter()
        evaluate(*given, **_options_of(chosen, num_cases, options))
        return time.perf_counter() - started

    if num_cases <= FEW + MORE:
        started = time.perf_counter()
        evaluate(score, cases, **options)
        return time.perf_counter() - started
    timed(FEW)  # warms up
    few, size, more = timed(FEW), MORE, timed(MORE)
    while more - few < LEAST_SECONDS and 8 * size <= num_cases:
        size *= 8
        more = timed(size)
    return few + max(more - few, 0.0) / (size - FEW) * (num_cases - FEW)


def part(score: Any, cases: Any, chosen: np.ndarray, num_items: int) -> tuple[Any, Any]:
    """(scores, cases) of the chosen ones, ascending."""
    some = cases.take(chosen)
    if isinstance(score, DotModel):
        return score, some
    if isinstance(score, DotScores):
        return replace(score, query=score.query[torch.from_numpy(chosen).to(score.query.device)]), some
    scores = score if callable(score) else of_matrix(score, int(cases.num_cases), num_items)

    def of(rows: slice) -> Any:
        asked = chosen[rows]
        runs = np.split(asked, np.flatnonzero(np.diff(asked) != 1) + 1)
        got = [scores(slice(int(run[0]), int(run[-1]) + 1)) for run in runs]
        if all(isinstance(one, torch.Tensor) for one in got):
            return torch.cat(got)
        return np.concatenate([np.asarray(one) for one in got])

    return CaseScores(of, getattr(scores, "argument", "score(slice)")), some


def _options_of(chosen: np.ndarray, num_cases: int, options: dict[str, Any]) -> dict[str, Any]:
    """What is given by case, of the chosen ones."""
    given = dict(options)
    if given.get("weight") is not None:
        weight_C = checks.float_array("weight", given["weight"], 1)
        checks.shape("weight", weight_C, (num_cases,))
        given["weight"] = weight_C[chosen]
    if given.get("candidates") is not None:
        given["candidates"] = Csr.of("candidates", given["candidates"], num_rows=num_cases).take(chosen)
    return given
