"""The baseline once more, at the end."""

from gpu.sections.baseline import items

__all__ = ["items"]
