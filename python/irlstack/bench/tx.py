"""`irlstack bench tx`: frames a second into a sink that only counts."""

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

from irlstack import _core
from irlstack.bench import commands, document, far_end, figures, ground, peers, threads
from irlstack.bench.rounds import Say, chosen, interleaved

OURS = ("scan (live)", "Stack.send", "scan (packet)")
MOST_S = 60
"""Destinations last longer than that for everybody, on the ports they are given."""
_SECONDS_A_PORT = 3.5
"""Long enough for the fastest to use up the 2^24 hosts of 10.0.0.0/8 on one port."""
_FIRST_PORT = 80

Make = Callable[[ground.Ground], far_end.Sender]


def ports(seconds: float) -> str:
    """As many ports as the fastest needs to meet no destination twice.

    >>> ports(1), ports(5)
    ('80', '80-81')
    """
    last = _FIRST_PORT - 1 + math.ceil((far_end.settle_s(seconds) + seconds) / _SECONDS_A_PORT)
    return str(_FIRST_PORT) if last == _FIRST_PORT else f"{_FIRST_PORT}-{last}"


def contenders(on: str) -> tuple[dict[str, Make], dict[str, str], dict[str, str]]:
    """The contenders there are by name, others' versions, and for each contender that is missing why.

    Args:
        on: the ports that are probed.
    """
    found, missing = peers.find(["masscan", "zmap"])
    versions = {name: peer.version for name, peer in found.items()}
    all_of: dict[str, Make] = {
        "scan (live)": lambda place: commands.scan(place, "live", on),
        "Stack.send": threads.StackSend,
        "scan (packet)": lambda place: commands.scan(place, "packet", on),
    }
    for name in _core.Baseline.names():
        all_of[name] = functools.partial(threads.Baseline, name=name)
    if "masscan" in found:
        options: commands.Options = [ground.TARGETS, "--wait", "0", "-oL", "/dev/null"]
        all_of["masscan"] = lambda place: commands.Masscan(place, found["masscan"], on, options)
    if "zmap" in found:
        given: commands.Options = ["-S", ground.HOST, "-r", "0", "-c", "1", "-o", "/dev/null", ground.TARGETS]
        all_of["ZMap"] = lambda place: commands.ZMap(place, found["zmap"], on, given)
    if why := threads.pcap_missing():
        missing["pcap_sendpacket"] = why
        del all_of["pcap_sendpacket"]
    else:
        versions["libpcap"] = peers.version_in(_core.pcap_version(), "libpcap")
    if why := threads.numpy_missing():
        missing["Stack.send"] = why
        del all_of["Stack.send"]
    return all_of, versions, missing


def run(rounds: int, seconds: float, only: Sequence[str], say: Say) -> dict[str, Any]:
    """Measures every contender in every round, and returns the document.

    Args:
        rounds: how often.
        seconds: for how long.
        only: contenders by name; all when empty.
        say: for words on the way.

    Raises:
        ConfigError: `only` names one that is not there.
        PrivilegeError: not root.
        EngineError: a contender sent nothing, or failed.
    """
    document.need_linux()
    makers, versions, missing = contenders(ports(seconds))
    makers = chosen(makers, missing, only)
    document.need_root("tx")
    settings = {
        "rounds": rounds,
        "seconds": seconds,
        "settle_s": far_end.settle_s(seconds),
        "targets": ground.TARGETS,
        "ports": ports(seconds),
        "denied_prefixes": ground.DENIED_PREFIXES,
    }
    out = document.begin("tx", versions, missing, settings)
    if not only:
        for name, why in missing.items():
            say(f"without {name}: {why}")
    counted: dict[str, list[far_end.Counted]] = {name: [] for name in makers}
    layouts = {}
    with ground.make(hosts=False) as place, far_end.sink(place) as sink:
        for number, name in interleaved(list(makers), rounds):
            sender = makers[name](place)
            layouts[name] = sender.layout
            counted[name].append(far_end.count(sink, sender, seconds))
            say(f"round {number}: {name}: {counted[name][-1].rate / 1e6:.3f} Mpps")
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
