"""Words on stderr, data on stdout; colour only on a terminal and without NO_COLOR."""

import sys

from rich.console import Console


def words() -> Console:
    """For everything said to a person, word for word: `:ab:` in a MAC or an IPv6 address is no name of a picture."""
    return Console(stderr=True, highlight=False, soft_wrap=True, emoji=False)


def say(text: str, *, quiet: bool = False) -> None:
    """A line of words, unless quiet."""
    if not quiet:
        words().print(text, markup=False)


def complain(text: str) -> None:
    """An error or warning; its first word in red where there is colour."""
    console = words()
    console.print("irlstack:", style="bold red", end=" ")
    console.print(text, markup=False)


def put(text: str) -> None:
    """Data."""
    sys.stdout.write(text)
