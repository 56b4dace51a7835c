"""The lab's server that misbehaves, met by the kernel's own sockets: what each habit does, also over a bad link."""

import hashlib
import selectors
import socket
import struct
import time
from collections.abc import Iterator

import pytest

from irlstack.lab import Impairment, Lab
from irlstack.lab.misbehaving import (
    BODY_BYTES,
    NOISE_BYTES,
    REPLY_BYTES,
    RESET_BYTES,
    SLOW_BYTES,
    UPLOAD_BYTES,
    Habit,
    content,
)

HOST, HOST6 = "198.19.4.5", "fd00:19::4:5"


@pytest.fixture(scope="module")
def rude(need_root: None) -> Iterator[Lab]:
    with Lab(misbehaving=True, sshd=True) as up:
        yield up


def connected(lab: Lab, habit: int, host: str = HOST) -> socket.socket:
    with lab.enter():
        return socket.create_connection((host, int(habit)), timeout=20)


def until_close(each: socket.socket) -> bytes:
    said = bytearray()
    while piece := each.recv(1 << 20):
        said += piece
    return bytes(said)


@pytest.mark.parametrize(
    ("habit", "length"),
    [
        (Habit.BYTE_AT_A_TIME, SLOW_BYTES),
        (Habit.BODY, BODY_BYTES),
        (Habit.HALF_CLOSE, REPLY_BYTES),
        (Habit.GARBAGE, NOISE_BYTES),
        (Habit.CLOSE, 0),
    ],
)
@pytest.mark.parametrize("host", [HOST, HOST6])
def test_what_it_says_is_known_and_ends_with_its_fin(rude: Lab, host: str, habit: Habit, length: int) -> None:
    with connected(rude, habit, host) as each:
        if habit in (Habit.BYTE_AT_A_TIME, Habit.BODY):
            each.sendall(b"GET / HTTP/1.0\r\n\r\n")
        assert until_close(each) == content(length)


def test_a_byte_at_a_time_comes_in_as_many_segments(rude: Lab) -> None:
    with connected(rude, Habit.BYTE_AT_A_TIME) as each:
        each.sendall(b"?")
        pieces = []
        while piece := each.recv(SLOW_BYTES):
            pieces.append(piece)
        # On a busy machine two may wait together.
        assert len(pieces) > SLOW_BYTES / 2
        assert b"".join(pieces) == content(SLOW_BYTES)


def test_a_reset_comes_in_mid_body_after_what_was_said_has_arrived(rude: Lab) -> None:
    with connected(rude, Habit.RESET) as each:
        each.sendall(b"?")
        said = bytearray()
        while len(said) < RESET_BYTES:
            said += each.recv(1 << 20)
        assert bytes(said) == content(RESET_BYTES)
        with pytest.raises(ConnectionResetError):
            each.recv(1)


def test_after_a_half_close_it_reads_on(rude: Lab) -> None:
    with connected(rude, Habit.HALF_CLOSE) as each:
        assert until_close(each) == content(REPLY_BYTES)
        each.sendall(bytes(2_000_000))
        each.shutdown(socket.SHUT_WR)


@pytest.mark.parametrize("length", [0, 1, 1000, UPLOAD_BYTES])
def test_an_upload_is_swallowed_and_its_digest_told(rude: Lab, length: int) -> None:
    sent = content(length, 77)
    with connected(rude, Habit.UPLOAD) as each:
        each.sendall(sent)
        if length < UPLOAD_BYTES:
            each.shutdown(socket.SHUT_WR)
        assert until_close(each).decode() == f"{hashlib.sha256(sent).hexdigest()} {length}\n"


def test_silence_reads_and_says_nothing(rude: Lab) -> None:
    with connected(rude, Habit.SILENCE) as each:
        each.sendall(bytes(5_000_000))
        each.settimeout(0.2)
        with pytest.raises(TimeoutError):
            each.recv(1)


def test_who_never_reads_closes_its_window_and_notices_who_goes(rude: Lab) -> None:
    each = connected(rude, Habit.NEVER_READS)
    with each:
        each.settimeout(1)
        with pytest.raises(TimeoutError):
            each.sendall(bytes(50_000_000))
        assert connections(rude, Habit.NEVER_READS) == 1
        # What is unsent would keep a FIN back for ever.
        each.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    deadline = time.monotonic() + 15
    while connections(rude, Habit.NEVER_READS):
        assert time.monotonic() < deadline, "it keeps the connection of a client that is gone"
        time.sleep(0.1)


def connections(lab: Lab, habit: Habit) -> int:
    """Connections that the server has open: established, and half closed by it or by the client."""
    said = lab.run(["cat", "/proc/net/tcp"], role="servers", check=True).stdout.splitlines()[1:]
    ends = [(line.split()[1].rpartition(":")[2], line.split()[3]) for line in said]
    return sum(port == f"{int(habit):04X}" and state in ("01", "04", "05", "08") for port, state in ends)


def test_a_gigabyte_goes_on_and_a_byte_a_second_too(rude: Lab) -> None:
    with connected(rude, Habit.GIGABYTE) as each:
        said = bytearray()
        while len(said) < 2 * BODY_BYTES + 100:
            said += each.recv(1 << 20)
        assert bytes(said[:BODY_BYTES]) == content(BODY_BYTES)
        assert bytes(said[BODY_BYTES : 2 * BODY_BYTES]) == content(BODY_BYTES)
    with connected(rude, Habit.BYTE_A_SECOND) as each:
        assert [each.recv(10), each.recv(10)] == [content(1), content(1, 1)]


@pytest.mark.timeout(60)
def test_thousands_are_served_at_once(rude: Lab) -> None:
    count = 5_000
    port = int(Habit.HALF_CLOSE)
    with rude.enter():
        every = [socket.create_connection((f"198.19.{n >> 8}.{n & 255}", port), 20) for n in range(count)]
    said: dict[socket.socket, bytes] = dict.fromkeys(every, b"")
    chosen = selectors.DefaultSelector()
    for each in every:
        chosen.register(each, selectors.EVENT_READ)
    open_yet = count
    while open_yet:
        ready = chosen.select(20)
        assert ready, f"{open_yet} of {count} wait"
        for key, _ in ready:
            assert isinstance(key.fileobj, socket.socket)
            if piece := key.fileobj.recv(2 * REPLY_BYTES):
                said[key.fileobj] += piece
            else:
                chosen.unregister(key.fileobj)
                open_yet -= 1
    assert set(said.values()) == {content(REPLY_BYTES)}
    assert connections(rude, Habit.HALF_CLOSE) == count, "all at once, each half closed"
    chosen.close()
    for each in every:
        each.close()


@pytest.mark.parametrize("host", ["198.19.0.9", "fd00:19::9"])
def test_openssh_says_its_banner_on_every_address_and_lets_nobody_in(rude: Lab, host: str) -> None:
    with connected(rude, 22, host) as each:
        each.sendall(b"SSH-2.0-IRLstack\r\n")
        banner = b""
        while b"\n" not in banner:
            banner += each.recv(255)
        assert banner.startswith(b"SSH-2.0-OpenSSH_")


@pytest.mark.timeout(120)
@pytest.mark.parametrize("loss", [0.01, 0.05])
def test_the_link_to_real_servers_is_impaired_both_ways_and_linux_copes(loss: float) -> None:
    sent = content(UPLOAD_BYTES, 5)
    with Lab(misbehaving=True, sshd=True, impairment=Impairment(loss=loss, seed=7)) as lab:
        with connected(lab, Habit.BODY) as each:
            each.sendall(b"?")
            assert until_close(each) == content(BODY_BYTES)
        with connected(lab, Habit.UPLOAD) as each:
            each.sendall(sent)
            assert until_close(each).decode() == f"{hashlib.sha256(sent).hexdigest()} {UPLOAD_BYTES}\n"
        with connected(lab, 22) as each:
            assert each.recv(20).startswith(b"SSH-2.0-OpenSSH_")
        there, back = lab.counters()["ra"]
    for way, least in ((there, 700), (back, BODY_BYTES // 1448)):
        assert way["entered"] > least, "no segment arrived that was too long to go on"
        assert way["lost"] == pytest.approx(loss * way["entered"], rel=0.5), way
