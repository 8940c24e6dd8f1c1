"""Models here are tiny."""

import pytest


@pytest.fixture(autouse=True)
def few_threads(one_thread):
    """Every test of training runs on one thread."""
