"""Other people's scanners, where they are installed: in the folder PEERS_DIR or on PATH."""

import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

ZMAP_AT_LEAST = 4
_ZMAP_4_YEAR = 2024
"""Builds between releases carry no version, but the date of their last commit; ZMap 4.0 came out in 2024."""
_DATE = re.compile(r"\b(20\d\d)\b(?!\.)")


@dataclass(frozen=True)
class Peer:
    """An installed scanner and what it calls its version."""

    name: str
    path: Path
    version: str


def find(environ: Mapping[str, str] = os.environ) -> tuple[dict[str, Peer], dict[str, str]]:
    """The peers there are by name, and for each that is not why."""
    found, missing = {}, {}
    for name in ("masscan", "zmap"):
        places = [folder for folder in (environ.get("PEERS_DIR"), environ.get("PATH")) if folder]
        path = next((path for folder in places if (path := shutil.which(name, path=folder))), None)
        if path is None:
            missing[name] = f"there is no {name} in PEERS_DIR or PATH"
            continue
        said = subprocess.run([path, "--version"], capture_output=True, text=True, check=False)  # noqa: S603
        version = first_line(said.stdout + "\n" + said.stderr, name)
        why = too_old(version) if name == "zmap" else None
        if why is None:
            found[name] = Peer(name, Path(path), version)
        else:
            missing[name] = f"{path}: {why}"
    return found, missing


def first_line(text: str, name: str) -> str:
    r"""The line in which a program names itself.

    >>> first_line("\nMasscan version 1.3.2 ( https://... )\nCompiled on", "masscan")
    'Masscan version 1.3.2'
    """
    lines = [line.strip() for line in text.splitlines() if line.strip().lower().startswith(name)]
    return lines[0].partition(" (")[0] if lines else "unknown version"


def too_old(version: str) -> str | None:
    """Why a ZMap of this version is no peer; None when it is one.

    >>> too_old("zmap 4.3.4")
    >>> too_old("zmap 2.1.1")
    "'zmap 2.1.1' is older than ZMap 4, which sends in batches: build a newer one"
    """
    number = re.search(r"\b(\d+)\.\d+", version)
    date = _DATE.search(version)
    if number is not None:
        new = int(number[1]) >= ZMAP_AT_LEAST
    elif date is not None:
        new = int(date[1]) >= _ZMAP_4_YEAR
    else:
        return f"{version!r} does not tell its version, and only ZMap {ZMAP_AT_LEAST} or later is compared with"
    return None if new else f"{version!r} is older than ZMap {ZMAP_AT_LEAST}, which sends in batches: build a newer one"
