"""Counter-based draws from a discrete distribution through an integer alias table.

`reference.py` is the specification (numpy); the others draw the same ids bit for bit.
"""
