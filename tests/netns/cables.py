"""Cables that no veth is: two tun or tap devices, one in each namespace of a pair, and somebody who carries packets
from one to the other. What is at the far end is the kernel."""

import contextlib
import fcntl
import os
import selectors
import struct
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Self

from irlstack.lab import netns
from tests.netns.conftest import Pair, sh

# linux/if_tun.h; Python has no names for them.
TUNSETIFF, IFF_TUN, IFF_TAP, IFF_NO_PI = 0x400454CA, 0x0001, 0x0002, 0x1000
VLAN_TAG = b"\x81\x00"
PRIORITY = 0x6000
"""Three bits of a tag that name no VLAN."""

Turned = Callable[[bytes], bytes | None]


def as_it_is(packet: bytes) -> bytes:
    return packet


class Cable:
    """`name` in both namespaces. `there` and `back` turn what one end sends into what the other gets; None drops it."""

    def __init__(
        self, pair: Pair, name: str, kind: int, there: Turned = as_it_is, back: Turned = as_it_is, mtu: int = 1420
    ) -> None:
        self._stopped, self._stop = os.pipe()
        self._ends: list[int] = []
        for space in (pair.a, pair.b):
            with netns.enter(space):
                end = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
                fcntl.ioctl(end, TUNSETIFF, struct.pack("16sH22x", name.encode(), kind | IFF_NO_PI))
            self._ends.append(end)
            sh("ip", "-n", space, "link", "set", name, "mtu", str(mtu), "up")
        near, far = self._ends
        self._ways = {near: (far, there), far: (near, back)}
        self.carried: Counter[str] = Counter()
        self._carrier = threading.Thread(target=self._carry)

    def __enter__(self) -> Self:
        self._carrier.start()
        return self

    def __exit__(self, *_: object) -> None:
        os.write(self._stop, b".")
        self._carrier.join()
        for descriptor in (*self._ends, self._stop, self._stopped):
            os.close(descriptor)

    def _carry(self) -> None:
        with selectors.DefaultSelector() as waiting:
            for descriptor in (self._stopped, *self._ends):
                waiting.register(descriptor, selectors.EVENT_READ)
            while True:
                for key, _ in waiting.select():
                    if key.fd == self._stopped:
                        return
                    self._carry_from(key.fd)

    def _carry_from(self, end: int) -> None:
        other, turned = self._ways[end]
        with contextlib.suppress(BlockingIOError):
            while True:
                packet = turned(os.read(end, 1 << 16))
                self.carried["dropped" if packet is None else "there" if end == self._ends[0] else "back"] += 1
                if packet is not None:
                    os.write(other, packet)


def tag_taken_off(vlan: int) -> Turned:
    """For frames to a port of a switch that is in this VLAN alone: those of others, and without a tag, stay outside."""
    wanted = VLAN_TAG + vlan.to_bytes(2)
    return lambda frame: frame[:12] + frame[16:] if frame[12:16] == wanted else None


def tag_put_on(vlan: int, priority: int = PRIORITY) -> Turned:
    """For frames from such a port."""
    return lambda frame: frame[:12] + VLAN_TAG + (vlan | priority).to_bytes(2) + frame[12:]


@contextlib.contextmanager
def tun(pair: Pair, mtu: int = 1420) -> Iterator[Cable]:
    """tun0 198.18.7.1 and fd00:18:7::1 in `a`; in `b` 198.18.7.2 and fd00:18:7::2, and 198.18.8.0/24 and fd00:18:8::/64
    are reached by it: spare addresses for `a`."""
    with Cable(pair, "tun0", IFF_TUN, mtu=mtu) as cable:
        for space, last in ((pair.a, 1), (pair.b, 2)):
            sh("ip", "-n", space, "addr", "add", f"198.18.7.{last}/24", "dev", "tun0")
            sh("ip", "-n", space, "-6", "addr", "add", f"fd00:18:7::{last}/64", "dev", "tun0", "nodad")
        sh("ip", "-n", pair.b, "route", "add", "198.18.8.0/24", "dev", "tun0")
        sh("ip", "-n", pair.b, "-6", "route", "add", "fd00:18:8::/64", "dev", "tun0")
        yield cable
