"""What breaks in full flight is counted and said, and what is mended works again."""

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from irlstack.lab import netns
from tests.netns.conftest import SPARE, Pair, sh

pytestmark = pytest.mark.alone
LIVE = ["-p", "80", "-r", "0", "--engine", "live", "-c", "1"]
FLIGHT = 300_000
"""Frames after which a run counts as in full flight."""


@pytest.mark.parametrize("which", ["near", "far"])
def test_an_interface_deleted_in_full_flight_ends_the_run_with_its_rows(
    everybody: Pair, tmp_path: Path, which: str
) -> None:
    rows = tmp_path / "rows.csv"
    with everybody.scanning("10.0.0.0/8", *LIVE, "-o", str(rows), "-q") as scan:
        everybody.await_frames(FLIGHT)
        if which == "near":
            sh("ip", "-n", everybody.a, "link", "del", "va")
        else:
            sh("ip", "netns", "del", everybody.b)  # takes vb, and with it va, away
    assert scan.code == 5, scan.stderr
    assert "va is gone" in scan.stderr
    assert "Traceback" not in scan.stderr
    assert scan.document["imbalances"] == []
    # The first line names the columns.
    assert len(rows.read_text().splitlines()) - 1 == scan.document["found"] > 0


def test_a_namespace_whose_name_goes_lives_as_long_as_the_run_in_it(everybody: Pair) -> None:
    with everybody.scanning("10.0.0.0/10", *LIVE, "--no-rst", "-o", "/dev/null", "-q") as scan:
        everybody.await_frames(FLIGHT)
        sh("ip", "netns", "del", everybody.a)
    assert scan.code in (0, 5), scan.stderr
    assert scan.document["imbalances"] == []
    lost = scan.document["stats"]["device_lost"] + scan.document["stats"]["overruns"]
    assert (1 << 22) - lost <= scan.document["found"] <= 1 << 22


AGAIN = """
import json, sys
import irlstack as irl

def scan(stack, prefix):
    rows, run, said = 0, stack.scan(prefix, ports=80, rate=0, cooldown_time=1), ""
    try:
        for batch in run:
            rows += batch.num_rows
    except irl.EngineError as error:
        said = str(error)
    print(json.dumps({"rows": rows, "said": said, "stats": run.stats}), flush=True)

with irl.Stack("va", source_ip="198.18.0.10", engine="live") as stack:
    scan(stack, "10.0.0.0/8")
    sys.stdin.readline()
    scan(stack, "10.0.0.0/12")
"""


def test_a_stack_scans_on_once_its_interface_is_up_again(everybody: Pair) -> None:
    process = everybody.start([sys.executable, "-c", AGAIN], stdin=subprocess.PIPE)
    everybody.await_frames(FLIGHT)
    sh("ip", "-n", everybody.a, "link", "set", "va", "down")
    assert process.stdout is not None
    first = json.loads(process.stdout.readline())
    assert "va is gone" in first["said"]
    assert first["rows"] == first["stats"]["found"] > 0, "nothing that was found is lost"
    sh("ip", "-n", everybody.a, "link", "set", "va", "up")
    sh("ip", "-n", everybody.a, "route", "add", "default", "via", "198.18.0.2")  # went with the link
    everybody.silent()
    stdout, stderr = process.communicate("go\n", timeout=40)
    assert process.returncode == 0, stderr
    second = json.loads(stdout)
    assert second["said"] == ""
    lost = second["stats"]["device_lost"] + second["stats"]["overruns"]
    assert (1 << 20) - lost <= second["rows"] <= 1 << 20


FROZEN = """
import json, sys
import irlstack as irl

with irl.Stack("va", source_ip="198.18.0.10", source_port="61000-61999", engine="live") as stack:
    for _ in stack.receive(0):
        pass
    print("ready", flush=True)
    sys.stdin.readline()
    rows = sum(batch.num_rows for batch in stack.receive(1))
    print(json.dumps({"rows": rows, "counters": stack.counters}), flush=True)
    sys.stdin.readline()
    rows = sum(batch.num_rows for batch in stack.receive(1))
    print(json.dumps({"rows": rows, "counters": stack.counters}), flush=True)
"""


def throw(pair: Pair, count: int) -> None:
    """Sends TCP segments to the stack's ports from the far end."""
    ip = bytes([0x45, 0, 0, 40, 0, 0, 0x40, 0, 64, 6, 0, 0, 10, 0, 0, 1, *map(int, SPARE.split("."))])
    header = bytes.fromhex((pair.mac_a + pair.mac_b).replace(":", "")) + b"\x08\x00"
    frame = header + ip + bytes([0, 80, 0xEE, 0x48, *bytes(8), 0x50, 0x12, 0xFF, 0xFF, 0, 0, 0, 0])
    with netns.enter(pair.b):
        raw = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    with raw:
        raw.bind(("vb", 0))
        for _ in range(count):
            raw.send(frame)


def test_a_frozen_receiver_s_full_ring_is_counted_and_then_it_receives_again(pair: Pair) -> None:
    """The filter works on while the process stands still, until the ring is full."""
    process = pair.start([sys.executable, "-c", FROZEN], stdin=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdin is not None
    assert process.stdout.readline() == "ready\n"
    before = pair.counters("a")["rx"]
    os.kill(process.pid, signal.SIGSTOP)
    thrown = 300_000
    throw(pair, thrown)
    os.kill(process.pid, signal.SIGCONT)
    process.stdin.write("\n")
    process.stdin.flush()
    first = json.loads(process.stdout.readline())
    counters = first["counters"]
    arrived = pair.counters("a")["rx"] - before
    assert arrived >= thrown, "the link lost nothing"
    assert counters["ring_full"] == counters["overruns"] > 0
    assert counters["frames_received"] + counters["ring_full"] == thrown
    assert first["rows"] + counters["frames_lost"] == counters["frames_received"] > 0
    throw(pair, 10)
    stdout, stderr = process.communicate("\n", timeout=20)
    assert process.returncode == 0, stderr
    second = json.loads(stdout)
    assert second["rows"] == 10
    assert second["counters"]["ring_full"] == counters["ring_full"]
