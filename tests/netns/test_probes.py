"""Probes against kernels and servers: who resets a SYN-ACK, who answers a question, and a probe declared by a user."""

import struct
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from typing import Any

import polars as pl
import pytest

import irlstack as irl
from irlstack.lab import Lab
from tests.netns.conftest import CLIENT, CLIENT6, SPARE, SPARE6

WORLD = irl.World(seed=1)

# Servers of DNS and NTP in a few lines, each with a habit of its own by its address.
SERVERS = r"""
import selectors, socket, sys
selector = selectors.DefaultSelector()
for host in range(1, 7):
    for family, address in ((socket.AF_INET, f"198.19.7.{host}"), (socket.AF_INET6, f"fd00:19::7:{host}")):
        for port in (53, 123):
            server = socket.socket(family, socket.SOCK_DGRAM)
            # IPV6_FREEBIND: the whole prefix is local, and no address of it an interface's own.
            family == socket.AF_INET6 and server.setsockopt(socket.IPPROTO_IPV6, 78, 1)
            server.bind((address, port))
            selector.register(server, selectors.EVENT_READ, (host, port))
print("ready", flush=True)
while True:
    for key, _ in selector.select():
        (host, port), server = key.data, key.fileobj
        asked, client = server.recvfrom(2048)
        if port == 123:
            time = asked[40:48] if host < 5 else bytes(8)
            server.sendto(bytes([0x24, host]) + bytes(22) + time + bytes(16), client)
            continue
        rcode = {1: 0, 2: 3, 3: 5}.get(host, 0)
        id = asked[:2] if host < 5 else bytes([asked[0] ^ 1, asked[1]])
        answer = id + bytes([asked[2] | 0x80, rcode]) + asked[4:]
        server.sendto(asked if host == 4 else answer, client)
"""


@pytest.fixture(scope="module")
def servers(lab: Lab) -> Iterator[None]:
    with lab.start([sys.executable, "-c", SERVERS], role="servers", stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            yield
        finally:
            process.kill()


def scan(lab: Lab, plan: irl.Plan, **options: Any) -> tuple[irl.Run, pl.DataFrame]:
    with lab.enter():
        run = irl.scan(plan=plan, interface="va", cooldown_time=0.5, **options)
        rows = pl.concat([pl.DataFrame(batch) for batch in run])
    assert run.summary["imbalances"] == []
    return run, rows


@pytest.mark.parametrize(
    ("targets", "source"),
    [("198.19.0.0/24", SPARE), ("198.19.0.0/24", CLIENT), ("fd00:19::/120", SPARE6), ("fd00:19::/120", CLIENT6)],
    ids=["IPv4", "IPv4 of the host", "IPv6", "IPv6 of the host"],
)
def test_a_kernel_resets_a_syn_ack_whether_its_port_is_open_or_not(lab: Lab, targets: str, source: str) -> None:
    plan = irl.Plan(targets, ports="80,81", probe_module="tcp_synackscan", source_ip=[source], rate=10_000)
    run, rows = scan(lab, plan, rows="all")
    assert Counter(zip(rows["classification"], rows["sport"], strict=True)) == {("rst", 80): 256, ("rst", 81): 256}
    assert rows["success"].all()
    assert run.stats["resets_sent"] == 0


@pytest.mark.alone
@pytest.mark.parametrize(
    ("targets", "source"),
    [("10.0.0.0/14", SPARE), ("fd00:10::/110", SPARE6), ("172.16.0.0/15", SPARE)],
    ids=["IPv4", "IPv6", "user space"],
)
def test_the_worlds_hosts_do_as_kernels_do(lab: Lab, targets: str, source: str) -> None:
    plan = irl.Plan(targets, ports=80, probe_module="tcp_synackscan", source_ip=[source], rate=100_000)
    with lab.enter():
        batches = list(irl.scan(plan=plan, interface="va", cooldown_time=1, rows="all"))
    check = WORLD.check(plan, batches, rows="all")
    assert (check["missed"], check["invented"]) == (0, 0)
    assert check["found"] > 500


@pytest.mark.parametrize(("targets", "source"), [("198.19.7.0/29", SPARE), ("fd00:19::7:0/125", SPARE6)])
def test_a_dns_server_is_told_from_what_merely_answers(lab: Lab, servers: None, targets: str, source: str) -> None:
    plan = irl.Plan(targets, ports=53, probe_module="dns", source_ip=[source], rate=1000)
    fields = ["saddr", "classification", "success", "icmp_type", "data", "icmp_responder", "udp_len", "app_success"]
    _, rows = scan(lab, plan, rows="all", output_fields=[*fields, "dns_qr", "dns_rcode", "dns_qdcount"])
    last = (
        rows["saddr"]
        if rows.schema["saddr"] == pl.UInt32
        else rows["saddr"].bin.slice(12).bin.reinterpret(dtype=pl.UInt32, endianness="big")
    )
    kinds = dict(zip((each & 7 for each in last), rows["classification"], strict=True))
    answered = {1: "dns", 2: "dns_nxdomain", 3: "dns_refused", 4: "udp", 5: "udp", 6: "udp"}
    # Nobody is at the first and last address, and the kernel says so as often as it likes to.
    assert kinds == answered | {host: "icmp" for host in kinds if host in (0, 7)}
    assert rows.filter(pl.col("classification").str.starts_with("dns"))["success"].all()
    assert not rows.filter(~pl.col("classification").str.starts_with("dns"))["success"].any()
    assert all(data.endswith(b"\x07example\x03com\0\0\x01\0\x01") for data in rows["data"].drop_nulls())
    # ZMap's fields say of each what its class does.
    codes = dict(zip(rows["classification"], rows["dns_rcode"], strict=True))
    assert (codes["dns"], codes["dns_nxdomain"], codes["dns_refused"]) == (0, 3, 5)
    assert rows["app_success"].to_list() == [kind == "dns" for kind in rows["classification"]]
    assert rows["udp_len"].to_list() == [None if data is None else 8 + len(data) for data in rows["data"]]
    datagrams = rows.filter(pl.col("data").is_not_null())
    assert set(datagrams["dns_qdcount"]) == {1}
    assert datagrams.filter(pl.col("success"))["dns_qr"].sum() == 3
    assert datagrams["icmp_responder"].null_count() == datagrams.height
    assert rows.filter(pl.col("data").is_null())["icmp_responder"].null_count() == 0


def test_a_time_server_repeats_what_it_was_sent(lab: Lab, servers: None) -> None:
    plan = irl.Plan("198.19.7.1-198.19.7.6", ports=123, probe_module="ntp", source_ip=[SPARE], rate=1000)
    _, rows = scan(lab, plan, rows="all")
    assert Counter(rows["classification"]) == {"ntp": 4, "udp": 2}
    fields = ["saddr", "stratum", "LI_VN_MODE", "udp_len"]
    with pytest.raises(irl.ConfigError, match="one of the probe dns, and this is ntp"):
        scan(lab, plan, output_fields=fields)
    _, rows = scan(lab, plan, output_fields=fields[:3], output_filter="success = 1 && stratum > 1")
    assert sorted(rows["stratum"]) == [2, 3, 4]
    assert {mode & 7 for mode in rows["LI_VN_MODE"]} == {4}


def stratum(batch: irl.Batch) -> dict[str, object]:
    payloads = batch.to_pydict()["data"]
    return {"stratum": [None if data is None else data[1] for data in payloads]}


@pytest.mark.parametrize("source", [SPARE, CLIENT])
def test_a_probe_of_ones_own_and_its_program(lab: Lab, servers: None, source: str) -> None:
    time = irl.Probe(
        "time",
        protocol="udp",
        template=struct.pack("!B47x", 0x23),
        patches=["payload[40:8] = cookie"],
        match=["+time: payload[24:4] == cookie>>32, payload[28:4] == cookie"],
        fields=["stratum uint8"],
        parse=stratum,
    )
    plan = irl.Plan("198.19.7.1-198.19.7.6", ports=123, probe_module=time, source_ip=[source], rate=1000)
    run, rows = scan(lab, plan, rows="all")
    assert sorted(rows["stratum"]) == [1, 2, 3, 4]
    # Two do not repeat what they were sent: in the kernel they count as strangers'.
    assert run.summary["filter"]["bad_cookie"] == 2


@pytest.mark.parametrize(("targets", "source"), [("198.19.0.0/25", CLIENT), ("fd00:19::/121", SPARE6)])
def test_an_ack_scan_of_ones_own(lab: Lab, targets: str, source: str) -> None:
    header = bytes(12) + struct.pack("!BBHHH", 0x50, 0x10, 0xFFFF, 0, 0)
    probe = irl.Probe(
        "ackscan",
        protocol="tcp",
        template=header,
        patches=["transport[4:4] = cookie>>32", "transport[8:4] = cookie"],
        match=["+rst: transport[13] & 0x04 == 0x04, transport[4:4] == cookie"],
    )
    plan = irl.Plan(targets, ports="80,81", probe_module=probe, source_ip=[source], rate=10_000)
    _, rows = scan(lab, plan)
    assert len(rows) == 256
