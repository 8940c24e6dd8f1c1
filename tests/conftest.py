"""Fixtures every room uses."""

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The optional folder of real logs: $FASTPOP_TEST_DATA, or ../shared/data beside the project.

    Absent: tests that need it are skipped, except under CI, where they must run.
    """
    default = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("FASTPOP_TEST_DATA", default))
    if folder.is_dir():
        return folder
    reason = f"no folder of real logs at {folder} (set FASTPOP_TEST_DATA)"
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)
