"""Other people's tools, where they are installed: in the folder PEERS_DIR or on PATH."""

import os
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

ZMAP_AT_LEAST = 4
_ZMAP_4_YEAR = 2024
"""Builds between releases carry no version, but the date of their last commit; ZMap 4.0 came out in 2024."""
_DATE = re.compile(r"\b(20\d\d)\b(?!\.)")
_ANSWER_WITHIN_S = 10.0


@dataclass(frozen=True)
class Peer:
    """An installed tool and what it calls its version."""

    path: Path
    version: str


def find(names: Sequence[str], environ: Mapping[str, str] = os.environ) -> tuple[dict[str, Peer], dict[str, str]]:
    """Those of the tools that there are, by name, and for each that is not there why."""
    found, missing = {}, {}
    folders = [folder for folder in (environ.get("PEERS_DIR"), environ.get("PATH")) if folder]
    for name in names:
        path = next((path for folder in folders if (path := shutil.which(name, path=folder))), None)
        if path is None:
            missing[name] = f"there is no {name} in PEERS_DIR or PATH"
            continue
        try:
            said = subprocess.run(  # noqa: S603 - the tool that the user put there
                [path, "--version"], capture_output=True, text=True, check=False, timeout=_ANSWER_WITHIN_S
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            missing[name] = f"{path} does not run: {error}"
            continue
        version = version_in(f"{said.stdout}\n{said.stderr}", name)
        why = too_old(version) if name == "zmap" else None
        if why is None:
            found[name] = Peer(Path(path), version)
        else:
            missing[name] = f"{path}: {why}"
    return found, missing


def version_in(text: str, name: str) -> str:
    r"""The version, in the line in which a program names itself.

    >>> version_in("\nMasscan version 1.3.2 ( https://... )\nCompiled on", "masscan")
    '1.3.2'
    >>> version_in("zmap Development Build. Commit 8de8833 - Thu Apr 30 23:04:25 2026", "zmap")
    'Development Build. Commit 8de8833 - Thu Apr 30 23:04:25 2026'
    """
    own = re.compile(rf"{re.escape(name)}\s+(?:version\s+)?(.+)", re.IGNORECASE)
    lines = [match[1] for line in text.splitlines() if (match := own.match(line.strip()))]
    return lines[0].partition(" (")[0].strip() if lines else "unknown"


def too_old(version: str) -> str | None:
    """Why a ZMap of this version is no peer; None when it is one.

    >>> too_old("4.3.4")
    >>> too_old("2.1.1")
    'version 2.1.1 is older than ZMap 4, which sends in batches: build a newer one'
    """
    number = re.search(r"\b(\d+)\.\d+", version)
    date = _DATE.search(version)
    if number is not None:
        new = int(number[1]) >= ZMAP_AT_LEAST
    elif date is not None:
        new = int(date[1]) >= _ZMAP_4_YEAR
    else:
        return f"it does not tell its version, and only ZMap {ZMAP_AT_LEAST} or later is compared with"
    if new:
        return None
    return f"version {version} is older than ZMap {ZMAP_AT_LEAST}, which sends in batches: build a newer one"
