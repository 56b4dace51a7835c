"""At full rate for long: memory stays where it was, and nothing is lost. `make soak` asks for half an hour."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.netns.conftest import Pair

pytestmark = pytest.mark.alone
MINUTES = float(os.environ.get("SOAK_MINUTES", "0.2"))
WARM_S = min(60.0, MINUTES * 60 / 2)
"""After this long every buffer has met its largest load."""
GROWTH = 16 << 20
"""Bytes: what allocators hold on to here and there. A lost byte a probe would come to that within half a minute."""

SOAK = """
import json, sys
import irlstack as irl

# The map of the answered is a window over nearly 2^40 targets: all of its memory is in use within seconds.
run = irl.scan(
    "10.0.0.0/8", ports="1-65535", rate=0, engine="live", interface="va", source_ip="198.18.0.10", cooldown_time=2,
    max_memory=64 << 20, max_runtime=float(sys.argv[1]),
)
rows = sum(batch.num_rows for batch in run)
# Not the whole summary: with a line for each second it would fill the pipe, which nobody reads before the end.
print(json.dumps({"rows": rows, "stats": run.stats, "imbalances": run.summary["imbalances"]}))
"""


def resident(pid: int) -> int:
    """Bytes of memory that are a process's own: files and rings shared with the kernel left out."""
    status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return int(status["RssAnon"].split()[0]) << 10


def held(pid: int) -> dict[str, int]:
    """Threads and open files of a process."""
    return {what: len(list(Path(f"/proc/{pid}/{what}").iterdir())) for what in ("task", "fd")}


@pytest.mark.timeout(MINUTES * 60 + 120)
def test_at_full_rate_memory_is_flat_and_the_books_balance(everybody: Pair) -> None:
    before, begun = everybody.counters("b")["rx"], time.monotonic()
    process = everybody.start([sys.executable, "-c", SOAK, str(MINUTES * 60)])
    samples: list[tuple[float, int, dict[str, int]]] = []
    while process.poll() is None:
        # As long as frames flow: the cooldown frees what the flight needed.
        if time.monotonic() - begun < MINUTES * 60:
            samples.append((time.monotonic() - begun, resident(process.pid), held(process.pid)))
        try:
            process.wait(1)
        except subprocess.TimeoutExpired:
            continue
    stdout, stderr = process.communicate()
    assert process.returncode == 0, stderr
    done = json.loads(stdout)
    stats = done["stats"]
    warm = [(rss, of) for at, rss, of in samples if at >= WARM_S]
    (first, held_first), (last, held_last), most = warm[0], warm[-1], max(rss for rss, _ in warm)
    print(
        f"{stats['probes_sent']:,} probes in {MINUTES * 60:.0f} s, {done['rows']:,} rows; own memory {first >> 20} MiB "
        f"after {WARM_S:.0f} s, {last >> 20} at the end, {most >> 20} at most; {held_last}"
    )
    assert most - first < GROWTH
    assert held_first == held_last
    assert done["imbalances"] == []
    assert done["rows"] == stats["found"] > 0
    lost = stats["device_lost"] + stats["overruns"]
    assert stats["probes_sent"] - lost <= stats["successes"] <= stats["probes_sent"]
    assert lost <= stats["probes_sent"] // 10_000
    assert everybody.counters("b")["rx"] - before >= stats["probes_sent"] + stats["resets_sent"] - stats["device_lost"]
    assert everybody.attached() is None
