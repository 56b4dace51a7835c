"""The commands `plan` and `when`, and what every command has in common."""

import io
import os
import re
import stat
import subprocess
import sys
from pathlib import Path

import pytest

import irlstack as irl
from tests.conftest import Command

IRLSTACK = Path(sys.executable).parent / "irlstack"


def test_a_plan_is_written_once_and_privately(command: Command, tmp_path: Path) -> None:
    done = command("plan", "10.0.0.0/16", "-p", "80,443", "-e", 7)
    assert done.status == 0
    assert done.out == ""
    assert "131,072" in done.err
    path = tmp_path / "plan.toml"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert irl.Plan.load(path).seed == 7
    again = command("plan", "10.0.0.0/16", "-p", "80")
    assert again.status == 2
    assert "there already" in again.err


def test_a_dry_run_counts_after_the_deny_list_and_shows_ten_frames(command: Command, tmp_path: Path) -> None:
    (tmp_path / "deny").write_text("10.0.0.0/17\n")
    done = command("plan", "10.0.0.0/16", "-p", "80", "-b", "deny", "-r", "1k", "-d")
    assert done.status == 0
    assert "32,768 of 65,536 (32,768 denied)" in done.err
    assert "33 s" in done.err
    assert "bit/s" in done.err
    lines = done.out.splitlines()
    assert len(lines) == 10
    assert all("tcp S seq" in line and ":80 " in line for line in lines)
    assert all(int(line.split("> 10.0.")[1].split(".")[0]) >= 128 for line in lines)
    assert not (tmp_path / "plan.toml").exists()


@pytest.mark.parametrize(("probe", "shown"), [("icmp_echoscan", "icmp type 8"), ("udp", "udp 3 bytes")])
def test_a_dry_run_shows_frames_of_every_probe(command: Command, probe: str, shown: str) -> None:
    more = ["-p", "53", "--probe-args", "text:a\\x00\\n"] if probe == "udp" else []
    assert shown in command("plan", "10.0.0.0/16", "-M", probe, "-d", *more).out
    assert command("plan", "fd00::/112", "-M", probe, "-d", *more).status == 0


def right_checksums(frame: bytes) -> list[str]:
    """What the checksums of a frame without VLAN tag should be, transport first, computed the slow way."""

    def words(data: bytes) -> int:
        data += bytes(len(data) % 2)
        return sum(int.from_bytes(data[at : at + 2]) for at in range(0, len(data), 2))

    def folded(total: int) -> int:
        return 0xFFFE - (total - 1) % 0xFFFF

    v4 = frame[12:14] == b"\x08\x00"
    header, segment = (frame[14:34], frame[34:]) if v4 else (frame[14:54], frame[54:])
    protocol, addresses = (header[9], header[12:20]) if v4 else (header[6], header[8:40])
    at = {1: 2, 6: 16, 17: 6, 58: 2}[protocol]
    pseudo = 0 if protocol == 1 else words(addresses) + protocol + len(segment)
    transport = folded(pseudo + words(segment[:at] + segment[at + 2 :]))
    if protocol == 17:
        transport = transport or 0xFFFF  # 0 would say that there is none
    network = [folded(words(header[:10] + header[12:]))] if v4 else []
    return [f"{checksum:#06x}" for checksum in (transport, *network)]


@pytest.mark.parametrize("targets", ["10.0.0.0/16", "fd00::/112"])
@pytest.mark.parametrize("probe", ["tcp_synscan", "icmp_echoscan", "udp"])
def test_a_dry_run_shows_the_checksums_that_are_sent(
    command: Command, tmp_path: Path, probe: str, targets: str
) -> None:
    ports = [] if probe == "icmp_echoscan" else ["-p", "53"]
    assert command("plan", targets, "-M", probe, *ports).status == 0
    frames = irl.Plan.load(tmp_path / "plan.toml").frames()
    lines = command("scan", "--plan", "plan.toml", "--dryrun").out.splitlines()
    assert len(lines) == len(frames) == 10
    for line, frame in zip(lines, frames, strict=True):
        assert re.findall("checksum (0x[0-9a-f]{4})", line) == right_checksums(frame), line


def test_targets_are_listed_in_order(command: Command) -> None:
    done = command("plan", "10.0.0.0/24", "-p", "80", "-e", "1", "--list", "--first", "5")
    expected = "".join(irl.Plan("10.0.0.0/24", ports=80, seed=1).targets(count=5).lines())
    assert done.out == expected
    assert done.err == ""


def test_targets_come_from_standard_input(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    given = b"10.0.0.1:80\n10.0.0.2:81\n"
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(given)))
    done = command("plan", "-", "--list")
    assert sorted(done.out.splitlines()) == ["10.0.0.1:80", "10.0.0.2:81"]


def test_when_names_shard_and_position(command: Command) -> None:
    command("plan", "10.0.0.0/16", "-p", "80", "--shards", "2", "-e", "1")
    shard, position = irl.Plan.load("plan.toml").find("10.0.3.4:80") or (None, None)
    done = command("when", "plan.toml", "10.0.3.4:80")
    assert done.out == f"10.0.3.4:80 is at position {position} of shard {shard} of 2\n"
    absent = command("when", "plan.toml", "10.0.3.4:81")
    assert absent.status == 1
    assert "not a target" in absent.err


def test_a_share_of_the_targets_and_a_bandwidth_become_numbers(command: Command) -> None:
    assert command("plan", "10.0.0.0/16", "-p", "80,81", "-n", "1%", "-B", "784k").status == 0
    plan = irl.Plan.load("plan.toml")
    assert plan.total == 1311
    assert plan.rate == 1000


def test_contact_and_deny_file_come_from_the_configuration(command: Command, tmp_path: Path) -> None:
    (tmp_path / "deny").write_text("10.0.0.0/17\n")
    text = '[policy]\ncontact = "a@example.org"\nblocklist_file = "deny"\nrate = 500\n'
    (tmp_path / "irlstack.toml").write_text(text)
    assert command("plan", "10.0.0.0/16", "-p", "80").status == 0
    plan = irl.Plan.load("plan.toml")
    assert plan.contact == "a@example.org"
    assert plan.rate == 500
    assert plan.counts()["denied"] == 32_768


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["10.0.0.0/33", "-p", "80"], "10.0.0.0/33"),
        (["10.0.0.0/8", "-p", "65536"], "65535"),
        (["10.0.0.0/8"], "needs target ports"),
        (["10.0.0.0/8", "-p", "80", "-M", "icmp_echoscan"], "no target ports"),
        (["10.0.0.0/8", "-p", "80", "--rat", "5"], "--rate"),
        (["10.0.0.0/8", "-p", "80", "-r", "fast"], "not a number"),
        (["10.0.0.0/8", "-p", "80", "-r", "1", "-B", "1M"], "not both"),
        (["10.0.0.0/8", "-p", "80", "-b", "absent"], "absent: No such file"),
        (["10.0.0.0/8", "-p", "80", "--shards", "3", "--shard", "3", "-d"], "0 to 2"),
        (["10.0.0.0/8", "fd00::/8", "-p", "80"], "one address family"),
        (["127.0.0.1", "-p", "80"], "no target left"),
        (["10.0.0.0/8", "-p", "80", "-M", "syn"], "no probe 'syn'"),
        (["10.0.0.0/8", "-p", "80", "--probe-args", "layout=odd"], "layout"),
        (["10.0.0.0/8", "-p", "80", "-P", "many"], "many"),
        (["10.0.0.0/8", "-p", "80", "-n", "0"], "whole number from 1"),
        (["10.0.0.0/8", "-p", "80", "--first", "3"], "--list"),
        (["10.0.0.0/8", "--plan", "plan.toml"], "beside --plan"),
        (["10.0.0.0/8", "-p", "80", "-o", "absent/plan.toml"], "absent/plan.toml"),
    ],
)
def test_wrong_arguments_get_one_sentence_and_exit_2(command: Command, arguments: list[str], said: str) -> None:
    done = command("plan", *arguments)
    assert done.status == 2
    assert done.out == ""
    assert done.err.startswith("irlstack: ")
    assert said in done.err
    assert done.err.count("\n") == 1


def test_help_fits_80_columns(command: Command) -> None:
    for arguments in ([], ["plan"], ["when"], ["ledger"], ["report"], ["methods"], ["identity"]):
        done = command(*arguments, "--help")
        assert done.status == 0
        assert max(map(len, done.out.splitlines())) <= 80


def test_no_command_shows_the_help(command: Command) -> None:
    assert "Commands" in command().out


def test_a_reader_that_has_seen_enough_is_no_error() -> None:
    line = f"{IRLSTACK} plan 10.0.0.0/8 -p 80 --list | head -n 1"
    done = subprocess.run(["bash", "-o", "pipefail", "-c", line], capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert done.stdout.startswith("10.")
    assert done.stderr == ""


def test_no_color_is_honoured() -> None:
    for variables, coloured in (({"FORCE_COLOR": "1"}, True), ({"FORCE_COLOR": "1", "NO_COLOR": "1"}, False)):
        done = subprocess.run(
            [IRLSTACK, "plan", "nowhere"], env=os.environ | variables, capture_output=True, check=False
        )
        assert (b"\x1b[" in done.stderr and b"31m" in done.stderr) is coloured
