"""What the rows of a run add up to, counted in a few passes over them and in bounded memory."""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from ipaddress import ip_network
from typing import Any

from irlstack.report.extra import need
from irlstack.report.hilbert import ALL_OF_IPV4, CELL_BITS, Network, checked_prefix, common_prefix, count_cells
from irlstack.report.rows import Piece, RowsFile, bytes_of

_COLUMNS = ("saddr", "sport", "classification", "success", "repeat", "probe_num", "rtt")
_COARSE_BITS = 18
"""A time's bits that the first pass over round-trip times leaves out; the second finds them for the quantiles."""
_MOST_RTT_NS = 60 * 10**9 + 1
BINS_A_DECADE = 20
_LEAST_EXPONENT, _MOST_EXPONENT = 3, 11
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95, 0.99)


@dataclass
class RoundTrips:
    """Round-trip times, in ns.

    Attributes:
        count: rows that have one.
        absent: rows that have none.
        least: the shortest.
        most: the longest.
        quantiles: by share; the smallest time that so many of the rows do not exceed.
        bins: how many in each bin; bin i begins at `bin_edge(i)`.
    """

    count: int = 0
    absent: int = 0
    least: int = 0
    most: int = 0
    quantiles: dict[float, int] = field(default_factory=dict)
    bins: list[int] = field(default_factory=list)


def bin_edge(number: int) -> float:
    """Where a bin of round-trip times begins, in ns: 20 of them are a factor of ten."""
    return float(10 ** (_LEAST_EXPONENT + number / BINS_A_DECADE))


@dataclass
class View:
    """The cells of one map that can be shown: counts in address order, uint32."""

    prefix: Network
    counts: Any


@dataclass
class Tally:
    """What a report says of the rows.

    Attributes:
        rows: how many there are.
        found: rows that are a target's first success; None where nothing tells which are.
        classes: rows by classification.
        ports: rows that count as found, by the target's port.
        probes: rows by the number of the probe they answer.
        repeats: rows that are repeats.
        round_trips: of all rows; None without the column.
        views: maps of where the found are, the widest first.
        first: which of them to show first.
        left_out: how many further maps there would be.
    """

    rows: int = 0
    found: int | None = None
    classes: Counter[str] = field(default_factory=Counter)
    ports: Counter[int] = field(default_factory=Counter)
    probes: Counter[int] = field(default_factory=Counter)
    repeats: int = 0
    round_trips: RoundTrips | None = None
    views: list[View] = field(default_factory=list)
    first: Network = ALL_OF_IPV4
    left_out: int = 0


def count(
    file: RowsFile,
    prefix: Network | None = None,
    *,
    document: Mapping[str, Any] | None = None,
    most_views: int = 64,
) -> Tally:
    """Counts the rows of a file.

    Args:
        file: the rows.
        prefix: begin with the map of this prefix.
        document: the run's metadata, which tell what rows there are.
        most_views: so many maps of each size at most, those with the most found.
    """
    tally = Tally()
    if prefix is not None:
        checked_prefix(prefix, ipv6=file.ipv6)
    coarse = _first_pass(file, tally, tells=tell_found(file, document or {}))
    if tally.round_trips is not None:
        _refine(file, tally.round_trips, coarse)
    _views(file, tally, prefix, most_views)
    return tally


def _first_pass(file: RowsFile, tally: Tally, *, tells: bool) -> Any:
    numpy, compute = need("numpy"), need("pyarrow.compute")
    ports = numpy.zeros(1 << 16, dtype="int64")
    probes = numpy.zeros(1 << 16, dtype="int64")
    coarse = numpy.zeros((_MOST_RTT_NS >> _COARSE_BITS) + 1, dtype="int64")
    bins = numpy.zeros((_MOST_EXPONENT - _LEAST_EXPONENT) * BINS_A_DECADE, dtype="int64")
    edges = numpy.array([bin_edge(number) for number in range(1, len(bins))])
    times = tally.round_trips = RoundTrips() if "rtt" in file.columns else None
    found = 0
    for piece in file.pieces(_COLUMNS):
        tally.rows += len(piece["saddr"])
        chosen = found_rows(piece, of_exchange=file.of_exchange)
        found += int(chosen.sum())
        if "sport" in piece:
            ports += numpy.bincount(_numbers(piece["sport"])[chosen], minlength=len(ports))
        if "probe_num" in piece:
            probes += numpy.bincount(_numbers(piece["probe_num"]), minlength=len(probes))
        if "repeat" in piece:
            tally.repeats += int(_numbers(piece["repeat"]).sum())
        if "classification" in piece:
            for each in compute.value_counts(piece["classification"]).to_pylist():
                tally.classes[each["values"]] += each["counts"]
        if times is not None:
            known = piece["rtt"].drop_null().to_numpy(zero_copy_only=False).clip(0, _MOST_RTT_NS)
            times.absent += piece["rtt"].null_count
            if len(known):
                least, most = int(known.min()), int(known.max())
                times.least = min(times.least, least) if times.count else least
                times.most = max(times.most, most)
                times.count += len(known)
                coarse += numpy.bincount(known >> _COARSE_BITS, minlength=len(coarse))
                bins += numpy.bincount(numpy.searchsorted(edges, known, side="right"), minlength=len(bins))
    tally.found = found if tells else None
    tally.ports = _counter(ports)
    tally.probes = _counter(probes)
    if times is not None:
        times.bins = bins.tolist()
    return coarse


def _refine(file: RowsFile, times: RoundTrips, coarse: Any) -> None:
    """Finds the quantiles exactly: the coarse counts say where to look, a second pass looks there."""
    numpy = need("numpy")
    if times.count == 0:
        return
    below = numpy.cumsum(coarse)
    # The rank of a quantile, from 1, and the coarse bin that it lies in.
    ranks = {share: max(1, int(numpy.ceil(share * times.count))) for share in QUANTILES}
    places = {share: int(numpy.searchsorted(below, rank)) for share, rank in ranks.items()}
    fine = {place: numpy.zeros(1 << _COARSE_BITS, dtype="int64") for place in places.values()}
    for piece in file.pieces(["rtt"]):
        known = piece["rtt"].drop_null().to_numpy(zero_copy_only=False).clip(0, _MOST_RTT_NS)
        for place, counts in fine.items():
            inside = known[known >> _COARSE_BITS == place] & ((1 << _COARSE_BITS) - 1)
            counts += numpy.bincount(inside, minlength=len(counts))
    for share, place in places.items():
        before = int(below[place - 1]) if place else 0
        at = int(numpy.searchsorted(numpy.cumsum(fine[place]), ranks[share] - before))
        times.quantiles[share] = (place << _COARSE_BITS) + at


def _views(file: RowsFile, tally: Tally, prefix: Network | None, most_views: int) -> None:
    """The map of all, of the prefixes in it that are 8 bits longer, and of those that are 16 bits longer."""
    root: Network = ALL_OF_IPV4
    if file.ipv6:
        root = common_prefix(_found_addresses(file), spare_bits=2 * CELL_BITS)
    tally.views = _level(file, root, [root])
    within = tally.views
    for _ in range(2):
        candidates = [
            (int(total), view, number)
            for view in within
            for number, total in enumerate(view.counts.reshape(256, 256).sum(axis=1))
            if total
        ]
        candidates.sort(key=lambda each: -each[0])
        tally.left_out += max(0, len(candidates) - most_views)
        chosen = [_child(view.prefix, number) for _, view, number in candidates[:most_views]]
        within = _level(file, root, sorted(chosen))
        tally.views += within
    whole = int(tally.views[0].counts.sum())
    holders = [view.prefix for view in tally.views if int(view.counts.sum()) == whole]
    tally.first = holders[-1] if whole and holders else root
    if prefix is not None:
        if all(view.prefix != prefix for view in tally.views):
            counts = need("numpy").zeros(1 << CELL_BITS, dtype="uint32")
            for addresses in _found_addresses(file):
                count_cells(addresses, prefix, counts)
            tally.views.append(View(prefix, counts))
        tally.first = prefix


def _level(file: RowsFile, root: Network, prefixes: list[Network]) -> list[View]:
    """The maps of prefixes of one length, at most 16 bits longer than the root that has them all."""
    numpy = need("numpy")
    if not prefixes:
        return []
    start, end = root.prefixlen // 8, prefixes[0].prefixlen // 8
    counts = numpy.zeros(len(prefixes) << CELL_BITS, dtype="uint32")
    # Which map the bytes between the root's and theirs lead to.
    maps = numpy.full(1 << 8 * (end - start), -1, dtype="int64")
    for number, prefix in enumerate(prefixes):
        maps[int.from_bytes(prefix.network_address.packed[start:end])] = number
    for addresses in _found_addresses(file):
        which = numpy.zeros(len(addresses), dtype="int64")
        for at in range(start, end):
            which = which << 8 | addresses[:, at]
        number = maps[which]
        cells = number << CELL_BITS | addresses[:, end].astype("int64") << 8 | addresses[:, end + 1]
        numpy.add.at(counts, cells[number >= 0], 1)
    return [View(prefix, each) for prefix, each in zip(prefixes, counts.reshape(len(prefixes), -1), strict=True)]


def _child(prefix: Network, number: int) -> Network:
    """The one of 256 parts of a prefix."""
    packed = bytearray(prefix.network_address.packed)
    packed[prefix.prefixlen // 8] = number
    return ip_network((bytes(packed), prefix.prefixlen + 8))


def _found_addresses(file: RowsFile) -> Iterator[Any]:
    for piece in file.pieces(["saddr", "success", "repeat", *(["classification"] if file.of_exchange else [])]):
        yield bytes_of(piece["saddr"])[found_rows(piece, of_exchange=file.of_exchange)]


def tell_found(file: RowsFile, document: Mapping[str, Any]) -> bool:
    """Whether rows tell each target's first success from the rest: by their columns, or because there is no rest."""
    succeeded = file.of_exchange or "success" in file.columns or document.get("filter_unsuccessful", False)
    return bool(succeeded and ("repeat" in file.columns or document.get("filter_duplicates", False)))


def found_rows(piece: Piece, *, of_exchange: bool) -> Any:
    """Which rows are a target's first success; all of them, where no column tells."""
    chosen = need("numpy").ones(len(piece["saddr"]), dtype=bool)
    if "success" in piece:
        chosen &= _numbers(piece["success"])
    if of_exchange:
        chosen &= _numbers(need("pyarrow.compute").equal(piece["classification"], "success"))
    if "repeat" in piece:
        chosen &= ~_numbers(piece["repeat"])
    return chosen


def _numbers(column: Any) -> Any:
    return column.to_numpy(zero_copy_only=False)


def _counter(counts: Any) -> Counter[int]:
    return Counter({int(at): int(counts[at]) for at in counts.nonzero()[0]})
