"""A warning that no test asserts is a failure in this room."""

import warnings

import pytest


def test_a_warning_is_an_error():
    with pytest.raises(UserWarning, match="nobody asserts this"):
        warnings.warn("nobody asserts this", stacklevel=1)


def test_what_torch_warns_of_is_named():
    warnings.warn("Sparse CSR tensor support is in beta: sparse", stacklevel=1)


@pytest.mark.filterwarnings("ignore:this test says so")
def test_a_test_has_the_last_word():
    warnings.warn("this test says so", stacklevel=1)
