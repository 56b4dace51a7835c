"""Addresses on a Hilbert curve: near addresses are near on the map, and a prefix is a square.

The layout is the one that maps of the Internet have had since 2006: the lowest address in the upper left corner, the
highest in the upper right. A map shows a prefix; each of its 256 x 256 cells is one that is 16 bits longer.
"""

import base64
import hashlib
import struct
import zlib
from dataclasses import dataclass
from html import escape
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from pathlib import Path
from typing import Any

from irlstack.errors import ConfigError
from irlstack.report.extra import need
from irlstack.report.rows import RowsFile, bytes_of

Network = IPv4Network | IPv6Network

ALL_OF_IPV4 = IPv4Network("0.0.0.0/0")
CELL_BITS = 16
SIDE = 1 << CELL_BITS // 2
"""Cells of a map in each direction."""
_ORDER = CELL_BITS // 2
_PLATE, _TOP, _BOTTOM = 1024, 56, 84
"""Sizes of the drawing: the square, and the room above and below it."""

LIGHT = ("#9ecae8", "#4f9fd1", "#2b6cb0", "#2d3f95", "#2a1458")
DARK = ("#27557f", "#2688a5", "#3fbf9a", "#b5de5b", "#fff3a3")
"""Colours from one answer to the most, on a light and on a dark plate."""


@dataclass(frozen=True, repr=False)
class HilbertMap:
    """Counts by prefix, laid out on a Hilbert curve. Notebooks show it as a picture.

    Attributes:
        prefix: what the map shows.
        counts: uint32 of shape (256, 256), row by row from the upper left: rows in each cell, which is a prefix that
            is 16 bits longer than the map's; also by `numpy.asarray(map)`.
        what: what is counted.
    """

    prefix: Network
    counts: Any
    what: str = "answers"

    @property
    def cell(self) -> int:
        """The prefix length of a cell."""
        return self.prefix.prefixlen + CELL_BITS

    @property
    def title(self) -> str:
        """What it shows, in words."""
        return f"{self.what.capitalize()} by /{self.cell} in {self.prefix}"

    @property
    def name(self) -> str:
        """The id of its drawing."""
        return "irl-" + hashlib.sha256(f"{self.prefix}{self.what}".encode()).hexdigest()[:8]

    def legend(self, name: str) -> str:
        """The legend of its colours, for the drawing of this id."""
        return _legend(name, int(self.counts.max()))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Any:
        return need("numpy").array(self.counts, dtype=dtype, copy=copy)

    def __repr__(self) -> str:
        return f"<HilbertMap of {self.prefix}: {int(self.counts.sum()):,} {self.what} by /{self.cell}>"

    def _repr_svg_(self) -> str:
        return self.svg()

    def svg(self) -> str:
        """The map as an SVG document, light or dark as the reader's screen is. No Matplotlib is needed."""
        name, title = self.name, escape(self.title)
        head = (
            f'<svg xmlns="http://www.w3.org/2000/svg" class="irl-hilbert" id="{name}" role="img" '
            f'viewBox="0 0 {_PLATE} {_TOP + _PLATE + _BOTTOM}" aria-label="{title}">'
        )
        picture = base64.b64encode(_png(_shades(self.counts))).decode()
        cells = (
            f'<image class="cells" width="{_PLATE}" height="{_PLATE}" preserveAspectRatio="none" '
            f'href="data:image/png;base64,{picture}"/>'
        )
        parts = [
            head,
            f"<style>{_style(name)}</style>",
            _ramp(f"{name}-light", LIGHT),
            _ramp(f"{name}-dark", DARK),
            f'<text class="head" x="0" y="34">{title}</text>',
            f'<g transform="translate(0 {_TOP})"><rect class="plate" width="{_PLATE}" height="{_PLATE}"/>',
            cells,
            _grid(self.prefix),
            "</g>",
            self.legend(name),
            "</svg>",
        ]
        return "\n".join(parts)


def hilbert(
    rows: object, prefix: str | Network | None = None, *, what: str = "answers", header: tuple[str, ...] = ()
) -> HilbertMap:
    """A Hilbert map of where answers came from.

        irl.report.hilbert("out.parquet").svg()
        irl.report.hilbert(polars_frame, "10.0.0.0/8")          # anything with __arrow_c_stream__ and a column saddr
        pyplot.imshow(irl.report.hilbert(addresses))            # uint32 of shape (n,), or uint8 of shape (n, 16)

    Args:
        rows: the path of a file of rows (.parquet, .csv, .jsonl), an Arrow stream with a column saddr, or addresses.
        prefix: what to show, of a length divisible by 8. By default all of IPv4; of IPv6 addresses the longest such
            prefix that has them all.
        what: what the rows are, for the title.
        header: the columns of a CSV file without a header row.

    Raises:
        ConfigError: no such prefix can be shown, or numpy or pyarrow is missing.
    """
    pieces, ipv6 = _pieces(rows, header)
    if prefix is None:
        prefix = common_prefix(pieces()) if ipv6 else ALL_OF_IPV4
    network = checked_prefix(prefix, ipv6=ipv6)
    counts = need("numpy").zeros(1 << CELL_BITS, dtype="uint32")
    for addresses in pieces():
        count_cells(addresses, network, counts)
    return HilbertMap(network, on_map(counts), what)


def checked_prefix(prefix: str | Network, *, ipv6: bool) -> Network:
    """A prefix that can be shown.

    Raises:
        ConfigError: it cannot.
    """
    try:
        network = ip_network(str(prefix))
    except ValueError as error:
        raise ConfigError(f"{prefix!r} cannot be shown: {error}.") from error
    longest = network.max_prefixlen - CELL_BITS
    if network.prefixlen % 8 or network.prefixlen > longest:
        raise ConfigError(f"{prefix} cannot be shown: give a prefix of a length divisible by 8, at most /{longest}.")
    if (network.version == 6) != ipv6:
        raise ConfigError(f"{prefix} cannot be shown: the rows are of the other address family.")
    return network


def common_prefix(pieces: Any, *, spare_bits: int = CELL_BITS) -> Network:
    """The longest prefix of a length divisible by 8 that holds all addresses and leaves at least so many bits."""
    lowest = highest = None
    for addresses in pieces:
        if len(addresses):
            numbers = addresses.view(f"S{addresses.shape[1]}") if addresses.shape[1] == 16 else addresses.view(">u4")
            low, high = _extremes(numbers.ravel(), addresses)
            lowest = low if lowest is None else min(lowest, low)
            highest = high if highest is None else max(highest, high)
    if lowest is None or highest is None:
        return IPv6Network("::/0")
    shared = next((at for at, (low, high) in enumerate(zip(lowest, highest, strict=True)) if low != high), len(lowest))
    length = min(8 * shared, 8 * len(lowest) - spare_bits)
    return ip_network((ip_address(lowest), length), strict=False)


def _extremes(numbers: Any, addresses: Any) -> tuple[bytes, bytes]:
    if addresses.shape[1] == 4:
        return addresses[numbers.argmin()].tobytes(), addresses[numbers.argmax()].tobytes()
    # NumPy compares text without its zeros at the end, which is wrong for bytes: so by halves, as numbers.
    halves = need("numpy").ascontiguousarray(addresses).view(">u8")
    high, low = halves[:, 0], halves[:, 1]
    ends: list[Any] = []
    for end in (high.min(), high.max()):
        at = (high == end).nonzero()[0]
        ends.append(at[low[at].argmin() if not ends else low[at].argmax()])
    return addresses[ends[0]].tobytes(), addresses[ends[1]].tobytes()


def count_cells(addresses: Any, network: Network, counts: Any) -> None:
    """Adds those addresses (bytes in rows) that lie in a network to the counts of its cells, in address order."""
    numpy = need("numpy")
    length = network.prefixlen // 8
    fixed = numpy.frombuffer(network.network_address.packed[:length], dtype="uint8")
    inside = addresses[(addresses[:, :length] == fixed).all(axis=1)]
    cells = inside[:, length].astype("uint16") << 8 | inside[:, length + 1]
    counts += numpy.bincount(cells, minlength=len(counts)).astype("uint32")


def on_map(counts: Any) -> Any:
    """Counts in address order, laid out: shape (256, 256)."""
    numpy = need("numpy")
    x, y = curve(_ORDER)
    laid = numpy.zeros((SIDE, SIDE), dtype="uint32")
    laid[y, x] = counts
    return laid


def curve(order: int) -> tuple[Any, Any]:
    """The x and y of each of the 4^order steps of the curve, from the upper left to the upper right (of even orders).

    >>> [axis.tolist() for axis in curve(2)]
    [[0, 1, 1, 0, 0, 0, 1, 1, 2, 2, 3, 3, 3, 2, 2, 3], [0, 0, 1, 1, 2, 3, 3, 2, 2, 3, 3, 2, 1, 1, 0, 0]]
    """
    numpy = need("numpy")
    x = y = numpy.zeros(1, dtype="int64")
    for level in range(order):
        # Four copies of the curve so far: transposed, as it is, as it is, transposed along the other diagonal.
        side = 1 << level
        x, y = (
            numpy.concatenate([y, x, x + side, 2 * side - 1 - y]),
            numpy.concatenate([x, y + side, y + side, side - 1 - x]),
        )
    return x, y


def _pieces(rows: object, header: tuple[str, ...]) -> tuple[Any, bool]:
    """A function that gives the addresses anew, as bytes in rows, and whether they are IPv6."""
    arrow = need("pyarrow")
    if isinstance(rows, str | Path):
        file = RowsFile(Path(rows), header)
        return lambda: (bytes_of(piece["saddr"]) for piece in file.pieces(["saddr"])), file.ipv6
    if hasattr(rows, "__arrow_c_stream__"):
        table = arrow.table(rows)
        if "saddr" not in table.column_names:
            raise ConfigError("There is no column saddr: the addresses are what a map is about.")
        held = [bytes_of(chunk) for chunk in table["saddr"].chunks]
    else:
        held = [bytes_of(need("numpy").asarray(rows))]
    return lambda: iter(held), any(each.shape[1] == 16 for each in held)


def _style(name: str) -> str:
    at = f"#{name}"
    return (
        f"{at}{{--ink:#1c2430;--plate:#f7f8fa;--line:#1c2430;font-family:system-ui,sans-serif}}"
        f"{at} text{{fill:var(--ink)}}{at} .head{{font-size:26px;font-weight:600}}"
        f"{at} .plate{{fill:var(--plate);stroke:var(--line);stroke-opacity:.35}}"
        f"{at} .cells{{image-rendering:pixelated;filter:url(#{name}-light)}}"
        f"{at} .grid{{stroke:var(--line);stroke-opacity:.16;stroke-width:1;fill:none}}"
        f"{at} .block{{font-size:15px;fill-opacity:.5;text-anchor:middle;dominant-baseline:central;"
        f"paint-order:stroke;stroke:var(--plate);stroke-width:3px;stroke-opacity:.7}}"
        f"{at} .tick{{font-size:18px;text-anchor:middle}}"
        f"{at} .stops stop{{stop-color:var(--light)}}"
        f"@media (prefers-color-scheme:dark){{{at}{{--ink:#dfe5ee;--plate:#0b0f16;--line:#aab6c8}}"
        f"{at} .cells{{filter:url(#{name}-dark)}}{at} .stops stop{{stop-color:var(--dark)}}}}"
    )


def _ramp(name: str, colours: tuple[str, ...]) -> str:
    """A filter that gives shades of grey their colours, so that one picture serves light and dark."""
    channels = zip(*(bytes.fromhex(colour[1:]) for colour in colours), strict=True)
    tables = (" ".join(f"{value / 255:.3f}" for value in channel) for channel in channels)
    functions = "".join(
        f'<feFunc{letter} type="table" tableValues="{table}"/>' for letter, table in zip("RGB", tables, strict=True)
    )
    return (
        f'<filter id="{name}" x="0" y="0" width="1" height="1" color-interpolation-filters="sRGB">'
        f"<feComponentTransfer>{functions}</feComponentTransfer></filter>"
    )


def _shades(counts: Any) -> Any:
    """Grey and opacity of each cell: logarithmic from one answer to the most, and nothing where there is none."""
    numpy = need("numpy")
    most = max(int(counts.max()), 1)
    shades = numpy.zeros((*counts.shape, 2), dtype="uint8")
    some = counts > 0
    share = numpy.log(counts[some]) / numpy.log(most) if most > 1 else numpy.ones(int(some.sum()))
    shades[some, 0] = numpy.rint(255 * share)
    shades[some, 1] = 255
    return shades


def _png(shades: Any) -> bytes:
    """Shades as a PNG of grey with opacity."""
    height, width, _ = shades.shape

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    lines = b"".join(b"\0" + line.tobytes() for line in shades)
    head = struct.pack(">IIBBBBB", width, height, 8, 4, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(lines, 9)) + chunk(b"IEND", b"")


def _grid(prefix: Network) -> str:
    """The 256 prefixes that are 8 bits longer: lines between them, and what each begins with."""
    step = _PLATE / 16
    lines = "".join(f"M{at * step:g} 0V{_PLATE}M0 {at * step:g}H{_PLATE}" for at in range(1, 16))
    x, y = curve(4)
    names = "".join(
        f'<text class="block" x="{(int(x[at]) + 0.5) * step:g}" y="{(int(y[at]) + 0.5) * step:g}">{name}</text>'
        for at, name in enumerate(block_names(prefix))
    )
    return f'<path class="grid" d="{lines}"/><g class="blocks">{names}</g>'


def block_names(prefix: Network) -> list[str]:
    """What the byte after a prefix is called in each of its 256 parts."""
    return [f"{at:02x}" if prefix.version == 6 else str(at) for at in range(256)]


def _legend(name: str, most: int) -> str:
    """The colours, with a tick at each power of ten up to the most."""
    left, width, y = 12, 420, _TOP + _PLATE + 22
    stops = "".join(
        f'<stop offset="{at / (len(LIGHT) - 1):g}" style="--light:{light};--dark:{dark}"/>'
        for at, (light, dark) in enumerate(zip(LIGHT, DARK, strict=True))
    )
    if most == 0:
        nobody = f'<text class="tick" style="text-anchor:start" x="{left}" y="{y + 16}">nobody answered here</text>'
        return f'<g class="legend">{nobody}</g>'
    ticks = [(1, 0.0)] if most > 1 else []
    if most > 1:
        scale = need("numpy").log(most)
        value = 10
        while value < most:
            share = float(need("numpy").log(value) / scale)
            if 0.08 < share < 0.9:
                ticks.append((value, share))
            value *= 10
    ticks.append((most, 1.0))
    marks = "".join(
        f'<text class="tick" x="{left + share * width:.1f}" y="{y + 42}">{value:,}</text>' for value, share in ticks
    )
    return (
        f'<g class="legend"><linearGradient id="{name}-colours" class="stops">{stops}</linearGradient>'
        f'<rect x="{left}" y="{y}" width="{width}" height="18" fill="url(#{name}-colours)"/>{marks}</g>'
    )
