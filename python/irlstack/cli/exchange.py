"""`irlstack exchange`."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Group, Parameter

import irlstack as irl
from irlstack.cli import dryrun, quantity, running
from irlstack.cli.options import SENDING, STANDARD_STREAM, PlanOptions, unescape
from irlstack.cli.running import OUTPUT, OtherOptions, OutputOptions, SendingOptions
from irlstack.cli.status import ExitStatus
from irlstack.errors import ConfigError
from irlstack.request import MOST_TARGETS

_DIALOGUE = Group("What is said", sort_key=2)


@Parameter(name="*")
@dataclass(kw_only=True)
class _Dialogue:
    request: Annotated[str, Parameter(group=_DIALOGUE)] = ""
    """TEXT, with \\r \\n \\t \\xNN, and {address} {port} {host} for the target's ({{ and }} are braces); or @FILE, as
    it is. By default nothing is sent, and the peer speaks first."""
    request_column: Annotated[str | None, Parameter(group=_DIALOGUE)] = None
    """The column of the list (-I) that has each target's request."""
    until: Annotated[str, Parameter(group=_DIALOGUE)] = "close"
    """When the response is complete: close (the default), when the peer closes; a number of bytes; or the TEXT that
    ends it."""
    max_bytes: Annotated[str, Parameter(group=_DIALOGUE)] = "65536"
    """The most bytes of a response that are kept. Default 65536."""
    timeout: Annotated[str, Parameter(group=_DIALOGUE)] = "10"
    """How long a dialogue may take, from the SYN-ACK on. Default 10 s."""
    close: Annotated[Literal["rst", "fin"], Parameter(group=_DIALOGUE)] = "rst"
    """How we close: rst (the default), at once, or fin."""
    reprobe: Annotated[int, Parameter(group=SENDING)] = 2
    """How often a SYN is sent again to those that have not answered, in passes that begin 1 s after one another, or
    sooner with a shorter cooldown. Default 2."""
    max_connections: Annotated[str, Parameter(group=SENDING)] = "1048576"
    """The most connections at once; SYNs pause before. Default 1048576."""
    max_per_prefix: Annotated[int | None, Parameter(group=SENDING)] = None
    """The most connections at once with a /24 of IPv4 or a /48 of IPv6."""
    max_memory: Annotated[str, Parameter(group=SENDING)] = "2G"
    """For the map of targets that have answered, connections and responses; SYNs pause before. Default 2G."""
    rows: Annotated[Literal["success", "answered", "all"], Parameter(group=OUTPUT)] = "answered"
    """success: exchanges that ended as asked; answered (the default): a row for each target that answered, also by
    refusing; all: those and the silent."""


def exchange(
    *targets: str,
    options: PlanOptions | None = None,
    dialogue: _Dialogue | None = None,
    sending: SendingOptions | None = None,
    output: OutputOptions | None = None,
    other: OtherOptions | None = None,
) -> ExitStatus:
    """Connect to targets, send each a request, and write down what came back.

    The rate is of SYNs. Global addresses need --contact, --blocklist-file, --rate and --authorized. There is no TLS,
    and responses are not parsed.

    Args:
        targets: Prefixes, addresses, ranges; none: all of IPv4. - reads a list from standard input, -I from a file,
            Parquet or text: a target a row, whose further columns pass through. The others then say where it may lie.
        options: What is planned.
        dialogue: What is said, and to how many at once.
        sending: How it is sent.
        output: What comes out.
        other: The rest.
    """
    options, dialogue, sending = options or PlanOptions(), dialogue or _Dialogue(), sending or SendingOptions()
    output, other = output or OutputOptions(), other or OtherOptions()
    running.begin_log(output)
    if other.list_output_fields:
        return running.show_fields(irl.exchange_fields())
    if output.checkpoint is not None or output.checkpoint_interval is not None:
        raise ConfigError("An exchange cannot be gone on with: leave out --checkpoint and --checkpoint-interval.")
    request, until = parse_request(dialogue.request), parse_until(dialogue.until)
    policy = other.policy(options)
    options, targets, listed = _take_list(options, targets)
    made = options.make(targets, policy)
    if other.dryrun:
        dryrun.show(made, policy, other.shard, dialogue.reprobe)
        return ExitStatus.DONE
    run = irl.exchange(
        **running.keywords(made, policy, sending, output, other.shard),
        list_of_ips_file=listed,
        request=request,
        request_column=dialogue.request_column,
        until=until,
        close=dialogue.close,
        max_bytes=int(quantity.parse_number("--max-bytes", dialogue.max_bytes)),
        timeout=quantity.parse_seconds("--timeout", dialogue.timeout),
        reprobe=dialogue.reprobe,
        max_connections=int(quantity.parse_number("--max-connections", dialogue.max_connections)),
        max_per_prefix=dialogue.max_per_prefix,
        max_memory=int(quantity.parse_number("--max-memory", dialogue.max_memory)),
        rows=dialogue.rows,
        output_fields=running.fields(output, ["saddr", "sport", "status", "bytes"]),
    )
    run.about.seed_provided = options.seed is not None or options.plan is not None
    return running.record(run, output, closing_words)


def _take_list(options: PlanOptions, targets: tuple[str, ...]) -> tuple[PlanOptions, tuple[str, ...], Path | None]:
    """The list, which is read while the exchange goes on, apart from what says where its targets may lie."""
    listed = options.list_of_ips_file
    rest = tuple(each for each in targets if each != STANDARD_STREAM)
    if len(rest) < len(targets):
        if listed is not None:
            raise ConfigError("Targets come from standard input (-) or from elsewhere, not both.")
        listed = Path(STANDARD_STREAM)
    if listed is not None and str(listed) == STANDARD_STREAM:
        listed = Path("-")
    options = replace(options, list_of_ips_file=None)
    if listed is not None and options.plan is None and options.max_targets is None:
        options = replace(options, max_targets=str(MOST_TARGETS))
    return options, rest, listed


def parse_request(text: str) -> bytes | str:
    r"""`GET / HTTP/1.0\r\n\r\n`, with places for what is the target's, or @FILE."""
    if text.startswith("@"):
        return Path(text[1:]).read_bytes()
    request = unescape(text)
    if not set(b"{}") & set(request):
        return request
    try:
        return request.decode()
    except UnicodeDecodeError as error:
        raise ConfigError(f"--request has places for the target's words and is no UTF-8: {error.reason}.") from error


def parse_until(text: str) -> str | int | bytes:
    r"""`close`, a number of bytes, or the text that ends a response."""
    if text == "close":
        return text
    return int(text) if text.isascii() and text.isdigit() else unescape(text)


def closing_words(summary: dict[str, Any]) -> str:
    """`65,536 SYNs in 10.5 s (6.2 kpps, live), 65,536 connections, 65,530 done as asked (99.99 %)`."""
    rate = quantity.show_rate(summary["send_rate"], "pps")
    synthetic = ", synthetic" if summary["synthetic"] else ", nothing sent" if summary["unsent"] else ""
    connections, done = summary["connections"], summary["exchanged"]
    share = 100 * done / connections if connections else 0.0
    return (
        f"{summary['sent']:,} SYNs in {quantity.show_seconds(summary['send_s'])} "
        f"({rate}, {summary['engine']}{synthetic}), {connections:,} connections, {done:,} done as asked ({share:.2f} %)"
    )
