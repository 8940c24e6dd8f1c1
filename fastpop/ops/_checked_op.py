"""Numbers of a tensor that are looked at when the program runs: the door of an op sees a traced tensor
without any, so under torch.compile this operator stands in its place."""

import math
from typing import Any

import torch
from torch import Tensor

from fastpop import checks

# What a number may be, in the words of the error: the rule that the least of them must pass.
RULES = {
    "a finite number": lambda least: True,
    "a finite number > 0": lambda least: least > 0,
    "finite weights >= 0": lambda least: least >= 0,
    "finite log q": lambda least: True,
}


def check(name: str, numbers: Tensor, rule: str) -> None:
    """ValueError where one of the numbers is not finite or breaks the rule; names the worst."""
    if numbers.numel() == 0:
        return
    least, most = (one.item() for one in numbers.detach().aminmax())  # both NaN if one number is
    if not (math.isfinite(least) and RULES[rule](least)):
        raise checks.wrong(name, rule, f"={least}")
    if not math.isfinite(most):
        raise checks.wrong(name, rule, f"={most}")


def checked(value: Tensor, numbers: Tensor, name: str, rule: str) -> Tensor:
    """A copy of `value`, once `numbers` have passed. Who uses the copy cannot run before the check."""
    check(name, numbers, rule)
    return value.clone()


def _register() -> None:
    operator = torch.library.custom_op(
        "fastpop::checked", checked, mutates_args=(),
        schema="(Tensor value, Tensor numbers, str name, str rule) -> Tensor")
    operator.register_fake(lambda value, numbers, name, rule: torch.empty_like(value))

    def gradient(ctx: Any, d_value: Tensor) -> tuple:
        return d_value, None, None, None

    operator.register_autograd(gradient)


_register()
