"""SIGUSR1 and SIGUSR2 change a run's rate in flight, as they do ZMap's."""

import contextlib
import logging
import signal
import threading
from collections.abc import Iterator
from types import FrameType

import irlstack as irl
from irlstack.cli import console, quantity

_STEP = 0.05
"""ZMap's: a twentieth of the rate at that moment."""


@contextlib.contextmanager
def rate_by_signals(run: irl.Run) -> Iterator[None]:
    """For as long as it lasts, SIGUSR1 sends 5 % more a second and SIGUSR2 5 % less. Each change is said."""
    if not hasattr(signal, "SIGUSR1") or threading.current_thread() is not threading.main_thread():
        yield
        return

    def change(number: int, _: FrameType | None) -> None:
        rate = run.rate
        if not rate:
            text = "the rate is searched for (-r 0), or nothing is sent yet: the signal changes nothing."
            console.complain(text, event="rate_unchanged", level=logging.WARNING)
            return
        run.rate = wanted = run.clamped_rate(rate * (1 + _STEP if number == signal.SIGUSR1 else 1 - _STEP))
        said = f"{quantity.show_rate(rate, 'pps')} to {quantity.show_rate(wanted, 'pps')}"
        console.say(
            f"The rate goes from {said}." if wanted != rate else f"The rate is as high as it may: {said}.",
            event="rate_changed",
            before=rate,
            rate=wanted,
        )

    before = {each: signal.signal(each, change) for each in (signal.SIGUSR1, signal.SIGUSR2)}
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
