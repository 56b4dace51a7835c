"""`irlstack doctor`."""

import dataclasses
import json
from typing import Annotated

from cyclopts import Parameter

from irlstack import doctor as examination
from irlstack.cli import console
from irlstack.cli.status import ExitStatus


def doctor(*, json_output: Annotated[bool, Parameter(name="--json")] = False) -> ExitStatus:
    """Show what this machine can do, and the line that mends what it cannot.

    Args:
        json_output: Print it as JSON.
    """
    report = examination.examine()
    if json_output:
        console.put(json.dumps(dataclasses.asdict(report)) + "\n")
        return ExitStatus.DONE
    for name, version in report.versions.items():
        console.put(f"{name:<11} {version}\n")
    console.put("\n")
    for check in report.checks:
        console.put(f"{'ok' if check.fine else 'NO':<3} {check.what}: {check.found}\n")
        for number, line in enumerate(check.mend.splitlines()):
            console.put(f"    {'or:  ' if number else 'mend:'} {line}\n")
    console.put("\n")
    for each in report.interfaces:
        route = ", default route" if each["default_route"] else ""
        where = " ".join(each["addresses"]) or "no address"
        driver = (each["driver"] or "no driver") + ("" if each["up"] else ", down")
        console.put(f"{each['name']:<11} {driver}, {each['rx_queues']} queues, mtu {each['mtu']}, {where}{route}\n")
    console.put(f"engines     {', '.join(report.engines)}\n")
    for engine, reason in report.passed_over.items():
        console.put(f"not {engine:<7} {reason}\n")
    return ExitStatus.DONE
