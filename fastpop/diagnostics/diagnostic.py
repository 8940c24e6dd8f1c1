"""What an audit measures besides, by name: of the moments of the scores and log p."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from fastpop import checks, registry
from fastpop.components import Component
from fastpop.diagnostics.geometry import score_pc1_correlation
from fastpop.diagnostics.moments import ScoreMoments
from fastpop.frozen import freeze


@dataclass(frozen=True)
class Diagnostic(Component):
    """One more row of an audit.

    label, definition: for tables and glossaries, the definition in one line, with its source. bounds: what it
    can be.
    """

    kind: ClassVar[str] = "diagnostic"
    label: ClassVar[str] = ""
    definition: ClassVar[str] = ""
    bounds: ClassVar[tuple[float, float]] = (-math.inf, math.inf)

    def measure(self, moments: ScoreMoments, log_prior_V: np.ndarray) -> float | Mapping[str, float]:
        """A number, or several by name; NaN where it is not defined.

        moments: of the scores over the items audited (`rows()` and `mean_score()` are centred over them).
        log_prior_V: nats.
        """
        raise NotImplementedError


@dataclass(frozen=True)
class Measured:
    """What a diagnostic found. values: by name, "" for a single number."""

    name: str
    label: str
    definition: str
    values: dict[str, float]

    def __post_init__(self) -> None:
        freeze(self, "values")

    def rows(self) -> list[tuple[str, float]]:
        """(what it is called, the number), one row each."""
        return [(f"{self.label}, {key}" if key else self.label, value) for key, value in self.values.items()]

    def to_dict(self) -> dict[str, Any]:
        """JSON-able; undefined numbers are None."""
        return {
            "name": self.name,
            "label": self.label,
            "definition": self.definition,
            "values": {key: value if math.isfinite(value) else None for key, value in self.values.items()},
        }


class ScorePc1(Diagnostic):
    name = "pc1_scores"
    label = "PC1, scores"
    definition = "|correlation| of the scores' first principal component with log p."
    bounds = (0.0, 1.0)

    def measure(self, moments: ScoreMoments, log_prior_V: np.ndarray) -> float:
        return score_pc1_correlation(moments, log_prior_V)


OURS = (ScorePc1,)


def asked_for(diagnostics: Iterable[str | Diagnostic]) -> list[Diagnostic]:
    """Diagnostics from names or objects. Raises TypeError, ValueError for what is none, or comes twice."""
    if isinstance(diagnostics, (str, bytes, Diagnostic)) or not isinstance(diagnostics, Iterable):
        raise checks.wrong_type("diagnostics", "a list of names or diagnostics", diagnostics)
    found = [registry.made("diagnostic", one, "diagnostics") for one in diagnostics]
    names = list(map(str, found))
    if len(set(names)) < len(names):
        raise checks.wrong("diagnostics", "different names", names)
    return found


def measured(diagnostic: Diagnostic, moments: ScoreMoments, log_prior_V: np.ndarray) -> Measured:
    """Raises ValueError, TypeError for what is no number."""
    value = diagnostic.measure(moments, log_prior_V)
    values = dict(value) if isinstance(value, Mapping) else {"": value}
    for key, number in values.items():
        if np.ndim(number) != 0 or np.asarray(number).dtype.kind not in "fiu":
            raise checks.wrong_type(
                f"value of the diagnostic {str(diagnostic)!r}", "a number, or numbers by name", number
            )
        values[key] = float(number)
    return Measured(str(diagnostic), diagnostic.label or str(diagnostic), diagnostic.definition, values)
