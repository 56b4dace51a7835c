"""What every test shares: a command line in this process, and root tests that are never skipped in CI."""

import os
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from irlstack import cli

# A shell without job control starts what runs in its background with Ctrl-C ignored, and our children would inherit it.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip, with the reason, what needs root where there is none. In CI it fails instead: nothing goes unnoticed."""
    if os.geteuid() == 0 or os.environ.get("CI") == "true":
        return
    for item in items:
        if "root" in item.keywords:
            item.add_marker(pytest.mark.skip(reason="needs root: run `sudo make test`"))


@dataclass
class Outcome:
    """What a command line did."""

    status: int
    out: str
    err: str


Command = Callable[..., Outcome]


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Command:
    """Runs a command line in this process and an empty folder, without anybody's configuration."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "xdg"))
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr("irlstack.policy.SYSTEM_FILE", tmp_path / "system.toml")

    def run(*arguments: object) -> Outcome:
        capsys.readouterr()
        status = cli.main([str(each) for each in arguments])
        captured = capsys.readouterr()
        return Outcome(status, captured.out, captured.err)

    return run
