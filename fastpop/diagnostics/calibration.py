"""How well scores predict the targets: energies of an uncalibrated model say little about p."""

from typing import Any

import numpy as np

from fastpop import checks
from fastpop.diagnostics.moments import check_queries
from fastpop.ops.energies import as_float64, on_host
from fastpop.ops.score_energy import weights

CELLS = 1 << 23  # scores in memory at once (64 MB of float64)


def score_nll(
    query: Any, items: Any, pos_id: Any, *, bias: Any = None, scale: float = 1.0, context_weight: Any = None
) -> float:
    """numpy: S = scale * query @ items.T + bias; w @ (logsumexp(S, 1) - S[arange(C), pos_id])

    with w the weights over their sum: nats per context under the full softmax of the scores.

    Args:
        query: [C, D] numpy or torch. items: [V, D]. pos_id: [C] integers in [0, V).
        bias: [V] nats or None. context_weight: [C] >= 0, None for uniform.
    Raises:
        ValueError, TypeError: says the argument, the expected and the got.
    Cost: 2*C*V*D FLOPs in float64, a few rows of scores in memory.
    """
    item_VD = checks.float_array("items", items, 2)
    num_items, dim = item_VD.shape
    bias_V = None if bias is None else checks.float_array("bias", bias, 1)
    if bias_V is not None:
        checks.shape("bias", bias_V, (num_items,))
    checks.number("scale", scale)
    if hasattr(query, "shape"):
        query = checks.array_like("query", query)
    else:
        raise checks.wrong_type("pos_id", "None unless query is one array [C, D]", query)
    check_queries("query", query, dim)
    weight_C = weights("context_weight", context_weight, len(query))
    pos_C = checks.int_array("pos_id", pos_id)
    checks.shape("pos_id", pos_C, (len(query),))
    checks.ids_in_range("pos_id", pos_C, num_items)

    rows = max(1, CELLS // num_items)
    total = 0.0
    for low in range(0, len(query), rows):
        part = slice(low, low + rows)
        score_CV = scale * (on_host(as_float64(query[part])) @ item_VD.T)
        if bias_V is not None:
            score_CV += bias_V
        top_C = score_CV.max(axis=1)
        own_C = score_CV[np.arange(len(score_CV)), pos_C[part]]
        lse_C = top_C + np.log(np.exp(score_CV - top_C[:, None]).sum(axis=1))
        total += float(weight_C[part] @ (lse_C - own_C))
    return total / float(weight_C.sum())
