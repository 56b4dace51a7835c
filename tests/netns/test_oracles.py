"""The tests' own instruments, tried where nothing is measured: an oracle that cannot see a fault proves nothing."""

import socket
import time
from collections.abc import Callable
from pathlib import Path

from irlstack.lab import netns
from tests.netns.conftest import CLIENT, GATEWAY, Answerer, HostTraffic, Pair, sh
from tests.netns.frames import Syn, checksum, honest, is_syn


def test_every_host_behind_the_peer_opens_every_port(everybody: Pair) -> None:
    resets = everybody.snmp("OutRsts")
    with netns.enter(everybody.a):
        for host, port in (("10.0.0.0", 80), ("10.255.255.255", 443), ("10.7.7.7", 1)):
            with socket.create_connection((host, port), timeout=5):
                pass
    assert everybody.snmp("OutRsts") == resets
    assert everybody.attached() is None


def test_a_wrong_acknowledgement_is_answered_with_a_reset_that_the_count_shows(
    pair: Pair, build_peer: Callable[..., Path]
) -> None:
    pair.peer(build_peer("-DWRONG_ACK"))
    with netns.enter(pair.a), socket.socket() as dialled:
        dialled.settimeout(0.2)
        assert dialled.connect_ex(("10.0.0.7", 80)) != 0
    assert pair.snmp("OutRsts") >= 1


def test_host_traffic_sees_a_quiet_link_as_lossless_and_a_cut_as_loss(
    pair: Pair, host_traffic: Callable[[Pair], HostTraffic]
) -> None:
    traffic = host_traffic(pair)
    time.sleep(1)
    quiet = traffic.stop()
    assert quiet["pings"] > 20
    assert quiet["connections"] > 20
    assert (quiet["pings_lost"], quiet["retransmitted"]) == (0, 0)
    traffic, before = host_traffic(pair), pair.snmp("RetransSegs")
    # Nothing comes back, while the link itself stays up: without a carrier nothing would be sent that could be lost.
    sh("ip", "-n", pair.b, "route", "add", "blackhole", f"{CLIENT}/32")
    time.sleep(0.7)
    sh("ip", "-n", pair.b, "route", "del", "blackhole", f"{CLIENT}/32")
    # A lost SYN is sent again after a second, on a busy machine later.
    deadline = time.monotonic() + 10
    while pair.snmp("RetransSegs") == before and time.monotonic() < deadline:
        time.sleep(0.02)
    cut = traffic.stop()
    assert cut["pings_lost"] > 5
    assert cut["retransmitted"] > 0


def test_an_answer_made_here_is_one_that_the_kernel_accepts(pair: Pair, answerer: Callable[..., Answerer]) -> None:
    far = answerer(pair, lambda frame: honest(Syn(frame)) if is_syn(frame) else [])
    with netns.enter(pair.a), socket.create_connection(("10.9.8.7", 80), timeout=5) as connection:
        assert connection.getsockname()[0] == CLIENT
    assert any(is_syn(frame) for frame in far.seen)


def test_counters_count_frames_at_both_ends(pair: Pair) -> None:
    before = pair.counters("a"), pair.counters("b")
    assert pair.code("ping", "-c", "3", "-i", "0.01", GATEWAY) == 0
    pair.silent()
    after = pair.counters("a"), pair.counters("b")
    sent = after[0]["tx"] - before[0]["tx"]
    assert 3 <= sent <= 5
    assert after[1]["rx"] - before[1]["rx"] == sent


def test_the_checksum_is_that_of_rfc_1071() -> None:
    assert checksum(bytes.fromhex("0001f203f4f5f6f7")) == 0xFFFF ^ 0xDDF2
