"""Numbers of one seed: energies, what changed and how much of that is popularity, geometry, tests."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from fastpop import diagnostics
from fastpop.experiments.arms import STANDARD
from fastpop.experiments.further import NOTHING_FURTHER, Further
from fastpop.experiments.one_arm import BETAS, Reading
from fastpop.experiments.served import Served

LABEL = "label"  # whose p-values have plain names


def p_key(null: str, kind: str) -> str:
    """The name of a p-value in a row."""
    return f"p_value_{kind}" if null == LABEL else f"p_value_{null}_{kind}"


def measure_reading(
    readings: dict[str, Reading],
    log_prior_A: np.ndarray,
    log_prior_B: np.ndarray,
    *,
    permutations: int,
    seed: int,
    nulls: Sequence[diagnostics.Null],
    further: Further = NOTHING_FURTHER,
) -> tuple[list[dict[str, Any]], list[dict[str, Any]], dict[str, Any]]:
    """(rows without seed and name of the reading, paired tests, the audits by null).

    readings: by trained arm, all at equal epochs or all at their best. One direction, log p of half A,
    and one stream of permutations for all arms; log_prior_B: of the other half. further: diagnostics of
    learned parts that were asked for.
    """
    families = {family.arm: family for reading in readings.values() for family in reading.served}
    learned = {arm: family.moments for arm, family in families.items()}
    pairs = [(STANDARD, arm) for arm in learned if arm != STANDARD]
    tests = {
        str(null): diagnostics.audit_many(
            learned, log_prior_A, pairs=pairs, permutations=permutations, seed=seed, null=null
        )
        for null in nulls
    }
    rows = []
    for reading in readings.values():
        for family in reading.served:
            values = {"epoch": reading.epoch} | _learned(
                family, families[STANDARD], tests, log_prior_A, log_prior_B
            )
            values |= further.measured(family.moments, log_prior_A)
            rows.append(_row(family.arm, None, values))
            betas = dict.fromkeys(
                beta for arm, beta in (*reading.evaluations, *reading.shown) if arm == family.arm
            ) or (1.0,)
            for beta in betas:
                values = {}
                if beta in BETAS:
                    values |= energies(family.at(beta).energy(log_prior_A))
                if (family.arm, beta) in reading.evaluations:
                    values |= judged(reading.evaluations[family.arm, beta].metrics, beta)
                values |= reading.shown.get((family.arm, beta), {})
                rows.append(_row(family.arm, beta, values))
    return rows, _paired(tests), tests


def judged(metrics: dict[str, float], beta: float) -> dict[str, float]:
    """Metrics without the NLL where it means nothing: at another beta than 1 no score is a model of
    p(i | c)."""
    return {
        name: value
        for name, value in metrics.items()
        if beta == 1 or not name.startswith(("nll", "perplexity"))
    }


def energies(energy: Any) -> dict[str, float]:
    return {
        "energy_total": energy.total,
        "energy_direction": energy.direction,
        "energy_off_direction": energy.off_direction,
        "energy_shared": energy.shared,
        "energy_heterogeneous": energy.heterogeneous,
        "slope": energy.slope_mean,
        "fraction_direction": energy.fraction_direction,
        "fraction_shared": energy.fraction_shared,
    }


def _learned(
    family: Served, standard: Served, tests: dict[str, Any], log_prior_A: np.ndarray, log_prior_B: np.ndarray
) -> dict[str, float]:
    """Of the learned part of one arm."""
    arm, moments = family.arm, family.moments
    any_test = next(iter(tests.values()))
    energy, base = (any_test.energy[name] for name in (arm, STANDARD))
    other = moments.energy(log_prior_B)
    shape = diagnostics.geometry(moments, log_prior_A)
    return energies(energy) | {
        "amplitude": energy.amplitude_ratio(base),
        "reduction_shared": 1 - energy.shared / base.shared if base.shared else float("nan"),
        "cos2_change": diagnostics.change_along(standard.moments, moments, log_prior_A),
        **{
            p_key(null, kind): getattr(test, kind)[arm].p_value
            for null, test in tests.items()
            for kind in ("direction", "shared")
        },
        "energy_shared_b": other.shared,
        "slope_b": other.slope_mean,
        "r1_items": shape.items_centred.r1,
        "r1_scores": shape.scores.r1,
        "effective_rank_items": shape.items_centred.effective_rank,
        "effective_rank_scores": shape.scores.effective_rank,
        "cosine_items": shape.average_cosine_centred,
        "pc1_items": shape.pc1_correlation,
        "pc1_scores": diagnostics.score_pc1_correlation(moments, log_prior_A),
    }


def _paired(tests: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        {
            "arm": second,
            "null": null,
            "delta_direction": pair.direction.observed,
            "p_direction": pair.direction.p_value,
            "delta_shared": pair.shared.observed,
            "p_shared": pair.shared.p_value,
        }
        for null, audits in tests.items()
        for (_, second), pair in audits.pairs.items()
    ]


def _row(arm: str, beta: float | None, values: dict[str, float]) -> dict[str, Any]:
    return {
        "arm": arm,
        "popularity_weight": beta,
        "values": {name: float(value) for name, value in values.items() if not np.isnan(value)},
    }
