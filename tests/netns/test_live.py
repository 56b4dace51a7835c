"""The engine `live`: what a mapped ring and one call in the kernel send, counted at both ends."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.netns.conftest import IRLSTACK, SPARE, HostTraffic, Pair

pytestmark = pytest.mark.alone
LIVE = ["-p", "80", "-r", "0", "--engine", "live", "-c", "1"]
KILLS = int(os.environ.get("IRLSTACK_KILLS", "10"))
"""Moments at which a run is killed; `make soak` asks for 100."""


@pytest.mark.parametrize("extra", [[], ["--no-rst"]], ids=["with RSTs", "without"])
def test_everybody_is_found_and_the_books_agree_with_the_device(
    everybody: Pair, tmp_path: Path, extra: list[str]
) -> None:
    before = everybody.counters("a")
    scan = everybody.scan("10.0.0.0/12", *LIVE, *extra, "-o", str(tmp_path / "rows.parquet"), "-q")
    assert scan.code in (0, 5), scan.stderr
    document, stats = scan.document, scan.document["stats"]
    assert document["engine"] == "live"
    assert document["imbalances"] == []
    assert stats["probes_built"] == document["sent"] == 1 << 20
    assert stats["resets_sent"] == (0 if extra else document["found"]), "each valid SYN-ACK is owed a RST"
    assert stats["resets_skipped"] == 0
    lost = stats["device_lost"] + stats["overruns"]
    assert (1 << 20) - lost <= document["found"] <= 1 << 20
    assert lost <= (1 << 20) // 10_000, "found is 99.99 %"
    after = everybody.counters("a")
    frames = sum(stats[f"{kind}_sent"] for kind in ("probes", "resets", "neighbour"))
    left = frames - stats["device_lost"] + document["network"]["conflict_probes"]
    assert left == after["tx"] - before["tx"], "what we say has left and what the device says"


@pytest.mark.timeout(60 + 3 * KILLS)
def test_killed_at_any_moment_it_leaves_the_interface_and_the_host_as_they_were(
    everybody: Pair, host_traffic: Callable[[Pair], HostTraffic]
) -> None:
    moments = random.Random(7)
    traffic = host_traffic(everybody)
    for _ in range(KILLS):
        given = ["10.0.0.0/8", *LIVE, "-i", "va", "-S", SPARE, "-q"]
        scan = everybody.start([*IRLSTACK, "scan", *given], stdout=subprocess.DEVNULL)
        # Any moment: while it loads, while the call begins, in full flight.
        time.sleep(moments.uniform(0, 1.2))
        scan.send_signal(signal.SIGKILL)
        scan.communicate()
        assert everybody.attached() is None
    before = everybody.counters("b")["rx"]
    everybody.await_frames(100)  # pings and echoes go on
    lost = traffic.stop()
    assert lost["pings_lost"] == 0, lost
    assert before > KILLS * 100, "nothing was ever sent"


IDLE = """
import json, os, sys, time
import irlstack as irl

def calls():
    names = [open(f"/proc/self/task/{task}/comm").read().strip() for task in os.listdir("/proc/self/task")]
    return names.count("irl-live")

def frame(number):
    ip = bytes([0x45, 0, 0, 40, 0, 0, 0x40, 0, 64, 6, 0, 0, 198, 18, 0, 10]) + (0x0a000000 + number).to_bytes(4, "big")
    return bytes.fromhex(sys.argv[1].replace(":", "")) + bytes([2, 0, 0, 0, 0, 1, 8, 0]) + ip + bytes(20)

with irl.Stack("va", source_ip="198.18.0.10", engine="live", rate=0, dad="off", gateway_mac=sys.argv[1]) as stack:
    stack.send([frame(number) for number in range(100_000)], fill_checksums=True).wait()
    busy = calls()
    deadline = time.monotonic() + 5
    while calls() and time.monotonic() < deadline:
        time.sleep(0.01)
    idle, spent, start = calls(), time.process_time(), time.monotonic()
    time.sleep(0.5)
    spent = time.process_time() - spent
    done = stack.send([frame(number) for number in range(10)], fill_checksums=True)
    start = time.monotonic()
    done.wait()
    print(json.dumps({"busy": busy, "idle": idle, "cpu": spent, "late": time.monotonic() - start, "sent": done.sent}))
"""


def test_an_idle_engine_lets_its_core_sleep_and_still_sends_at_once(everybody: Pair) -> None:
    before = everybody.counters("b")["rx"]
    process = everybody.start([sys.executable, "-c", IDLE, everybody.mac_b])
    stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 0, stderr
    found = json.loads(stdout)
    assert found["busy"] == 1, "a flood wakes the call"
    assert found["idle"] == 0, "and silence ends it"
    assert found["cpu"] < 0.1, "of the half second of silence"
    assert found["sent"] == 10
    assert found["late"] < 0.5
    assert everybody.counters("b")["rx"] - before >= 100_010 - 10


STOPPED_READER = """
import json, sys, time
import irlstack as irl

run = irl.scan("10.0.0.0/12", ports=80, rate=0, engine="live", interface="va", source_ip="198.18.0.10", cooldown_time=1)
batches = iter(run)
rows = next(batches).num_rows
time.sleep(2)
stopped = run.stats["probes_sent"]
time.sleep(3)
print(json.dumps({"stopped": stopped, "later": run.stats["probes_sent"]}))
rows += sum(batch.num_rows for batch in batches)
print(json.dumps({"rows": rows, "stats": run.stats}))
"""


def test_a_reader_that_stops_for_5_s_pauses_the_sender_and_loses_nothing(everybody: Pair) -> None:
    process = everybody.start([sys.executable, "-c", STOPPED_READER])
    stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 0, stderr
    paused, done = map(json.loads, stdout.splitlines())
    assert paused["later"] == paused["stopped"] < 1 << 20
    stats = done["stats"]
    assert stats["pauses"] > 0
    assert stats["overruns"] == 0
    assert done["rows"] == stats["found"] >= (1 << 20) - stats["device_lost"]


def test_an_interface_taken_down_in_full_flight_is_said_and_rows_are_kept(everybody: Pair, tmp_path: Path) -> None:
    rows = tmp_path / "rows.csv"
    with everybody.scanning("10.0.0.0/8", *LIVE, "-o", str(rows), "-q") as scan:
        everybody.await_frames(300_000)
        subprocess.run(["ip", "-n", everybody.a, "link", "set", "va", "down"], check=True)
    assert scan.code == 5, scan.stderr
    assert "va is gone" in scan.stderr
    assert "Traceback" not in scan.stderr
    assert scan.document["imbalances"] == []
    # The first line names the columns.
    assert len(rows.read_text().splitlines()) - 1 == scan.document["found"] > 0
