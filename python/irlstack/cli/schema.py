"""`irlstack schema`."""

import json
from typing import Annotated, Any, Literal

from cyclopts import Parameter

import irlstack as irl
from irlstack.cli import console
from irlstack.cli.status import ExitStatus


def schema(
    name: Literal["scan", "exchange"] = "scan",
    /,
    *,
    probe_module: Annotated[str | None, Parameter(alias="-M")] = None,
    ipv6: Annotated[bool, Parameter(alias="-6")] = False,
    json_output: Annotated[bool, Parameter(name="--json")] = False,
) -> ExitStatus:
    """Show the columns of results, with their types and meaning. They are versioned.

    Args:
        name: Of which results: scan (the default) or exchange.
        probe_module: Of a scan with this probe; without it of all.
        ipv6: Of an IPv6 run.
        json_output: Print them as JSON.
    """
    family: Literal["ipv4", "ipv6"] = "ipv6" if ipv6 else "ipv4"
    probe = probe_module or "tcp_synscan"
    if name == "scan":
        columns, version = irl.scan_fields(family, probe), irl.SCHEMA_VERSION
    else:
        columns, version = irl.exchange_fields(family), irl.EXCHANGE_SCHEMA_VERSION
    if json_output:
        console.put(json.dumps(columns) + "\n")
        return ExitStatus.DONE
    console.put(f"{name}, version {version}; columns marked * are there unless others are asked for\n\n")
    _show(columns)
    if name == "scan" and probe_module is None:
        for other, _ in irl.Probe.meanings():
            if own := irl.scan_fields(family, other)[len(columns) :]:
                console.put(f"\nof {other} also\n\n")
                _show(own)
    return ExitStatus.DONE


def _show(columns: list[dict[str, Any]]) -> None:
    """A line each."""
    width = max(17, *(len(each["name"]) for each in columns))
    for each in columns:
        null = " or null" if each["nullable"] else ""
        mark = "*" if each["default"] else " "
        console.put(f"{mark} {each['name']:<{width}} {each['type'] + null:<24} {each['meaning']}\n")
