"""`irlstack scan`."""

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from cyclopts import Parameter

import irlstack as irl
from irlstack.cli import console, dryrun, quantity, running
from irlstack.cli.options import SENDING, PlanOptions
from irlstack.cli.running import OTHER, OUTPUT, OtherOptions, OutputOptions, SendingOptions
from irlstack.cli.status import ExitStatus


@Parameter(name="*")
@dataclass(kw_only=True)
class _Scanning:
    reprobe: Annotated[int, Parameter(group=SENDING)] = 0
    """How often to probe again those that have not answered, in passes that begin 1 s after one another, or sooner with
    a shorter cooldown. Default 0."""
    no_rst: Annotated[bool, Parameter(group=SENDING)] = False
    """Do not answer SYN-ACKs with a RST."""
    max_memory: Annotated[str, Parameter(group=SENDING)] = "1G"
    """For the map of targets that have answered. Default 1G."""
    dedup_method: Annotated[Literal["default", "full", "window", "none"], Parameter(group=SENDING)] = "default"
    """full: every repeat is recognised, or the run refused where --max-memory is too little; window: repeats of the
    targets that answered last; none: repeats are rows too. The default is full where it fits, otherwise window."""
    rows: Annotated[Literal["success", "all"], Parameter(group=OUTPUT)] = "success"
    """success (the default): each target once; all: every answer."""
    list_probe_modules: Annotated[bool, Parameter(group=OTHER)] = False
    """Show the probes there are."""


def scan(
    *targets: str,
    options: PlanOptions | None = None,
    sending: SendingOptions | None = None,
    scanning: _Scanning | None = None,
    output: OutputOptions | None = None,
    other: OtherOptions | None = None,
) -> ExitStatus:
    """Probe targets and write down who answered. Option names are ZMap's.

    Global addresses need --contact, --blocklist-file, --rate and --authorized.

    Args:
        targets: Prefixes, addresses, ranges; - reads a list from standard input. None: all of IPv4.
        options: What is planned.
        sending: How it is sent.
        scanning: What is done with answers.
        output: What comes out.
        other: The rest.
    """
    options, sending, scanning = options or PlanOptions(), sending or SendingOptions(), scanning or _Scanning()
    output, other = output or OutputOptions(), other or OtherOptions()
    if scanning.list_probe_modules:
        console.put("".join(f"{name:<15} {meaning}\n" for name, meaning in irl.Probe.meanings()))
        return ExitStatus.DONE
    if options.probe_args == "template-fields":
        console.put("".join(f"${{{name}}}".ljust(18) + f"{meaning}\n" for name, meaning in irl.Probe.template_fields()))
        return ExitStatus.DONE
    if other.list_output_fields:
        return running.show_fields(irl.scan_fields())
    policy = other.policy(options)
    made = options.make(targets, policy)
    if other.dryrun:
        dryrun.show(made, other.shard, scanning.reprobe)
        return ExitStatus.DONE
    with running.logging_as_asked(output):
        run = irl.scan(
            **running.keywords(made, policy, sending, output, other.shard),
            reprobe=scanning.reprobe,
            no_rst=scanning.no_rst,
            rows=scanning.rows,
            # ZMap's habit: without a file, the address alone.
            output_fields=running.fields(output, ["saddr"]),
            max_memory=int(quantity.parse_number("--max-memory", scanning.max_memory)),
            dedup_method=scanning.dedup_method,
        )
        run.about.seed_provided = options.seed is not None or options.plan is not None
        return running.record(run, output, closing_words)


def closing_words(summary: dict[str, Any]) -> str:
    """`1,048,576 probes in 10.5 s (100 kpps, packet), 1,048,576 found (100.00 %)`."""
    rate = quantity.show_rate(summary["send_rate"], "pps")
    synthetic = ", synthetic" if summary["synthetic"] else ""
    return (
        f"{summary['sent']:,} probes in {quantity.show_seconds(summary['send_s'])} "
        f"({rate}, {summary['engine']}{synthetic}), {summary['found']:,} found ({summary['hitrate']:.2f} %)"
    )
