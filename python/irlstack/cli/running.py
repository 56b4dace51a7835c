"""What `scan` and `exchange` have in common: how frames are sent, where rows go, and how a run ends."""

import contextlib
import json
import shlex
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TextIO

from cyclopts import Group, Parameter

import irlstack as irl
from irlstack.bounds import check_files
from irlstack.cli import console, log, quantity
from irlstack.cli.in_flight import rate_by_signals
from irlstack.cli.options import ORDER, POLICY, SENDING, STANDARD_STREAM, PlanOptions
from irlstack.cli.progress import Progress
from irlstack.cli.status import ExitStatus
from irlstack.errors import ConfigError

OUTPUT = Group("What comes out", sort_key=4)
OTHER = Group("Other", sort_key=6)


@Parameter(name="*")
@dataclass(kw_only=True)
class SendingOptions:
    """How a run's frames are sent, and until when."""

    interface: Annotated[tuple[str, ...], Parameter(alias="-i", group=SENDING)] = ()
    """Interface, or several that share the run: eth0,eth1, each with a source address of its subnet. By default the one
    the route leads to."""
    gateway_mac: Annotated[str | None, Parameter(alias="-G", group=SENDING)] = None
    """MAC that every frame goes to; by default resolved."""
    source_mac: Annotated[str | None, Parameter(group=SENDING)] = None
    """MAC that frames come from; by default the interface's own, which answers go to in any case."""
    vlan: Annotated[int | None, Parameter(group=SENDING)] = None
    """VLAN, 1 to 4094, whose tag frames carry. Neighbours are asked inside it."""
    iplayer: Annotated[bool, Parameter(alias="-X", group=SENDING)] = False
    """Packets leave without Ethernet. tun, WireGuard and PPP are known for that; any other device is refused."""
    engine: Annotated[str, Parameter(group=SENDING)] = "auto"
    """auto (the default), live, packet, or sim: a synthetic Internet in this process. Without sending: pcap:FILE writes
    what would leave, replay:FILE judges the answers in a capture again."""
    batch: Annotated[int, Parameter(group=SENDING)] = 128
    """Frames that the engine live hands to the kernel at a time, 1 to 256. Default 128."""
    sender_threads: Annotated[int | None, Parameter(alias="-T", group=SENDING)] = None
    """Threads, a core each, spread over the interfaces. Default 1 for each interface."""
    cores: Annotated[str | None, Parameter(group=SENDING)] = None
    """CPUs that the threads are bound to, in turn: 2,3. By default the system chooses."""
    cooldown_time: Annotated[str, Parameter(alias="-c", group=SENDING)] = "8"
    """How long to listen after the last probe. Default 8 s."""
    max_runtime: Annotated[str | None, Parameter(alias="-t", group=SENDING)] = None
    """Stop sending after so long: 90s, 5m, 2h."""
    max_results: Annotated[int | None, Parameter(alias="-N", group=SENDING)] = None
    """Stop sending after so many rows; there are no more of them."""
    min_hitrate: Annotated[float, Parameter(group=SENDING)] = 0.0
    """Stop sending when fewer than so many percent of the probes find a target, for 5 s."""
    retries: Annotated[int, Parameter(group=SENDING)] = 10
    """How often a frame the device refuses is offered again before that is a failure. Default 10."""
    max_sendto_failures: Annotated[int | None, Parameter(group=SENDING)] = None
    """Stop sending after more failures than this."""
    dad: Annotated[Literal["fast", "rfc5227", "off"], Parameter(group=SENDING)] = "fast"
    """How carefully to look whether a spare source address is somebody's: fast, rfc5227 or off."""


@Parameter(name="*")
@dataclass(kw_only=True)
class OutputOptions:
    """Where rows, words and metadata go."""

    output_file: Annotated[tuple[Path, ...], Parameter(alias="-o", group=OUTPUT)] = ()
    """Where rows go: .parquet, .csv, .jsonl. May be given again. Default: saddr lines on stdout."""
    output_module: Annotated[str | None, Parameter(alias="-O", group=OUTPUT)] = None
    """csv, json (an object a line) or parquet, whatever the suffix is; on stdout without -o."""
    output_fields: Annotated[str | None, Parameter(alias="-f", group=OUTPUT)] = None
    """Columns: saddr,sport,rtt or * for all."""
    no_header_row: Annotated[bool, Parameter(group=OUTPUT)] = False
    """Write CSV without its first line."""
    checkpoint: Annotated[Path | None, Parameter(group=OUTPUT)] = None
    """Where a scan writes down how far it is, for --resume. By default beside the first -o, as NAME.checkpoint, if all
    outputs are files; it goes when nothing is left. It holds the plan's key."""
    checkpoint_interval: Annotated[str | None, Parameter(group=OUTPUT)] = None
    """How often. By default so that a crash costs a minute of probes at most."""
    capture_sample: Annotated[Path | None, Parameter(group=OUTPUT)] = None
    """A pcapng file for a sample of the frames sent and of the answers: all those of a share of the targets. Written at
    the end."""
    capture_sample_size: Annotated[int, Parameter(group=OUTPUT)] = 1000
    """The most frames sent in it, and the most answers. Default 1000."""
    metadata_file: Annotated[Path | None, Parameter(alias="-m", group=OUTPUT)] = None
    """Everything about the run, as JSON; - is stderr."""
    json_output: Annotated[bool, Parameter(name="--json", group=OUTPUT)] = False
    """Print the metadata as the last line of stdout."""
    status_updates_file: Annotated[Path | None, Parameter(alias="-u", group=OUTPUT)] = None
    """A line of CSV a second, with ZMap's columns."""
    log_file: Annotated[Path | None, Parameter(alias="-l", group=OUTPUT)] = None
    """Log there instead of stderr."""
    log_directory: Annotated[Path | None, Parameter(alias="-L", group=OUTPUT)] = None
    """Log into a new file there, named after the time."""
    log_format: Annotated[log.Format, Parameter(group=OUTPUT)] = "text"
    """text (the default), or json: an object a line, in the log and on stderr, a status a second among them."""
    metrics: Annotated[str | None, Parameter(group=OUTPUT)] = None
    """Serve the run's numbers as OpenMetrics: PORT or ADDRESS:PORT, on loopback only; 0 for a port that is free."""
    quiet: Annotated[bool, Parameter(alias="-q", group=OUTPUT)] = False
    """No progress."""
    verbosity: Annotated[Literal[0, 1, 2, 3, 4, 5], Parameter(alias="-v", group=OUTPUT)] = 3
    """What is logged: 0 what ends the command, 1 errors, 2 warnings, 3 (the default) what goes on, 4 details, 5 those
    of other packages."""
    notes: Annotated[str | None, Parameter(group=OUTPUT)] = None
    """Free text, kept in the metadata."""
    user_metadata: Annotated[str | None, Parameter(group=OUTPUT)] = None
    """A JSON value, kept in the metadata."""


@Parameter(name="*")
@dataclass(kw_only=True)
class OtherOptions:
    """The rest."""

    authorized: Annotated[str | None, Parameter(group=POLICY)] = None
    """Who authorised this: a ticket or a person. Kept in the metadata."""
    optout_file: Annotated[Path | None, Parameter(group=POLICY)] = None
    """Who asked to be left alone, a prefix a line: # until DATE: reason. Looked at again every second."""
    prefix_budget: Annotated[str | None, Parameter(group=POLICY)] = None
    """Probes a second to any /24 of IPv4 or /48 of IPv6, at most; targets of a busy one wait. 0.1 is one in 10 s."""
    shard: Annotated[int, Parameter(group=ORDER)] = 0
    """Which shard to run, from 0."""
    dryrun: Annotated[bool, Parameter(alias="-d", group=OTHER)] = False
    """Send nothing; show counts, duration, bandwidth and the first ten frames."""
    config: Annotated[Path | None, Parameter(group=OTHER)] = None
    """Read this irlstack.toml instead of the system's, yours and the project's."""
    list_output_fields: Annotated[bool, Parameter(group=OTHER)] = False
    """Show the columns there are."""

    def policy(self, options: PlanOptions) -> irl.Policy:
        """Who is responsible, by these options and the configuration files."""
        budget = self.prefix_budget
        given = irl.Policy(
            authorized=self.authorized,
            contact=options.contact,
            optout_file=self.optout_file,
            prefix_budget=None if budget is None else quantity.parse_number("--prefix-budget", budget),
        )
        return given.over(irl.Policy.from_config(self.config))


def keywords(
    plan: irl.Plan, policy: irl.Policy, sending: SendingOptions, output: OutputOptions, shard: int
) -> dict[str, Any]:
    """What a run is told, whatever it does."""
    return {
        "plan": plan,
        "policy": policy,
        "shard": shard,
        "interface": [name.strip() for each in sending.interface for name in each.split(",")] or None,
        "gateway_mac": sending.gateway_mac,
        "source_mac": sending.source_mac,
        "vlan": sending.vlan,
        "iplayer": sending.iplayer,
        "engine": sending.engine,
        "batch": sending.batch,
        "dad": sending.dad,
        "sender_threads": sending.sender_threads,
        "cores": _cores(sending.cores),
        "cooldown_time": quantity.parse_seconds("--cooldown-time", sending.cooldown_time),
        "max_runtime": quantity.parse_seconds("--max-runtime", sending.max_runtime) if sending.max_runtime else None,
        "max_results": sending.max_results,
        "min_hitrate": sending.min_hitrate,
        "retries": sending.retries,
        # ZMap's way to say that there is no bound.
        "max_sendto_failures": None if sending.max_sendto_failures == -1 else sending.max_sendto_failures,
        "capture_sample": output.capture_sample,
        "capture_sample_size": output.capture_sample_size,
        "notes": output.notes,
        "user_metadata": _user_metadata(output.user_metadata),
    }


def begin_log(output: OutputOptions) -> None:
    """Logs as the options say, from here to the end of the command."""
    log.begin(output.log_format, output.log_file, output.log_directory, output.verbosity)


def show_fields(fields: list[dict[str, Any]]) -> ExitStatus:
    """The columns there are, a line each."""
    width = max(len(each["name"]) for each in fields)
    console.put("".join(f"{each['name']:<{width}} {each['meaning']}\n" for each in fields))
    return ExitStatus.DONE


def fields(output: OutputOptions, without_a_file: list[str]) -> list[str] | None:
    """The columns asked for; on standard output alone, a few."""
    if output.output_fields is not None:
        return [name.strip() for name in output.output_fields.split(",")]
    return None if output.output_file else without_a_file


def checkpoint_beside(output: OutputOptions) -> Path | None:
    """Where a run with these outputs writes down how far it is, unless told otherwise: nowhere if one is no file."""
    files = [path for path in output.output_file if str(path) != STANDARD_STREAM]
    if not files or len(files) < len(output.output_file) or any(path.exists() and not path.is_file() for path in files):
        return None
    return files[0].with_name(files[0].name + ".checkpoint")


def record(
    run: irl.Run,
    output: OutputOptions,
    closing_words: Callable[[dict[str, Any]], str],
    *,
    checkpoint: Path | None = None,
    resumed: bool = False,
) -> ExitStatus:
    """Reads a run to its end into its outputs, or into those it had before, and says how it ended."""
    log.of(run.id)
    interval = every(output)
    places = [Path("-") if str(path) == STANDARD_STREAM else path for path in output.output_file] or [Path("-")]
    beside = (checkpoint, output.metadata_file, output.status_updates_file)
    check_files(
        [*([] if resumed else places), *(path for path in beside if path is not None and str(path) != STANDARD_STREAM)]
    )
    with contextlib.ExitStack() as files:
        as_json = log.is_json()
        progress = Progress(shown=not output.quiet and not as_json and sys.stderr.isatty())
        metadata: TextIO | None = None

        def ready() -> None:
            # Not before: what is refused leaves no file, and overwrites none.
            nonlocal metadata
            metadata = _open(files, output.metadata_file)
            if (updates := _open(files, output.status_updates_file)) is not None:
                progress.write_to(updates)

        def each_second(line: str, row: str) -> None:
            progress.show(line, row)
            if as_json and not output.quiet:
                console.say(line, event="status", **_status(run.snapshot()))

        if output.metrics is not None:
            server = files.enter_context(irl.metrics.serve(run, output.metrics))
            console.say(f"Metrics at {server.url}", event="metrics_served", url=server.url)
        with rate_by_signals(run):
            outcome = run.record(
                [] if resumed else places,
                header=not output.no_header_row,
                output_module=output.output_module,
                each_second=each_second,
                ready=ready,
                checkpoint=checkpoint,
                checkpoint_interval=interval,
            )
        progress.end()
        document = json.dumps(outcome.summary)
        if metadata is not None:
            metadata.write(document + "\n")
        if output.json_output:
            console.put(document + "\n")
    status = ExitStatus.DONE
    if outcome.interrupted:
        status = ExitStatus.INTERRUPTED
    elif outcome.error is not None or outcome.lost:
        status = ExitStatus.INCOMPLETE
    quiet = output.quiet and not as_json
    summary = outcome.summary
    console.say(closing_words(summary), quiet=quiet, event="run_ended", exit=int(status), **_ended(summary))
    if outcome.error is not None:
        console.complain(f"{outcome.error} The rows until then are kept.", event="run_failed")
    if outcome.checkpoint is not None:
        what = f"irlstack scan --resume {shlex.quote(str(outcome.checkpoint))}"
        path = str(outcome.checkpoint)
        console.say(f"Checkpoint written. What is left: {what}", event="checkpoint_written", path=path)
    return status


def _status(at: dict[str, Any]) -> dict[str, Any]:
    """What a status says to programs, by the names that the metadata have."""
    stats = at["stats"]
    names = ("elapsed_s", "sending", "pass", "probes_sent", "probes_planned", "received", "found", "rows", "overruns")
    return {name: stats[name] for name in (*names, "waiting", "rate")} | {"rate_now": at["rate_now"]}


def _ended(summary: dict[str, Any]) -> dict[str, Any]:
    """The same of how a run ended."""
    names = ("ended_by", "interrupted", "synthetic", "sent", "found", "hitrate", "elapsed_s", "rows_lost", "imbalances")
    stats = {name: summary["stats"][name] for name in ("received", "rows", "overruns")}
    return {name: summary[name] for name in names} | stats


def every(output: OutputOptions) -> float | None:
    """Seconds between two commits, where that was said."""
    if output.checkpoint_interval is None:
        return None
    seconds = quantity.parse_seconds("--checkpoint-interval", output.checkpoint_interval)
    if seconds <= 0:
        raise ConfigError("--checkpoint-interval 0 would write all the time: give more than 0, 5 or 1m.")
    return seconds


def _cores(text: str | None) -> list[int]:
    """Numbers of CPUs, one for each thread in turn."""
    items = [] if text is None else [item.strip() for item in text.split(",")]
    wrong = next((item for item in items if not (item.isascii() and item.isdigit())), None)
    if wrong is not None:
        raise ConfigError(f"--cores: {wrong!r} is no number of a CPU; write 2 or 2,3.")
    return [int(item) for item in items]


def _user_metadata(text: str | None) -> object:
    if text is None:
        return None
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise ConfigError(f"--user-metadata is no JSON: {error}.") from error


def _open(files: contextlib.ExitStack, path: Path | None) -> TextIO | None:
    """A file that grows line by line; `-` is stderr, since stdout has the rows."""
    if path is None:
        return None
    if str(path) == STANDARD_STREAM:
        return sys.stderr
    return files.enter_context(path.open("w", buffering=1, encoding="utf-8"))
