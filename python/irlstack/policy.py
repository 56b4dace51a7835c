"""[`Policy`][irlstack.policy.Policy]: what the person in charge of a measurement has to say before it may begin."""

import tomllib
from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from os import PathLike, environ
from pathlib import Path
from typing import Any, Self

from irlstack import optout
from irlstack.errors import ConfigError

SYSTEM_FILE = Path("/etc/irlstack/irlstack.toml")
_TABLES = {
    "policy": ("contact", "authorized", "blocklist_file", "optout_file", "rate", "prefix_budget"),
    "identity": ("contact", "description", "opt_out", "canonical", "languages"),
}
"""What an irlstack.toml may have: the fields of `Policy`, and those of `irlstack.identity.Identity`."""


@dataclass(frozen=True, kw_only=True)
class Policy:
    """What globally reachable targets need before a frame may leave: all four. It is enforced in Rust, frame by frame.

    >>> import irlstack as irl
    >>> policy = irl.Policy(contact="scan@example.org", authorized="ticket 4711", rate=1000)
    >>> policy.over(irl.Policy(rate=5, prefix_budget=0.1))  # doctest: +NORMALIZE_WHITESPACE
    Policy(contact='scan@example.org', authorized='ticket 4711', blocklist_file=None, optout_file=None, rate=1000.0,
    prefix_budget=0.1)

    Attributes:
        contact: whom a probed network can write to, an e-mail address or URL.
        authorized: who authorised the measurement, a ticket or a person; kept in the metadata.
        blocklist_file: a deny file in ZMap's blocklist format. It may be empty, but it has to be named.
        optout_file: who asked to be left alone, with reason and expiry (see `irlstack.optout`); it is looked at again
            while a run goes on. What is in it is probed by no run, whatever the plan says.
        rate: the most frames a second; 0 = as fast as our own loss allows, which is never towards global addresses.
        prefix_budget: the most probes a second that a scan or an exchange sends to any /24 of IPv4 or /48 of IPv6.
            Targets whose prefix has had its share wait, and none is left out.
    """

    contact: str | None = None
    authorized: str | None = None
    blocklist_file: Path | None = None
    optout_file: Path | None = None
    rate: float | None = None
    prefix_budget: float | None = None

    def __post_init__(self) -> None:
        for name in ("blocklist_file", "optout_file"):
            if (path := getattr(self, name)) is not None:
                object.__setattr__(self, name, Path(path))
        if self.rate is not None:
            if not 0 <= self.rate < float("inf"):
                raise ConfigError(f"A rate of {self.rate} is not possible: give frames a second, or 0.")
            object.__setattr__(self, "rate", float(self.rate))
        if self.prefix_budget is not None:
            if not 0 < self.prefix_budget < float("inf"):
                raise ConfigError(
                    f"A prefix budget of {self.prefix_budget} is not possible: give probes a second, above 0."
                )
            object.__setattr__(self, "prefix_budget", float(self.prefix_budget))

    @property
    def opted_out(self) -> optout.OptOut | None:
        """The opt-out file and what of it holds today, for the core.

        Raises:
            ConfigError: a line of it cannot be read.
            OSError: it cannot be read at all.
        """
        return None if self.optout_file is None else optout.read(self.optout_file)

    def over(self, base: Self) -> Self:
        """This policy with what it leaves open taken from `base`."""
        given = {field.name: getattr(self, field.name) for field in fields(self)}
        return replace(base, **{name: value for name, value in given.items() if value is not None})

    @classmethod
    def from_file(cls, path: str | PathLike[str]) -> Self:
        """The table `[policy]` of an irlstack.toml; relative paths are looked for beside the file.

        Raises:
            ConfigError: it is no TOML, or names something unknown.
            OSError: it cannot be read.
        """
        path = Path(path)
        table = read_tables(path)["policy"]
        for name in {"blocklist_file", "optout_file"} & table.keys():
            table[name] = path.parent / table[name]
        return cls(**table)

    @classmethod
    def from_config(cls, path: str | PathLike[str] | None = None) -> Self:
        """What the configuration files say: the system's, the user's (XDG) and the project's, later ones first.

        Args:
            path: read only this file instead.
        """
        if path is not None:
            return cls.from_file(path)
        policy = cls()
        for each in config_files():
            policy = cls.from_file(each).over(policy)
        return policy


def config_files() -> list[Path]:
    """The configuration files there are, in the order in which later ones overrule earlier ones."""
    user = Path(environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "irlstack/irlstack.toml"
    return [path for path in (SYSTEM_FILE, user, Path("irlstack.toml")) if path.is_file()]


def read_tables(path: Path) -> dict[str, dict[str, Any]]:
    """The tables of an irlstack.toml by name; empty where it has none.

    Raises:
        ConfigError: it is no TOML, names something unknown, or has a value of another kind.
        OSError: it cannot be read.
    """
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is no TOML file: {error}.") from error
    _refuse_unknown(path, document, _TABLES, "table")
    for name, known in _TABLES.items():
        table = document.setdefault(name, {})
        if not isinstance(table, dict):
            raise ConfigError(f"{path}: {name} has to be a table, [{name}].")
        _refuse_unknown(path, table, known, f"key of [{name}]")
        for key, value in table.items():
            is_number = key in ("rate", "prefix_budget")
            wanted = (int, float) if is_number else (str,)
            if not isinstance(value, wanted) or isinstance(value, bool):
                raise ConfigError(f"{path}: {key} = {value!r} should be a {'number' if is_number else 'text'}.")
    return document


def _refuse_unknown(path: Path, table: dict[str, Any], known: Iterable[str], what: str) -> None:
    for name in table:
        if name not in known:
            raise ConfigError(f"{path}: there is no {what} {name!r}; there are {', '.join(sorted(known))}.")
