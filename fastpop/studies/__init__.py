"""Experiments: each asks one question of a log, and answers it with numbers, intervals and a verdict."""

from fastpop import registry
from fastpop.studies.baselines import Baselines
from fastpop.studies.convergence import Convergence
from fastpop.studies.decomposition import Decomposition
from fastpop.studies.dimension import Dimension
from fastpop.studies.drift import Drift
from fastpop.studies.encoders import Encoders
from fastpop.studies.frontier import Frontier
from fastpop.studies.periods import Periods
from fastpop.studies.run import StudyResult, experiment
from fastpop.studies.study import Answer, Chart, Series, Setting, Study, Table
from fastpop.studies.transfer import Transfer
from fastpop.studies.unbiased import Unbiased

registry.ours(
    "experiment",
    Decomposition,
    Convergence,
    Frontier,
    Drift,
    Periods,
    Unbiased,
    Dimension,
    Transfer,
    Encoders,
    Baselines,
)

__all__ = [
    "Answer",
    "Baselines",
    "Chart",
    "Convergence",
    "Decomposition",
    "Dimension",
    "Drift",
    "Encoders",
    "Frontier",
    "Periods",
    "Series",
    "Setting",
    "Study",
    "StudyResult",
    "Table",
    "Transfer",
    "Unbiased",
    "experiment",
]
