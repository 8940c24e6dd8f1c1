"""`fastpop.train` and `fastpop.load`."""

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from fastpop import checks
from fastpop.data.cases import Cases
from fastpop.data.interactions import Interactions
from fastpop.data.own_test import split_with_test
from fastpop.data.split import Split, split
from fastpop.model import Recommender
from fastpop.popularity import PopularityPrior
from fastpop.training import build, checkpoint
from fastpop.training.config import TrainConfig
from fastpop.training.loop import Progress, fit
from fastpop.training.result import (
    TrainResult,
    evaluate_model,
    fingerprint,
    readable_cases,
)


def train(
    log: Interactions,
    *,
    test: Interactions | Cases | str | Path | None = None,
    config: TrainConfig | str | Path | None = None,
    out: str | Path | None = None,
    resume: bool = False,
    progress: bool | None = None,
    **options: Any,
) -> TrainResult:
    """Train a recommender on a log, with log p(i) outside the dot product, and judge it.

    Splits the log (`split=`), estimates log p from training events only, trains, and evaluates
    the test cases by exact full ranking.

    Args:
        log: from `fastpop.read_log` or `Interactions.from_arrays`.
        test: a test part that comes with the log: Interactions, Cases, or a file of lines
            `prefix<TAB>target`. Nothing but a validation part is then cut from `log`.
        config: a TrainConfig, or a TOML file of its fields. options: single fields, which win.
        out: folder for checkpoints, the log, train.csv and the model (`fastpop.load` reads it).
        resume: go on from the newest checkpoint in `out`; the result is bit for bit that of an
            uninterrupted run (same kind of machine, same number of threads). The configuration
            must be the same but for `epochs`, and so must the log.
        progress: show a bar; None shows one on a terminal.
    Returns:
        TrainResult: metrics, history, model, audit(), recommend(), evaluate(), save().
    Raises:
        ValueError, TypeError: an argument; says what was expected and what came.
        TrainingDiverged: the loss became NaN or infinite; the batch is kept in `out`.
        CheckpointError: `out` cannot be written; the checkpoint before stays valid.
        KeyboardInterrupt: ctrl-C, after a checkpoint was written to `out`.
    """
    if not isinstance(log, Interactions):
        raise checks.wrong_type("log", "Interactions (read a file with fastpop.read_log)", log)
    config = resolve_config(config, options)
    if out is not None and not isinstance(out, (str, Path)):
        raise checks.wrong_type("out", "the path of a folder", out)
    if config.tensorboard and out is None:
        raise checks.wrong("tensorboard", "false without out=, where its files would go", True)
    folder = None if out is None else Path(out)
    reason = config.double_subtraction()
    if reason:
        warnings.warn(reason, UserWarning, stacklevel=2)
    parts = make_split(log, test, config)
    if test is not None:
        log = parts.known  # the test's users and items have joined the catalogue
    counts_V = parts.train.item_counts()
    prior = PopularityPrior.from_counts(counts_V, smoothing=config.smoothing)
    log_prior_V = prior.permuted(config.seed).log_prior_V if config.prior == "permuted" \
        else prior.log_prior_V
    model = build.build_model(config, log, log_prior_V).to(config.torch_device())
    batches = build.build_batches(config, parts.train, model.encoder.reads)
    loss = build.build_loss(config, batches).to(model.device)
    optimizers = build.build_optimizers(config, model)
    state = _prepare(folder, resume, config, fingerprint(log, parts.test if test is not None else None),
                     model, optimizers)
    if config.patience and (parts.valid is None or parts.valid.num_cases == 0):
        raise checks.wrong("patience", "0 for a split without validation cases", config.patience)
    valid = None
    if config.evaluate_every and parts.valid is not None and parts.valid.num_cases:
        valid = readable_cases(model, parts.train, parts.valid)[0]
        if config.valid_cases and valid.num_cases > config.valid_cases:
            chosen = np.random.default_rng(config.seed).permutation(valid.num_cases)
            valid = valid.take(np.sort(chosen[: config.valid_cases]))

    def look() -> dict[str, float]:
        assert valid is not None
        return evaluate_model(model, valid, counts_V, config, ks=(10,)).metrics

    progress_state = fit(
        model, loss, batches, optimizers, config, look=look if valid is not None else None,
        out=folder, progress=state, show=progress, label=f"{config.encoder} {config.prior}",
    )
    facts: dict[str, Any] = {
        "split": parts.facts,
        "training_rows": batches.num_rows,
        "stopped": progress_state.stopped,
        "best_epoch": progress_state.best_epoch if config.patience else progress_state.epoch,
    }
    metrics: dict[str, float] = {}
    if parts.test is not None and parts.test.num_cases:
        cases, left_out = readable_cases(model, parts.train, parts.test)
        facts["test_cases"], facts["test_cases_left_out"] = cases.num_cases, left_out
        if cases.num_cases == 0:
            warnings.warn(f"none of the {left_out:,} test cases can be judged: the encoder "
                          f"{config.encoder!r} knows none of their users or histories",
                          UserWarning, stacklevel=2)
        else:
            metrics = evaluate_model(model, cases, counts_V, config).metrics
    result = TrainResult(config, model, log, parts, prior, metrics, progress_state.history, facts)
    if folder is not None:
        if test is not None and parts.test is not None:
            parts.test.save(folder / "test-cases")
        result.save(folder)
    return result


def load(folder: str | Path) -> TrainResult:
    """The result of a finished run, from the folder given as `out`.

    Raises ValueError when the folder is no run, or a run that has not finished (resume it).
    """
    folder = Path(folder)
    if not (folder / "config.json").exists():
        raise checks.wrong("folder", "the out= folder of fastpop.train", f"={folder}")
    if not (folder / "model").exists():
        raise checks.wrong("folder", "a finished run (fastpop.train(..., resume=True) goes on)",
                           f"={folder}, which has no model yet")
    config = TrainConfig.from_dict(read_config(folder))
    log = Interactions.load(folder / "log")
    parts = make_split(log, _load_test(folder), config)
    prior = PopularityPrior.from_counts(parts.train.item_counts(), smoothing=config.smoothing)
    model = build.build_model(config, log, prior.log_prior_V)
    tensors, state = checkpoint.read_folder(folder / "model", ("model",))
    with checkpoint.fitting(folder / "model"):
        model.load_state_dict(tensors["model"])
        kept = {name: state[name] for name in ("metrics", "history", "facts")}
    model.to(config.replace(device="auto").torch_device()).eval()
    return TrainResult(config, model, log, parts, prior, **kept)


def make_split(log: Interactions, test: Any, config: TrainConfig) -> Split:
    """The split that a configuration asks for."""
    if test is not None:
        return split_with_test(log, test)
    n = config.split_n if config.split == "leave-last-n" else None
    return split(log, config.split, fraction=config.split_fraction, n=n, seed=config.seed)


def resolve_config(config: TrainConfig | str | Path | None, options: dict[str, Any]) -> TrainConfig:
    """A TrainConfig from one, a TOML file or nothing, with single options on top."""
    if config is None:
        config = TrainConfig()
    elif isinstance(config, (str, Path)):
        config = TrainConfig.from_toml(config)
    elif not isinstance(config, TrainConfig):
        raise checks.wrong_type("config", "a TrainConfig or a TOML file", config)
    return config.replace(**options)


def _prepare(
    folder: Path | None, resume: bool, config: TrainConfig, print_of_log: str,
    model: Recommender, optimizers: list,
) -> Progress | None:
    """Make the folder ready; with `resume`, load the newest checkpoint into the parts."""
    if folder is None:
        if resume:
            raise checks.wrong("out", "the folder to resume from", None)
        return None
    ours = (folder / "config.json").exists() and (folder / "log.sha256").exists()
    if not resume:
        if ours:
            raise checks.wrong("out", "a new folder, or resume=True to go on with the run in it",
                               f"={folder}")
        if folder.is_dir() and any(folder.iterdir()):
            raise checks.wrong("out", "a new or an empty folder", f"={folder}, which has files")
        checkpoint.write_text(folder / "config.json", config.to_json())
        checkpoint.write_text(folder / "log.sha256", print_of_log + "\n")
        return None
    if not ours:
        raise checks.wrong("out", "a folder with a run to resume", f"={folder}")
    _same_run(folder, config, print_of_log)
    newest = checkpoint.latest(folder)
    if newest is None:
        # A run that died before its first checkpoint starts again from the beginning.
        return None
    checkpoint.write_text(folder / "config.json", config.to_json())
    tensors, state = checkpoint.read_folder(newest, ("model", "optimizer"))
    with checkpoint.fitting(newest):
        model.load_state_dict(tensors["model"])
        checkpoint.restore_optimizers(optimizers, tensors["optimizer"])
        progress = Progress(**state)
    if progress.epoch < config.epochs and progress.stopped == "epochs":
        progress.stopped = ""
    return progress


def _same_run(folder: Path, config: TrainConfig, print_of_log: str) -> None:
    before = read_config(folder)
    free = ("epochs", "checkpoint_every", "tensorboard")
    for name, value in config.to_dict().items():
        if name not in free and before.get(name) != value:
            raise checks.wrong(name, f"{before.get(name)!r}, as in the run in {folder}", value)
    if (folder / "log.sha256").read_text().strip() != print_of_log:
        raise checks.wrong("log", f"the log and the test part of the run in {folder}", "=others")


def read_config(folder: Path) -> dict[str, Any]:
    """The options in folder/config.json. Raises CheckpointError for a damaged file."""
    try:
        return json.loads((folder / "config.json").read_text())
    except (OSError, ValueError) as error:
        raise checkpoint.CheckpointError(f"{folder / 'config.json'}: expected the options of a "
                                         f"run; got {error}") from None


def _load_test(folder: Path) -> Cases | None:
    return Cases.load(folder / "test-cases") if (folder / "test-cases").exists() else None
