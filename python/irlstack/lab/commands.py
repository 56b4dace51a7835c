"""What `irlstack lab up/down/status/shell/hold/release` do, as functions."""

import contextlib
import dataclasses
import json
import os
import select
import signal
import subprocess
import sys
from pathlib import Path

from irlstack.errors import ConfigError, EngineError, PrivilegeError
from irlstack.lab import control, netns, registry, topology

_READY_WITHIN_S = 60.0
_DOWN_WITHIN_S = 20.0


@dataclasses.dataclass(frozen=True)
class Status:
    """A lab as `irlstack lab status` shows it; `interfaces` are the client's, with their addresses."""

    name: str
    state: str
    pid: int
    seed: int
    interfaces: dict[str, list[str]]
    namespaces: dict[str, str]
    ranges: dict[str, list[str]]


def up(name: str | None = None, **options: object) -> registry.Registration:
    """Makes a lab that stays until [`down`][irlstack.lab.commands.down]; keywords are those of `LabConfig`.

    What crashed labs left behind is removed first.

    Raises:
        ConfigError: the name is taken or none, or an option is wrong.
        PrivilegeError: not root.
        EngineError: the kernel or a server refused; the message says which.
    """
    given = {key: value for key, value in ({"name": name} | options).items() if value is not None}
    registration, process = start(topology.LabConfig(**given), lifeline=False)  # type: ignore[arg-type]
    # Its parent is init from the moment this process ends; until then nobody waits for it.
    process.returncode = 0
    return registration


def start(config: topology.LabConfig, *, lifeline: bool) -> tuple[registry.Registration, "subprocess.Popen[str]"]:
    """Starts a keeper and returns once its lab answers, with its process; a lifeline is that process's `stdin`."""
    if os.geteuid() != 0:
        raise PrivilegeError("A lab makes network namespaces, which needs CAP_SYS_ADMIN; run as root.")
    with registry.locked():
        registry.sweep_crashed()
        if registry.find(config.name):
            raise ConfigError(f"There is a lab '{config.name}' already; 'irlstack lab down {config.name}' removes it.")
        process = subprocess.Popen(
            [sys.executable, "-m", "irlstack.lab.keeper"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
            cwd="/",
            env=os.environ | {"PYTHONPATH": os.pathsep.join(_import_path())},
        )
        assert process.stdin is not None and process.stdout is not None  # noqa: S101, PT018 - asked for above
        process.stdin.write(json.dumps(dataclasses.asdict(config) | {"lifeline": lifeline}) + "\n")
        process.stdin.flush()
        if not lifeline:
            process.stdin.close()
        try:
            # Not select(), which knows no descriptors beyond 1,024.
            answers = select.poll()
            answers.register(process.stdout, select.POLLIN)
            ready = answers.poll(_READY_WITHIN_S * 1000)
            answer = json.loads(process.stdout.readline() or "{}") if ready else {}
        except BaseException:
            process.terminate()
            process.wait()
            raise
        finally:
            process.stdout.close()
        if "ready" in answer:
            return registry.Registration.parse(answer["ready"]), process
        if not ready:
            process.kill()
        process.wait()
        process.stdin.close()
        registry.sweep_crashed()
    said = answer.get("error") or f"its keeper did not answer within {_READY_WITHIN_S:.0f} s"
    raise EngineError(f"The lab '{config.name}' cannot be made: {said}")


def down(name: str | None = None) -> list[str]:
    """Removes the lab of this name, or every lab, and whatever crashed labs left; returns the names removed.

    Raises:
        ConfigError: there is no lab of this name.
    """
    removed = []
    for each in registry.labs():
        if each.name == name or name is None:
            end(each)
            removed.append(each.name)
    if name is not None and not removed:
        known = ", ".join(each.name for each in registry.labs()) or "there is none"
        raise ConfigError(f"There is no lab '{name}'; labs: {known}.")
    return removed


def end(registration: registry.Registration) -> None:
    """Has a lab's keeper remove it, and removes what is left if the keeper is gone or does not."""
    # Opened before the check: from then on the number cannot come to mean another process.
    with contextlib.suppress(ProcessLookupError):
        pidfd = os.pidfd_open(registration.pid)
        if registration.alive():
            signal.pidfd_send_signal(pidfd, signal.SIGTERM)
            if not netns.wait_for_end(pidfd, _DOWN_WITHIN_S):
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
                netns.wait_for_end(pidfd, _DOWN_WITHIN_S)
        else:
            os.close(pidfd)
    with registry.locked():
        now = registry.find(registration.name)
        if now is None or now.pid == registration.pid:  # not a new lab of the same name
            registration.sweep()


def status() -> list[Status]:
    """Every lab there is; the state of one whose keeper is gone is "crashed"."""
    return [
        Status(
            name=each.name,
            state=each.state if each.alive() else "crashed",
            pid=each.pid,
            seed=each.seed,
            interfaces={end.name: [end.ipv4, end.ipv6] for end in each.client_ends()},
            namespaces={role: namespace.name for role, namespace in each.namespaces.items()},
            ranges=each.ranges,
        )
        for each in registry.labs()
    ]


def shell(name: str | None = None) -> int:
    """Runs $SHELL in a lab's client namespace and returns its exit code; the name may be left out if there is one lab.

    Raises:
        ConfigError: no such lab, or several and none named.
    """
    command = [os.environ.get("SHELL", "/bin/sh")]
    return netns.run(_one(name, "enter").namespaces["client"].name, command, capture_output=False).returncode


def tell(word: str, name: str | None = None) -> str:
    """Tells a lab "hold" or "release" and returns the lab's name; the name may be left out if there is one lab.

    Raises:
        ConfigError: no such lab, or several and none named.
        EngineError: its keeper is gone, or the kernel refused.
    """
    lab = _one(name, word)
    control.tell(lab, word)
    return lab.name


def _one(name: str | None, what: str) -> registry.Registration:
    alive = [each for each in registry.labs() if each.alive() and each.state == "ready"]
    chosen = [each for each in alive if each.name == name] if name is not None else alive
    if len(chosen) != 1:
        known = ", ".join(each.name for each in alive) or "none; 'irlstack lab up' makes one"
        raise ConfigError(f"Name one lab to {what}. Labs up: {known}.")
    return chosen[0]


def _import_path() -> list[str]:
    """Where the keeper finds this very package, also when the caller imported it from an unusual place."""
    return [str(Path(__file__).parents[2]), *filter(None, [os.environ.get("PYTHONPATH")])]
