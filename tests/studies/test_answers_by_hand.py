"""What experiments read off their runs, against numbers made by hand."""

import math

import pytest

from fastpop.experiments.arms import POST_HOC
from fastpop.studies import convergence, encoders
from fastpop.studies.dimension import GENERATORS, exact_fits


def test_exact_fits_say_which_of_them_had_log_p_beside():
    name = "G=10 L=12 kappa=1"
    values, table = exact_fits({name: GENERATORS[name]}, (2,), starts=1)
    assert values[f"kl.none.{name}.d2"] == pytest.approx(0.1035, abs=6e-5)
    assert values[f"kl.frozen.{name}.d2"] < 1e-9
    assert table.rows == ((f"{name}, d=2", *values.values()),)


def test_epochs_until_most_of_the_gain_over_log_p_alone():
    """Seed 0: log p alone 7, the best arm 5, so 5.1 is 95 % of it. Seed 1: no arm gains anything."""
    curves = [
        ("standard", 0, [1, 2, 3], [8.0, 6.0, 5.5]),
        ("frozen", 0, [1, 2], [6.0, 5.0]),
        ("standard", 1, [1, 2], [6.0, 4.5]),
        ("frozen", 1, [1, 2], [5.0, 4.6]),
    ]
    compared = {"curves": [dict(zip(("arm", "seed", "epoch", "nll"), one)) for one in curves]}
    best, floors = convergence._best(compared), [7.0, 4.0]
    assert best == {0: 5.0, 1: 4.5}
    assert convergence._needed(compared, "frozen", floors, best) == [pytest.approx(1.9), math.inf]
    assert convergence._needed(compared, "standard", floors, best) == [math.inf, math.inf]
    known = convergence._known("30.epochs.frozen", [1.9, math.inf])
    assert known == {"30.epochs.frozen.reached": 1.0}
    assert convergence._known("x", [2.0, 4.0])["x"] == 3.0


def test_of_a_comparison_of_encoders_the_rows_as_served():
    """Post-hoc at beta 0, the two trained arms at beta 1, and frozen minus standard paired over seeds."""
    ndcg = {("standard", 1.0): 0.10, ("standard", 0.0): 0.01, ("frozen", 1.0): 0.12, ("frozen", 0.0): 0.02}
    ndcg |= {(POST_HOC, 0.0): 0.08, (POST_HOC, 1.0): 0.09}
    rows = [
        {
            "arm": arm,
            "seed": seed,
            "popularity_weight": weight,
            "epochs": "best",
            "values": {"ndcg@10": value + 0.001 * seed, "nll": 5 - value},
        }
        for (arm, weight), value in ndcg.items()
        for seed in range(3)
    ]
    summary = [
        {**row, "values": {"ndcg@10": {"mean": row["values"]["ndcg@10"], "low": None, "high": None, "n": 1}}}
        for row in rows
        if row["seed"] == 0
    ]
    matched = [
        {"arm": "frozen", "baseline": POST_HOC, "metric": "ndcg@10", "epochs": "best", **point}
        for point in (
            {"mean": 0.1, "low": 0.05, "high": 0.15, "n": 3},
            {"mean": 0.2, "low": 0.15, "high": 0.25, "n": 3},
            {"mean": 0.3, "low": 0.25, "high": 0.35, "n": 3},
        )
    ]
    found = encoders._values("sasrec", {"summary": summary, "matched": matched, "rows": rows})
    shown = {label: found[f"best.sasrec.{label}.ndcg"] for label in ("standard", "frozen", "post-hoc")}
    assert shown == {"standard": 0.10, "frozen": 0.12, "post-hoc": 0.08}
    assert found["best.sasrec.ndcg"] == pytest.approx(0.02)
    assert found["best.sasrec.nll"] == pytest.approx(-0.02)
    assert (found["best.sasrec.at 50"], found["best.sasrec.at 50.low"]) == (0.2, 0.15)
