"""Clients of the usual kinds, each a process: `python -m irlstack.bench.clients JOB` asks host after host for a while.

The job is JSON (see `Job`); on its end it prints `{"complete": N, "failed": N}`. Hosts are those of 10.0.0.0/8 in the
scattered order of the baselines.
"""

import asyncio
import contextlib
import dataclasses
import itertools
import json
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterator
from ipaddress import IPv4Address

from irlstack import _core
from irlstack.bench.ground import HOST_BITS

CONNECTIONS = 256
"""What asyncio has open at once."""
PORT = 80
_STEP = 0x9E3779
_NETWORK = 10 << HOST_BITS
_WITHOUT_END = 1 << 62
_RESET = struct.pack("ii", 1, 0)
"""SO_LINGER without any time."""


@dataclasses.dataclass(frozen=True)
class Job:
    """What a client is to do.

    Attributes:
        client: "sockets" or "asyncio".
        request: what is sent.
        reply: how many bytes answer it.
        close: "rst" or "fin".
        seconds: how long it begins new connections.
        first: the number of the first host.
        step: how many processes share the hosts.
    """

    client: str
    request: str
    reply: int
    close: str
    seconds: float
    first: int = 0
    step: int = 1


def host(number: int) -> str:
    """The host that is met as the so many-th.

    >>> host(0), host(1), host((1 << 24) + 1)
    ('10.0.0.0', '10.158.55.121', '10.158.55.121')
    """
    return str(IPv4Address(_NETWORK | number * _STEP & ((1 << HOST_BITS) - 1)))


def _sockets(job: Job) -> tuple[int, int]:
    """The kernel's sockets, blocking, one connection after the other; no line of Python in the loop."""
    inside = _core.KernelSockets(job.request.encode(), job.reply, job.close, first=job.first, step=job.step)
    over = threading.Timer(job.seconds, inside.stop)
    over.start()
    try:
        return inside.run(_WITHOUT_END)
    finally:
        over.cancel()


class _Asyncio:
    """asyncio's streams, `CONNECTIONS` at once."""

    def __init__(self, job: Job) -> None:
        self._job, self._end = job, time.monotonic() + job.seconds
        self.complete = self.failed = 0

    async def run(self) -> None:
        hosts = map(host, itertools.count(self._job.first, self._job.step))
        await asyncio.gather(*(self._worker(hosts) for _ in range(CONNECTIONS)))

    async def _worker(self, hosts: Iterator[str]) -> None:
        while time.monotonic() < self._end:
            try:
                await self._exchange(next(hosts))
                self.complete += 1
            except (OSError, asyncio.IncompleteReadError):
                self.failed += 1

    async def _exchange(self, to: str) -> None:
        reader, writer = await asyncio.open_connection(to, PORT)
        try:
            writer.write(self._job.request.encode())
            await reader.readexactly(self._job.reply)
        finally:
            if self._job.close == "rst":
                inside: socket.socket = writer.get_extra_info("socket")
                inside.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                writer.transport.abort()
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()


def _asyncio(job: Job) -> tuple[int, int]:
    client = _Asyncio(job)
    asyncio.run(client.run())
    return client.complete, client.failed


_CLIENTS: dict[str, Callable[[Job], tuple[int, int]]] = {"sockets": _sockets, "asyncio": _asyncio}


def main() -> None:
    """Does the job that the command line names."""
    job = Job(**json.loads(sys.argv[1]))
    complete, failed = _CLIENTS[job.client](job)
    sys.stdout.write(json.dumps({"complete": complete, "failed": failed}) + "\n")


if __name__ == "__main__":
    main()
