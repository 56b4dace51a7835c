"""`irlstack bench`: what this stack is worth on this machine, against the usual ways and tools."""

import json
import math
from pathlib import Path
from typing import Annotated, Any

from cyclopts import App, Parameter
from rich.table import Table

from irlstack.bench import batches as batched
from irlstack.bench import figures, loops
from irlstack.bench import rx as receive
from irlstack.bench import tx as transmit
from irlstack.cli import console, quantity
from irlstack.cli.status import ExitStatus
from irlstack.errors import ConfigError

app = App(
    name="bench",
    help="Benchmarks in a lab made for them, counted at the far end. Needs root. Peers (masscan, ZMap 4 or later) are "
    "taken from the folder PEERS_DIR or from PATH.",
)


@app.command
def tx(
    *,
    rounds: int = 3,
    seconds: float = 2.0,
    only: str | None = None,
    batches: str | None = None,
    plot: Path | None = None,
    json_output: Annotated[bool, Parameter(name="--json")] = False,
) -> ExitStatus:
    """Measure frames a second: SYNs of minimum size to ever new destinations, from one sender thread into a sink.

    Args:
        rounds: How often each contender is measured; the order changes every time. Default 3.
        seconds: For how long. Default 2.
        only: Contenders by name, separated by commas.
        batches: Measure batch sizes of the engine live instead, 1,16,256 or all: rate, and how busy the call is.
        plot: Draw that to a file, .svg or .png.
        json_output: Print the whole document as the last line of stdout.
    """
    _check(rounds, seconds)
    if batches is not None:
        return _batches(batched.parse(batches), rounds, seconds, plot, json_output=json_output)
    if plot is not None:
        raise ConfigError("--plot draws batch sizes: give --batches too.")
    names = [] if only is None else [name.strip() for name in only.split(",")]
    document = transmit.run(rounds, seconds, names, console.say)
    _head(document)
    for name, each in document["contenders"].items():
        console.say(f"  {name}: {each['layout']}")
    ours = [name for name in transmit.OURS[:2] if name in document["ratios"]]
    table = Table("", "bytes", "Mpps", "min-max", *(f"{name}, times" for name in ours))
    for name, each in document["contenders"].items():
        times = [_times(document["ratios"][one].get(name)) for one in ours]
        table.add_row(name, f"{each['frame_bytes']:.0f}", *_millions(each["rate"]), *times)
    _show(table)
    return _put(document, json_output=json_output)


def _batches(sizes: list[int], rounds: int, seconds: float, plot: Path | None, *, json_output: bool) -> ExitStatus:
    if plot is not None:
        batched.need_matplotlib()
    document = batched.run(sizes, rounds, seconds, console.say)
    _head(document)
    table = Table("batch", "Mpps", "min-max", "busy", "ns a frame", "ns an idle turn")
    for each in document["batches"]:
        busy, a_frame, idle = (each[key]["median"] for key in ("busy_share", "busy_ns_a_frame", "idle_turn_ns"))
        table.add_row(str(each["batch"]), *_millions(each["rate"]), f"{busy:.1%}", f"{a_frame:.0f}", f"{idle:.0f}")
    _show(table)
    if plot is not None:
        batched.plot(document, plot)
    return _put(document, json_output=json_output)


@app.command
def scan(
    *extra: str,
    prefix: str = "10.0.0.0/8",
    rounds: int = 3,
    zmap_rate: str | None = None,
    json_output: Annotated[bool, Parameter(name="--json")] = False,
) -> ExitStatus:
    """Measure whole scans in a closed loop: every host answers, rows go to Parquet, with and without RSTs of ours.

    Args:
        extra: Options for our scan, after --: bench scan -- --reprobe 1.
        prefix: What our scan scans, of 10.0.0.0/8; peers scan a /12 of it. Default all of it.
        rounds: How often each scanner scans. Default 3.
        zmap_rate: ZMap's rate, 60k. By default the highest at which it finds 99.9 % is looked for first.
        json_output: Print the whole document as the last line of stdout.
    """
    _check(rounds, 1)
    rate = None if zmap_rate is None else int(quantity.parse_number("--zmap-rate", zmap_rate))
    document = loops.run(prefix, rounds, rate, extra, console.say)
    _head(document)
    for name, each in document["contenders"].items():
        console.say(f"  {name}: {each['layout']}")
    for name, found_rate in document["zmap_rates"].items():
        console.say(f"  {name}: -r {found_rate:,}")
    ours = [name for name in loops.OURS if name in document["ratios"]]
    table = Table("", "M probes/s", "min-max", "found", "of", "lost", *(f"{name}, times" for name in ours))
    for name, each in document["contenders"].items():
        times = [_times(document["ratios"][one].get(name)) for one in ours]
        found, lost = f"{each['found']['median']:,.0f}", f"{each['lost']['median']:.4%}"
        table.add_row(name, *_millions(each["rate"]), found, f"{each['targets']:,}", lost, *times)
    _show(table)
    return _put(document, json_output=json_output)


@app.command
def rx(
    *,
    rounds: int = 3,
    seconds: float = 3.0,
    rate: str = "2M",
    json_output: Annotated[bool, Parameter(name="--json")] = False,
) -> ExitStatus:
    """Measure answers a second that end up in a file: rows of our scan in Parquet, and packets in tcpdump's.

    Args:
        rounds: How often each is measured. Default 3.
        seconds: For how long. Default 3.
        rate: Probes a second, each of which is answered; more than tcpdump can take. Default 2M.
        json_output: Print the whole document as the last line of stdout.
    """
    _check(rounds, seconds)
    document = receive.run(rounds, seconds, int(quantity.parse_number("--rate", rate)), console.say)
    _head(document)
    table = Table("", "M answers/s", "min-max", "offered, M/s", "kept", "scan, times")
    for name, each in document["contenders"].items():
        console.say(f"  {name}: {each['layout']}")
        offered, kept = f"{each['offered']['median'] / 1e6:.3f}", f"{each['kept_share']['median']:.3%}"
        table.add_row(name, *_millions(each["rate"]), offered, kept, _times(document["ratios"]["scan"].get(name)))
    _show(table)
    return _put(document, json_output=json_output)


def _check(rounds: int, seconds: float) -> None:
    if rounds < 1:
        raise ConfigError(f"--rounds {rounds} cannot be: one at least.")
    if not 0 < seconds < math.inf:
        raise ConfigError(f"--seconds {seconds} cannot be: give a time above 0.")


def _head(document: dict[str, Any]) -> None:
    machine = document["machine"]
    console.say(f"{machine['cpu']}, {machine['cores']} cores, Linux {machine['kernel']}")
    console.say(", ".join(f"{name} {version}" for name, version in document["versions"].items()))


def _show(table: Table) -> None:
    """Without a terminal, as wide as it has to be."""
    words = console.words()
    words.print(table, width=None if words.is_terminal else 160)


def _millions(rate: figures.Spread) -> tuple[str, str]:
    return f"{rate['median'] / 1e6:.3f}", f"{rate['min'] / 1e6:.3f}-{rate['max'] / 1e6:.3f}"


def _times(ratio: figures.Spread | None) -> str:
    return "" if ratio is None else f"{ratio['median']:.1f} ({ratio['min']:.1f}-{ratio['max']:.1f})"


def _put(document: dict[str, Any], *, json_output: bool) -> ExitStatus:
    if json_output:
        console.put(json.dumps(document) + "\n")
    return ExitStatus.DONE
