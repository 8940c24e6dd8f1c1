"""`fastpop.train` and `fastpop.load`."""

import contextlib
import logging
import shutil
import warnings
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fastpop import checks, recipes, registry
from fastpop.data.cases import Cases
from fastpop.data.interactions import Interactions
from fastpop.data.own_test import split_with_test
from fastpop.data.paths import local_path
from fastpop.data.prepare import as_log
from fastpop.data.split import Split
from fastpop.model import Recommender
from fastpop.popularity import PopularityPrior
from fastpop.training import build, checkpoint, damaged, memory, prints
from fastpop.training import folder as run_folder
from fastpop.training import ranks as processes
from fastpop.training.config import VALIDATION_K, TrainConfig
from fastpop.training.loop import Progress, TrainingDiverged, fit
from fastpop.training.recommending import readable_cases
from fastpop.training.result import TrainResult, evaluate_model
from fastpop.training.serving import Serving

LOG = logging.getLogger(__name__)


def train(
    log: Interactions | str | Path,
    *,
    test: Interactions | Cases | str | Path | None = None,
    config: TrainConfig | str | Path | None = None,
    recipe: str | recipes.Recipe | None = None,
    out: str | Path | None = None,
    resume: bool = False,
    progress: bool | None = None,
    **options: Any,
) -> TrainResult:
    """Train a recommender on a log, with log p(i) outside the dot product, and judge it.

    Splits the log (`split=`), estimates log p from the training events that the encoder predicts (for
    sequence encoders not a user's first), trains, and evaluates the test cases by exact full ranking.

    Args:
        log: from `fastpop.read_log` or `Interactions.from_arrays`; or the path of a prepared folder
            (`fastpop.data.prepare`), which is opened.
        test: a test part that comes with the log: Interactions, Cases, or a file of lines
            `prefix<TAB>target`. Nothing but a validation part is then cut from `log`.
        config: a TrainConfig, or a TOML file of its fields. recipe: instead, a published method, by its name
            (`fastpop.available("recipes")`) or as a Recipe. options: single fields, which win.
        out: folder for checkpoints, the log, train.csv and the model (`fastpop.load` reads it).
            A run of the same configuration and log that was stopped in it goes on.
        resume: go on from the newest checkpoint in `out`, also to more epochs; the result is bit for
            bit that of an uninterrupted run (same kind of machine, same number of threads). The
            configuration must be the same but for `epochs`, and so must the log.
        progress: show a bar; None shows one on a terminal or in a notebook.
    Returns:
        TrainResult: metrics, history, model, audit(), recommend(), evaluate(), save().
    Where torch.distributed runs with several processes, each of which calls this alike, they make the run
    together (docs/distributed.md): the first writes `out`, and each returns the result, whose item table is
    then mapped from there; without `out` it is whole in the memory of each.
    Raises:
        ValueError, TypeError: an argument; says what was expected and what came.
        TrainingDiverged: the loss became NaN or infinite; the batch is kept in `out`.
        CheckpointError: `out` cannot be written; the checkpoint before stays valid.
        KeyboardInterrupt: ctrl-C, after a checkpoint was written to `out`.
    """
    log = as_log(log)
    config = resolve_config(config, options, recipe)
    if out is not None and not isinstance(out, (str, Path)):
        raise checks.wrong_type("out", "the path of a folder", out)
    if config.tensorboard and out is None:
        raise checks.wrong("tensorboard", "false without out=, where its files would go", True)
    for logger in config.logger_parts:
        if out is None and logger.needs_folder:
            raise checks.wrong("loggers", "only such as need no folder without out=", text=f"{logger!r}")
        logger.check()
    if out is None and resume:
        raise checks.wrong("out", "the folder to resume from", None)
    config.torch_device()
    place = None if out is None else local_path(out, "out")
    leads = processes.leads()
    if place is not None and leads:
        run_folder.check_before(place, config, resume=resume)
    reason = config.double_subtraction()
    if reason:
        warnings.warn(reason, UserWarning, stacklevel=2)
    parts = make_split(log, test, config)
    if test is not None:
        log = parts.known  # the test's users and items have joined the catalogue
    if config.patience and (parts.valid is None or parts.valid.num_cases == 0):
        raise checks.wrong("patience", "0 for a split without validation cases", config.patience)
    config_of_log = build.bounded(config, log, parts.test)
    _check_memory(config_of_log, log, place)
    prior = build.target_prior(parts.train, config.encoder_part, config.smoothing)
    assembly = build.assemble(
        config_of_log,
        log,
        parts.train,
        config.prior_part.log_prior(prior, config.seed),
        keep_rows=memory.keeps_rows(config_of_log, log, kept_in_memory=place is None),
    )
    if assembly.temporal is not None:
        prior = config.prior_part.served(assembly.temporal)
    model, ranks = assembly.model, assembly.ranks
    with contextlib.ExitStack() as held:
        state = None
        own_test = parts.test if test is not None else None
        if place is not None:
            goes_on = False
            if leads:
                held.enter_context(run_folder.held(place))
                print_of_log = run_folder.fingerprint(log, own_test)
                goes_on = run_folder.begin(place, config, log, own_test, print_of_log, resume=resume)
            if goes_on if ranks is None else ranks.from_first(goes_on):
                state = go_on_from(place, assembly)
            about = {"out": str(place), "epoch": state.epoch if state else 0}
            if leads:
                LOG.info("%s: from epoch %d on", place, about["epoch"], extra={"fields": about})
                held.enter_context(
                    run_folder.unless_refused(place, but=(TrainingDiverged, checkpoint.CheckpointError))
                )
        valid = _valid_cases(model, parts, config)
        counts_V = parts.train.item_counts()  # what is shown is judged by all training events

        def validate() -> dict[str, float]:
            assert valid is not None
            options: dict[str, Any] = {"ks": (VALIDATION_K,), "metrics": (config.metric_part,)}
            return evaluate_model(model, valid, counts_V, config, ranks=ranks, **options).metrics

        progress_state = fit(
            assembly,
            validate=validate if valid is not None else None,
            out=place,
            progress=state,
            show=progress,
            label=f"{config.encoder} {config.prior}",
        )
        facts: dict[str, Any] = {
            "split": parts.facts,
            "training_rows": assembly.batches.num_rows,
            "stopped": progress_state.stopped,
            "best_epoch": progress_state.best_epoch if config.patience else progress_state.epoch,
        }
        metrics: dict[str, float] = {}
        if parts.test is not None and parts.test.num_cases:
            cases, left_out = readable_cases(model, parts.train, parts.test)
            facts["test_cases"], facts["test_cases_left_out"] = cases.num_cases, left_out
            if cases.num_cases == 0:
                warnings.warn(
                    f"none of the {left_out:,} test cases can be judged: the encoder "
                    f"{str(config.encoder)!r} knows none of their users or histories",
                    UserWarning,
                    stacklevel=2,
                )
            else:
                metrics = evaluate_model(model, cases, counts_V, config, ranks=ranks).metrics
        result = TrainResult(config, model, log, parts, prior, metrics, progress_state.history, facts)
        if place is not None:
            if leads:
                checkpoint.write_text(place / prints.HISTORY, prints.history_csv(progress_state.history))
            result.write_model(place, ranks)
        if ranks is not None:
            ranks.unshare(model, None if place is None else place / "model" / "model.safetensors")
            model.encoder.take_all_rows(parts.train)
            ranks.meet()  # none ends before all have it
    return result


def _check_memory(config: TrainConfig, log: Interactions, place: Path | None) -> None:
    """Raises MemoryError where the run does not fit: in all processes, where it does not in one."""
    kept = place is None
    ranks = processes.here(log.num_items)
    if ranks is None:
        memory.check(config, log, kept_in_memory=kept)
        return
    processes.check(config)  # first: what cannot be cut is no question of memory
    beside, said = ranks.on_this_host(), None
    try:
        memory.check(config, log, kept_in_memory=kept, processes=ranks.world, beside=beside)
    except MemoryError as error:
        said = str(error)
    refused = [one for one in ranks.together({str(ranks.rank): said}).values() if one is not None]
    if refused:
        raise MemoryError(refused[0])


def _valid_cases(model: Recommender, parts: Split, config: TrainConfig) -> Cases | None:
    """The cases that validation judges while training; None: there is no validation."""
    if not config.evaluate_every or parts.valid is None or not parts.valid.num_cases:
        return None
    valid = readable_cases(model, parts.train, parts.valid)[0]
    if config.valid_cases and valid.num_cases > config.valid_cases:
        chosen = np.random.default_rng(config.seed).permutation(valid.num_cases)
        valid = valid.take(np.sort(chosen[: config.valid_cases]))
    return valid


def go_on_from(place: Path, assembly: build.Assembly) -> Progress | None:
    """The newest sound checkpoint, loaded into the parts; None: the run died before its first, or begins
    anew, since the best weights that it goes back to at its end are damaged."""
    config, model = assembly.config, assembly.model
    ranks = assembly.ranks
    found = checkpoint.read_newest(place, with_loss=config.loss_part.adapts, ranks=ranks)
    if found is None or (config.patience and not _sound_best(place, found[2], ranks)):
        return None
    newest, tensors, state = found
    with checkpoint.fitting(newest):
        log_prior_V = model.decoder.log_prior_V.clone()
        model.load_state_dict(tensors["model"] if ranks is None else ranks.parts_of(model, tensors["model"]))
        checkpoint.restore_optimizers(assembly.optimizers, tensors["optimizer"], ranks)
        if "loss" in tensors:
            assembly.loss.load_state_dict(tensors["loss"])
        progress = Progress.restored(state)
    # another machine's logarithms may differ in their last bits, another marginal by much more
    if not torch.allclose(log_prior_V, model.decoder.log_prior_V, rtol=0, atol=1e-4):
        raise checkpoint.CheckpointError(
            f"{newest}: expected the log p of this configuration and log, which it trains beside; got "
            "another (a run of an earlier version?). Train anew in another folder"
        )
    if progress.epoch < config.epochs and progress.stopped == "epochs":
        progress.stopped = ""
    return progress


def _sound_best(place: Path, state: dict[str, Any], ranks: processes.Ranks | None) -> bool:
    """Whether out/best holds what a checkpoint counts on, as the first process finds it. Where not, it and
    all checkpoints are removed, and warned of."""
    if ranks is None:
        return _is_best_sound(place, state)
    return ranks.from_first(ranks.leads and _is_best_sound(place, state))


def _is_best_sound(place: Path, state: dict[str, Any]) -> bool:
    best = Progress.restored(state)
    if best.best is None:
        return True
    try:
        if checkpoint.read_folder(place / "best", ("model",))[1]["epoch"] >= best.best_epoch:
            return True
        reason = f"{place / 'best'}: expected the weights of epoch {best.best_epoch}; got older ones"
    except checkpoint.CheckpointError as error:
        reason = str(error)
    warnings.warn(f"{reason}. This run is trained anew.", UserWarning, stacklevel=4)
    for one in (place / "best", *checkpoint.all_of(place)):
        shutil.rmtree(one, ignore_errors=True)
    return False


def finished_run(
    log: Interactions, *, test: Interactions | Cases | str | Path | None, config: TrainConfig, out: Path
) -> TrainResult:
    """`load(out)`, once the run there is known to be of this configuration, log and test part.

    Raises ValueError where it is another's; else as `load`.
    """
    run_folder.check_before(out, config, resume=True)
    epochs = run_folder.read_options(out)["epochs"]
    if epochs != config.epochs:
        raise checks.wrong(
            "epochs",
            f"{epochs}, as in the finished run in {out} (resume=True, --resume, for more)",
            config.epochs,
        )
    parts = make_split(log, test, config)
    known, own_test = (log, None) if test is None else (parts.known, parts.test)
    if run_folder.read_config(out)[run_folder.LOG_PRINT] != run_folder.fingerprint(known, own_test):
        raise checks.wrong("log", f"the log and the test part of the run in {out}", text="others")
    warnings.warn(f"{out} holds the finished model of this run: going on from it", UserWarning, stacklevel=2)
    with run_folder.held(out):  # and sweep what was left by what was killed
        return load(out)


def load(folder: str | Path) -> TrainResult:
    """The result of a finished run, from the folder given as `out`.

    Raises ValueError when the folder is no run, or a run that has not finished (resume it);
    CheckpointError where a byte of it is not as it was written.
    """
    place = local_path(folder, "folder")
    state = run_folder.state_of(place)
    if state == "nothing":
        raise checks.wrong("folder", "the out= folder of fastpop.train", text=f"{place}")
    if state != "finished":
        raise checks.wrong(
            "folder",
            "a finished run (fastpop.train(..., resume=True) goes on)",
            text=f"{place}, which has no model yet",
        )
    described = run_folder.read_config(place)
    config = _restored(run_folder.read_options(place))
    log = Interactions.open(place / "log", verify=True)
    own_test = Cases.load(place / "test-cases") if (place / "test-cases").exists() else None
    if run_folder.fingerprint(log, own_test) != described[run_folder.LOG_PRINT]:
        raise checkpoint.CheckpointError(
            f"{place}: expected the log and the test part of this run; got others"
        )
    parts = make_split(log, own_test, config)
    tensors, saved = checkpoint.read_folder(place / "model", ("model",))
    damaged.warn_of_damaged(place, saved)
    prior = _load_prior(place, parts, config, saved)
    model = build.build_model(build.bounded(config, log, parts.test), log, prior.log_prior_V, parts.train)
    with checkpoint.fitting(place / "model"):
        model.load_state_dict(tensors["model"])
        kept = {name: saved[name] for name in ("metrics", "history", "facts")}
        serving = saved.get("serving")  # a run of an earlier version has none
        fitted = None if serving is None else Serving(**serving)
    model.to(config.replace(device="auto").torch_device()).eval()
    return TrainResult(config, model, log, parts, prior, **kept, serving=fitted)


def _restored(options: dict[str, Any]) -> TrainConfig:
    """The configuration of a run. Raises registry.Missing for a part that is not registered here."""
    registry.require("metric", str(options["metric"]).partition("@")[0])
    config = TrainConfig.from_dict(options)
    encoder = config.encoder_part
    registry.require("rows", encoder.rows or encoder.reads)
    return config


def _load_prior(folder: Path, parts: Split, config: TrainConfig, state: dict[str, Any]) -> PopularityPrior:
    """The prior that was saved, refreshed or not; a run of an earlier version has none, and takes
    that of the training events."""
    if "prior" not in state:
        return PopularityPrior.from_counts(parts.train.item_counts(), smoothing=config.smoothing)
    tensors, _ = checkpoint.read_folder(folder / "model", ("prior",))
    with checkpoint.fitting(folder / "model"):
        arrays = {name: tensor.numpy() for name, tensor in tensors["prior"].items()}
        return PopularityPrior.of_arrays(arrays, state["prior"])


def make_split(log: Interactions, test: Any, config: TrainConfig) -> Split:
    """The split that a configuration asks for."""
    if test is not None:
        return split_with_test(log, test)
    return config.split_part.cut(log, config.seed)


def resolve_config(
    config: TrainConfig | str | Path | None,
    options: dict[str, Any],
    recipe: str | recipes.Recipe | None = None,
    leave: Collection[str] = (),
) -> TrainConfig:
    """A TrainConfig from one, a TOML file, a recipe or nothing, with single options on top.

    leave: options of a recipe that are not taken.
    """
    if recipe is not None:
        if config is not None:
            raise checks.wrong("recipe", "none beside config= (a TOML file may name its recipe)", recipe)
        known = recipes.find(recipe).options
        config = TrainConfig.from_dict({key: known[key] for key in known if key not in leave})
    elif config is None:
        config = TrainConfig()
    elif isinstance(config, (str, Path)):
        config = TrainConfig.from_toml(config)
    elif not isinstance(config, TrainConfig):
        raise checks.wrong_type("config", "a TrainConfig or a TOML file", config)
    return config.replace(**options)
