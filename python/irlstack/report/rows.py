"""Rows of a run from the files that a run writes, a piece at a time and only the columns asked for."""

import socket
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from irlstack._core import Probe, exchange_fields, scan_fields
from irlstack.errors import ConfigError
from irlstack.report.extra import need

Piece = Mapping[str, Any]
"""Columns by name, each an Arrow array; `saddr` is uint32 for IPv4 and 16 bytes for IPv6, whatever the file has."""

_OF_AN_EXCHANGE = {"classification": "status", "rtt": "connect_ns"}
"""What stands in an exchange's rows for columns of a scan's: how it ended, and SYN to SYN-ACK."""
_ROWS_A_PIECE = 1 << 18
_BYTES_A_PIECE = 1 << 24


class RowsFile:
    """A file of rows, or a folder of Parquet parts, that can be read again and again.

    Attributes:
        columns: names of the columns it has; those of an exchange under the names of a scan's, too.
        ipv6: whether its addresses are IPv6.
    """

    def __init__(self, path: Path, header: Sequence[str] = ()) -> None:
        """Looks at the beginning of the file.

        Args:
            path: .parquet, .csv or .jsonl by contents, or a folder of Parquet files.
            header: the columns of a CSV file without a header row, from the run's metadata.

        Raises:
            ConfigError: it holds no rows of a run.
            OSError: it cannot be read.
        """
        self.path = path
        self._parts = sorted(path.glob("part-*.parquet")) if path.is_dir() else [path]
        if not self._parts:
            raise ConfigError(f"{path} holds no part-*.parquet: name a file of rows, or the folder of their parts.")
        with self._parts[0].open("rb") as file:
            first = file.readline(1 << 16)
        self._header: Sequence[str] | None = None
        if first.startswith(b"PAR1"):
            self._read = self._parquet
            self.columns = need("pyarrow.parquet").read_schema(self._parts[0]).names
        elif first.startswith(b"{"):
            self._read = self._json
            self.columns = list(need("pyarrow.json").read_json(_line(first)).column_names)
        else:
            self._read = self._csv
            names = first.decode("utf-8", "replace").strip().split(",")
            every = (scan_fields(probe_module=probe) for probe, _ in Probe.meanings())
            known = {each["name"] for each in (*chain(*every), *exchange_fields())}
            if names != [""] and not known.issuperset(names):
                self._header = names = list(header)
            self.columns = [name for name in names if name]
        if self.columns and "saddr" not in self.columns:
            raise ConfigError(f"{path} has no column saddr: the addresses are what a report is about.")
        self._stored = {new: old for new, old in _OF_AN_EXCHANGE.items() if "status" in self.columns}
        self.columns += [new for new, old in self._stored.items() if old in self.columns]
        self.ipv6 = self._is_ipv6()

    @property
    def of_exchange(self) -> bool:
        """Whether they are an exchange's."""
        return bool(self._stored)

    def pieces(self, columns: Sequence[str]) -> Iterator[Piece]:
        """The rows, in pieces of bounded size; of the columns asked for, those that the file has."""
        wanted = [name for name in columns if name in self.columns]
        stored = [self._stored.get(name, name) for name in wanted]
        for batch in self._read(stored) if wanted else ():
            found = dict(zip(batch.schema.names, batch.columns, strict=True))
            piece = {name: found[as_stored] for name, as_stored in zip(wanted, stored, strict=True)}
            if "saddr" in piece:
                piece["saddr"] = _addresses(piece["saddr"], ipv6=self.ipv6)
            yield piece

    def _parquet(self, columns: list[str]) -> Iterator[Any]:
        for part in self._parts:
            with need("pyarrow.parquet").ParquetFile(part) as file:
                yield from file.iter_batches(_ROWS_A_PIECE, columns=columns)

    def _csv(self, columns: list[str]) -> Iterator[Any]:
        csv, types = need("pyarrow.csv"), _text_types()
        if self.path.stat().st_size == 0:
            return
        yield from csv.open_csv(
            self.path,
            read_options=csv.ReadOptions(block_size=_BYTES_A_PIECE, column_names=self._header),
            convert_options=csv.ConvertOptions(
                include_columns=columns, column_types={name: types[name] for name in columns if name in types}
            ),
        )

    def _json(self, columns: list[str]) -> Iterator[Any]:
        arrow, json, types = need("pyarrow"), need("pyarrow.json"), _text_types()
        schema = arrow.schema([(name, types[name]) for name in columns if name in types])
        yield from json.open_json(
            self.path,
            read_options=json.ReadOptions(block_size=_BYTES_A_PIECE),
            parse_options=json.ParseOptions(explicit_schema=schema, unexpected_field_behavior="ignore"),
        )

    def _is_ipv6(self) -> bool:
        arrow = need("pyarrow")
        for batch in self._read(["saddr"]) if self.columns else ():
            column = batch.column(0)
            if arrow.types.is_string(column.type):
                if len(column):
                    return ":" in column[0].as_py()
                continue
            return bool(arrow.types.is_fixed_size_binary(column.type))
        return False


def bytes_of(addresses: Any) -> Any:
    """Addresses as bytes in rows: uint8 of shape (n, 4) or (n, 16), from an Arrow or NumPy array.

    Raises:
        ConfigError: they are something else.
    """
    numpy = need("numpy")
    if not isinstance(addresses, numpy.ndarray):
        arrow = need("pyarrow")
        if arrow.types.is_fixed_size_binary(addresses.type) and addresses.type.byte_width == 16:
            held = numpy.frombuffer(addresses.buffers()[1], dtype="uint8")
            return held.reshape(-1, 16)[addresses.offset : addresses.offset + len(addresses)]
        addresses = addresses.to_numpy(zero_copy_only=False)
    if addresses.ndim == 2 and addresses.dtype == numpy.uint8 and addresses.shape[1] in (4, 16):
        return numpy.ascontiguousarray(addresses)
    if addresses.ndim != 1 or addresses.dtype.kind not in "iu":
        raise ConfigError("Addresses are uint32 of shape (n,) for IPv4, or uint8 of shape (n, 16) for IPv6.")
    return addresses.astype(">u4").view("uint8").reshape(-1, 4)


def _line(first: bytes) -> Any:
    return need("pyarrow").BufferReader(first)


def _text_types() -> dict[str, Any]:
    """What the cells of text files are read as."""
    arrow = need("pyarrow")
    types = {
        "uint8": arrow.uint8(),
        "uint16": arrow.uint16(),
        "uint32": arrow.uint32(),
        "int64": arrow.int64(),
        "bool": arrow.bool_(),
        "utf8": arrow.string(),
    }
    fields = (*exchange_fields(), *scan_fields())
    known = {each["name"]: types.get(each["type"], arrow.string()) for each in fields}
    return known | {name: arrow.string() for name in ("saddr", "daddr", "icmp_responder")}


def _addresses(column: Any, *, ipv6: bool) -> Any:
    """Addresses as numbers (IPv4) or 16 bytes (IPv6), where the file has them as text."""
    arrow, numpy = need("pyarrow"), need("numpy")
    if not arrow.types.is_string(column.type):
        return column
    if ipv6:
        packed = b"".join(socket.inet_pton(socket.AF_INET6, text) for text in column.to_pylist())
        return arrow.FixedSizeBinaryArray.from_buffers(arrow.binary(16), len(column), [None, arrow.py_buffer(packed)])
    octets = need("pyarrow.compute").split_pattern(column, ".").flatten().cast(arrow.uint32())
    quads = octets.to_numpy(zero_copy_only=False).reshape(-1, 4)
    return arrow.array(quads @ numpy.array([1 << 24, 1 << 16, 1 << 8, 1], dtype=numpy.uint32))
