"""How much of a model's score is popularity: energies, their significance, and geometry."""

from fastpop.diagnostics.calibration import score_nll
from fastpop.diagnostics.change import change_along
from fastpop.diagnostics.energy import Audit, audit, audit_moments
from fastpop.diagnostics.geometry import Geometry, alignment, geometry, uniformity
from fastpop.diagnostics.many import ManyAudits, PairedTest, audit_many
from fastpop.diagnostics.moments import ScoreMoments
from fastpop.diagnostics.significance import PermutationTest, permutation_test
from fastpop.kernels.score_energy.reference import ScoreEnergy
from fastpop.ops.score_energy import GramStream

__all__ = [
    "Audit",
    "Geometry",
    "GramStream",
    "ManyAudits",
    "PairedTest",
    "PermutationTest",
    "ScoreEnergy",
    "ScoreMoments",
    "alignment",
    "audit",
    "audit_many",
    "audit_moments",
    "change_along",
    "geometry",
    "permutation_test",
    "score_nll",
    "uniformity",
]
