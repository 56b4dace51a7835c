"""What a run is doing, once a second: a line for people, and ZMap's status-updates CSV for programs."""

import sys
from typing import TextIO

COLUMNS = (
    "real-time,time-elapsed,time-remaining,percent-complete,hit-rate,active-send-threads,"
    "sent-total,sent-last-one-sec,sent-avg-per-sec,recv-success-total,recv-success-last-one-sec,"
    "recv-success-avg-per-sec,recv-total,recv-total-last-one-sec,recv-total-avg-per-sec,"
    "pcap-drop-total,drop-last-one-sec,drop-avg-per-sec,sendto-fail-total,sendto-fail-last-one-sec,"
    "sendto-fail-avg-per-sec"
)


class Progress:
    """Shows a run's status as it grows.

    Args:
        shown: whether to write the line for people to stderr, in place.
    """

    def __init__(self, *, shown: bool) -> None:
        self._shown = shown
        self._updates: TextIO | None = None
        self._width = 0

    def write_to(self, updates: TextIO) -> None:
        """Begin the CSV in this file."""
        self._updates = updates
        updates.write(COLUMNS + "\n")

    def show(self, line: str, row: str) -> None:
        """Add what a second brought."""
        if self._updates is not None:
            self._updates.write(row + "\n")
        if self._shown:
            sys.stderr.write("\r" + line.ljust(self._width))
            sys.stderr.flush()
            self._width = len(line)

    def end(self) -> None:
        """Leave the last line in place."""
        if self._width:
            sys.stderr.write("\n")
            self._width = 0
