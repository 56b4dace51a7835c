"""Network namespaces by name: make, remove, enter, run in.

All of it is `ip netns` and setns(2); names live in /run/netns as everywhere, so that `ip netns exec` works on them too.
"""

import contextlib
import ctypes
import os
import signal
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from irlstack.errors import EngineError, PrivilegeError

RUN = Path("/run/netns")
_CLONE_NEWNET = 0x40000000
_KILL_AFTER_S = 2.0


def ip(*arguments: str, netns: str | None = None) -> str:
    """Runs `ip`, in a namespace if one is named, and returns what it printed.

    Raises:
        EngineError: `ip` is missing or refused; the message carries its words.
    """
    command = ["ip", *(["-n", netns] if netns else []), *arguments]
    return _checked(command)


def batch(commands: Sequence[str], netns: str | None = None) -> None:
    """Runs several `ip` commands in one process; stops at the first that is refused.

    Raises:
        EngineError: `ip` is missing or refused; the message carries its words.
    """
    command = ["ip", *(["-n", netns] if netns else []), "-batch", "-"]
    _checked(command, "\n".join(commands) + "\n")


def _checked(command: Sequence[str], text: str | None = None) -> str:
    try:
        done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)  # noqa: S603
    except FileNotFoundError:
        raise EngineError(f"{command[0]} is not installed: apt-get install iproute2 ethtool") from None
    if done.returncode:
        said = " ".join(done.stderr.split()) or f"exit code {done.returncode}"
        raise EngineError(f"'{' '.join(command)}' failed: {said}")
    return done.stdout


def configure(netns: str, command: Sequence[str]) -> str:
    """Runs a command in a namespace, with that namespace's /sys, and returns what it printed.

    Raises:
        EngineError: it is missing or failed; the message carries its words.
    """
    return _checked(["ip", "netns", "exec", netns, *command])


def make(name: str, settings: dict[str, str]) -> None:
    """Makes a namespace, brings its loopback up and writes `settings` (paths below /proc/sys) in it.

    IPv6 autoconfiguration, duplicate-address detection and router solicitation are off, so that device counters move
    for measured frames only.
    """
    ip("netns", "add", name)
    quiet = {
        f"net/ipv6/conf/{which}/{key}": value
        for which in ("all", "default")
        for key, value in (
            ("accept_ra", "0"),
            ("autoconf", "0"),
            ("dad_transmits", "0"),
            ("router_solicitations", "0"),
            ("addr_gen_mode", "1"),
            # Multicast reports of a new address leave at once instead of within seconds.
            ("mldv1_unsolicited_report_interval", "1"),
            ("mldv2_unsolicited_report_interval", "1"),
        )
    }
    with enter(name):
        for path, value in (quiet | settings).items():
            (Path("/proc/sys") / path).write_text(value)
    ip("link", "set", "lo", "up", netns=name)


def remove(name: str) -> None:
    """Removes a namespace and ends what still runs in it; none of that name is no error.

    Left alone are the calling process and its ancestors: they lose the name, and the namespace goes when they leave.
    """
    if not (RUN / name).exists():
        return
    listed = subprocess.run(["ip", "netns", "pids", name], capture_output=True, text=True, check=False)  # noqa: S603, S607
    _end([int(pid) for pid in listed.stdout.split()])
    subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)  # noqa: S603, S607
    # A crash between creating the name and mounting the namespace on it leaves a plain file.
    (RUN / name).unlink(missing_ok=True)


def inode(name: str) -> int:
    """The namespace's inode number, by which the kernel and the policy know it."""
    return (RUN / name).stat().st_ino


@contextlib.contextmanager
def enter(name: str) -> Iterator[None]:
    """Puts the calling thread, and threads it starts meanwhile, into a namespace; the thread returns at the end.

    Sockets and interfaces opened inside stay in the namespace. /sys shows the old one.

    Raises:
        PrivilegeError: CAP_SYS_ADMIN is missing.
        EngineError: there is no such namespace.
    """
    try:
        target = os.open(RUN / name, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        raise EngineError(f"There is no network namespace '{name}'; 'ip netns' lists those there are.") from None
    before = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        _setns(target)
        try:
            yield
        finally:
            _setns(before)
    finally:
        os.close(target)
        os.close(before)


def run(name: str, command: Sequence[str | os.PathLike[str]], **options: Any) -> subprocess.CompletedProcess[Any]:
    """`subprocess.run` inside a namespace, with its options; output is text and captured unless they say otherwise."""
    if not {"capture_output", "stdout", "stderr"} & options.keys():
        options["capture_output"] = True
    options.setdefault("text", True)
    return subprocess.run(["ip", "netns", "exec", name, *command], **options)  # noqa: S603, S607


def start(name: str, command: Sequence[str | os.PathLike[str]], **options: Any) -> subprocess.Popen[Any]:
    """`subprocess.Popen` inside a namespace; its pid is the command's own."""
    return subprocess.Popen(["ip", "netns", "exec", name, *command], **options)  # noqa: S603, S607


def _setns(descriptor: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(descriptor, _CLONE_NEWNET):
        number = ctypes.get_errno()
        raise PrivilegeError(f"Entering a network namespace needs CAP_SYS_ADMIN ({os.strerror(number)}); run as root.")


def _end(pids: list[int]) -> None:
    spared = set(_ancestors())
    ending = []
    for pid in pids:
        # A pidfd names this very process, also after its number was given to another.
        with contextlib.suppress(OSError):
            if pid not in spared:
                ending.append(os.pidfd_open(pid))
    for number in (signal.SIGTERM, signal.SIGKILL):
        for descriptor in ending:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(descriptor, number)
        ending = [descriptor for descriptor in ending if not wait_for_end(descriptor, _KILL_AFTER_S)]
    for descriptor in ending:
        os.close(descriptor)


def wait_for_end(pidfd: int, seconds: float) -> bool:
    """Waits until the process behind a pidfd is gone and closes it; False, and still open, when time ran out."""
    import select

    poller = select.poll()
    poller.register(pidfd, select.POLLIN)
    gone = bool(poller.poll(seconds * 1000))
    if gone:
        os.close(pidfd)
    return gone


def _ancestors() -> Iterator[int]:
    pid = os.getpid()
    while pid > 0:
        yield pid
        try:
            pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            return
