"""Models here are tiny."""

import pytest


@pytest.fixture(autouse=True)
def few_threads(one_thread):
    """Every test of the room runs on one thread."""
