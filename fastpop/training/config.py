"""One dataclass that holds every choice of a training run; TOML files have the same names.

Parts (`PARTS`) are given by name or as objects with their options. Options of our own parts are fields
here, too, under the names in `SHORT`: a part that these can tell is kept as its name and such fields, so
that one choice is written one way. A part of somebody else has defaults of its own: it takes such a field
where that was given, and is then kept as an object, the field at its default.
"""

import dataclasses
import json
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch

from fastpop import checks, deprecated, evaluation, recipes, registry
from fastpop.components import Component, check_options
from fastpop.data.paths import local_path
from fastpop.data.splits import SplitRule
from fastpop.encoders import EncoderOptions
from fastpop.item_towers import ItemTowerOptions
from fastpop.objectives import Objective
from fastpop.popularity import ProposalOptions
from fastpop.priors import Prior
from fastpop.table_optimizers import TableOptimizer
from fastpop.tables import PLAIN, TableKind
from fastpop.training.loggers import Logger

# What no run needs more of; a larger number is a slip, and would end in the machine's memory.
LARGEST = {"dim": 16_384, "num_layers": 128, "num_heads": 1024, "num_negatives": 1 << 20}
# Fields that hold a part, and those that hold several.
PARTS = ("encoder", "item_tower", "prior", "loss", "proposal", "table_optimizer", "split")
LISTS = {"regularizers": "regularizer", "loggers": "logger"}
# part -> option of it -> field that stands for it.
SHORT = {
    "encoder": {name: name for name in ("num_layers", "num_heads", "dropout", "base")},
    "prior": {"weight": "prior_weight", "start": "bias_start", "learning_rate": "bias_learning_rate"},
    "loss": {
        name: name
        for name in (
            "label_smoothing",
            "num_negatives",
            "group_size",
            "extra_negatives",
            "logq",
            "accidental_hits",
        )
    },
    "proposal": {"power": "proposal_power"},
    "split": {"n": "split_n", "fraction": "split_fraction"},
}
VALIDATION_K = 10  # length of the lists that validation judges
AUTO = "auto"  # table_optimizer: row_adam for losses with row gradients, else adam
SMOOTHINGS = ("loo", "good-turing")


@deprecated.options
@dataclass(frozen=True)
class TrainConfig:
    """How to train. Every field is an option of `fastpop.train` and of `fastpop train`."""

    RENAMED: ClassVar[Mapping[str, str]] = {"hits": "accidental_hits"}

    encoder: Any = "factor"
    """factor (one vector per user), bag (mean of the history), sasrec, bert4rec, gru4rec or lightgcn."""
    item_tower: Any = "table"
    """table (one free vector per item) or linear: what item vectors are made of."""
    dim: int = 64
    """Length of query and item vectors."""
    max_length: int = 50
    """Longest history that is read, by encoders that read any."""
    num_layers: int = 2
    """Transformer blocks (sasrec, bert4rec)."""
    num_heads: int = 2
    """Attention heads, a divisor of dim (sasrec, bert4rec)."""
    dropout: float = 0.2
    """Dropout probability (sasrec, bert4rec; bag: on the mean)."""
    base: bool = True
    """A vector that all users (factor) or histories (bag) share: an item bias inside the dot product.
    Without it factor is plain matrix factorisation."""
    prior: Any = "frozen"
    """none; frozen: prior_weight * log p(i) beside the dot product; by-period: log p of the period of each
    target instead; permuted: log p randomly relabelled, a control; learned: a free item bias."""
    prior_weight: float = 1.0
    """Weight of log p in training."""
    bias_start: Literal["zero", "log-prior"] = "zero"
    """Where a learned item bias begins."""
    bias_learning_rate: float = 0.0
    """Step size of a learned item bias; 0: that of the tables."""
    smoothing: str | float = "loo"
    """Smoothing of log p from training counts: loo, good-turing or a number to add."""
    temperature: float = 1.0
    """Divides the dot product, and nothing else."""
    learn_temperature: bool = False
    """Make the temperature a parameter."""
    loss: Any = "sampled_softmax"
    """full_softmax, sampled_softmax, or one of docs/methods.md: bce, gbce, bpr, ..."""
    regularizers: Any = ()
    """What is added to the loss: l2, or others of docs/methods.md: cosreg, simgcl, duorec, resn, ..."""
    num_negatives: int = 1024
    """Negatives per draw."""
    group_size: int = 0
    """Rows that share a draw; 0: all rows of a batch, 1: one draw per row."""
    proposal: Any = "mixture"
    """Distribution of the negatives: uniform, popularity, log_uniform, in_batch, or mixture (half uniform,
    half popularity)."""
    proposal_power: float = 0.75
    """The exponent of popularity in proposal."""
    extra_negatives: int = 0
    """Uniform draws beside in-batch negatives."""
    logq: Literal["standard", "corrected", "none"] = "standard"
    """Correction of the sampled loss for its proposal."""
    accidental_hits: Literal["", "keep", "drop"] = ""
    """keep or drop negatives equal to the positive; empty lets logq decide."""
    label_smoothing: float = 0.0
    """Share of the target spread over the catalogue (full_softmax)."""
    epochs: int = 20
    """Passes over the training events."""
    batch_size: int = 1024
    """Events predicted a step."""
    accumulate: int = 1
    """Parts that a batch is computed in, to save memory."""
    learning_rate: float = 1e-3
    """Step size."""
    table_learning_rate: float = 0.0
    """Step size of embedding tables; 0: learning_rate."""
    table_optimizer: Any = "auto"
    """Optimiser of embedding tables: adam, row_adam, row_adagrad or row_sgd; auto: row_adam for sampled
    losses, adam for full ones."""
    table_dtype: Literal["float32", "bfloat16"] = "float32"
    """Of embedding tables; bfloat16 takes half the memory, and row-wise optimisers round it at random."""
    table_storage: Literal["memory", "disk"] = "memory"
    """Where tables and what row-wise optimisers keep of them lie; disk: in files without a name in the folder
    for temporary files, for what is larger than memory."""
    update_in_backward: bool = False
    """Step row-wise table optimisers inside backward, so that no table gradient waits."""
    weight_decay: float = 0.0
    """Decoupled decay of everything but tables."""
    clip_norm: float = 0.0
    """Largest norm of all gradients together; 0: no limit."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """bf16 runs under autocast: products of bf16 numbers, those of the sampled loss too, with fp32 sums.
    Tables are of table_dtype, and log p stays fp32."""
    cuda_graph: bool = False
    """Record the step as CUDA graphs, of which the host launches one a step. Not yet run on a card."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""
    seed: int = 0
    """Of initial values, data order, draws, dropout and random splits."""
    split: Any = "leave-last-out"
    """leave-last-out, leave-last-n, global-time, random-by-user or none."""
    split_n: int = 1
    """Events a user of leave-last-n."""
    split_fraction: float = 0.1
    """Share of the events of global-time and random-by-user."""
    mask_seen: bool = True
    """Leave seen items out of rankings."""
    evaluate_every: int = 0
    """Epochs between validations; 0: never."""
    metric: str = "ndcg@10"
    """What early stopping wants large (nll, perplexity and rank: small)."""
    patience: int = 0
    """Validations without a better one before stopping; 0: no early stopping. The best model is then the
    result."""
    valid_cases: int = 0
    """Validation cases judged while training; 0: all."""
    checkpoint_every: int = 1
    """Epochs between checkpoints."""
    checkpoint_minutes: float = 10.0
    """Minutes after which one is written within an epoch, too; 0: never."""
    tensorboard: bool = False
    """Write TensorBoard events too."""
    loggers: Any = ()
    """What is told of every epoch, beside train.csv: tensorboard, csv, wandb, mlflow."""

    def __post_init__(self) -> None:
        if isinstance(self.smoothing, str) and self.smoothing not in SMOOTHINGS:
            # A number from the command line or a TOML string.
            try:
                object.__setattr__(self, "smoothing", float(self.smoothing))
            except ValueError:
                raise checks.wrong("smoothing", "loo, good-turing or a number >= 0", self.smoothing) from None
        if not isinstance(self.smoothing, str):
            checks.number("smoothing", self.smoothing, ge=0)
        checks.number("seed", self.seed, ge=0, le=2**63 - 1, integer=True)
        check_options(self)
        self._check_numbers()
        self._take_parts()
        chosen, k = evaluation.find_metric(self.metric)
        if (
            k not in (0, VALIDATION_K)
            or not chosen.direction
            or not {"counts", "logits"}.issuperset(chosen.needs)
        ):
            raise checks.wrong(
                "metric",
                f"one that validation has, at {VALIDATION_K} where it has lists (say "
                f"'nll' or 'ndcg@{VALIDATION_K}'), and of which more or less is better",
                self.metric,
            )
        in_batch = self.proposal_part.in_batch
        if self.prior_part.trained and not self.loss_part.takes_prior:
            why = f"'none' with loss={str(self.loss)!r}, which has no scores for log p to stand beside"
            raise checks.wrong("prior", why, self.prior)
        whole = self.loss_part.whole_batch
        if self.prior_part.by_period:
            self._check_by_period()
        if self.accumulate > 1 and (whole or (in_batch and self.loss_part.needs == "negatives")):
            why = f"loss={str(self.loss)!r}" if whole else "in-batch negatives"
            raise checks.wrong("accumulate", f"1 with {why}, which the whole batch gives", self.accumulate)
        if self.update_in_backward:
            for name, needed in (("accumulate", 1), ("clip_norm", 0.0)):
                if getattr(self, name) != needed:
                    raise checks.wrong(
                        name,
                        f"{needed:g} with update_in_backward, which lets each gradient go at once",
                        getattr(self, name),
                    )
            if not self.table_optimizer_part.in_backward:
                raise checks.wrong(
                    "update_in_backward",
                    f"False with table_optimizer {self.table_optimizer_part}, which is torch's own",
                    True,
                )
        if self.table_kind != PLAIN:
            self._check_tables()
        if self.logq == "corrected" and self.accidental_hits == "keep":
            raise checks.wrong(
                "accidental_hits", "'drop' (or '') with logq='corrected'", self.accidental_hits
            )
        if self.extra_negatives and not in_batch:
            raise checks.wrong("extra_negatives", "0 unless proposal='in_batch'", self.extra_negatives)
        if self.group_size and in_batch:
            raise checks.wrong("group_size", "0 with proposal='in_batch'", self.group_size)
        encoder, rows = self.encoder_part, self.batch_size // self.accumulate
        encoder.check(self.dim)
        self.loss_part.check(self.dim, rows, self.proposal_part)
        for regularizer in self.regularizers:
            regularizer.check(encoder, rows)
        if self.encoder_part.own_tower and self.item_tower != "table":
            raise checks.wrong(
                "item_tower",
                f"'table' with encoder={str(self.encoder)!r}, which makes item vectors itself",
                str(self.item_tower),
            )
        if self.patience and not self.evaluate_every:
            raise checks.wrong("evaluate_every", ">= 1 for early stopping (patience > 0)", 0)
        if self.patience and not self.split_part.keeps_test:
            raise checks.wrong(
                "patience", f"0 without a validation part (split={str(self.split)!r})", self.patience
            )

    @property
    def table_kind(self) -> TableKind:
        """How embedding tables are held."""
        return TableKind(self.table_dtype, self.table_storage)

    def _check_tables(self) -> None:
        """Tables of a kind that not every part takes."""
        name = "table_dtype" if self.table_dtype != "float32" else "table_storage"
        plain = "'float32'" if name == "table_dtype" else "'memory'"
        for reason, fits in (
            (f"encoder={str(self.encoder)!r}", self.encoder_part.half_tables),
            (f"loss={str(self.loss)!r}", self.loss_part.half_items),
            (f"item_tower={str(self.item_tower)!r}", self.item_tower == "table"),
            (f"table_optimizer={str(self.table_optimizer_part)!r}", self.table_optimizer_part.half_tables),
            ("regularizers, which read item vectors", not self.regularizers),
        ):
            if not fits:
                raise checks.wrong(name, f"{plain} with {reason}", getattr(self, name))

    def _check_by_period(self) -> None:
        """A loss is then computed period by period, of rows that say theirs."""
        rows = self.encoder_part.rows_part()
        if not rows.dated:
            why = f"one that is the same for all rows with rows={str(rows)!r}, which say no period"
            raise checks.wrong("prior", why, str(self.prior))
        in_batch = self.proposal_part.in_batch and self.loss_part.needs == "negatives"
        if self.loss_part.whole_batch or in_batch:
            cause = "in-batch negatives" if in_batch else f"loss={str(self.loss)!r}"
            why = f"one that is the same for all rows with {cause}, which compares rows of different periods"
            raise checks.wrong("prior", why, str(self.prior))

    def _check_numbers(self) -> None:
        """Fields one by one, before parts are made of them, whose errors have other names."""
        checks.number("split_fraction", self.split_fraction, gt=0, le=0.5)
        for name in ("max_length", "epochs", "batch_size", "accumulate", "split_n", "checkpoint_every"):
            checks.number(name, getattr(self, name), ge=1, integer=True)
        for name, most in LARGEST.items():
            checks.number(name, getattr(self, name), ge=1, le=most, integer=True)
        for name in ("group_size", "extra_negatives", "evaluate_every", "patience", "valid_cases", "seed"):
            checks.number(name, getattr(self, name), ge=0, integer=True)
        for name in (
            "weight_decay",
            "clip_norm",
            "table_learning_rate",
            "bias_learning_rate",
            "label_smoothing",
            "dropout",
            "checkpoint_minutes",
        ):
            checks.number(name, getattr(self, name), ge=0)
        for name in ("learning_rate", "temperature", "split_fraction"):
            checks.number(name, getattr(self, name), gt=0)
        checks.score_weight("prior_weight", self.prior_weight)
        for name in (
            "learning_rate",
            "table_learning_rate",
            "bias_learning_rate",
            "temperature",
            "weight_decay",
            "clip_norm",
            "proposal_power",
        ):
            checks.float32(name, getattr(self, name))
        for name in ("dropout", "label_smoothing", "split_fraction"):
            if getattr(self, name) >= 1:
                raise checks.wrong(name, "a number below 1", getattr(self, name))

    def _take_parts(self) -> None:
        """Parts as a name and short fields where these can tell them, otherwise as objects."""
        for kind in PARTS:
            value = getattr(self, kind)
            if kind == "table_optimizer" and isinstance(value, str) and value == AUTO:
                continue
            part = self._part(kind, value)
            short, options, ours = SHORT.get(kind, {}), part.options(), registry.is_one_of_ours(part)
            for name, field in short.items():
                given, default = getattr(self, field), getattr(TrainConfig, field)
                if name in options:
                    if isinstance(value, Component) and given not in (default, options[name]):
                        raise _beside(kind, value, name, given)
                    object.__setattr__(self, field, options[name] if ours else default)
            told = registry.is_plain(part) and all(
                (name in short and ours) or options[name] == default
                for name, default in registry.defaults(part).items()
            )
            object.__setattr__(self, kind, str(part) if told else part)
        for name, kind in LISTS.items():
            given = getattr(self, name)
            given = (given,) if isinstance(given, (str, Component)) else given
            if not isinstance(given, (tuple, list)):
                raise checks.wrong_type(name, "a list of names or parts", given)
            parts = tuple(registry.made(kind, one, name) for one in given)
            object.__setattr__(self, name, parts)

    def _part(self, kind: str, value: Any) -> Any:
        """A part from its name, with its options where there are fields for them, or as it is. One that is
        not ours has defaults of its own, and takes such fields as are not at theirs."""
        short = SHORT.get(kind, {})
        given, defaults = (
            {name: getattr(of, field) for name, field in short.items()} for of in (self, TrainConfig)
        )
        return registry.made(kind, value, options=given, defaults=defaults)

    @property
    def encoder_part(self) -> EncoderOptions:
        return self._part("encoder", self.encoder)

    @property
    def item_tower_part(self) -> ItemTowerOptions:
        return self._part("item_tower", self.item_tower)

    @property
    def prior_part(self) -> Prior:
        return self._part("prior", self.prior)

    @property
    def loss_part(self) -> Objective:
        return self._part("loss", self.loss)

    @property
    def proposal_part(self) -> ProposalOptions:
        return self._part("proposal", self.proposal)

    @property
    def split_part(self) -> SplitRule:
        return self._part("split", self.split)

    @property
    def table_optimizer_part(self) -> TableOptimizer:
        """That of the tables; auto decided."""
        rows = self.loss_part.row_gradients and self._plain_tables
        name = ("row_adam" if rows else "adam") if self.table_optimizer == AUTO else self.table_optimizer
        return self._part("table_optimizer", name)

    @property
    def metric_part(self) -> "evaluation.Metric":
        return evaluation.find_metric(self.metric)[0]

    @property
    def logger_parts(self) -> tuple[Logger, ...]:
        """Those asked for, tensorboard=True among them."""
        more = (registry.made("logger", "tensorboard"),) if self.tensorboard else ()
        return (*self.loggers, *(one for one in more if one not in self.loggers))

    def replace(self, **options: Any) -> "TrainConfig":
        """A copy with some options changed; an unknown name raises with the nearest known one."""
        options = deprecated.current(options, self.RENAMED)
        known = [field.name for field in dataclasses.fields(self)]
        for name in options:
            if name not in known:
                import difflib

                near = difflib.get_close_matches(name, known, 1)
                hint = f"; did you mean {near[0]!r}?" if near else ""
                raise TypeError(f"{name}: expected an option of TrainConfig; got an unknown one{hint}")
        for kind, short in SHORT.items():
            given = options.get(kind, getattr(self, kind))
            told = {name: options[field] for name, field in short.items() if field in options}
            if told and isinstance(given, str) and not registry.is_ours(kind, given):
                before = {
                    name: getattr(self, field)
                    for name, field in short.items()
                    if getattr(self, field) != getattr(TrainConfig, field)
                }
                given = registry.made(kind, given, options=before | told)
            if not isinstance(given, Component):
                continue
            own = given.options()
            changed = {name: value for name, value in told.items() if own.get(name, value) != value}
            if changed and kind in options:
                raise _beside(kind, given, *next(iter(changed.items())))
            options[kind] = given = dataclasses.replace(given, **changed)
            for name in set(short) & set(own):
                ours = registry.is_one_of_ours(given)
                options[short[name]] = given.options()[name] if ours else getattr(TrainConfig, short[name])
        return dataclasses.replace(self, **options)

    def to_dict(self) -> dict[str, Any]:
        """Plain values: what JSON can hold and `from_dict` takes."""
        found = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        for kind in PARTS:
            name = found[kind]
            if isinstance(name, Component) or (name != AUTO and not registry.is_ours(kind, name)):
                found[kind] = registry.record(self._part(kind, name))
        for name in LISTS:
            found[name] = [registry.record(part) for part in found[name]]
        return found

    @classmethod
    def from_dict(cls, options: dict[str, Any]) -> "TrainConfig":
        """From what `to_dict` gave, or from a TOML file: a part as a name, a table of name and options,
        or a record; beside recipe, the name of one, what is to differ from it. Raises registry.Missing for a
        part that is not registered here."""
        options = deprecated.current(options, cls.RENAMED)
        recipe = options.pop("recipe", None)
        base = cls() if recipe is None else cls.from_dict(dict(recipes.find(recipe).options))
        for kind in PARTS:
            kept = options.get(kind)
            if isinstance(kept, dict):
                short = SHORT.get(kind, {})
                if recipe is not None and "name" not in kept:  # the recipe's part, with some options changed
                    own = getattr(base, f"{kind}_part")
                    said = {key: own.options()[key] for key in own.options() if short.get(key) not in options}
                    kept = {"name": str(own), **said, **kept}
                options[kind] = part = _part_of(kind, kept, getattr(cls, kind), short, options)
                if registry.is_record(kept):  # which has what such fields say, and more
                    for name in set(short) & set(part.options()):
                        options.pop(short[name], None)
        for name, kind in LISTS.items():
            if isinstance(options.get(name), (list, tuple)):
                options[name] = tuple(
                    _part_of(kind, one, "", {}, {}) if isinstance(one, dict) else one for one in options[name]
                )
        return base.replace(**options)

    @classmethod
    def from_toml(cls, path: str | Path) -> "TrainConfig":
        """The options of a TOML file, names as here, or recipe; a [train] table is read if there is one.

        A file with the whole of a run (fastpop train --config) keeps these under [train].
        Raises ValueError naming the file for bad TOML, and as `replace` does for unknown names.
        """
        found = read_toml(path)
        options = found.get("train", found)
        if not isinstance(options, dict):
            raise checks.wrong(f"{path}: train", "a table of options", options)
        beside = {name: found[name] for name in (*PARTS, *LISTS, "recipe") if name in found}
        return cls.from_dict(beside | options)

    def to_json(self) -> str:
        return json.dumps(self.to_dict(), indent=2) + "\n"

    def torch_device(self) -> torch.device:
        """The device to run on; "auto" is CUDA when torch sees one."""
        if self.device == "auto":
            return torch.device("cuda" if torch.cuda.is_available() else "cpu")
        try:
            device = torch.device(self.device)
        except RuntimeError:
            raise checks.wrong("device", "auto, cpu, cuda or cuda:N", self.device) from None
        if device.type not in ("cpu", "cuda"):
            raise checks.wrong("device", "auto, cpu, cuda or cuda:N", self.device)
        if device.type == "cuda" and not torch.cuda.is_available():
            raise checks.wrong("device", "cpu or auto: torch sees no CUDA device here", self.device)
        return device

    @property
    def sparse(self) -> bool:
        """Whether tables get sparse row gradients: sampled losses with a row-wise optimiser."""
        return self.loss_part.row_gradients and self.table_optimizer_part.row_gradients and self._plain_tables

    @property
    def _plain_tables(self) -> bool:
        """Whether item vectors are rows of the table, as they stand there."""
        return self.item_tower == "table" and not self.encoder_part.own_tower

    def double_subtraction(self) -> str | None:
        """Why this prior would subtract popularity twice, or None.

        Without log Q correction a sampled softmax, BCE or BPR learns log p(i|c) - log q - τ log p: its
        popularity slope is 1 - α - τ for q ∝ p^α, negative when both are taken away.
        """
        alpha, prior = self.proposal_part.exponent, self.prior_part
        if not self.loss_part.uncorrected or not (prior.trained and prior.refreshable):
            return None
        if alpha is None or 1 - alpha - prior.prior_weight >= 0:
            return None
        has_logq = hasattr(self.loss_part, "logq")
        cause, cure = (
            ("logq='none'", "logq='standard'")
            if has_logq
            else (f"loss={str(self.loss)!r}", "proposal='uniform'")
        )
        return (
            f"{cause} with proposal={str(self.proposal)!r} already takes popularity^{alpha:g} out of "
            f"the scores; prior={str(prior)!r} with prior_weight={prior.prior_weight:g} takes it out again: "
            f"the scores will have popularity slope {1 - alpha - prior.prior_weight:g}, not "
            f"{1 - prior.prior_weight:g}. Use {cure}, or prior='none'."
        )


def check_recipe(recipe: recipes.Recipe) -> None:
    """Raises ValueError, TypeError in the words of the option where a run of this recipe could not be."""
    TrainConfig.from_dict(dict(recipe.options))


def name_and_options(part: str, table: dict[str, Any]) -> tuple[str | None, dict[str, Any]]:
    """(name or None, options) of the table of a part, in a TOML file say; `part` is what an error calls it.
    Dashes in options are underscores. Raises TypeError for a name that is no string."""
    name = table.get("name")
    if name is not None and not isinstance(name, str):
        raise checks.wrong_type(f"{part}.name", "a string", name)
    return name, {key.replace("-", "_"): value for key, value in table.items() if key != "name"}


def _part_of(
    kind: str, kept: dict[str, Any], name: str, short: dict[str, str], beside: dict[str, Any]
) -> Any:
    """A part from its record, or from a table of options, name among them; short options that stand beside
    it are its own."""
    if registry.is_record(kept):
        return registry.restored(kept)
    own, given = name_and_options(kind, kept)
    found = registry.find(kind, name if own is None else own)
    options = {key: tuple(value) if isinstance(value, list) else value for key, value in given.items()}
    known = {field.name for field in dataclasses.fields(found)} if isinstance(found, type) else set()
    inherited = {option: beside[own] for option, own in short.items() if own in beside and option in known}
    return registry.with_options(found, inherited | options, kind)


def _beside(kind: str, part: Component, option: str, given: Any) -> ValueError:
    return checks.wrong(
        SHORT[kind][option], f"nothing beside {kind}={part!r}, which has its own {option}", given
    )


def read_toml(path: str | Path) -> dict[str, Any]:
    """A TOML file as a dict. Raises ValueError naming the file, OSError."""
    try:
        raw = local_path(path, "config").read_bytes()
    except OSError as error:
        raise type(error)(f"config: expected a TOML file; got {path}: {error.strerror}") from None
    try:
        return tomllib.loads(raw.decode("utf-8-sig"))  # some editors begin a file with a mark
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: expected a TOML file; got {error}") from None
