"""Frames as the far end sees and makes them: plain bytes, none of our code."""

import struct

SYN, RST, ACK = 2, 4, 16


def checksum(data: bytes, start: int = 0) -> int:
    data += b"\0" * (len(data) % 2)
    total = start + sum(struct.unpack(f"!{len(data) // 2}H", data))
    total = (total & 0xFFFF) + (total >> 16)
    return ~(total + (total >> 16)) & 0xFFFF


class Syn:
    """A SYN of ours as the far end sees it."""

    def __init__(self, frame: bytes) -> None:
        self.frame = frame
        self.ours, self.theirs = frame[26:30], frame[30:34]
        self.our_port, self.their_port, self.sequence = struct.unpack("!HHI", frame[34:42])

    def answer(self, options: bytes = b"", ack: int | None = None, source: bytes | None = None) -> bytearray:
        """A correct SYN-ACK, with fields to get wrong."""
        source = source or self.theirs
        ack = (self.sequence + 1 if ack is None else ack) & 0xFFFFFFFF
        words = (20 + len(options)) // 4
        tcp = struct.pack("!HHIIBBHHH", self.their_port, self.our_port, 7, ack, words << 4, SYN | ACK, 65535, 0, 0)
        tcp += options
        pseudo = checksum(source + self.ours + struct.pack("!HH", 6, len(tcp)) + tcp)
        tcp = tcp[:16] + struct.pack("!H", pseudo) + tcp[18:]
        return bytearray(self.ethernet() + ipv4(source, self.ours, 6, tcp))

    def ethernet(self, kind: int = 0x0800) -> bytes:
        return self.frame[6:12] + self.frame[:6] + struct.pack("!H", kind)


def ipv4(source: bytes, destination: bytes, protocol: int, body: bytes, fragment: int = 0) -> bytes:
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(body), 1, fragment, 64, protocol, 0) + source + destination
    return head[:10] + struct.pack("!H", checksum(head)) + head[12:] + body


def is_syn(frame: bytes) -> bool:
    return frame[12:14] == b"\x08\x00" and frame[23] == 6 and frame[47] & (SYN | ACK | RST) == SYN


def honest(syn: Syn) -> list[bytes]:
    return [bytes(syn.answer())]


def icmp_error(quoted: bytes) -> bytes:
    body = struct.pack("!BBHI", 3, 1, 0, 0) + quoted
    return body[:2] + struct.pack("!H", checksum(body)) + body[4:]
