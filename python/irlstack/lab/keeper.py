"""The keeper: one process per lab that makes the lab, holds it, and removes it.

It reads a [`LabConfig`][irlstack.lab.topology.LabConfig] as JSON from its standard input, prints one line of JSON when
the lab answers (`{"ready": REGISTRATION}` or `{"error": TEXT}`), and then waits for SIGTERM or, with
`"lifeline": true`, for the end of its standard input: so a lab held by a program goes with that program,
however it ends.
"""

import contextlib
import json
import os
import select
import signal
import sys
import traceback
from typing import Any

from irlstack.errors import IrlError
from irlstack.lab import control, registry, responders, topology
from irlstack.lab.servers import Misbehaving, Nginx, Server, Sshd


class Keeper:
    """A lab in the making, and then in being."""

    def __init__(self, config: topology.LabConfig) -> None:
        pid = os.getpid()
        started = registry.start_time(pid)
        assert started is not None  # noqa: S101 - of this very process
        self.registration = registry.Registration(config.name, pid, started, config.seed)
        self._config = config
        self._held: contextlib.ExitStack = contextlib.ExitStack()
        self._servers: list[Server] = []
        self._listener: control.Listener | None = None

    def build(self) -> None:
        """Makes the whole lab; whatever it raises, call [`close`][Keeper.close]."""
        registration, config = self.registration, self._config
        registration.save()
        registration.folder.mkdir(mode=0o755)
        _log_to(registration.folder / "keeper.log")
        topology.build(config, registration)
        names = {role: each.name for role, each in registration.namespaces.items()}
        parts = {}
        for interface, responder in responders.start(config, names):
            self._held.callback(responder.close)
            parts[interface] = responder
        if config.threaded:
            for pair in range(1, config.pairs + 1):
                topology.thread_napi(names["net"], f"vb{topology.suffix(pair)}")
        if config.nginx:
            self._hold(Nginx(names["servers"], registration.folder / "nginx"))
        if config.sshd:
            self._hold(Sshd(names["servers"], registration.folder / "sshd"))
        if config.misbehaving:
            self._hold(Misbehaving(names["servers"]))
        self._listener = control.Listener(registration.folder, parts)
        self._held.callback(self._listener.close)
        registration.state = "ready"
        registration.save()

    def _hold(self, server: Server) -> None:
        self._servers.append(server)
        self._held.callback(server.stop)

    def wait(self, stop: int, *, lifeline: bool) -> None:
        """Does what the lab is told until a byte comes at `stop`, a server ends, or the lifeline, standard input."""
        assert self._listener is not None  # noqa: S101 - it was built
        poller = select.poll()
        poller.register(stop, select.POLLIN)
        told = self._listener.socket.fileno()
        poller.register(told, select.POLLIN)
        errors = {server.errors.fileno() for server in self._servers}
        for descriptor in errors:
            poller.register(descriptor, select.POLLIN)
        if lifeline:
            poller.register(0, select.POLLIN)
        while True:
            for descriptor, _ in poller.poll():
                if descriptor == told:
                    self._listener.serve()
                    continue
                said = os.read(descriptor, 65_536)
                if descriptor in errors:
                    sys.stderr.buffer.write(said)
                    sys.stderr.flush()
                if descriptor == stop or not said:
                    return

    def close(self) -> None:
        """Ends servers and responders and removes every trace of the lab."""
        self._held.close()
        self.registration.sweep()


def _log_to(path: "os.PathLike[str]") -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(descriptor, 2)
    os.close(descriptor)


def _say(document: dict[str, Any]) -> None:
    with contextlib.suppress(BrokenPipeError):
        sys.stdout.write(json.dumps(document) + "\n")
        sys.stdout.flush()


def main() -> int:
    """Runs a keeper until it is told to end; the exit code."""
    document = json.loads(sys.stdin.readline())
    lifeline = document.pop("lifeline")
    if document["impairment"] is not None:
        document["impairment"] = topology.Impairment(**document["impairment"])
    keeper = Keeper(topology.LabConfig(**document))
    stop, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.set_wakeup_fd(wake)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda *_: None)
    try:
        keeper.build()
    except (IrlError, OSError) as error:
        traceback.print_exc()
        keeper.close()
        _say({"error": str(error)})
        return 1
    _say({"ready": keeper.registration.document()})
    # The parent may be reading until the end of this pipe.
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.close(null)
    try:
        keeper.wait(stop, lifeline=lifeline)
    finally:
        with registry.locked():
            keeper.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
