"""Where a run shall be opened: on interfaces, in the simulation, or on a file."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from irlstack import checkpoint as checkpoints
from irlstack._core import RawStack, World
from irlstack.bounds import check_numbers
from irlstack.errors import ConfigError
from irlstack.lab.topology import Impairment
from irlstack.on_disk import OnDisk
from irlstack.request import Request

_SIMULATED_SOURCE = {"ipv4": "198.18.0.10", "ipv6": "fd00:18::10"}


def interface_names(interface: str | Sequence[str] | None) -> list[str]:
    """The names of interfaces; none where the route shall say."""
    if interface is None:
        return []
    names = [interface] if isinstance(interface, str) else list(interface)
    if not names or "" in names:
        raise ConfigError("An interface has no name: give those that probes shall leave by, as in -i eth0,eth1.")
    return names


@dataclass
class Link:
    """The keywords of a run that say where it is opened, see [`scan`][irlstack.scan]."""

    interface: str | Sequence[str] | None
    gateway_mac: str | None
    source_mac: str | None
    vlan: int | None
    iplayer: bool
    engine: str
    batch: int
    dad: str
    world: World | None
    impairment: Impairment | None

    def __post_init__(self) -> None:
        if self.engine != "sim" and (self.world is not None or self.impairment is not None):
            raise ConfigError('A World and an impairment go with engine="sim".')
        for name in ("interface", "gateway_mac", "source_mac", "vlan"):
            if self.engine == "sim" and getattr(self, name) is not None:
                raise ConfigError(f"The simulated link has no {name} to choose.")
        if self.engine == "sim" and self.iplayer:
            raise ConfigError("The simulated link speaks Ethernet: leave out iplayer.")
        check_numbers({"batch": self.batch})
        self.names = interface_names(self.interface)
        self.on_disk = OnDisk.named(self.engine)
        if self.on_disk is not None and (self.names or self.iplayer):
            raise ConfigError("A file has no interface to choose: leave out interface and iplayer.")

    def described(self) -> dict[str, Any]:
        """The same as JSON, for a checkpoint."""
        names = ("gateway_mac", "source_mac", "vlan", "iplayer", "engine", "batch", "dad")
        return {
            "interface": self.names or None,
            "world": None if self.world is None else checkpoints.describe_world(self.world),
            "impairment": None if self.impairment is None else asdict(self.impairment),
            **{name: getattr(self, name) for name in names},
        }

    def open(self, asked: Request) -> RawStack:
        """The network that is opened.

        Raises:
            ConfigError, PrivilegeError, EngineError: see [`Stack`][irlstack.Stack]; and of a file as `OnDisk.open`.
        """
        if self.on_disk is not None:
            return self.on_disk.open(asked.plan, self.gateway_mac, self.source_mac, self.vlan)
        sources = asked.plan.source_ip
        if self.engine == "sim":
            sources = sources or [_SIMULATED_SOURCE[asked.plan.family]]
            impairment = asdict(self.impairment or Impairment())
            return RawStack.simulate(self.world or World(), sources, **impairment)
        return RawStack.open(
            self.names,
            sources,
            asked.towards,
            self.gateway_mac,
            self.vlan,
            self.engine,
            self.dad,
            self.source_mac,
            asked.rate,
            self.batch,
            self.iplayer,
        )
