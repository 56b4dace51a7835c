"""Devices that are not plain Ethernet: tun and WireGuard, which carry packets from the IP header on, and VLANs."""

import contextlib
import csv
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pytest

import irlstack as irl
from irlstack.lab import netns
from tests.netns.cables import IFF_TAP, Cable, tag_put_on, tag_taken_off, tun
from tests.netns.conftest import Pair, Scan, sh

VLAN = 7
# Of each /24 and /120 that is scanned the far end's kernel has the first half, and listens there on one port.
OPEN, PORT = 128, 80
TARGETS = {4: "10.1.2.0/24", 6: "fd00:10::/120"}
SPARES = {4: "198.18.8.10", 6: "fd00:18:8::10"}
BODY = "from the far end"
SERVER = f"""
import socketserver
class Answer(socketserver.BaseRequestHandler):
    def handle(self):
        self.request.recv(1000)
        self.request.sendall({BODY.encode()!r})
class Server(socketserver.ThreadingTCPServer):
    address_family = 10
    request_queue_size = 1024
    daemon_threads = True
with Server(("::", {PORT}), Answer) as server:
    print("listening", flush=True)
    server.serve_forever()
"""


@contextlib.contextmanager
def served(pair: Pair) -> Iterator[None]:
    """The far end's kernel takes half of the targets for its own, and listens."""
    sh("ip", "-n", pair.b, "route", "add", "local", "10.1.2.0/25", "dev", "lo")
    sh("ip", "-n", pair.b, "-6", "route", "add", "local", "fd00:10::/121", "dev", "lo")
    server = pair.start([sys.executable, "-u", "-c", SERVER], side="b")
    assert server.stdout is not None
    assert server.stdout.readline() == "listening\n"
    try:
        yield
    finally:
        server.kill()
        server.wait()


def expected(family: int) -> set[str]:
    if family == 4:
        return {f"10.1.2.{last}" for last in range(OPEN)}
    return {f"fd00:10::{last:x}" if last else "fd00:10::" for last in range(OPEN)}


def run(pair: Pair, command: str, family: int, output: Path, *arguments: str) -> Scan:
    given = [TARGETS[family], "-p", str(PORT), "-r", "2k", "-c", "0.7", "--reprobe", "0", "-q", "--json"]
    return pair.irlstack(command, *given, "-o", str(output), *arguments)


def found(output: Path) -> set[str]:
    with output.open() as lines:
        return {row["saddr"] for row in csv.DictReader(lines)}


def responses(output: Path) -> dict[str, str]:
    """Of the exchanges that went well, by address."""
    with output.open() as lines:
        return {row["saddr"]: row["response"] for row in csv.DictReader(lines) if row["status"] == "success"}


@pytest.fixture
def tunnel(make_pair: Callable[..., Pair]) -> Iterator[Pair]:
    """A pair with tun0 between its namespaces beside the veth, and servers behind it."""
    pair = make_pair(ipv6=True)
    with tun(pair), served(pair):
        yield pair


@pytest.mark.parametrize("family", [4, 6])
def test_over_tun_a_scan_finds_who_is_there_and_an_exchange_brings_every_response(
    tunnel: Pair, tmp_path: Path, family: int
) -> None:
    output = tmp_path / "rows.csv"
    scan = run(tunnel, "scan", family, output, "-i", "tun0", "-S", SPARES[family], "-X")
    assert scan.code == 0, scan.stderr
    document = scan.document
    assert found(output) == expected(family)
    assert (document["sent"], document["imbalances"]) == (256, [])
    assert (document["engine"], document["xdp_mode"]) == ("packet", "none")
    assert (document["iplayer"], document["kernel_rst"]) == (True, False)
    assert (document["source_mac"], document["gateway_mac"]) == (None, None)
    assert "because it reads Ethernet frames" in document["engine_why"]
    assert document["first_frame"].startswith("45" if family == 4 else "60")
    assert document["network"]["conflict_probes"] == 0
    assert document["stats"]["neighbour_sent"] == 0
    arguments = ["-i", "tun0", "-S", SPARES[family], "--request", "hello", "-f", "saddr,status,response"]
    done = run(tunnel, "exchange", family, output, *arguments)
    assert done.code == 0, done.stderr
    assert responses(output) == dict.fromkeys(expected(family), BODY.encode().hex())


def test_on_the_hosts_own_address_of_a_tun_a_scan_tells_of_the_kernels_resets(tunnel: Pair, tmp_path: Path) -> None:
    output = tmp_path / "rows.csv"
    scan = run(tunnel, "scan", 4, output, "-i", "tun0", "-S", "198.18.7.1")
    assert scan.code == 0, scan.stderr
    assert found(output) == expected(4)
    assert scan.document["kernel_rst"] is True
    exchange = run(tunnel, "exchange", 4, output, "-i", "tun0", "-S", "198.18.7.1")
    assert exchange.code == 4
    assert "spare address" in exchange.stderr


def test_what_a_device_cannot_be_told_is_refused_in_words(tunnel: Pair, tmp_path: Path) -> None:
    for code, arguments, words in (
        (2, ["-i", "tun0", "-G", "02:00:00:00:00:09"], "-gateway-mac is of Ethernet, which tun0 does not speak"),
        (2, ["-i", "tun0", "--vlan", "7"], "-vlan is of Ethernet"),
        (4, ["-i", "tun0", "--engine", "live"], "engine live sends Ethernet frames"),
        (2, ["-i", "va", "-X"], "interface va speaks Ethernet"),
        (2, ["-i", "va", "--vlan", "4095"], "4095 is no VLAN"),
    ):
        scan = run(tunnel, "scan", 4, tmp_path / "rows.csv", "-S", "198.18.0.10", *arguments)
        assert scan.code == code, scan.stderr
        assert words in " ".join(scan.stderr.split())


def test_packets_are_sent_over_tun_and_whole_frames_are_refused(tunnel: Pair) -> None:
    packet = bytearray(28)
    packet[0], packet[3], packet[8], packet[9], packet[20] = 0x45, 28, 64, 1, 8
    packet[12:16], packet[16:20] = bytes([198, 18, 8, 10]), bytes([198, 18, 7, 2])
    with netns.enter(tunnel.a), irl.Stack("tun0", source_ip=SPARES[4], rate=100) as stack:
        assert stack.info["iplayer"] is True
        with pytest.raises(irl.ConfigError, match="layer = 3"):
            stack.send([bytes(packet)])
        foreign = bytes(packet[:15]) + b"\x63" + bytes(packet[16:])
        with pytest.raises(irl.PolicyError, match="source"):
            stack.send([foreign], layer=3, fill_checksums=True).wait(5)
        received = stack.receive(timeout=5)
        assert stack.send([bytes(packet)], layer=3, fill_checksums=True).wait(5)
        [frame] = pa.record_batch(next(received))["frame"].to_pylist()
    assert (frame[0], frame[20], len(frame)) == (0x45, 0, 28), "an echo reply, from its IP header on"


def test_doctor_knows_a_device_without_ethernet(tunnel: Pair) -> None:
    said = json.loads(tunnel.irlstack("doctor", "--json").stdout)
    [device] = [each for each in said["interfaces"] if each["name"] == "tun0"]
    assert (device["ethernet"], device["mac"], device["mtu"]) == (False, None, 1420)
    [check] = [each for each in said["checks"] if each["what"] == "tun0: Ethernet"]
    assert check["fine"] is True


def test_a_scan_over_wireguard_finds_who_is_there(make_pair: Callable[..., Pair], tmp_path: Path) -> None:
    pair, output = make_pair(ipv6=True), tmp_path / "rows.csv"
    if not wireguard(pair):
        pytest.skip("needs a kernel with WireGuard, and wg")
    with served(pair):
        for family in (4, 6):
            scan = run(pair, "scan", family, output, "-i", "wg0", "-S", SPARES[family], "-X")
            assert scan.code == 0, scan.stderr
            assert found(output) == expected(family)
            assert scan.document["iplayer"] is True


def wireguard(pair: Pair) -> bool:
    """wg0 between the namespaces, over their veth; False where it cannot be."""
    keys = {}
    for space in (pair.a, pair.b):
        made = subprocess.run(["ip", "-n", space, "link", "add", "wg0", "type", "wireguard"], capture_output=True)
        if made.returncode:
            return False
        try:
            keys[space] = sh("wg", "genkey").strip()
        except FileNotFoundError:
            return False
    for space, other, last, end in ((pair.a, pair.b, 1, "198.18.0.2"), (pair.b, pair.a, 2, "198.18.0.1")):
        public = sh("wg", "pubkey", text=keys[other]).strip()
        secret = ["sh", "-c", "wg set wg0 listen-port 51820 private-key /dev/stdin peer $0 endpoint $1 allowed-ips $2"]
        where = [public, f"{end}:51820", "0.0.0.0/0,::/0"]
        sh("ip", "netns", "exec", space, *secret, *where, text=keys[space])
        sh("ip", "-n", space, "addr", "add", f"198.18.7.{last}/24", "dev", "wg0")
        sh("ip", "-n", space, "-6", "addr", "add", f"fd00:18:7::{last}/64", "dev", "wg0")
        sh("ip", "-n", space, "link", "set", "wg0", "up")
    sh("ip", "-n", pair.b, "route", "add", "198.18.8.0/24", "dev", "wg0")
    sh("ip", "-n", pair.b, "-6", "route", "add", "fd00:18:8::/64", "dev", "wg0")
    return True


@contextlib.contextmanager
def tagged(pair: Pair, there: int = VLAN, back: int = VLAN) -> Iterator[Cable]:
    """tap0 in `a` is a trunk, whose VLAN 7 leads to tap0 in `b`: 198.18.7.1 and .2, fd00:18:7::1 and ::2."""
    with Cable(pair, "tap0", IFF_TAP, tag_taken_off(there), tag_put_on(back), mtu=1500) as cable:
        for space, last in ((pair.a, 1), (pair.b, 2)):
            sh("ip", "-n", space, "addr", "add", f"198.18.7.{last}/24", "dev", "tap0")
            sh("ip", "-n", space, "-6", "addr", "add", f"fd00:18:7::{last}/64", "dev", "tap0", "nodad")
        # The kernel asks from its link-local address on behalf of those that are on no interface.
        sh("ip", "-n", pair.b, "addr", "add", "fe80::2/64", "dev", "tap0", "nodad")
        sh("ip", "-n", pair.a, "route", "add", "10.1.2.0/24", "via", "198.18.7.2")
        sh("ip", "-n", pair.a, "-6", "route", "add", "fd00:10::/120", "via", "fd00:18:7::2")
        yield cable


INSIDE = {4: "198.18.7.10", 6: "fd00:18:7::10"}
"""Spare addresses of the VLAN's network, which its router asks for by ARP and neighbour discovery."""


@pytest.mark.parametrize(
    ("family", "engine", "back_tag"), [(4, "live", VLAN), (6, "live", VLAN), (6, "packet", VLAN), (4, "packet", 0)]
)
def test_in_a_vlan_the_router_is_found_by_a_scan_everybody_and_by_an_exchange_every_response(
    make_pair: Callable[..., Pair], tmp_path: Path, family: int, engine: str, back_tag: int
) -> None:
    # A tag of 0 is a priority alone.
    pair, output = make_pair(ipv6=True), tmp_path / "rows.csv"
    with tagged(pair, back=back_tag), served(pair):
        where = ["-i", "tap0", "-S", INSIDE[family], "--vlan", str(VLAN), "--engine", engine]
        scan = run(pair, "scan", family, output, *where)
        assert scan.code == 0, scan.stderr
        document = scan.document
        assert found(output) == expected(family)
        assert (document["engine"], document["vlan"], document["imbalances"]) == (engine, VLAN, [])
        assert document["first_frame"][24:32] == "81000007"
        assert document["network"]["neighbours_resolved"] == 1
        done = run(pair, "exchange", family, output, *where, "--request", "hello", "-f", "saddr,status,response")
        assert done.code == 0, done.stderr
        assert responses(output) == dict.fromkeys(expected(family), BODY.encode().hex())
        assert done.document["vlan"] == VLAN


@pytest.mark.parametrize("family", [4, 6])
def test_in_a_vlan_its_router_is_told_who_has_the_spare_address(
    make_pair: Callable[..., Pair], tmp_path: Path, family: int
) -> None:
    pair, output = make_pair(ipv6=True), tmp_path / "rows.csv"
    with tagged(pair), served(pair):
        # We ask for nobody, so that the router has to.
        gateway = pair.mac(pair.b, "tap0")
        scan = run(pair, "scan", family, output, "-i", "tap0", "-S", INSIDE[family], "--vlan", str(VLAN), "-G", gateway)
        assert found(output) == expected(family)
        assert scan.document["network"]["neighbours_answered"] >= 1


def test_without_its_tag_nobody_in_the_vlan_is_reached(make_pair: Callable[..., Pair], tmp_path: Path) -> None:
    pair, output = make_pair(ipv6=True), tmp_path / "rows.csv"
    with tagged(pair), served(pair):
        scan = run(pair, "scan", 4, output, "-i", "tap0", "-S", INSIDE[4], "--vlan", str(VLAN + 1))
        assert scan.document["found"] == 0


@pytest.mark.parametrize(("answers_in", "code"), [(VLAN, 3), (VLAN + 1, 0)])
def test_an_address_is_taken_only_when_its_owner_answers_in_the_same_vlan(
    make_pair: Callable[..., Pair], tmp_path: Path, answers_in: int, code: int
) -> None:
    pair = make_pair(ipv6=True)
    with tagged(pair, back=answers_in):
        sh("ip", "-n", pair.b, "addr", "add", f"{INSIDE[4]}/32", "dev", "tap0")
        where = ["-i", "tap0", "-S", INSIDE[4], "--vlan", str(VLAN)]
        scan = run(pair, "scan", 4, tmp_path / "rows.csv", *where)
        assert scan.code == code, scan.stderr
        assert (INSIDE[4] in scan.stderr) == (code == 3)
