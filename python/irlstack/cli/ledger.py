"""`irlstack ledger`."""

import json
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from irlstack.cli import console
from irlstack.cli.status import ExitStatus
from irlstack.errors import ConfigError
from irlstack.ledger import Entry, Ledger


def ledger(
    target: str, /, *folders: Path, json_output: Annotated[bool, Parameter(name="--json")] = False
) -> ExitStatus:
    """Tell whether, when and why an address was probed, from the plans and the metadata of runs in some folders.

    Exits 0 if it was, 1 if it was not, and 5 if that cannot be told of every run.

    Args:
        target: ADDRESS:PORT, or ADDRESS for all ports.
        folders: Where plans (.toml) and metadata (.json) are, also in folders inside.
        json_output: Print what was found as JSON.
    """
    if not folders:
        raise ConfigError("Name the folders in which the plans and the metadata of runs are.")
    book = Ledger.of(*folders)
    entries = list(book.find(target))
    if json_output:
        console.put(json.dumps([_as_json(entry) for entry in entries]) + "\n")
    else:
        for entry in entries:
            console.put(_as_text(entry))
    for path, why in book.passed_over.items():
        console.complain(f"passed over {path}: {why}")
    orphans = book.without_plan()
    for path in orphans:
        console.complain(f"{path} is about a run whose plan is not here: what it probed cannot be told.")
    if entries:
        return ExitStatus.DONE
    known = len(book.runs) - len(orphans)
    console.say(f"{target} was not probed by {'the one run' if known == 1 else f'any of the {known} runs'} known here.")
    return ExitStatus.INCOMPLETE if orphans or book.passed_over else ExitStatus.FAILED


def _as_text(entry: Entry) -> str:
    run = entry.run
    (after, until), *later = entry.probed
    lines = [f"{entry.target} was probed between {after.isoformat()} and {until.isoformat()}"]
    lines += [
        f"  and, if it had not answered, again between {after.isoformat()} and {until.isoformat()}"
        for after, until in later
    ]
    if run.get("synthetic"):
        lines.append("  synthetic: no frame left the machine")
    if refused := run.get("stats", {}).get("probes_refused_by_policy"):
        lines.append(f"  unless it is among the {refused:,} probes that the policy held back in this run")
    sources = ", ".join(run.get("source_ips") or ["an address not recorded"])
    lines.append(f"  by {run.get('probe_module', 'a probe not recorded')} from {sources}")
    for label, key in (("why", "notes"), ("authorised by", "authorized"), ("contact", "contact")):
        lines.append(f"  {label}: {run.get(key) or 'not recorded'}")
    lines.append(f"  known from {entry.where} and {entry.plan}")
    return "\n".join(lines) + "\n"


def _as_json(entry: Entry) -> dict[str, Any]:
    names = ("synthetic", "probe_module", "source_ips", "notes", "authorized", "contact", "user-metadata")
    return {
        "target": entry.target,
        "probed": [{"after": after.isoformat(), "until": until.isoformat()} for after, until in entry.probed],
        **{name: entry.run.get(name) for name in names},
        "probes_refused_by_policy": entry.run.get("stats", {}).get("probes_refused_by_policy"),
        "plan_fingerprint": entry.run["plan_fingerprint"],
        "metadata_file": str(entry.where),
        "plan_file": str(entry.plan),
    }
