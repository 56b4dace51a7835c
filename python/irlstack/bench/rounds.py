"""Rounds: in which every contender has its turn."""

from collections.abc import Callable, Iterator, Sequence

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
