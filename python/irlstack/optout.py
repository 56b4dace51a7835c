"""Who asked to be left alone, why, and until when: a deny file whose comments say it, looked at while a run goes on.

    192.0.2.0/24     # until 2027-01-31: asked by mail, ticket 812
    198.51.100.7     # asked by phone
    2001:db8::/32    # until 2026-06-30

It is a blocklist file as ZMap reads it, too. The last day counts; then the line is passed over, which is said.
"""

import logging
import re
import threading
import time
import weakref
from dataclasses import dataclass
from datetime import UTC, date, datetime
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

from irlstack.errors import ConfigError, IrlError

if TYPE_CHECKING:
    from irlstack._core import RawRun

_LOOK_EVERY_S = 1.0
_LINE = re.compile(rb"([^#]*)(?:#\s*(.*?)\s*)?")
_UNTIL = re.compile(r"until\s+([^\s:]+)\s*(?::\s*(.*))?", re.DOTALL)
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Line:
    """A line with somebody who asked.

    Attributes:
        number: which line of the file, from 1.
        who: a prefix, address or range, as it stands there; the core reads it.
        until: the last day that it holds; None = for good.
        reason: what else the comment says.
    """

    number: int
    who: str
    until: date | None
    reason: str


@dataclass(frozen=True)
class OptOut:
    """An opt-out file on some day.

    Attributes:
        lines: those that hold.
        expired: those that do not any more.
        text: the file with nothing where expired lines were, so that the others keep their numbers.
        path: the file.
        sha256: of all of it, in hexadecimal.
    """

    lines: list[Line]
    expired: list[Line]
    text: bytes
    path: Path
    sha256: str

    @property
    def lines_held(self) -> int:
        """How many lines hold."""
        return len(self.lines)

    @property
    def lines_expired(self) -> int:
        """How many do not any more."""
        return len(self.expired)


def read(path: Path, today: date | None = None) -> OptOut:
    """Reads an opt-out file.

    Args:
        path: the file.
        today: the day to judge by; today in UTC when None.

    Raises:
        ConfigError: a comment begins with "until" and no date follows.
        OSError: it cannot be read.
    """
    today = today or datetime.now(UTC).date()
    kept: list[bytes] = []
    lines: list[Line] = []
    expired: list[Line] = []
    whole = path.read_bytes()
    for number, raw in enumerate(whole.split(b"\n"), 1):
        line = _parse(path, number, raw)
        is_over = line is not None and line.until is not None and line.until < today
        kept.append(b"" if is_over else raw)
        if line is not None:
            (expired if is_over else lines).append(line)
    return OptOut(lines, expired, b"\n".join(kept), path, sha256(whole).hexdigest())


def _parse(path: Path, number: int, raw: bytes) -> Line | None:
    match = _LINE.fullmatch(raw.strip())
    if match is None or not match[1].strip():
        return None
    who = match[1].strip().decode("utf-8", "replace")
    comment = (match[2] or b"").decode("utf-8", "replace")
    if not comment.lower().startswith("until"):
        return Line(number, who, None, comment)
    until = _UNTIL.fullmatch(comment)
    try:
        # A day, as people write it who mean a day.
        last = date.fromisoformat(until[1] if until else "")
    except ValueError:
        raise ConfigError(
            f"{path}, line {number}: {comment!r} names no day; write '# until 2027-01-31: the reason', or begin "
            "the comment with another word."
        ) from None
    return Line(number, who, last, (until[2] or "").strip() if until else "")


def say_expired(path: Path, optout: OptOut) -> None:
    """Says which lines are passed over."""
    for line in optout.expired:
        text = "%s, line %d: %s opted out until %s; that is over."
        _log.warning(text, path, line.number, line.who, line.until, extra={"event": "optout_expired"})


class Watch:
    """Looks at an opt-out file every second as long as a run goes on, and denies what it says then.

    Made before the run begins, so that no change goes unseen. A line that goes away while a run goes on holds until its
    end, when it was there at the beginning. A file that cannot be read, or not be understood, changes nothing and is
    said.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen = _stamp(path)

    def follow(self, run: "RawRun") -> None:
        """Begins to look, in a thread that ends with the run."""
        say_expired(self._path, read(self._path))
        # Weakly: whoever drops a run wants it stopped.
        threading.Thread(target=self._follow, args=(weakref.ref(run),), name="irl-optout", daemon=True).start()

    def _follow(self, of: "weakref.ref[RawRun]") -> None:
        while True:
            time.sleep(_LOOK_EVERY_S)
            run = of()
            if run is None or run.is_finished():
                return
            if (now := _stamp(self._path)) != self._seen:
                self._seen = now
                self._deny(run)
            del run

    def _deny(self, run: "RawRun") -> None:
        try:
            optout = read(self._path)
            run.deny(optout)
        except (IrlError, OSError) as error:
            text = "The opt-out file cannot be read again, and what it said before holds: %s"
            _log.warning(text, error, extra={"event": "optout_unreadable"})
        else:
            text = "%s has changed: %d lines hold now."
            _log.info(text, self._path, len(optout.lines), extra={"event": "optout_reread"})


def _stamp(path: Path) -> tuple[int, int, int] | None:
    """Changes when the file does."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino
