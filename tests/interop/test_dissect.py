"""tcpdump and scapy take apart every frame we emit, of every probe and family, and find nothing wrong with one."""

import re
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.netns.conftest import SPARE, SPARE6, Answerer, Pair
from tests.netns.frames import Syn, honest, is_syn

PROBES = {
    "tcp_synscan": ["-p", "80"],
    "tcp_synscan smallest": ["-p", "443", "--probe-args", "layout=smallest"],
    "icmp_echoscan": ["-M", "icmp_echoscan"],
    "udp": ["-M", "udp", "-p", "9999", "--probe-args", "text:hello"],
    "udp of odd length": ["-M", "udp", "-p", "9999", "--probe-args", "hex:0102030405"],
    "dns": ["-M", "dns", "-p", "53", "--probe-args", "AAAA,www.example.com"],
}
# tcpdump speaks of a checksum that is wrong, a length that does not fit, an option it cannot read.
COMPLAINT = re.compile(r"\b(incorrect|bad|wrong|invalid|truncated|malformed|missing|unknown)\b|\[\|", re.IGNORECASE)


def pcap(frames: list[bytes], path: Path) -> Path:
    with path.open("wb") as file:
        file.write(struct.pack("=IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65_535, 1))
        for number, frame in enumerate(frames):
            file.write(struct.pack("=IIII", number, 0, len(frame), len(frame)) + frame)
    return path


def dissect(frames: list[bytes], folder: Path) -> str:
    command = ["tcpdump", "-n", "-vv", "-e", "-r", str(pcap(frames, folder / "emitted.pcap"))]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def emitted(pair: Pair, far: Answerer) -> list[bytes]:
    """The frames that carry our source address, or ask and answer for it: those of the kernel at va aside."""
    ours = bytes.fromhex(pair.mac_a.replace(":", ""))
    return [frame for frame in far.seen if frame[6:12] == ours]


@pytest.mark.parametrize("probe", PROBES)
@pytest.mark.parametrize("family", [4, 6])
def test_every_frame_is_dissected_without_a_complaint(
    make_pair: Callable[..., Pair], answerer: Callable[..., Answerer], tmp_path: Path, probe: str, family: int
) -> None:
    pair = make_pair(ipv6=family == 6)
    far = answerer(pair, lambda frame: [])
    targets, source = {4: ("10.0.0.0/24", SPARE), 6: ("fd00::/120", SPARE6)}[family]
    scan = pair.scan(targets, *PROBES[probe], "-r", "5k", "-c", "1", "-P", "2", source=source)
    assert scan.code == 0, scan.stderr
    pair.silent()
    frames = emitted(pair, far)
    assert len(frames) >= 512, "two probes a target, and what finds the gateway"

    told = dissect(frames, tmp_path)
    assert [line for line in told.splitlines() if COMPLAINT.search(line)] == []
    marks = {"tcp": "(correct)", "icmp": "echo request"}
    right = marks.get(probe.partition("_")[0], "[udp sum ok]")
    assert told.count(right) == 512

    check_with_scapy(frames)


def check_with_scapy(frames: list[bytes]) -> None:
    scapy = pytest.importorskip("scapy.all", reason="scapy is not installed: pip install scapy")
    for frame in frames:
        packet = scapy.Ether(frame)
        assert not packet.haslayer(scapy.Padding) or len(frame) == 60
        assert not packet.haslayer(scapy.Raw) or packet.haslayer(scapy.UDP) or packet.haslayer(scapy.ICMP)
        again = packet.copy()
        for layer in again.iterpayloads():
            for name in ("chksum", "cksum", "len", "plen", "ihl", "dataofs"):
                if name in layer.fields:
                    del layer.fields[name]
            layer.raw_packet_cache = None
        assert bytes(again) == frame, packet.show(dump=True)


def test_resets_and_neighbour_frames_are_correct_too(
    pair: Pair, answerer: Callable[..., Answerer], tmp_path: Path
) -> None:
    far = answerer(pair, lambda frame: honest(Syn(frame)) if is_syn(frame) else [])
    scan = pair.scan("10.0.0.0/22", "-p", "80", "-r", "2k", "-c", "1")
    assert scan.code == 0, scan.stderr
    pair.silent()
    frames = emitted(pair, far)
    told = dissect(frames, tmp_path)
    assert [line for line in told.splitlines() if COMPLAINT.search(line)] == []
    assert told.count("Flags [S],") == 1 << 10
    assert told.count("Flags [R],") == 1 << 10
    assert told.count("(correct)") == 2 << 10
    assert told.count(f"who-has {SPARE}") >= 1, "the probes of the duplicate-address detection"
    check_with_scapy(frames)
