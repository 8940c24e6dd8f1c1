"""Where `LawTensors` was: pickles of proposals name this module."""

from fastpop.ops.law_tensors import LawTensors as LawTensors
