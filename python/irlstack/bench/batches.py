"""`irlstack bench tx --batches`: batch size against rate and processor time, the paper's figure 2."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from irlstack import _core
from irlstack.bench import document, figures, ground, senders
from irlstack.bench.tx import rotated
from irlstack.errors import ConfigError, EngineError

ALL = (1, 2, 4, 8, 16, 32, 64, 128, 256)
MOST = 256
OFFERED = 100_000_000
"""Probes a second that are asked for: more than any engine sends."""

Say = Callable[[str], None]


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
    return [int(item) for item in items]


def usage(network: Mapping[str, int]) -> tuple[float, float, float]:
    """What the calls of the engine `live` did, from a run's `network` counters.

    A turn without a frame takes what it took in the same run while the ring was empty; the other turns took the rest.

    Returns:
        The busy share of the time in which there was something to send, ns of it a frame, and ns of an idle turn.

    Raises:
        EngineError: the calls never ran, or never idled.
    """
    quiet_turns, quiet_ns = network.get("live_quiet_turns", 0), network.get("live_quiet_ns", 0)
    active_ns = network.get("live_call_ns", 0) - quiet_ns
    frames = network.get("live_frames", 0)
    if not quiet_turns or active_ns <= 0 or not frames:
        raise EngineError("The engine's calls were too short to tell busy turns from idle ones.")
    idle_ns = quiet_ns / quiet_turns
    busy_ns = max(0.0, active_ns - (network["live_idle_turns"] - quiet_turns) * idle_ns)
    return busy_ns / active_ns, busy_ns / frames, idle_ns


def run(batches: Sequence[int], rounds: int, seconds: float, say: Say) -> dict[str, Any]:
    """Measures our scan with each batch size in every round, and returns the document.

    Raises:
        PrivilegeError: not root.
        EngineError: nothing was sent.
    """
    document.need_root("tx --batches")
    rates: dict[int, list[ground.Counted]] = {batch: [] for batch in batches}
    used: dict[int, list[tuple[float, float, float]]] = {batch: [] for batch in batches}
    # Batches of one frame take longest to end, and nothing is hurried by more targets.
    lasts = ground.settle_s(seconds) + seconds + 0.5
    with ground.make(hosts=False) as place:
        with place.lab.enter("net"):
            sink = _core.Sink(place.lab.interface("gateway").name)
        for number in range(rounds):
            for name in rotated([str(batch) for batch in batches], number):
                batch = int(name)
                scan = senders.offered(place, OFFERED, batch, lasts)
                rates[batch].append(ground.count(sink, scan, seconds))
                used[batch].append(usage(scan.document["network"]))
                share, a_frame, _ = used[batch][-1]
                rate = rates[batch][-1].rate
                say(f"round {number + 1}: {batch}: {rate / 1e6:.3f} M/s, {share:.1%} busy, {a_frame:.0f} ns a frame")
        sink.close()
    settings = {"rounds": rounds, "seconds": seconds, "offered": OFFERED}
    out = document.begin("tx --batches", {}, {}, settings)
    out["batches"] = [
        {
            "batch": batch,
            "rate": figures.spread([each.rate for each in rates[batch]]),
            "busy_share": figures.spread([share for share, _, _ in used[batch]]),
            "busy_ns_a_frame": figures.spread([a_frame for _, a_frame, _ in used[batch]]),
            "idle_turn_ns": figures.spread([idle for _, _, idle in used[batch]]),
            "lost": [None if each.said is None else each.said - each.arrived for each in rates[batch]],
        }
        for batch in batches
    ]
    return out


def need_matplotlib() -> None:
    """Says what is missing before anything is measured.

    Raises:
        ConfigError: no matplotlib.
    """
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        raise ConfigError("--plot needs matplotlib: pip install 'irlstack[report]'") from None


def plot(out: Mapping[str, Any], path: Path) -> None:
    """Draws the document's batches: rate and busy share over batch size. The suffix says how: .svg, .png, .pdf."""
    from matplotlib.figure import Figure

    batches = out["batches"]
    sizes = [each["batch"] for each in batches]
    figure = Figure(figsize=(6.4, 4.0), layout="constrained")
    left = figure.add_subplot()
    right = left.twinx()
    for axes, key, factor, label, colour in (
        (left, "rate", 1e-6, "frames a second, millions", "tab:blue"),
        (right, "busy_share", 100, "call busy, %", "tab:orange"),
    ):
        middle = [each[key]["median"] * factor for each in batches]
        axes.plot(sizes, middle, "o-", color=colour)
        axes.fill_between(
            sizes,
            [each[key]["min"] * factor for each in batches],
            [each[key]["max"] * factor for each in batches],
            color=colour,
            alpha=0.2,
        )
        axes.set_ylabel(label, color=colour)
        axes.set_ylim(bottom=0)
    left.set_xscale("log", base=2)
    left.set_xticks(sizes, [str(size) for size in sizes])
    left.set_xlabel("frames a batch")
    machine = out["machine"]
    left.set_title(f"{machine['cpu']}, {machine['cores']} cores, Linux {machine['kernel']}", fontsize="small")
    figure.savefig(path)
