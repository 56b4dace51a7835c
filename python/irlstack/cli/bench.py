"""`irlstack bench`: what this stack is worth on this machine, against the usual ways and tools."""

import json
import math
from typing import Annotated, Any

from cyclopts import App, Parameter
from rich.table import Table

from irlstack.bench import figures
from irlstack.bench import tx as transmit
from irlstack.cli import console
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
    json_output: Annotated[bool, Parameter(name="--json")] = False,
) -> ExitStatus:
    """Measure frames a second: SYNs of minimum size to ever new destinations, from one sender thread into a sink.

    Args:
        rounds: How often each contender is measured; the order changes every time. Default 3.
        seconds: For how long. Default 2.
        only: Contenders by name, separated by commas.
        json_output: Print the whole document as the last line of stdout.
    """
    _check(rounds, seconds)
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
    console.words().print(table)
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


def _millions(rate: figures.Spread) -> tuple[str, str]:
    return f"{rate['median'] / 1e6:.3f}", f"{rate['min'] / 1e6:.3f}-{rate['max'] / 1e6:.3f}"


def _times(ratio: figures.Spread | None) -> str:
    return "" if ratio is None else f"{ratio['median']:.1f} ({ratio['min']:.1f}-{ratio['max']:.1f})"


def _put(document: dict[str, Any], *, json_output: bool) -> ExitStatus:
    if json_output:
        console.put(json.dumps(document) + "\n")
    return ExitStatus.DONE
