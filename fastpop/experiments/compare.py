"""The matched intervention: the same training with and without popularity outside the dot product."""

import contextlib
import os
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

import fastpop
from fastpop import bars, checks, diagnostics, evaluation, report
from fastpop.data.interactions import Interactions
from fastpop.data.paths import local_path
from fastpop.data.prepare import as_log
from fastpop.data.split import event_halves
from fastpop.experiments import findings
from fastpop.experiments.arms import ARMS, POST_HOC, Run, train_arm
from fastpop.experiments.unfinished import FINISHED, Unfinished, check_folder, finished
from fastpop.frozen import freeze
from fastpop.popularity import PopularityPrior
from fastpop.training import TrainConfig, build
from fastpop.training import folder as run_folder
from fastpop.training.run import make_split, resolve_config

SCATTER_POINTS = 4000
NOT_ASKED = ("prior", "checkpoint_every", "checkpoint_minutes", "tensorboard")


@dataclass(frozen=True, eq=False, repr=False)
class CompareResult:
    """The table of a matched intervention.

    comparison: the whole of it as plain data (fastpop.report.schema.Comparison). sentences: what
    it says, in words. rows, summary: its numbers, per run and over seeds.
    """

    comparison: report.schema.Comparison

    def __post_init__(self) -> None:
        freeze(self, "comparison")

    @property
    def headline(self) -> str:
        return self.comparison["headline"]

    @property
    def sentences(self) -> list[str]:
        return self.comparison["sentences"]

    @property
    def rows(self) -> list[report.schema.Row]:
        return self.comparison["rows"]

    @property
    def summary(self) -> list[report.schema.Summary]:
        return self.comparison["summary"]

    def value(self, arm: str, metric: str, popularity_weight: float | None = None) -> float:
        """Mean over seeds of one number; popularity_weight None is the learned part s."""
        for row in self.summary:
            if row["arm"] == arm and row["popularity_weight"] == popularity_weight:
                values: Any = row["values"]
                checks.one_of("metric", metric, values)
                return values[metric]["mean"]
        known = sorted({(row["arm"], row["popularity_weight"]) for row in self.summary}, key=str)
        raise checks.wrong("arm, popularity_weight", f"one of {known}",
                           f"={(arm, popularity_weight)}")

    def table(self) -> str:
        """The comparison in words and numbers, at most 80 columns."""
        return report.comparison_text(self.comparison)

    def save(self, out: str | Path) -> Path:
        """Write out/rows.csv, table.txt, a self-contained report.html and comparison.json.

        Returns the path of report.html. Raises ImportError without matplotlib, ValueError where
        another comparison stands there, OSError where the folder cannot be written.
        """
        place = local_path(out, "out")
        checks.needed("matplotlib", "report", "compare(out=...)")
        made_by: Any = self.comparison.get("made_by", {})
        if "asked" in made_by:
            finished(place, made_by["asked"])
        report.write_text(place / "rows.csv", report.rows_csv(self.comparison))
        report.write_text(place / "table.txt", self.table() + "\n")
        page = report.write_compare_report(place / "report.html", self.comparison)
        report.write_json(place / FINISHED, self.comparison)
        return page

    def __repr__(self) -> str:
        made_by: Any = self.comparison.get("made_by", {})
        arms = ", ".join(arm["name"] for arm in self.comparison["arms"])
        return "\n".join([
            f"CompareResult: {self.comparison['title']}", f"  arms: {arms}; "
            f"{len(made_by.get('seeds', []))} seeds", f"  {self.headline}",
            "  .table() .sentences .rows .summary .value(arm, metric) .save(folder)"])

    def _repr_html_(self) -> str:
        title, *others = (escape(line) for line in repr(self).splitlines())
        return f"<b>{title}</b>" + "".join(f"<br>{line.strip()}" for line in others)


def compare(
    log: Interactions | str | Path,
    *,
    test: Any = None,
    encoder: str | None = None,
    seeds: int | Sequence[int] = 5,
    arms: Sequence[str] = tuple(ARMS),
    popularity_weights: Sequence[float] = (0.0, 0.5, 1.0),
    permutations: int = 2000,
    config: TrainConfig | str | Path | None = None,
    name: str = "",
    out: str | Path | None = None,
    progress: bool | None = None,
    **options: Any,
) -> CompareResult:
    """Train every arm on the same half of the events, and say what separation changes.

    The training events are halved at random: all arms train on half A, log p comes from A (from
    B in the arm `disjoint`). One direction, log p from A, measures all arms and seeds; the energies
    are repeated along log p from B, which no model has seen. Arms of one seed share initial
    values, batches, draws and dropout. "post-hoc" is `standard` minus log p, without retraining.

    Args:
        log: from `fastpop.read_log`. test: a test part that comes with it.
        encoder: "factor", "bag" or "sasrec"; None takes the configuration's.
        seeds: how many (0, 1, ...), or which.
        arms: of standard (always run), frozen, permuted, learned, disjoint.
        popularity_weights: knobs β at which scores are served and judged.
        permutations: of each p-value, >= 1.
        config, options: as in `fastpop.train`, but for prior, which is the arms', and early
            stopping: all arms train for the same number of epochs. config.seed halves the events.
            On logs where people come back to the same items give mask_seen=False: metrics are then
            also split into targets that repeat the history and new ones.
        name: of the log, for titles. out: folder for report.html, JSON, CSV and the table. A
            comparison that was stopped goes on there, to the same numbers; one that is finished is
            given back, and nothing is trained.
        progress: show bars; None shows them on a terminal.
    Returns:
        CompareResult.
    Raises:
        ValueError, TypeError: says the argument, what was expected, what came.
    Cost: len(arms) * seeds trainings and len(popularity_weights) full evaluations of each.
    Source: arXiv 2606.21275; the arms `learned` and `disjoint` and post-hoc subtraction are
        controls that a claim about separation needs.
    """
    log = as_log(log)
    seeds = _seeds(seeds)
    for arm in arms:
        checks.one_of("arms", arm, ARMS)
    for weight in popularity_weights:
        checks.knob("popularity_weights", weight)
    checks.number("permutations", permutations, least=1, integer=True)
    if "prior" in options:
        raise checks.wrong("prior", "no prior: every arm has its own", options["prior"])
    config = resolve_config(config, options if encoder is None else {"encoder": encoder, **options})
    if config.prior != TrainConfig.prior:
        raise checks.wrong("prior", "no prior: every arm has its own", config.prior)
    if config.patience or config.evaluate_every:
        raise checks.wrong("patience, evaluate_every", "0: arms train for the same number of epochs",
                           f"={config.patience}, {config.evaluate_every}")
    reason = config.double_subtraction()
    if reason:
        warnings.warn("arm 'frozen': " + reason, UserWarning, stacklevel=2)
    if log.num_items < 4:
        raise checks.wrong("log", "at least 4 items", f"={log.num_items}")
    arms = [arm for arm in ARMS if arm in arms or arm == "standard"]
    weights = tuple(sorted({float(weight) for weight in popularity_weights} | {0.0, 1.0}))
    place = None if out is None else local_path(out, "out")
    if place is not None:
        checks.needed("matplotlib", "report", "compare(out=...)")
        check_folder(place)
    config.torch_device()
    with contextlib.ExitStack() as held:
        if place is not None:
            held.enter_context(run_folder.held(place))
        return _compare(log, test, seeds, arms, weights, permutations, config, name, place, progress)


def _compare(
    log: Interactions, test: Any, seeds: list[int], arms: list[str], weights: tuple[float, ...],
    permutations: int, config: TrainConfig, name: str, place: Path | None, progress: bool | None,
) -> CompareResult:
    """`compare` once its arguments are checked and the folder is held."""
    started = time.perf_counter()
    parts = make_split(log, test, config)
    options = {key: value for key, value in config.to_dict().items() if key not in NOT_ASKED}
    asked = {
        "version": fastpop.__version__, "arms": arms, "seeds": seeds, "permutations": permutations,
        "popularity_weights": list(weights), "config": options,
        "log_sha256": run_folder.fingerprint(log, parts.test if test is not None else None),
    }
    account = None
    if place is not None:
        before = finished(place, asked)
        if before is not None:
            warnings.warn(f"the comparison in {place} is finished: it is shown, and nothing is trained",
                          UserWarning, stacklevel=3)
            Unfinished(place, asked).close()
            return CompareResult(before)
        account = Unfinished(place, asked)
    half_a, half_b = event_halves(parts.train, config.seed)
    priors = {key: PopularityPrior.from_counts(half.item_counts(), smoothing=config.smoothing)
              for key, half in (("A", half_a), ("B", half_b))}
    for half, prior in priors.items():
        if np.ptp(prior.log_prior_V) == 0:
            raise checks.wrong("log", "items of different counts, for log p to have a direction",
                               "=items that all have the same")
        if prior.is_flat:
            warnings.warn(f"all items have as good as equally many events in half {half}: log p hardly "
                          "differs, and numbers along it mean little", UserWarning, stacklevel=3)
    bounded = build.bounded(config, log, parts.test)
    rows: list[dict[str, Any]] = []
    pairs: list[dict[str, Any]] = []
    extras: dict[str, Any] = {"curves": [], "lorenz": [], "scatter": [], "nulls": []}
    left_out = 0
    bar = bars.progress_bar(len(seeds) * len(arms), f"compare {config.encoder}", show=progress)
    with bar:
        for seed in seeds:
            measured = account.measured(seed) if account else None
            if measured is None:
                measured = _one_seed(seed, seed == seeds[0], arms, bounded, half_a, parts.test, priors,
                                     weights, permutations, account, bar)
                if account:
                    account.keep(seed, measured)
            else:
                bar.update(len(arms))
            rows += measured["rows"]
            pairs += measured["pairs"]
            extras["curves"] += measured["curves"]
            extras |= measured["pictures"]
            left_out = measured["left_out"]
    summary = findings.summarise(rows)
    differences = findings.paired_differences(rows, arms, weights)
    said = findings.sentences(rows, summary, differences, pairs, arms, priors, len(seeds))
    rules = _rules(config, permutations, weights, parts, rows)
    comparison: report.schema.Comparison = {
        "title": f"Popularity separation, {config.encoder}" + (f", {name}" if name else ""),
        "headline": said[0],
        "sentences": said[1:],
        "arms": [*({"name": arm, "trained_on": ARMS[arm].trained_on,
                    "served_as": ARMS[arm].served_as} for arm in arms),
                 {"name": POST_HOC, "trained_on": "not trained: standard minus log p",
                  "served_as": "standard at beta = 0"}],
        "rows": rows,
        "summary": summary,
        "differences": differences,
        "pairs": pairs,
        "rules": rules,
        "data": {
            "name": name or "log", "num_users": log.num_users, "num_items": log.num_items,
            "num_events": log.num_events,
            "num_cases": 0 if parts.test is None else parts.test.num_cases - left_out,
            "note": f"trained on {half_a.num_events:,} events (half A of the training part); "
                    f"{left_out:,} test cases left out because the encoder cannot read them",
        },
        **extras,  # type: ignore[typeddict-item]
        "made_by": {"version": fastpop.__version__, "seeds": list(seeds),
                    "seconds": round(time.perf_counter() - started, 1),
                    "cpu_count": os.cpu_count(), "config": config.to_dict(), "asked": asked},
    }
    result = CompareResult(comparison)
    if place is not None and account is not None:
        result.save(place)
        account.close()
    return result


def _one_seed(
    seed: int, first: bool, arms: list[str], config: TrainConfig, half_a: Interactions, cases: Any,
    priors: dict[str, PopularityPrior], weights: tuple[float, ...], permutations: int,
    account: Unfinished | None, bar: Any,
) -> dict[str, Any]:
    """Train and measure all arms of a seed: what a report needs of them, as plain data."""
    log_priors = {key: prior.log_prior_V for key, prior in priors.items()}
    log_priors["permuted"] = priors["A"].permuted(seed).log_prior_V
    runs = {}
    start = bar.n
    for number, arm in enumerate(arms, 1):
        bar.set_description_str(f"compare {config.encoder}: {arm}, seed {seed}")
        runs[arm] = train_arm(
            ARMS[arm], config.replace(seed=seed), half_a, cases, log_priors, weights,
            folder=account.arm_folder(seed, arm) if account else None,
            each_step=lambda steps: bar.update(1 / (steps * config.epochs)))
        bar.update(start + number - bar.n)
    measured = measure(runs, priors, weights, permutations)
    return {
        "rows": measured["rows"], "pairs": measured["pairs"],
        "curves": [_curve(run) for run in runs.values()],
        "pictures": pictures(runs, priors["A"].log_prior_V, measured["tests"], weights) if first else {},
        "left_out": max(run.cases_left_out for run in runs.values()),
    }


def measure(
    runs: dict[str, Run], priors: dict[str, PopularityPrior], weights: tuple[float, ...],
    permutations: int,
) -> dict[str, Any]:
    """Rows of one seed: energies of s and of each served score along both directions, with the
    plain and the sign-flip null, on one stream of permutations each."""
    seed = next(iter(runs.values())).seed
    models: dict[tuple[str, float | None], diagnostics.ScoreMoments]
    models = {(arm, None): run.moments for arm, run in runs.items()}
    models[POST_HOC, None] = runs["standard"].served(0.0)
    for arm, run in runs.items():
        models |= {(arm, weight): run.served(weight) for weight in weights}
    named = {_key(arm, weight): moments for (arm, weight), moments in models.items()}
    pairs = [(_key("standard", None), _key(arm, None)) for arm, weight in models
             if weight is None and arm != "standard"]
    tests = {
        null: diagnostics.audit_many(named, priors["A"].log_prior_V, pairs=pairs,
                                     permutations=permutations, seed=seed, null=null)
        for null in ("label", "sign")
    }
    from_b = diagnostics.audit_many(named, priors["B"].log_prior_V, pairs=[],
                                    permutations=permutations, seed=seed)
    rows = []
    base = tests["label"].energy[_key("standard", None)]
    for (arm, weight), _ in models.items():
        key = _key(arm, weight)
        energy, energy_b = tests["label"].energy[key], from_b.energy[key]
        values = {
            "energy_total": energy.total,
            "energy_direction": energy.direction,
            "energy_shared": energy.shared,
            "energy_heterogeneous": energy.heterogeneous,
            "fraction_direction": energy.fraction_direction,
            "fraction_shared": energy.fraction_shared,
            "mean_slope": energy.slope_mean,
            "amplitude_ratio": energy.amplitude_ratio(base),
            "reduction_shared": 1 - energy.shared / base.shared if base.shared else float("nan"),
            "p_value_direction": tests["label"].direction[key].p_value,
            "p_value_shared": tests["label"].shared[key].p_value,
            "p_value_sign_direction": tests["sign"].direction[key].p_value,
            "p_value_sign_shared": tests["sign"].shared[key].p_value,
            "energy_shared_b": energy_b.shared,
            "fraction_shared_b": energy_b.fraction_shared,
            "mean_slope_b": energy_b.slope_mean,
            "p_value_shared_b": from_b.shared[key].p_value,
        }
        if weight is not None and weight in runs[arm].evaluations:
            values |= runs[arm].evaluations[weight].metrics
        rows.append({"arm": arm, "seed": seed, "popularity_weight": weight,
                     "values": {name: float(value) for name, value in values.items()}})
    paired = [
        {"arm": second.split("|")[0], "seed": seed, "null": null,
         "delta_direction": pair.direction.observed, "p_direction": pair.direction.p_value,
         "delta_shared": pair.shared.observed, "p_shared": pair.shared.p_value}
        for null, audits in tests.items() for (_, second), pair in audits.pairs.items()
    ]
    return {"rows": rows, "pairs": paired, "tests": tests}


def pictures(
    runs: dict[str, Run], log_prior_V: np.ndarray, tests: dict[str, Any],
    weights: tuple[float, ...],
) -> dict[str, Any]:
    """What the plots of a report show, from the first seed."""
    seed = runs["standard"].seed
    shown = np.arange(len(log_prior_V))
    if len(shown) > SCATTER_POINTS:
        # Every popularity is shown: items evenly spaced in the order of log p.
        order = np.argsort(log_prior_V, kind="stable")
        shown = order[np.linspace(0, len(order) - 1, SCATTER_POINTS).astype(int)]
    scatter, nulls, lorenz = [], [], []
    for arm in runs:
        mean_V = runs[arm].moments.mean_score()
        slope = tests["label"].energy[_key(arm, None)].slope_mean
        scatter.append({
            "arm": arm, "log_prior": log_prior_V[shown].tolist(),
            "mean_score": mean_V[shown].tolist(), "slope": slope,
            "intercept": float(-slope * log_prior_V.mean()), "seed": seed,
            "num_items": len(log_prior_V),
        })
        test = tests["label"].shared[_key(arm, None)]
        nulls.append({
            "arm": arm, "statistic": "energy_shared", "observed": test.observed,
            "samples": test.null_P.tolist(), "p_value": test.p_value, "seed": seed, "kind": "plain",
        })
    for arm, run in runs.items():
        for weight in weights:
            if weight in run.evaluations:
                found = run.evaluations[weight]
                items, exposure = evaluation.lorenz_curve(found.exposure[10], 200)
                lorenz.append({
                    "arm": arm, "popularity_weight": weight, "items": np.asarray(items).tolist(),
                    "exposure": np.asarray(exposure).tolist(),
                    "gini": found.metrics["gini@10"], "k": 10,
                })
    return {"scatter": scatter, "nulls": nulls, "lorenz": lorenz}


def _key(arm: str, weight: float | None) -> str:
    return f"{arm}|{'s' if weight is None else weight}"


def _curve(run: Run) -> dict[str, Any]:
    return {"arm": run.arm.name, "seed": run.seed, "epoch": [row["epoch"] for row in run.curve],
            "loss": [row["loss"] for row in run.curve]}


def _seeds(seeds: int | Sequence[int]) -> list[int]:
    if isinstance(seeds, (int, np.integer)) and not isinstance(seeds, bool):
        checks.number("seeds", seeds, least=1, integer=True)
        return list(range(int(seeds)))
    if isinstance(seeds, (str, bytes, float)) or not isinstance(seeds, Sequence) or not seeds:
        raise checks.wrong_type("seeds", "a number of seeds or a list of them", seeds)
    for seed in seeds:
        checks.number("seeds", seed, least=0, integer=True)
    if len(set(seeds)) < len(seeds):
        raise checks.wrong("seeds", "different seeds", list(seeds))
    return [int(seed) for seed in seeds]


def _rules(
    config: TrainConfig, permutations: int, weights: tuple[float, ...], parts: Any,
    rows: list[dict[str, Any]],
) -> dict[str, str]:
    sampled = config.loss == "sampled_softmax"
    extra = f", {config.num_layers} layers, {config.num_heads} heads, dropout {config.dropout:g}" \
        if config.encoder == "sasrec" else ""
    has_nll = any("nll" in row["values"] for row in rows)
    rules = {
        "encoder": f"{config.encoder}, dim {config.dim}{extra}",
        "decoder": f"dot product, temperature {config.temperature:g}"
                   + (" (learned)" if config.learn_temperature else "")
                   + f", prior weight {config.prior_weight:g}, log p smoothed by {config.smoothing}",
        "loss": config.loss.replace("_", " ")
                + (f", logq={config.logq}" if sampled else ""),
        "context_weighting": "one context per training event of half A",
        "popularity_weight": "beta in {" + ", ".join(f"{w:g}" for w in weights)
                             + "}; learned part s: scores without the popularity term",
        "split": f"{parts.facts['rule']}; all arms train on a random half A of the training "
                 "events, log p from A (disjoint: from the other half B)",
        "optimizer": f"{config.resolved_table_optimizer}, learning rate {config.learning_rate:g}, "
                     f"{config.epochs} epochs, batch {config.batch_size}",
        "null": f"log p shuffled over items (label), and random signs (sign); {permutations} draws",
    }
    if sampled:
        shared = {0: "shared by the batch", 1: "for each row"}.get(
            config.group_size, f"shared by {config.group_size} rows")
        rules["sampler"] = (f"{config.proposal}, " + (
            "the other rows' positives" if config.proposal == "in_batch"
            else f"{config.num_negatives} negatives {shared}"))
    if has_nll:
        rules["calibration"] = "NLL of the test targets under the full softmax, in the table"
    return rules
