"""[`Policy`][irlstack.policy.Policy]: what the person in charge of a measurement has to say before it may begin."""

import tomllib
from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from os import PathLike, environ
from pathlib import Path
from typing import Any, Self

from irlstack.errors import ConfigError

SYSTEM_FILE = Path("/etc/irlstack/irlstack.toml")


@dataclass(frozen=True, kw_only=True)
class Policy:
    """What globally reachable targets need before a frame may leave: all four. It is enforced in Rust, frame by frame.

    >>> import irlstack as irl
    >>> irl.Policy(contact="scan@example.org", authorized="ticket 4711", rate=1000)
    Policy(contact='scan@example.org', authorized='ticket 4711', blocklist_file=None, rate=1000.0)

    Attributes:
        contact: whom a probed network can write to, an e-mail address or URL.
        authorized: who authorised the measurement, a ticket or a person; kept in the metadata.
        blocklist_file: a deny file in ZMap's blocklist format. It may be empty, but it has to be named.
        rate: the most frames a second; 0 = as fast as our own loss allows, which is never towards global addresses.
    """

    contact: str | None = None
    authorized: str | None = None
    blocklist_file: Path | None = None
    rate: float | None = None

    def __post_init__(self) -> None:
        if self.blocklist_file is not None:
            object.__setattr__(self, "blocklist_file", Path(self.blocklist_file))
        if self.rate is not None:
            if not 0 <= self.rate < float("inf"):
                raise ConfigError(f"A rate of {self.rate} is not possible: give frames a second, or 0.")
            object.__setattr__(self, "rate", float(self.rate))

    def over(self, base: Self) -> Self:
        """This policy with what it leaves open taken from `base`."""
        given = {field.name: getattr(self, field.name) for field in fields(self)}
        return replace(base, **{name: value for name, value in given.items() if value is not None})

    @classmethod
    def from_file(cls, path: str | PathLike[str]) -> Self:
        """The table `[policy]` of an irlstack.toml; a relative `blocklist_file` is looked for beside the file.

        Raises:
            ConfigError: it is no TOML, or names something unknown.
            OSError: it cannot be read.
        """
        path = Path(path)
        try:
            document = tomllib.loads(path.read_text(encoding="utf-8"))
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise ConfigError(f"{path} is no TOML file: {error}.") from error
        known = {field.name for field in fields(cls)}
        _refuse_unknown(path, document, {"policy"}, "table")
        table = document.get("policy", {})
        if not isinstance(table, dict):
            raise ConfigError(f"{path}: policy has to be a table, [policy].")
        _refuse_unknown(path, table, known, "key of [policy]")
        for name, value in table.items():
            wanted = (int, float) if name == "rate" else (str,)
            if not isinstance(value, wanted) or isinstance(value, bool):
                raise ConfigError(f"{path}: {name} = {value!r} should be a {'number' if name == 'rate' else 'text'}.")
        if "blocklist_file" in table:
            table["blocklist_file"] = path.parent / table["blocklist_file"]
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


def _refuse_unknown(path: Path, table: dict[str, Any], known: Iterable[str], what: str) -> None:
    for name in table:
        if name not in known:
            raise ConfigError(f"{path}: there is no {what} {name!r}; there are {', '.join(sorted(known))}.")
