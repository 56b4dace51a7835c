"""Eyes at the far end: how many frames of a contender arrive, and when."""

import contextlib
import functools
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from irlstack import _core
from irlstack.bench.ground import Ground
from irlstack.errors import EngineError, IrlError
from irlstack.lab import Lab

SETTLE_S = 1.5
_BEGIN_WITHIN_S = 30.0
_SAMPLE_S = 0.05
_QUIET_S = 0.3
STRAGGLERS = 100
"""Fewer frames than this between two samples are late ones or neighbours' talk, and no flight."""

Sample = tuple[float, int]
"""When, and how many frames had arrived."""


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


def settle_s(seconds: float) -> float:
    """How long a contender sends before it is measured: `-r 0` climbs for a second. Less in short trials."""
    return SETTLE_S if seconds >= 1 else seconds


@contextlib.contextmanager
def sink(place: Ground) -> Iterator["_core.Sink"]:
    """A sink at the far end for the length of a `with` block: an XDP program that counts probes and drops them."""
    with place.lab.enter("net"):
        made = _core.Sink(place.lab.interface("gateway").name)
    try:
        yield made
    finally:
        made.close()


def count(into: "_core.Sink", sender: Sender, seconds: float) -> Counted:
    """Has a contender send, and counts at the far end for a while once frames flow.

    Raises:
        EngineError: nothing arrived, or it failed.
    """
    frames_before, bytes_before = into.arrived()
    try:
        sender.start()
        _await_first(into, frames_before, sender)
        time.sleep(settle_s(seconds))
        samples = [_sample(into)]
        while samples[-1][0] - samples[0][0] < seconds and sender.running():
            time.sleep(_SAMPLE_S)
            samples.append(_sample(into))
    except BaseException:
        # What went wrong first is what is said.
        with contextlib.suppress(IrlError):
            sender.stop()
        raise
    said = sender.stop()
    arrived = _once_quiet(into) - frames_before
    (begin, first), (end, until) = samples[0], last_in_full_flight(samples)
    if end == begin:
        raise EngineError(f"{sender.name}: it ended before it could be measured; give it more to send.")
    return Counted(
        rate=(until - first) / (end - begin),
        window_s=end - begin,
        arrived=arrived,
        said=said,
        frame_bytes=(into.arrived()[1] - bytes_before) / arrived,
    )


def _await_first(into: "_core.Sink", before: int, sender: Sender) -> None:
    deadline = time.monotonic() + _BEGIN_WITHIN_S
    while into.arrived()[0] == before:
        if time.monotonic() > deadline or not sender.running():
            raise EngineError(f"{sender.name}: no frame of it arrived.")
        time.sleep(_SAMPLE_S / 5)


def _sample(into: "_core.Sink") -> Sample:
    before = time.monotonic()
    frames = into.arrived()[0]
    return (before + time.monotonic()) / 2, frames


def last_in_full_flight(samples: Sequence[Sample]) -> Sample:
    """The last sample, but of a contender that ended meanwhile the last before its frames began to run dry.

    >>> last_in_full_flight([(0.0, 0), (1.0, 50), (2.0, 100)])
    (2.0, 100)
    >>> last_in_full_flight([(0.0, 0), (1.0, 50), (2.0, 60), (3.0, 60)])
    (1.0, 50)
    """
    rises = [at for at in range(1, len(samples)) if samples[at][1] > samples[at - 1][1]]
    if not rises:
        return samples[0]
    return samples[rises[-1]] if rises[-1] == len(samples) - 1 else samples[rises[-1] - 1]


def _once_quiet(into: "_core.Sink") -> int:
    """The count once it stands still."""
    now, since = into.arrived()[0], time.monotonic()
    while time.monotonic() - since < _QUIET_S:
        time.sleep(_SAMPLE_S)
        if (then := into.arrived()[0]) != now:
            now, since = then, time.monotonic()
    return now


class Watch:
    """Watches how many frames have arrived at the lab's far end where hosts answer, and when, from a thread.

    Args:
        lab: where.
        read: reads something else than frames that arrive.
        stragglers: fewer of them between two looks are no flight.
    """

    def __init__(self, lab: Lab, read: Callable[[], int] | None = None, stragglers: int = STRAGGLERS) -> None:
        self._lab, self._stragglers = lab, stragglers
        self._read = read or functools.partial(received, lab.interface("gateway").name)
        self._halt = threading.Event()
        self._thread = threading.Thread(target=self._run, name="bench-watch", daemon=True)
        self._error: Exception | None = None
        self._samples: list[Sample] = []

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
                while True:
                    self._samples.append((time.monotonic(), self._read()))
                    if self._halt.wait(_SAMPLE_S):
                        break
                self._samples.append((time.monotonic(), self._read()))
        except Exception as error:
            self._error = error

    def frames(self) -> int:
        """How many arrived."""
        return self._samples[-1][1] - self._samples[0][1]

    def seconds(self) -> float:
        """How long the flight took.

        Raises:
            EngineError: there was none.
        """
        return flight_s(self._samples, self._stragglers)


def flight_s(samples: Sequence[Sample], stragglers: int = STRAGGLERS) -> float:
    """From the last sample before the first frames to the first sample after the last: too long rather than too short.

    >>> flight_s([(0.0, 0), (1.0, 0), (2.0, 900), (3.0, 1800), (4.0, 1801)])
    2.0

    Raises:
        EngineError: no frames arrived.
    """
    rises = [at for at in range(1, len(samples)) if samples[at][1] - samples[at - 1][1] >= stragglers]
    if not rises:
        raise EngineError("No frames arrived at the far end.")
    return samples[rises[-1]][0] - samples[rises[0] - 1][0]


def received(interface: str) -> int:
    """Frames an interface of the calling thread's namespace has received; /sys would show another namespace's."""
    for line in Path("/proc/thread-self/net/dev").read_text(encoding="ascii").splitlines():
        name, colon, numbers = line.partition(":")
        if colon and name.strip() == interface:
            return int(numbers.split()[1])
    raise EngineError(f"There is no interface {interface} here.")
