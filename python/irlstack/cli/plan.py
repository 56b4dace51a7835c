"""`irlstack plan` and `irlstack when`."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Group, Parameter

import irlstack as irl
from irlstack import ledger
from irlstack.cli import console, dryrun
from irlstack.cli.options import STANDARD_STREAM, PlanOptions
from irlstack.cli.status import ExitStatus
from irlstack.errors import ConfigError

_OUTPUT = Group("What comes out", sort_key=4)


@Parameter(name="*")
@dataclass(kw_only=True)
class _Output:
    output_file: Annotated[Path | None, Parameter(alias="-o", group=_OUTPUT)] = None
    """Where the plan goes, readable by you only. Default plan.toml; an existing file is left alone."""
    dryrun: Annotated[bool, Parameter(alias="-d", group=_OUTPUT)] = False
    """Write nothing; show counts, duration, bandwidth and the first ten frames."""
    list_targets: Annotated[bool, Parameter(name="--list", group=_OUTPUT)] = False
    """Write nothing; print the targets in the order they are probed."""
    first: Annotated[int | None, Parameter(group=_OUTPUT)] = None
    """With --list: only the first so many."""
    shard: Annotated[int, Parameter(group=_OUTPUT)] = 0
    """With --list and --dryrun: of which shard, from 0."""
    config: Annotated[Path | None, Parameter(group=_OUTPUT)] = None
    """Read this irlstack.toml instead of the system's, yours and the project's."""


def plan(*targets: str, options: PlanOptions | None = None, output: _Output | None = None) -> ExitStatus:
    """Write down everything that fixes a run, or look at it. Needs no privilege and sends nothing.

    Args:
        targets: Prefixes, addresses, ranges; - reads a list from standard input. None: all of IPv4.
        options: What is planned.
        output: What comes out.
    """
    options, output = options or PlanOptions(), output or _Output()
    policy = irl.Policy.from_config(output.config)
    made = options.make(targets, policy)
    if output.first is not None and not output.list_targets:
        raise ConfigError("--first goes with --list.")
    if output.list_targets:
        for lines in made.targets(count=output.first, shard=output.shard).lines():
            console.put(lines)
        return ExitStatus.DONE
    if output.dryrun:
        dryrun.show(made, policy, output.shard)
        return ExitStatus.DONE
    path = output.output_file or Path("plan.toml")
    if str(path) == STANDARD_STREAM:
        console.put(made.to_toml())
        return ExitStatus.DONE
    if path.exists():
        raise ConfigError(f"{path} is there already; remove it, or name another file with -o.")
    made.counts()  # an empty plan is no plan
    made.save(path)
    dryrun.say_summary(made, policy, output.shard)
    console.say(f"plan         {path}, to be run by: irlstack scan --plan {path}")
    return ExitStatus.DONE


def when(
    plan: Path, target: str, /, *, metadata_file: Annotated[Path | None, Parameter(alias="-m")] = None
) -> ExitStatus:
    """Tell at which position of a plan a target is probed, and given a run's metadata, when it was.

    Args:
        plan: The plan file.
        target: ADDRESS:PORT, or ADDRESS where the probe has no port.
        metadata_file: What a run of the plan wrote with --metadata-file.
    """
    made = irl.Plan.load(plan)
    found = made.find(target)
    if found is None:
        console.say(f"{target} is not a target of {plan}.")
        return ExitStatus.FAILED
    shard, position = found
    of = f" of shard {shard} of {made.shards}" if made.shards > 1 else ""
    if metadata_file is None:
        console.put(f"{target} is at position {position}{of}\n")
        return ExitStatus.DONE
    run = _run_of(made, shard, metadata_file)
    if run is None:
        console.say(f"{metadata_file} is about another shard; {target} is at position {position}{of}.")
        return ExitStatus.FAILED
    probed = list(ledger.moments(run, position))
    if not probed:
        console.say(f"{target} is at position {position}{of}, which the run did not reach.")
        return ExitStatus.FAILED
    console.put(f"{target} is at position {position}{of}, probed {_before(probed[0])}\n")
    for again in probed[1:]:
        console.put(f"and again {_before(again)}, if it had not answered until then\n")
    return ExitStatus.DONE


def _before(moment: ledger.Moment) -> str:
    """`in the second before 2026-11-25T18:47:03+00:00`; or longer, or never, where targets waited for their turn."""
    span = (moment.until - moment.after).total_seconds()
    within = "in the second" if span < 1.5 else f"in the {span:.0f} s"
    perhaps = "" if moment.certain else " or not at all"
    return f"{within} before {moment.until.isoformat()}{perhaps}"


def _run_of(plan: irl.Plan, shard: int, metadata_file: Path) -> dict[str, Any] | None:
    """The metadata, if it is of a run of this shard."""
    try:
        run: dict[str, Any] = json.loads(metadata_file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ConfigError(f"{metadata_file} is not the metadata of a run.") from error
    if not ledger.is_run(run):
        raise ConfigError(f"{metadata_file} is not the metadata of a run.")
    if run.get("unsent"):
        raise ConfigError(f"{metadata_file} is about a dry run, or answers judged again: it probed nobody.")
    if run["plan_fingerprint"] != plan.fingerprint():
        raise ConfigError(f"{metadata_file} is about a run of another plan.")
    return run if run["shard_num"] == shard else None
