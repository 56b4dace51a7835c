"""Rounds: in which every contender has its turn."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TypeVar

from irlstack.errors import ConfigError

Make = TypeVar("Make")
Say = Callable[[str], None]
"""Takes words on the way."""


def interleaved(names: Sequence[str], rounds: int) -> Iterator[tuple[int, str]]:
    """Number of the round and contender, in another order each round, so that nobody always follows the same one.

    >>> list(interleaved(["a", "b"], 2))
    [(1, 'a'), (1, 'b'), (2, 'b'), (2, 'a')]
    """
    for number in range(rounds):
        at = number % len(names)
        for name in [*names[at:], *names[:at]]:
            yield number + 1, name


def chosen(makers: Mapping[str, Make], missing: Mapping[str, str], only: Sequence[str]) -> dict[str, Make]:
    """Those that `only` names, or all.

    Raises:
        ConfigError: one is unknown, or missing here.
    """
    for name in only:
        # The tool zmap is the contender ZMap.
        why = missing.get(name) or missing.get(name.lower())
        if why is not None:
            raise ConfigError(f"--only {name}: it cannot be measured here: {why}.")
        if name not in makers:
            raise ConfigError(f"--only {name}: there is no such contender; there are {', '.join(makers)}.")
    return {name: make for name, make in makers.items() if not only or name in only}
