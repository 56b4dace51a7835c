"""Who probes, told to whoever is probed: the Probe Description File of RFC 9511, `probing.txt`.

By its section 2.2 the file has the format of `security.txt` (RFC 9116, section 4) and should have the fields Canonical,
Contact, Expires and Preferred-Languages of that, and one more in one line, Description. By section 3 it is found at
`/.well-known/probing.txt`, over HTTPS, of the name that the reverse DNS of a probe's source gives, and of that address
itself. The sections named below are those of RFC 9116 where nothing else is said.
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
"""How long a file is valid when nothing else was said; section 2.5.5 recommends less than a year."""
_MOST_VALID = timedelta(days=365)
_KNOWN = ("Canonical", "Contact", "Expires", "Preferred-Languages", "Description")
_FIELD = re.compile(r"([!-9;-~]+): (.*)")
"""Section 4: a name, a colon, one space, the value."""
_URI = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):(?:[A-Za-z0-9._~:/?#\[\]@!$&'()*+,;=-]|%[0-9A-Fa-f]{2})+")
"""RFC 3986, section 3, less what only a parser of its own would find."""
_DATE_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)", re.IGNORECASE)
"""RFC 3339, section 5.6."""
_SIGNED = re.compile(
    r"-----BEGIN PGP SIGNED MESSAGE-----\r?\n(?:[^\r\n]+\r?\n)*\r?\n(.*?)-----BEGIN PGP SIGNATURE-----\r?\n"
    r".*?-----END PGP SIGNATURE-----\s*",
    re.DOTALL,
)
"""A cleartext signature (RFC 4880, section 7) around the file."""
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
        contact: an e-mail address, or a URI (mailto:, tel:, https:). A group's: section 7 of RFC 9511 advises against
            what identifies a person.
        description: in a line, what the probes are for.
        opt_out: in a line, how a network gets out of it; becomes part of the description.
        canonical: the https URI at which the file is found, or several with spaces between them: one that is read
            elsewhere should not be trusted (section 2.5.2).
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
        values = [
            *(("Canonical", each) for each in (self.canonical or "").split()),
            ("Contact", _uri(self.contact)),
            ("Expires", f"{expires.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"),
            ("Preferred-Languages", self.languages),
            ("Description", " ".join(each for each in told if each)),
        ]
        for name, value in values:
            if value and not value.isprintable():
                raise ConfigError(f"{name} has to be one line of printable text.")
        lines = [f"{name}: {value}" for name, value in values if value]
        text = "\n".join(["# Who probes: RFC 9511.", *lines, ""])
        wrong, _ = check(text, now)
        if wrong:
            raise ConfigError(" ".join(wrong))
        return text


def check(text: str, now: datetime | None = None) -> tuple[list[str], list[str]]:
    r"""What is wrong with a probing.txt, and what it should have and has not; a sentence each.

    Around the file there may be a signature (section 2.3); it is not verified.

    >>> check("Contact: mailto:scan@example.org\n")[0]
    ['There is no Expires: section 2.5.5 of RFC 9116 wants one, a time as 2027-01-31T00:00:00Z.']
    """
    now = now or datetime.now(UTC)
    wrong: list[str] = []
    lacking: list[str] = []
    values = _parse(text, wrong, lacking)
    if not values["Contact"]:
        wrong.append(
            "There is no Contact: section 2.5.3 of RFC 9116 wants at least one, a URI such as mailto:scan@example.org."
        )
    for name in ("Contact", "Canonical"):
        for each in values[name]:
            _check_uri(name, each, wrong)
    for name, section in (("Expires", "2.5.5"), ("Preferred-Languages", "2.5.8")):
        if len(values[name]) > 1:
            wrong.append(f"{name} is there {len(values[name])} times; section {section} of RFC 9116 allows one.")
    if not values["Expires"]:
        wrong.append("There is no Expires: section 2.5.5 of RFC 9116 wants one, a time as 2027-01-31T00:00:00Z.")
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
            lacking.append(f"There is no {name}: section 2.2 of RFC 9511 says that it should tell {why}.")
    return wrong, lacking


def _parse(text: str, wrong: list[str], lacking: list[str]) -> Mapping[str, list[str]]:
    """Values by the names that we know; names differ in case as they like, and others are passed over (section 2.4)."""
    values: dict[str, list[str]] = {name: [] for name in _KNOWN}
    spelt = {name.lower(): name for name in _KNOWN}
    if (signed := _SIGNED.fullmatch(text)) is not None:
        lacking.append("It is signed; whether the signature is good was not looked at.")
        text = re.sub(r"(?m)^- ", "", signed[1])
    if text and not text.endswith("\n"):
        wrong.append("The last line has no end: section 2.2 of RFC 9116 wants a line feed after every line.")
    for number, raw in enumerate(text.removesuffix("\n").split("\n"), 1):
        line = raw.removesuffix("\r").rstrip(" \t")
        if not line or (line.startswith("#") and line.replace("\t", " ").isprintable()):
            continue
        match = _FIELD.fullmatch(line) if line.replace("\t", " ").isprintable() else None
        if match is None:
            wrong.append(f"Line {number} is no 'Name: value', and no comment: {line[:60]!r}.")
        elif (name := spelt.get(match[1].lower())) is not None:
            values[name].append(match[2])
    return values


def _check_uri(name: str, text: str, wrong: list[str]) -> None:
    section = "2.5.3" if name == "Contact" else "2.5.2"
    match = _URI.fullmatch(text)
    if match is None:
        wrong.append(
            f"{name} {text!r} is no URI, as section {section} of RFC 9116 wants; mailto:, tel: and https: are."
        )
    elif match[1].lower() == "http" or (match[1].lower() == "https" and not text.startswith("https://")):
        wrong.append(f"{name} {text!r} has to begin with https:// (section {section} of RFC 9116).")


def _check_time(text: str, now: datetime, wrong: list[str], lacking: list[str]) -> None:
    try:
        expires = datetime.fromisoformat(text.upper()) if _DATE_TIME.fullmatch(text) else None
    except ValueError:
        expires = None
    if expires is None:
        wrong.append(f"Expires {text!r} is no time of RFC 3339; write 2027-01-31T00:00:00Z.")
    elif expires <= now:
        wrong.append(f"It expired on {expires:%Y-%m-%d}: nobody will believe it any more.")
    elif expires >= now + _MOST_VALID:
        lacking.append(f"It is valid until {expires:%Y-%m-%d}: section 2.5.5 of RFC 9116 recommends less than a year.")


def _uri(contact: str) -> str:
    """A contact as a URI; a bare e-mail address becomes one."""
    return f"mailto:{contact}" if re.fullmatch(r"[^\s:/@]+@[^\s:/@]+", contact) else contact


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
