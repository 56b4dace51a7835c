"""Pace and what it costs: counted at the far end and in /proc, not believed."""

import os
import time
from pathlib import Path

import pytest

from tests.netns.conftest import SPARE, Pair

TICKS_PER_S = os.sysconf("SC_CLK_TCK")


def cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_S


@pytest.mark.timeout(120)
@pytest.mark.parametrize(("rate", "seconds", "share"), [(50_000, 30, 1 / 3), (1_000, 10, 0.08)])
def test_the_rate_is_held_at_its_price(everybody: Pair, tmp_path: Path, rate: int, seconds: int, share: float) -> None:
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
    measured = (last - first) / (end - start)
    print(f"-r {rate}: {measured:.0f}/s over {end - start:.1f} s at {100 * spent / (end - start):.1f} % of a core")
    assert measured == pytest.approx(rate, rel=0.01)
    assert spent / (end - start) < share
    assert scan.document["sent"] == scan.document["found"] == rate * seconds
