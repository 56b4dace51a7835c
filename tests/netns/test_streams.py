"""Runs as Python streams on a real interface: who stops reading stops the frames."""

import json
import sys

import pytest

from tests.netns.conftest import SPARE, Pair

STREAM = """
import asyncio, json, os, signal, sys, threading, time
from pathlib import Path
import irlstack as irl

def sent():
    return int(Path("/sys/class/net/va/statistics/tx_packets").read_text())

def after(seconds=0.1):
    time.sleep(seconds)
    first = sent()
    time.sleep(0.5)
    return sent() - first

run = irl.scan("10.0.0.0/8", ports=[80], rate=50_000, interface="va", source_ip=["{source}"], cooldown_time=1)
rows = 0
{body}
print(json.dumps(result))
"""
ENDS = {
    "break": """
for batch in run:
    rows += batch.num_rows
    if rows > 20_000:
        break
del batch
result = after()
""",
    "exception": """
try:
    for batch in run:
        rows += batch.num_rows
        if rows > 20_000:
            raise ZeroDivisionError
except ZeroDivisionError:
    pass
result = after()
""",
    "close": """
batches = iter(run)
while rows <= 20_000:
    rows += next(batches).num_rows
batches.close()
result = after()
""",
    "garbage": """
batches = iter(run)
while rows <= 20_000:
    rows += next(batches).num_rows
del batches
result = after()
""",
    "async break": """
async def read():
    rows = 0
    async for batch in run:
        rows += batch.num_rows
        if rows > 20_000:
            break
asyncio.run(read())
result = after()
""",
    "ctrl-c": """
def press():
    while rows <= 20_000:
        time.sleep(0.01)
    os.kill(os.getpid(), signal.SIGINT)
threading.Thread(target=press).start()
try:
    for batch in run:
        rows += batch.num_rows
except KeyboardInterrupt:
    pass
result = after() if rows > 20_000 else -1
""",
}


def python(pair: Pair, body: str) -> object:
    process = pair.start([sys.executable, "-c", STREAM.format(source=SPARE, body=body)])
    stdout, stderr = process.communicate(timeout=50)
    assert process.returncode == 0, stderr
    return json.loads(stdout.splitlines()[-1])


@pytest.mark.parametrize("end", ENDS)
def test_frames_stop_within_100_ms(everybody: Pair, end: str) -> None:
    assert python(everybody, ENDS[end]) == 0


@pytest.mark.alone
def test_a_stream_that_is_not_read_pauses_the_sender_and_loses_nothing(everybody: Pair) -> None:
    body = """
run = irl.scan(
    "10.0.0.0/12", ports=[80], rate=0, interface="va", source_ip=["198.18.0.10"], no_rst=True, cooldown_time=1
)
batches = iter(run)
rows = next(batches).num_rows
idle = None
for _ in range(100):
    before = sent()
    time.sleep(0.2)
    if sent() == before:
        idle = before
        break
paused = idle is not None and idle < 1_000_000
for batch in batches:
    rows += batch.num_rows
result = [paused, rows]
"""
    assert python(everybody, body) == [True, 1 << 20]


def test_nothing_is_sent_before_the_first_batch_is_asked_for(everybody: Pair) -> None:
    assert python(everybody, "result = after(0.3) + sent()") <= 2 + everybody.counters("a")["tx"]


def test_the_rate_changes_in_flight(everybody: Pair) -> None:
    body = """
batches = iter(run)
rates = []
for rate in (20_000, 5_000):
    run.rate = rate
    start = time.monotonic()
    seen = 0
    while time.monotonic() < start + 2:
        got = next(batches).num_rows
        if time.monotonic() > start + 0.5:
            seen += got
    rates.append(seen / (time.monotonic() - start - 0.5))
batches.close()
result = rates
"""
    fast, slow = python(everybody, body)
    assert fast == pytest.approx(20_000, rel=0.25)
    assert slow == pytest.approx(5_000, rel=0.25)
