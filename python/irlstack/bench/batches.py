"""`irlstack bench tx --batches`: batch size against rate and processor time, the paper's figure 2."""

from collections.abc import Mapping, Sequence
from typing import Any

from irlstack.bench import commands, document, far_end, figures, ground, tx
from irlstack.bench.rounds import Say, interleaved
from irlstack.errors import ConfigError, EngineError

ALL = (1, 2, 4, 8, 16, 32, 64, 128, 256)
MOST = 256
OFFERED = 100_000_000
"""Probes a second that are asked for: more than any engine sends."""
_SLACK_S = 0.5


def parse(text: str) -> list[int]:
    """`1,2,4`; "all" is every power of two.

    >>> parse("1,8,256")
    [1, 8, 256]

    Raises:
        ConfigError: something is no batch size.
    """
    if text == "all":
        return list(ALL)
    items = [item.strip() for item in text.split(",")]
    wrong = next((item for item in items if not (item.isdecimal() and 1 <= int(item) <= MOST)), None)
    if wrong is not None:
        raise ConfigError(f"--batches: {wrong!r} is no batch size; write numbers from 1 to {MOST}: 1,16,256, or all.")
    return list(dict.fromkeys(map(int, items)))


def usage(network: Mapping[str, int]) -> tuple[float, float, float]:
    """What the calls of the engine `live` did, from a run's `network` counters.

    A turn without a frame takes what it took in the same run while there was nothing to send; the turns with one took
    the rest.

    Returns:
        The busy share of the time in which there was something to send, ns of it a frame, and ns of an idle turn.

    Raises:
        EngineError: the calls never ran, or never idled.
    """
    quiet_turns, quiet_ns = network.get("live_quiet_turns", 0), network.get("live_quiet_ns", 0)
    active_ns = network.get("live_call_ns", 0) - quiet_ns
    frames = network.get("live_frames", 0)
    if not quiet_turns or active_ns <= 0 or not frames:
        raise EngineError("The engine's calls were too short to tell busy turns from idle ones: give more --seconds.")
    idle_ns = quiet_ns / quiet_turns
    busy_ns = max(0.0, active_ns - (network["live_idle_turns"] - quiet_turns) * idle_ns)
    return busy_ns / active_ns, busy_ns / frames, idle_ns


def run(batches: Sequence[int], rounds: int, seconds: float, say: Say) -> dict[str, Any]:
    """Measures our scan with each batch size in every round, and returns the document.

    Raises:
        PrivilegeError: not root.
        EngineError: nothing was sent.
    """
    document.need_linux()
    document.need_root("tx --batches")
    settings = {
        "rounds": rounds,
        "seconds": seconds,
        "settle_s": far_end.settle_s(seconds),
        "targets": ground.TARGETS,
        "offered": OFFERED,
        "denied_prefixes": ground.DENIED_PREFIXES,
    }
    out = document.begin("tx --batches", {}, {}, settings)
    counted: dict[int, list[far_end.Counted]] = {batch: [] for batch in batches}
    used: dict[int, list[tuple[float, float, float]]] = {batch: [] for batch in batches}
    lasts = far_end.settle_s(seconds) + seconds + _SLACK_S
    with ground.make(hosts=False) as place, far_end.sink(place) as sink:
        for number, name in interleaved([str(batch) for batch in batches], rounds):
            batch = int(name)
            scan = commands.offered(place, OFFERED, batch, tx.ports(lasts), lasts)
            counted[batch].append(far_end.count(sink, scan, seconds))
            used[batch].append(usage(scan.document["network"]))
            share, a_frame, _ = used[batch][-1]
            rate = counted[batch][-1].rate
            say(f"round {number}: batch {batch}: {rate / 1e6:.3f} Mpps, {share:.1%} busy, {a_frame:.0f} ns a frame")
    out["batches"] = [
        {
            "batch": batch,
            "rate": figures.spread([each.rate for each in counted[batch]]),
            "busy_share": figures.spread([share for share, _, _ in used[batch]]),
            "busy_ns_a_frame": figures.spread([a_frame for _, a_frame, _ in used[batch]]),
            "idle_turn_ns": figures.spread([idle for _, _, idle in used[batch]]),
            "lost": [None if each.said is None else each.said - each.arrived for each in counted[batch]],
        }
        for batch in batches
    ]
    return out
