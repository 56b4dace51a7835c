"""Engines whose network is a file: `pcap:FILE`, a dry run on disk, and `replay:FILE`, answers judged again."""

from dataclasses import dataclass
from pathlib import Path
from typing import Self

from irlstack._core import Plan, RawStack
from irlstack.errors import ConfigError

_DRY_SOURCE = {"ipv4": "192.0.2.1", "ipv6": "2001:db8::1"}
"""Where frames of a dry run come from unless told otherwise, as with `--dryrun`."""


@dataclass(frozen=True)
class OnDisk:
    """Such an engine: its file, and whether that is read, and not written."""

    path: Path
    replay: bool

    @classmethod
    def named(cls, engine: str) -> Self | None:
        """The one that is named so; None for engines that reach a network.

        Raises:
            ConfigError: it names no file.
        """
        kind, colon, path = engine.partition(":")
        if kind not in ("pcap", "replay"):
            return None
        if not colon or not path:
            raise ConfigError(
                f"The engine {kind} is a file's: pcap:FILE writes what would be sent, replay:FILE judges what came."
            )
        return cls(Path(path), kind == "replay")

    def open(self, plan: Plan, gateway_mac: str | None, source_mac: str | None, vlan: int | None) -> RawStack:
        """The file as a network.

        Raises:
            ConfigError: it is there already, or is no capture; or nobody says whose answers are in it.
            OSError: it cannot be read or written.
        """
        # A sample of ours says itself to whom its answers came.
        dry = [] if self.replay else [_DRY_SOURCE[plan.family]]
        return RawStack.on_disk(
            self.path,
            plan.source_ip or dry,
            replay=self.replay,
            gateway_mac=gateway_mac,
            source_mac=source_mac,
            vlan=vlan,
        )
