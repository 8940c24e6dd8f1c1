"""Parts that judge, and names for options, as somebody else would write them; a kind each."""

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from fastpop.data import Columns, Preset
from fastpop.diagnostics import Diagnostic, Null
from fastpop.evaluation import Metric
from fastpop.experiments import Arm
from fastpop.recipes import Recipe
from fastpop.studies import Answer, Study


class Within(Metric):
    name = "toy-within"
    label = "Within two"
    definition = "Share of cases whose first target is one of the two best items."
    direction = "larger"
    at_k = False

    def value(self, known, k):
        targets = known.targets[""]
        return np.where(targets.size_C == 0, np.nan, targets.hits(2) > 0)


class Flipped(Null):
    name = "toy-flipped"
    words = "minus log p shuffled over items"

    def draw(self, label_V, rng, stratum_V):
        return -rng.permutation(label_V)


@dataclass(frozen=True)
class Spread(Diagnostic):
    name = "toy-spread"
    label = "Toy spread"
    definition = "Standard deviation of the mean score over items."
    bounds = (0.0, math.inf)

    def measure(self, moments, log_prior_V):
        return float(moments.mean_score().std())


@dataclass(frozen=True)
class CountsUsers(Study):
    name: ClassVar[str] = "toy-users"
    question: ClassVar[str] = "How many users?"

    def run(self, setting):
        return Answer({"users": float(setting.log.num_users)}, (f"{setting.log.num_users} users.",))


def _halved(moments, log_prior_V):
    return moments.with_popularity(-0.5, log_prior_V)


PIPES = Preset(columns=Columns("who", "what", time="when"), separator="|", about="pipes")
PARTS = {
    "metric": [Within],
    "null": [Flipped],
    "diagnostic": [Spread],
    "experiment": [CountsUsers],
    "arm": [
        Arm("toy-halved", "not trained: standard minus half of log p", "s + (beta - 1/2) log p", make=_halved)
    ],
    "recipe": [Recipe("toy-small", "a small factor model", "this file", {"dim": 8, "epochs": 1})],
}
