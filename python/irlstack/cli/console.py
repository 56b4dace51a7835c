"""Words on stderr, data on stdout; colour only on a terminal and without NO_COLOR."""

import logging
import sys

from rich.console import Console

from irlstack.cli import log


def words() -> Console:
    """For everything said to a person, word for word: `:ab:` in a MAC or an IPv6 address is no name of a picture."""
    return Console(stderr=True, highlight=False, soft_wrap=True, emoji=False)


def say(text: str, *, quiet: bool = False, event: str = "note", level: int = logging.INFO, **fields: object) -> None:
    """A line of words, unless quiet; `event` and `fields` are for logs."""
    if not quiet and log.tell(level, text, event, fields):
        words().print(text, markup=False)


def complain(text: str, *, event: str = "error", level: int = logging.ERROR, **fields: object) -> None:
    """An error or warning; its first word in red where there is colour."""
    if log.tell(level, text, event, fields):
        console = words()
        console.print("irlstack:", style="bold red", end=" ")
        console.print(text, markup=False)


def put(text: str) -> None:
    """Data."""
    sys.stdout.write(text)
