"""Events sorted by user, time and row, a range of users at a time.

`reference.py` is the specification (numpy); `_cpu.py` counts and scatters in C++.
"""
