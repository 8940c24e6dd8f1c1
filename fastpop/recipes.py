"""Recipes: a published method as a name. A recipe is data: options of `fastpop.train`, as TOML has them.

fastpop.train(log, recipe="sasrec")
fastpop.train(log, recipe="sasrec", dim=128)      # what is given wins
print(fastpop.recipes.find("sasrec").to_toml())   # a file that says the same
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fastpop import checks, registry
from fastpop.frozen import freeze

OPTION = re.compile(r"[A-Za-z0-9_-]+")


@dataclass(frozen=True)
class Recipe:
    """A named set of options with the hyperparameters of the work that it is from.

    name: how it is asked for. about: one line. source: the work. options: of `TrainConfig`, as a TOML file
    has them: numbers, text, true or false; a part as its name or a table of its name and options.
    differs: where the work does something that no option says.
    """

    name: str
    about: str
    source: str
    options: Mapping[str, Any]
    differs: str = ""

    def __post_init__(self) -> None:
        for field in ("name", "about", "source", "differs"):
            text = getattr(self, field)
            if not isinstance(text, str):
                raise checks.wrong_type(f"recipe.{field}", "text", text)
            if len(text.splitlines()) > 1 or (not text and field != "differs"):
                raise checks.wrong(f"recipe.{field}", "one line", text)
        if not isinstance(self.options, Mapping):
            raise checks.wrong_type("recipe.options", "a dict of options of fastpop.train", self.options)
        _check_plain("recipe.options", self.options)
        freeze(self, "options")

    def to_toml(self) -> str:
        """A file of these options, for `fastpop.train(config=)` and `fastpop train --config`."""
        lines = [f"# {self.name}: {self.about}", f"# {self.source}"]
        if self.differs:
            lines.append(f"# differs: {self.differs}")
        lines += ["", "[train]", *(f"{key} = {_toml(value)}" for key, value in self.options.items())]
        return "\n".join(lines) + "\n"


def find(name: Any) -> Recipe:
    """The recipe of that name, or the one given. Raises TypeError, ValueError with the names there are."""
    return registry.made("recipe", name)


def _check_plain(where: str, value: Any) -> None:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            if not isinstance(key, str) or not OPTION.fullmatch(key):
                raise checks.wrong(where, "names of options", key)
            _check_plain(f"{where}[{key!r}]", inner)
    elif isinstance(value, (list, tuple)):
        for inner in value:
            _check_plain(where, inner)
    elif not isinstance(value, (bool, int, float, str)):
        raise checks.wrong_type(where, "a number, text, true or false, a list or a table of these", value)


def _toml(value: Any) -> str:
    if isinstance(value, Mapping):
        pairs = (f"{key} = {_toml(inner)}" for key, inner in value.items())
        return "{" + ", ".join(pairs) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(_toml, value)) + "]"
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    return str(value).lower() if isinstance(value, bool) else repr(value)


FULL = {"loss": "full_softmax", "prior": "none", "table_optimizer": "adam"}
SASREC = {
    "encoder": "sasrec",
    "dim": 50,
    "max_length": 200,
    "num_layers": 2,
    "num_heads": 1,
    "dropout": 0.2,
    "learning_rate": 1e-3,
    "batch_size": 4096,
    "epochs": 200,
}

BERT4REC = {
    "encoder": "bert4rec",
    "dim": 64,
    "max_length": 200,
    "num_layers": 2,
    "num_heads": 2,
    "dropout": 0.2,
    "learning_rate": 1e-4,
    "weight_decay": 0.01,
    "clip_norm": 5.0,
    "batch_size": 8192,
    "epochs": 200,
}
GRU4REC = {
    "encoder": "gru4rec",
    "dim": 100,
    "max_length": 50,
    "table_optimizer": "row_adagrad",
    "table_learning_rate": 0.05,
    "learning_rate": 1e-3,
    "batch_size": 512,
    "epochs": 10,
}
FACTOR = {"encoder": "factor", "base": False, "dropout": 0.0}  # a vector a user, and nothing else
ADJUSTED = FACTOR | {"loss": "full_softmax", "prior": "frozen", "prior_weight": 1.0}
UNIFORM = {"proposal": "uniform", "prior": "none"}
MF = FACTOR | {"dim": 64, "learning_rate": 1e-3, "batch_size": 1024} | UNIFORM
PDA = MF | {
    "learning_rate": 1e-2,
    "batch_size": 2048,
    "regularizers": [{"name": "l2", "weight": 1e-3}],
    "epochs": 400,
}
LIGHTGCN = {"encoder": "lightgcn", "dim": 64, "learning_rate": 1e-3, "batch_size": 2048, "epochs": 1000}

registry.ours(
    "recipe",
    Recipe(
        "factor",
        "matrix factorisation: a vector a user, a softmax over all items",
        "Koren et al. 2009; the softmax as in Liang et al. 2018, arXiv 1802.05814",
        FULL | FACTOR | {"dim": 64, "epochs": 20},
    ),
    Recipe(
        "sasrec",
        "causal self-attention, a softmax over all items",
        "Kang & McAuley 2018, arXiv 1808.09781; softmax: Klenitskiy & Vasilev 2023, arXiv 2309.07602",
        FULL | SASREC,
        "pre-norm blocks with GELU; item vectors not times root dim; Adam's beta2 .999; batches of targets",
    ),
    Recipe(
        "sasrec-frozen",
        "sasrec by a sampled softmax with log Q correction, log p outside the dot product",
        "arXiv 2606.21275",
        SASREC
        | {
            "loss": "sampled_softmax",
            "logq": "standard",
            "num_negatives": 1024,
            "proposal": "mixture",
            "prior": "frozen",
            "prior_weight": 1.0,
        },
    ),
    Recipe(
        "sampled-softmax",
        "a vector a user by a sampled softmax with log Q correction, log p outside the dot product",
        "arXiv 2606.21275; Jean et al. 2015, arXiv 1412.2007",
        FACTOR
        | {
            "loss": "sampled_softmax",
            "logq": "standard",
            "num_negatives": 1024,
            "proposal": "mixture",
            "prior": "frozen",
            "prior_weight": 1.0,
        },
    ),
    Recipe(
        "logit-adjusted",
        "a full softmax of scores + log p: the logit-adjusted loss",
        "Menon et al. 2021, arXiv 2007.07314",
        ADJUSTED,
        "served with log p, as trained; the work serves at popularity weight 0",
    ),
    Recipe(
        "balanced-softmax",
        "a full softmax of scores + log p: balanced softmax, the same as logit-adjusted at weight 1",
        "Ren et al. 2020, arXiv 2007.10740",
        ADJUSTED,
        "served with log p, as trained; the work serves at popularity weight 0",
    ),
    # Encoders with the losses that they were published with, and with others.
    Recipe(
        "bert4rec",
        "attention both ways over hidden items, a softmax over all items with an item bias",
        "Sun et al. 2019, arXiv 1904.06690",
        FULL | BERT4REC | {"prior": "learned"},
        "pre-norm blocks; a constant step size, tables without decay; batches of hidden items",
    ),
    Recipe(
        "gru4rec-xe",
        "a GRU by cross-entropy over 2,048 samples by popularity^.75, uncorrected",
        "Hidasi & Karatzoglou 2018, arXiv 1706.03847",
        GRU4REC
        | {
            "loss": "sampled_softmax",
            "logq": "none",
            "num_negatives": 2048,
            "proposal": "popularity",
            "proposal_power": 0.75,
            "prior": "none",
        },
        "Adagrad steps tables alone, Adam the network; one table; no negatives of the batch; whole windows",
    ),
    Recipe(
        "lightgcn-softmax",
        "LightGCN by a sampled softmax over uniform negatives",
        "He et al. 2020, arXiv 2002.02126; the loss as in Wu et al. 2022, arXiv 2201.02327",
        LIGHTGCN | {"loss": "sampled_softmax", "num_negatives": 1024, "proposal": "uniform", "prior": "none"},
        "no cosine in the scores",
    ),
    Recipe(
        "sasrec-bce",
        "sasrec by binary cross-entropy with one uniform negative, as published",
        "Kang & McAuley 2018, arXiv 1808.09781",
        SASREC | {"loss": "bce", **UNIFORM},
        "as sasrec; negatives may be items of the history",
    ),
    Recipe(
        "gsasrec",
        "sasrec by gBCE with 256 uniform negatives",
        "Petrov & Macdonald 2023, arXiv 2308.07192",
        SASREC | {"loss": "gbce", **UNIFORM, "dim": 128, "dropout": 0.5},
        "as sasrec; negatives may be items of the history; one table, not two",
    ),
    Recipe(
        "gru4rec",
        "a GRU by BPR-max, negatives of the batch and 2,048 by popularity^.75",
        "Hidasi & Karatzoglou 2018, arXiv 1706.03847",
        GRU4REC | {"loss": "bpr_max", "proposal": "popularity", "proposal_power": 0.75, "prior": "none"},
        "Adagrad steps tables alone, Adam the network; one table; whole windows, not sessions side by side",
    ),
    Recipe(
        "bpr",
        "matrix factorisation by BPR, one uniform negative",
        "Rendle et al. 2009, arXiv 1205.2618",
        MF | {"loss": "bpr", "regularizers": [{"name": "l2", "weight": 0.0025}], "epochs": 30},
        "Adam, not stochastic gradient descent; no penalty of negatives, which may be items of the user",
    ),
    Recipe(
        "lightgcn",
        "LightGCN by BPR, one uniform negative",
        "He et al. 2020, arXiv 2002.02126",
        LIGHTGCN | {"loss": "bpr", **UNIFORM, "regularizers": [{"name": "l2", "weight": 1e-4}]},
        "the penalty is on the vectors that scores are made of, negatives left out, not on those of layer 0",
    ),
    Recipe(
        "simgcl",
        "LightGCN with a contrast between two noisy views of users and items",
        "Yu et al. 2022, arXiv 2112.08679",
        LIGHTGCN
        | {
            "encoder": {"name": "lightgcn", "layers": 2},
            "loss": "bpr",
            **UNIFORM,
            "regularizers": ["simgcl", {"name": "l2", "weight": 1e-4}],
            "epochs": 20,
        },
        "noise is added to the vectors that scores are made of, not in each layer; layer 0 counts",
    ),
    Recipe(
        "duorec",
        "sasrec with a contrast of two dropout views and of rows with the same target",
        "Qiu et al. 2022, arXiv 2110.05730",
        FULL
        | SASREC
        | {
            "regularizers": [{"name": "duorec", "weight": 0.1}],
            "dim": 64,
            "num_heads": 2,
            "dropout": 0.5,
            "max_length": 50,
            "batch_size": 256,
            "epochs": 50,
        },
        "a partner with the same target is one of the batch; pre-norm blocks",
    ),
    Recipe(
        "directau",
        "matrix factorisation by alignment and uniformity",
        "Wang et al. 2022, arXiv 2206.12811",
        {**MF, "loss": "directau", "proposal": "uniform", "epochs": 300},
        "no decay of tables",
    ),
    Recipe(
        "dice",
        "interest and conformity in halves of a vector, told apart by popularity of negatives",
        "Zheng et al. 2021, arXiv 2006.11011",
        MF | {"dim": 128, "loss": "dice", "batch_size": 128, "epochs": 500},
        "the weights of its parts and its margin do not decay; the halves' distance is L1, not dCor",
    ),
    Recipe(
        "pda",
        "BPR in which popularity multiplies the score, served without it",
        "Zhang et al. 2021, arXiv 2105.06067, PDG there",
        PDA | {"loss": "pda"},
        "popularity is a share of all training events, not brought to 0 ... 1; negatives without penalty",
    ),
    Recipe(
        "pda-by-period",
        "pda with the popularity of the period of each event, and a forecast of it to serve",
        "Zhang et al. 2021, arXiv 2105.06067, PD and PDA there",
        PDA
        | {
            "loss": {"name": "pda", "power": 0.0},
            "prior": {"name": "by-period", "periods": 9, "weight": 0.1, "drift": 0.5},
        },
        "periods of equally many events; served with s + log of popularity^.1, not the product",
    ),
    Recipe(
        "relmf",
        "matrix factorisation of relevance, clicks weighted by popularity propensities",
        "Saito et al. 2020, arXiv 1909.03601",
        MF
        | {"dim": 200, "learning_rate": 5e-3, "loss": {"name": "relmf", "error": "squared", "clip": 0.0091}},
        "all pairs count, by draws; there as many unseen ones as events; no penalty",
    ),
    Recipe(
        "resn",
        "matrix factorisation with the largest singular value of its scores held down",
        "Lin et al. 2025, arXiv 2404.12008",
        MF
        | {
            "loss": {"name": "bce", "negatives": 4},
            "regularizers": ["resn"],
            "dim": 256,
            "learning_rate": 2e-3,
            "batch_size": 2048,
        },
        "the norm itself, of dot products; there a bound, of their sigmoid; weight and loss are ours",
    ),
    Recipe(
        "cosreg",
        "a softmax whose item vectors are kept apart in angle",
        "Gao et al. 2019, arXiv 1907.12009",
        FULL | FACTOR | {"regularizers": [{"name": "cosreg", "weight": 1.0}]},
        "matrix factorisation, not a language model: all numbers are ours",
    ),
    Recipe(
        "entmax",
        "matrix factorisation by the entmax-1.5 loss, log p inside it (PR-Entmax)",
        "Peters et al. 2019, arXiv 1905.05702; the prior as in RePlay 0.23",
        FACTOR | {"loss": "entmax", "prior": "frozen"},
        "smoothed log p, not log(p + 1e-6); served with it, there without; a weight of 1 and factor are ours",
    ),
)
