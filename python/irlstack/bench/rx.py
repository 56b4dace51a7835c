"""`irlstack bench rx`: answers a second that end up in a file, at a rate that is more than tcpdump can take.

Our scan writes rows to Parquet; tcpdump writes what it captured of each answer to a pcap file. Both get their answers
from the same hosts, to probes that the engine `live` sends at the same rate. tcpdump cannot watch our scan, whose filter
takes the answers before a packet socket sees them: so it watches `Stack.send`, whose probes come from the host's own
address. The client's kernel would answer each of these answers with a RST, which would cost tcpdump time that is not
its own: so a route drops them once tcpdump has seen them.
"""

import signal
import struct
import subprocess
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from irlstack.bench import document, figures, ground, senders
from irlstack.bench.tx import rotated
from irlstack.errors import ConfigError, EngineError
from irlstack.lab import netns

SNAPLEN = 64
BUFFER_KIB = 32_768
_LISTEN_WITHIN_S = 10.0
_DRAIN_S = 0.5
_END_WITHIN_S = 120.0
_MOST = 1 << 24

Say = Callable[[str], None]


@dataclass(frozen=True)
class Received:
    """What one receiver did in one round.

    Attributes:
        rate: answers a second in its file, over the time in which probes arrived at the far end.
        offered: probes a second that arrived there.
        probes: how many.
        kept: answers in its file.
        seconds: how long.
    """

    rate: float
    offered: float
    probes: int
    kept: int
    seconds: float


def run(rounds: int, seconds: float, rate: int, say: Say) -> dict[str, Any]:
    """Measures both in every round, and returns the document.

    Raises:
        ConfigError: more probes than there are hosts.
        PrivilegeError: not root.
        EngineError: one of them failed.
    """
    document.need_root("rx")
    probes = round(rate * seconds)
    if not 0 < probes <= _MOST:
        raise ConfigError(f"{rate:,} probes a second for {seconds} s are {probes:,}; there are {_MOST:,} hosts.")
    missing = {name: why for name, why in (("tcpdump", _tcpdump_missing()), ("numpy", senders.numpy_missing())) if why}
    for name, why in missing.items():
        say(f"without {name}, so without tcpdump's figure: {why}")
    receivers: dict[str, Callable[[ground.Ground, int, int], Received]] = {"scan": _scan}
    if not missing:
        receivers["tcpdump"] = _tcpdump
    done: dict[str, list[Received]] = {name: [] for name in receivers}
    with ground.make(hosts=True) as place:
        for number in range(rounds):
            for name in rotated(list(receivers), number):
                once = receivers[name](place, rate, probes)
                done[name].append(once)
                say(f"round {number + 1}: {name}: {once.rate / 1e6:.3f} M/s of {once.offered / 1e6:.3f} M/s offered")
    out = document.begin("rx", {}, missing, {"rounds": rounds, "seconds": seconds, "rate": rate})
    if not missing:
        out["versions"]["tcpdump"] = _tcpdump_version()
    layouts = {
        "scan": f"rows of 15 columns to Parquet, -r {rate} --no-rst, engine live",
        "tcpdump": f"-w, snapshot length {SNAPLEN}, buffer {BUFFER_KIB} KiB, filter on our address and 10.0.0.0/8",
    }
    out["contenders"] = {
        name: {
            "layout": layouts[name],
            "rate": figures.spread([each.rate for each in received]),
            "offered": figures.spread([each.offered for each in received]),
            "kept_share": figures.spread([each.kept / each.probes for each in received]),
            "rounds": [asdict(each) for each in received],
        }
        for name, received in done.items()
    }
    out["ratios"] = figures.ratios({name: [each.rate for each in all_of] for name, all_of in done.items()}, ["scan"])
    return out


def _scan(place: ground.Ground, rate: int, probes: int) -> Received:
    rows = place.folder / "rows.parquet"
    options = ["10.0.0.0/8", "-p", "80", "-n", str(probes), "-r", str(rate), "--engine", "live", "--no-rst", "-c", "1"]
    scan = senders.Scan(place, "scan", "", [*options, "-o", rows])
    with ground.Watch(place.lab) as watch:
        scan.start()
        try:
            scan.wait(_END_WITHIN_S)
        finally:
            scan.stop()
    return _received(watch, int(scan.document["stats"]["rows"]))


def _tcpdump(place: ground.Ground, rate: int, probes: int) -> Received:
    path = place.folder / "answers.pcap"
    client = place.lab.namespace("client")
    what = ["tcp", "and", "dst", "host", ground.HOST, "and", "src", "net", "10.0.0.0/8"]
    how: list[str | Path] = [
        "-i",
        place.interface,
        "-n",
        "-s",
        str(SNAPLEN),
        "-B",
        str(BUFFER_KIB),
        "-Z",
        "root",
        "-w",
        path,
    ]
    sender = senders.StackSend(place, probes, source=ground.HOST, rate=rate)
    netns.batch(["route add blackhole 10.0.0.0/8"], client)
    try:
        process = place.lab.start(["tcpdump", *how, *what], stderr=subprocess.PIPE, text=True)
        try:
            _await_listening(process)
            with ground.Watch(place.lab) as watch:
                sender.start()
                deadline = time.monotonic() + _END_WITHIN_S
                while sender.running() and time.monotonic() < deadline:
                    time.sleep(0.05)
                sender.stop()
                # What it has in its buffer is its own, too.
                time.sleep(_DRAIN_S)
            process.send_signal(signal.SIGINT)
            process.communicate(timeout=_END_WITHIN_S)
        finally:
            if process.poll() is None:
                process.kill()
                process.communicate()
    finally:
        netns.batch(["route del blackhole 10.0.0.0/8"], client)
    kept = packets_in(path)
    path.unlink()
    return _received(watch, kept)


def _received(watch: ground.Watch, kept: int) -> Received:
    seconds = watch.seconds()
    return Received(kept / seconds, watch.frames() / seconds, watch.frames(), kept, seconds)


def _await_listening(process: "subprocess.Popen[str]") -> None:
    assert process.stderr is not None  # noqa: S101 - asked for above
    line = process.stderr.readline()
    while line and "listening on" not in line:
        line = process.stderr.readline()
    if not line:
        raise EngineError(f"tcpdump ended before it listened, with {process.wait(_LISTEN_WITHIN_S)}.")


def packets_in(path: Path) -> int:
    """The packets of a pcap file, counted in the file.

    Raises:
        EngineError: it is no pcap file.
    """
    content = path.read_bytes()
    if content[:4] not in (b"\xd4\xc3\xb2\xa1", b"\x4d\x3c\xb2\xa1"):
        raise EngineError(f"{path} is no pcap file of this machine.")
    at, count = 24, 0
    length = struct.Struct("=I")
    while at + 16 <= len(content):
        at += 16 + length.unpack_from(content, at + 8)[0]
        count += at <= len(content)
    return count


def _tcpdump_missing() -> str | None:
    try:
        _tcpdump_version()
    except FileNotFoundError:
        return "it is not installed: apt-get install tcpdump"
    return None


def _tcpdump_version() -> str:
    said = subprocess.run(["tcpdump", "--version"], capture_output=True, text=True, check=False)  # noqa: S607
    return (said.stdout + said.stderr).splitlines()[0]
