"""`irlstack bench rx`: answers a second that end up in a file, at a rate that is more than tcpdump can take.

Our scan writes rows to Parquet; tcpdump writes what it captured of each answer to a pcap file. Both get their answers
from the same hosts, to probes that the engine `live` is asked to send at the same rate. tcpdump cannot watch our scan,
whose filter takes the answers before a packet socket sees them: so it watches `Stack.send`, whose probes come from the
host's own address. The client's kernel would answer each of these answers with a RST, which would cost tcpdump time
that is not its own: so a route drops them once tcpdump has seen them.

The loop is closed on one machine: a receiver that takes the cores slows its sender down before it loses anything. So
what counts is how many answers a second reach the file, and what was offered stands beside it.
"""

import contextlib
import mmap
import struct
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from irlstack.bench import commands, document, far_end, figures, ground, peers, threads
from irlstack.bench.rounds import Say, interleaved
from irlstack.errors import ConfigError, EngineError
from irlstack.lab import netns

_END_WITHIN_S = 120.0
_MOST = 1 << ground.HOST_BITS
_FILE_HEADER_BYTES, _RECORD_HEADER_BYTES, _CAPTURED_AT = 24, 16, 8
_MAGICS = (0xA1B2C3D4, 0xA1B23C4D)
"""Of pcap files with times in us and in ns."""


@dataclass(frozen=True)
class Received:
    """What one receiver did in one round.

    Attributes:
        rate: answers a second in its file, over the time in which probes arrived at the far end.
        offered: probes a second that arrived there.
        probes: how many.
        kept: answers in its file.
        seconds: how long.
        layout: what it received, and how it was told to.
    """

    rate: float
    offered: float
    probes: int
    kept: int
    seconds: float
    layout: str


def probes(rate: int, seconds: float) -> int:
    """How many are sent.

    Raises:
        ConfigError: none, or more than there are hosts.
    """
    count = round(rate * seconds)
    if not 0 < count <= _MOST:
        raise ConfigError(
            f"--rate {rate:,} for --seconds {seconds:g} makes {count:,} probes; there have to be some, and no more "
            f"than the {_MOST:,} hosts there are."
        )
    return count


def run(rounds: int, seconds: float, rate: int, say: Say) -> dict[str, Any]:
    """Measures both in every round, and returns the document.

    Raises:
        ConfigError: more probes than there are hosts.
        PrivilegeError: not root.
        EngineError: one of them failed.
    """
    document.need_linux()
    count = probes(rate, seconds)
    document.need_root("rx")
    found, missing = peers.find(["tcpdump"])
    if why := threads.numpy_missing():
        missing["Stack.send"] = why
    for name, why in missing.items():
        say(f"without {name}, and so without tcpdump's figure: {why}")
    receivers: dict[str, Callable[[ground.Ground], Received]] = {"scan": lambda place: _scan(place, rate, count)}
    if not missing:
        receivers["tcpdump"] = lambda place: _tcpdump(place, found["tcpdump"], rate, count)
    versions = {name: peer.version for name, peer in found.items()}
    settings = {"rounds": rounds, "seconds": seconds, "rate": rate, "denied_prefixes": ground.DENIED_PREFIXES}
    out = document.begin("rx", versions, missing, settings)
    done: dict[str, list[Received]] = {name: [] for name in receivers}
    with ground.make(hosts=True) as place:
        for number, name in interleaved(list(receivers), rounds):
            once = receivers[name](place)
            done[name].append(once)
            say(f"round {number}: {name}: {once.rate / 1e6:.3f} of {once.offered / 1e6:.3f} M/s offered")
    out["contenders"] = {
        name: {
            "layout": received[0].layout,
            "rate": figures.spread([each.rate for each in received]),
            "offered": figures.spread([each.offered for each in received]),
            "kept_share": figures.spread([each.kept / each.probes for each in received]),
            "rounds": [asdict(each) for each in received],
        }
        for name, received in done.items()
    }
    out["ratios"] = figures.ratios({name: [each.rate for each in all_of] for name, all_of in done.items()}, ["scan"])
    return out


def _scan(place: ground.Ground, rate: int, count: int) -> Received:
    how: commands.Options = ["-p", "80", "-n", str(count), "-r", str(rate), "--engine", "live", "--no-rst", "-c", "1"]
    layout = f"rows of 15 columns to Parquet, --no-rst, engine live, -r {rate}"
    scan = commands.Scan(place, "scan", layout, [ground.TARGETS, *how, "-o", place.folder / "rows.parquet"])
    with far_end.Watch(place.lab) as watch:
        scan.start()
        scan.wait(_END_WITHIN_S)
    return _received(watch, int(scan.document["stats"]["rows"]), layout)


def _tcpdump(place: ground.Ground, peer: peers.Peer, rate: int, count: int) -> Received:
    tcpdump = commands.Tcpdump(place, peer)
    sender = threads.StackSend(place, count, source=ground.HOST, rate=rate)
    with _answers_dropped(place):
        try:
            tcpdump.start()
            tcpdump.await_listening()
            with far_end.Watch(place.lab) as watch:
                try:
                    sender.start()
                    sender.wait()
                finally:
                    sender.stop()
            tcpdump.await_idle()
        finally:
            tcpdump.stop()
    kept = packets_in(tcpdump.path)
    tcpdump.path.unlink()
    return _received(watch, kept, tcpdump.layout)


@contextlib.contextmanager
def _answers_dropped(place: ground.Ground) -> Iterator[None]:
    """The client's kernel drops what comes from the hosts, after packet sockets have seen it."""
    client = place.lab.namespace("client")
    netns.batch([f"route add blackhole {ground.TARGETS}"], client)
    try:
        yield
    finally:
        netns.batch([f"route del blackhole {ground.TARGETS}"], client)


def _received(watch: far_end.Watch, kept: int, layout: str) -> Received:
    seconds = watch.seconds()
    return Received(kept / seconds, watch.frames() / seconds, watch.frames(), kept, seconds, layout)


def packets_in(path: Path) -> int:
    """The whole packets of a pcap file, counted in the file.

    Raises:
        EngineError: it is no pcap file of this machine.
    """
    size = path.stat().st_size
    if size < _FILE_HEADER_BYTES:
        raise EngineError(f"{path} is no pcap file: it ends before its header does.")
    word = struct.Struct("=I")
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        if word.unpack_from(content)[0] not in _MAGICS:
            raise EngineError(f"{path} is no pcap file of this machine.")
        at, count = _FILE_HEADER_BYTES, 0
        while at + _RECORD_HEADER_BYTES <= size:
            at += _RECORD_HEADER_BYTES + word.unpack_from(content, at + _CAPTURED_AT)[0]
            count += at <= size
    return count
