"""gathered_softmax is sampled_softmax on rows that were gathered before."""

import pytest
import torch
from ops.test_sampled_softmax import IMPLS, make, widest, with_hits

from fastpop import ops


def gathered(inputs: dict, **options):
    """The same call, from gathered rows."""
    pos_id, neg_id = inputs["pos_id"], inputs["neg_id"]
    given = {
        name: inputs[name]
        for name in (
            "scale",
            "prior_weight",
            "logq",
            "accidental_hits",
            "group_size",
            "reduction",
            "row_weight",
        )
        if name in inputs
    }
    if neg_id.ndim == 2 and "group_size" not in given:
        given["group_size"] = 1
    for name in ("log_prior", "log_proposal"):
        if inputs.get(name) is not None:
            given |= {f"pos_{name}": inputs[name][pos_id], f"neg_{name}": inputs[name][neg_id]}
    return ops.gathered_softmax(
        inputs["query"],
        inputs["items"][pos_id],
        inputs["items"][neg_id],
        pos_id=pos_id,
        neg_id=neg_id,
        **given,
        **options,
    )


CASES = {
    "shared": make,
    "groups": lambda: make(shape="groups"),
    "a set for each row": lambda: make(shape="rows"),
    "hits kept": with_hits,
    "hits dropped": lambda: with_hits(accidental_hits="drop"),
    "hits dropped, many chunks": lambda: with_hits(rows=70, items=50, negatives=1500, accidental_hits="drop"),
    "hits dropped in groups": lambda: with_hits(shape="groups", accidental_hits="drop"),
    "hits dropped, a set for each row": lambda: with_hits(shape="rows", accidental_hits="drop"),
    "corrected": lambda: with_hits(logq="corrected"),
    "no correction, no prior": lambda: make(logq="none") | {"log_prior": None},
    "summed": lambda: with_hits(accidental_hits="drop", reduction="sum"),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("impl", IMPLS)
def test_values_and_gradients_are_those_of_sampled_softmax(impl, case):
    inputs = widest(CASES[case](), impl)
    exact = 1e-10 if inputs["query"].dtype == torch.float64 else 2e-5
    found = []
    for function in (ops.sampled_softmax, gathered):
        leaves = {
            name: inputs[name].clone().requires_grad_()
            for name in ("query", "items", "log_prior", "scale", "prior_weight")
            if inputs.get(name) is not None
        }
        call = (
            (lambda **given: gathered(given, impl=impl))
            if function is gathered
            else (lambda **given: ops.sampled_softmax(**given, impl=impl))
        )
        loss = call(**inputs | leaves)
        weight = torch.arange(1, loss.numel() + 1, dtype=loss.dtype).view(loss.shape)
        (loss * weight).sum().backward()
        found.append([loss.detach(), *(leaf.grad for leaf in leaves.values() if leaf.grad is not None)])
    assert len(found[0]) == len(found[1])
    for one, other in zip(*found):
        torch.testing.assert_close(one, other, rtol=exact, atol=exact * float(one.abs().max()))


BAD = {
    "rows": ({"pos_item": torch.zeros(4, 3)}, "pos_item: expected shape [5, 3]"),
    "negatives": ({"neg_item": torch.zeros(2, 2, 3)}, "neg_item: expected shape [K, 3]"),
    "none": ({"neg_item": torch.zeros(0, 3)}, "K >= 1"),
    "groups": ({"neg_item": torch.zeros(2, 2, 3), "group_size": 2}, "neg_item: expected shape [3, K, 3]"),
    "dtype": (
        {"neg_item": torch.zeros(2, 3, dtype=torch.bfloat16)},
        "neg_item: expected float32, as pos_item",
    ),
    "distribution": ({"neg_log_proposal": None}, "neg_log_proposal: expected log q"),
    "ids": ({"accidental_hits": "drop"}, "pos_id: expected int64 ids"),
    "prior of a positive": (
        {"pos_log_prior": torch.full((5,), torch.inf), "neg_log_prior": torch.zeros(2)},
        "pos_log_prior: expected numbers below +inf, none NaN; got inf",
    ),
    "prior of a negative": (
        {"pos_log_prior": torch.zeros(5), "neg_log_prior": torch.tensor([0, torch.nan])},
        "neg_log_prior: expected numbers below +inf, none NaN; got nan",
    ),
    "prior": ({"pos_log_prior": torch.zeros(5)}, "pos_log_prior, neg_log_prior: expected both or neither"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_gets_one_clear_error(case):
    change, message = BAD[case]
    given = {
        "query": torch.zeros(5, 3),
        "pos_item": torch.zeros(5, 3),
        "neg_item": torch.zeros(2, 3),
        "pos_log_proposal": torch.zeros(5),
        "neg_log_proposal": torch.zeros(2),
    }
    with pytest.raises(ValueError) as caught:
        ops.gathered_softmax(**given | change)
    assert message in str(caught.value)
