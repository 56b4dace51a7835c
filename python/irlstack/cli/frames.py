"""A frame in one line of text, for dry runs."""

import struct
from ipaddress import IPv4Address, IPv6Address

_TCP_FLAGS = "FSRPAUEC"


def describe(frame: bytes) -> str:
    """`192.0.2.1:61000 > 10.0.0.7:80 tcp S seq 1 win 64240 checksum 0x1c46, ttl 255 id 7 checksum 0x2f0e, 74 bytes`.

    The frame is an Ethernet frame with at most one tag.
    """
    offset = 18 if frame[12:14] == b"\x81\x00" else 14
    if frame[offset] >> 4 == 4:
        identifier, ttl, protocol, checksum = struct.unpack_from("!H2xBBH", frame, offset + 4)
        source: object = IPv4Address(frame[offset + 12 : offset + 16])
        target: object = IPv4Address(frame[offset + 16 : offset + 20])
        network, at = f"ttl {ttl} id {identifier} checksum {checksum:#06x}", offset + 20
    else:
        protocol, ttl = struct.unpack_from("!BB", frame, offset + 6)
        source = f"[{IPv6Address(frame[offset + 8 : offset + 24])}]"
        target = f"[{IPv6Address(frame[offset + 24 : offset + 40])}]"
        network, at = f"hop limit {ttl}", offset + 40
    first, second = struct.unpack_from("!HH", frame, at)
    match protocol:
        case 6:
            sequence, flags, window, checksum = struct.unpack_from("!I5xBHH", frame, at + 4)
            names = "".join(name for bit, name in enumerate(_TCP_FLAGS) if flags >> bit & 1)
            transport = f"{source}:{first} > {target}:{second} tcp {names} seq {sequence} win {window}"
        case 17:
            (checksum,) = struct.unpack_from("!H", frame, at + 6)
            transport = f"{source}:{first} > {target}:{second} udp {len(frame) - at - 8} bytes"
        case _:
            checksum, identifier, sequence = struct.unpack_from("!HHH", frame, at + 2)
            transport = f"{source} > {target} icmp type {first >> 8} id {identifier} seq {sequence}"
    return f"{transport} checksum {checksum:#06x}, {network}, {len(frame)} bytes"
