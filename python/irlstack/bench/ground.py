"""The ground that contenders meet on: a lab, and what each has to know of it."""

import contextlib
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from irlstack.lab import Lab

HOST, SPARE, MASSCAN, QUIET = "198.18.0.1", "198.18.0.10", "198.18.0.20", "198.18.0.30"
"""The client's own address, and three of its network that nobody has: ours, masscan's, and one for ZMap, whose answers
then reach ZMap's packet socket while the client's kernel ignores them."""
TARGETS = "10.0.0.0/8"
HOST_BITS = 24
DENIED_PREFIXES = 300


@dataclass(frozen=True)
class Ground:
    """Where a contender runs: the client's end of a veth pair.

    Attributes:
        lab: the lab.
        folder: for files, in memory.
        deny: the deny list that every scanner gets.
    """

    lab: Lab
    folder: Path
    deny: Path

    @property
    def interface(self) -> str:
        """The client's interface."""
        return self.lab.interface("client").name

    @property
    def mac(self) -> str:
        """Its MAC."""
        return self.lab.interface("client").mac

    @property
    def gateway_mac(self) -> str:
        """The other end's MAC."""
        return self.lab.interface("gateway").mac


def denied() -> list[str]:
    """Small prefixes scattered over 10.0.0.0/8, the same in every run."""
    return [f"10.{each * 97 % 256}.{(each * 41 + each // 256) % 256}.16/28" for each in range(DENIED_PREFIXES)]


@contextlib.contextmanager
def make(*, hosts: bool, service: str = "response") -> Iterator[Ground]:
    """A lab for the length of a `with` block: every host of 10.0.0.0/8 answers, with a service, or none is there."""
    with (
        TemporaryDirectory(dir="/dev/shm", prefix="irlstack-bench-") as folder,
        Lab(xdp=(TARGETS,) if hosts else (), user=(), nginx=(), everything_open=True, service=service) as lab,
    ):
        deny = Path(folder) / "deny.txt"
        deny.write_text("".join(f"{prefix}\n" for prefix in denied()), encoding="utf-8")
        # That a program is attached to the lab's own interface is no news here.
        log = logging.getLogger("irlstack.irl_link")
        level = log.level
        log.setLevel(logging.ERROR)
        try:
            yield Ground(lab, Path(folder), deny)
        finally:
            log.setLevel(level)
