"""The log of a command: words for people, or JSON for programs, on stderr or in a file.

Everything goes by `logging`: what the core and the package say below the logger `irlstack`, what the command itself
says by `irlstack.cli`. In text the latter stands on stderr as it is (see `console`); as JSON each record is a line.
"""

import contextlib
import json
import logging
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from irlstack.errors import ConfigError

Format = Literal["text", "json"]

OURS = logging.getLogger("irlstack")
SAID = logging.getLogger("irlstack.cli")
"""What the command says to a person."""
# Without a log that was asked for, nobody else may print what stands on stderr already.
SAID.addHandler(logging.NullHandler())
SAID.setLevel(logging.INFO)

DEFAULT_VERBOSITY = 3
LEVELS = (logging.CRITICAL, logging.ERROR, logging.WARNING, logging.INFO, logging.DEBUG, logging.DEBUG)
"""ZMap's levels of detail, 0 to 5; at the last one other packages are heard too."""
_NAMES = {logging.CRITICAL: "fatal", logging.WARNING: "warning"}


class JsonLines(logging.Formatter):
    """A record as an object on a line: time, level, event, message, logger, run, and the fields of its event.

    Attributes:
        run: the run that is going on.
    """

    def __init__(self) -> None:
        super().__init__()
        self.run: str | None = None

    def format(self, record: logging.LogRecord) -> str:
        """The line, without its end."""
        at = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        line: dict[str, Any] = {
            "time": at.replace("+00:00", "Z"),
            "level": _NAMES.get(record.levelno, record.levelname.lower()),
            "event": getattr(record, "event", "log"),
            "message": record.getMessage(),
            "logger": record.name,
        }
        if self.run is not None:
            line["run"] = self.run
        line |= getattr(record, "fields", {})
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


_handlers: list[logging.Handler] = []
"""Those of the command that is running."""
_levels: dict[logging.Logger, int] = {}
"""What loggers had before."""


def is_json() -> bool:
    """Whether words are JSON."""
    return any(isinstance(each.formatter, JsonLines) for each in _handlers)


def asks_for_json(arguments: Sequence[str]) -> bool:
    """Whether a command line that cannot be read asked for it."""
    text = " ".join(arguments).replace("=", " ")
    return "--log-format json" in text


def begin(
    form: Format = "text", file: Path | None = None, folder: Path | None = None, verbosity: int = DEFAULT_VERBOSITY
) -> None:
    """Logs as asked until `until_the_end` is left.

    Args:
        form: text or json.
        file: a file for all records; stderr then gets what the command says to a person, and no more.
        folder: a folder for such a file, whose name tells the time.
        verbosity: ZMap's, 0 to 5.

    Raises:
        ConfigError: a file and a folder.
        OSError: the file cannot be written.
    """
    end()
    json_lines, root = form == "json", logging.getLogger()
    text = "irlstack: %(message)s" if file is folder is None else "%(asctime)s %(levelname)s %(name)s: %(message)s"
    level = LEVELS[verbosity]
    others = level if verbosity == len(LEVELS) - 1 else max(level, logging.WARNING)
    for logger, to in ((OURS, level), (SAID, level), (root, others)):
        _levels[logger] = logger.level
        logger.setLevel(to)
    logging.captureWarnings(json_lines)

    def keep(handler: logging.Handler) -> None:
        handler.setFormatter(JsonLines() if json_lines else logging.Formatter(text))
        _handlers.append(handler)
        root.addHandler(handler)

    if json_lines or file is folder is None:
        stderr = logging.StreamHandler(sys.stderr)
        if not json_lines:
            # It stands there already.
            stderr.addFilter(lambda record: record.name != SAID.name)
        elif file is not None or folder is not None:
            stderr.addFilter(lambda record: record.name == SAID.name and getattr(record, "event", "") != "status")
        keep(stderr)
    if file is not None and folder is not None:
        raise ConfigError("The log goes to a file or into a folder: give --log-file or --log-directory.")
    if folder is not None:
        file = folder / time.strftime("irlstack-%Y-%m-%dT%H%M%SZ.log", time.gmtime())
    if file is not None:
        keep(logging.FileHandler(file, encoding="utf-8"))


def end() -> None:
    """Logs no more."""
    while _handlers:
        handler = _handlers.pop()
        logging.getLogger().removeHandler(handler)
        handler.close()
    while _levels:
        logger, level = _levels.popitem()
        logger.setLevel(level)
    logging.captureWarnings(False)


@contextlib.contextmanager
def until_the_end() -> Iterator[None]:
    """The time of a command, whatever it began to log."""
    try:
        yield
    finally:
        end()


def of(run: str | None) -> None:
    """Names the run that records are of from now on."""
    for handler in _handlers:
        if isinstance(handler.formatter, JsonLines):
            handler.formatter.run = run


def tell(level: int, text: str, event: str, fields: Mapping[str, Any]) -> bool:
    """Logs what the command says; whether it shall stand on stderr as text too.

    Args:
        level: of `logging`.
        text: for people.
        event: a name for programs, which stays.
        fields: what it is about, as JSON.
    """
    if not SAID.isEnabledFor(level):
        return False
    SAID.log(level, "%s", text, extra={"event": event, "fields": dict(fields)})
    return not is_json()
