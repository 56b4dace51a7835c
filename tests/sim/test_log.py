"""What a command says: words for people, or lines of JSON for programs, wherever they go."""

import json
import logging
import re
import resource
import signal
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

import irlstack as irl
from tests.conftest import Command

SCAN = ["scan", "10.2.64.0/19", "-p", "80", "--engine", "sim", "-r", "0", "-c", "0.1", "-e", "1"]
JSON = ["--log-format", "json"]
NAMES = {"time", "level", "event", "message", "logger"}


def records(text: str) -> list[dict[str, Any]]:
    """Each line, with what every one has."""
    lines = [json.loads(line) for line in text.splitlines()]
    for line in lines:
        assert line.keys() >= NAMES
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line["time"])
        assert abs((datetime.now(UTC) - datetime.fromisoformat(line["time"])).total_seconds()) < 60
        assert line["level"] in {"fatal", "error", "warning", "info", "debug"}
        assert re.fullmatch("[a-z_]+", line["event"])
        assert line["message"]
        assert line["logger"].startswith("irlstack")
    return lines


def of(lines: list[dict[str, Any]], event: str) -> dict[str, Any]:
    (found,) = [line for line in lines if line["event"] == event]
    return found


def test_a_run_says_as_json_where_it_is_and_how_it_ended(command: Command) -> None:
    done = command(*SCAN, *JSON, "-m", "run.json", "-o", "rows.csv")
    document = json.loads(Path("run.json").read_text())
    lines = records(done.err)
    assert done.status == 0
    assert {line["event"] for line in lines} == {"status", "run_ended"}
    assert {line["run"] for line in lines} == {document["plan_fingerprint"][:16] + "-0"}
    ended = lines[-1]
    assert (ended["event"], ended["level"], ended["exit"]) == ("run_ended", "info", 0)
    for name in ("sent", "found", "elapsed_s", "ended_by", "imbalances", "synthetic"):
        assert ended[name] == document[name], name
    for name in ("received", "rows", "overruns"):
        assert ended[name] == document["stats"][name], name
    status = lines[-2]
    assert status["probes_sent"] == status["probes_planned"] == 1 << 13
    assert command(*SCAN, *JSON, "-q", "-o", "again.csv").err.count("\n") == 1, "quietly it says only how it ended"


@pytest.mark.parametrize(
    ("arguments", "status", "event", "says"),
    [
        (["scan", "9.9.9.0/24", "-p", "443"], 3, "refused", "refused: 9.9.9.0/24 is globally reachable"),
        ([*SCAN, "--shard", "7"], 2, "usage", "shard"),
        ([*SCAN, "--probe-ttl", "many"], 2, "usage", "--probe-ttl"),
        ([*SCAN, "--no-such-option"], 2, "usage", "--no-such-option"),
        (["scan", "--plan", "absent.toml"], 2, "file", "absent.toml"),
        ([*SCAN, "-o", "no/such/folder.csv"], 2, "file", "folder.csv"),
        (["exchange", "10.2.64.0/19", "-p", "80", "--timeout", "long"], 2, "usage", "--timeout"),
    ],
)
def test_what_ends_a_command_is_a_line_too(
    command: Command, arguments: list[str], status: int, event: str, says: str
) -> None:
    done = command(*arguments, *JSON)
    (line,) = records(done.err)
    assert (done.status, line["event"], line["level"], line["exit"]) == (status, event, "fatal", status)
    assert says in line["message"]


def test_ctrl_c_before_there_is_a_run_is_one_as_well(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("irlstack.cli.running.keywords", lambda *_: signal.raise_signal(signal.SIGINT))
    done = command(*SCAN, *JSON)
    (line,) = records(done.err)
    assert (done.status, line["event"], line["exit"]) == (130, "interrupted", 130)
    assert command(*SCAN).err == "", "in text the shell says so"


def test_a_bug_is_one_as_well(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("irlstack.cli.running.keywords", lambda *_: 1 / 0)
    done = command(*SCAN, *JSON)
    (line,) = records(done.err)
    assert (done.status, line["event"]) == (1, "bug")
    assert "ZeroDivisionError" in line["exception"]


def test_ctrl_c_is_told_in_json_with_what_was_counted(tmp_path: Path) -> None:
    scan = ["scan", "10.0.0.0/9", "-p", "80", "--engine", "sim", "-r", "200k", "-c", "0.1", "-o", "rows.csv"]
    with subprocess.Popen(
        [sys.executable, "-m", "irlstack", *scan, *JSON], stderr=subprocess.PIPE, text=True, cwd=tmp_path
    ) as process:
        assert process.stderr is not None
        first = process.stderr.readline()
        process.send_signal(signal.SIGUSR1)
        faster = process.stderr.readline()
        process.send_signal(signal.SIGINT)
        rest = process.stderr.read()
        assert process.wait(timeout=10) == 130
    lines = records(first + faster + rest)
    assert lines[0]["event"] == "status"
    changed = of(lines, "rate_changed")
    assert (changed["before"], changed["rate"]) == (200_000, 210_000)
    ended = of(lines, "run_ended")
    assert (ended["interrupted"], ended["exit"]) == (True, 130)
    assert ended["sent"] >= lines[0]["probes_sent"] > 0
    assert of(lines, "checkpoint_written")["path"] == "rows.csv.checkpoint"


def test_an_output_that_fails_is_told_after_the_counts(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "irlstack", "scan", "10.0.0.0/13", "-p", "80", *SCAN[4:], "-o", "rows.csv", *JSON],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000)),
    )
    lines = records(done.stderr)
    assert (done.returncode, of(lines, "run_ended")["exit"]) == (5, 5)
    failed = of(lines, "run_failed")
    assert failed["level"] == "error"
    assert "rows.csv" in failed["message"]


def test_warnings_of_the_package_and_of_the_core_are_lines_of_the_same_form(command: Command) -> None:
    Path("out.txt").write_text("10.2.64.7 # until 2020-01-01: by mail\n")
    done = command(*SCAN, *JSON, "--optout-file", "out.txt", "-o", "rows.csv")
    expired = of(records(done.err), "optout_expired")
    assert (expired["level"], expired["logger"]) == ("warning", "irlstack.optout")
    Path("list.txt").write_text("10.2.64.7\nnowhere\n")
    exchange = ["exchange", "10.2.64.0/19", "-I", "list.txt", "-p", "80", *SCAN[4:-2], "-o", "said.csv"]
    done = command(*exchange, "--reprobe", "0", "--timeout", "0.1", *JSON)
    bad = of(records(done.err), "log")
    assert (bad["level"], bad["logger"].split(".")[1]) == ("warning", "irl_measure")
    assert "list.txt" in bad["message"]


def test_the_log_file_has_everything_and_stderr_what_is_for_its_reader(command: Command) -> None:
    Path("out.txt").write_text("10.2.64.7 # until 2020-01-01: by mail\n")
    scan = [*SCAN, "--optout-file", "out.txt", "-o", "rows.csv", "-l", "run.log"]
    done = command(*scan, *JSON)
    lines = records(Path("run.log").read_text())
    assert {line["event"] for line in lines} == {"optout_expired", "status", "run_ended"}
    assert [line["event"] for line in records(done.err)] == ["run_ended"]
    Path("run.log").unlink()
    done = command(*scan)
    assert re.fullmatch(r"8,192 probes in .* found \(.* %\)\n", done.err)
    text = Path("run.log").read_text()
    assert re.search(r"^\d{4}-\d\d-\d\d \S+ WARNING irlstack.optout: out.txt, line 1: ", text, re.MULTILINE)
    assert re.search(r"INFO irlstack.cli: 8,192 probes in ", text)


def test_a_log_directory_gets_a_file_named_after_the_time(command: Command) -> None:
    Path("logs").mkdir()
    assert command(*SCAN, *JSON, "-o", "rows.csv", "-L", "logs").status == 0
    (file,) = Path("logs").iterdir()
    assert re.fullmatch(r"irlstack-\d{4}-\d\d-\d\dT\d{6}Z\.log", file.name)
    assert of(records(file.read_text()), "run_ended")["exit"] == 0
    done = command(*SCAN, "-L", "logs", "-l", "run.log")
    assert (done.status, "--log-file or --log-directory" in done.err) == (2, True)


@pytest.mark.parametrize(
    ("verbosity", "said"),
    [(0, set()), (1, set()), (2, {"optout_expired"}), (3, {"optout_expired", "status", "run_ended"})],
)
def test_verbosity_is_zmaps(command: Command, verbosity: int, said: set[str]) -> None:
    Path("out.txt").write_text("10.2.64.7 # until 2020-01-01: by mail\n")
    done = command(*SCAN, *JSON, "--optout-file", "out.txt", "-o", "rows.csv", "-v", verbosity)
    assert {line["event"] for line in records(done.err)} == said
    text = command(*SCAN, "--optout-file", "out.txt", "-o", "again.csv", "-v", verbosity).err
    assert (" opted out " in text, " found " in text) == (verbosity >= 2, verbosity >= 3)
    refused = command("scan", "9.9.9.0/24", "-p", "443", "-v", verbosity)
    assert (refused.status, "refused" in refused.err) == (3, True), "what ends a command is always said"


def test_a_level_that_is_none_is_refused(command: Command) -> None:
    assert command(*SCAN, "-v", "6").status == 2
    assert command(*SCAN, "--log-format", "xml").status == 2


def test_no_secret_is_ever_logged(command: Command) -> None:
    plan = irl.Plan("10.2.64.0/19", ports=80, seed=1, secret=bytes(range(16)))
    plan.save("plan.toml")
    (key,) = re.findall(r'secret = "(\S+)"', Path("plan.toml").read_text())
    done = command("scan", "--plan", "plan.toml", *SCAN[4:-2], *JSON, "-v", "5", "-l", "run.log", "-o", "rows.csv")
    assert done.status == 0
    for text in (done.err, Path("run.log").read_text()):
        records(text)
        assert key not in text
        assert bytes(range(16)).hex() not in text
    assert command("scan", "--plan", "plan.toml", "--shard", "9", *SCAN[4:-2], *JSON, "-v", "5").err.count(key) == 0


def test_nothing_of_a_log_outlives_its_command(command: Command) -> None:
    root, ours = logging.getLogger(), logging.getLogger("irlstack")
    before = [*root.handlers], root.level, ours.level
    command(*SCAN, *JSON, "-v", "5", "-l", "run.log", "-o", "rows.csv")
    assert ([*root.handlers], root.level, ours.level) == before


def test_a_program_gets_records_of_logging_and_no_words(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "list.txt").write_text("10.2.64.7\nnowhere\n")
    (tmp_path / "out.txt").write_text("10.2.64.7 # until 2020-01-01: by mail\n")
    files = {"list_of_ips_file": tmp_path / "list.txt", "optout_file": tmp_path / "out.txt"}
    asked = {"engine": "sim", "rate": 0, "cooldown_time": 0, "reprobe": 0, "timeout": 0.1}
    run = irl.exchange("10.2.64.0/19", ports=80, **files, **asked)
    list(run)
    assert {record.name.split(".")[0] for record in caplog.records} == {"irlstack"}
    assert len(caplog.records) == 2
    assert capfd.readouterr() == ("", "")
