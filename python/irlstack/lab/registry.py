"""What labs there are: one JSON file a lab below /run/irlstack/labs, written by its keeper.

The policy reads these files: the default rate is granted inside a namespace whose inode number stands here, as long as
the keeper lives. The layout (version 1):

    {"version": 1, "name": "demo", "state": "ready",
     "keeper": {"pid": 4711, "start_time": 123456},
     "namespaces": {"client": {"name": "irl-demo-client", "inode": 4026532300}, ...},
     "interfaces": {"client": {"namespace": "client", "name": "va", "mac": "02:...",
                               "ipv4": "198.18.0.1", "ipv6": "fd00:18::1"},
                    "gateway": {"namespace": "net", "name": "vb", ...}, ...},
     "world": {"seed": 1}, "ranges": {"xdp": ["10.0.0.0/8", "fd00:10::/64"], "user": [...], "nginx": [...]}}

`start_time` is field 22 of /proc/PID/stat, so that a recycled pid is not taken for the keeper. `state` is "starting"
until everything answers. A file whose keeper is gone is the trace of a crash: the next `up` or `down` removes it and
what it names.
"""

import contextlib
import fcntl
import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from irlstack.lab import netns

FOLDER = Path("/run/irlstack/labs")
VERSION = 1


@dataclass(frozen=True)
class Namespace:
    """A namespace of a lab: its name and the inode number the kernel knows it by."""

    name: str
    inode: int


@dataclass(frozen=True)
class Interface:
    """One end of a lab's link: `namespace` is the role ("client", "net", ...), not the full name."""

    namespace: str
    name: str
    mac: str
    ipv4: str
    ipv6: str


@dataclass
class Registration:
    """What the registry says of one lab."""

    name: str
    pid: int
    start_time: int
    seed: int
    state: str = "starting"
    namespaces: dict[str, Namespace] = field(default_factory=dict)
    interfaces: dict[str, Interface] = field(default_factory=dict)
    ranges: dict[str, list[str]] = field(default_factory=dict)

    @property
    def path(self) -> Path:
        """The lab's file."""
        return FOLDER / f"{self.name}.json"

    @property
    def folder(self) -> Path:
        """Where the lab's servers keep their files; removed with the lab."""
        return FOLDER / f"{self.name}.d"

    def alive(self) -> bool:
        """Whether the keeper that wrote this is still running."""
        return self.start_time == start_time(self.pid)

    def client_ends(self) -> list[Interface]:
        """The client's ends of its links, where measurements leave."""
        return [each for each in self.interfaces.values() if each.namespace == "client"]

    def document(self) -> dict[str, Any]:
        """The JSON document of the module's docstring."""
        return {
            "version": VERSION,
            "name": self.name,
            "state": self.state,
            "keeper": {"pid": self.pid, "start_time": self.start_time},
            "namespaces": {role: asdict(each) for role, each in self.namespaces.items()},
            "interfaces": {role: asdict(each) for role, each in self.interfaces.items()},
            "world": {"seed": self.seed},
            "ranges": self.ranges,
        }

    @classmethod
    def parse(cls, document: dict[str, Any]) -> "Registration":
        """The value behind a document.

        Raises:
            ValueError: another version, or not such a document.
        """
        try:
            if document["version"] != VERSION:
                raise ValueError(f"the lab was made by another irlstack (registry version {document['version']})")
            return cls(
                name=document["name"],
                pid=document["keeper"]["pid"],
                start_time=document["keeper"]["start_time"],
                seed=document["world"]["seed"],
                state=document["state"],
                namespaces={role: Namespace(**each) for role, each in document["namespaces"].items()},
                interfaces={role: Interface(**each) for role, each in document["interfaces"].items()},
                ranges=document["ranges"],
            )
        except (KeyError, TypeError) as error:
            raise ValueError(f"not a lab's registration: {error!r}") from error

    def save(self) -> None:
        """Writes the file, whole or not at all."""
        fresh = self.path.with_suffix(".new")
        fresh.write_text(json.dumps(self.document()))
        fresh.replace(self.path)

    def sweep(self) -> None:
        """Removes every namespace, process and file of this lab. Interfaces go with their namespaces."""
        for each in self.namespaces.values():
            netns.remove(each.name)
        shutil.rmtree(self.folder, ignore_errors=True)
        self.path.with_suffix(".new").unlink(missing_ok=True)
        self.path.unlink(missing_ok=True)


def start_time(pid: int) -> int | None:
    """When a process started, in clock ticks since boot; None when there is none or it is a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else int(fields[19])


def labs() -> list[Registration]:
    """Every lab that has a file, dead ones too, by name. Files that are no registration are passed over."""
    found = []
    for path in sorted(FOLDER.glob("*.json")):
        with contextlib.suppress(OSError, ValueError):
            found.append(Registration.parse(json.loads(path.read_text())))
    return found


def find(name: str) -> Registration | None:
    """The lab of this name, dead or alive."""
    return next((each for each in labs() if each.name == name), None)


@contextlib.contextmanager
def locked() -> Iterator[None]:
    """Holds the registry: names are taken and crashed labs swept by one process at a time."""
    while True:
        FOLDER.mkdir(parents=True, exist_ok=True)
        try:
            descriptor = os.open(FOLDER, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError:  # whoever removed the last lab just took the folder away
            continue
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        with contextlib.suppress(FileNotFoundError):
            if FOLDER.stat().st_ino == os.fstat(descriptor).st_ino:
                break
        os.close(descriptor)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):  # there are labs in it
            FOLDER.rmdir()
            FOLDER.parent.rmdir()
        os.close(descriptor)


def sweep_crashed() -> list[str]:
    """Removes what labs left behind whose keeper is gone, and returns their names. Hold [`locked`] around it."""
    crashed = [each for each in labs() if not each.alive()]
    for each in crashed:
        each.sweep()
    return [each.name for each in crashed]
