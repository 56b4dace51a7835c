"""A server of Linux's own TCP whose every port has a habit: slow, rude, endless, silent.

`python -m irlstack.lab.misbehaving` listens on all addresses of its namespace; a lab starts it when told `misbehaving`.
What it says is fixed, so that a client can check every byte: see [`content`][irlstack.lab.misbehaving.content].
"""

import asyncio
import contextlib
import enum
import fcntl
import functools
import hashlib
import socket
import struct
import sys
from asyncio import StreamReader as Reader
from asyncio import StreamWriter as Writer
from collections.abc import Awaitable, Callable

READY = "every habit listens"
BODY_BYTES = 10_000_000
GIGABYTE = 1 << 30
UPLOAD_BYTES = 1_000_000
SLOW_BYTES = 64
RESET_BYTES = 50_000
NOISE_BYTES = 5_000
REPLY_BYTES = 1_000
PAUSE_S = 0.002
"""Between two bytes of `BYTE_AT_A_TIME`."""

_BACKLOG = 8192
_CHUNK = 1 << 16
_SMALL_BUFFER = 4096
_LOOK_S = 0.005
_GONE_LOOK_S = 1.0
_SIOCOUTQ = 0x5411
_ESTABLISHED = 1


class Habit(enum.IntEnum):
    """What it does on which port. But for the first three it does not wait for a request."""

    BYTE_AT_A_TIME = 7001
    """After a request `SLOW_BYTES` of content, each in a segment of its own, and its FIN."""
    BODY = 7002
    """After a request `BODY_BYTES` of content and its FIN."""
    RESET = 7003
    """After a request `RESET_BYTES` of content and, once these are acknowledged, a RST."""
    HALF_CLOSE = 7004
    """`REPLY_BYTES` of content and its FIN at once; reads on until the client closes."""
    UPLOAD = 7005
    """Reads `UPLOAD_BYTES`, or until the client's FIN; answers with their SHA-256 (hexadecimal) and their number."""
    SILENCE = 7006
    """Reads, and never says anything."""
    GARBAGE = 7007
    """`NOISE_BYTES` of content, which is no protocol at all, and its FIN."""
    CLOSE = 7008
    """Its FIN at once."""
    NEVER_READS = 7009
    """Accepts, and does not read, so that its window closes."""
    GIGABYTE = 7010
    """`GIGABYTE` bytes of content and its FIN."""
    BYTE_A_SECOND = 7011
    """A byte of content every second, without end."""


@functools.cache
def body() -> bytes:
    """The first `BODY_BYTES` of [`content`][irlstack.lab.misbehaving.content], after which they begin anew."""
    return hashlib.shake_256(b"irlstack").digest(BODY_BYTES)


def content(length: int, offset: int = 0) -> bytes:
    """What it says, from an offset on: bytes that look random and are always the same.

    >>> content(4, 10_000_000) == content(4)
    True
    """
    at = offset % BODY_BYTES
    whole = body()[at : at + length]
    while len(whole) < length:
        whole += body()[: length - len(whole)]
    return whole


async def _byte_at_a_time(reader: Reader, writer: Writer) -> None:
    await reader.read(_CHUNK)
    for at in range(SLOW_BYTES):
        # Without Nagle's algorithm, as asyncio has its sockets, each goes alone.
        writer.write(content(1, at))
        await writer.drain()
        await asyncio.sleep(PAUSE_S)


async def _say(writer: Writer, length: int) -> None:
    for at in range(0, length, _CHUNK):
        writer.write(content(min(_CHUNK, length - at), at))
        await writer.drain()


async def _body(reader: Reader, writer: Writer) -> None:
    await reader.read(_CHUNK)
    await _say(writer, BODY_BYTES)


async def _reset(reader: Reader, writer: Writer) -> None:
    await reader.read(_CHUNK)
    await _say(writer, RESET_BYTES)
    inside: socket.socket = writer.get_extra_info("socket")
    waiting = bytearray(4)
    while writer.transport.get_write_buffer_size() or _unacknowledged(inside, waiting):
        await asyncio.sleep(_LOOK_S)
    inside.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


def _unacknowledged(inside: socket.socket, into: bytearray) -> int:
    fcntl.ioctl(inside.fileno(), _SIOCOUTQ, into)
    return int.from_bytes(into, sys.byteorder)


async def _half_close(reader: Reader, writer: Writer) -> None:
    await _say(writer, REPLY_BYTES)
    writer.write_eof()
    while await reader.read(_CHUNK):
        pass


async def _upload(reader: Reader, writer: Writer) -> None:
    sum_of, length = hashlib.sha256(), 0
    while length < UPLOAD_BYTES and (piece := await reader.read(_CHUNK)):
        sum_of.update(piece)
        length += len(piece)
    writer.write(f"{sum_of.hexdigest()} {length}\n".encode())


async def _silence(reader: Reader, writer: Writer) -> None:
    while await reader.read(_CHUNK):
        pass


async def _garbage(reader: Reader, writer: Writer) -> None:
    await _say(writer, NOISE_BYTES)


async def _close(reader: Reader, writer: Writer) -> None:
    pass


async def _never_reads(reader: Reader, writer: Writer) -> None:
    # Who does not read is not told that the other side went, and has to look.
    inside: socket.socket = writer.get_extra_info("socket")
    while inside.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] == _ESTABLISHED:
        await asyncio.sleep(_GONE_LOOK_S)


async def _gigabyte(reader: Reader, writer: Writer) -> None:
    await _say(writer, GIGABYTE)


async def _byte_a_second(reader: Reader, writer: Writer) -> None:
    at = 0
    while True:
        writer.write(content(1, at))
        await writer.drain()
        at += 1
        await asyncio.sleep(1)


_HABITS: dict[Habit, Callable[[Reader, Writer], Awaitable[None]]] = {
    Habit.BYTE_AT_A_TIME: _byte_at_a_time,
    Habit.BODY: _body,
    Habit.RESET: _reset,
    Habit.HALF_CLOSE: _half_close,
    Habit.UPLOAD: _upload,
    Habit.SILENCE: _silence,
    Habit.GARBAGE: _garbage,
    Habit.CLOSE: _close,
    Habit.NEVER_READS: _never_reads,
    Habit.GIGABYTE: _gigabyte,
    Habit.BYTE_A_SECOND: _byte_a_second,
}


async def _meet(habit: Habit, reader: Reader, writer: Writer) -> None:
    # Whoever leaves in the middle is no news here.
    with contextlib.suppress(OSError):
        if habit is Habit.NEVER_READS:
            writer.transport.pause_reading()  # type: ignore[attr-defined]  # a TCP transport reads
        await _HABITS[habit](reader, writer)
    with contextlib.suppress(OSError):
        writer.close()
        await writer.wait_closed()


async def _listen() -> None:
    servers = []
    for habit in Habit:
        for family, everywhere in ((socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::")):  # noqa: S104 - a lab's
            inside = socket.socket(family, socket.SOCK_STREAM)
            inside.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                inside.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            if habit is Habit.NEVER_READS:
                inside.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _SMALL_BUFFER)
            inside.bind((everywhere, habit))
            servers.append(await asyncio.start_server(functools.partial(_meet, habit), sock=inside, backlog=_BACKLOG))
    body()
    sys.stderr.write(f"{READY}\n")
    sys.stderr.flush()
    await asyncio.gather(*(server.serve_forever() for server in servers))


if __name__ == "__main__":
    asyncio.run(_listen())
