"""The host keeps working while we measure on its interface, and its kernel answers nothing that is ours."""

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.netns.conftest import CLIENT, GATEWAY, IRLSTACK, SPARE, HostTraffic, Pair

MODES = pytest.mark.parametrize("source", [SPARE, CLIENT], ids=["spare address", "port range"])
# Host sockets with local ports inside the default source-port range, in both roles.
INSIDE_RANGE = """
import socket, sys
listener = socket.create_server((sys.argv[1], 62000))
out = socket.create_connection((sys.argv[2], 7), timeout=5, source_address=(sys.argv[1], 63000))
print("open", flush=True)
for line in sys.stdin:
    out.sendall(b"y" * 1000)
    got = b""
    while len(got) < 1000:
        got += out.recv(1000)
    listener.settimeout(5)
    peer, _ = listener.accept()
    peer.sendall(b"in")
    peer.close()
    print("works", flush=True)
"""
DIAL = "import socket,sys; s=socket.create_connection((sys.argv[1],62000),timeout=5); assert s.recv(9)==b'in'"


@MODES
def test_tcp_and_ping_of_the_host_lose_nothing_and_its_kernel_resets_nothing(
    make_pair: Callable[..., Pair],
    build_peer: Callable[..., Path],
    host_traffic: Callable[[Pair], HostTraffic],
    source: str,
) -> None:
    pair = make_pair()
    pair.peer(build_peer("-DWRONG_ACK"))
    traffic = host_traffic(pair)
    inside = pair.start([sys.executable, "-u", "-c", INSIDE_RANGE, CLIENT, GATEWAY], stdin=subprocess.PIPE)
    assert inside.stdout is not None
    assert inside.stdin is not None
    assert inside.stdout.readline() == "open\n"
    resets = pair.snmp("OutRsts")
    with pair.scanning("10.0.0.0/14", "-p", "80", "-r", "50k", "-c", "3", source=source) as scan:
        pair.await_frames(5_000)
        for _ in range(10):
            inside.stdin.write("go\n")
            inside.stdin.flush()
            assert pair.code(sys.executable, "-c", DIAL, CLIENT, side="b") == 0
            assert inside.stdout.readline() == "works\n"
    lost = traffic.stop()
    assert scan.code == 0, scan.stderr
    assert pair.snmp("OutRsts") == resets
    assert lost["pings"] > 100
    assert lost["connections"] > 100
    assert (lost["pings_lost"], lost["retransmitted"]) == (0, 0), lost
    document = scan.document
    assert document["sent"] == 1 << 18
    assert document["found"] == (1 << 18) - (1 << 10), "hosts that acknowledge a wrong number are not found"


@MODES
def test_a_sigkill_leaves_the_host_as_it_was(
    everybody: Pair, host_traffic: Callable[[Pair], HostTraffic], source: str
) -> None:
    traffic = host_traffic(everybody)
    given = ["10.0.0.0/12", "-p", "80", "-r", "50k", "-i", "va", "-S", source]
    scan = everybody.start([*IRLSTACK, "scan", *given], stdout=subprocess.DEVNULL)
    everybody.await_frames(20_000)
    scan.send_signal(signal.SIGKILL)
    scan.communicate()
    time.sleep(1)
    lost = traffic.stop()
    assert (lost["pings_lost"], lost["retransmitted"]) == (0, 0), lost
    assert everybody.attached() is None


def test_a_source_range_over_the_kernels_own_ports_is_refused_with_the_sysctl_that_mends_it(pair: Pair) -> None:
    scan = pair.scan("10.0.0.0/24", "-p", "80", "-r", "1k", "-s", "40000-50000", source=CLIENT)
    assert scan.code == 2
    assert "net.ipv4.ip_local_port_range" in scan.stderr


def test_an_address_that_somebody_holds_is_refused_naming_him(pair: Pair) -> None:
    taken = "198.18.0.77"
    pair.add_address("b", f"{taken}/32")
    before = pair.counters("b")
    scan = pair.scan("10.0.0.0/24", "-p", "80", "-r", "1k", source=taken)
    assert scan.code == 3
    assert pair.mac_b in scan.stderr.lower()
    assert pair.counters("b")["rx"] - before["rx"] <= 3, "more left than the probes of the conflict"


def test_our_spare_address_answers_who_asks_for_it(everybody: Pair) -> None:
    with everybody.scanning("10.0.0.0/16", "-p", "80", "-r", "50k", "-c", "1") as scan:
        everybody.await_frames(5_000)
        everybody.ask_for(SPARE)
        assert everybody.mac_a in everybody.neighbour(SPARE)
    assert scan.code == 0, scan.stderr
