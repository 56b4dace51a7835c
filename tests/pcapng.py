"""A small reader of pcapng, written apart from the one that is tested."""

import struct
from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class Packet:
    """A packet with what its block says of it."""

    time_ns: int
    frame: bytes
    length: int
    outbound: bool
    comment: str | None
    interface: int


@dataclass
class Capture:
    """A whole file."""

    comment: str = ""
    link_types: list[int] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    packets: list[Packet] = field(default_factory=list)

    @property
    def sent(self) -> list[Packet]:
        """What went out."""
        return [packet for packet in self.packets if packet.outbound]

    @property
    def received(self) -> list[Packet]:
        """What came in."""
        return [packet for packet in self.packets if not packet.outbound]


def _options(block: bytes) -> dict[int, bytes]:
    found = {}
    while len(block) >= 4:
        code, length = struct.unpack_from("<HH", block)
        if code == 0:
            break
        found[code] = block[4 : 4 + length]
        block = block[4 + (length + 3) // 4 * 4 :]
    return found


def read(path: Path) -> Capture:
    """Everything in a file of ours: one section, little endian, ns."""
    data, at, capture = path.read_bytes(), 0, Capture()
    while at < len(data):
        kind, length = struct.unpack_from("<II", data, at)
        assert length % 4 == 0
        assert struct.unpack_from("<I", data, at + length - 4) == (length,)
        body = data[at + 8 : at + length - 4]
        match kind:
            case 0x0A0D0D0A:
                assert at == 0
                assert struct.unpack_from("<IHHq", body) == (0x1A2B3C4D, 1, 0, -1)
                capture.comment = _options(body[16:])[1].decode()
            case 1:
                options = _options(body[8:])
                assert options[9] == b"\x09", "times are in ns"
                capture.link_types.append(struct.unpack_from("<H", body)[0])
                capture.names.append(options[2].decode())
            case 6:
                interface, high, low, captured, original = struct.unpack_from("<5I", body)
                options = _options(body[20 + (captured + 3) // 4 * 4 :])
                (flags,) = struct.unpack("<I", options[2])
                assert flags in (1, 2)
                assert interface < len(capture.names)
                comment = options[1].decode() if 1 in options else None
                frame = body[20 : 20 + captured]
                capture.packets.append(Packet(high << 32 | low, frame, original, flags == 2, comment, interface))
            case _:
                raise AssertionError(f"block {kind}")
        at += length
    return capture
