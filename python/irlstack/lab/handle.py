"""[`Lab`][irlstack.lab.handle.Lab]: a lab as a context manager."""

import contextlib
import os
import subprocess
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import Any, Self

from irlstack.errors import ConfigError
from irlstack.lab import commands, control, netns, registry, topology


class Lab:
    """A lab for the length of a `with` block.

        with irl.lab.Lab(seed=1) as lab:
            lab.run(["irlstack", "scan", "10.0.0.0/16", "-p", "80"], check=True)

    The lab goes when the block ends, and when this process does, however that happens.

    Args:
        name: unique on this machine; random unless given.
        seed: the World's.
        **options: ranges, services, an impairment of the link, threads, how many pairs: see `LabConfig`.
    """

    def __init__(self, name: str | None = None, *, seed: int = 1, **options: Any) -> None:
        given = {"seed": seed} | options | ({"name": name} if name is not None else {})
        self.config = topology.LabConfig(**given)
        self._registration: registry.Registration | None = None
        self._process: subprocess.Popen[str] | None = None

    def __repr__(self) -> str:
        state = "up" if self._registration else "down"
        return f"Lab({self.config.name!r}, seed={self.config.seed}, {state})"

    def __enter__(self) -> Self:
        self.up()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.down()

    def up(self) -> None:
        """Makes the lab; returns once everything in it answers.

        Raises:
            ConfigError: it is up already, or its name is taken.
            PrivilegeError: not root.
            EngineError: the kernel or a server refused; the message says which.
        """
        if self._process:
            raise ConfigError(f"The lab '{self.config.name}' is up already.")
        self._registration, self._process = commands.start(self.config, lifeline=True)

    def down(self) -> None:
        """Removes the lab and everything in it; nothing happens when it is down."""
        if self._process is None or self._registration is None:
            return
        commands.end(self._registration)
        assert self._process.stdin is not None  # noqa: S101 - the lifeline
        self._process.stdin.close()
        self._process.wait()
        self._process = self._registration = None

    @property
    def name(self) -> str:
        """What `irlstack lab status` calls it."""
        return self.config.name

    @property
    def registration(self) -> registry.Registration:
        """What the registry says of it: namespaces, interfaces, ranges.

        Raises:
            ConfigError: the lab is down.
        """
        if self._registration is None:
            raise ConfigError(f"The lab '{self.name}' is not up; use it in a 'with' block.")
        return self._registration

    def namespace(self, role: str = "client") -> str:
        """The full name of a namespace: of "client", "net", "servers" or, with an impairment, "relay"."""
        return self.registration.namespaces[role].name

    def interface(self, role: str = "client") -> registry.Interface:
        """One end of a link: "client", "gateway", "router", "servers", "relay_client" or "relay_net".

        Those of further pairs are "client2", "gateway2" and so on.
        """
        return self.registration.interfaces[role]

    def run(
        self, command: Sequence[str | os.PathLike[str]], *, role: str = "client", **options: Any
    ) -> subprocess.CompletedProcess[Any]:
        """`subprocess.run` in a namespace of the lab; output is text and captured unless options say otherwise."""
        return netns.run(self.namespace(role), command, **options)

    def start(
        self, command: Sequence[str | os.PathLike[str]], *, role: str = "client", **options: Any
    ) -> subprocess.Popen[Any]:
        """`subprocess.Popen` in a namespace of the lab."""
        return netns.start(self.namespace(role), command, **options)

    @contextlib.contextmanager
    def enter(self, role: str = "client") -> Iterator[None]:
        """Puts the calling thread, and threads it starts meanwhile, into a namespace of the lab."""
        with netns.enter(self.namespace(role)):
            yield

    def hold(self) -> None:
        """From now on the World's hosts answer SYNs, and every other TCP segment to them is swallowed and counted.

        Raises:
            ConfigError: the lab is down.
            EngineError: its keeper is gone, or the kernel refused.
        """
        control.tell(self.registration, "hold")

    def release(self) -> None:
        """Ends a hold: what clients send again is answered; raises as `hold`."""
        control.tell(self.registration, "release")

    def counters(self) -> dict[str, Any]:
        """What the World's hosts and the relays did so far, by interface; raises as `hold`.

        Of hosts a dict by name: `kernel_answered`, `kernel_served` (of those, with data), `kernel_held` and so on; of a
        relay two, there and back.
        """
        counted: dict[str, Any] = control.tell(self.registration, "counters")
        return counted
