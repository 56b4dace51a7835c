"""Fixtures of the tests that need no network."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from irlstack import cli


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
