"""The World's hosts on the lab's links, and the relays that impair those to the client."""

from collections.abc import Iterator, Mapping
from typing import Any, Protocol

from irlstack import _core
from irlstack.lab.topology import LabConfig, suffix

Hosts = _core.Hosts


class Responder(Protocol):
    """Something that works on frames until it is closed."""

    def counters(self) -> Any:
        """What it did so far: a dict, or for a relay one each way."""

    def close(self) -> None:
        """Stops; may be called twice."""


def start(config: LabConfig, namespaces: Mapping[str, str]) -> Iterator[tuple[str, Responder]]:
    """Starts each in its namespace and hands it over, with its interface's name, as soon as it works.

    Raises:
        EngineError: the kernel refused an XDP program or a packet socket.
    """
    suffixes = [suffix(pair) for pair in range(1, config.pairs + 1)]
    if each_way := config.impairment:
        for number, n in enumerate(suffixes):
            yield (
                f"ra{n}",
                _core.Relay(
                    namespaces["relay"],
                    f"ra{n}",
                    f"rb{n}",
                    # Each link meets misfortunes of its own.
                    seed=each_way.seed + number,
                    loss=each_way.loss,
                    duplicate=each_way.duplicate,
                    reorder=each_way.reorder,
                    delay_ms=each_way.delay_ms,
                ),
            )
    for role, interface, ranges, kernel in (
        *(("net", f"vb{n}", config.xdp, True) for n in suffixes),
        ("servers", "vs", config.user, False),
    ):
        if ranges:
            yield (
                interface,
                _core.Hosts(
                    namespaces[role],
                    interface,
                    list(ranges),
                    seed=config.seed,
                    everything_open=config.everything_open,
                    service=config.service,
                    kernel=kernel,
                ),
            )
