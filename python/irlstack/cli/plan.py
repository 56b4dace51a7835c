"""`irlstack plan` and `irlstack when`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from cyclopts import Group, Parameter

import irlstack as irl
from irlstack.cli import console, frames, quantity
from irlstack.cli.options import STANDARD_STREAM, PlanOptions, bits_on_the_wire
from irlstack.cli.status import ExitStatus
from irlstack.errors import ConfigError

DEFAULT_RATE = 10_000
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
    made = options.make(targets, irl.Policy.from_config(output.config))
    if output.first is not None and not output.list_targets:
        raise ConfigError("--first goes with --list.")
    if output.list_targets:
        for lines in made.targets(count=output.first, shard=output.shard).lines():
            console.put(lines)
        return ExitStatus.DONE
    if output.dryrun:
        for line in summary(made, output.shard):
            console.say(line)
        show_frames(made, output.shard)
        return ExitStatus.DONE
    path = output.output_file or Path("plan.toml")
    if str(path) == STANDARD_STREAM:
        console.put(made.to_toml())
        return ExitStatus.DONE
    if path.exists():
        raise ConfigError(f"{path} is there already; remove it, or name another file with -o.")
    made.counts()  # an empty plan is no plan
    made.save(path)
    for line in summary(made, output.shard):
        console.say(line)
    console.say(f"plan         {path}, to be run by: irlstack scan --plan {path}")
    return ExitStatus.DONE


def summary(plan: irl.Plan, shard: int = 0) -> list[str]:
    """What a plan comes to, as lines of words."""
    counts, probes = plan.counts(), len(plan.targets(shard=shard)) * plan.probes
    cut = [
        f"{quantity.show_count(counts[key])} {what}"
        for key, what in (("special", "special-purpose"), ("denied", "denied"), ("duplicates", "repeated"))
        if counts[key]
    ]
    addresses = f"{quantity.show_count(counts['kept'])} of {quantity.show_count(counts['asked'])}"
    lines = [
        f"fingerprint  {plan.fingerprint()[:16]} (seed {plan.seed})",
        f"probe        {plan.probe}" + "".join(f" {name}={value}" for name, value in plan.probe_args.items()),
        f"addresses    {addresses}" + (f" ({', '.join(cut)})" if cut else ""),
    ]
    if plan.ports is not None:
        lines.append(f"ports        {plan.ports}")
    shards = f" in shard {shard} of {plan.shards}" if plan.shards > 1 else ""
    lines.append(f"probes       {probes:,}{shards}")
    rate = DEFAULT_RATE if plan.rate is None else plan.rate
    if rate:
        bits = quantity.show_rate(rate * bits_on_the_wire(plan.frame_len), "bit/s")
        lines.append(f"rate         {quantity.show_rate(rate, 'pps')}, {bits} on the wire")
        lines.append(f"duration     {quantity.show_seconds(probes / rate)}, and the cooldown")
    else:
        lines.append("rate         as fast as goes without loss of our own")
    return lines


def show_frames(plan: irl.Plan, shard: int) -> None:
    """The first ten frames, a line each, on stdout."""
    for frame in plan.frames(10, shard):
        console.put(frames.describe(frame) + "\n")


def when(plan: Path, target: str, /) -> ExitStatus:
    """Tell at which position of a plan a target is probed.

    Args:
        plan: The plan file.
        target: ADDRESS:PORT, or ADDRESS where the probe has no port.
    """
    made = irl.Plan.load(plan)
    found = made.find(target)
    if found is None:
        console.say(f"{target} is not a target of {plan}.")
        return ExitStatus.FAILED
    shard, position = found
    of = f" of shard {shard} of {made.shards}" if made.shards > 1 else ""
    console.put(f"{target} is at position {position}{of}\n")
    return ExitStatus.DONE
