"""Namespaces, peers and oracles of these tests. Nothing here but the command line under test is IRLstack's own work:
the links are made with plain `ip`, the answers by `peer.bpf.c` and the kernel, the counts by the kernel's counters.
"""

import contextlib
import dataclasses
import json
import os
import platform
import secrets
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from irlstack.lab.fixtures import lab, need_root  # noqa: F401 - fixtures, for the tests below this folder

IRLSTACK = [sys.executable, "-m", "irlstack"]
CLIENT, GATEWAY, SPARE = "198.18.0.1", "198.18.0.2", "198.18.0.10"
CLIENT6, GATEWAY6, SPARE6 = "fd00:18::1", "fd00:18::2", "fd00:18::10"
# Python has no name for it.
SO_RCVBUFFORCE = 33


@pytest.fixture(autouse=True)
def _root(need_root: None) -> None:
    """Everything below this folder needs root."""


def sh(*command: str, text: str | None = None) -> str:
    done = subprocess.run(command, input=text, capture_output=True, text=True)
    assert done.returncode == 0, f"{command}: {done.stderr}"
    return done.stdout


@dataclasses.dataclass
class Scan:
    """What a finished `irlstack scan --json` left."""

    code: int
    stdout: str
    stderr: str
    pid: int = 0

    @property
    def document(self) -> dict[str, Any]:
        lines = self.stdout.strip().splitlines()
        assert lines, f"no output; exit {self.code}: {self.stderr}"
        return json.loads(lines[-1])


class Pair:
    """Somebody's own namespaces: `a` with va 198.18.0.1/24, `b` with vb 198.18.0.2/24 and fd00:18::/64 beside."""

    def __init__(self, ipv6: bool, mtu: int) -> None:
        token = secrets.token_hex(3)
        self.a, self.b = f"irlt-{token}-a", f"irlt-{token}-b"
        self._started: list[subprocess.Popen[str]] = []
        for name in (self.a, self.b):
            sh("ip", "netns", "add", name)
            quiet = [
                f"echo {value} > /proc/sys/net/ipv6/conf/{which}/{key}"
                for which in ("all", "default")
                for key, value in (
                    ("accept_ra", 0),
                    ("autoconf", 0),
                    ("dad_transmits", 0),
                    ("router_solicitations", 0),
                    ("addr_gen_mode", 1),
                    ("mldv2_unsolicited_report_interval", 1),
                    ("disable_ipv6", int(not ipv6)),
                )
            ]
            sh("ip", "netns", "exec", name, "sh", "-c", " && ".join(quiet))
            sh("ip", "-n", name, "link", "set", "lo", "up")
        ends = [
            f"{end} numrxqueues 2 numtxqueues 2 mtu {mtu} netns {name}"
            for end, name in (("va", self.a), ("vb", self.b))
        ]
        sh("ip", "-batch", "-", text=f"link add {ends[0]} type veth peer {ends[1]}\n")
        for name, end, ipv4, address6 in ((self.a, "va", CLIENT, CLIENT6), (self.b, "vb", GATEWAY, GATEWAY6)):
            offloads = ["tx", "off", "tso", "off", "gso", "off", "gro", "on"]
            sh("ip", "netns", "exec", name, "ethtool", "-K", end, *offloads)
            sh("ip", "-n", name, "addr", "add", f"{ipv4}/24", "dev", end)
            if ipv6:
                sh("ip", "-n", name, "addr", "add", f"{address6}/64", "dev", end, "nodad")
            sh("ip", "-n", name, "link", "set", end, "up")
        sh("ip", "-n", self.a, "route", "add", "default", "via", GATEWAY)
        if ipv6:
            sh("ip", "-n", self.a, "-6", "route", "add", "default", "via", GATEWAY6)
            sh("ip", "-n", self.b, "addr", "add", "fe80::2/64", "dev", "vb", "nodad")
        self.mac_a, self.mac_b = (self.mac(name, end) for name, end in ((self.a, "va"), (self.b, "vb")))

    def close(self) -> None:
        for process in self._started:
            process.kill()
            for stream in (process.stdin, process.stdout, process.stderr):
                if stream is not None:
                    stream.close()
            process.wait()
        for name in (self.a, self.b):
            subprocess.run(["ip", "netns", "del", name], capture_output=True)

    def mac(self, name: str, end: str) -> str:
        return sh("ip", "-n", name, "-br", "link", "show", end).split()[2]

    def peer(self, program: Path) -> None:
        sh("ip", "-n", self.b, "link", "set", "vb", "xdpdrv", "obj", str(program), "sec", "xdp")

    def counters(self, side: str = "b") -> dict[str, int]:
        """Packets of one end: rx, tx, rx_dropped, tx_dropped."""
        name, end = (self.a, "va") if side == "a" else (self.b, "vb")
        stats = json.loads(sh("ip", "-n", name, "-j", "-s", "link", "show", end))[0]["stats64"]
        return {
            f"{way}{kind}": stats[way][key]
            for way in ("rx", "tx")
            for kind, key in (("", "packets"), ("_dropped", "dropped"))
        }

    def conserved(self, document: dict[str, Any], before: dict[str, int], strangers: bool = False) -> None:
        """Checks that the run's books balance, and agree with the counts of va since `before`, on a silent host.

        With strangers, frames also arrived that are none of the filter's business and went on uncounted.
        """
        after = self.counters("a")
        stats, filtered = document["stats"], document["filter"]
        assert document["imbalances"] == []
        assert stats["probes_built"] == document["sent"] + stats["probes_refused_by_policy"]
        assert document["packets_sent"] == sum(stats[f"{kind}_sent"] for kind in ("probes", "resets", "neighbour"))
        left = document["packets_sent"] + document["network"]["conflict_probes"]
        assert left == after["tx"] - before["tx"], "what we say we sent and what the device says"
        assert stats["overruns"] == 0
        diverted, arrived = sum(filtered.values()), after["rx"] - before["rx"]
        assert diverted == arrived or (strangers and diverted < arrived), "what the filter saw and what the device says"
        assert stats["received"] == sum(filtered[name] for name in ("delivered", "neighbour", "fragment"))

    def snmp(self, key: str, protocol: str = "Tcp", name: str | None = None) -> int:
        lines = [
            line.split()
            for line in sh("ip", "netns", "exec", name or self.a, "cat", "/proc/net/snmp").splitlines()
            if line.startswith(f"{protocol}:")
        ]
        return int(dict(zip(*lines, strict=True))[key])

    def start(self, command: Sequence[str], side: str = "a", **options: Any) -> subprocess.Popen[str]:
        name = self.a if side == "a" else self.b
        options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True} | options
        self._started.append(subprocess.Popen(["ip", "netns", "exec", name, *command], **options))
        return self._started[-1]

    def code(self, *command: str, side: str = "a") -> int:
        """Runs a command to its end and returns its exit code."""
        process = self.start(command, side)
        process.communicate(timeout=20)
        return process.returncode

    def irlstack(self, *arguments: str, timeout: float = 120, **options: Any) -> Scan:
        process = self.start([*IRLSTACK, *arguments], **options)
        try:
            stdout, stderr = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGABRT)
            stdout, stderr = process.communicate()
            pytest.fail(f"still running after {timeout} s: {arguments}\n{stderr[-3000:]}")
        return Scan(process.returncode, stdout, stderr)

    def scan(self, *arguments: str, source: str | None = SPARE, **options: Any) -> Scan:
        """`irlstack scan --json` on va from the spare address."""
        given = ["-i", "va", *(["-S", source] if source else []), "--json"]
        return self.irlstack("scan", *arguments, *given, **options)

    @contextlib.contextmanager
    def scanning(self, *arguments: str, source: str | None = SPARE, **options: Any) -> Iterator[Scan]:
        """The scan, running during the block and done after it, when code, output and errors are filled in."""
        given = ["-i", "va", *(["-S", source] if source else []), "--json"]
        process = self.start([*IRLSTACK, "scan", *arguments, *given], **options)
        scan = Scan(-1, "", "", process.pid)
        try:
            yield scan
            scan.stdout, scan.stderr = process.communicate(timeout=60)
            scan.code = process.returncode
        finally:
            process.kill()
            process.communicate()

    def await_frames(self, count: int, seconds: float = 20) -> None:
        """Returns once `count` more frames have reached the far end."""
        first, deadline = self.counters("b")["rx"], time.monotonic() + seconds
        while self.counters("b")["rx"] < first + count:
            assert time.monotonic() < deadline, f"fewer than {count} frames within {seconds} s"
            time.sleep(0.01)

    def attached(self) -> str | None:
        """The XDP program on va, if there is one."""
        link = json.loads(sh("ip", "-n", self.a, "-j", "-d", "link", "show", "va"))[0]
        return link.get("xdp", {}).get("prog", {}).get("name")

    def add_address(self, side: str, address: str) -> None:
        name, end = (self.a, "va") if side == "a" else (self.b, "vb")
        sh("ip", "-n", name, "addr", "add", address, "dev", end)

    def ask_for(self, address: str) -> None:
        """Has the far end's kernel resolve an address anew."""
        sh("ip", "-n", self.b, "neigh", "flush", "dev", "vb")
        self.code("ping", "-c", "1", "-W", "1", address, side="b")

    def neighbour(self, address: str) -> str:
        return sh("ip", "-n", self.b, "neigh", "show", address)

    def silent(self) -> None:
        """Waits until neither end's counters have moved for 300 ms: the kernel's own first frames are over."""
        deadline, before, since = time.monotonic() + 10, None, 0.0
        while time.monotonic() < deadline:
            now = (self.counters("a"), self.counters("b"))
            if now != before:
                before, since = now, time.monotonic()
            elif time.monotonic() - since > 0.3:
                return
            time.sleep(0.02)
        pytest.fail("the link did not fall silent within 10 s")


@pytest.fixture
def make_pair() -> Iterator[Callable[..., Pair]]:
    made: list[Pair] = []

    def make(ipv6: bool = False, mtu: int = 1500) -> Pair:
        made.append(Pair(ipv6, mtu))
        made[-1].silent()
        return made[-1]

    yield make
    for pair in made:
        pair.close()


@pytest.fixture
def pair(make_pair: Callable[..., Pair]) -> Pair:
    """Two joined namespaces, IPv4 only, nobody answering yet but the kernels."""
    return make_pair()


@pytest.fixture(scope="session")
def build_peer(tmp_path_factory: pytest.TempPathFactory, need_root: None) -> Callable[..., Path]:
    """Compiles peer.bpf.c with the given -D flags."""
    folder = tmp_path_factory.mktemp("peer")

    def build(*flags: str) -> Path:
        program = folder / f"peer{'-'.join(flags)}.o"
        if not program.exists():
            include = f"/usr/include/{platform.machine()}-linux-gnu"
            source = Path(__file__).with_name("peer.bpf.c")
            sh("clang", "-O2", "-g", "-target", "bpf", f"-I{include}", *flags, "-c", str(source), "-o", str(program))
        return program

    return build


@pytest.fixture
def everybody(pair: Pair, build_peer: Callable[..., Path]) -> Pair:
    """The pair with every host of 10.0.0.0/8 answering behind it."""
    pair.peer(build_peer())
    return pair


class HostTraffic:
    """The host's own business over the interface: TCP echoes on one connection and new connections, and pings.

    Any lost ping, failed connection, reset or retransmission counts against whoever attaches to the interface.
    """

    def __init__(self, pair: Pair) -> None:
        self._pair = pair
        self._server = pair.start([sys.executable, "-u", "-c", _ECHO_SERVER, GATEWAY], side="b")
        assert self._server.stdout is not None
        assert self._server.stdout.readline() == "listening\n"
        self._retransmitted = pair.snmp("RetransSegs")
        self._client = pair.start([sys.executable, "-u", "-c", _ECHO_CLIENT, GATEWAY], stdin=subprocess.PIPE)
        assert self._client.stdout is not None
        assert self._client.stdout.readline() == "talking\n"
        self._ping = pair.start(["ping", "-n", "-i", "0.02", GATEWAY], env=os.environ | {"LC_ALL": "C"})
        assert self._ping.stdout is not None
        self._ping.stdout.readline()

    def stop(self) -> dict[str, int]:
        """Ends it and says how much there was, and how much of it was lost."""
        self._ping.send_signal(signal.SIGINT)
        said, _ = self._ping.communicate(timeout=10)
        words = next(line for line in said.splitlines() if "packets transmitted" in line).split()
        echoed, errors = self._client.communicate(timeout=10)
        self._server.kill()
        self._server.communicate()
        assert self._client.returncode == 0, errors
        messages, connections = map(int, echoed.split())
        return {
            "pings": int(words[0]),
            "pings_lost": int(words[0]) - int(words[3]),
            "messages": messages,
            "connections": connections,
            "retransmitted": self._pair.snmp("RetransSegs") - self._retransmitted,
        }


_ECHO_SERVER = """
import selectors, socket, sys
listener = socket.create_server((sys.argv[1], 7), backlog=512)
chosen = selectors.DefaultSelector()
chosen.register(listener, selectors.EVENT_READ)
print("listening")
while True:
    for key, _ in chosen.select():
        if key.fileobj is listener:
            chosen.register(listener.accept()[0], selectors.EVENT_READ)
            continue
        try:
            data = key.fileobj.recv(65536)
        except ConnectionError:
            data = b""
        if data:
            key.fileobj.sendall(data)
        else:
            chosen.unregister(key.fileobj)
            key.fileobj.close()
"""

_ECHO_CLIENT = """
import select, socket, sys
there = (sys.argv[1], 7)
lasting = socket.create_connection(there, timeout=5)
print("talking")
messages = connections = 0
while not select.select([sys.stdin], [], [], 0.01)[0]:
    for each, count in ((lasting, 10), (socket.create_connection(there, timeout=5), 1)):
        for _ in range(count):
            each.sendall(b"x" * 100)
            got = b""
            while len(got) < 100:
                piece = each.recv(100)
                assert piece, "closed by the other side"
                got += piece
            messages += 1
        if each is not lasting:
            each.close()
            connections += 1
print(messages, connections)
"""


@pytest.fixture
def host_traffic() -> Iterator[Callable[[Pair], HostTraffic]]:
    made: list[HostTraffic] = []

    def start(pair: Pair) -> HostTraffic:
        made.append(HostTraffic(pair))
        return made[-1]

    return start


class Answerer(threading.Thread):
    """A far end in user space: hands each frame that arrives at vb to `answer` and sends what that returns."""

    def __init__(self, pair: Pair, answer: Callable[[bytes], Sequence[bytes]]) -> None:
        super().__init__(daemon=True)
        from irlstack.lab import netns

        with netns.enter(pair.b):
            self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
        # On a busy machine it may come late to what has arrived, but misses nothing.
        self._socket.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 64 << 20)
        self._answer = answer
        self._halt, self._halted = socket.socketpair()
        self.seen: list[bytes] = []

    def run(self) -> None:
        import select

        while True:
            ready, _, _ = select.select([self._socket, self._halted], [], [])
            if self._halted in ready:
                return
            frame, address = self._socket.recvfrom(65_536)
            if address[2] == socket.PACKET_OUTGOING or address[0] != "vb":
                continue
            self.seen.append(frame)
            for each in self._answer(frame):
                self._socket.sendto(each, ("vb", 0))

    def stop(self) -> None:
        self._halt.send(b"x")
        self.join()
        for each in (self._socket, self._halt, self._halted):
            each.close()


@pytest.fixture
def answerer() -> Iterator[Callable[[Pair, Callable[[bytes], Sequence[bytes]]], Answerer]]:
    made: list[Answerer] = []

    def start(pair: Pair, answer: Callable[[bytes], Sequence[bytes]]) -> Answerer:
        made.append(Answerer(pair, answer))
        made[-1].start()
        return made[-1]

    yield start
    for each in made:
        each.stop()
