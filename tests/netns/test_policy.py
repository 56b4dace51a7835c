"""What may not leave does not leave: counted at the far end."""

import contextlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.netns.conftest import CLIENT, GATEWAY, SPARE, Answerer, Pair

PUBLIC = "9.9.9.0/24"


@pytest.fixture
def deny(tmp_path: Path) -> Path:
    path = tmp_path / "deny.txt"
    path.write_text("203.0.113.0/24 # asked us not to\n")
    return path


@contextlib.contextmanager
def nothing_leaves(pair: Pair) -> Iterator[None]:
    before = pair.counters("b")["rx"]
    yield
    pair.silent()
    assert pair.counters("b")["rx"] == before, "a frame left"


@pytest.mark.parametrize("missing", ["contact", "deny file", "rate", "authorized"])
def test_a_public_target_needs_contact_deny_file_rate_and_authorisation(pair: Pair, deny: Path, missing: str) -> None:
    given = {
        "contact": ["--contact", "measure@example.org"],
        "deny file": ["-b", str(deny)],
        "rate": ["-r", "1000"],
        "authorized": ["--authorized", "ticket 17"],
    }
    words = [word for what, words in given.items() if what != missing for word in words]
    with nothing_leaves(pair):
        scan = pair.scan(PUBLIC, "-p", "80", *words)
    assert scan.code == 3, scan.stderr
    assert {"contact": "contact", "deny file": "blocklist", "rate": "rate", "authorized": "--authorized"}[
        missing
    ] in scan.stderr
    assert scan.stdout == ""


def test_with_all_four_a_public_target_is_scanned_and_the_ticket_kept(pair: Pair, deny: Path) -> None:
    before = pair.counters("b")
    given = ["--contact", "measure@example.org", "-b", str(deny), "-r", "1000", "--authorized", "ticket 17"]
    scan = pair.scan(PUBLIC, "-p", "80", "-G", pair.mac_b, "-c", "1", *given)
    assert scan.code == 0, scan.stderr
    assert pair.counters("b")["rx"] - before["rx"] >= 256
    assert "ticket 17" in scan.stdout


def test_no_target_at_all_means_the_whole_internet_and_is_refused(pair: Pair) -> None:
    with nothing_leaves(pair):
        assert pair.scan("-p", "80").code == 3


def test_the_default_rate_is_for_labs(pair: Pair) -> None:
    """A private target in a namespace that no lab registered needs an explicit rate."""
    with nothing_leaves(pair):
        scan = pair.scan("10.0.0.0/24", "-p", "80")
    assert scan.code == 3
    assert "rate" in scan.stderr


SEND = """
import socket, struct, sys
import irlstack as irl

def syn(destination, source="{source}"):
    words = lambda data: sum(struct.unpack(f"!{{len(data) // 2}}H", data))
    fold = lambda total: ~((total := (total & 0xffff) + (total >> 16)) + (total >> 16)) & 0xffff
    ends = socket.inet_aton(source) + socket.inet_aton(destination)
    tcp = struct.pack("!HHIIBBHHH", 61001, 80, 1, 0, 80, 2, 65535, 0, 0)
    tcp = tcp[:16] + struct.pack("!H", fold(words(ends + tcp) + 6 + len(tcp))) + tcp[18:]
    ip = struct.pack("!BBHHHBBH", 69, 0, 20 + len(tcp), 1, 0, 64, 6, 0) + ends
    return ip[:10] + struct.pack("!H", fold(words(ip))) + ip[12:] + tcp

{body}
"""


def python(pair: Pair, body: str) -> str:
    process = pair.start([sys.executable, "-c", SEND.format(source=SPARE, body=body.format(mac=pair.mac_b))])
    stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 0, stderr
    return stdout


def test_the_same_through_send(pair: Pair) -> None:
    body = """
with irl.Stack("va", source_ip=["198.18.0.10"], rate=1000, dad="off", gateway_mac="{mac}") as stack:
    try:
        stack.send([syn("9.9.9.9")], layer=3).wait()
    except irl.PolicyError as error:
        print("refused", error)
"""
    with nothing_leaves(pair):
        said = python(pair, body)
    assert said.startswith("refused")


def test_a_buffer_rewritten_after_the_call_changes_nothing_that_leaves(
    pair: Pair, answerer: Callable[..., Answerer]
) -> None:
    far = answerer(pair, lambda frame: [])
    python(
        pair,
        """
import numpy
with irl.Stack("va", source_ip=["198.18.0.10"], rate=100000, dad="off", gateway_mac="{mac}") as stack:
    for _ in range(50):
        frames = numpy.frombuffer(syn("10.1.2.3") * 1000, dtype="uint8").reshape(1000, 40).copy()
        done = stack.send(frames, layer=3)
        frames[:, 16:20] = 9  # to 9.9.9.9
        done.wait()
""",
    )
    pair.silent()
    destinations = {frame[30:34] for frame in far.seen if frame[12:14] == b"\x08\x00"}
    assert destinations == {bytes([10, 1, 2, 3])}


def test_our_own_gateway_is_a_target_like_any_other_but_our_own_address_is_not(pair: Pair) -> None:
    assert pair.scan(f"{GATEWAY}/32", "-p", "80", "-r", "10", "-c", "1").code == 0
    with nothing_leaves(pair):
        scan = pair.scan(f"{CLIENT}/32", "-p", "80", "-r", "10", "-c", "1", "-G", pair.mac_b, "--dad", "off")
    assert scan.code in (0, 3)
