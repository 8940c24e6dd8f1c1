"""One dataclass that holds every choice of a training run; TOML files have the same names."""

import dataclasses
import json
import tomllib
import typing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from fastpop import checks, encoders, objectives
from fastpop.data.paths import local_path
from fastpop.data.split import RULES
from fastpop.decoder import ARMS
from fastpop.popularity import PROPOSALS

# What no run needs more of; a larger number is a slip, and would end in the machine's memory.
LARGEST = {"dim": 16_384, "num_layers": 128, "num_heads": 1024, "num_negatives": 1 << 20}
SMOOTHINGS = ("loo", "good-turing")
# What `evaluate` measures at k = 10 while training.
METRICS = (
    "nll", "perplexity", "rank", "auc",
    *(f"{name}@10" for name in ("hr", "recall", "precision", "ndcg", "mrr", "map", "recall_head",
                                "recall_mid", "recall_tail", "coverage")),
)


@dataclass(frozen=True)
class TrainConfig:
    """How to train. Every field is an option of `fastpop.train` and of `fastpop train`."""

    encoder: str = "factor"
    """factor (a vector a user), bag (mean of the history) or sasrec."""
    dim: int = 64
    """Length of query and item vectors."""
    max_length: int = 50
    """Longest history that is read (bag, sasrec)."""
    num_layers: int = 2
    """Transformer blocks (sasrec)."""
    num_heads: int = 2
    """Attention heads, a divisor of dim (sasrec)."""
    dropout: float = 0.2
    """Dropout probability (sasrec; bag: on the mean)."""
    base: bool = True
    """A vector that all users (factor) or histories (bag) share: an item bias inside the dot product.
    Without it factor is plain matrix factorisation."""
    prior: str = "frozen"
    """none; frozen: prior_weight * log p(i) beside the dot product; permuted: the same randomly
    relabelled, a control; learned: a free item bias."""
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
    loss: str = "sampled_softmax"
    """full_softmax or sampled_softmax."""
    num_negatives: int = 1024
    """Negatives a draw."""
    group_size: int = 0
    """Rows that share a draw; 0: all rows of a batch, 1: a draw a row."""
    proposal: str = "mixture"
    """Law of the negatives: uniform, popularity, log_uniform, in_batch, or mixture (half uniform,
    half popularity)."""
    proposal_power: float = 0.75
    """The exponent of popularity in proposal."""
    extra_negatives: int = 0
    """Uniform draws beside in-batch negatives."""
    logq: Literal["standard", "corrected", "none"] = "standard"
    """Correction of the sampled loss for its proposal."""
    hits: Literal["", "keep", "drop"] = ""
    """Negatives equal to the positive; empty lets logq decide."""
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
    table_optimizer: Literal["auto", "adam", "row_adam", "row_adagrad", "row_sgd"] = "auto"
    """Optimiser of embedding tables; auto: row_adam for sampled losses, adam for full ones."""
    update_in_backward: bool = False
    """Step row-wise table optimisers inside backward, so that no table gradient waits."""
    weight_decay: float = 0.0
    """Decoupled decay of everything but tables."""
    clip_norm: float = 0.0
    """Largest norm of all gradients together; 0: no limit."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """bf16 runs under autocast; tables stay fp32."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""
    seed: int = 0
    """Of initial values, data order, draws, dropout and random splits."""
    split: str = "leave-last-out"
    """leave-last-out, leave-last-n, global-time, random-by-user or none."""
    split_n: int = 1
    """Events a user of leave-last-n."""
    split_fraction: float = 0.1
    """Share of the events of global-time and random-by-user."""
    mask_seen: bool = True
    """Leave seen items out of rankings."""
    evaluate_every: int = 0
    """Epochs between looks at the validation part; 0: never."""
    metric: str = "ndcg@10"
    """What early stopping wants large (nll, perplexity and rank: small)."""
    patience: int = 0
    """Looks without a better one before stopping; 0: no early stopping. The best model is then the
    result."""
    valid_cases: int = 0
    """Validation cases looked at while training; 0: all."""
    checkpoint_every: int = 1
    """Epochs between checkpoints."""
    checkpoint_minutes: float = 10.0
    """Minutes after which one is written within an epoch, too; 0: never."""
    tensorboard: bool = False
    """Write TensorBoard events too."""

    def __post_init__(self) -> None:
        if isinstance(self.smoothing, str) and self.smoothing not in SMOOTHINGS:
            # A number from the command line or a TOML string.
            try:
                object.__setattr__(self, "smoothing", float(self.smoothing))
            except ValueError:
                raise checks.wrong("smoothing", "loo, good-turing or a number >= 0",
                                   self.smoothing) from None
        if not isinstance(self.smoothing, str):
            checks.number("smoothing", self.smoothing, least=0)
        hints = typing.get_type_hints(TrainConfig)
        checks.number("seed", self.seed, least=0, most=2**63 - 1, integer=True)
        for field in dataclasses.fields(self):
            value, hint = getattr(self, field.name), hints[field.name]
            if hint is int:
                checks.number(field.name, value, integer=True)
            elif hint is float:
                checks.number(field.name, value)
            elif hint is bool and not isinstance(value, bool):
                raise checks.wrong_type(field.name, "true or false", value)
            elif hint is str and not isinstance(value, str):
                raise checks.wrong_type(field.name, "a string", value)
            elif typing.get_origin(hint) is Literal:
                checks.one_of(field.name, value, typing.get_args(hint))
        checks.one_of("encoder", self.encoder, encoders.NAMES)
        checks.one_of("loss", self.loss, objectives.NAMES)
        checks.one_of("prior", self.prior, ARMS)
        checks.one_of("proposal", self.proposal, PROPOSALS)
        checks.one_of("split", self.split, RULES)
        checks.one_of("metric", self.metric, METRICS)
        checks.number("split_fraction", self.split_fraction, above=0, most=0.5)
        if self.accumulate > 1 and self.proposal == "in_batch" and self.loss == "sampled_softmax":
            raise checks.wrong("accumulate", "1 with in-batch negatives, which the whole batch gives",
                               self.accumulate)
        if self.update_in_backward:
            for name, needed in (("accumulate", 1), ("clip_norm", 0.0)):
                if getattr(self, name) != needed:
                    raise checks.wrong(name, f"{needed:g} with update_in_backward, which lets each "
                                       "gradient go at once", getattr(self, name))
            if self.resolved_table_optimizer == "adam":
                raise checks.wrong("update_in_backward", "False with table_optimizer adam, which is "
                                   "torch's own", True)
        if self.logq == "corrected" and self.hits == "keep":
            raise checks.wrong("hits", "'drop' (or '') with logq='corrected'", self.hits)
        for name in ("max_length", "epochs", "batch_size", "accumulate", "split_n", "checkpoint_every"):
            checks.number(name, getattr(self, name), least=1, integer=True)
        for name, most in LARGEST.items():
            checks.number(name, getattr(self, name), least=1, most=most, integer=True)
        for name in ("group_size", "extra_negatives", "evaluate_every", "patience", "valid_cases",
                     "seed"):
            checks.number(name, getattr(self, name), least=0, integer=True)
        for name in ("weight_decay", "clip_norm", "table_learning_rate", "bias_learning_rate",
                     "label_smoothing", "dropout", "checkpoint_minutes"):
            checks.number(name, getattr(self, name), least=0)
        for name in ("learning_rate", "temperature", "split_fraction"):
            checks.number(name, getattr(self, name), above=0)
        checks.knob("prior_weight", self.prior_weight)
        for name in ("learning_rate", "table_learning_rate", "bias_learning_rate", "temperature",
                     "weight_decay", "clip_norm", "proposal_power"):
            checks.float32(name, getattr(self, name))
        for name in ("dropout", "label_smoothing", "split_fraction"):
            if getattr(self, name) >= 1:
                raise checks.wrong(name, "a number below 1", getattr(self, name))
        if self.extra_negatives and self.proposal != "in_batch":
            raise checks.wrong("extra_negatives", "0 unless proposal='in_batch'",
                               self.extra_negatives)
        if self.group_size and self.proposal == "in_batch":
            raise checks.wrong("group_size", "0 with proposal='in_batch'", self.group_size)
        if self.dim % self.num_heads and self.encoder == "sasrec":
            raise checks.wrong("num_heads", f"a divisor of dim = {self.dim}", self.num_heads)
        if self.patience and not self.evaluate_every:
            raise checks.wrong("evaluate_every", ">= 1 for early stopping (patience > 0)", 0)
        if self.patience and self.split == "none":
            raise checks.wrong("patience", "0 without a validation part (split='none')",
                               self.patience)

    def replace(self, **options: Any) -> "TrainConfig":
        """A copy with some options changed; an unknown name raises with the nearest known one."""
        known = [field.name for field in dataclasses.fields(self)]
        for name in options:
            if name not in known:
                import difflib

                near = difflib.get_close_matches(name, known, 1)
                hint = f"; did you mean {near[0]!r}?" if near else ""
                raise TypeError(f"{name}: expected an option of TrainConfig; got an unknown one{hint}")
        return dataclasses.replace(self, **options)

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, options: dict[str, Any]) -> "TrainConfig":
        return cls().replace(**options)

    @classmethod
    def from_toml(cls, path: str | Path) -> "TrainConfig":
        """The options of a TOML file, names as here; a [train] table is read if there is one.

        A file with the whole of a run (fastpop train --config) keeps these under [train].
        Raises ValueError naming the file for bad TOML, and as `replace` does for unknown names.
        """
        options = read_toml(path)
        options = options.get("train", options)
        if not isinstance(options, dict):
            raise checks.wrong(f"{path}: train", "a table of options", options)
        return cls.from_dict(options)

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
        return self.loss == "sampled_softmax" and self.table_optimizer != "adam"

    @property
    def resolved_table_optimizer(self) -> str:
        if self.table_optimizer != "auto":
            return self.table_optimizer
        return "row_adam" if self.loss == "sampled_softmax" else "adam"

    def double_subtraction(self) -> str | None:
        """Why this prior would subtract popularity twice, or None.

        Without log Q correction a sampled softmax learns log p(i|c) - log q - τ log p: its
        popularity slope is 1 - α - τ for q ∝ p^α, negative when both are taken away.
        """
        alpha = {"in_batch": 1.0, "popularity": self.proposal_power}.get(self.proposal)
        if self.loss != "sampled_softmax" or self.logq != "none" or self.prior != "frozen":
            return None
        if alpha is None or 1 - alpha - self.prior_weight >= 0:
            return None
        return (
            f"logq='none' with proposal={self.proposal!r} already takes popularity^{alpha:g} out of "
            f"the scores; prior='frozen' with prior_weight={self.prior_weight:g} takes it out again: "
            f"the scores will have popularity slope {1 - alpha - self.prior_weight:g}, not "
            f"{1 - self.prior_weight:g}. Use logq='standard', or prior='none'."
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
