"""Answers from a far end that lies: each is counted, none is believed, nothing crashes."""

import random
import socket
import struct
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.netns.conftest import Answerer, Pair
from tests.netns.frames import Syn, checksum, honest, icmp_error, ipv4, is_syn


def changed(frame: bytearray, offset: int, value: int, mend: bool = True) -> bytes:
    """The frame with one other byte, and checksums that call it right, so that nothing else gives it away."""
    frame[offset] ^= value
    if mend:
        frame[24:26] = frame[50:52] = b"\0\0"
        frame[24:26] = struct.pack("!H", checksum(bytes(frame[14:34])))
        frame[50:52] = struct.pack("!H", checksum(bytes(frame[26:34]) + struct.pack("!HH", 6, 20) + bytes(frame[34:])))
    return bytes(frame)


LIES: dict[str, Callable[[Syn], Sequence[bytes]]] = {
    "cut inside the TCP header": lambda syn: [bytes(syn.answer()[:46])],
    "cut inside the IP header": lambda syn: [bytes(syn.answer()[:24])],
    "an Ethernet header and nothing": lambda syn: [syn.ethernet() + b"\0"],
    "a wrong TCP checksum": lambda syn: [changed(syn.answer(), 50, 0x5A, mend=False)],
    "a wrong IP checksum": lambda syn: [changed(syn.answer(), 24, 0x5A, mend=False)],
    "an IP header shorter than 20 bytes": lambda syn: [changed(syn.answer(), 14, 0x01)],
    "an IP header longer than the packet": lambda syn: [changed(syn.answer(), 14, 0x0A)],
    "a total length beyond the frame": lambda syn: [changed(syn.answer(), 16, 0xFF)],
    "a TCP header longer than the packet": lambda syn: [changed(syn.answer(), 46, 0xA0)],
    "a TCP header shorter than 20 bytes": lambda syn: [changed(syn.answer(), 46, 0x40)],
    "a first fragment": lambda syn: [
        syn.ethernet() + ipv4(syn.theirs, syn.ours, 6, bytes(syn.answer()[34:50]), 0x2000)
    ],
    "a later fragment": lambda syn: [syn.ethernet() + ipv4(syn.theirs, syn.ours, 6, bytes(24), 3)],
    "an acknowledgement of what we never sent": lambda syn: [bytes(syn.answer(ack=syn.sequence + 2))],
    "somebody else's address": lambda syn: [bytes(syn.answer(source=socket.inet_aton("10.200.0.1")))],
    "an ICMP error with half a quotation": lambda syn: [
        syn.ethernet() + ipv4(syn.theirs, syn.ours, 1, struct.pack("!BBHI", 3, 1, 0, 0) + bytes(syn.frame[14:30]))
    ],
    "an ICMP error that quotes a forged SYN": lambda syn: [
        syn.ethernet()
        + ipv4(syn.theirs, syn.ours, 1, icmp_error(syn.frame[14:38] + struct.pack("!I", syn.sequence ^ 0x00FF00FF)))
    ],
}


def test_no_lie_is_believed_and_the_honest_are_found(
    pair: Pair, answerer: Callable[..., Answerer], tmp_path: Path
) -> None:
    kinds = [honest, *LIES.values()]

    def answer(frame: bytes) -> Sequence[bytes]:
        return kinds[frame[33] % len(kinds)](Syn(frame)) if is_syn(frame) else []

    answerer(pair, answer)
    output = tmp_path / "found.csv"
    before = pair.counters("a")
    scan = pair.scan(
        "10.0.0.0/22", "-p", "80", "-r", "2k", "-c", "1", "-G", pair.mac_b, "-f", "saddr", "-o", str(output)
    )
    assert scan.code == 0, scan.stderr
    believed = {int(line.rpartition(".")[2]) % len(kinds) for line in output.read_text().splitlines()[1:]}
    names = ["honest", *LIES]
    assert {names[each] for each in believed} == {"honest"}
    assert scan.document["found"] == sum(last % len(kinds) == 0 for _ in range(4) for last in range(256))
    pair.conserved(scan.document, before, strangers=True)


def test_malformed_options_do_not_hide_a_valid_answer(pair: Pair, answerer: Callable[..., Answerer]) -> None:
    shapes = [
        b"\x02\x00\x05\xb4",
        b"\x08\x01\0\0",
        b"\x03\xff\0\0",
        b"\x01" * 40,
        b"\x08\x0a" + b"\xff" * 8 + b"\x02\x04",
    ]

    def answer(frame: bytes) -> Sequence[bytes]:
        return [bytes(Syn(frame).answer(shapes[frame[33] % len(shapes)]))] if is_syn(frame) else []

    answerer(pair, answer)
    scan = pair.scan("10.0.0.0/24", "-p", "80", "-r", "2k", "-c", "1", "-G", pair.mac_b)
    assert scan.code == 0, scan.stderr
    assert scan.document["found"] == 256


def test_answers_replayed_from_an_earlier_run_are_strangers(pair: Pair, answerer: Callable[..., Answerer]) -> None:
    kept: list[bytes] = []
    replay = False

    def answer(frame: bytes) -> Sequence[bytes]:
        if not is_syn(frame):
            return []
        if replay:
            return [kept.pop()] if kept else []
        kept.extend(honest(Syn(frame)))
        return kept[-1:]

    answerer(pair, answer)
    given = ["10.0.0.0/24", "-p", "80", "-r", "2k", "-c", "1", "-G", pair.mac_b, "-e", "1"]
    assert pair.scan(*given).document["found"] == 256
    replay = True
    assert pair.scan(*given).document["found"] == 0


def test_a_storm_of_mutated_answers_crashes_nothing(pair: Pair, answerer: Callable[..., Answerer]) -> None:
    chance = random.Random(3)

    def mutate(frame: bytes) -> bytes:
        bent = bytearray(frame)
        for _ in range(chance.randint(1, 6)):
            bent[chance.randrange(12, len(bent))] = chance.randrange(256)
        return bytes(bent[: chance.choice([len(bent)] * 4 + [chance.randint(14, len(bent))])])

    def answer(frame: bytes) -> Sequence[bytes]:
        return (
            [mutate(bytes(Syn(frame).answer(b"\x02\x04\x05\xb4\x04\x02\x01\x01"))) for _ in range(8)]
            if is_syn(frame)
            else []
        )

    far = answerer(pair, answer)
    before = pair.counters("a")
    scan = pair.scan("10.0.0.0/21", "-p", "80", "-r", "2k", "-c", "1", "-G", pair.mac_b)
    assert scan.code == 0, scan.stderr
    assert sum(map(is_syn, far.seen)) == scan.document["sent"] == 1 << 11
    pair.conserved(scan.document, before, strangers=True)
