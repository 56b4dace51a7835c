"""`irlstack bench`: what this stack is worth on this machine, against the usual ways and tools."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from cyclopts import App, Parameter
from rich.table import Table

from irlstack.bench import batches as batched
from irlstack.bench import figures, loops, plot, rx, tcp, tx
from irlstack.cli import console, quantity
from irlstack.cli.status import ExitStatus
from irlstack.errors import ConfigError

_LEAST_S, _MOST_ROUNDS = 0.1, 1000

app = App(
    name="bench",
    help="Measure this stack on this machine against the usual ways and tools, in a lab made for it. Needs root. Peers "
    "(masscan, ZMap 4 or later, ZGrab2) are taken from the folder PEERS_DIR or from PATH; what is missing is left out.",
)


@app.command(name="tx")
def bench_tx(
    *,
    rounds: int = 3,
    seconds: float = 2.0,
    only: str | None = None,
    batches: str | None = None,
    plot_file: Annotated[Path | None, Parameter(name="--plot")] = None,
    json_output: Annotated[bool, Parameter(name="--json")] = False,
) -> ExitStatus:
    """Measure frames a second: SYNs to ever new destinations, one sender thread, counted by a sink.

    Args:
        rounds: How often each contender is measured; the order changes every time. Default 3.
        seconds: For how long. Default 2.
        only: Contenders by name, separated by commas.
        batches: Measure batch sizes of the engine live instead, as 1,16,256 or all: rate, and how busy the call is.
        plot_file: Draw that to a file: .svg, .png or .pdf.
        json_output: Print the whole document as the last line of stdout.
    """
    _check(rounds, seconds)
    if batches is not None:
        if only is not None:
            raise ConfigError("--batches measures the engine live alone: leave --only out.")
        return _batches(batched.parse(batches), rounds, seconds, plot_file, json_output=json_output)
    if plot_file is not None:
        raise ConfigError("--plot draws batch sizes: give --batches too.")
    document = tx.run(rounds, seconds, _names(only), console.say)
    _head(document)
    table = _table("contender", "Mpps", "min-max", *_columns(document, tx.OURS[:2]))
    for name, each in document["contenders"].items():
        table.add_row(name, *_millions(each["rate"]), *_times(document, tx.OURS[:2], name))
    _show(table)
    return _put(document, json_output=json_output)


def _batches(sizes: list[int], rounds: int, seconds: float, plot_file: Path | None, *, json_output: bool) -> ExitStatus:
    if plot_file is not None:
        plot.check(plot_file)
    document = batched.run(sizes, rounds, seconds, console.say)
    _head(document)
    table = _table("batch", "Mpps", "min-max", "busy", "ns a frame", "ns an idle turn")
    for each in document["batches"]:
        busy, a_frame, idle = (each[key]["median"] for key in ("busy_share", "busy_ns_a_frame", "idle_turn_ns"))
        table.add_row(str(each["batch"]), *_millions(each["rate"]), f"{busy:.1%}", f"{a_frame:.0f}", f"{idle:.0f}")
    console.words().print(table)
    if plot_file is not None:
        plot.draw(document, plot_file)
    return _put(document, json_output=json_output)


@app.command(name="scan")
def bench_scan(
    *extra: str,
    prefix: str = "10.0.0.0/8",
    rounds: int = 3,
    zmap_rate: str | None = None,
    json_output: Annotated[bool, Parameter(name="--json")] = False,
) -> ExitStatus:
    """Measure whole scans in a closed loop: every host answers, and who did is written to a file.

    Args:
        extra: Options for our scan, after two dashes: bench scan -- --batch 64.
        prefix: What our scan scans, of 10.0.0.0/8; peers scan a /12 of it. Default all of it.
        rounds: How often each scanner scans; the order changes every time. Default 3.
        zmap_rate: ZMap's rate, as 60k. By default the highest at which it finds 99.9 % is looked for first.
        json_output: Print the whole document as the last line of stdout.
    """
    _check(rounds)
    _only_options(extra, "scan", "What to scan")
    rate = None if zmap_rate is None else _rate("--zmap-rate", zmap_rate)
    document = loops.run(prefix, rounds, rate, extra, console.say)
    _head(document)
    for name, found_rate in document["zmap_rates"].items():
        console.say(f"  {name}: -r {found_rate}")
    table = _table("contender", "M/s", "min-max", "found", *_columns(document, loops.OURS))
    for name, each in document["contenders"].items():
        found = f"{1 - each['lost']['median']:.3%}"
        table.add_row(name, *_millions(each["rate"]), found, *_times(document, loops.OURS, name))
    _show(table)
    return _put(document, json_output=json_output)


@app.command(name="rx")
def bench_rx(
    *,
    rounds: int = 3,
    seconds: float = 3.0,
    rate: str = "2M",
    json_output: Annotated[bool, Parameter(name="--json")] = False,
) -> ExitStatus:
    """Measure answers a second that end up in a file: rows of our scan, and packets captured by tcpdump.

    Args:
        rounds: How often each is measured; the order changes every time. Default 3.
        seconds: How long the probes would take at that rate. Default 3.
        rate: Probes a second, each of which is answered; more than tcpdump can take. Default 2M.
        json_output: Print the whole document as the last line of stdout.
    """
    _check(rounds, seconds)
    document = rx.run(rounds, seconds, _rate("--rate", rate), console.say)
    _head(document)
    table = _table("contender", "M answers/s", "min-max", "offered", "kept", *_columns(document, ["scan"]))
    for name, each in document["contenders"].items():
        offered, kept = f"{each['offered']['median'] / 1e6:.3f}", f"{each['kept_share']['median']:.3%}"
        table.add_row(name, *_millions(each["rate"]), offered, kept, *_times(document, ["scan"], name))
    _show(table)
    return _put(document, json_output=json_output)


@app.command(name="tcp")
def bench_tcp(
    *extra: str,
    work: str = "rst",
    prefix: str = "10.0.0.0/10",
    rounds: int = 3,
    seconds: float = 3.0,
    only: str | None = None,
    json_output: Annotated[bool, Parameter(name="--json")] = False,
) -> ExitStatus:
    """Measure whole connections a second: connect, ask, read the answer, close, with hosts that all answer.

    Args:
        extra: Options for our exchange, after two dashes: bench tcp -- --max-bytes 200.
        work: rst and fin ask 100 bytes for 100 and close so; gnutella is the paper's exchange. Default rst.
        prefix: Whom our exchange asks, of 10.0.0.0/8. Default a quarter of it.
        rounds: How often each contender is measured; the order changes every time. Default 3.
        seconds: How long the others ask. Default 3.
        only: Contenders by name, separated by commas.
        json_output: Print the whole document as the last line of stdout.
    """
    _check(rounds, seconds)
    _only_options(extra, "exchange", "Whom to ask")
    loops.peer_prefix(prefix)
    document = tcp.run(work, prefix, rounds, seconds, _names(only), extra, console.say)
    _head(document)
    table = _table("contender", "k/s", "min-max", "incomplete", "packets", *_columns(document, tcp.OURS))
    for name, each in document["contenders"].items():
        rate, lost = each["rate"], f"{each['incomplete']['median']:.4%}"
        spread = f"{rate['min'] / 1e3:.1f}-{rate['max'] / 1e3:.1f}"
        packets = f"{each['packets']['median']:.1f}"
        table.add_row(name, f"{rate['median'] / 1e3:.1f}", spread, lost, packets, *_times(document, tcp.OURS, name))
    _show(table)
    return _put(document, json_output=json_output)


def _names(only: str | None) -> list[str]:
    return [] if only is None else [name.strip() for name in only.split(",")]


def _only_options(extra: Sequence[str], command: str, whom: str) -> None:
    if extra and not extra[0].startswith("-"):
        raise ConfigError(f"{extra[0]!r} is no option of {command}. {whom} is said with --prefix.")


def _check(rounds: int, seconds: float = 1.0) -> None:
    if not 1 <= rounds <= _MOST_ROUNDS:
        raise ConfigError(f"--rounds {rounds} cannot be: give a number from 1 to {_MOST_ROUNDS:,}.")
    # Written so that what is no number is refused too.
    if not _LEAST_S <= seconds <= tx.MOST_S:
        raise ConfigError(f"--seconds {seconds:g} cannot be: give a time from {_LEAST_S} to {tx.MOST_S} s.")


def _rate(name: str, text: str) -> int:
    rate = int(quantity.parse_number(name, text))
    if rate < 1:
        raise ConfigError(f"{name} {text} cannot be: give at least 1.")
    return rate


def _head(document: dict[str, Any]) -> None:
    """Where and with what, and what each contender was told to do."""
    machine = document["machine"]
    console.say(f"{machine['cpu']}, {machine['cores']} cores, Linux {machine['kernel']}")
    for name, version in document["versions"].items():
        console.say(f"  {name} {version}")
    for name, each in document.get("contenders", {}).items():
        length = f"{each['frame_bytes']:.0f} bytes, " if "frame_bytes" in each else ""
        console.say(f"  {name}: {length}{each['layout']}")


def _table(first: str, *others: str) -> Table:
    """A table that fits into 80 columns."""
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="bold")
    table.add_column(first, no_wrap=True)
    for name in others:
        table.add_column(name, justify="right", overflow="fold")
    return table


def _columns(document: dict[str, Any], ours: Sequence[str]) -> list[str]:
    """Headings of how many times the others' rate ours is."""
    return [f"{name} is" for name in ours if name in document["ratios"]]


def _times(document: dict[str, Any], ours: Sequence[str], other: str) -> list[str]:
    ratios = [document["ratios"][name].get(other) for name in ours if name in document["ratios"]]
    return ["" if of is None else f"{_short(of['median'])} ({_short(of['min'])}-{_short(of['max'])})" for of in ratios]


def _short(ratio: float) -> str:
    return f"{ratio:.1f}" if ratio >= 10 else f"{ratio:.2f}"


def _show(table: Table) -> None:
    console.say("Medians of the rounds, and least and most; on the right, how many times the contender's rate ours is.")
    console.words().print(table)


def _millions(rate: figures.Spread) -> tuple[str, str]:
    return f"{rate['median'] / 1e6:.3f}", f"{rate['min'] / 1e6:.3f}-{rate['max'] / 1e6:.3f}"


def _put(document: dict[str, Any], *, json_output: bool) -> ExitStatus:
    if json_output:
        console.put(json.dumps(document) + "\n")
    return ExitStatus.DONE
