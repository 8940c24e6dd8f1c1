"""What sampled_softmax refuses: one clear error for each argument."""

import math

import pytest
import torch
from helpers_softmax import in_dtype
from ops.test_sampled_softmax import make

from fastpop import ops

BAD = {
    "query": ({"query": torch.zeros(3)}, ValueError, "query: expected shape [B, D], or [..., D]"),
    "query type": ({"query": [[1.0]]}, TypeError, "query: expected a torch tensor; got list"),
    "query dtype": ({"query": torch.zeros(3, 4, dtype=torch.int32)}, TypeError, "query: expected float16"),
    "query layout": (
        {"query": torch.zeros(65, 24).to_sparse()},
        TypeError,
        "query: expected a dense tensor; got torch.sparse_coo [65, 24]",
    ),
    "query device": (
        {"query": torch.zeros(65, 24, device="meta")},
        ValueError,
        "query: expected a tensor on cpu or cuda; got meta",
    ),
    "items": ({"items": torch.zeros(9, 5)}, ValueError, "items: expected shape [V, 24]"),
    "pos_id range": (
        {"pos_id": torch.full((65,), 97)},
        ValueError,
        "pos_id: expected ids in [0, 97); got 97 at position 0",
    ),
    "pos_id dtype": ({"pos_id": torch.zeros(65, dtype=torch.int32)}, TypeError, "pos_id: expected an int64"),
    "pos_id shape": (
        {"pos_id": torch.zeros(64, dtype=torch.int64)},
        ValueError,
        "pos_id: expected shape [65]",
    ),
    "neg_id range": ({"neg_id": torch.tensor([-1])}, ValueError, "neg_id: expected ids in [0, 97); got -1"),
    "neg_id empty": ({"neg_id": torch.zeros(0, dtype=torch.int64)}, ValueError, "K >= 1"),
    "neg_id rows": ({"neg_id": torch.zeros(3, 4, dtype=torch.int64)}, ValueError, "neg_id: expected [65, K]"),
    "group_size": (
        {"neg_id": torch.zeros(3, 4, dtype=torch.int64), "group_size": 8},
        ValueError,
        "neg_id: expected [9, K] for 65 rows in groups of 8",
    ),
    "log_prior": ({"log_prior": torch.zeros(5)}, ValueError, "log_prior: expected shape [97]"),
    "log_proposal": ({"log_proposal": None}, ValueError, "log_proposal: expected [V] log q"),
    "log_proposal of a positive": (
        {"log_proposal": torch.full((97,), -math.inf)},
        ValueError,
        "the proposal cannot draw",
    ),
    "log_proposal gradient": (
        {"log_proposal": torch.zeros(97, requires_grad=True)},
        ValueError,
        "log_proposal: expected a tensor without gradient",
    ),
    "scale": ({"scale": 0.0}, ValueError, "scale: expected a finite number > 0; got 0.0"),
    "scale tensor": (
        {"scale": torch.tensor(1e300, dtype=torch.float64)},
        ValueError,
        "scale: expected a finite number > 0; got inf",
    ),
    "scale too small": ({"scale": 1e-60}, ValueError, "scale: expected a number that float32 holds"),
    "scale complex": ({"scale": torch.tensor(1j)}, TypeError, "scale: expected real numbers; got complex64"),
    "row_weight layout": (
        {"row_weight": torch.ones(65).to_sparse()},
        TypeError,
        "row_weight: expected a dense tensor",
    ),
    "neg_id layout": (
        {"neg_id": torch.ones(65, dtype=torch.int64).to_sparse()},
        TypeError,
        "neg_id: expected a dense tensor",
    ),
    "log_prior layout": (
        {"log_prior": torch.ones(97).to_sparse()},
        TypeError,
        "log_prior: expected a dense tensor",
    ),
    "scale type": ({"scale": "1"}, TypeError, "scale: expected a finite number; got str"),
    "logq": ({"logq": "yes"}, ValueError, "logq: expected one of 'standard', 'corrected', 'none'; got 'yes'"),
    "accidental_hits": (
        {"logq": "corrected", "accidental_hits": "keep"},
        ValueError,
        "accidental_hits: expected 'drop'",
    ),
    "reduction": ({"reduction": "avg"}, ValueError, "reduction: expected one of"),
    "diagonal": ({"exclude_diagonal": True}, ValueError, "exclude_diagonal: expected shared negatives"),
    "row_weight": ({"row_weight": torch.ones(3)}, ValueError, "row_weight: expected shape [65]"),
    "impl": ({"impl": "fast"}, ValueError, "impl: expected one of"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_gets_one_clear_error(case):
    change, kind, message = BAD[case]
    inputs = in_dtype(make(), torch.float32)
    with pytest.raises(kind) as caught:
        ops.sampled_softmax(**inputs | change)
    assert message in str(caught.value)


def test_a_named_implementation_runs_or_raises():
    with pytest.raises(NotImplementedError, match="cuda: "):
        ops.sampled_softmax(**in_dtype(make(), torch.float32), impl="cuda")
