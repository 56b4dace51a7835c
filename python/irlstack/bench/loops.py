"""`irlstack bench scan`: the closed loop, where every host answers and all share one machine."""

import ipaddress
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import irlstack as irl
from irlstack.bench import commands, document, far_end, figures, ground, peers
from irlstack.bench.rounds import Say, interleaved
from irlstack.errors import ConfigError

OURS = ("scan --no-rst", "scan")
ENOUGH = 0.999
"""What ZMap has to find at a rate that counts."""
PEER_PREFIX_LENGTH = 12
"""What peers scan of the prefix, at most: it takes them long enough."""
_LEAST_PREFIX_LENGTH = 16
_ZMAP_BETWEEN = (20_000, 400_000)
_ZMAP_TRIES = 5
_END_WITHIN_S = 240.0


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


class _Contender(ABC):
    """A scanner, the prefix it scans, and the file that its rows go to."""

    file = ""

    def __init__(self, place: ground.Ground, prefix: str) -> None:
        self.place, self.prefix = place, prefix
        self.targets = irl.Plan(prefix, ports=80, blocklist_file=[place.deny]).total
        self.layout = ""

    def round(self) -> Looped:
        """Scans once."""
        self.rows.unlink(missing_ok=True)
        process = self.process()
        self.layout = process.layout
        with far_end.Watch(self.place.lab) as watch:
            process.start()
            process.wait(_END_WITHIN_S)
        seconds = watch.seconds()
        return Looped(self.targets / seconds, seconds, self.targets, self.found(process), watch.frames())

    @property
    def rows(self) -> Path:
        """Where that file is."""
        return self.place.folder / self.file

    @abstractmethod
    def process(self) -> commands.Process:
        """The command of a round."""

    @abstractmethod
    def found(self, process: commands.Process) -> int:
        """Targets it found, after it has ended."""


class _Ours(_Contender):
    file = "rows.parquet"

    def __init__(self, place: ground.Ground, prefix: str, extra: Sequence[str]) -> None:
        super().__init__(place, prefix)
        self._extra = extra

    def process(self) -> commands.Scan:
        how: commands.Options = ["-p", "80", "-r", "0", "--engine", "live", "-c", "1", *self._extra]
        name = " ".join(["scan", *self._extra])
        layout = " ".join(["SYN without options (layout=smallest), deny list, Parquet; -r 0", *self._extra])
        return commands.Scan(self.place, name, layout, [self.prefix, *how, "-o", self.rows])

    def found(self, process: commands.Process) -> int:
        assert isinstance(process, commands.Scan)  # noqa: S101 - made above
        return int(process.document["found"])


class _ZMap(_Contender):
    file = "zmap.csv"

    def __init__(self, place: ground.Ground, peer: peers.Peer, prefix: str, source: str, rate: int = 0) -> None:
        super().__init__(place, prefix)
        self._peer, self._source, self.rate = peer, source, rate

    def process(self) -> commands.Process:
        options: commands.Options = ["-S", self._source, "-r", str(self.rate), "-c", "2", "-o", self.rows, self.prefix]
        return commands.ZMap(self.place, self._peer, "80", options)

    def found(self, process: commands.Process) -> int:
        return len(set(self.rows.read_text(encoding="ascii").split()))

    def search(self, say: Say) -> None:
        """Looks for the highest rate at which it finds enough, and has it from then on.

        Raises:
            ConfigError: there is none among those tried.
        """

        def fits(rate: int) -> bool:
            self.rate = rate
            # Twice: near its limit, once may be luck.
            for _ in range(2):
                done = self.round()
                say(f"  -r {rate}: {1 - done.lost:.3%} of {self.prefix} found, at {done.rate / 1e6:.3f} M/s")
                if done.lost > 1 - ENOUGH:
                    return False
            return True

        best = figures.highest(fits, *_ZMAP_BETWEEN, _ZMAP_TRIES)
        if best is None:
            raise ConfigError(f"ZMap did not find {ENOUGH:.1%} of {self.prefix} at any rate tried; give --zmap-rate.")
        self.rate = best


class _Masscan(_Contender):
    file = "masscan.txt"

    def __init__(self, place: ground.Ground, peer: peers.Peer, prefix: str) -> None:
        super().__init__(place, prefix)
        self._peer = peer

    def process(self) -> commands.Process:
        options: commands.Options = [self.prefix, "--wait", "2", "-oL", self.rows]
        return commands.Masscan(self.place, self._peer, "80", options)

    def found(self, process: commands.Process) -> int:
        # It makes no file when it found nothing.
        lines = self.rows.read_text(encoding="ascii").splitlines() if self.rows.exists() else []
        return len({line.split()[3] for line in lines if line.startswith("open ")})


def run(prefix: str, rounds: int, zmap_rate: int | None, extra: Sequence[str], say: Say) -> dict[str, Any]:
    """Has every scanner scan in every round, and returns the document.

    Args:
        prefix: what our scan scans; peers scan a /12 of it at most.
        rounds: how often.
        zmap_rate: ZMap's rate, instead of a search for it.
        extra: options more for our scan.
        say: for words on the way.

    Raises:
        ConfigError: the prefix is not of 10.0.0.0/8.
        PrivilegeError: not root.
        EngineError: a scanner failed.
    """
    document.need_linux()
    for_peers = peer_prefix(prefix)
    document.need_root("scan")
    found, missing = peers.find(["masscan", "zmap"])
    for name, why in missing.items():
        say(f"without {name}: {why}")
    settings = {
        "rounds": rounds,
        "prefix": prefix,
        "peer_prefix": for_peers,
        "extra": list(extra),
        "denied_prefixes": ground.DENIED_PREFIXES,
    }
    out = document.begin("scan", {name: peer.version for name, peer in found.items()}, missing, settings)
    with ground.make(hosts=True) as place:
        contenders: dict[str, _Contender] = {
            "scan --no-rst": _Ours(place, prefix, ["--no-rst", *extra]),
            "scan": _Ours(place, prefix, extra),
        }
        for name, zmap in _zmaps(place, found, for_peers):
            if zmap_rate is None:
                say(f"Looking for the highest rate at which {name} finds {ENOUGH:.1%} of {for_peers}.")
                zmap.search(say)
            else:
                zmap.rate = zmap_rate
            contenders[name] = zmap
        if "masscan" in found:
            contenders["masscan"] = _Masscan(place, found["masscan"], for_peers)
        done: dict[str, list[Looped]] = {name: [] for name in contenders}
        for number, name in interleaved(list(contenders), rounds):
            once = contenders[name].round()
            done[name].append(once)
            say(f"round {number}: {name}: {once.rate / 1e6:.3f} M/s, {once.found:,} of {once.targets:,} found")
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


def _zmaps(place: ground.Ground, found: Mapping[str, peers.Peer], prefix: str) -> Iterator[tuple[str, _ZMap]]:
    """ZMap twice: from an address of nobody, so that nothing is reset, and from the host's, whose kernel sends RSTs."""
    if "zmap" in found:
        yield "ZMap", _ZMap(place, found["zmap"], prefix, ground.QUIET)
        yield "ZMap with RSTs", _ZMap(place, found["zmap"], prefix, ground.HOST)


def peer_prefix(prefix: str) -> str:
    """What peers scan when we scan a prefix.

    >>> peer_prefix("10.0.0.0/8"), peer_prefix("10.32.0.0/14")
    ('10.0.0.0/12', '10.32.0.0/14')

    Raises:
        ConfigError: it is no prefix, or not of 10.0.0.0/8.
    """
    try:
        network = ipaddress.IPv4Network(prefix)
    except ValueError as error:
        raise ConfigError(f"--prefix: {error}; write one such as 10.0.0.0/10.") from error
    if not network.subnet_of(ipaddress.IPv4Network(ground.TARGETS)):
        raise ConfigError(f"--prefix {prefix}: the hosts that answer are those of {ground.TARGETS}.")
    if network.prefixlen > _LEAST_PREFIX_LENGTH:
        raise ConfigError(
            f"--prefix {prefix} is over before it can be measured: give a /{_LEAST_PREFIX_LENGTH} or more."
        )
    return f"{network.network_address}/{max(network.prefixlen, PEER_PREFIX_LENGTH)}"
