"""What is refused of a run's keywords and files before anything is opened or overwritten."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from irlstack.errors import ConfigError

_STREAM = "-"

_WHOLE = {
    "shard": (0, (1 << 32) - 1),
    "sender_threads": (1, (1 << 16) - 1),
    "max_results": (0, (1 << 64) - 1),
    "retries": (0, (1 << 16) - 1),
    "max_sendto_failures": (0, (1 << 64) - 1),
    "queue": (0, (1 << 63) - 1),
    "batch": (1, 256),
}
"""The least and the most of whole numbers, as wide as the core has them."""


def check_numbers(keywords: Mapping[str, Any]) -> None:
    """Refuse numbers that cannot be meant.

    Raises:
        ConfigError: names the keyword and its bounds.
    """
    for name, (least, most) in _WHOLE.items():
        value = keywords.get(name)
        if isinstance(value, int) and not least <= value <= most:
            raise ConfigError(f"{name} = {value} cannot be: it is a whole number from {least} to {most}.")
    if not 0 <= float(keywords.get("min_hitrate") or 0.0) <= 100:
        raise ConfigError(
            f"min_hitrate = {keywords['min_hitrate']} cannot be: it is a number of percent from 0 to 100."
        )


def check_fields(names: Sequence[str] | None) -> None:
    """Refuse a column without a name, and one that is there twice: few readers of Parquet can tell the two apart.

    Raises:
        ConfigError: names it.
    """
    if "" in (names or ()):
        raise ConfigError("An output field has no name: write saddr,sport or *.")
    twice = next((name for number, name in enumerate(names or ()) if name in (names or ())[:number]), None)
    if twice is not None:
        raise ConfigError(f"The output field {twice} is named twice: once is enough.")


def check_files(paths: Iterable[Path]) -> None:
    """Refuse files that cannot be written, and such that would overwrite each other. All stay as they are.

    Raises:
        ConfigError: two of them are one.
        OSError: what opening one would have raised.
    """
    seen: set[Path] = set()
    for path in paths:
        if str(path) == _STREAM:
            continue
        whole = path.resolve()
        if whole in seen:
            raise ConfigError(f"{path} is named twice: what is written for one would overwrite the other.")
        if path.is_file() or path.is_dir():
            path.open("ab").close()
        elif not path.exists():
            path.open("xb").close()
            path.unlink()
        # Devices may be written by several.
        if path.is_file() or not path.exists():
            seen.add(whole)
