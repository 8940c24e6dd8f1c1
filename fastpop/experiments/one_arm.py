"""Train one arm once, and read it twice: at the epoch that all arms are read at, and at its own best."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fastpop import checks, evaluation
from fastpop.data.cases import Cases
from fastpop.data.interactions import Interactions
from fastpop.experiments.arms import STANDARD, Arm
from fastpop.experiments.examples import lists
from fastpop.experiments.further import NOTHING_FURTHER, Further, K
from fastpop.experiments.served import Served, families
from fastpop.experiments.shown import Shown, judge_scores, readable_shown
from fastpop.experiments.twice import fit_twice
from fastpop.model import Recommender
from fastpop.training import TrainConfig, build, memory
from fastpop.training.recommending import readable_cases
from fastpop.training.result import evaluate_model, moments_of

BETAS = (0.0, 0.5, 1.0)  # popularity_weights at which energies of served scores are given


@dataclass(frozen=True)
class Judged:
    """What all arms of a seed are judged on. train: half A, whose counts are counts_V and whose log p is
    log_prior_V. before_valid, known: what may be counted when a validation or a test case is asked. valid,
    test: None where the split has none. betas: popularity_weights that are served. shown: the randomised
    part, or None. afterwards: arms that are made of the standard model, beside ours. further: what was asked
    for beside the metrics of every comparison."""

    train: Interactions
    before_valid: Interactions
    known: Interactions
    valid: Cases | None
    test: Cases | None
    shown: Shown | None
    counts_V: np.ndarray
    log_prior_V: np.ndarray
    betas: tuple[float, ...]
    afterwards: tuple[Arm, ...] = ()
    further: Further = NOTHING_FURTHER


@dataclass(frozen=True, eq=False)
class Reading:
    """A trained arm at one epoch. evaluations: by (name of the family, beta). examples: likewise, what a few
    cases are shown."""

    epoch: int
    served: list[Served]
    evaluations: dict[tuple[str, float], evaluation.Evaluation]
    shown: dict[tuple[str, float], dict[str, float]]
    examples: dict[tuple[str, float], list[list[int]]]

    __repr__ = checks.brief


@dataclass(frozen=True, eq=False)
class Run:
    """One trained arm. readings: "equal", and "best" where there is a validation part. waited: whether it
    was stopped by patience, so that its best epoch is no accident of where training ended. test, shown: the
    cases that the encoder can read."""

    arm: Arm
    seed: int
    readings: dict[str, Reading]
    curve: list[dict[str, Any]]
    waited: bool
    test: Cases | None
    shown: Shown | None
    cases_left_out: int

    __repr__ = checks.brief


def best_by(config: TrainConfig) -> str:
    """The metric on the validation part of an arm's best epoch: NLL, where scores are logits."""
    return "nll" if config.loss_part.logits else f"ndcg@{K}"


def best_by_words(config: TrainConfig) -> str:
    return {"nll": "validation NLL"}.get(best_by(config), f"validation NDCG@{K}")


def train_arm(
    arm: Arm,
    config: TrainConfig,
    judged: Judged,
    log_priors: Mapping[str, np.ndarray],
    max_epochs: int,
    patience: int,
    *,
    folder: Path | None = None,
    each_step: Callable[[int], None] | None = None,
) -> Run:
    """Train one arm on half A, to config.epochs at least and on while it gets better by `best_by`.

    Initial values, batches, draws and dropout depend on config.seed alone, so that arms of one
    seed differ in nothing but the popularity term.

    folder: for checkpoints every config.checkpoint_minutes and at the end; with some in it, training
    goes on from there. each_step: as in `fit`.
    """
    equal_epoch = config.epochs
    validates = judged.valid is not None and judged.valid.num_cases > 0
    config = config.replace(
        **arm.options(),
        metric=best_by(config),
        tensorboard=False,
        epochs=max_epochs if validates else equal_epoch,
        checkpoint_every=max_epochs,
        evaluate_every=int(validates),
        patience=patience if validates else 0,
    )
    assembly = build.assemble(
        config,
        judged.train,
        judged.train,
        log_priors[arm.log_prior],
        keep_rows=memory.keeps_rows(config, judged.train),
    )
    model = assembly.model
    test, left_out = judged.test, 0
    if test is not None:
        test, left_out = readable_cases(model, judged.train, test)
        if test.num_cases == 0:
            raise checks.wrong(
                "log",
                f"a test part that the encoder {str(config.encoder)!r} can read (known users, or histories)",
                text=f"{left_out:,} cases, none of them readable",
            )
    valid = valid_cases(model, judged, config) if validates else None
    shown = None if judged.shown is None else readable_shown(model, judged.train, judged.shown)
    readings, progress = fit_twice(
        assembly,
        lambda epoch: _read(arm, model, judged, test, shown, config, epoch),
        validate=None if valid is None else lambda: _curve_row(model, valid, judged, config),
        equal_epoch=equal_epoch,
        folder=folder,
        each_step=each_step,
    )
    return Run(
        arm, config.seed, readings, progress.history, progress.stopped == "patience", test, shown, left_out
    )


def valid_cases(model: Recommender, judged: Judged, config: TrainConfig) -> Cases:
    """Those that the encoder can read, as in `fastpop.train`: a user whose events are all in half B has an
    untrained vector, and would have a say in which epoch is the best."""
    assert judged.valid is not None
    valid, left_out = readable_cases(model, judged.train, judged.valid)
    if valid.num_cases == 0:
        raise checks.wrong(
            "log",
            f"a validation part that the encoder {str(config.encoder)!r} can read "
            "(known users, or histories)",
            text=f"{left_out:,} cases, none of them readable",
        )
    found = some_cases(valid, config.valid_cases, config.seed)
    assert found is not None
    return found


def _curve_row(model: Recommender, valid: Cases, judged: Judged, config: TrainConfig) -> dict[str, float]:
    """What an epoch's row gains: fit and accuracy on the validation part as trained, popularity in s."""
    found = evaluate_model(model, valid, judged.counts_V, config, ks=(K,)).metrics
    energy = moments_of(model, judged.train).energy(judged.log_prior_V)
    fit = {name: found[name] for name in ("nll", f"ndcg@{K}") if name in found}
    return {**fit, "slope": energy.slope_mean, "energy_off_direction": energy.off_direction}


def _read(
    arm: Arm,
    model: Recommender,
    judged: Judged,
    test: Cases | None,
    shown: Shown | None,
    config: TrainConfig,
    epoch: int,
) -> Reading:
    model.eval()
    served = families(arm.name, model, judged.train, judged.log_prior_V, judged.afterwards)
    evaluations, over_shown, examples = {}, {}, {}
    if test is not None:
        query_CD = model.encode(test)
        examples = lists(served, query_CD, test, config.mask_seen)
        for family in served:
            for beta in (1.0,) if family.arm == STANDARD else judged.betas:
                evaluations[family.arm, beta] = evaluation.evaluate(
                    family.scores(query_CD, beta),
                    test,
                    counts=judged.counts_V,
                    ks=(K,),
                    mask_seen=config.mask_seen,
                    logits=config.loss_part.logits,
                    metrics=judged.further.of(logits=config.loss_part.logits and beta == 1),
                )
    if shown is not None:
        query_CD = model.encode(shown.cases)
        for family in served:
            for beta in (1.0,) if family.arm == STANDARD else BETAS:
                over_shown[family.arm, beta] = judge_scores(family.scores(query_CD, beta), shown)
    return Reading(epoch, served, evaluations, over_shown, examples)


def some_cases(cases: Cases | None, most: int, seed: int) -> Cases | None:
    """At most so many cases, drawn from the seed, in their order; 0: all. None where there are none."""
    if cases is None or cases.num_cases == 0:
        return None
    if not most or cases.num_cases <= most:
        return cases
    chosen = np.random.default_rng(seed).permutation(cases.num_cases)[:most]
    return cases.take(np.sort(chosen))
