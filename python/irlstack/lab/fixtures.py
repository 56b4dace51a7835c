"""A lab as a pytest fixture: `pytest_plugins = ["irlstack.lab.fixtures"]` in a conftest, and `lab` as an argument.

Without root the tests that ask for it are skipped, aloud, unless CI=true: there they fail.
"""

import os
from collections.abc import Iterator

import pytest

from irlstack.lab.handle import Lab


@pytest.fixture(scope="session")
def need_root() -> None:
    """Skips what needs root where there is none, but never in CI."""
    if os.geteuid() != 0 and os.environ.get("CI") != "true":
        pytest.skip("needs root, for network namespaces: sudo -E pytest")


@pytest.fixture(scope="module")
def lab(need_root: None) -> Iterator[Lab]:
    """A lab with a World of seed 1, for the tests of one module."""
    with Lab() as up:
        yield up
