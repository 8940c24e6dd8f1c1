"""Tests beside packages of others, whose own warnings are theirs; ours still fail a test."""

import pytest

THEIRS = ("default", "error:.*without log p.*:UserWarning")


def pytest_collection_modifyitems(items):
    for item in items:
        if "others" in item.path.parts:
            item.add_marker(pytest.mark.others)
            item.add_marker(pytest.mark.filterwarnings(*THEIRS))


@pytest.fixture(autouse=True, scope="module")
def a_folder_of_its_own(tmp_path_factory):
    """Where trainers leave their files."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("others"))
        patch.setenv("HF_HUB_OFFLINE", "1")
        yield
