"""`irlstack ledger`."""

import json
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from irlstack.cli import console
from irlstack.cli.status import ExitStatus
from irlstack.errors import ConfigError
from irlstack.ledger import Entry, Ledger, Moment, parse


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
    parse(target)
    book = Ledger.of(*folders)
    entries = list(book.find(target))
    if json_output:
        console.put(json.dumps([_as_json(entry) for entry in entries]) + "\n")
    else:
        for entry in entries:
            console.put(_as_text(entry))
    for path, why in book.passed_over.items():
        console.complain(f"passed over {path}: {why}")
    orphans, listed, unknown = book.without_plan(target), book.with_list(), book.without_run(target)
    for path in orphans:
        console.complain(f"{path} is about a run whose plan is not here: what it probed cannot be told.")
    for path in listed:
        console.complain(f"{path} is about a run that followed a list: look into the list, or the rows.")
    for path in unknown:
        console.complain(
            f"{path} is a plan to probe it, and no run of that shard is here: whether there was one cannot be told."
        )
    if entries:
        return ExitStatus.DONE
    known = len(book.runs) - len({*orphans, *listed})
    console.say(f"{target} was not probed by {'the one run' if known == 1 else f'any of the {known} runs'} known here.")
    told = not (orphans or listed or unknown or book.passed_over)
    return ExitStatus.FAILED if told else ExitStatus.INCOMPLETE


def _as_text(entry: Entry) -> str:
    run = entry.run
    first, *later = entry.probed
    lines = [f"{entry.target} was probed {_between(first)}"]
    lines += [f"  and, if it had not answered, again {_between(again)}" for again in later]
    if run.get("synthetic"):
        lines.append("  synthetic: no frame left the machine")
    if refused := run.get("stats", {}).get("probes_refused_by_policy"):
        lines.append(f"  unless it is among the {refused:,} probes that the policy held back in this run")
    if (clock := run.get("clock")) and not clock["synchronised"]:
        lines.append("  by a clock that was not known to be in step with UTC")
    sources = ", ".join(run.get("source_ips") or ["an address not recorded"])
    lines.append(f"  by {run.get('probe_module', 'a probe not recorded')} from {sources}")
    for label, key in (("why", "notes"), ("authorised by", "authorized"), ("contact", "contact")):
        lines.append(f"  {label}: {run.get(key) or 'not recorded'}")
    lines.append(f"  known from {entry.where} and {entry.plan}")
    return "\n".join(lines) + "\n"


def _between(moment: Moment) -> str:
    perhaps = "" if moment.certain else ", or not any more: it may have been among those that waited when the run ended"
    return f"between {moment.after.isoformat()} and {moment.until.isoformat()}{perhaps}"


def _as_json(entry: Entry) -> dict[str, Any]:
    names = ("synthetic", "probe_module", "source_ips", "notes", "authorized", "contact", "user-metadata")
    return {
        "target": entry.target,
        "probed": [
            {"after": each.after.isoformat(), "until": each.until.isoformat(), "certain": each.certain}
            for each in entry.probed
        ],
        **{name: entry.run.get(name) for name in names},
        "probes_refused_by_policy": entry.run.get("stats", {}).get("probes_refused_by_policy"),
        "plan_fingerprint": entry.run["plan_fingerprint"],
        "metadata_file": str(entry.where),
        "plan_file": str(entry.plan),
    }
