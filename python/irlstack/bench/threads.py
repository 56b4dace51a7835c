"""Contenders in this process: the usual ways to send, and `Stack.send`. Each is a thread in the client's namespace."""

import threading
from abc import ABC, abstractmethod
from collections import deque

import irlstack as irl
from irlstack import _core
from irlstack.bench.ground import HOST, HOST_BITS, SPARE, Ground
from irlstack.errors import EngineError

WITHOUT_END = 1 << 62
_CHUNK = 1 << 12
_OUTSTANDING = 4
_FRAME_BYTES = 60
_NETWORK = 10 << HOST_BITS
_FIRST_PORT, _PORTS = 80, 128
_STEP = 0x9E3779
"""Odd, so that its multiples modulo 2^24 meet every host once before any twice; that of the baselines."""


class _Thread(ABC):
    name = layout = ""

    def __init__(self, ground: Ground) -> None:
        self._ground = ground
        self._thread = threading.Thread(target=self._inside, name="bench-sender", daemon=True)
        self._error: Exception | None = None
        self._sent: int | None = None

    def start(self) -> None:
        """Starts the thread."""
        self._thread.start()

    def running(self) -> bool:
        """Whether it still sends.

        Raises:
            IrlError: it failed.
        """
        if self._error is not None:
            raise self._error
        return self._thread.is_alive()

    def stop(self) -> int | None:
        """Ends it, and says how many frames it sent."""
        self._halt()
        return self.wait()

    def wait(self) -> int | None:
        """Until it has sent all; how many frames."""
        if self._thread.ident is not None:
            self._thread.join()
        if self._error is not None:
            raise self._error
        return self._sent

    def _inside(self) -> None:
        try:
            with self._ground.lab.enter("client"):
                self._sent = self._send()
        except Exception as error:
            self._error = error

    @abstractmethod
    def _send(self) -> int:
        """Sends until it has sent all or is halted; how many frames."""

    @abstractmethod
    def _halt(self) -> None:
        """Tells `_send` to end."""


_HOW = {
    "raw socket": "IPPROTO_RAW sendto, a frame a call",
    "pcap_sendpacket": "a frame a call, handle receives nothing",
    "AF_PACKET send": "qdisc bypass, a frame a call",
    "AF_PACKET sendmmsg": "qdisc bypass, 256 frames a call",
    "AF_PACKET TX_RING": "TPACKET_V2, qdisc bypass, 256 frames a call",
}


class Baseline(_Thread):
    """A sender of `_core.Baseline`."""

    def __init__(self, ground: Ground, name: str, frames: int = WITHOUT_END) -> None:
        super().__init__(ground)
        self.name, self.layout = name, f"{_HOW[name]}; template, two checksums patched"
        self._frames = frames
        self._baseline = _core.Baseline(name, ground.interface, ground.gateway_mac, HOST)

    def _send(self) -> int:
        return self._baseline.run(self._frames)

    def _halt(self) -> None:
        self._baseline.stop()


class StackSend(_Thread):
    """`Stack.send` of 60-byte SYNs from a NumPy array whose destinations change with every call.

    Args:
        ground: where.
        frames: how many.
        source: whose address they come from.
        rate: how many a second; 0 is the fastest.
    """

    name = "Stack.send"
    layout = (
        f"NumPy array of {_CHUNK} frames of {_FRAME_BYTES} bytes a call, fill_checksums, engine live, "
        f"{_OUTSTANDING} outstanding"
    )

    def __init__(self, ground: Ground, frames: int = WITHOUT_END, source: str = SPARE, rate: int = 0) -> None:
        super().__init__(ground)
        self._frames, self._source, self._rate = frames, source, rate
        self._over = threading.Event()

    def _halt(self) -> None:
        self._over.set()

    def _send(self) -> int:
        import numpy as np

        frames = np.empty((_CHUNK, _FRAME_BYTES), np.uint8)
        frames[:] = np.frombuffer(_template(self._ground, self._source), np.uint8)
        numbers = np.arange(_CHUNK, dtype=np.uint64)
        outstanding: deque[irl.stack.Completion] = deque()
        sent = made = 0
        with irl.Stack(
            self._ground.interface,
            source_ip=self._source,
            gateway_mac=self._ground.gateway_mac,
            engine="live",
            rate=self._rate,
            dad="off",
        ) as stack:
            while made < self._frames and not self._over.is_set():
                hosts = ((numbers + np.uint64(made)) * np.uint64(_STEP)) & np.uint64((1 << HOST_BITS) - 1)
                destinations = (hosts | np.uint64(_NETWORK)).astype(">u4")
                frames[:, 30:34] = destinations.view(np.uint8).reshape(-1, 4)
                frames[:, 37] = _FIRST_PORT + (made >> HOST_BITS) % _PORTS
                now = min(_CHUNK, self._frames - made)
                made += now
                outstanding.append(stack.send(frames[:now], fill_checksums=True))
                if len(outstanding) >= _OUTSTANDING:
                    sent += _left(outstanding.popleft())
            sent += sum(map(_left, outstanding))
        return sent


def _template(ground: Ground, source: str) -> bytes:
    """A SYN of 54 bytes, padded as Ethernet wants it, whose destination is still to be written."""
    ethernet = bytes.fromhex((ground.gateway_mac + ground.mac).replace(":", "")) + b"\x08\x00"
    address = bytes(int(part) for part in source.split("."))
    packet = bytes([0x45, 0, 0, 46, 0xD4, 0x31, 0, 0, 255, 6, 0, 0]) + address + bytes(4)
    segment = bytes([0xEE, 0x48, 0, _FIRST_PORT, *bytes(8), 0x50, 2, 0xFF, 0xFF, *bytes(4)]) + bytes(6)
    return ethernet + packet + segment


def _left(completion: "irl.stack.Completion") -> int:
    completion.wait()
    return completion.sent


def numpy_missing() -> str | None:
    """Why `Stack.send` cannot be measured."""
    try:
        import numpy  # noqa: F401
    except ImportError:
        return "NumPy is not installed: pip install 'irlstack[numpy]'"
    return None


def pcap_missing() -> str | None:
    """Why libpcap cannot be measured."""
    try:
        _core.pcap_version()
    except EngineError as error:
        return str(error)
    return None
