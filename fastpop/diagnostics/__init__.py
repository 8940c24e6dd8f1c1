"""How much of a model's score is popularity: energies, their significance, and geometry."""

from fastpop import registry
from fastpop.diagnostics import anisotropy as _anisotropy
from fastpop.diagnostics import diagnostic as _diagnostic
from fastpop.diagnostics import null as _null
from fastpop.diagnostics.anisotropy import SelfSimilarity, self_similarity
from fastpop.diagnostics.audit_result import Audit
from fastpop.diagnostics.calibration import score_nll
from fastpop.diagnostics.change import change_along
from fastpop.diagnostics.diagnostic import Diagnostic, Measured
from fastpop.diagnostics.direction import weak_direction
from fastpop.diagnostics.energy import audit, audit_moments
from fastpop.diagnostics.family import family_wise
from fastpop.diagnostics.geometry import Geometry, alignment, geometry, score_pc1_correlation, uniformity
from fastpop.diagnostics.lists import ContextSample, TopLists
from fastpop.diagnostics.many import ManyAudits, PairedTest, audit_many
from fastpop.diagnostics.moments import ScoreMoments
from fastpop.diagnostics.null import Null
from fastpop.diagnostics.sequential import SequentialTest, sequential_energy_test, sequential_test
from fastpop.diagnostics.significance import Form, PermutationTest, p_short, p_words, permutation_test
from fastpop.diagnostics.subspace import SubspaceEnergy, principal_angles, subspace_energy, time_subspace
from fastpop.diagnostics.tail import TailEstimate, tail_p_value
from fastpop.diagnostics.time_rank import TimeRank, time_rank
from fastpop.diagnostics.time_shift import TimeShiftTest, pooled_residual, time_shift_test
from fastpop.ops.energies import ScoreEnergy
from fastpop.ops.score_energy import GramStream

__all__ = [
    "Audit",
    "ContextSample",
    "Diagnostic",
    "Form",
    "Geometry",
    "GramStream",
    "ManyAudits",
    "Measured",
    "Null",
    "PairedTest",
    "PermutationTest",
    "ScoreEnergy",
    "ScoreMoments",
    "SelfSimilarity",
    "SequentialTest",
    "SubspaceEnergy",
    "TailEstimate",
    "TimeRank",
    "TimeShiftTest",
    "TopLists",
    "alignment",
    "audit",
    "audit_many",
    "audit_moments",
    "change_along",
    "family_wise",
    "geometry",
    "p_short",
    "p_words",
    "permutation_test",
    "pooled_residual",
    "principal_angles",
    "score_nll",
    "score_pc1_correlation",
    "self_similarity",
    "sequential_energy_test",
    "sequential_test",
    "subspace_energy",
    "tail_p_value",
    "time_rank",
    "time_shift_test",
    "time_subspace",
    "uniformity",
    "weak_direction",
]

registry.ours("null", *_null.OURS)
registry.ours("diagnostic", *_diagnostic.OURS, *_anisotropy.OURS)
