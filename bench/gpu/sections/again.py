"""The ceilings once more, at the end."""

from gpu.sections.ceilings import items

__all__ = ["items"]
