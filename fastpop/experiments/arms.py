"""The arms of a matched intervention, and one trained run of one arm."""

import shutil
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fastpop import checks, evaluation, files
from fastpop.data.cases import Cases
from fastpop.data.interactions import Interactions
from fastpop.diagnostics import ScoreMoments
from fastpop.model import Recommender
from fastpop.training import TrainConfig, build, checkpoint
from fastpop.training.loop import fit
from fastpop.training.result import moments_of, readable_cases, served_scores
from fastpop.training.run import go_on_from


@dataclass(frozen=True)
class Arm:
    """prior: the decoder's arm. log_prior: which popularity stands beside the dot product.

    "A" is estimated from the events that the arms train on, "B" from the other half, "permuted"
    is A's on randomly relabelled items.
    """

    name: str
    prior: str
    log_prior: str
    trained_on: str
    served_as: str


ARMS: dict[str, Arm] = {
    arm.name: arm
    for arm in (
        Arm("standard", "none", "A", "s", "s + (beta - 1) log p"),
        Arm("frozen", "frozen", "A", "s + tau log p", "s + beta log p"),
        Arm("permuted", "permuted", "permuted", "s + tau log p of shuffled items",
            "s + beta log p of shuffled items"),
        Arm("learned", "learned", "A", "s + a, a learned", "s + beta a"),
        Arm("disjoint", "frozen", "B", "s + tau log p from the other half", "s + beta log p"),
    )
}
TRAINED = "trained"  # a file that marks an arm's folder
POST_HOC = "post-hoc"  # standard's s minus log p: no retraining


@dataclass(frozen=True, eq=False)
class Run:
    """One trained arm: what the comparison keeps of it."""

    arm: Arm
    seed: int
    moments: ScoreMoments  # of the learned part s
    bias_V: np.ndarray  # what the knob multiplies: log p or the learned a
    evaluations: dict[float, evaluation.Evaluation]  # by popularity weight
    curve: list[dict[str, Any]]
    cases_left_out: int

    __repr__ = checks.brief

    def served(self, weight: float) -> ScoreMoments:
        """The moments of the score served at this popularity weight."""
        knob = weight - 1 if self.arm.prior == "none" else weight
        return self.moments.with_popularity(knob, self.bias_V)


def train_arm(
    arm: Arm, config: TrainConfig, train: Interactions, cases: Cases | None,
    log_priors: Mapping[str, np.ndarray], weights: tuple[float, ...], *,
    folder: Path | None = None, each_step: Callable[[int], None] | None = None,
) -> Run:
    """Train one arm on `train` and look at it from every side.

    Initial values, batches, draws and dropout depend on config.seed alone, so that arms of one
    seed differ in nothing but the popularity term.

    folder: for checkpoints every config.checkpoint_minutes and at the end; with some in it, training
    goes on from there. each_step: as in `fit`.
    """
    config = config.replace(prior=arm.prior, checkpoint_every=config.epochs, tensorboard=False)
    counts_V = train.item_counts()
    model = build.build_model(config, train, log_priors[arm.log_prior])
    model.to(config.torch_device())
    batches = build.build_batches(config, train, model.encoder.reads)
    optimizers = build.build_optimizers(config, model)
    progress = None
    if folder is not None:
        with checkpoint.explained(folder):
            folder.mkdir(parents=True, exist_ok=True)
            files.sweep_inside(folder)
            found = _sound_checkpoint(folder)
        if found:
            progress = go_on_from(folder, config, model, optimizers)
    progress = fit(
        model, build.build_loss(config, batches).to(model.device), batches, optimizers, config,
        out=folder, progress=progress, show=False, each_step=each_step,
    )
    if folder is not None:
        checkpoint.write_text(folder / TRAINED, "")
    evaluations: dict[float, evaluation.Evaluation] = {}
    left_out = 0
    if cases is not None:
        cases, left_out = readable_cases(model, train, cases)
        if cases.num_cases == 0:
            raise checks.wrong("log", f"a test part that the encoder {config.encoder!r} can read (known "
                               "users, or histories)", f"={left_out:,} cases, none of them readable")
        evaluations = evaluate_at(model, cases, counts_V, config, weights)
    bias = model.decoder.item_bias if arm.prior == "learned" else model.decoder.log_prior_V
    assert bias is not None
    return Run(
        arm, config.seed, moments_of(model, train), bias.detach().double().cpu().numpy(),
        evaluations, progress.history, left_out,
    )


def _sound_checkpoint(folder: Path) -> bool:
    """Whether there is one to go on from. Where all are damaged they are removed, and warned of."""
    try:
        return checkpoint.read_newest(folder) is not None
    except checkpoint.CheckpointError as error:
        warnings.warn(f"{error}. This arm is trained anew.", UserWarning, stacklevel=5)
    for damaged in checkpoint.all_of(folder):
        shutil.rmtree(damaged)
    (folder / TRAINED).unlink(missing_ok=True)
    return False


def evaluate_at(
    model: Recommender, cases: Cases, counts_V: np.ndarray, config: TrainConfig,
    weights: tuple[float, ...],
) -> dict[float, evaluation.Evaluation]:
    """Exact full ranking at each popularity weight; queries are encoded once."""
    query_CD = model.encode(cases)

    def at(weight: float) -> evaluation.Evaluation:
        return evaluation.evaluate(
            served_scores(model, query_CD, weight), cases, counts=counts_V, ks=(10,),
            mask_seen=config.mask_seen,
        )

    return {weight: at(weight) for weight in weights}
