"""`irlstack demo`: a short tour, with every answer checked against the truth."""

import contextlib
import logging
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import irlstack as irl
from irlstack import doctor
from irlstack.cli import console, quantity
from irlstack.cli.status import ExitStatus
from irlstack.lab import Lab

_SEED = 1
_COOLDOWN_S = 0.5
_LAB_RATE = 200_000
"""Probes a second in the lab: both ends share this machine's cores, and nothing shall be lost."""


@dataclass(frozen=True)
class _Place:
    """Where the tour goes: the engine, the options that name it, and a rate at which nothing is lost there."""

    engine: str
    options: str
    rate: int


_SIM = _Place("sim", "--engine sim -r 0", 0)
_LAB = _Place("packet", f"-r {_LAB_RATE // 1000}k", _LAB_RATE)


def demo(*, sim: bool = False) -> ExitStatus:
    """Scan a synthetic Internet and check every answer against its truth.

    As root its hosts answer real frames, in network namespaces made for the tour; else it all stays in this process.
    Ends with sent, found, missed and invented; exits 1 unless the last two are 0.

    Args:
        sim: Stay in this process, even as root.
    """
    say = console.say
    say(f"irl.World(seed={_SEED}) is a synthetic Internet. Some of its addresses have hosts, some of these open ports,")
    say("firewalls or odd habits, and the truth about each is known.")
    totals = dict.fromkeys(("sent", "found", "missed", "invented"), 0)
    with _place(sim=sim) as place:
        _tour(place, "10.0.0.0/12 -p 80", irl.Plan("10.0.0.0/12", ports=80, rate=place.rate, seed=_SEED), totals)
        echo = irl.Plan("fd00:10::/108", probe_module="icmp_echoscan", rate=place.rate, seed=_SEED)
        _tour(place, "fd00:10::/108 -M icmp_echoscan", echo, totals)
        text = {"text": "hello"}
        datagrams = irl.Plan("10.32.0.0/13", ports=53, probe_module="udp", probe_args=text, rate=place.rate, seed=_SEED)
        _tour(place, "10.32.0.0/13 -p 53 -M udp --probe-args text:hello", datagrams, totals)
        _to_parquet(place)
    say("")
    console.put(" ".join(f"{name} {count}" for name, count in totals.items()) + "\n")
    return ExitStatus.FAILED if totals["missed"] or totals["invented"] else ExitStatus.DONE


@contextlib.contextmanager
def _place(*, sim: bool) -> Iterator[_Place]:
    """The lab where there can be one; else the simulated link, saying why."""
    say, why = console.say, _no_lab()
    with contextlib.ExitStack() as held:
        if not sim and why is None:
            try:
                # That a program is attached to the lab's own interface is no news here.
                logging.getLogger("irlstack.irl_link").setLevel(logging.ERROR)
                lab = held.enter_context(Lab(seed=_SEED, nginx=()))
                held.enter_context(lab.enter("client"))
            except irl.IrlError as error:
                why = str(error)
            else:
                say(f"Its hosts answer in the network namespace {lab.namespace('net')}, at the end of a veth pair.")
                yield _LAB
                return
        say(
            "It lives in this process (engine sim)." if why is None else f"It lives in this process (engine sim): {why}"
        )
        yield _SIM


def _no_lab() -> str | None:
    """Why frames cannot be real here."""
    if os.geteuid() != 0:
        return "network namespaces need root; try 'sudo irlstack demo'."
    unfit = [check for check in doctor.examine().checks if not check.fine and not check.what.startswith("source ports")]
    return f"{unfit[0].what}: {unfit[0].found}; mend it by: {unfit[0].mend}" if unfit else None


def _scan(place: _Place, plan: irl.Plan, **options: Any) -> irl.Run:
    world = irl.World(seed=_SEED) if place is _SIM else None
    return irl.scan(plan=plan, engine=place.engine, world=world, cooldown_time=_COOLDOWN_S, **options)


def _tour(place: _Place, command: str, plan: irl.Plan, totals: dict[str, int]) -> None:
    """One scan, and how it compares with the truth."""
    say = console.say
    say("")
    say(f"$ irlstack scan {command} {place.options} --rows all")
    run = _scan(place, plan, rows="all")
    batches = list(run)
    summary, check = run.summary, irl.World(seed=_SEED).check(plan, batches, rows="all")
    rate = quantity.show_rate(summary["send_rate"], "probes/s")
    say(f"  sent      {summary['sent']:>11,}   {rate}, {summary['engine']}")
    say(f"  answered  {check['answered']:>11,}   {check['repeats']:,} of them twice")
    for name in ("found", "missed", "invented"):
        say(f"  {name:<8}  {check[name]:>11,}")
        totals[name] += check[name]
    totals["sent"] += summary["sent"]
    if plan.probe_module == "tcp_synscan":
        say("  the truth " + ", ".join(f"{count:,} {name}" for name, count in check["truth"].items() if count))


def _to_parquet(place: _Place) -> None:
    """Rows to a file, and how small they are."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "out.parquet"
        run = _scan(place, irl.Plan("10.0.0.0/13", ports="80,443", rate=place.rate, seed=_SEED))
        took = _timed(lambda: run.write(path))
        rows, size = run.stats["rows"], path.stat().st_size
    console.say("")
    console.say(f"$ irlstack scan 10.0.0.0/13 -p 80,443 {place.options} -o out.parquet")
    console.say(
        f"  {rows:,} rows of 15 columns in {quantity.show_seconds(took)}, {size / max(rows, 1):.0f} bytes a row"
    )


def _timed(work: Callable[[], object]) -> float:
    start = time.monotonic()
    work()
    return time.monotonic() - start
