"""Did we probe this address, when, and why: answered from plans and the metadata of their runs.

A plan says where in its order a target stands. A run notes every second how far it has come (its watermark). So what
was probed when is known to a second, and nobody has to keep a line for each probe.
"""

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path
from typing import Any, NamedTuple

from irlstack._core import Plan, PrefixSet, Probe
from irlstack.errors import ConfigError, IrlError


class Moment(NamedTuple):
    """When a target was probed.

    Attributes:
        after: after this,
        until: and not after that. A second, and more where targets waited for their turn (`--prefix-budget`, or a
            neighbour's MAC), or were left by an interface that went, until none of these was left.
        certain: whether it was probed at all. Not, when the run ended while some still waited.
    """

    after: datetime
    until: datetime
    certain: bool = True


@dataclass(frozen=True)
class Entry:
    """A target that a run probed.

    Attributes:
        target: "192.0.2.7:443", or the address alone where the probe has no port.
        probed: when; once for each pass that it may have been probed in. In passes after the first, only if it had not
            answered until then.
        run: the metadata of the run.
        where: the file that they are in.
        plan: the file of the plan.
    """

    target: str
    probed: list[Moment]
    run: Mapping[str, Any]
    where: Path
    plan: Path


@dataclass
class Ledger:
    """The plans and runs in some folders.

    Attributes:
        plans: each with its file, by fingerprint.
        runs: metadata, each with its file.
        passed_over: files that could not be read as what they seem, with the reason.
    """

    plans: dict[str, tuple[Plan, Path]] = field(default_factory=dict)
    runs: list[tuple[dict[str, Any], Path]] = field(default_factory=list)
    passed_over: dict[Path, str] = field(default_factory=dict)

    @classmethod
    def of(cls, *folders: Path) -> "Ledger":
        """Reads what is in folders and the folders in them: plans (.toml), and metadata (.json).

        Raises:
            OSError: there is no such folder.
        """
        ledger = cls()
        for folder in folders:
            if not folder.is_dir():
                raise NotADirectoryError(20, "Not a folder", str(folder))
            for path in sorted(folder.rglob("*.toml")):
                ledger._add_plan(path)
            for path in sorted(folder.rglob("*.json")):
                ledger._add_run(path)
        return ledger

    def _add_plan(self, path: Path) -> None:
        if path.name == "irlstack.toml":
            return
        try:
            plan = Plan.load(path)
            self.plans.setdefault(plan.fingerprint(), (plan, path))
        except (IrlError, OSError) as error:
            self.passed_over[path] = str(error)

    def _add_run(self, path: Path) -> None:
        try:
            document = json.loads(path.read_text(encoding="utf-8"))
        except (ValueError, OSError) as error:
            self.passed_over[path] = f"It is no JSON: {error}."
            return
        # A dry run on disk, and answers judged again, probed nobody.
        if is_run(document) and not document.get("unsent"):
            self.runs.append((document, path))

    def without_plan(self, target: str | None = None) -> list[Path]:
        """Runs that nothing can be told of, because their plan is not here.

        Args:
            target: leave out those whose metadata tell that it was not among their targets.
        """
        orphans = [(run, path) for run, path in self.runs if run["plan_fingerprint"] not in self.plans]
        return [path for run, path in orphans if target is None or may_have_named(run, target)]

    def with_list(self) -> list[Path]:
        """Runs that took their targets from a list while they went on, in its order and not in that of a plan."""
        return [path for run, path in self.runs if run.get("list") is not None]

    def without_run(self, target: str) -> list[Path]:
        """Plans with a target of whose shard no run is here: one may have been killed, or be kept elsewhere."""
        known = {(run["plan_fingerprint"], run["shard_num"]) for run, _ in self.runs}
        found = []
        for fingerprint, (plan, path) in self.plans.items():
            places = [place for name in _targets(plan, target) if (place := plan.find(name)) is not None]
            if any((fingerprint, shard) not in known for shard, _ in places):
                found.append(path)
        return found

    def find(self, target: str) -> Iterator[Entry]:
        """The runs that probed a target, in the order of time.

        Args:
            target: "192.0.2.7:443", or "192.0.2.7" for every port that was probed.

        Raises:
            ConfigError: it is no address.
        """
        places: dict[tuple[str, int], list[tuple[str, int]]] = {}
        for fingerprint, (plan, _) in self.plans.items():
            for name in _targets(plan, target):
                if (found := plan.find(name)) is not None:
                    shard, position = found
                    places.setdefault((fingerprint, shard), []).append((name, position))
        entries = []
        for run, path in self.runs:
            if run.get("list") is not None:
                continue
            fingerprint = run["plan_fingerprint"]
            for name, position in places.get((fingerprint, run["shard_num"]), ()):
                if probed := list(moments(run, position)):
                    entries.append(Entry(name, probed, run, path, self.plans[fingerprint][1]))
        entries.sort(key=lambda entry: entry.probed[0].after)
        return iter(entries)


def is_run(document: object) -> bool:
    """Whether this is the metadata of a run, with what tells how far it had come when."""
    wanted = {"plan_fingerprint", "shard_num", "start_time", "per_second"}
    return isinstance(document, dict) and document.keys() >= wanted


def moments(run: Mapping[str, Any], position: int) -> Iterator[Moment]:
    """When a run came past a position of its shard, once a pass; to a second, since it notes its watermark each.

    All its workers take positions from the one watermark, whatever interface they send by.
    """
    if run["start_time"] is None:
        return
    start = datetime.fromisoformat(run["start_time"])
    # A run of an older version was never gone on with.
    sessions = run.get("sessions") or [{"start_s": 0.0, "pass": 0, "position": 0}]
    for number in range(run.get("reprobe", 0) + 1):
        for session, following in zip(sessions, [*sessions[1:], None], strict=True):
            if (session["pass"], session["position"]) > (number, position):
                continue
            until_s = float("inf") if following is None else following["start_s"]
            before = start + timedelta(seconds=session["start_s"])
            seconds = [each for each in run["per_second"] if session["start_s"] < each["elapsed_s"] <= until_s]
            for at, second in enumerate(seconds):
                # A run without later passes, of an older version, has no pass to name.
                reached = (0, second["watermark"]) if number == 0 else (second["pass"], second["pass_watermark"])
                if reached > (number, position):
                    yield _until_none_waited(before, start, seconds[at:])
                    break
                before = start + timedelta(seconds=second["elapsed_s"])


def _until_none_waited(after: datetime, start: datetime, seconds: Sequence[Mapping[str, Any]]) -> Moment:
    """From the second in which a position was taken on, the first at whose end nobody waited."""
    for second in seconds:
        # Older versions did not tell; their runs had nothing to wait for but neighbours, for 3 s at the most.
        if not second.get("waiting"):
            return Moment(after, start + timedelta(seconds=second["elapsed_s"]))
    return Moment(after, start + timedelta(seconds=seconds[-1]["elapsed_s"]), certain=False)


def may_have_named(run: Mapping[str, Any], target: str) -> bool:
    """Whether a target may be among those that a run's metadata name; so it is where they name not all, or files."""
    of = run.get("targets")
    if of is None or of["given_count"] > len(of["given"]) or of["allow_files"] or of["list"] is not None:
        return True
    address, _ = parse(target)
    if f"ipv{address.version}" != of["family"]:
        return False
    return not of["given"] or address in PrefixSet(*of["given"])


def parse(target: str) -> tuple[IPv4Address | IPv6Address, int | None]:
    """Address and port of "192.0.2.7:443" or "[2001:db8::7]:443"; no port where there is only an address.

    Raises:
        ConfigError: it is neither.
    """
    for name, port in ((target, None), (target.rpartition(":")[0], target.rpartition(":")[2])):
        with contextlib.suppress(ValueError):
            address = ip_address(name.removeprefix("[").removesuffix("]"))
            if port is None or (port.isascii() and port.isdigit()):
                return address, None if port is None else int(port)
    raise ConfigError(f"{target!r} is no target; write 192.0.2.7 or 192.0.2.7:443.")


def _targets(plan: Plan, target: str) -> Iterator[str]:
    """What this is called in a plan: with each of the plan's ports, where only an address is given."""
    address, port = parse(target)
    if port is not None:
        yield target
        return
    if not Probe.resolve(plan.probe_module, plan.probe_args).needs_port:
        yield str(address)
        return
    for port in _ports(plan):
        yield f"[{address}]:{port}" if address.version == 6 else f"{address}:{port}"


def _ports(plan: Plan) -> Iterator[int]:
    """The ports that a plan can have a target on; a list of ADDRESS:PORT lines may name any."""
    ports = plan.ports if plan.ports not in (None, "*") else "0-65535"
    for part in ports.split(","):
        first, _, last = part.partition("-")
        yield from range(int(first), int(last or first) + 1)
