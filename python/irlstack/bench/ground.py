"""The ground that contenders meet on: a lab, and eyes at its far end."""

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Protocol

from irlstack import _core
from irlstack.errors import EngineError
from irlstack.lab import Lab

HOST, SPARE, OTHER_SPARE = "198.18.0.1", "198.18.0.10", "198.18.0.20"
"""The client's own address, and two of its network that nobody has."""
DENIED_PREFIXES = 300
SETTLE_S = 1.5
_BEGIN_WITHIN_S = 30.0
_SAMPLE_S = 0.05
_QUIET_S = 0.3


@dataclass(frozen=True)
class Ground:
    """Where a contender runs: the client's end of a veth pair, and what it has to know of it."""

    lab: Lab
    folder: Path
    deny: Path

    @property
    def interface(self) -> str:
        """The client's interface."""
        return self.lab.interface("client").name

    @property
    def gateway_mac(self) -> str:
        """The other end's MAC."""
        return self.lab.interface("gateway").mac


def denied() -> list[str]:
    """The deny list that every scanner gets: small prefixes scattered over 10.0.0.0/8, the same in every run."""
    return [f"10.{each * 97 % 256}.{(each * 41 + each // 256) % 256}.16/28" for each in range(DENIED_PREFIXES)]


@contextlib.contextmanager
def make(*, hosts: bool) -> Iterator[Ground]:
    """A lab for the length of a `with` block, in which every host of 10.0.0.0/8 answers, or none is there."""
    with (
        TemporaryDirectory(dir="/dev/shm", prefix="irlstack-bench-") as folder,
        Lab(xdp=("10.0.0.0/8",) if hosts else (), user=(), nginx=(), everything_open=True) as lab,
    ):
        deny = Path(folder) / "deny.txt"
        deny.write_text("".join(f"{prefix}\n" for prefix in denied()), encoding="utf-8")
        # That a program is attached to the lab's own interface is no news here.
        logging.getLogger("irl_link").setLevel(logging.ERROR)
        yield Ground(lab, Path(folder), deny)


def settle_s(seconds: float) -> float:
    """How long a contender sends before it is measured: `-r 0` climbs for a second. Less in short trials."""
    return SETTLE_S if seconds >= 1 else seconds


class Sender(Protocol):
    """Something that sends until it is stopped."""

    @property
    def name(self) -> str:
        """What tables call it."""

    @property
    def layout(self) -> str:
        """What it sends, and how it was told to."""

    def start(self) -> None:
        """Begins; frames may take a while to come."""

    def running(self) -> bool:
        """Whether it has not ended by itself."""

    def stop(self) -> int | None:
        """Ends it; how many frames it says it sent, if it says so."""


@dataclass(frozen=True)
class Counted:
    """What one contender did in one round.

    Attributes:
        rate: frames a second that arrived at the far end, over the window.
        window_s: how long that was.
        arrived: frames that arrived from the first to the last.
        said: frames it says it sent, if it says so.
        frame_bytes: the mean length of its frames, without FCS.
    """

    rate: float
    window_s: float
    arrived: int
    said: int | None
    frame_bytes: float


def count(sink: _core.Sink, sender: Sender, seconds: float) -> Counted:
    """Has a contender send, and counts at the far end for a while once frames flow.

    Raises:
        EngineError: nothing arrived.
    """
    frames_before, bytes_before = sink.arrived()
    sender.start()
    try:
        deadline = time.monotonic() + _BEGIN_WITHIN_S
        while sink.arrived()[0] == frames_before:
            if time.monotonic() > deadline or not sender.running():
                raise EngineError(f"{sender.name}: no frame of it arrived.")
            time.sleep(_SAMPLE_S / 5)
        time.sleep(settle_s(seconds))
        samples = [_sample(sink)]
        while samples[-1][0] - samples[0][0] < seconds and sender.running():
            time.sleep(_SAMPLE_S)
            samples.append(_sample(sink))
    finally:
        said = sender.stop()
    last = _await_quiet(lambda: sink.arrived()[0])
    (begin, first), (end, until) = samples[0], _last_in_full_flight(samples)
    if end == begin:
        raise EngineError(f"{sender.name}: it ended before it could be measured; give it more to send.")
    arrived = last - frames_before
    return Counted(
        rate=(until - first) / (end - begin),
        window_s=end - begin,
        arrived=arrived,
        said=said,
        frame_bytes=(sink.arrived()[1] - bytes_before) / arrived,
    )


def _sample(sink: _core.Sink) -> tuple[float, int]:
    before = time.monotonic()
    frames = sink.arrived()[0]
    return (before + time.monotonic()) / 2, frames


def _last_in_full_flight(samples: list[tuple[float, int]]) -> tuple[float, int]:
    """The last sample before a contender that ended by itself ran dry: of the last rise only its beginning counts."""
    rises = [at for at in range(1, len(samples)) if samples[at][1] > samples[at - 1][1]]
    if not rises:
        return samples[0]
    return samples[rises[-1]] if rises[-1] == len(samples) - 1 else samples[rises[-1] - 1]


def _await_quiet(read: Callable[[], int]) -> int:
    """The count once it stands still."""
    now, since = read(), time.monotonic()
    while time.monotonic() - since < _QUIET_S:
        time.sleep(_SAMPLE_S)
        if (then := read()) != now:
            now, since = then, time.monotonic()
    return now


class Watch:
    """Watches how many frames have arrived at an interface of the lab's far end, and when they did, from a thread."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        self._halt = threading.Event()
        self._thread = threading.Thread(target=self._run, name="bench-watch", daemon=True)
        self._error: Exception | None = None
        self.samples: list[tuple[float, int]] = []

    def __enter__(self) -> "Watch":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._halt.set()
        self._thread.join()
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        try:
            with self._lab.enter("net"):
                name = self._lab.interface("gateway").name
                while True:
                    self.samples.append((time.monotonic(), received(name)))
                    if self._halt.wait(_SAMPLE_S):
                        break
                self.samples.append((time.monotonic(), received(name)))
        except (OSError, EngineError) as error:
            self._error = error

    def frames(self) -> int:
        """How many arrived."""
        return self.samples[-1][1] - self.samples[0][1]

    def seconds(self, at_least: int = 100) -> float:
        """How long the flight took: from the last sample before the first frames to the first sample after the last.

        Args:
            at_least: fewer frames than this between two samples are stragglers or neighbours' talk, and no flight.
        """
        rises = [at for at in range(1, len(self.samples)) if self.samples[at][1] - self.samples[at - 1][1] >= at_least]
        if not rises:
            raise EngineError("No frames arrived at the far end.")
        return self.samples[rises[-1]][0] - self.samples[rises[0] - 1][0]


def received(interface: str) -> int:
    """Frames an interface of the calling thread's namespace has received; /sys would show another namespace's."""
    for line in Path("/proc/thread-self/net/dev").read_text(encoding="ascii").splitlines():
        name, colon, numbers = line.partition(":")
        if colon and name.strip() == interface:
            return int(numbers.split()[1])
    raise EngineError(f"There is no interface {interface} here.")
