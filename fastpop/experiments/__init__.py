"""Experiments that answer a question, with every arm and control that the answer needs."""

from fastpop.experiments.arms import ARMS, Arm
from fastpop.experiments.compare import CompareResult, compare

NAMES = ("compare",)

__all__ = ["ARMS", "NAMES", "Arm", "CompareResult", "compare"]
