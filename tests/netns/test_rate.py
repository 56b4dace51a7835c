"""Pace and what it costs: counted at the far end and in /proc, not believed."""

import os
import socket
import time
from pathlib import Path

import pytest

from irlstack.lab import netns
from tests.netns.conftest import SPARE, Pair

pytestmark = pytest.mark.alone
PRICE = 2
"""What a target may cost at most, in plain sends."""
TICKS_PER_S = os.sysconf("SC_CLK_TCK")


def cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_S


def plain_send_s(pair: Pair, count: int = 100_000) -> float:
    """What a SYN costs that a loop sends by itself through a packet socket, its answer included: seconds of a core.

    Machines differ, and a shared one differs from itself a minute ago, so a price is compared with this one.
    """
    header = bytes.fromhex((pair.mac_b + pair.mac_a).replace(":", "")) + b"\x08\x00"
    ip = bytes([0x45, 0, 0, 40, 0, 0, 0x40, 0, 64, 6, 0, 0, *map(int, SPARE.split(".")), 10, 0, 0, 1])
    frame = header + ip + bytes([0xEE, 0x48, 0, 80, *bytes(8), 0x50, 2, 0xFF, 0xFF, 0, 0, 0, 0])
    with netns.enter(pair.a):
        raw = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    with raw:
        raw.bind(("va", 0))
        before = time.process_time()
        for _ in range(count):
            raw.send(frame)
        return (time.process_time() - before) / count


@pytest.mark.timeout(120)
@pytest.mark.parametrize(("rate", "seconds"), [(50_000, 30), (1_000, 5)])
def test_the_rate_is_held_at_its_price(everybody: Pair, tmp_path: Path, rate: int, seconds: int) -> None:
    plain = plain_send_s(everybody)
    targets = ["10.0.0.0/8", "-n", str(rate * seconds), "-p", "80"]
    with everybody.scanning(
        *targets, "-r", str(rate), "-c", "1", "-o", str(tmp_path / "rows.csv"), source=SPARE
    ) as scan:
        everybody.await_frames(rate // 10)
        # Every SYN is answered once: what arrives at va counts what was sent, without our resets.
        first, start, spent = everybody.counters("a")["rx"], time.monotonic(), cpu_s(scan.pid)
        time.sleep(seconds * 0.9)
        last, end, spent = everybody.counters("a")["rx"], time.monotonic(), cpu_s(scan.pid) - spent
    assert scan.code == 0, scan.stderr
    plain = (plain + plain_send_s(everybody)) / 2
    measured, share = (last - first) / (end - start), spent / (end - start)
    print(
        f"-r {rate}: {measured:.0f}/s over {end - start:.1f} s at {share:.1%} of a core; a target costs "
        f"{spent / (last - first) / plain:.2f} times a plain send of {plain * 1e6:.1f} us"
    )
    assert measured == pytest.approx(rate, rel=0.01)
    # A target is two frames, with our RST, and its answer is read, judged and written.
    assert share < max(0.08, PRICE * plain * measured)
    assert scan.document["sent"] == scan.document["found"] == rate * seconds
