"""Permutation tests that stop once they have seen enough: a large p costs few draws."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from fastpop import checks, registry
from fastpop.diagnostics.moments import ScoreMoments
from fastpop.diagnostics.null import Null
from fastpop.diagnostics.significance import TIE, Form
from fastpop.ops.energies import popularity_direction

BLOCK = 100  # draws at a time; the answer does not hang on it


@dataclass(frozen=True)
class SequentialTest:
    """p of Besag & Clifford: exceeding / draws where it stopped there, (1 + exceeding) / (draws + 1) where
    all were drawn. Valid: P(p <= a) <= a for every a under the null."""

    observed: float
    p_value: float
    num_draws: int
    num_exceeding: int
    stopped_early: bool


def sequential_test(
    draw: Callable[[int, int], np.ndarray],
    observed: float,
    *,
    exceedances: int = 10,
    most: int = 10_000,
    scale: float | None = None,
) -> SequentialTest:
    """Draw until `exceedances` statistics reach the observed one, or `most` are drawn.

    draw: of (first, count), statistics [count] of the draws numbered first .. first + count - 1.
    scale: the size against which rounding is judged; |observed| where None.
    Raises: ValueError, TypeError.
    Source: Besag & Clifford, Biometrika 78(2), 1991.
    """
    checks.number("observed", observed)
    checks.number("exceedances", exceedances, ge=1, integer=True)
    checks.number("most", most, ge=exceedances, integer=True)
    edge = observed - TIE * (abs(observed) if scale is None else scale)
    found = 0
    for first in range(0, most, BLOCK):
        count = min(BLOCK, most - first)
        drawn_P = checks.float_array("draw(first, count)", draw(first, count), 1)
        checks.shape("draw(first, count)", drawn_P, (count,))
        reached_P = drawn_P >= edge
        if found + reached_P.sum() >= exceedances:
            last = first + int(np.flatnonzero(reached_P)[exceedances - found - 1]) + 1
            return SequentialTest(float(observed), exceedances / last, last, exceedances, last < most)
        found += int(reached_P.sum())
    return SequentialTest(float(observed), (1 + found) / (most + 1), most, found, False)


def sequential_energy_test(
    moments: ScoreMoments,
    log_prior: Any,
    *,
    statistic: Literal["direction", "shared"] = "shared",
    exceedances: int = 10,
    most: int = 10_000,
    seed: int = 0,
    null: str | Null = "label",
    strata: Any = None,
    threads: int | None = None,
) -> SequentialTest:
    """`sequential_test` of an energy of scores along log p, of the stream of draws that `audit_many` has.

    log_prior: [V] nats. strata: [V] integers, with a null within strata. exceedances, most: as there.
    """
    checks.one_of("statistic", statistic, ("direction", "shared"))
    log_prior_V = checks.float_array("log_prior", log_prior, 1)
    checks.shape("log_prior", log_prior_V, (moments.num_items,))
    found_null: Null = registry.made("null", null)
    if found_null.strata != (strata is not None):
        raise checks.wrong("strata", "integers [V] with a null within strata, and only there", strata)
    stratum_V = None if strata is None else checks.int_array("strata", strata)
    if stratum_V is not None:
        checks.shape("strata", stratum_V, (moments.num_items,))
    label_V, _ = popularity_direction(log_prior_V)
    form = (Form.direction if statistic == "direction" else Form.shared)(moments)
    item_VR = form.item_VR

    def draw(first: int, count: int) -> np.ndarray:
        return form.at(
            found_null.project(
                label_V, item_VR, count, seed=seed, first=first, stratum_V=stratum_V, threads=threads
            )
        )

    observed = float(getattr(moments.energy(log_prior_V), statistic))
    return sequential_test(draw, observed, exceedances=exceedances, most=most)
