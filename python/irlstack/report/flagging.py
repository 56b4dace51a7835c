"""Prefixes where (nearly) everybody answers, and addresses that answer on (nearly) every port.

There is rarely a host behind such answers, but one box that answers for all: a middlebox, a proxy, a tarpit, a
scrubbing service. Studies leave them out, or count them apart (Izhikevich et al., LZR, USENIX Security 2021; Sattler et
al., Packed to the Brim, CoNEXT 2023), so that a run names them.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv4Network
from math import sqrt
from os import PathLike
from pathlib import Path
from typing import Any, Literal

from irlstack.report.extra import need
from irlstack.report.recorded import Recorded, load
from irlstack.report.rows import RowsFile
from irlstack.report.tally import found_rows, tell_found

SHARE = 0.9
"""Of what was probed, so much has to be found."""
LEAST = 64
"""So many targets of a prefix have to be probed: where a /24 has few of a sample, all of them may answer by chance."""
LEAST_PORTS = 10
"""The same of the ports of an address."""
_DEVIATIONS = 6.0
"""Of a run over a part of the targets nobody knows how many a prefix had: so many standard deviations above the average
are reckoned with, which not one prefix of all of IPv4 exceeds by chance."""
_MOST_PREFIXES = 1 << 16


@dataclass(frozen=True)
class Flag:
    """A prefix or an address whose answers should not be taken for hosts.

    Attributes:
        prefix: a /24, or a /32 that is in none of the flagged /24s.
        kind: "packed", nearly every target of the prefix was found; "all ports", nearly every port of the address.
        found: targets found in it.
        probed: targets probed in it: of a sample or a shard, what it has of it on average.
    """

    prefix: IPv4Network
    kind: Literal["packed", "all ports"]
    found: int
    probed: int


@dataclass(frozen=True)
class Flags:
    """What was flagged; `looked_at` says whether the run can tell, and if not, `why`."""

    flags: list[Flag]
    looked_at: bool
    why: str = ""

    @property
    def found(self) -> int:
        """Found targets in all of them."""
        return sum(each.found for each in self.flags)


def flags(run: str | PathLike[str], *, rows: str | PathLike[str] | None = None) -> list[Flag]:
    """The prefixes and addresses of a run whose answers should not be taken for hosts, in address order.

    A /24 is one where at least 90 % of the targets that were probed in it were found, of 64 or more; an address, where
    at least 90 % of its ports were, of 10 or more. IPv4 only: where whole IPv6 prefixes answer, hitlists say so.

    Args:
        run: a Parquet file of rows, or what `--metadata-file` wrote.
        rows: the rows, where they are not in `run`.

    Raises:
        ConfigError: a file is something else, or a package of the extra is missing.
        OSError: a file cannot be read.
    """
    return find(load(Path(run), None if rows is None else Path(rows))).flags


def flagged(flags: Flags) -> str:
    """A sentence for the methods paragraph."""
    if not flags.looked_at:
        return ""
    packed = sum(each.kind == "packed" for each in flags.flags)
    open_to_all = len(flags.flags) - packed
    if not flags.flags:
        return "No prefix answered nearly everywhere, and no address on nearly every port."
    return (
        f"In {packed:,} /24s nearly every target was found, and {open_to_all:,} other addresses answered on nearly "
        f"every port; {flags.found:,} of those that were found are theirs, and may be middleboxes rather than hosts."
    )


def find(recorded: Recorded) -> Flags:
    """The same, and whether the run can tell: a sample of one address in a thousand cannot."""
    if recorded.rows is None:
        return Flags([], looked_at=False, why="the rows are not here")
    file = RowsFile(recorded.rows, recorded.document.get("output_fields", ()))
    if file.ipv6:
        return Flags([], looked_at=False, why="it is of IPv6")
    if not tell_found(file, recorded.document):
        why = "its rows do not tell which are a target's first success: they need the fields success and repeat"
        return Flags([], looked_at=False, why=why)
    ports, share = _probed(recorded.document)
    of_prefix, of_address = 256 * ports * share, ports * share
    enough, enough_of_address = _enough(256 * ports, share), _enough(ports, share)
    # More than a box has on average that answers all: nothing would be flagged, whatever is there.
    by_prefix = of_prefix >= max(LEAST, enough)
    by_port = of_address >= max(LEAST_PORTS, enough_of_address)
    if not (by_prefix or by_port):
        return Flags([], looked_at=False, why=f"{of_prefix:.3g} of {256 * ports:,} targets a /24 are too few")
    numpy = need("numpy")
    # As large as it gets, and no larger than what is touched: pages of zeros are nowhere.
    prefixes = numpy.zeros(1 << 24, dtype="uint32")
    for addresses in _found(file):
        numpy.add.at(prefixes, addresses >> 8, 1)
    flagged: list[Flag] = []
    packed = numpy.zeros(0, dtype="int64")
    if by_prefix:
        packed = numpy.flatnonzero(prefixes >= enough)
        flagged += [_flag(int(each) << 8, 24, "packed", int(prefixes[each]), of_prefix) for each in packed]
    if by_port:
        prefixes[packed] = 0
        flagged += _addresses(file, prefixes, of_address, enough_of_address)
    return Flags(sorted(flagged, key=lambda each: each.prefix), looked_at=True)


def _addresses(file: RowsFile, prefixes: Any, of_address: float, enough: float) -> list[Flag]:
    """The addresses with nearly all ports, in those prefixes that have enough found for one."""
    numpy = need("numpy")
    candidates = numpy.flatnonzero(prefixes >= enough)
    # With the most first: of more, the rest is not looked at, which takes more open ports than there are hosts.
    candidates = candidates[numpy.argsort(-prefixes[candidates].astype("int64"), kind="stable")][:_MOST_PREFIXES]
    place = numpy.full(1 << 24, -1, dtype="int32")
    place[candidates] = numpy.arange(len(candidates), dtype="int32")
    counts = numpy.zeros((len(candidates), 256), dtype="uint32")
    for addresses in _found(file):
        at = place[addresses >> 8]
        inside = at >= 0
        numpy.add.at(counts, (at[inside], addresses[inside] & 0xFF), 1)
    chosen = numpy.argwhere(counts >= enough)
    return [
        _flag(int(candidates[row]) << 8 | int(low), 32, "all ports", int(counts[row, low]), of_address)
        for row, low in chosen
    ]


def _enough(targets: int, share: float) -> float:
    """How many found are nearly all of those probed, of so many targets of which this share was probed at random."""
    most = targets * share + _DEVIATIONS * sqrt(targets * share * (1 - share))
    return SHARE * min(targets, most)


def _probed(document: Mapping[str, Any]) -> tuple[int, float]:
    """Ports of each address, and the share of all targets that this run probed."""
    of = document.get("targets") or {}
    ports = max(1, int(of.get("port_count") or 1))
    total, taken = int(of.get("addresses") or 0) * ports, document["stats"].get("targets") or 0
    if not total or of.get("list") is not None:
        # Of a list nobody knows what it has of a prefix.
        return 1, 0.0
    return ports, min(1.0, taken / total)


def _flag(address: int, length: int, kind: Literal["packed", "all ports"], found: int, probed: float) -> Flag:
    return Flag(IPv4Network((address, length)), kind, found, round(probed))


def _found(file: RowsFile) -> Any:
    for piece in file.pieces(["saddr", "success", "repeat", *(["classification"] if file.of_exchange else [])]):
        yield piece["saddr"].to_numpy(zero_copy_only=False)[found_rows(piece, of_exchange=file.of_exchange)]
