"""`irlstack schema`."""

import json
from typing import Annotated, Literal

from cyclopts import Parameter

import irlstack as irl
from irlstack.cli import console
from irlstack.cli.status import ExitStatus


def schema(
    name: Literal["scan", "exchange"] = "scan",
    /,
    *,
    ipv6: Annotated[bool, Parameter(alias="-6")] = False,
    json_output: Annotated[bool, Parameter(name="--json")] = False,
) -> ExitStatus:
    """Show the columns of results, with their types and meaning. They are versioned.

    Args:
        name: Of which results: scan (the default) or exchange.
        ipv6: Of an IPv6 run.
        json_output: Print them as JSON.
    """
    fields, version = {
        "scan": (irl.scan_fields, irl.SCHEMA_VERSION),
        "exchange": (irl.exchange_fields, irl.EXCHANGE_SCHEMA_VERSION),
    }[name]
    columns = fields("ipv6" if ipv6 else "ipv4")
    if json_output:
        console.put(json.dumps(columns) + "\n")
        return ExitStatus.DONE
    console.put(f"{name}, version {version}; columns marked * are there unless others are asked for\n\n")
    for each in columns:
        null = " or null" if each["nullable"] else ""
        mark = "*" if each["default"] else " "
        console.put(f"{mark} {each['name']:<17} {each['type'] + null:<24} {each['meaning']}\n")
    return ExitStatus.DONE
