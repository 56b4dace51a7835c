"""Contenders that are commands: our scan, ZMap, masscan, tcpdump."""

import contextlib
import json
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from irlstack.bench.ground import HOST, MASSCAN, SPARE, TARGETS, Ground
from irlstack.bench.peers import Peer
from irlstack.errors import EngineError

Options = Sequence[str | Path]

_END_WITHIN_S = 20.0
_LOOK_S = 0.02
_DONE = (0, 5, 130)
"""Exit codes of a command that did its work: done, with something lost, interrupted."""
_SNAPLEN, _BUFFER_KIB = 64, 32_768


class Process:
    """A command in the client's namespace that works until SIGINT, or ends by itself.

    Args:
        ground: where.
        name: what tables call it.
        layout: what it sends, and how it was told to.
        command: program and arguments.
    """

    def __init__(self, ground: Ground, name: str, layout: str, command: Options) -> None:
        self.name, self.layout = name, layout
        self._ground, self._command = ground, command
        self._process: subprocess.Popen[str] | None = None
        self.said = ""
        self.ends_by_itself = False

    def start(self) -> None:
        """Starts the command."""
        env = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, (_package(), os.environ.get("PYTHONPATH"))))}
        with self._errors.open("w") as errors:
            self._process = self._ground.lab.start(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                cwd=self._ground.folder,
                env=env,
            )

    def running(self) -> bool:
        """Whether the command has not ended.

        Raises:
            EngineError: it failed.
        """
        if self._process is None:
            return False
        code = self._process.poll()
        if code not in (None, *_DONE):
            raise EngineError(f"{self.name} ended with {code}: {self._last_words()}")
        return code is None

    def wait(self, timeout: float) -> None:
        """Until it has ended by itself; whatever happens meanwhile, afterwards it is gone.

        Raises:
            EngineError: it did not, or failed.
        """
        assert self._process is not None  # noqa: S101 - it was started
        try:
            self.said, _ = self._process.communicate(timeout=timeout)
            self.running()
        except subprocess.TimeoutExpired:
            raise EngineError(f"{self.name} did not end within {timeout:.0f} s.") from None
        finally:
            self._end()

    def stop(self) -> int | None:
        """Interrupts the command, and kills it if that does not help.

        Returns:
            How many frames it says it sent, if it says so.
        """
        if self._process is None:
            return None
        self._end(interrupt=not self.ends_by_itself)
        return self.sent()

    def sent(self) -> int | None:
        """Frames it says it sent, once it has ended."""
        return None

    def _end(self, *, interrupt: bool = True) -> None:
        process = self._process
        assert process is not None  # noqa: S101 - asked before
        try:
            if interrupt and process.poll() is None:
                process.send_signal(signal.SIGINT)
            with contextlib.suppress(ValueError):  # read already
                self.said, _ = process.communicate(timeout=_END_WITHIN_S)
        except subprocess.TimeoutExpired:
            raise EngineError(f"{self.name} did not end when it was told to, and was killed.") from None
        finally:
            if process.poll() is None:
                process.kill()
                process.communicate()
            self._process = None

    @property
    def _errors(self) -> Path:
        return self._ground.folder / "said"

    def _last_words(self) -> str:
        return " ".join(self._errors.read_text(errors="replace").split()[-60:])


class Scan(Process):
    """Our scan, from the command line."""

    def __init__(self, ground: Ground, name: str, layout: str, options: Options) -> None:
        fixed: Options = ["-S", SPARE, "-b", ground.deny, "--probe-args", "layout=smallest", "-q", "--json"]
        super().__init__(ground, name, layout, [sys.executable, "-m", "irlstack", "scan", *options, *fixed])

    @property
    def document(self) -> dict[str, Any]:
        """Its metadata, once it has ended.

        Raises:
            EngineError: it ended without any.
        """
        lines = self.said.strip().splitlines()
        if not lines:
            raise EngineError(f"{self.name} ended without a word on stdout: {self._last_words()}")
        document: dict[str, Any] = json.loads(lines[-1])
        return document

    def sent(self) -> int | None:
        """Probes that left."""
        return int(self.document["sent"]) - int(self.document["stats"]["device_lost"])


def scan(ground: Ground, engine: str, ports: str) -> Scan:
    """Our scan into the sink, as fast as it goes."""
    options: Options = [TARGETS, "-p", ports, "-r", "0", "--engine", engine, "-c", "0", "--no-rst"]
    layout = "SYN without options (layout=smallest), permutation, cookie, deny list, policy; -r 0"
    return Scan(ground, f"scan ({engine})", layout, [*options, "-o", ground.folder / "rows.parquet"])


def offered(ground: Ground, rate: int, batch: int, ports: str, seconds: float) -> Scan:
    """Our scan into the sink at a fixed rate and batch, for so long, and a second of silence after it."""
    options: Options = [TARGETS, "-p", ports, "-r", str(rate), "--engine", "live", "--no-rst", "--batch", str(batch)]
    options = [*options, "-t", str(math.ceil(seconds)), "-c", "1", "-o", ground.folder / "rows.parquet"]
    made = Scan(ground, f"batch {batch}", f"--batch {batch}", options)
    made.ends_by_itself = True
    return made


class ZMap(Process):
    """ZMap with one sender thread."""

    def __init__(self, ground: Ground, peer: Peer, ports: str, options: Options) -> None:
        fixed: Options = ["-i", ground.interface, "-G", ground.gateway_mac, "-b", ground.deny, "-T", "1", "-p", ports]
        how: Options = ["--batch=256", "--probe-args=smallest-probes", "--disable-syslog", "-q", "-v", "1"]
        layout = "SYN with MSS (--probe-args=smallest-probes), --batch 256, one sender thread, deny list"
        super().__init__(ground, "ZMap", layout, [peer.path, *fixed, *how, *options])


class Masscan(Process):
    """masscan as fast as it goes, from an address of its own, so that its kernel stays out of it."""

    def __init__(self, ground: Ground, peer: Peer, ports: str, options: Options) -> None:
        fixed: Options = ["--interface", ground.interface, "--router-mac", ground.gateway_mac, "-p", ports]
        how: Options = ["--source-ip", MASSCAN, "--source-port", "61000", "--excludefile", ground.deny]
        layout = "SYN with MSS, --rate 100000000, one sender thread, deny list"
        super().__init__(ground, "masscan", layout, [peer.path, *fixed, *how, "--rate", "100000000", *options])


class Tcpdump(Process):
    """tcpdump, which writes the answers that come to the host's own address to a file."""

    def __init__(self, ground: Ground, peer: Peer) -> None:
        self.path = ground.folder / "answers.pcap"
        how: Options = ["-i", ground.interface, "-n", "-s", str(_SNAPLEN), "-B", str(_BUFFER_KIB), "-Z", "root"]
        what = ["tcp", "and", "dst", "host", HOST, "and", "src", "net", TARGETS]
        layout = f"-w, snapshot length {_SNAPLEN}, buffer {_BUFFER_KIB} KiB, filter on our address and {TARGETS}"
        super().__init__(ground, "tcpdump", layout, [peer.path, *how, "-w", self.path, *what])

    def await_listening(self) -> None:
        """Returns once it captures.

        Raises:
            EngineError: it never did.
        """
        deadline = time.monotonic() + _END_WITHIN_S
        while "listening on" not in self._errors.read_text(errors="replace"):
            if not self.running() or time.monotonic() > deadline:
                raise EngineError(f"tcpdump did not begin to listen: {self._last_words()}")
            time.sleep(_LOOK_S)

    def await_idle(self, seconds: float = 0.3) -> None:
        """Returns once its file has not grown for so long: then its buffer is empty, which is its own, too."""
        size, since = -1, time.monotonic()
        while time.monotonic() - since < seconds:
            now = self.path.stat().st_size
            if now != size:
                size, since = now, time.monotonic()
            time.sleep(_LOOK_S)


def _package() -> str:
    """Where this very package lies, also when it was imported from an unusual place."""
    return str(Path(__file__).parents[2])
