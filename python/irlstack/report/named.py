"""What was named: the targets of a run, whom it left alone, and how it spared networks, from its metadata."""

from collections.abc import Mapping
from typing import Any

_MOST_NAMED = 12
"""So many prefixes stand in a sentence; of more, the first ones, their number and hash."""


def targets(document: Mapping[str, Any], most: int = _MOST_NAMED) -> str | None:
    """What was named as targets; None where the metadata, of an older version, do not tell."""
    of = document.get("targets")
    if of is None:
        return None
    given, count = list(of["given"]), of["given_count"]
    parts = []
    if given and count <= most:
        parts.append(", ".join(given))
    elif given:
        hashed = of["given_sha256"]
        parts.append(f"{', '.join(given[:most])} and {count - most:,} more (SHA-256 of all, a line each: {hashed})")
    parts += [f"the allow file {_file(each)}" for each in of["allow_files"]]
    if of["list"] is not None:
        parts.append(f"the list {_file(of['list'])}")
    return " and ".join(parts) or "all addresses"


def deny_files(document: Mapping[str, Any]) -> list[str]:
    """The deny files, each with its hash and, where that is known, how many addresses it has."""
    return [f"{_file(each)}{_addresses(each)}" for each in document.get("deny_files") or []]


def optout(document: Mapping[str, Any]) -> str | None:
    """The opt-out file and what of it held when it was read; "none", or None where the metadata do not tell."""
    if "optout_file" not in document:
        return None
    of = document["optout_file"]
    if of is None:
        return "none"
    expired = f" and {of['expired']:,} that had expired" if of["expired"] else ""
    text = f"{_file(of)}, with {of['lines']:,} lines in force{expired} when the run began"
    if times := of["reread_count"]:
        last = of["reread"][-1]
        often = "once" if times == 1 else f"{times:,} times"
        text += f"; it changed and was read again {often}, at last with {last['lines']:,} lines in force"
    return text


def budget(document: Mapping[str, Any]) -> str | None:
    """How much a network got at most; "none", or None where the metadata do not tell."""
    if "prefix_budget" not in document:
        return None
    rate = document["prefix_budget"]
    if rate is None:
        return "none"
    of = document.get("targets") or {}
    prefix = "/48" if of.get("family") == "ipv6" else "/24"
    return f"{rate:,g} probes/s to each {prefix}"


def _file(of: Mapping[str, Any]) -> str:
    return f"{of['path']} (SHA-256 {of['sha256']})"


def _addresses(of: Mapping[str, Any]) -> str:
    count = of.get("addresses")
    return "" if count is None else f" of {int(count):,} addresses"
