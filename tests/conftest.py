"""What every test of the project shares: those marked `root` need root and are never run in CI."""

import os

import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip, with the reason, what needs root where there is none, and in CI."""
    if os.environ.get("CI"):
        reason = "needs root; not in CI"
    elif os.geteuid() != 0:
        reason = "needs root: run `sudo make test`"
    else:
        return
    for item in items:
        if "root" in item.keywords:
            item.add_marker(pytest.mark.skip(reason=reason))
