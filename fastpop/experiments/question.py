"""What a comparison is asked: checked, and as the plain data that tells one question from another."""

import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

import fastpop
from fastpop import checks, evaluation, registry
from fastpop.data.cases import Cases
from fastpop.data.interactions import Interactions
from fastpop.data.split import Split
from fastpop.diagnostics import Null
from fastpop.experiments.arms import AFTERWARDS, ARMS, ITEM_MEAN, Arm, arm_of
from fastpop.experiments.further import NOTHING_FURTHER, Further
from fastpop.experiments.one_arm import best_by_words, some_cases
from fastpop.recipes import Recipe
from fastpop.training import TrainConfig
from fastpop.training import folder as run_folder
from fastpop.training.run import resolve_config

NOT_ASKED = (
    "prior",
    "checkpoint_every",
    "checkpoint_minutes",
    "tensorboard",
    "loggers",
    "patience",
    "evaluate_every",
    "bias_start",
    "metric",
)
OF_ARMS = ("prior", "prior_weight", "bias_start", "bias_learning_rate")  # of a recipe, left aside
FORMAT = 3  # of what a stopped comparison keeps; one more where the parts of an older one would not fit


@dataclass(frozen=True)
class Question:
    """What is asked of a log, checked."""

    seeds: list[int]
    arms: list[str]
    betas: tuple[float, ...]
    permutations: int
    max_epochs: int  # as given
    patience: int
    max_cases: int
    config: TrainConfig
    name: str
    extra: dict[str, Any] = field(default_factory=dict)  # shown, rated
    others: dict[str, Arm] = field(default_factory=dict)  # arms that are not ours, by name
    references: list[evaluation.Reference] = field(default_factory=list)
    nulls: list[Null] = field(default_factory=list)
    further: Further = NOTHING_FURTHER

    @property
    def last_epoch(self) -> int:
        return self.max_epochs or 2 * self.config.epochs


def config_of(config: Any, options: dict[str, Any], recipe: str | Recipe | None = None) -> TrainConfig:
    """The configuration of every arm."""
    for mine in ("prior", "bias_start"):
        if mine in options:
            raise checks.wrong(mine, f"no {mine}: every arm has its own", options[mine])
    if options.get("patience") and "evaluate_every" not in options:
        options = {**options, "evaluate_every": 1}  # which it is; patience alone would be refused
    config = resolve_config(config, options, recipe, leave=OF_ARMS)
    for mine, why in (
        ("prior", "no prior: every arm has its own"),
        ("bias_start", "no bias_start: every arm has its own"),
        ("prior_weight", "1: arms are read at popularity weight 1, as trained"),
        ("metric", f"no metric: the best epoch is that of best {best_by_words(config)}, for every arm"),
        ("tensorboard", "False: curves over epochs are in the report"),
        ("loggers", "none: curves over epochs are in the report"),
    ):
        if getattr(config, mine) != getattr(TrainConfig, mine):
            raise checks.wrong(mine, why, getattr(config, mine))
    if config.evaluate_every > 1:
        raise checks.wrong(
            "evaluate_every", "0 or 1: arms are validated after every epoch", config.evaluate_every
        )
    reason = config.double_subtraction()
    if reason:
        warnings.warn("arm 'frozen': " + reason, UserWarning, stacklevel=3)
    return config


def asked_of(question: Question, log: Interactions, own: Split | None) -> dict[str, Any]:
    options = {key: value for key, value in question.config.to_dict().items() if key not in NOT_ASKED}
    extra = {
        name: None if part is None else run_folder.fingerprint(part, None)
        for name, part in question.extra.items()
    }
    return {
        "version": fastpop.__version__,
        "format": FORMAT,
        "arms": question.arms,
        "seeds": question.seeds,
        "permutations": question.permutations,
        "popularity_weights": list(question.betas),
        "max_epochs": question.max_epochs,
        "patience": question.patience,
        "max_cases": question.max_cases,
        "others": {
            name: {key: value for key, value in vars(arm).items() if key != "make"}
            for name, arm in question.others.items()
        },
        "references": [registry.record(one) for one in question.references],
        "nulls": [registry.record(one) for one in question.nulls],
        **question.further.asked(),
        "config": options,
        "log_sha256": run_folder.fingerprint(log, own.test if own else None),
        **extra,
    }


def drawn(cases: Cases | None, question: Question) -> Cases | None:
    """At most max_cases of the test cases, the same for all arms and seeds."""
    return some_cases(cases, question.max_cases, question.config.seed)


def others_of(arms: Sequence[str]) -> dict[str, Arm]:
    """Those that are not ours, by name. Raises ValueError for a name that no arm has, or no arm may have."""
    found = {arm.name: arm for arm in map(arm_of, arms)}
    for name, arm in found.items():
        if arm.kind == "reference" or name in registry.all_of("reference") or name == ITEM_MEAN:
            raise checks.wrong(
                "arms", "arms that train or are made of standard afterwards, with names of their own", name
            )
    return {name: arm for name, arm in found.items() if name not in ARMS and name not in AFTERWARDS}


def check_arm(arm: Arm, config: TrainConfig, log: Interactions) -> None:
    """Raises ValueError for an arm of a prior that there is not, that has no start, or that asks for times
    which the log has not."""
    if arm.kind != "trained":
        return
    registry.find("prior", arm.prior, f"prior of the arm {arm.name!r}")
    part = config.replace(**arm.options()).prior_part
    if part.by_period and log.time is None:
        raise checks.wrong(
            "log", f"events with times, which the arm {arm.name!r} asks for", text="a log without times"
        )
    if "bias_start" in arm.options() and "start" not in part.options():
        raise checks.wrong(
            f"bias_start of the arm {arm.name!r}",
            f"'zero' with the prior {arm.prior!r}, which has none",
            arm.bias_start,
        )


def nulls_of(nulls: Any) -> list[Null]:
    found = [registry.made("null", one, "nulls") for one in listed("nulls", nulls, "a list of nulls")]
    names = list(map(str, found))
    if not found or len(set(names)) < len(names) or any(null.strata for null in found):
        raise checks.wrong("nulls", "different ones, at least one, that need no strata", names)
    return found


def listed(name: str, given: Any, expected: str) -> list:
    if isinstance(given, (str, bytes, dict)) or not isinstance(given, Iterable):
        raise checks.wrong_type(name, expected, given)
    return list(given)


def seeds_of(seeds: int | Sequence[int]) -> list[int]:
    if isinstance(seeds, (int, np.integer)) and not isinstance(seeds, bool):
        checks.number("seeds", seeds, ge=1, integer=True)
        return list(range(int(seeds)))
    if isinstance(seeds, (str, bytes, float)) or not isinstance(seeds, Sequence) or not seeds:
        raise checks.wrong_type("seeds", "a number of seeds or a list of them", seeds)
    for seed in seeds:
        checks.number("seeds", seed, ge=0, integer=True)
    if len(set(seeds)) < len(seeds):
        raise checks.wrong("seeds", "different seeds", list(seeds))
    return [int(seed) for seed in seeds]
