"""Numbers of a tensor that are checked when the program runs: validation on entry sees a traced tensor
without any, so under torch.compile this operator stands in its place."""

import math
from typing import Any

import torch
from torch import Tensor

from fastpop import checks
from fastpop.ops import readable

# What numbers may be, in the words of the error, from the least and the most of them (both NaN where one
# number is).
RULES = {
    "a finite number": lambda least, most: -math.inf < least and most < math.inf,
    "a finite number > 0": lambda least, most: least > 0 and most < math.inf,
    "finite weights >= 0": lambda least, most: least >= 0 and most < math.inf,
    "finite log q": lambda least, most: -math.inf < least and most < math.inf,
    "numbers below +inf, none NaN": lambda least, most: most < math.inf,
}


def check(name: str, numbers: Tensor, rule: str) -> None:
    """ValueError where the numbers break the rule; names the worst."""
    if numbers.numel() == 0:
        return
    least, most = (one.item() for one in numbers.detach().aminmax())
    if not RULES[rule](least, most):
        raise checks.wrong(name, rule, text=f"{most if RULES[rule](least, least) else least}")


def checked(value: Tensor, numbers: Tensor, name: str, rule: str) -> Tensor:
    """A copy of `value`, once `numbers` have passed. Who uses the copy cannot run before the check."""
    readable.without_tangents((name,), (value,))
    check(name, numbers, rule)
    return value.clone()


def _register() -> None:
    operator = torch.library.custom_op(
        "fastpop::checked",
        checked,
        mutates_args=(),
        schema="(Tensor value, Tensor numbers, str name, str rule) -> Tensor",
    )

    @operator.register_fake
    def fake(value: Tensor, numbers: Tensor, name: str, rule: str) -> Tensor:
        readable.outside_jvp(name)
        return torch.empty_like(value)

    def gradient(ctx: Any, d_value: Tensor) -> tuple:
        return d_value, None, None, None

    operator.register_autograd(gradient)


_register()
