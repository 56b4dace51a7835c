"""The contenders of `irlstack bench tx`."""

import contextlib
import json
import math
import os
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import irlstack as irl
from irlstack import _core
from irlstack.bench.ground import HOST, OTHER_SPARE, SPARE, Ground
from irlstack.bench.peers import Peer
from irlstack.errors import EngineError, IrlError

_END_WITHIN_S = 20.0
_ALL = 1 << 62
_CHUNK = 1 << 12
_OUTSTANDING = 4
_HOST_BITS = 24
_STEP = 0x9E3779


class Process:
    """A command in the client's namespace that sends until SIGINT."""

    def __init__(self, ground: Ground, name: str, layout: str, command: Sequence[str | Path]) -> None:
        self.name, self.layout = name, layout
        self._ground, self._command = ground, command
        self._process: subprocess.Popen[str] | None = None
        self.said = ""
        self.ends_by_itself = False

    def start(self) -> None:
        """Starts the command."""
        env = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, (_package(), os.environ.get("PYTHONPATH"))))}
        self._process = self._ground.lab.start(
            self._command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=(self._ground.folder / "said").open("w"),
            text=True,
            cwd=self._ground.folder,
            env=env,
        )

    def running(self) -> bool:
        """Whether the command has not ended."""
        if self._process is None:
            return False
        code = self._process.poll()
        if code not in (None, 0, 5, 130):
            raise EngineError(f"{self.name} ended with {code}: {self._words()}")
        return code is None

    def wait(self, timeout: float) -> None:
        """Until it has ended by itself.

        Raises:
            EngineError: it did not, or failed.
        """
        assert self._process is not None  # noqa: S101 - it was started
        try:
            self.said, _ = self._process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            self.stop()
            raise EngineError(f"{self.name} did not end within {timeout:.0f} s.") from None
        self.running()

    def stop(self) -> int | None:
        """Interrupts the command, and kills it if that does not help."""
        process = self._process
        if process is None:
            return None
        try:
            if process.poll() is None and not self.ends_by_itself:
                process.send_signal(signal.SIGINT)
            with contextlib.suppress(ValueError):  # read already
                self.said, _ = process.communicate(timeout=_END_WITHIN_S)
        finally:
            if process.poll() is None:
                process.kill()
                process.communicate()
            self._process = None
        return self.sent()

    def sent(self) -> int | None:
        """Frames it says it sent."""
        return None

    def _words(self) -> str:
        return " ".join((self._ground.folder / "said").read_text(errors="replace").split()[-60:])


class Scan(Process):
    """Our scan, from the command line."""

    def __init__(self, ground: Ground, name: str, layout: str, options: Sequence[str | Path]) -> None:
        fixed: list[str | Path] = ["-S", SPARE, "-b", ground.deny, "--probe-args", "layout=smallest", "-q", "--json"]
        super().__init__(ground, name, layout, [sys.executable, "-m", "irlstack", "scan", *options, *fixed])

    @property
    def document(self) -> dict[str, Any]:
        """Its metadata, once it has ended."""
        lines = self.said.strip().splitlines()
        if not lines:
            raise EngineError(f"{self.name} ended without a word on stdout: {self._words()}")
        document: dict[str, Any] = json.loads(lines[-1])
        return document

    def sent(self) -> int | None:
        """Probes that left."""
        return int(self.document["sent"]) - int(self.document["stats"]["device_lost"])


def scan(ground: Ground, engine: str, ports: str) -> Scan:
    """Our scan into the sink, as fast as it goes."""
    options: list[str | Path] = ["10.0.0.0/8", "-p", ports, "-r", "0", "--engine", engine, "-c", "0", "--no-rst"]
    said = "permutation, cookie, deny list, policy; layout=smallest, -r 0"
    return Scan(ground, f"scan ({engine})", said, [*options, "-o", ground.folder / "rows.parquet"])


def offered(ground: Ground, rate: int, batch: int, seconds: float) -> Scan:
    """Our scan at a fixed rate and batch, for so long, and a second of silence after it."""
    options: list[str | Path] = ["10.0.0.0/8", "-p", "80-83", "-r", str(rate), "--engine", "live", "--no-rst"]
    options += ["--batch", str(batch), "-t", f"{math.ceil(seconds)}", "-c", "1", "-o", ground.folder / "rows.parquet"]
    made = Scan(ground, f"batch {batch}", f"--batch {batch}", options)
    made.ends_by_itself = True
    return made


class _Thread:
    """A sender in this process: a thread in the client's namespace."""

    name = layout = ""

    def __init__(self, ground: Ground) -> None:
        self._ground = ground
        self._thread = threading.Thread(target=self._inside, name="bench-sender", daemon=True)
        self._error: IrlError | None = None
        self._sent: int | None = None

    def start(self) -> None:
        """Starts the thread."""
        self._thread.start()

    def running(self) -> bool:
        """Whether it still sends."""
        if self._error is not None:
            raise self._error
        return self._thread.is_alive()

    def stop(self) -> int | None:
        """Ends it, and says how many frames it sent."""
        self._halt()
        self._thread.join()
        if self._error is not None:
            raise self._error
        return self._sent

    def _inside(self) -> None:
        try:
            with self._ground.lab.enter("client"):
                self._sent = self._send()
        except IrlError as error:
            self._error = error

    def _send(self) -> int:
        raise NotImplementedError

    def _halt(self) -> None:
        raise NotImplementedError


_HOW = {
    "raw socket": "IPPROTO_RAW sendto, a frame a call",
    "pcap_sendpacket": "a frame a call, handle receives nothing",
    "AF_PACKET send": "qdisc bypass, a frame a call",
    "AF_PACKET sendmmsg": "qdisc bypass, 256 frames a call",
    "AF_PACKET TX_RING": "TPACKET_V2, qdisc bypass, 256 frames a call",
}


class Baseline(_Thread):
    """A sender of `_core.Baseline`."""

    def __init__(self, ground: Ground, name: str, frames: int = _ALL) -> None:
        super().__init__(ground)
        self.name, self.layout = name, f"{_HOW[name]}; template, two checksums patched"
        self._frames = frames
        self._baseline = _core.Baseline(name, ground.interface, ground.gateway_mac, HOST)

    def _send(self) -> int:
        return self._baseline.run(self._frames)

    def _halt(self) -> None:
        self._baseline.stop()


class StackSend(_Thread):
    """`Stack.send` of 60-byte frames from a NumPy array whose destinations change with every call."""

    name = "Stack.send"
    layout = (
        f"NumPy array of {_CHUNK} frames of 60 bytes a call, fill_checksums, engine live, {_OUTSTANDING} outstanding"
    )

    def __init__(self, ground: Ground, frames: int = _ALL, source: str = SPARE, rate: int = 0, mac: str = "") -> None:
        super().__init__(ground)
        self._frames, self._source, self._rate = frames, source, rate
        self._mac = mac or ground.lab.interface("client").mac
        self._over = threading.Event()

    def _halt(self) -> None:
        self._over.set()

    def _send(self) -> int:
        import numpy as np

        ethernet = bytes.fromhex((self._ground.gateway_mac + self._mac).replace(":", "")) + b"\x08\x00"
        address = bytes(int(part) for part in self._source.split("."))
        packet = bytes([0x45, 0, 0, 46, 0xD4, 0x31, 0, 0, 255, 6, 0, 0]) + address + bytes(4)
        segment = bytes([0xEE, 0x48, 0, 80, *bytes(8), 0x50, 2, 0xFF, 0xFF, *bytes(4)]) + bytes(6)
        frames = np.empty((_CHUNK, 60), np.uint8)
        frames[:] = np.frombuffer(ethernet + packet + segment, np.uint8)
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
                hosts = ((numbers + np.uint64(made)) * np.uint64(_STEP)) & np.uint64((1 << _HOST_BITS) - 1)
                there = (hosts | np.uint64(10 << _HOST_BITS)).astype(">u4")
                frames[:, 30:34] = there.view(np.uint8).reshape(-1, 4)
                frames[:, 37] = 80 + (made >> _HOST_BITS)
                now = min(_CHUNK, self._frames - made)
                made += now
                outstanding.append(stack.send(frames[:now], fill_checksums=True))
                if len(outstanding) >= _OUTSTANDING:
                    sent += _left(outstanding.popleft())
            sent += sum(map(_left, outstanding))
        return sent


def _left(completion: "irl.stack.Completion") -> int:
    completion.wait()
    return completion.sent


class ZMap(Process):
    """ZMap with one sender thread."""

    def __init__(self, ground: Ground, peer: Peer, ports: str, options: Sequence[str | Path]) -> None:
        fixed: list[str | Path] = ["-i", ground.interface, "-G", ground.gateway_mac, "-b", ground.deny, "-T", "1"]
        fixed += ["-p", ports, "--batch=256", "--probe-args=smallest-probes", "--disable-syslog", "-q", "-v", "1"]
        layout = "SYN with MSS (--probe-args=smallest-probes), --batch 256, one sender thread, deny list"
        super().__init__(ground, "ZMap", layout, [peer.path, *fixed, *options])


class Masscan(Process):
    """masscan as fast as it goes, from an address of its own, so that its kernel stays out of it."""

    def __init__(self, ground: Ground, peer: Peer, ports: str, options: Sequence[str | Path]) -> None:
        fixed: list[str | Path] = ["--interface", ground.interface, "--router-mac", ground.gateway_mac, "-p", ports]
        fixed += ["--source-ip", OTHER_SPARE, "--source-port", "61000", "--excludefile", ground.deny]
        layout = "SYN with MSS, --rate 100000000, one sender thread, deny list"
        super().__init__(ground, "masscan", layout, [peer.path, *fixed, "--rate", "100000000", *options])


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


def _package() -> str:
    """Where this very package lies, also when it was imported from an unusual place."""
    return str(Path(__file__).parents[2])
