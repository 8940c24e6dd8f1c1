"""Counter-based draws from a discrete law through an integer alias table.

`reference.py` is the specification (numpy); `_cpu.py` and `_cuda.py` draw the same ids bit for bit.
"""
