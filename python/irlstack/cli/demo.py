"""`irlstack demo`: a short tour, with every answer checked against the truth."""

import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import irlstack as irl
from irlstack.cli import console, quantity
from irlstack.cli.status import ExitStatus

_SEED = 1
_COOLDOWN_S = 0.5


def demo() -> ExitStatus:
    """Scan a synthetic Internet and check every answer against its truth.

    Ends with sent, found, missed and invented; exits 1 unless the last two are 0.
    """
    world = irl.World(seed=_SEED)
    say = console.say
    say(f"irl.World(seed={_SEED}) is a synthetic Internet in this process. Some of its addresses have hosts,")
    say("some of these open ports, firewalls or odd habits, and the truth about each is known.")
    totals = dict.fromkeys(("sent", "found", "missed", "invented"), 0)

    def tour(title: str, plan: irl.Plan) -> None:
        say("")
        say(title)
        run = irl.scan(plan=plan, engine="sim", world=world, rows="all", cooldown_time=_COOLDOWN_S)
        batches = list(run)
        _compare(run.summary, world.check(plan, batches, rows="all"), totals)

    tour(
        "$ irlstack scan 10.0.0.0/12 -p 80 --engine sim -r 0 --rows all",
        irl.Plan("10.0.0.0/12", ports=80, rate=0, seed=_SEED),
    )
    tour(
        "$ irlstack scan fd00::/108 -M icmp_echoscan --engine sim -r 0 --rows all",
        irl.Plan("fd00::/108", probe_module="icmp_echoscan", rate=0, seed=_SEED),
    )
    tour(
        "$ irlstack scan 10.32.0.0/13 -p 53 -M udp --probe-args text:hello --engine sim -r 0 --rows all",
        irl.Plan("10.32.0.0/13", ports=53, probe_module="udp", probe_args={"text": "hello"}, rate=0, seed=_SEED),
    )
    say("")
    _to_parquet(world)
    say("")
    console.put(" ".join(f"{name} {count}" for name, count in totals.items()) + "\n")
    return ExitStatus.FAILED if totals["missed"] or totals["invented"] else ExitStatus.DONE


def _compare(summary: dict[str, Any], check: dict[str, Any], totals: dict[str, int]) -> None:
    rate = quantity.show_rate(summary["send_rate"], "probes/s")
    kinds = ", ".join(f"{count:,} {name}" for name, count in check["truth"].items() if count)
    console.say(f"  sent      {summary['sent']:>11,}   {rate}, {summary['engine']}")
    console.say(f"  answered  {check['answered']:>11,}   {check['repeats']:,} of them twice")
    console.say(f"  found     {check['found']:>11,}")
    console.say(f"  missed    {check['missed']:>11,}")
    console.say(f"  invented  {check['invented']:>11,}")
    if summary["probe_module"] == "tcp_synscan":
        console.say(f"  the truth {kinds}")
    totals["sent"] += summary["sent"]
    for name in ("found", "missed", "invented"):
        totals[name] += check[name]


def _to_parquet(world: irl.World) -> None:
    """Rows to a file, and how small they are."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "out.parquet"
        plan = irl.Plan("10.0.0.0/12", ports="80,443", rate=0, seed=_SEED)
        run = irl.scan(plan=plan, engine="sim", world=world, cooldown_time=_COOLDOWN_S)
        took = _timed(lambda: run.write(path))
        rows = run.stats["rows"]
        size = path.stat().st_size
    console.say("$ irlstack scan 10.0.0.0/12 -p 80,443 --engine sim -r 0 -o out.parquet")
    console.say(
        f"  {rows:,} rows of 15 columns in {quantity.show_seconds(took)}, {size / max(rows, 1):.0f} bytes a row"
    )


def _timed(work: Callable[[], object]) -> float:
    start = time.monotonic()
    work()
    return time.monotonic() - start
