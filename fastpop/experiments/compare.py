"""The matched intervention: the same training with and without popularity outside the dot product."""

import contextlib
import logging
import os
import platform
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

import fastpop
from fastpop import bars, checks, evaluation
from fastpop.data.cases import Cases
from fastpop.data.interactions import Interactions
from fastpop.data.paths import local_path
from fastpop.data.prepare import as_log
from fastpop.data.split import Split, event_halves
from fastpop.data.titles import Titles, read_titles
from fastpop.diagnostics import Diagnostic, Null, weak_direction
from fastpop.experiments import assemble
from fastpop.experiments.arms import ARMS, BEST, EQUAL, STANDARD, arm_of
from fastpop.experiments.compared import CompareResult
from fastpop.experiments.dealt import Dealt
from fastpop.experiments.examples import kept, with_ids
from fastpop.experiments.further import Further
from fastpop.experiments.measure import measure_reading
from fastpop.experiments.one_arm import Judged, train_arm
from fastpop.experiments.pictures import pictures
from fastpop.experiments.question import (
    Question,
    asked_of,
    check_arm,
    config_of,
    drawn,
    listed,
    nulls_of,
    others_of,
    seeds_of,
)
from fastpop.experiments.references import asked_for, reference_rows
from fastpop.experiments.shown import Shown
from fastpop.experiments.unfinished import Stopwatch, Unfinished, check_folder, damaged, finished
from fastpop.experiments.wording import cautioned
from fastpop.popularity import PopularityPrior
from fastpop.recipes import Recipe
from fastpop.training import TrainConfig, build, memory
from fastpop.training import folder as run_folder
from fastpop.training import ranks as processes
from fastpop.training.damaged import write_anew
from fastpop.training.run import make_split

# Dense where accuracy bends, and on beyond 1: a frontier is read where two arms show equally popular items.
BETAS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.15, 1.3, 1.5, 1.75, 2.0)
PATIENCE = 3
REFERENCES = ("popularity", "recency", "recency-window", "markov")
NULLS = ("label", "sign")

LOG = logging.getLogger(__name__)


def compare(
    log: Interactions | str | Path,
    *,
    test: Any = None,
    shown: Interactions | None = None,
    rated: Interactions | None = None,
    encoder: Any = None,
    seeds: int | Sequence[int] = 5,
    arms: Sequence[str] = tuple(ARMS),
    references: Sequence[str | evaluation.Reference] = REFERENCES,
    popularity_weights: Sequence[float] = BETAS,
    permutations: int = 2000,
    nulls: Sequence[str | Null] = NULLS,
    metrics: Sequence[str | evaluation.Metric] = (),
    diagnostics: Sequence[str | Diagnostic] = (),
    max_epochs: int = 0,
    max_cases: int = 0,
    config: TrainConfig | str | Path | None = None,
    recipe: str | Recipe | None = None,
    name: str = "",
    titles: Any = None,
    out: str | Path | None = None,
    progress: bool | None = None,
    dealt: Dealt | None = None,
    **options: Any,
) -> CompareResult:
    """Train every arm on the same half of the events, and say what separation changes.

    For each seed the training events are halved at random: all arms of the seed train on half A, log p
    comes from A (from B in the arm `disjoint`). One direction, log p from A, measures all arms of a seed;
    the energies are repeated along log p from B. Arms of one seed share initial values, batches, draws and
    dropout. Each trained arm is read twice: at `epochs`, equal for all, and at its own best epoch by
    validation NLL. Beside them stand what needs no training ("post-hoc", "post-hoc-fitted", "projected",
    made of `standard`) and what needs no model (`references`, "item-mean").

    Args:
        log: from `fastpop.read_log`, or a prepared folder. test: a test part that comes with it.
        shown: of a randomised test part, all events that were shown, `test` being those that were liked:
            arms are then also judged over the shown items alone (pooled AUC, NDCG@5).
        rated: the training part with ratings for weights: adds the row "item-mean" beside `shown`.
        encoder: a name or a part, as in `fastpop.train`; None takes the configuration's.
        seeds: how many (0, 1, ...), or which. A seed is also that of its halves. Intervals need three.
        arms: of standard (always run), frozen, learned, learned-from-log-p, permuted, disjoint; by-period, on
            a log with times; and others that were registered (`fastpop.available("arms")`).
        references: rows that need no model, names (`fastpop.available("references")`) or objects. Options
            that one leaves open are chosen on the validation part, by what chooses the arms' best epochs
            where its scores have an NLL, and otherwise by NDCG@10. A row that the log has no times or no
            order for is left out.
        popularity_weights: β at which scores are served and judged; 0, .5 and 1 always are.
        permutations: of each p-value, >= 1. nulls: of the permutation tests, names
            (`fastpop.available("nulls")`) or objects; of those that need no strata.
        metrics: further ones of every evaluation, names (`fastpop.available("metrics")`) or objects; those of
            logits at β = 1 alone. diagnostics: further ones of every learned part, likewise.
        max_epochs: how far an arm may go on after `epochs` while its validation NLL falls (`patience`
            validations without a better one, 3 by default, stop it); 0: twice `epochs`.
        max_cases: test cases judged, the same for all, drawn once from config.seed; 0: all of them.
        config, recipe, options: as in `fastpop.train`, but for prior, bias_start, metric and evaluate_every,
            which are the arms', and loggers; prior_weight is 1 (all arms are read at β = 1, as trained), and
            best epochs are those of lowest validation NLL, or of highest NDCG@10 for a loss whose scores are
            no logits. On logs where people come back to the same items give mask_seen=False: metrics are then
            also split into targets that repeat the history and new ones.
        name: of the log, for headings. titles: a table of items, as `fastpop.data.read_titles` takes it, for
            the lists of a few users in the report; a finished comparison takes another one, and one that has
            none of the log's items is an error.
        out: folder for report.html, JSON, CSV and the table. A
            comparison that was stopped goes on there, to the same numbers; one that is finished is
            given back, and nothing is trained.
        progress: show bars; None shows them on a terminal.
        dealt: of several processes that call this alike with one `out`, which is this one: each trains and
            measures whole seeds alone, and all return the result (`torchrun -m fastpop compare`).
    Returns:
        CompareResult.
    Raises:
        ValueError, TypeError: says the argument, what was expected, what came. ImportError: `out` without
        matplotlib. OSError: the folder cannot be written, or another process writes it now.
    Cost: len(arms) * seeds trainings; of each, two readings of len(popularity_weights) full evaluations.
    Source: arXiv 2606.21275; the other arms, the rows without a model and the frontier are controls that a
        claim about separation needs (docs/comparison.md).
    """
    if processes.are_several():
        raise NotImplementedError(
            "compare: expected no process group; dealt= gives each of several processes seeds of its own"
        )
    log = as_log(log)
    if titles is not None:
        titles = read_titles(titles)
        titles.check(log.item_ids)
    seeds = seeds_of(seeds)
    arms = listed("arms", arms, "a list of arms")
    others = others_of(arms)
    popularity_weights = listed("popularity_weights", popularity_weights, "a list of numbers")
    for weight in popularity_weights:
        checks.score_weight("popularity_weights", weight)
    checks.number("permutations", permutations, ge=1, integer=True)
    for argument, value in (("max_epochs", max_epochs), ("max_cases", max_cases)):
        checks.number(argument, value, ge=0, integer=True)
    config = config_of(config, options if encoder is None else {"encoder": encoder, **options}, recipe)
    for arm in others.values():
        check_arm(arm, config, log)
    if 0 < max_epochs < config.epochs:
        raise checks.wrong("max_epochs", f"0, or at least epochs = {config.epochs}", max_epochs)
    if log.num_items < 4:
        raise checks.wrong("log", "at least 4 items", text=f"{log.num_items}")
    if rated is not None and shown is None:
        raise checks.wrong("rated", "None without shown=, on which its row is judged", rated)
    if rated is not None and rated.weight is None:
        raise checks.wrong("rated", "a log with ratings for weights", text="one without weights")
    question = Question(
        seeds,
        [
            *(arm for arm in ARMS if arm in arms or arm == STANDARD),
            *(arm for arm, other in others.items() if other.kind == "trained"),
        ],
        tuple(sorted({float(weight) for weight in popularity_weights} | {0.0, 0.5, 1.0})),
        permutations,
        max_epochs,
        config.patience or PATIENCE,
        max_cases,
        config,
        name,
        {"shown": shown, "rated": rated},
        others,
        asked_for(references, config),
        nulls_of(nulls),
        Further.asked_for(metrics, diagnostics, config),
    )
    place = None if out is None else local_path(out, "out")
    if dealt is not None and place is None:
        raise checks.wrong("out", "a folder, in which processes with dealt= meet", None)
    leads = dealt is None or dealt.leads
    if place is not None:
        checks.needed("matplotlib", "report", "compare(out=...)")
        if leads:
            check_folder(place)
    config.torch_device()
    with contextlib.ExitStack() as held:
        if place is not None and leads:
            held.enter_context(run_folder.held(place))
        return _compare(log, test, question, place, progress, dealt, titles)


def _compare(
    log: Interactions,
    test: Any,
    question: Question,
    place: Path | None,
    progress: bool | None,
    dealt: Dealt | None,
    titles: Titles | None,
) -> CompareResult:
    """`compare` once its arguments are checked and the folder is held."""
    config, shown = question.config, None
    if question.extra["shown"] is not None:
        log, shown = Shown.of(log, test, question.extra["shown"])
    parts = make_split(log, test, config)
    asked = asked_of(question, log, parts if test is not None else None)
    account = None
    if place is not None:
        if dealt is not None and not dealt.leads:
            dealt.wait_for("begun", 0)
            before = finished(place, asked)
            if before is not None:
                return CompareResult(before)
            account = Unfinished(place, asked)
            return _measured(log, parts, question, shown, asked, account, progress, dealt, titles)
        before = finished(place, asked)
        if before is not None:
            warnings.warn(
                f"the comparison in {place} is finished: it is shown, and nothing is trained",
                UserWarning,
                stacklevel=3,
            )
            Unfinished(place, asked).close()
            found = CompareResult(before).with_titles(titles)
            if found.comparison.get("examples") == before.get("examples"):
                write_anew(place, damaged(place), "comparison.json", found.save)
            else:  # other titles
                found.save(place)
            if dealt is not None:
                dealt.tell("begun")
            return found
        account = Unfinished(place, asked)
        if dealt is not None:
            dealt.tell("begun")
    with contextlib.nullcontext() if account is None else account.unless_refused():
        return _measured(log, parts, question, shown, asked, account, progress, dealt, titles)


def _measured(
    log: Interactions,
    parts: Split,
    question: Question,
    shown: Shown | None,
    asked: dict[str, Any],
    account: Unfinished | None,
    progress: bool | None,
    dealt: Dealt | None,
    titles: Titles | None,
) -> CompareResult:
    """Every seed, trained and measured or as it was kept, put together, and written."""
    config, watch = question.config, Stopwatch(account, 0 if dealt is None else dealt.rank)
    cases = drawn(parts.test, question)
    arms, beside = question.arms, 1 if dealt is None else dealt.beside
    bar = bars.progress_bar(len(question.seeds) * len(arms), f"compare {config.encoder}", show=progress)

    def measured(seed: int) -> dict[str, Any]:
        kept = account.measured(seed) if account else None
        if kept is not None:
            bar.update(len(arms))
            return kept
        fresh = _one_seed(seed, question, log, parts, cases, shown, account, watch, bar, beside)
        if account:
            account.keep(seed, fresh)
        watch.lap(f"seed-{seed}")
        LOG.info("seed %d is measured", seed, extra={"fields": {"seed": seed, "arms": list(arms)}})
        return fresh

    with bar:
        if dealt is None:
            found = [measured(seed) for seed in question.seeds]
        else:
            assert account is not None
            own = {seed: measured(seed) for seed in dealt.own(question.seeds)}
            dealt.tell("measured")
            if not dealt.leads:
                dealt.wait_for("written", 0)
                written = finished(account.out, asked)
                assert written is not None
                return CompareResult(written).with_titles(titles)
            dealt.wait_for("measured", *range(dealt.world))
            watch.join()
            found = [own.get(seed) or measured(seed) for seed in question.seeds]
    made_by = {
        "version": fastpop.__version__,
        "seeds": list(question.seeds),
        "seconds": watch.total(),
        "cpu_count": os.cpu_count(),
        "processor": _processor(),
        "config": config.to_dict(),
        "asked": asked,
    }
    made = assemble.comparison(found, question, log, parts, cases, shown, made_by)
    result = CompareResult(made).with_titles(titles)
    if account is not None:
        result.save(account.out)
        account.close()
    if dealt is not None:
        dealt.tell("written")
    return result


def _one_seed(
    seed: int,
    question: Question,
    log: Interactions,
    parts: Split,
    test: Cases | None,
    shown: Shown | None,
    account: Unfinished | None,
    watch: Stopwatch,
    bar: Any,
    beside: int,
) -> dict[str, Any]:
    """Halve, train and measure all arms of a seed: what a report needs of them, as plain data."""
    config, arms = question.config.replace(seed=seed), question.arms
    halves = dict(zip("AB", event_halves(parts.train, seed)))
    priors = {key: _prior(half, config) for key, half in halves.items()}
    log_priors = {key: prior.log_prior_V for key, prior in priors.items()}
    log_priors["permuted"] = priors["A"].permuted(seed).log_prior_V
    weak = weak_direction(priors["A"])
    if weak is not None:
        warnings.warn(cautioned(weak), UserWarning, stacklevel=4)
    judged = Judged(
        halves["A"],
        parts.train,
        parts.known,
        parts.valid,
        test,
        shown,
        halves["A"].item_counts(),
        log_priors["A"],
        question.betas,
        tuple(arm for arm in question.others.values() if arm.kind == "afterwards"),
        question.further,
    )
    bounded = build.bounded(config, log, parts.test)
    memory.check(bounded, log, kept_in_memory=account is None, beside=beside)
    runs, start = {}, bar.n
    for number, arm in enumerate(arms, 1):
        bar.set_description_str(f"compare {config.encoder}: {arm}, seed {seed}")
        try:
            runs[arm] = train_arm(
                arm_of(arm),
                bounded,
                judged,
                log_priors,
                question.last_epoch,
                question.patience,
                folder=account.arm_folder(seed, arm) if account else None,
                each_step=lambda steps: bar.update(1 / (steps * question.last_epoch)),
            )
        finally:  # of an arm that was stopped, too: it goes on
            watch.lap(f"seed-{seed}-{arm}")
        bar.update(start + number - bar.n)
    rows, pairs = [], []
    drawn: dict[str, Any] = {}
    for name in (BEST, EQUAL):
        readings = {arm: run.readings[name] for arm, run in runs.items() if name in run.readings}
        if not readings:
            continue
        more, tested, tests = measure_reading(
            readings,
            log_priors["A"],
            log_priors["B"],
            permutations=question.permutations,
            seed=seed,
            nulls=question.nulls,
            further=question.further,
        )
        rows += [{**row, "seed": seed, "epochs": name} for row in more]
        pairs += [{**pair, "seed": seed, "epochs": name} for pair in tested]
        if not drawn and seed == question.seeds[0]:
            drawn = pictures(readings, log_priors["A"], judged.counts_V, tests)
            of_test = runs[STANDARD].test
            if of_test is not None:
                found = {key: rows for reading in readings.values() for key, rows in reading.examples.items()}
                drawn["examples"] = with_ids(kept(of_test, found), log.item_ids)
    counted, chosen = reference_rows(
        question.references,
        judged,
        runs[STANDARD].test,
        runs[STANDARD].shown,
        question.extra["rated"],
        config,
    )
    rows += [
        {"arm": arm, "seed": seed, "popularity_weight": 1.0, "values": values, "epochs": name}
        for name in dict.fromkeys(row["epochs"] for row in rows)
        for arm, values in counted.items()
    ]
    return {
        "rows": rows,
        "pairs": pairs,
        "pictures": drawn,
        "curves": [_curve(run) for run in runs.values()],
        "still_improving": [arm for arm, run in runs.items() if BEST in run.readings and not run.waited],
        "left_out": max(run.cases_left_out for run in runs.values()),
        "prior": _told_of(priors["A"], halves["A"]) | {"chosen": chosen},
    }


def _prior(half: Interactions, config: TrainConfig) -> PopularityPrior:
    """log p of what the encoder predicts in this half."""
    prior = build.target_prior(half, config.encoder_part, config.smoothing)
    if np.ptp(prior.log_prior_V) == 0:
        raise checks.wrong(
            "log",
            "items of different counts, for log p to have a direction",
            text="items that all have the same",
        )
    return prior


def _told_of(prior: PopularityPrior, half: Interactions) -> dict[str, Any]:
    """What the words need to know of a seed's half A."""
    events_U = np.diff(half.offsets)
    return {
        "weak": weak_direction(prior),
        "unseen": float((half.item_counts() == 0).mean()),
        "num_events": half.num_events,
        "median_events": float(np.median(events_U[events_U > 0])),
    }


def _curve(run: Any) -> dict[str, Any]:
    """One training run by epoch."""
    found = {
        "arm": run.arm.name,
        "seed": run.seed,
        "epoch": [row["epoch"] for row in run.curve],
        "loss": [row["loss"] for row in run.curve],
        "readings": {name: reading.epoch for name, reading in run.readings.items()},
    }
    for name in ("nll", "ndcg@10", "slope", "energy_off_direction"):
        if any(f"valid_{name}" in row for row in run.curve):
            found[name] = [row.get(f"valid_{name}") for row in run.curve]
    return found


def _processor() -> str:
    """Its name, since the last bits of a run hang on it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
