"""Metrics and diagnostics that were asked for beside the numbers that every comparison has."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from fastpop import checks, registry
from fastpop.diagnostics import Diagnostic, ScoreMoments
from fastpop.diagnostics.diagnostic import asked_for as asked_diagnostics
from fastpop.diagnostics.diagnostic import measured
from fastpop.evaluation import OURS, Metric
from fastpop.evaluation.metric import asked_for as asked_metrics
from fastpop.report import schema
from fastpop.report.glossary import TERMS
from fastpop.training import TrainConfig

K = 10  # the length of lists
COMMA = ", "  # between a diagnostic and which of its numbers it is


@dataclass(frozen=True)
class Further:
    """metrics: of every reading, at every beta. diagnostics: of the learned part of every family."""

    metrics: tuple[Metric, ...] = ()
    diagnostics: tuple[Diagnostic, ...] = ()

    @classmethod
    def asked_for(
        cls, metrics: Iterable[str | Metric], diagnostics: Iterable[str | Diagnostic], config: TrainConfig
    ) -> "Further":
        """From names or objects.

        Raises TypeError, ValueError for what is none, a metric that lacks what it needs, and for a name that
        comes twice or that another number of a comparison has.
        """
        given = {"counts"}
        if config.loss_part.logits:
            given.add("logits")
        if not config.mask_seen:
            given.add("unmasked")
        found = cls(tuple(asked_metrics(metrics, given, OURS)), tuple(asked_diagnostics(diagnostics)))
        measuring = set(map(str, found.metrics))
        for argument, parts in (("metrics", found.metrics), ("diagnostics", found.diagnostics)):
            for name in map(str, parts):
                if name in TERMS or name.startswith("p_value"):
                    raise checks.wrong(argument, "names that no other number of a comparison has", name)
                if argument == "diagnostics" and name in measuring:
                    raise checks.wrong(argument, "names that no metric has", name)
        return found

    def of(self, logits: bool) -> list[Metric]:
        """Those of scores that are logits of p(i | c), or are not."""
        return [metric for metric in self.metrics if logits or "logits" not in metric.needs]

    def measured(self, moments: ScoreMoments, log_prior_V: np.ndarray) -> dict[str, float]:
        """Every diagnostic: a number by its name, several by "name, which"."""
        found = [measured(diagnostic, moments, log_prior_V) for diagnostic in self.diagnostics]
        return {_key(one.name, which): value for one in found for which, value in one.values.items()}

    def asked(self) -> dict[str, Any]:
        """What was asked for, as plain data."""
        return {
            "metrics": [registry.record(metric) for metric in self.metrics],
            "diagnostics": [registry.record(diagnostic) for diagnostic in self.diagnostics],
        }

    def told(self, rows: list[dict[str, Any]]) -> list[schema.Further]:
        """What the rows of a comparison have of these, in words: metrics first."""
        there = dict.fromkeys(key for row in rows for key in row["values"])
        found = [
            _told(metric, key, f"@{K}" * metric.at_k, "served")
            for metric in self.metrics
            for key in there
            if key == metric.key(K)
        ]
        found += [
            _told(diagnostic, key, key.removeprefix(str(diagnostic)), "learned")
            for diagnostic in self.diagnostics
            for key in there
            if key.partition(COMMA)[0] == str(diagnostic)
        ]
        return found


NOTHING_FURTHER = Further()


def _key(name: str, which: str) -> str:
    return f"{name}{COMMA}{which}" if which else name


def _told(
    part: Metric | Diagnostic, key: str, which: str, view: Literal["served", "learned"]
) -> schema.Further:
    return {
        "key": key,
        "label": (part.label or str(part)) + which,
        "definition": part.definition,
        "view": view,
    }
