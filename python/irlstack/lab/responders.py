"""The World's hosts: the XDP responder on the gateway's interface and the user-space one among the servers."""

from collections.abc import Iterator, Mapping
from typing import Protocol

from irlstack.lab.topology import LabConfig


class Responder(Protocol):
    """Something that answers frames until it is closed."""

    def close(self) -> None:
        """Stops answering; may be called twice."""


def start(config: LabConfig, namespaces: Mapping[str, str]) -> Iterator[Responder]:
    """Starts each responder in its namespace and hands it over as soon as it answers."""
    yield from ()
