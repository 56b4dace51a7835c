"""The command `exchange` on the simulated link."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import polars as pl
import pytest

from tests.conftest import Command

IRLSTACK = [sys.executable, "-m", "irlstack"]
SIM = ["--engine", "sim", "-r", "100k", "-c", "0.3", "-e", "1", "-p", "80", "-q"]
GET = ["--request", r"GET / HTTP/1.0\r\n\r\n"]


def test_rows_go_to_every_output_with_all_columns(command: Command, tmp_path: Path) -> None:
    done = command("exchange", "10.4.0.0/14", *SIM, *GET, "-o", "a.parquet", "-o", "b.jsonl", "-m", "m.json")
    assert done.status == 0, done.err
    table = pl.read_parquet(tmp_path / "a.parquet")
    lines = [json.loads(line) for line in (tmp_path / "b.jsonl").read_text().splitlines()]
    summary = json.loads((tmp_path / "m.json").read_text())
    assert table.height == len(lines) == summary["stats"]["rows"] > 100
    assert table.columns == list(lines[0]) == summary["output_fields"]
    counts = dict(table.group_by("status").len().iter_rows())
    assert counts["success"] == summary["exchanged"]
    assert counts["connection-refused"] + counts["unknown-error"] == summary["refused"]
    assert summary["imbalances"] == []


def test_without_a_file_a_few_columns_go_to_stdout() -> None:
    argv = [*IRLSTACK, "exchange", "10.11.0.0/16", *SIM, *GET, "--rows", "success"]
    lines = subprocess.run(argv, capture_output=True, text=True, check=True).stdout.splitlines()
    assert lines[0] == "saddr,sport,status,bytes"
    assert all(line.startswith("10.11.") and ",80,success," in line for line in lines[1:])


def test_a_request_is_text_with_escapes_or_a_file(command: Command, tmp_path: Path) -> None:
    (tmp_path / "request").write_bytes(b"GET {host}\xff")
    for request, sent in [
        (r"a\x00\n", b"a\0\n"),
        ("@request", b"GET {host}\xff"),
        (r"Host: {host}\r\n{{", b"Host: {host}\r\n{{"),
        ("", b""),
    ]:
        done = command(
            "exchange", "10.0.0.0/24", *SIM, "--request", request, "-o", "a.csv", "--timeout", "0.5", "--json"
        )
        assert done.status == 0, done.err
        assert json.loads(done.out.splitlines()[-1])["request"] == sent.hex()


def test_a_list_comes_from_a_file_or_standard_input(tmp_path: Path) -> None:
    lines = "".join(f"10.11.0.{number},host{number}.test,t{number}\n" for number in range(100))
    (tmp_path / "list.csv").write_text(lines)
    argv = [*IRLSTACK, "exchange", "10.0.0.0/8", *SIM, *GET, "--rows", "all", "--reprobe", "0"]
    for more, given in ((["-I", "list.csv"], None), (["-"], lines), (["-I", "-"], lines)):
        done = subprocess.run(
            [*argv, *more, "-o", "rows.csv"], cwd=tmp_path, input=given, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        table = pl.read_csv(tmp_path / "rows.csv")
        assert sorted(table["domain"]) == sorted(f"host{number}.test" for number in range(100))
        assert sorted(table["tag"]) == sorted(f"t{number}" for number in range(100))


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--until", ""], "at least one byte"),
        (["--until", "0"], "1 or more"),
        (["--request", "{hots}"], "there is no {hots}"),
        (["--request", r"\xff{host}"], "is no UTF-8"),
        (["--request", "@missing"], "No such file"),
        (["--close", "maybe"], "rst"),
        (["--max-per-prefix", "0"], "leaves no exchange"),
        (["-M", "icmp_echoscan"], "has no target ports"),
        (["--no-rst"], "--no-rst"),
    ],
)
def test_wrong_arguments_are_exit_2(command: Command, more: list[str], said: str) -> None:
    done = command("exchange", "10.0.0.0/24", *SIM, *more)
    assert done.status == 2
    assert said in done.err


def test_a_dry_run_sends_nothing_and_columns_are_listed(command: Command) -> None:
    done = command("exchange", "10.0.0.0/24", *SIM, "-d")
    assert (done.status, len(done.out.splitlines())) == (0, 10)
    assert "closed_by" in command("exchange", "--list-output-fields").out


@pytest.mark.parametrize("asked", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_exchange_keeps_its_rows(tmp_path: Path, asked: signal.Signals) -> None:
    argv = [*IRLSTACK, "exchange", "10.0.0.0/8", *SIM, *GET, "-o", "rows.csv", "-m", "m.json", "-u", "u.csv"]
    with subprocess.Popen(argv, cwd=tmp_path, stderr=subprocess.PIPE, text=True) as run:
        updates = tmp_path / "u.csv"
        until = time.monotonic() + 20
        while not updates.exists() or len(updates.read_text().splitlines()) < 3:
            assert time.monotonic() < until
            time.sleep(0.05)
        run.send_signal(asked)
        _, said = run.communicate(timeout=20)
    assert run.returncode == 130, said
    summary = json.loads((tmp_path / "m.json").read_text())
    assert summary["interrupted"]
    assert summary["imbalances"] == []
    assert len((tmp_path / "rows.csv").read_text().splitlines()) == summary["stats"]["rows"] + 1
