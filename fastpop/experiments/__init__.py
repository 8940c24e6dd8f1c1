"""Experiments that answer a question, with every arm and control that the answer needs."""

from fastpop.experiments.arms import ARMS, Arm
from fastpop.experiments.compare import compare
from fastpop.experiments.compared import CompareResult
from fastpop.experiments.dealt import Dealt
from fastpop.experiments.unfinished import state_of
from fastpop.experiments.wording import reworded

__all__ = ["ARMS", "Arm", "CompareResult", "Dealt", "compare", "reworded", "state_of"]
