"""`irlstack identity`."""

import sys
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from irlstack.cli import console
from irlstack.cli.options import STANDARD_STREAM
from irlstack.cli.status import ExitStatus
from irlstack.errors import ConfigError
from irlstack.identity import WELL_KNOWN, Identity, parse_expires
from irlstack.identity import check as check_text


def identity(
    *,
    contact: str | None = None,
    description: str | None = None,
    opt_out: str | None = None,
    canonical: str | None = None,
    languages: str | None = None,
    expires: str | None = None,
    output_file: Annotated[Path | None, Parameter(alias="-o")] = None,
    check: Path | None = None,
    config: Path | None = None,
) -> ExitStatus:
    """Write a probing.txt (RFC 9511): who probes, and why, for those who are probed.

    What is not given comes from the table [identity] of irlstack.toml, the contact also from [policy].

    Args:
        contact: Whom to write to: an e-mail address or an https URL.
        description: What the probes are for, in a line.
        opt_out: How a network gets out of it, in a line.
        canonical: The https URL at which the file will be found, or several with spaces between.
        languages: What the contact understands: en, de.
        expires: Until when it is valid, as 2027-01-31. Default: 180 days.
        output_file: Write it there. Default: stdout.
        check: Look at a file instead; - is stdin. Exits 1 if it is not valid.
        config: Read this irlstack.toml instead of the system's, yours and the project's.
    """
    given = Identity(
        contact=contact, description=description, opt_out=opt_out, canonical=canonical, languages=languages
    )
    if check is not None:
        if given != Identity() or expires is not None or output_file is not None:
            raise ConfigError("--check looks at a file that is there: leave the other options out.")
        return _look(check)
    text = given.over(Identity.from_config(config)).text(expires=parse_expires(expires) if expires else None)
    if output_file is None:
        console.put(text)
    else:
        output_file.write_text(text, encoding="utf-8")
    for each in check_text(text)[1]:
        console.say(each)
    console.say(
        f"Serve it over HTTPS as {WELL_KNOWN} of the addresses that probes come from, or of their names, as text/plain "
        "in UTF-8."
    )
    return ExitStatus.DONE


def _look(path: Path) -> ExitStatus:
    """Says what is wrong with a file."""
    raw = sys.stdin.buffer.read() if str(path) == STANDARD_STREAM else path.read_bytes()
    try:
        wrong, lacking = check_text(raw.decode("utf-8"))
    except UnicodeDecodeError:
        wrong, lacking = ["It is not UTF-8."], []
    for each in wrong:
        console.complain(each)
    for each in lacking:
        console.say(each)
    if not wrong:
        console.say("It is valid.")
    return ExitStatus.FAILED if wrong else ExitStatus.DONE
