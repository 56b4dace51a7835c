"""`tools/packages`, with a package manager that is made up."""

import subprocess
from pathlib import Path

import pytest

TOOL = Path(__file__).parents[2] / "tools" / "packages"


@pytest.fixture
def bare(tmp_path: Path) -> Path:
    """A folder of commands on whose machine only tcpdump is installed, and nobody is root."""
    for name, script in {
        "dpkg-query": 'for last; do :; done; [ "$last" = tcpdump ] && echo installed',
        "id": "echo 1000",
        "apt-get": "exit 99",
    }.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / name).chmod(0o755)
    return tmp_path


def run(job: str, path: Path) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": f"{path}:/usr/bin:/bin"}
    return subprocess.run([TOOL, job], env=environment, capture_output=True, text=True)


def test_without_root_what_is_missing_is_named_and_the_job_may_go_on(bare: Path) -> None:
    done = run("test", bare)
    assert done.returncode == 4
    assert "sudo apt-get install" in done.stderr
    assert " clang " in done.stderr
    assert " nginx " in done.stderr
    assert "tcpdump" not in done.stderr, "that is there"
    assert " nginx" not in run("build", bare).stderr, "the build needs no server"


def test_with_everything_installed_nothing_is_said(bare: Path) -> None:
    (bare / "dpkg-query").write_text("#!/bin/sh\necho installed\n")
    done = run("test", bare)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_an_unknown_job_is_refused(bare: Path) -> None:
    assert run("everything", bare).returncode == 2
