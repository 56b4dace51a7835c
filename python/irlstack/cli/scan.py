"""`irlstack scan`."""

from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter

import irlstack as irl
from irlstack.checkpoint import Saved
from irlstack.cli import console, dryrun, quantity, running
from irlstack.cli.options import SENDING, STANDARD_STREAM, PlanOptions
from irlstack.cli.running import OTHER, OUTPUT, OtherOptions, OutputOptions, SendingOptions
from irlstack.cli.status import ExitStatus
from irlstack.errors import ConfigError
from irlstack.on_disk import OnDisk
from irlstack.report import losses


@Parameter(name="*")
@dataclass(kw_only=True)
class _Scanning:
    reprobe: Annotated[int, Parameter(group=SENDING)] = 0
    """How often to probe again those that have not answered. Default 0."""
    reprobe_wait: Annotated[str | None, Parameter(group=SENDING)] = None
    """How long after a pass the next one begins, 5m or 1h. Default 1 s, or the cooldown where that is shorter."""
    recheck: Annotated[str | None, Parameter(group=SENDING)] = None
    """A share of the targets, such as 0.1%, to probe once more at the end, found or not."""
    recheck_rate: Annotated[str, Parameter(group=SENDING)] = "1000"
    """Probes a second then, at most. Default 1000."""
    no_rst: Annotated[bool, Parameter(group=SENDING)] = False
    """Do not answer SYN-ACKs with a RST."""
    max_memory: Annotated[str, Parameter(group=SENDING)] = "1G"
    """For the map of targets that have answered. Default 1G."""
    dedup_method: Annotated[Literal["default", "full", "window", "none"], Parameter(group=SENDING)] = "default"
    """full: every repeat is recognised, or the run refused where --max-memory is too little; window: repeats of the
    targets that answered last; none: repeats are rows too. The default is full where it fits, otherwise window."""
    rows: Annotated[Literal["success", "all"] | None, Parameter(group=OUTPUT)] = None
    """success (the default): each target once; all: every answer."""
    output_filter: Annotated[str | None, Parameter(group=OUTPUT)] = None
    """Which answers become rows instead, in ZMap's words: 'success = 1 && ttl > 64'."""
    resume: Annotated[Path | None, Parameter(group=OTHER)] = None
    """Go on with a scan by its checkpoint. Plan, outputs and options are the checkpoint's; -r, -i and others that say
    how and not what may be given anew, and permission (--authorized) has to be."""
    list_probe_modules: Annotated[bool, Parameter(group=OTHER)] = False
    """Show the probes there are."""
    list_output_modules: Annotated[bool, Parameter(group=OTHER)] = False
    """Show the ways to write rows."""
    disable_syslog: Annotated[bool, Parameter(group=OTHER)] = False
    """For command lines of ZMap: nothing is written to syslog with it or without."""


_OUTPUT_MODULES = {
    "csv": "values with commas between them, the names of the columns in the first line",
    "json": "a JSON object a line",
    "parquet": "Parquet, compressed with zstd: to a file",
}


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
    running.begin_log(output)
    if scanning.list_probe_modules:
        console.put("".join(f"{name:<15} {meaning}\n" for name, meaning in irl.Probe.meanings()))
        return ExitStatus.DONE
    if scanning.list_output_modules:
        console.put("".join(f"{name:<8} {meaning}\n" for name, meaning in _OUTPUT_MODULES.items()))
        return ExitStatus.DONE
    if options.probe_args == "template-fields":
        console.put("".join(f"${{{name}}}".ljust(18) + f"{meaning}\n" for name, meaning in irl.Probe.template_fields()))
        return ExitStatus.DONE
    if other.list_output_fields:
        return running.show_fields(irl.scan_fields(probe_module=options.probe_module))
    if scanning.resume is not None:
        return _resume(scanning.resume, targets, options, sending, scanning, output, other)
    policy = other.policy(options)
    made = options.make(targets, policy)
    if other.dryrun:
        dryrun.show(made, policy, other.shard, scanning.reprobe)
        return ExitStatus.DONE
    run = irl.scan(
        **running.keywords(made, policy, sending, output, other.shard),
        reprobe=scanning.reprobe,
        reprobe_wait=_seconds("--reprobe-wait", scanning.reprobe_wait),
        recheck=_share(scanning.recheck),
        recheck_rate=quantity.parse_number("--recheck-rate", scanning.recheck_rate),
        no_rst=scanning.no_rst,
        **_selected(scanning),
        # ZMap's habit: without a file, the address alone.
        output_fields=running.fields(output, ["saddr"]),
        max_memory=int(quantity.parse_number("--max-memory", scanning.max_memory)),
        dedup_method=scanning.dedup_method,
    )
    run.about.seed_provided = options.seed is not None or options.plan is not None
    again = STANDARD_STREAM not in (*targets, str(options.list_of_ips_file)) and not OnDisk.named(sending.engine)
    checkpoint = output.checkpoint or (running.checkpoint_beside(output) if again else None)
    return running.record(run, output, closing_words, checkpoint=checkpoint)


def _resume(
    path: Path,
    targets: tuple[str, ...],
    options: PlanOptions,
    sending: SendingOptions,
    scanning: _Scanning,
    output: OutputOptions,
    other: OtherOptions,
) -> ExitStatus:
    """Goes on with a scan, with what may be said anew."""
    new = {"rate", "bandwidth", "contact", "resume", "max_memory", "authorized", "config", "checkpoint_interval"}
    new |= {each.name for each in fields(sending)} - {"max_results"}
    new |= {"metadata_file", "json_output", "status_updates_file", "log_file", "quiet", "verbosity"}
    new |= {"log_directory", "log_format", "metrics"}
    new |= {"notes", "user_metadata", "capture_sample", "capture_sample_size"}
    for group in (options, sending, scanning, output, other):
        wrong = next((name for name, value in _given(group).items() if name not in new), None)
        if targets or wrong:
            what = "targets" if targets else "--" + str(wrong).replace("_", "-")
            raise ConfigError(
                f"A checkpoint says what is scanned, and where rows go: {what} cannot be given beside it."
            )
    saved = Saved.load(path)
    rate = options.rate_for(saved.plan)
    policy = other.policy(options)
    plain = running.keywords(saved.plan, policy, SendingOptions(), OutputOptions(), 0)
    asked = running.keywords(saved.plan, policy, sending, output, 0)
    changes = {name: value for name, value in asked.items() if value != plain[name]}
    if "max_memory" in _given(scanning):
        changes["max_memory"] = int(quantity.parse_number("--max-memory", scanning.max_memory))
    run = irl.resume(
        path,
        policy=policy,
        rate=rate,
        contact=options.contact,
        checkpoint_interval=running.every(output),
        **changes,
    )
    return running.record(run, replace(output, checkpoint_interval=None), closing_words, resumed=True)


def _given(group: Any) -> dict[str, Any]:
    """The options of a group that are not as they are without being given."""
    plain = type(group)()
    return {name: value for name, value in vars(group).items() if value != getattr(plain, name)}


def _seconds(name: str, text: str | None) -> float | None:
    return None if text is None else quantity.parse_seconds(name, text)


def _selected(scanning: _Scanning) -> dict[str, Any]:
    """What is said of which answers become rows."""
    said = {"rows": scanning.rows, "output_filter": scanning.output_filter}
    return {name: value for name, value in said.items() if value is not None}


def _share(text: str | None) -> float | None:
    if text is None:
        return None
    _, share = quantity.parse_share("--recheck", text)
    if share is None:
        raise ConfigError(f"--recheck {text!r} is not a share of the targets; write one such as 0.1%.")
    return share


def closing_words(summary: dict[str, Any]) -> str:
    """`1,048,576 probes in 10.5 s (100 kpps, packet), 1,048,576 found (100.00 %)`, and what is known of losses."""
    rate = quantity.show_rate(summary["send_rate"], "pps")
    synthetic = ", synthetic" if summary["synthetic"] else ", nothing sent" if summary["unsent"] else ""
    return (
        f"{summary['sent']:,} probes in {quantity.show_seconds(summary['send_s'])} "
        f"({rate}, {summary['engine']}{synthetic}), {summary['found']:,} found ({summary['hitrate']:.2f} %)"
        + "".join(f"\n{line}" for line in losses.sentences(summary))
    )
