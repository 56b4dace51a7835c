"""Bad input and bad luck: a clear error, and nothing measured is lost."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.netns.conftest import SPARE, Pair, sh

RATE = ["-p", "80", "-r", "20k", "-c", "1"]


def test_an_unknown_interface_is_named_with_those_there_are(pair: Pair) -> None:
    scan = pair.irlstack("scan", "10.0.0.0/24", *RATE, "-i", "eth77", "-S", SPARE)
    assert scan.code == 4
    assert "eth77" in scan.stderr
    assert "va" in scan.stderr
    assert "Traceback" not in scan.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["10.0.0.0/33"], "10.0.0.0/33"),
        (["10.0.0.0/24", "-p", "65536"], "65536"),
        (["10.0.0.0/24", "--shards", "3", "--shard", "3"], "shard"),
        (["10.0.0.0/24", "-b", "DENY"], "deny.txt:2:"),
        (["10.0.0.0/24", "fd00::/64"], "famil"),
        (["10.0.0.0/24", "-r", "-5"], "rate"),
    ],
)
def test_bad_input_is_a_usage_error_that_quotes_it(
    pair: Pair, tmp_path: Path, arguments: list[str], words: str
) -> None:
    deny = tmp_path / "deny.txt"
    deny.write_text("10.1.0.0/16\n10.2.0.0/99\n")
    given = [str(deny) if each == "DENY" else each for each in arguments]
    before = pair.counters("b")["rx"]
    scan = pair.scan(*given, *([] if "-p" in given else ["-p", "80"]), *([] if "-r" in given else ["-r", "1k"]))
    assert scan.code == 2, scan.stderr
    assert words in scan.stderr
    assert "Traceback" not in scan.stderr
    assert pair.counters("b")["rx"] == before


def test_a_deny_list_that_leaves_nothing_says_so(pair: Pair, tmp_path: Path) -> None:
    deny = tmp_path / "deny.txt"
    deny.write_text("10.0.0.0/8\n")
    scan = pair.scan("10.0.0.0/24", *RATE, "-b", str(deny))
    assert scan.code == 2
    assert "empty" in scan.stderr or "no target" in scan.stderr.lower()


def test_an_output_that_cannot_be_written_is_found_before_the_first_frame(pair: Pair) -> None:
    before = pair.counters("b")["rx"]
    scan = pair.scan("10.0.0.0/24", *RATE, "-o", "/proc/no/such/out.csv")
    assert scan.code in (1, 2)
    assert "/proc/no/such" in scan.stderr
    assert pair.counters("b")["rx"] == before


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MB."""
    folder = tmp_path / "small"
    folder.mkdir()
    sh("mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder))
    yield folder
    sh("umount", "-l", str(folder))


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_a_full_disk_ends_the_run_with_5_and_keeps_what_was_found(
    everybody: Pair, small_disk: Path, suffix: str
) -> None:
    output = small_disk / f"out.{suffix}"
    # -r 100k of hosts that all answer fills a megabyte of CSV in a moment, of Parquet after some 100,000 rows.
    scan = everybody.scan("10.0.0.0/13", "-p", "80", "-r", "100k", "-c", "1", "-o", str(output))
    assert scan.code == 5, scan.stderr
    assert "space" in scan.stderr.lower()
    assert "Traceback" not in scan.stderr
    if suffix == "csv":
        lines = output.read_text().splitlines()
        assert len(lines) > 1000
        assert lines[1].count(",") == lines[0].count(",")


def test_an_interface_that_goes_mid_run_ends_it_with_what_was_found(everybody: Pair, tmp_path: Path) -> None:
    output = tmp_path / "out.csv"
    with everybody.scanning("10.0.0.0/8", "-n", "1000000", "-p", "80", "-r", "20k", "-o", str(output)) as scan:
        everybody.await_frames(20_000)
        sh("ip", "-n", everybody.a, "link", "del", "va")
    assert scan.code in (4, 5), scan.stderr
    assert "va" in scan.stderr
    assert "Traceback" not in scan.stderr
    assert len(output.read_text().splitlines()) > 5_000


def test_a_namespace_that_loses_its_far_end_mid_run_ends_it_with_what_was_found(
    everybody: Pair, tmp_path: Path
) -> None:
    output = tmp_path / "out.csv"
    with everybody.scanning("10.0.0.0/8", "-n", "1000000", "-p", "80", "-r", "20k", "-o", str(output)) as scan:
        everybody.await_frames(20_000)
        sh("ip", "netns", "del", everybody.b)  # takes vb, and with it va, away
    assert scan.code in (4, 5), scan.stderr
    assert "Traceback" not in scan.stderr
    assert len(output.read_text().splitlines()) > 5_000


def test_beside_another_xdp_program_the_packet_engine_works_and_live_is_refused_naming_it(
    everybody: Pair, build_peer: Callable[..., Path]
) -> None:
    """Their program passes what it does not answer, so AF_PACKET sees the answers."""
    sh("ip", "-n", everybody.a, "link", "set", "va", "xdpdrv", "obj", str(build_peer()), "sec", "xdp")
    for engine in ("packet", "auto"):
        scan = everybody.scan("10.0.0.0/20", *RATE, "--engine", engine)
        assert scan.code == 0, scan.stderr
        assert scan.document["found"] == 1 << 12
        assert scan.document["engine"] == "packet"
        assert "peer" in scan.document["engine_why"]
        assert everybody.attached() == "peer", "their program is still there"
    refused = everybody.scan("10.0.0.0/20", *RATE, "--engine", "live")
    assert refused.code == 4
    assert "peer" in refused.stderr


def test_an_mtu_too_large_for_xdp_says_so_and_falls_back(make_pair: Callable[..., Pair]) -> None:
    pair = make_pair(mtu=9000)
    scan = pair.scan("198.18.0.2/32", "-p", "80", "-r", "10", "-c", "1")
    assert scan.code == 0, scan.stderr
    assert scan.document["sent"] == 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_stops_frames_within_100_ms_and_keeps_the_rows(
    everybody: Pair, tmp_path: Path, number: int
) -> None:
    output = tmp_path / "out.csv"
    with everybody.scanning("10.0.0.0/8", "-p", "80", "-r", "50k", "-c", "1", "-o", str(output)) as scan:
        everybody.await_frames(20_000)
        os.kill(scan.pid, number)
        time.sleep(0.1)
        late = everybody.counters("b")["rx"]
    assert scan.code == 130, scan.stderr
    assert everybody.counters("b")["rx"] == late
    assert len(output.read_text().splitlines()) > 5_000


def test_a_missing_capability_is_named_before_anything_happens(pair: Pair) -> None:
    command = ["setpriv", "--reuid", "65534", "--clear-groups", sys.executable, "-m", "irlstack", "scan"]
    process = pair.start([*command, "10.0.0.0/24", *RATE, "-i", "va", "-S", SPARE], cwd="/", env={"HOME": "/"})
    _, said = process.communicate(timeout=30)
    assert process.returncode == 4, said
    assert "CAP_NET_RAW" in said
    assert "Traceback" not in said


def test_rows_piped_into_a_reader_that_leaves_end_the_scan_quietly(everybody: Pair) -> None:
    scan = everybody.start([sys.executable, "-m", "irlstack", "scan", "10.0.0.0/14", *RATE, "-i", "va", "-S", SPARE])
    assert scan.stdout is not None
    assert scan.stdout.readline().startswith("10.")
    scan.stdout.close()
    try:
        assert scan.wait(20) != 0
    except subprocess.TimeoutExpired:
        scan.kill()
        raise
    assert scan.stderr is not None
    assert "Traceback" not in scan.stderr.read()
