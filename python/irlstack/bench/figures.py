"""What becomes of the figures of several rounds."""

import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import TypedDict


class Spread(TypedDict):
    """The middle of several rounds, and how far they lie apart."""

    median: float
    min: float
    max: float


def spread(values: Sequence[float]) -> Spread:
    """Median, least and most of at least one value.

    >>> spread([3.0, 1.0, 2.0])
    {'median': 2.0, 'min': 1.0, 'max': 3.0}
    """
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def ratios(rates: Mapping[str, Sequence[float]], of: Sequence[str]) -> dict[str, dict[str, Spread]]:
    """How many times the others' rate each of `of` reached: taken round by round, since rounds differ.

    >>> ratios({"a": [10.0, 30.0], "b": [5.0, 10.0]}, ["a"])
    {'a': {'b': {'median': 2.5, 'min': 2.0, 'max': 3.0}}}
    """
    return {
        one: {
            other: spread([mine / theirs for mine, theirs in zip(rates[one], rates[other], strict=True)])
            for other in rates
            if other != one and all(rates[other])
        }
        for one in of
        if one in rates
    }


def highest(fits: Callable[[int], bool], low: int, high: int, tries: int) -> int | None:
    """The highest of the rates tried that fits, by bisection on the logarithm; None when none did.

    Args:
        fits: tries a rate, which may take a while.
        low: a rate expected to fit.
        high: one that is not.
        tries: how many may be tried.
    """
    best = None
    bottom, top = low, high
    for _ in range(tries):
        rate = round((bottom * top) ** 0.5)
        if fits(rate):
            best = bottom = rate
        else:
            top = rate
    return best
