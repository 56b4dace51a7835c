"""One scan over two interfaces (the paper has 1 to 4): each carries its half, and together they find everybody."""

import csv
import json
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

import irlstack as irl
from irlstack.lab import Lab, netns
from irlstack.ledger import Ledger
from tests.netns.conftest import IRLSTACK, SO_RCVBUFFORCE, SPARE, Pair, Scan, sh
from tests.netns.frames import Syn, is_syn

SPARE2 = "198.18.2.10"
OURS = {"va": SPARE, "va2": SPARE2}
BOTH = ["-i", "va,va2", "-S", SPARE, "-S", SPARE2]
# Python has no name for it.
ETH_P_ALL = 3
ENGINES = pytest.mark.parametrize("engine", ["live", "packet"])


class Ports:
    """A pair with a second one beside it: va2 198.18.2.1/24 and vb2 198.18.2.2/24, between the same namespaces."""

    def __init__(self, pair: Pair) -> None:
        self.pair = pair
        sh(
            *("ip", "-n", pair.a, "link", "add", "va2", "numrxqueues", "2", "numtxqueues", "2", "type", "veth"),
            *("peer", "name", "vb2", "numrxqueues", "2", "numtxqueues", "2", "netns", pair.b),
        )
        for name, end, address in ((pair.a, "va2", "198.18.2.1/24"), (pair.b, "vb2", "198.18.2.2/24")):
            offloads = ["tx", "off", "tso", "off", "gso", "off", "gro", "on"]
            sh("ip", "netns", "exec", name, "ethtool", "-K", end, *offloads)
            sh("ip", "-n", name, "addr", "add", address, "dev", end)
            sh("ip", "-n", name, "link", "set", end, "up")
        sh("ip", "-n", pair.a, "route", "add", "default", "via", "198.18.2.2", "metric", "100")

    def everybody(self, program: Path) -> None:
        """Has every host of 10.0.0.0/8 answer on both."""
        for end in ("vb", "vb2"):
            sh("ip", "-n", self.pair.b, "link", "set", end, "xdpdrv", "obj", str(program), "sec", "xdp")

    def counters(self) -> dict[str, tuple[int, int]]:
        """Packets received and sent by each of the four ends, as the kernel counts them."""
        found = {}
        for name in (self.pair.a, self.pair.b):
            for link in json.loads(sh("ip", "-n", name, "-j", "-s", "link", "show")):
                found[link["ifname"]] = (link["stats64"]["rx"]["packets"], link["stats64"]["tx"]["packets"])
        return found

    def attached(self) -> list[str]:
        """The client's interfaces that an XDP program sits on."""
        links = json.loads(sh("ip", "-n", self.pair.a, "-j", "-d", "link", "show"))
        return [link["ifname"] for link in links if "prog" in link.get("xdp", {})]

    def await_frames(self, count: int, seconds: float = 20) -> None:
        """Returns once `count` more frames have reached each far end."""
        first, deadline = self.counters(), time.monotonic() + seconds
        while True:
            now = self.counters()
            if all(now[end][0] >= first[end][0] + count for end in ("vb", "vb2")):
                return
            assert time.monotonic() < deadline, f"fewer than {count} frames on one of them within {seconds} s"
            time.sleep(0.01)

    def scan(self, *arguments: str) -> Scan:
        return self.pair.irlstack("scan", *arguments, *BOTH, "-q", "--json")


@pytest.fixture
def ports(pair: Pair) -> Ports:
    """Two joined namespaces with two links, nobody answering but the kernels."""
    return Ports(pair)


@pytest.fixture
def busy_ports(ports: Ports, build_peer: Callable[..., Path]) -> Ports:
    """The same with every host of 10.0.0.0/8 answering on both."""
    ports.everybody(build_peer())
    ports.pair.silent()
    return ports


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open() as lines:
        return list(csv.DictReader(lines))


@pytest.mark.alone
@pytest.mark.parametrize(("engine", "rate"), [("packet", "60k"), ("live", "60k"), ("live", "200k")])
def test_two_interfaces_find_everybody_once_and_each_carries_about_half(
    busy_ports: Ports, tmp_path: Path, engine: str, rate: str
) -> None:
    before, output = busy_ports.counters(), tmp_path / "rows.csv"
    given = ["-p", "80", "-r", rate, "-c", "1", "-T", "2", "--engine", engine, "-o", str(output), "--rows", "all"]
    scan = busy_ports.scan("10.0.0.0/16", *given)
    assert scan.code == 0, scan.stderr
    document, after, rows = scan.document, busy_ports.counters(), rows_of(output)
    assert document["engine"] == engine
    assert document["iface"] == "va,va2"
    assert document["imbalances"] == []
    assert document["sent"] == 1 << 16
    # With a core spinning for each interface the far end may come late to its ring of 256 frames: that is counted.
    lost = document["stats"]["device_lost"]
    assert lost <= (655 if rate == "200k" else 0)
    assert document["found"] == len(rows) == len({row["saddr"] for row in rows})
    assert (1 << 16) - lost <= len(rows) <= 1 << 16
    assert document["stats"]["crossed"] == document["stats"]["unprobed"] == 0
    from_each = Counter(row["daddr"] for row in rows)
    assert sum(from_each.values()) == len(rows)
    assert [each["iface"] for each in document["interfaces"]] == ["va", "va2"]
    for each in document["interfaces"]:
        near, far = each["iface"], each["iface"].replace("va", "vb")
        assert each["source_ips"] == [OURS[near]]
        assert each["found"] == from_each[OURS[near]]
        assert each["sent"] - lost <= each["found"] <= each["sent"]
        assert 0.3 < each["sent"] / (1 << 16) < 0.7, "about half"
        left = each["packets_sent"] + each["network"]["conflict_probes"]
        assert left == after[near][1] - before[near][1], "what we say we sent and what the device says"
        # Each probe and each RST, and a few neighbour frames, as the far end has counted them.
        arrived = after[far][0] - before[far][0]
        assert 2 * (each["sent"] - lost) <= arrived <= each["sent"] + each["found"] + 20
        assert each["gateway_mac"] in (None, busy_ports.pair.mac(busy_ports.pair.b, far))
    assert busy_ports.attached() == []


@ENGINES
def test_a_probe_leaves_by_the_interface_that_has_its_source(ports: Ports, engine: str) -> None:
    """As the far end's packet sockets see it; nobody answers."""
    with netns.enter(ports.pair.b):
        sockets = {
            end: socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL)) for end in ("vb", "vb2")
        }
        for end, each in sockets.items():
            each.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 64 << 20)
            each.bind((end, ETH_P_ALL))
    scan = ports.scan("10.0.0.0/19", "-p", "80", "-r", "50k", "-c", "0", "--engine", engine)
    assert scan.code == 0, scan.stderr
    seen: dict[str, list[Syn]] = {}
    for end, each in sockets.items():
        each.setblocking(False)
        seen[end] = [Syn(frame) for frame in received(each) if is_syn(frame)]
        each.close()
    for near, far in (("va", "vb"), ("va2", "vb2")):
        mac = bytes.fromhex(ports.pair.mac(ports.pair.b, far).replace(":", ""))
        assert {(socket.inet_ntoa(syn.ours), syn.frame[:6]) for syn in seen[far]} == {(OURS[near], mac)}
    targets = [syn.theirs for end in seen for syn in seen[end]]
    assert len(targets) == len(set(targets)) == 1 << 13


def received(from_socket: socket.socket) -> Iterator[bytes]:
    while True:
        try:
            frame, address = from_socket.recvfrom(2048)
        except BlockingIOError:
            return
        if address[2] != socket.PACKET_OUTGOING:
            yield frame


@pytest.fixture
def listening(ports: Ports) -> Iterator[Ports]:
    """The far end's kernel accepts on port 80 of 10.0.0.0/19, and sends what is for the second port by the first."""
    pair = ports.pair
    for which in ("all", "vb", "vb2"):
        sh("ip", "netns", "exec", pair.b, "sh", "-c", f"echo 0 > /proc/sys/net/ipv4/conf/{which}/rp_filter")
    sh("ip", "-n", pair.b, "route", "add", "local", "10.0.0.0/19", "dev", "lo")
    sh("ip", "-n", pair.b, "route", "add", f"{SPARE2}/32", "dev", "vb")
    sh("ip", "-n", pair.b, "neigh", "add", SPARE2, "lladdr", pair.mac_a, "dev", "vb", "nud", "permanent")
    with netns.enter(pair.b):
        listener = socket.create_server(("", 80), backlog=4096)
    yield ports
    listener.close()


@ENGINES
def test_an_answer_that_comes_in_by_the_other_interface_is_a_row_and_counted(
    listening: Ports, tmp_path: Path, engine: str
) -> None:
    output = tmp_path / "rows.csv"
    given = ["-p", "80", "-r", "10k", "-c", "0.5", "--engine", engine, "-o", str(output)]
    scan = listening.scan("10.0.0.0/19", *given)
    assert scan.code == 0, scan.stderr
    document, rows = scan.document, rows_of(output)
    first, second = document["interfaces"]
    assert document["found"] == len(rows) == 1 << 13
    to_second = sum(row["daddr"] == SPARE2 for row in rows)
    assert to_second == second["sent"] > 0
    # An answer that gets no RST may come again.
    assert first["crossed"] == document["stats"]["crossed"] >= to_second
    assert second["crossed"] == second["found"] == 0
    # The others got their RST; one from the second address must not leave by the first interface.
    assert document["stats"]["resets_skipped"] == first["crossed"]
    assert document["stats"]["resets_sent"] == (1 << 13) - to_second
    assert document["imbalances"] == []
    assert listening.pair.snmp("OutRsts") == 0, "the kernel answered none of them either"


def test_an_interface_answers_for_its_own_addresses_only(busy_ports: Ports) -> None:
    """On one link the other's address would be taken for a conflict, and draw its traffic here."""
    pair = busy_ports.pair
    process = pair.start(
        [*IRLSTACK, "scan", "10.0.0.0/8", "-p", "80", "-r", "2k", *BOTH, "-q"], stdout=subprocess.DEVNULL
    )
    busy_ports.await_frames(100)
    sh("ip", "-n", pair.b, "route", "add", f"{SPARE2}/32", "dev", "vb")
    sh("ip", "-n", pair.b, "neigh", "flush", "dev", "vb")
    for address in (SPARE, SPARE2):
        pair.code("ping", "-c", "1", "-W", "1", "-I", "vb", address, side="b")
    known = {each["dst"]: each.get("lladdr") for each in neighbours_of(pair)}
    process.send_signal(signal.SIGINT)
    process.communicate()
    assert known[SPARE] == pair.mac_a
    assert known[SPARE2] is None


def neighbours_of(pair: Pair) -> list[dict[str, Any]]:
    return json.loads(sh("ip", "-n", pair.b, "-j", "neigh", "show", "dev", "vb"))


def test_killed_in_full_flight_it_leaves_both_interfaces_as_they_were(busy_ports: Ports) -> None:
    given = ["10.0.0.0/8", "-p", "80", "-r", "0", "-c", "1", "--engine", "live", *BOTH, "-q"]
    scan = busy_ports.pair.start([*IRLSTACK, "scan", *given], stdout=subprocess.DEVNULL)
    busy_ports.await_frames(10_000)
    assert busy_ports.attached() == ["va", "va2"]
    scan.send_signal(signal.SIGKILL)
    scan.communicate()
    assert busy_ports.attached() == []
    for gateway in ("198.18.0.2", "198.18.2.2"):
        assert busy_ports.pair.code("ping", "-c", "1", "-W", "2", gateway) == 0


@ENGINES
def test_one_interface_taken_down_is_said_and_the_other_does_what_is_left(
    busy_ports: Ports, tmp_path: Path, engine: str
) -> None:
    output, pair = tmp_path / "rows.csv", busy_ports.pair
    given = ["10.0.0.0/14", "-p", "80", "-r", "100k", "-c", "1", "--engine", engine, "-o", str(output)]
    process = pair.start([*IRLSTACK, "scan", *given, *BOTH, "-q", "--json"])
    busy_ports.await_frames(20_000)
    sh("ip", "-n", pair.a, "link", "set", "va2", "down")
    stdout, stderr = process.communicate(timeout=60)
    scan = Scan(process.returncode, stdout, stderr)
    assert scan.code == 5, scan.stderr
    assert "va2 is gone" in scan.stderr
    assert "by the others" in scan.stderr
    assert "Traceback" not in scan.stderr
    document, rows = scan.document, rows_of(output)
    stats, (first, second) = document["stats"], document["interfaces"]
    assert document["imbalances"] == []
    assert "va2 is gone" in document["error"]
    assert stats["targets"] == 1 << 18, "all of the permutation was taken"
    assert (stats["probes_built"], stats["unprobed"]) == (1 << 18, 0), "and probed"
    assert first["sent"] > 1.5 * second["sent"], "the other went on"
    assert second["found"] >= 10_000
    # What was on its way when the interface went is all that may be missing.
    assert len(rows) == document["found"] > stats["probes_sent"] - stats["device_lost"] - 5_000
    assert len({row["saddr"] for row in rows}) == len(rows)
    assert busy_ports.attached() == []


@pytest.mark.alone
def test_the_ledger_knows_the_second_of_each_probe_also_when_an_interface_goes(
    busy_ports: Ports, tmp_path: Path
) -> None:
    """Both take from one watermark; what the one that goes had taken is probed later, by the other."""
    pair, plan = busy_ports.pair, irl.Plan("10.0.0.0/16", ports=80, rate=40_000, source_ip=[SPARE, SPARE2])
    plan.save(tmp_path / "plan.toml")
    given = ["--plan", str(tmp_path / "plan.toml"), "-c", "1", "--engine", "packet", "-q", "-i", "va,va2"]
    outputs = ["-o", str(tmp_path / "rows.csv"), "-f", "saddr,timestamp", "-m", str(tmp_path / "run.json")]
    process = pair.start([*IRLSTACK, "scan", *given, *outputs])
    busy_ports.await_frames(8_000)
    sh("ip", "-n", pair.a, "link", "set", "va2", "down")
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 5, stderr
    book, slack = Ledger.of(tmp_path), timedelta(seconds=0.2)
    rows = rows_of(tmp_path / "rows.csv")
    assert len(rows) > 58_000
    for row in rows[:: len(rows) // 400]:
        (entry,) = book.find(f"{row['saddr']}:80")
        ((after, until, certain),) = entry.probed
        assert certain
        assert after - slack <= datetime.fromisoformat(row["timestamp"]) <= until + slack
        assert until - after < timedelta(seconds=2.2)


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["-i", "va,va2", "-S", SPARE], 2, "belongs to va2, which has 198.18.2.1/24: give one more with --source-ip"),
        (["-i", "va,va2", "-S", "198.18.0.10,198.18.7.7"], 2, "198.18.7.7 lies in no subnet"),
        (["-i", "va", "-i", "va", "-S", SPARE], 2, "va is named twice"),
        ([*BOTH, "-T", "1"], 2, "--sender-threads 2"),
        ([*BOTH, "-G", "02:00:00:00:00:01"], 2, "--gateway-mac is one interface's"),
        ([*BOTH, "--source-mac", "02:00:00:00:00:01"], 2, "--source-mac is one interface's"),
        (["-i", "va,", "-S", SPARE], 2, "no name"),
        (["-i", "va,eth7"], 4, "eth7"),
    ],
)
def test_what_does_not_fit_together_is_said_and_no_probe_leaves(
    ports: Ports, arguments: list[str], code: int, said: str
) -> None:
    before = ports.counters()
    scan = ports.pair.irlstack("scan", "10.0.0.0/24", "-p", "80", "-r", "1k", "--dad", "off", *arguments)
    assert scan.code == code, scan.stderr
    assert said in " ".join(scan.stderr.split())
    assert "Traceback" not in scan.stderr
    assert ports.counters() == before
    assert ports.attached() == []


def test_an_interface_without_a_way_to_the_targets_is_refused(ports: Ports) -> None:
    """It would take them from the other only to give them up."""
    sh("ip", "-n", ports.pair.a, "route", "del", "default", "via", "198.18.2.2")
    scan = ports.scan("10.0.0.0/24", "-p", "80", "-r", "1k")
    assert scan.code == 2, scan.stderr
    assert "va2 has no route towards 10.0.0." in " ".join(scan.stderr.split())
    assert "dev va2 metric" in " ".join(scan.stderr.split())
    assert ports.attached() == []


STACK = """
import json
import irlstack as irl

with irl.Stack(interface=["va", "va2"], source_ip=["198.18.2.10", "198.18.0.10"], rate=20_000) as stack:
    ours = [str(each) for each in stack.sources]
    try:
        stack.send([bytes(60)])
    except irl.ConfigError as error:
        said = str(error)
    runs = [stack.scan("10.0.0.0/20", ports=80, cooldown_time=0.5) for _ in range(2)]
    found = [sum(batch.num_rows for batch in run) for run in runs]
    print(json.dumps({"ours": ours, "said": said, "found": found, "info": stack.info, "repr": repr(stack)}))
"""


def test_a_stack_of_two_interfaces_scans_again_and_again(busy_ports: Ports) -> None:
    process = busy_ports.pair.start([sys.executable, "-c", STACK])
    stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 0, stderr
    found: dict[str, Any] = json.loads(stdout)
    assert found["ours"] == [SPARE, SPARE2]
    assert "open a Stack for each interface" in found["said"]
    assert found["found"] == [1 << 12, 1 << 12]
    assert found["info"]["interface"] == "va,va2"
    assert found["repr"] == f"<Stack va,va2, packet: {SPARE}, {SPARE2}>"


@pytest.mark.alone
@pytest.mark.parametrize("family", ["ipv4", "ipv6"])
def test_a_lab_of_two_pairs_has_the_same_hosts_on_both(two_pairs: Lab, family: str) -> None:
    """Without sources each interface takes its own; what is found is the World's truth."""
    targets, sources = {
        "ipv4": ("10.0.0.0/15", {"198.18.0.1", "198.18.2.1"}),
        "ipv6": ("fd00:10::/111", {"fd00:18::1", "fd00:18:2::1"}),
    }[family]
    plan = irl.Plan(targets, ports=80, rate=100_000)
    with two_pairs.enter():
        run = irl.scan(plan=plan, interface=["va", "va2"], cooldown_time=1, rows="all")
        batches = list(run)
    check = irl.World(seed=1).check(plan, batches, rows="all")
    assert (check["missed"], check["invented"]) == (0, 0)
    summary = run.summary
    assert summary["imbalances"] == []
    assert set(summary["source_ips"]) == sources
    assert all(0.4 < each["sent"] / summary["sent"] < 0.6 for each in summary["interfaces"])


@pytest.mark.alone
def test_the_servers_of_a_lab_answer_by_the_pair_they_were_asked_by(two_pairs: Lab) -> None:
    found = two_pairs.run([*IRLSTACK, "scan", "198.19.0.0/22", "-p", "80", "-r", "2k", "-c", "1", *BOTH, "--json"])
    assert found.returncode == 0, found.stderr
    document = json.loads(found.stdout.splitlines()[-1])
    assert document["found"] == 1 << 10
    assert document["stats"]["crossed"] == 0
    assert all(each["found"] > 200 for each in document["interfaces"])


@pytest.fixture(scope="module")
def two_pairs(need_root: None) -> Iterator[Lab]:
    with Lab(pairs=2) as up:
        yield up
