"""Numbers as people type them: 100k, 1.5M, 10%, 30s; and numbers as people read them."""

import re

from irlstack.errors import ConfigError

_FACTORS = {"": 1, "k": 1_000, "K": 1_000, "m": 1_000_000, "M": 1_000_000, "g": 10**9, "G": 10**9}
_SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}


def parse_number(name: str, text: str) -> float:
    """`100k`, `1.5M`, `10G`, `1000`; the letter is a power of 1000, in either case."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([kKmMgG]?)", text.strip())
    if not match:
        raise ConfigError(f"{name} {text!r} is not a number; write 10000, 100k or 1.5M.")
    return float(match[1]) * _FACTORS[match[2]]


def parse_seconds(name: str, text: str) -> float:
    """`8`, `8s`, `5m`, `2h`."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd]?)", text.strip())
    if not match:
        raise ConfigError(f"{name} {text!r} is not a time; write 8, 90s, 5m or 2h.")
    return float(match[1]) * _SECONDS[match[2]]


def parse_share(name: str, text: str) -> tuple[int | None, float | None]:
    """A count, or a share of all: `1000` is (1000, None), `0.1%` is (None, 0.001)."""
    if text.strip().endswith("%"):
        try:
            share = float(text.strip()[:-1]) / 100
        except ValueError:
            share = -1.0
        if not 0 < share <= 1:
            raise ConfigError(f"{name} {text!r} is not a share; write a number above 0% and up to 100%.")
        return None, share
    number = parse_number(name, text)
    if number != int(number) or number < 1:
        raise ConfigError(f"{name} {text!r} is not a count; write a whole number from 1, or a share such as 0.1%.")
    return int(number), None


def show_count(value: float) -> str:
    """`12,345` below a million, else `1.23 M`, `4.29 G`."""
    for factor, letter in ((10**12, "T"), (10**9, "G"), (10**6, "M")):
        if value >= factor:
            return f"{value / factor:.2f} {letter}"
    return f"{value:,.0f}"


def show_rate(value: float, unit: str) -> str:
    """`812 kpps`, `1.25 Mbit/s`."""
    for factor, letter in ((10**9, "G"), (10**6, "M"), (10**3, "k")):
        if value >= factor:
            return f"{value / factor:.3g} {letter}{unit}"
    return f"{value:.3g} {unit}"


def show_seconds(value: float) -> str:
    """`0.4 s`, `12 s`, `3 min 20 s`, `5 h 12 min`, `2 d 3 h`."""
    if value < 10:
        return f"{value:.1f} s"
    for size, name, part, part_name in ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if value >= size:
            return f"{value // size:.0f} {name} {value % size // part:.0f} {part_name}"
    return f"{value:.0f} s"
