"""Who probes, told to whoever is probed: the probe description file of RFC 9511, `probing.txt`.

It has the format of RFC 9116 (`security.txt`), and one field more, `Description`. It is served over HTTPS as
`/.well-known/probing.txt` by the addresses that probes come from, or by the names their reverse DNS gives.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from datetime import UTC, datetime, timedelta
from os import PathLike
from pathlib import Path
from typing import Self

from irlstack.errors import ConfigError
from irlstack.policy import Policy, config_files, read_tables

WELL_KNOWN = "/.well-known/probing.txt"
VALID = timedelta(days=180)
"""How long a file is valid when nothing else was said; RFC 9116 wants less than a year (section 2.5.5)."""
_MOST_VALID = timedelta(days=366)
_KNOWN = ("Canonical", "Contact", "Expires", "Preferred-Languages", "Description")
_FIELD = re.compile(r"([!-9;-~]+):[ \t](.*)")
_LANGUAGE = re.compile(r"[A-Za-z]{1,8}(-[A-Za-z0-9]{1,8})*")


@dataclass(frozen=True, kw_only=True)
class Identity:
    """What a probing.txt says; also the table `[identity]` of an irlstack.toml.

    >>> identity = Identity(contact="scan@example.org", description="We count web servers.")
    >>> print(identity.text(datetime(2026, 1, 1, tzinfo=UTC)))
    # Who probes: RFC 9511.
    Contact: mailto:scan@example.org
    Expires: 2026-06-30T00:00:00Z
    Description: We count web servers.
    <BLANKLINE>

    Attributes:
        contact: an e-mail address, or a URI (mailto:, tel:, https:).
        description: in a line, what the probes are for.
        opt_out: in a line, how a network gets out of it; becomes part of the description.
        canonical: the https URI at which the file is found.
        languages: languages that the contact understands, as "en, de".
    """

    contact: str | None = None
    description: str | None = None
    opt_out: str | None = None
    canonical: str | None = None
    languages: str | None = None

    def over(self, base: Self) -> Self:
        """This identity with what it leaves open taken from `base`."""
        given = {field.name: getattr(self, field.name) for field in fields(self)}
        return replace(base, **{name: value for name, value in given.items() if value is not None})

    @classmethod
    def from_config(cls, path: str | PathLike[str] | None = None) -> Self:
        """What the configuration files say, later ones first; the contact is the policy's where it has none.

        Raises:
            ConfigError: one is no TOML, or names something unknown.
            OSError: it cannot be read.
        """
        found = cls()
        for each in config_files() if path is None else [Path(path)]:
            found = cls(**read_tables(each)["identity"]).over(found)
        return found.over(cls(contact=Policy.from_config(path).contact))

    def text(self, now: datetime | None = None, expires: datetime | None = None) -> str:
        """The file.

        Args:
            now: when it is written.
            expires: until when it is valid; 180 days from now by default.

        Raises:
            ConfigError: it would not be a valid file; the message says why.
        """
        now = now or datetime.now(UTC)
        expires = expires or now + VALID
        if not self.contact:
            raise ConfigError("A probing.txt needs somebody to write to: give --contact, or contact in irlstack.toml.")
        told = [self.description, f"To opt out: {self.opt_out}" if self.opt_out else None]
        values = {
            "Canonical": self.canonical,
            "Contact": _uri(self.contact),
            "Expires": f"{expires.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}",
            "Preferred-Languages": self.languages,
            "Description": " ".join(each for each in told if each),
        }
        for name, value in values.items():
            if value and not value.isprintable():
                raise ConfigError(f"{name} has to be one line of printable text.")
        lines = [f"{name}: {value}" for name, value in values.items() if value]
        text = "\n".join(["# Who probes: RFC 9511.", *lines, ""])
        wrong, _ = check(text, now)
        if wrong:
            raise ConfigError(" ".join(wrong))
        return text


def check(text: str, now: datetime | None = None) -> tuple[list[str], list[str]]:
    r"""What is wrong with a probing.txt, and what it should have and has not; a sentence each.

    >>> check("Contact: mailto:scan@example.org\n")[0]
    ['There is no Expires: RFC 9116 wants one, a time as 2027-01-31T00:00:00Z.']
    """
    now = now or datetime.now(UTC)
    wrong: list[str] = []
    lacking: list[str] = []
    values = _parse(text, wrong)
    if not values["Contact"]:
        wrong.append("There is no Contact: RFC 9116 wants at least one, a URI such as mailto:scan@example.org.")
    wrong += [
        f"Contact {each!r} is no URI of mailto:, tel: or https:." for each in values["Contact"] if not _is_contact(each)
    ]
    wrong += [f"Canonical {each!r} is no https URI." for each in values["Canonical"] if not each.startswith("https://")]
    for name in ("Expires", "Preferred-Languages"):
        if len(values[name]) > 1:
            wrong.append(f"{name} is there {len(values[name])} times, and may be once.")
    if not values["Expires"]:
        wrong.append("There is no Expires: RFC 9116 wants one, a time as 2027-01-31T00:00:00Z.")
    for each in values["Expires"]:
        _check_time(each, now, wrong, lacking)
    for each in values["Preferred-Languages"]:
        bad = [tag.strip() for tag in each.split(",") if not _LANGUAGE.fullmatch(tag.strip())]
        wrong += [f"Preferred-Languages: {tag!r} is no language tag; write en, de." for tag in bad]
    for name, why in (
        ("Description", "what the probes are for"),
        ("Canonical", "where the file itself is found"),
        ("Preferred-Languages", "which languages are understood"),
    ):
        if not values[name]:
            lacking.append(f"There is no {name}: RFC 9511 says that it should tell {why}.")
    return wrong, lacking


def _parse(text: str, wrong: list[str]) -> Mapping[str, list[str]]:
    """Values by the names that we know; names differ in case as they like, and others are passed over."""
    values: dict[str, list[str]] = {name: [] for name in _KNOWN}
    spelt = {name.lower(): name for name in _KNOWN}
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        match = _FIELD.fullmatch(line)
        if match is None:
            wrong.append(f"Line {number} is no 'Name: value', and no comment: {line[:60]!r}.")
        elif (name := spelt.get(match[1].lower())) is not None:
            values[name].append(match[2].strip())
    return values


def _check_time(text: str, now: datetime, wrong: list[str], lacking: list[str]) -> None:
    try:
        expires = datetime.fromisoformat(text.upper())
    except ValueError:
        expires = None
    if expires is None or expires.tzinfo is None:
        wrong.append(f"Expires {text!r} is no time of RFC 3339; write 2027-01-31T00:00:00Z.")
    elif expires <= now:
        wrong.append(f"It expired on {expires:%Y-%m-%d}: nobody will believe it any more.")
    elif expires > now + _MOST_VALID:
        lacking.append(f"It is valid until {expires:%Y-%m-%d}: RFC 9116 says that a year is the most it should be.")


def _uri(contact: str) -> str:
    """A contact as a URI; a bare e-mail address becomes one."""
    return f"mailto:{contact}" if re.fullmatch(r"[^\s:/@]+@[^\s:/@]+", contact) else contact


def _is_contact(text: str) -> bool:
    address = re.fullmatch(r"mailto:[^\s@]+@[^\s@]+|tel:\+?[0-9().-]+|https://\S+", text, re.IGNORECASE)
    return address is not None


def parse_expires(text: str) -> datetime:
    """A date, or a time with its zone, as somebody types it.

    Raises:
        ConfigError: it is neither.
    """
    try:
        parsed = datetime.fromisoformat(text)
    except ValueError:
        raise ConfigError(f"{text!r} is no date; write 2027-01-31.") from None
    return parsed if parsed.tzinfo is not None else parsed.replace(tzinfo=UTC)
