"""`irlstack bench tx`: frames a second into a sink that only counts."""

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

from irlstack import _core
from irlstack.bench import document, figures, ground, peers, senders
from irlstack.errors import ConfigError

_SECONDS_A_PORT = 3.5
"""Long enough for the fastest to use up the 2^24 hosts of 10.0.0.0/8 on one port."""
OURS = ("scan (live)", "Stack.send", "scan (packet)")

Make = Callable[[ground.Ground], ground.Sender]
Say = Callable[[str], None]


def contenders(seconds: float) -> tuple[dict[str, Make], dict[str, peers.Peer], dict[str, str]]:
    """The contenders there are by name, the peers among them, and for each that is missing why."""
    count = math.ceil((ground.settle_s(seconds) + seconds) / _SECONDS_A_PORT)
    ports = "80" if count == 1 else f"80-{79 + count}"
    found, missing = peers.find()
    all_of: dict[str, Make] = {
        "scan (live)": lambda place: senders.scan(place, "live", ports),
        "Stack.send": senders.StackSend,
        "scan (packet)": lambda place: senders.scan(place, "packet", ports),
    }
    for name in _core.Baseline.names():
        all_of[name] = functools.partial(senders.Baseline, name=name)
    if "masscan" in found:
        options = ["10.0.0.0/8", "--wait", "0", "-oL", "/dev/null"]
        all_of["masscan"] = lambda place: senders.Masscan(place, found["masscan"], ports, options)
    if "zmap" in found:
        given = ["-S", ground.HOST, "-r", "0", "-c", "1", "-o", "/dev/null", "10.0.0.0/8"]
        all_of["ZMap"] = lambda place: senders.ZMap(place, found["zmap"], ports, given)
    for name, why in (("Stack.send", senders.numpy_missing()), ("pcap_sendpacket", senders.pcap_missing())):
        if why is not None:
            del all_of[name]
            missing[name] = why
    return all_of, found, missing


def run(rounds: int, seconds: float, only: Sequence[str], say: Say) -> dict[str, Any]:
    """Measures every contender in every round, and returns the document.

    Raises:
        ConfigError: `only` names none.
        PrivilegeError: not root.
        EngineError: a contender sent nothing, or failed.
    """
    document.need_root("tx")
    makers, found, missing = contenders(seconds)
    makers = chosen(makers, only)
    settings = {
        "rounds": rounds,
        "seconds": seconds,
        "settle_s": ground.settle_s(seconds),
        "targets": "10.0.0.0/8",
        "denied_prefixes": ground.DENIED_PREFIXES,
    }
    out = document.begin("tx", found, missing, settings)
    if "pcap_sendpacket" in makers:
        out["versions"]["libpcap"] = _core.pcap_version()
    for name, why in missing.items():
        say(f"without {name}: {why}")
    counted: dict[str, list[ground.Counted]] = {name: [] for name in makers}
    layouts = {}
    with ground.make(hosts=False) as place:
        with place.lab.enter("net"):
            sink = _core.Sink(place.lab.interface("gateway").name)
        for number in range(rounds):
            for name in rotated(list(makers), number):
                sender = makers[name](place)
                layouts[name] = sender.layout
                counted[name].append(ground.count(sink, sender, seconds))
                say(f"round {number + 1}: {name}: {counted[name][-1].rate / 1e6:.3f} M/s")
        sink.close()
    out["contenders"] = {
        name: {
            "layout": layouts[name],
            "frame_bytes": round(each[0].frame_bytes, 1),
            "rate": figures.spread([one.rate for one in each]),
            "rounds": [asdict(one) for one in each],
        }
        for name, each in counted.items()
    }
    out["ratios"] = figures.ratios({name: [one.rate for one in each] for name, each in counted.items()}, OURS)
    return out


def chosen(makers: dict[str, Make], only: Sequence[str]) -> dict[str, Make]:
    """Those that `only` names, or all."""
    unknown = [name for name in only if name not in makers]
    if unknown:
        raise ConfigError(f"There is no contender {unknown[0]!r}; there are {', '.join(makers)}.")
    return {name: make for name, make in makers.items() if not only or name in only}


def rotated(names: list[str], by: int) -> list[str]:
    """The names in another order each round, so that nobody always follows the same one."""
    at = by % len(names)
    return names[at:] + names[:at]
