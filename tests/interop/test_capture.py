"""Programs that others wrote read the captures we write; and a capture that tcpdump made is judged again by us."""

import csv
import io
import json
import shutil
import subprocess
import time
from collections.abc import Callable
from ipaddress import IPv4Address
from pathlib import Path

import pytest

import irlstack as irl
from irlstack.lab.topology import Impairment
from tests import pcapng
from tests.interop.test_dissect import COMPLAINT
from tests.netns.conftest import SPARE, Answerer, Pair
from tests.netns.frames import Syn, honest, icmp_error, ipv4, is_syn


@pytest.fixture(scope="module")
def captures(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A sample of each family, of TCP, UDP and ICMP, and a dry run."""
    folder = tmp_path_factory.mktemp("captures")
    made = {}
    for name, targets, more in (
        ("tcp", "10.2.64.0/18", {"ports": 80}),
        ("tcp6", "fd00:10::3:0/114", {"ports": 80}),
        ("udp", "10.33.192.0/19", {"ports": 9999, "probe_module": "udp", "probe_args": {"text": "hello"}}),
        ("echo", "10.2.64.0/19", {"probe_module": "icmp_echoscan"}),
    ):
        made[name] = folder / f"{name}.pcapng"
        link = {"engine": "sim", "impairment": Impairment(duplicate=0.1), "rate": 0, "cooldown_time": 0.2}
        list(irl.scan(targets, seed=4, capture_sample=made[name], capture_sample_size=500, **link, **more))
    made["dry"] = folder / "dry.pcapng"
    list(irl.scan("9.9.9.0/24", ports=443, seed=4, engine=f"pcap:{made['dry']}", rate=0))
    return made


KINDS = ["tcp", "tcp6", "udp", "echo", "dry"]


@pytest.mark.parametrize("kind", KINDS)
def test_tcpdump_reads_every_frame_without_a_complaint(captures: dict[str, Path], kind: str) -> None:
    command = ["tcpdump", "-n", "-vv", "-tt", "--nano", "-r", str(captures[kind])]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    ours = pcapng.read(captures[kind])
    # A packet begins at the line's start with its time; what is more of it is indented.
    times = [line.split()[0] for line in told.splitlines() if line and not line[0].isspace()]
    assert times == [f"{packet.time_ns // 10**9}.{packet.time_ns % 10**9:09}" for packet in ours.packets]
    # What was left out of an answer, tcpdump says to be missing.
    whole = [line for line in told.splitlines() if "[|" not in line]
    assert [line for line in whole if COMPLAINT.search(line)] == []


@pytest.mark.parametrize("kind", KINDS)
def test_tshark_reads_directions_comments_and_times(captures: dict[str, Path], kind: str) -> None:
    if shutil.which("tshark") is None:
        pytest.skip("tshark is not installed: apt-get install tshark")
    fields = ["frame.time_epoch", "frame.packet_flags_direction", "frame.len", "frame.cap_len", "frame.comment"]
    command = ["tshark", "-n", "-r", str(captures[kind]), "-T", "fields", "-E", "separator=,", "-E", "quote=d"]
    command += [part for field in fields for part in ("-e", field)]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    rows = list(csv.reader(io.StringIO(told)))
    packets = pcapng.read(captures[kind]).packets
    assert [int(row[0].replace(".", "")) for row in rows] == [packet.time_ns for packet in packets]
    assert [int(row[1], 0) for row in rows] == [2 if packet.outbound else 1 for packet in packets]
    assert [(int(row[2]), int(row[3])) for row in rows] == [(each.length, len(each.frame)) for each in packets]
    assert [row[4] or None for row in rows] == [packet.comment for packet in packets]
    bad = ["tshark", "-n", "-r", str(captures[kind]), "-o", "tcp.check_checksum:TRUE", "-o", "udp.check_checksum:TRUE"]
    bad += ["-Y", "tcp.checksum.status == 0 || udp.checksum.status == 0 || icmp.checksum.status == 0 || _ws.malformed"]
    assert subprocess.run(bad, capture_output=True, text=True, check=True).stdout == ""


@pytest.mark.parametrize("kind", KINDS)
def test_scapy_reads_them(captures: dict[str, Path], kind: str) -> None:
    scapy = pytest.importorskip("scapy.all", reason="scapy is not installed: pip install scapy")
    ours = pcapng.read(captures[kind]).packets
    assert [bytes(packet) for packet in scapy.rdpcap(str(captures[kind]))] == [packet.frame for packet in ours]


def answers(frame: bytes) -> list[bytes]:
    """Of sixteen targets one answers twice, one once, one closed, and a router answers for one."""
    if not is_syn(frame):
        return []
    syn = Syn(frame)
    match frame[33] % 16:
        case 0:
            return honest(syn) * 2
        case 1:
            return honest(syn)
        case 2:
            refused = syn.answer()
            return [bytes(refused[:47]) + b"\x14" + bytes(refused[48:50]) + wrong_by(refused[50:52], 2) + refused[52:]]
        case 3:
            quoted = frame[14:42]
            return [syn.ethernet() + ipv4(bytes([10, 9, 9, 9]), syn.ours, 1, icmp_error(quoted))]
    return []


def wrong_by(checksum: bytes, more: int) -> bytes:
    """The checksum when a word that it covers grew by so much: flags 0x12 became 0x14."""
    value = int.from_bytes(checksum, "big") - more
    return (value if value > 0 else value + 0xFFFF).to_bytes(2, "big")


def seen_by_tcpdump(capture: Path) -> int:
    """How many SYNs it has written; its file may end within one."""
    told = subprocess.run(["tcpdump", "-n", "-r", str(capture)], capture_output=True, text=True, check=False)
    return told.stdout.count("Flags [S],")


@pytest.mark.parametrize("written_as", ["pcap", "pcapng"])
def test_what_tcpdump_captured_is_judged_again_to_the_same_rows(
    pair: Pair, answerer: Callable[..., Answerer], tmp_path: Path, written_as: str
) -> None:
    answerer(pair, answers)
    plan, seen = tmp_path / "plan.toml", tmp_path / "seen.pcap"
    irl.Plan("10.0.0.0/23", ports=80, seed=6, rate=5000, source_ip=SPARE).save(plan)
    # The far end's: what our filter takes, and what XDP sends, no program on our own host gets to see.
    tcpdump = pair.start(["tcpdump", "-i", "vb", "-U", "-n", "-w", str(seen), "ip"], side="b")
    assert tcpdump.stderr is not None
    assert any("listening on vb" in line for line in tcpdump.stderr)
    names = "saddr,daddr,sport,dport,seqnum,acknum,window,ttl,ipid,classification,success,repeat,probe_num"
    fields = ["--rows", "all", "-f", names]
    sample = ["--capture-sample", str(tmp_path / "sample.pcapng")]
    live = tmp_path / "live.csv"
    scan = pair.irlstack("scan", "--plan", str(plan), "-i", "va", "-c", "1", *fields, *sample, "-o", str(live))
    assert scan.code == 0, scan.stderr
    frames = sum(packet.outbound for packet in pcapng.read(tmp_path / "sample.pcapng").packets)
    assert frames == 512 + 96, "the SYNs, and a RST for each SYN-ACK"
    deadline = time.monotonic() + 10
    while seen_by_tcpdump(seen) < 512:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    tcpdump.terminate()
    tcpdump.communicate(timeout=10)
    if written_as == "pcapng":
        if shutil.which("editcap") is None:
            pytest.skip("editcap is not installed: apt-get install tshark")
        subprocess.run(["editcap", "-F", "pcapng", str(seen), str(tmp_path / "seen.pcapng")], check=True)
        seen = tmp_path / "seen.pcapng"
    for name, capture in (("seen", seen), ("sample", tmp_path / "sample.pcapng")):
        out = tmp_path / f"{name}.csv"
        command = ["scan", "--plan", str(plan), "--engine", f"replay:{capture}", *fields, "-o", str(out), "-r", "0"]
        again = pair.irlstack(*command, "--json")
        assert again.code == 0, again.stderr
        assert sorted(out.read_text().splitlines()) == sorted(live.read_text().splitlines()), name
        assert json.loads(again.stdout.splitlines()[-1])["unsent"] is True
    rows = list(csv.DictReader(live.read_text().splitlines()))
    assert len(rows) == 32 * 5
    assert {row["daddr"] for row in rows} == {SPARE}
    assert {int(IPv4Address(row["saddr"])) % 16 for row in rows} == {0, 1, 2, 3}
