"""Text of a log, a block at a time, into columns of numbers: ids by first appearance, times, weights.

`reference.py` says what a record is; `_cpu.py` reads a block of whole records in one pass in C++.
"""
