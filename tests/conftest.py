"""What every test of the project shares: those marked `root` are skipped without root, aloud, but never in CI."""

import os

import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip, with the reason, what needs root where there is none. In CI it fails instead: nothing goes unnoticed."""
    if os.geteuid() == 0 or os.environ.get("CI") == "true":
        return
    for item in items:
        if "root" in item.keywords:
            item.add_marker(pytest.mark.skip(reason="needs root: run `sudo make test`"))
