"""What every metric, null, diagnostic, preset and arm has to do."""

import dataclasses
import json
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from fastpop import data, diagnostics, evaluation, registry
from fastpop.components import Component
from fastpop.data.presets import Preset
from fastpop.diagnostics.significance import Form
from fastpop.evaluation.metric import NEEDS
from fastpop.stats import popularity_direction
from fastpop.training import TrainConfig

CASES, ITEMS, DIM = 40, 60, 5


def check_metric(metric: Any) -> None:
    """Words, keys, bounds; cases by themselves; nothing written to, nothing remembered; means and pairs.

    metric: a name, an object, or a class that can be made without options.
    """
    metric = made_component("metric", metric)
    name = str(metric)
    words_of(metric, "label", "definition")
    assert metric.direction in ("larger", "smaller", ""), f"{name}: direction {metric.direction!r}"
    assert metric.bounds[0] < metric.bounds[1], f"{name}: bounds {metric.bounds}"
    assert set(metric.needs) <= set(NEEDS), f"{name}: needs {metric.needs}, of which there are {list(NEEDS)}"
    for seed, options in enumerate(_evaluations(metric)):
        score_CV, cases, options = _cases(seed, options)
        plain = evaluation.evaluate(score_CV, cases, **options)
        found = evaluation.evaluate(score_CV, cases, metrics=[metric], **options)
        again = evaluation.evaluate(score_CV, cases, metrics=[metric], chunk_size=7, **options)
        ours = {key: value for key, value in found.metrics.items() if key in plain.metrics}
        assert _same(ours, dict(plain.metrics)), f"{name} changes other metrics"
        for key in [metric.key(k) for k in ((1, 10) if metric.at_k else (0,))]:
            if key not in found.metrics:
                continue
            mean = found.metrics[key]
            assert _same(mean, again.metrics[key]), f"{key}: {mean}, then {again.metrics[key]}"
            assert np.isnan(mean) or metric.bounds[0] <= mean <= metric.bounds[1], (
                f"{key} = {mean}, outside its bounds {metric.bounds}"
            )
            if metric.per_case:
                _check_cases(metric, key, found, score_CV, cases, options)


def _check_cases(metric: Any, key: str, found: Any, score_CV: Any, cases: Any, options: Any) -> None:
    value_C, weight_C = found.per_case[key], found.weight_of(key)
    assert (weight_C >= 0).all(), f"{key}: sizes of cases below 0"
    there = ~np.isnan(value_C) & (weight_C > 0)
    inside = (value_C[there] >= metric.bounds[0]) & (value_C[there] <= metric.bounds[1])
    assert inside.all(), f"{key}: values of cases outside its bounds {metric.bounds}"
    if there.any():
        mean = value_C[there] @ weight_C[there] / weight_C[there].sum()
        assert np.isclose(mean, found.metrics[key], rtol=1e-9), f"{key}: {found.metrics[key]} is not the mean"
        pair = evaluation.compare_paired(found, found, key)
        assert pair.difference == 0, f"{key}: differs from itself"
        assert pair.num_pairs == there.sum(), f"{key}: pairs without a value"
    order = np.random.default_rng(0).permutation(found.num_cases)
    turned = evaluation.evaluate(
        score_CV[order], _taken(cases, order), metrics=[metric], **_turned(options, order)
    )
    assert np.allclose(turned.per_case[key], value_C[order], rtol=1e-9, equal_nan=True), (
        f"{key}: the value of a case hangs on other cases or on their order"
    )


def check_null(null: Any) -> None:
    """Words; draws of unit length that hang on (seed, number) alone; projections that are linear in the
    items; exact moments, where there are any, against draws; p-values that are small for scores that are
    log p, and no smaller than they say for scores that are not.

    null: a name, an object, or a class that can be made without options.
    """
    null = made_component("null", null)
    name = str(null)
    words_of(null, "words")
    rng = np.random.default_rng(0)
    log_p_V = -1.2 * np.log(np.arange(1.0, ITEMS + 1))
    label_V, _ = popularity_direction(log_p_V)
    stratum_V = np.arange(ITEMS) % 3 if null.strata else None
    item_VR = rng.standard_normal((ITEMS, 4))
    item_VR -= item_VR.mean(0)

    def project(count: int, items: np.ndarray = item_VR, **options: Any) -> np.ndarray:
        return null.project(label_V, items, count, stratum_V=stratum_V, **options)

    whole = project(30, seed=5)
    assert whole.shape == (30, 4), f"{name}: projections [P, R]; got {list(whole.shape)}"
    assert whole.dtype == np.float64, f"{name}: projections of float64; got {whole.dtype}"
    assert np.isfinite(whole).all(), f"{name}: projections that are not finite"
    assert (project(30, seed=5) == whole).all(), f"{name}: another draw from the same seed"
    assert (project(20, seed=5, first=10) == whole[10:]).all(), f"{name}: a draw hangs on others"
    assert not np.allclose(project(30, seed=6), whole), f"{name}: the seed has no say"
    assert project(0).shape == (0, 4), f"{name}: no draws"
    assert np.allclose(project(30, item_VR[:, :2], seed=5), whole[:, :2], atol=1e-9), (
        f"{name}: draws hang on the items"
    )
    drawn_PV = project(30, np.eye(ITEMS), seed=5)
    assert np.allclose(drawn_PV @ item_VR, whole, atol=1e-9), f"{name}: projections not linear in the items"
    assert np.allclose((drawn_PV**2).sum(1), 1, atol=1e-9), f"{name}: directions not of unit length"
    _check_moments(null, project, item_VR, label_V, stratum_V)
    _check_p_values(null, log_p_V, stratum_V)


def _check_moments(null: Any, project: Any, item_VR: np.ndarray, label_V: np.ndarray, stratum_V: Any) -> None:
    rng, name = np.random.default_rng(1), str(null)
    moments = _moments(rng.standard_normal((50, 4)), item_VR)
    other = _moments(rng.standard_normal((50, 4)), rng.standard_normal((ITEMS, 4)))
    plus, minus = Form.direction(moments), Form.direction(other)
    many = 4000
    for one, two in ((plus, None), (plus, minus)):
        known = null.moments(label_V, one, two, stratum_V)
        if known is None:
            continue
        drawn_P = one.at(project(many, one.item_VR, seed=1))
        if two is not None:
            drawn_P = drawn_P - two.at(project(many, two.item_VR, seed=1))
        centred_P = drawn_P - drawn_P.mean()
        variance, fourth = float(np.mean(centred_P**2)), float(np.mean(centred_P**4))
        assert abs(drawn_P.mean() - known[0]) <= 5 * (variance / many) ** 0.5 + 1e-12, (
            f"{name}: exact mean {known[0]:g}, of {many} draws {drawn_P.mean():g}"
        )
        assert abs(variance - known[1]) <= 6 * ((fourth - variance**2) / many) ** 0.5 + 1e-12, (
            f"{name}: exact variance {known[1]:g}, of {many} draws {variance:g}"
        )


def _check_p_values(null: Any, log_p_V: np.ndarray, stratum_V: Any) -> None:
    rng, name = np.random.default_rng(2), str(null)

    def p_value(item_VD: np.ndarray, seed: int) -> float:
        found = (
            diagnostics.audit_many(
                {"s": _moments(np.ones((3, item_VD.shape[1])), item_VD)},
                log_p_V,
                permutations=99,
                seed=seed,
                null=null,
                strata=stratum_V,
            )
            .shared["s"]
            .p_value
        )
        assert found is not None, f"{name}: no p-value"
        assert 1 / 100 <= found <= 1, f"{name}: a p-value of {found}"
        return found

    assert p_value(log_p_V[:, None], 0) <= 0.05, f"{name}: scores that are log p are not told from it"
    small = sum(p_value(rng.standard_normal((ITEMS, 2)), seed) <= 0.05 for seed in range(60))
    assert small <= 9, f"{name}: {small} of 60 scores that have nothing to do with log p have p <= .05"


def check_diagnostic(diagnostic: Any) -> None:
    """Words; numbers that are the same twice, whatever the order of the items and a constant on log p; a
    row in the table and the JSON of an audit.

    diagnostic: a name, an object, or a class that can be made without options.
    """
    diagnostic = made_component("diagnostic", diagnostic)
    name = str(diagnostic)
    words_of(diagnostic, "label", "definition")
    rng = np.random.default_rng(0)
    query_CD, item_VD = rng.standard_normal((50, DIM)), rng.standard_normal((ITEMS, DIM))
    counts_V = rng.permutation(np.arange(ITEMS) ** 2 + 1)
    for bias_V in (None, rng.standard_normal(ITEMS)):
        options: Any = {"permutations": 0, "diagnostics": [diagnostic]}
        found = diagnostics.audit(query_CD, item_VD, counts_V, bias=bias_V, **options)
        again = diagnostics.audit(query_CD, item_VD, counts_V, bias=bias_V, **options)
        order = rng.permutation(ITEMS)
        turned = diagnostics.audit(
            query_CD,
            item_VD[order],
            counts_V[order],
            bias=None if bias_V is None else bias_V[order],
            **options,
        )
        values = dict(found.measured[0].values)
        assert values, f"{name}: no number"
        for key, value in values.items():
            assert np.isnan(value) or diagnostic.bounds[0] <= value <= diagnostic.bounds[1], (
                f"{name}: {value}, outside its bounds {diagnostic.bounds}"
            )
            assert _same(value, again.measured[0].values[key]), f"{name}: not the same twice"
            assert np.isclose(value, turned.measured[0].values[key], rtol=1e-6, atol=1e-9, equal_nan=True), (
                f"{name}: hangs on the order of the items"
            )
        assert diagnostic.label in found.table(), f"{name}: has no row in the table"
        assert max(map(len, found.table().splitlines())) <= 80, f"{name}: a table wider than 80 columns"
        json.dumps(found.to_dict(samples=True), allow_nan=False)
        moments = diagnostics.ScoreMoments.of(query_CD, item_VD, bias=bias_V)
        shifted = diagnostic.measure(moments, found.log_prior_V + 1.0)
        shifted = dict(shifted) if isinstance(shifted, dict) else {"": shifted}
        for key, value in values.items():
            assert np.isclose(value, shifted[key], rtol=1e-6, atol=1e-9, equal_nan=True), (
                f"{name}: hangs on a constant on log p"
            )


def check_preset(preset: Any) -> None:
    """A file of this layout, written out from it, is read: every row, with what it says where it goes.

    preset: a name, or a Preset.
    """
    preset = registry.find("preset", preset) if isinstance(preset, str) else preset
    assert isinstance(preset, Preset), f"expected a Preset; got {type(preset).__name__}"
    words_of(preset, "about")
    if preset.kind == "table":
        assert preset.columns is not None, "columns: a table needs its roles"
        by_number = preset.columns.by_position()
        if preset.names is not None:
            roles = () if by_number else preset.columns.used().values()
            missing = [column for column in roles if column not in preset.names]
            assert not missing, f"columns: {missing} are not among names"
        assert not preset.behaviors or preset.columns.behavior is not None, "behaviors: without their column"
    name = "checked-preset"
    text, events = _sample(preset)
    with tempfile.TemporaryDirectory() as folder, registry.registered("preset", preset, name=name):
        path = Path(folder) / "log.txt"
        path.write_text(text, encoding="utf-8")
        log = data.read_log(path, preset=name, progress=False)
        assert log.num_events == events, f"{events} events written, {log.num_events} read:\n{text}"
        if preset.kind == "table":
            assert preset.columns is not None
            assert (log.num_users, log.num_items) == (3, 4), f"ids are not where columns say:\n{text}"
            assert (log.time is not None) == (preset.columns.time is not None), "times"
            assert (log.weight is not None) == (preset.columns.weight is not None), "weights"
            for behavior in dict.fromkeys(preset.behaviors.values()):
                kept = data.read_log(path, preset=name, keep_behavior=behavior, progress=False)
                assert 0 < kept.num_events <= events, f"no event of behavior {behavior!r}"


def check_arm(arm: Any) -> None:
    """Words; what it trains with is a configuration; or what it makes of a standard model are scores of the
    same queries and items, finite, the same twice, and the model itself is left alone.

    arm: a name, or an Arm.
    """
    arm = registry.made("arm", arm)
    name = arm.name
    assert registry.NAME.fullmatch(name), f"name: letters, digits, - and _, a letter first; got {name!r}"
    words_of(arm, "trained_on", "served_as")
    assert arm.kind != "reference", f"{name}: neither trains (prior=) nor is made afterwards (make=)"
    if arm.kind == "trained":
        TrainConfig(prior=arm.prior, bias_start=arm.bias_start)
        return
    rng = np.random.default_rng(0)
    log_p_V = -1.2 * np.log(np.arange(1.0, ITEMS + 1))
    item_VD = rng.standard_normal((ITEMS, DIM)) + np.outer(log_p_V, rng.standard_normal(DIM))
    for bias_V in (None, rng.standard_normal(ITEMS)):
        moments = diagnostics.ScoreMoments.of(rng.standard_normal((50, DIM)) + 1, item_VD, bias=bias_V)
        before = moments.mean_score()
        made, again = arm.made(moments, log_p_V), arm.made(moments, log_p_V)
        assert (moments.mean_score() == before).all(), f"{name}: changes the standard model"
        assert np.isfinite(made.mean_score()).all(), f"{name}: scores that are not finite"
        assert (made.mean_score() == again.mean_score()).all(), f"{name}: not the same twice"
        assert np.array_equal(made.query_cov_DD, moments.query_cov_DD), f"{name}: other queries"


def made_component(kind: str, given: Any) -> Any:
    """An object of a component, whose options are as they should be."""
    part = given() if isinstance(given, type) else registry.made(kind, given)
    assert isinstance(part, Component), f"expected a {kind}; got {type(part).__name__}"
    assert part.kind == kind, f"expected a {kind}; got a {part.kind}"
    assert registry.NAME.fullmatch(str(part)), f"name: letters, digits, - and _, a letter first; got {part}"
    assert type(part.version) is int, f"{part}: version {part.version!r}"
    same = type(part)(**part.options())
    assert (same, hash(same), repr(same)) == (part, hash(part), repr(part)), (
        f"{part}: its options do not make it again"
    )
    for field in dataclasses.fields(part):
        try:
            setattr(part, field.name, None)
        except dataclasses.FrozenInstanceError:
            continue
        raise AssertionError(f"{part}: expected a frozen dataclass; its option {field.name} can be set")
    return part


def words_of(part: Any, *names: str) -> None:
    for name in names:
        text = getattr(part, name)
        assert isinstance(text, str), f"{part}: {name} in words; got {text!r}"
        assert text.splitlines() == [text.strip()], f"{part}: {name} in one line; got {text!r}"


def _evaluations(metric: Any) -> list[dict[str, Any]]:
    """Options of evaluations: the least that the metric needs, and others beside."""
    least: dict[str, Any] = {"logits": "logits" in metric.needs}
    if "counts" in metric.needs:
        least["counts"] = True
    if "candidates" in metric.needs:
        least["candidates"] = True
    if "unmasked" in metric.needs:
        least["mask_seen"] = False
    if "propensity" in metric.needs:
        least["propensity"] = True
    full = {"counts": True, "logits": True, "weight": True}
    return [
        least,
        least | full,
        least | full | {"mask_seen": False},
        least | full | {"candidates": True, "mask_seen": False},
    ]


def _cases(seed: int, options: dict[str, Any]) -> tuple[np.ndarray, Any, dict[str, Any]]:
    """Scores with ties, cases, and the options with what they stand for."""
    rng = np.random.default_rng(seed)

    def csr(least: int, most: int) -> tuple[np.ndarray, np.ndarray]:
        offsets = np.concatenate([[0], np.cumsum(rng.integers(least, most, CASES))])
        return offsets, rng.integers(0, ITEMS, offsets[-1])

    listed = "candidates" in options
    history, target, candidates = csr(0, 9), csr(0 if listed else 1, 5), csr(4, 20)
    cases = _of(*history, *target)
    seen_V = np.arange(ITEMS) > 5
    given = {
        "counts": (1 + rng.zipf(1.6, ITEMS) % 90) * seen_V,
        "candidates": candidates,
        "weight": rng.random(CASES),
        "propensity": rng.uniform(0.05, 1, ITEMS),
    }
    score_CV = rng.standard_normal((CASES, ITEMS)).round(1)
    return (
        score_CV,
        cases,
        {"ks": (1, 10)} | {name: given.get(name, value) for name, value in options.items()},
    )


def _taken(cases: Any, order: np.ndarray) -> Any:
    """The cases in another order."""
    return _of(
        *_rows(cases.history_offsets, cases.history_item, order),
        *_rows(cases.target_offsets, cases.target_item, order),
    )


def _of(*arrays: np.ndarray) -> Any:
    names = ("history_offsets", "history_item", "target_offsets", "target_item")
    return SimpleNamespace(num_cases=CASES, num_items=ITEMS, **dict(zip(names, arrays)))


def _turned(options: dict[str, Any], order: np.ndarray) -> dict[str, Any]:
    turned = dict(options)
    if "candidates" in options:
        turned["candidates"] = _rows(options["candidates"][0], options["candidates"][1], order)
    if "weight" in options:
        turned["weight"] = options["weight"][order]
    return turned


def _rows(offsets: Any, item: Any, order: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    parts = [item[offsets[row] : offsets[row + 1]] for row in order]
    return np.concatenate([[0], np.cumsum([len(part) for part in parts])]), np.concatenate(parts)


def _moments(query_CD: np.ndarray, item_VD: np.ndarray) -> diagnostics.ScoreMoments:
    return diagnostics.ScoreMoments.of(query_CD, item_VD)


def _same(one: Any, other: Any) -> bool:
    """Equal, NaN to NaN."""
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(_same(one[key], other[key]) for key in one)
    return bool(one == other or (np.isnan(one) and np.isnan(other)))


def _sample(preset: Preset) -> tuple[str, int]:
    """A file of the layout with its number of events: 3 users, 4 items, every behavior."""
    pairs = [(1, 10), (1, 11), (2, 12), (2, 10), (3, 13), (3, 11)] * max(1, len(preset.behaviors))
    if preset.kind != "table":
        lines = [["1", "10", "11"], ["2", "12", "10"], ["3", "13", "11"]]
        events = 6 if preset.kind == "sequence" else 9
        return "".join(" ".join(line) + "\n" for line in lines), events
    assert preset.columns is not None
    used = preset.columns.used()
    if preset.columns.by_position():
        names: list[Any] = list(range(1 + max(int(column) for column in used.values())))
        header = []
    else:
        names = list(preset.names or dict.fromkeys(used.values()))
        header = [] if preset.names is not None else [names]
    codes = list(preset.behaviors) or ["view"]
    seconds = {"auto": 1, "s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}[preset.columns.time_unit]
    rows = []
    for number, (user, item) in enumerate(pairs):
        at = 1_400_000_000 + 3600 * number
        stamp = str(at * seconds)
        if preset.columns.time_format is not None:
            stamp = str(np.datetime64(at, "s").item().strftime(preset.columns.time_format))
        told = {
            "user": user,
            "item": item,
            "time": stamp,
            "weight": 1,
            "rating": 4,
            "behavior": codes[number // 6 % len(codes)],
        }
        by_column = {column: told[role] for role, column in used.items()}
        rows.append([str(by_column.get(column, 0)) for column in names])
    separator = preset.separator or ","
    return "".join(separator.join(map(str, row)) + "\n" for row in [*header, *rows]), len(pairs)
