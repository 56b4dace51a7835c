"""`irlstack bench scan`: the closed loop, where every host answers and all share one machine."""

import contextlib
import ipaddress
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import irlstack as irl
from irlstack.bench import document, figures, ground, peers, senders
from irlstack.bench.tx import rotated
from irlstack.errors import ConfigError

OURS = ("scan --no-rst", "scan")
ENOUGH = 0.999
"""What ZMap has to find at a rate that counts."""
PEER_PREFIX = "10.0.0.0/12"
_ZMAP_BETWEEN = (20_000, 400_000)
_ZMAP_TRIES = 5
_END_WITHIN_S = 240.0
_QUIET_SPARE = "198.18.0.30"
"""An address of nobody: its answers reach ZMap's socket, and the client's kernel ignores them."""

Say = Callable[[str], None]


@dataclass(frozen=True)
class Looped:
    """What one scanner did in one round: targets a second over the time in which frames arrived at the far end."""

    rate: float
    seconds: float
    targets: int
    found: int
    far_end_frames: int

    @property
    def lost(self) -> float:
        """The share of targets that was not found."""
        return 1 - self.found / self.targets


class _Contender:
    """A scanner and the prefix it scans."""

    def __init__(self, place: ground.Ground, prefix: str) -> None:
        self.place, self.prefix = place, prefix
        self.targets = irl.Plan(prefix, ports=80, blocklist_file=[place.deny]).total
        self.layout = ""

    def round(self) -> Looped:
        """Scans once."""
        with ground.Watch(self.place.lab) as watch:
            process = self.process()
            self.layout = process.layout
            process.start()
            try:
                process.wait(_END_WITHIN_S)
            finally:
                process.stop()
        return Looped(
            self.targets / watch.seconds(), watch.seconds(), self.targets, self.found(process), watch.frames()
        )

    def process(self) -> senders.Process:
        """The command of a round."""
        raise NotImplementedError

    def found(self, process: senders.Process) -> int:
        """Targets it found, after it has ended."""
        raise NotImplementedError


class _Ours(_Contender):
    def __init__(self, place: ground.Ground, prefix: str, extra: Sequence[str]) -> None:
        super().__init__(place, prefix)
        self._extra = extra

    def process(self) -> senders.Scan:
        rows = self.place.folder / "rows.parquet"
        options: list[str | Path] = [
            self.prefix,
            "-p",
            "80",
            "-r",
            "0",
            "--engine",
            "live",
            "-c",
            "1",
            "-o",
            rows,
            *self._extra,
        ]
        said = "layout=smallest, -r 0, deny list, Parquet " + " ".join(self._extra)
        return senders.Scan(self.place, " ".join(["scan", *self._extra]), said.strip(), options)

    def found(self, process: senders.Process) -> int:
        assert isinstance(process, senders.Scan)  # noqa: S101 - made above
        return int(process.document["found"])


class _ZMap(_Contender):
    def __init__(self, place: ground.Ground, peer: peers.Peer, prefix: str, source: str, rate: int = 0) -> None:
        super().__init__(place, prefix)
        self._peer, self._source, self.rate = peer, source, rate

    def process(self) -> senders.Process:
        options: list[str | Path] = ["-S", self._source, "-r", str(self.rate), "-c", "2", "-o", self._rows, self.prefix]
        return senders.ZMap(self.place, self._peer, "80", options)

    @property
    def _rows(self) -> Path:
        return self.place.folder / "zmap.csv"

    def found(self, process: senders.Process) -> int:
        return len(set(self._rows.read_text(encoding="ascii").split()))

    def search(self, say: Say) -> None:
        """Looks for the highest rate at which it finds enough.

        Raises:
            ConfigError: there is none among those tried.
        """

        def fits(rate: int) -> bool:
            self.rate = rate
            done = self.round()
            say(f"  ZMap from {self._source} at -r {rate:,}: {1 - done.lost:.3%} of {self.prefix} found")
            return done.lost <= 1 - ENOUGH

        best = figures.highest(fits, *_ZMAP_BETWEEN, _ZMAP_TRIES)
        if best is None:
            raise ConfigError(f"ZMap did not find {ENOUGH:.1%} of {self.prefix} at any rate tried; give --zmap-rate.")
        self.rate = best


class _Masscan(_Contender):
    def __init__(self, place: ground.Ground, peer: peers.Peer, prefix: str) -> None:
        super().__init__(place, prefix)
        self._peer = peer

    def process(self) -> senders.Process:
        options: list[str | Path] = [self.prefix, "--wait", "2", "-oL", self._rows]
        return senders.Masscan(self.place, self._peer, "80", options)

    @property
    def _rows(self) -> Path:
        return self.place.folder / "masscan.txt"

    def found(self, process: senders.Process) -> int:
        with contextlib.suppress(FileNotFoundError):
            lines = self._rows.read_text(encoding="ascii").splitlines()
            return len({line.split()[3] for line in lines if line.startswith("open ")})
        return 0


def run(prefix: str, rounds: int, zmap_rate: int | None, extra: Sequence[str], say: Say) -> dict[str, Any]:
    """Has every scanner scan in every round, and returns the document.

    Args:
        prefix: what our scan scans; peers scan a /12 of it at most, which takes them long enough.
        rounds: how often.
        zmap_rate: ZMap's rate, instead of a search for it.
        extra: options more for our scan.
        say: for words on the way.

    Raises:
        ConfigError: the prefix is not of 10.0.0.0/8.
        PrivilegeError: not root.
        EngineError: a scanner failed.
    """
    document.need_root("scan")
    peer_prefix = _peer_prefix(prefix)
    found, missing = peers.find()
    for name, why in missing.items():
        say(f"without {name}: {why}")
    with ground.make(hosts=True) as place:
        contenders: dict[str, _Contender] = {
            "scan --no-rst": _Ours(place, prefix, ["--no-rst", *extra]),
            "scan": _Ours(place, prefix, extra),
        }
        for zmap in _zmaps(place, found, peer_prefix):
            if zmap_rate is None:
                say("Looking for ZMap's rate.")
                zmap[1].search(say)
            else:
                zmap[1].rate = zmap_rate
            contenders[zmap[0]] = zmap[1]
        if "masscan" in found:
            contenders["masscan"] = _Masscan(place, found["masscan"], peer_prefix)
        done: dict[str, list[Looped]] = {name: [] for name in contenders}
        for number in range(rounds):
            for name in rotated(list(contenders), number):
                once = contenders[name].round()
                done[name].append(once)
                say(f"round {number + 1}: {name}: {once.rate / 1e6:.3f} M/s, {once.found:,} of {once.targets:,} found")
    settings = {"rounds": rounds, "prefix": prefix, "peer_prefix": peer_prefix, "extra": list(extra)}
    settings |= {"denied_prefixes": ground.DENIED_PREFIXES}
    out = document.begin("scan", found, missing, settings)
    out["zmap_rates"] = {name: each.rate for name, each in contenders.items() if isinstance(each, _ZMap)}
    out["contenders"] = {
        name: {
            "layout": contenders[name].layout,
            "rate": figures.spread([each.rate for each in rounds_of]),
            "targets": rounds_of[0].targets,
            "found": figures.spread([each.found for each in rounds_of]),
            "lost": figures.spread([each.lost for each in rounds_of]),
            "rounds": [asdict(each) for each in rounds_of],
        }
        for name, rounds_of in done.items()
    }
    out["ratios"] = figures.ratios({name: [one.rate for one in each] for name, each in done.items()}, OURS)
    return out


def _zmaps(place: ground.Ground, found: dict[str, peers.Peer], prefix: str) -> Iterator[tuple[str, _ZMap]]:
    """ZMap twice: from an address of nobody, so that nothing is reset, and from the host's, whose kernel sends RSTs."""
    if "zmap" in found:
        yield "ZMap", _ZMap(place, found["zmap"], prefix, _QUIET_SPARE)
        yield "ZMap, kernel RSTs", _ZMap(place, found["zmap"], prefix, ground.HOST)


def _peer_prefix(prefix: str) -> str:
    try:
        network = ipaddress.IPv4Network(prefix)
    except ValueError as error:
        raise ConfigError(f"--prefix {prefix!r} is no IPv4 prefix: {error}.") from error
    if not network.subnet_of(ipaddress.IPv4Network("10.0.0.0/8")):
        raise ConfigError(f"--prefix {prefix}: the hosts that answer are those of 10.0.0.0/8.")
    return str(network) if network.prefixlen >= 12 else f"{network.network_address}/12"
