"""Scans in somebody's own namespace against their own responder, where every host answers: nothing is missed."""

from collections.abc import Callable
from pathlib import Path

import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from tests.netns.conftest import GATEWAY, SPARE, SPARE6, Pair, Scan, sh

HOSTS = 1 << 20


def check(scan: Scan, output: Path, hosts: int = HOSTS) -> None:
    assert scan.code == 0, scan.stderr
    document = scan.document
    print(f"{document['sent']} sent, {document['found']} found, {document['send_rate']:.0f}/s")
    assert document["found"] == hosts
    assert document["sent"] == hosts
    assert document["engine"] == "packet"
    assert document["elapsed_s"] > 0
    rows = pq.read_table(output)
    assert rows.num_rows == hosts
    assert pc.count_distinct(rows["saddr"]).as_py() == hosts
    assert set(rows["classification"].unique().to_pylist()) == {"synack"}


@pytest.mark.alone
def test_a_12_at_100k_finds_every_host(everybody: Pair, tmp_path: Path) -> None:
    output = tmp_path / "out.parquet"
    before = everybody.counters("a")
    scan = everybody.scan("10.0.0.0/12", "-p", "80", "-G", everybody.mac_b, "-r", "100k", "-c", "2", "-o", str(output))
    check(scan, output)
    everybody.conserved(scan.document, before)


@pytest.mark.alone
def test_a_12_as_fast_as_packets_leave_finds_every_host(everybody: Pair, tmp_path: Path) -> None:
    output = tmp_path / "out.parquet"
    before = everybody.counters("a")
    arguments = [
        "10.0.0.0/12",
        "-p",
        "80",
        "-G",
        everybody.mac_b,
        "-r",
        "0",
        "--engine",
        "packet",
        "-c",
        "2",
        "-o",
        str(output),
    ]
    scan = everybody.scan(*arguments)
    check(scan, output)
    everybody.conserved(scan.document, before)


@pytest.mark.alone
def test_an_ipv6_108_is_reached_by_neighbour_discovery(
    make_pair: Callable[..., Pair], build_peer: Callable[..., Path], tmp_path: Path
) -> None:
    pair = make_pair(ipv6=True)
    pair.peer(build_peer())
    output = tmp_path / "out.parquet"
    arguments = ["fd00::/108", "-p", "80", "-i", "va", "-S", SPARE6, "-r", "100k", "-c", "2", "--json"]
    arguments += ["-o", str(output)]
    check(pair.irlstack("scan", *arguments), output)


def test_a_source_mac_is_in_the_frames_and_answers_still_find_the_way(everybody: Pair) -> None:
    mac = "02:00:00:00:be:ef"
    scan = everybody.scan(GATEWAY, "-M", "icmp_echoscan", "--source-mac", mac, "-r", "10", "-c", "1")
    assert scan.code == 0, scan.stderr
    assert scan.document["found"] == 1
    assert scan.document["source_mac"] == mac
    assert scan.document["first_frame"][12:24] == mac.replace(":", "")
    known = sh("ip", "-n", everybody.b, "neigh", "show", SPARE)
    assert everybody.mac_a in known, "what the neighbour was told is where answers arrive"


@pytest.mark.parametrize("wrong", ["01:00:00:00:00:01", "ff:ff:ff:ff:ff:ff", "00:00:00:00:00:00", "02:00"])
def test_a_source_mac_that_is_no_machines_is_refused(make_pair: Callable[..., Pair], wrong: str) -> None:
    scan = make_pair().scan("10.0.0.0/24", "-p", "80", "--source-mac", wrong, "-r", "10")
    assert scan.code == 2
    assert wrong in scan.stderr


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_other_formats_hold_every_row_too(everybody: Pair, tmp_path: Path, suffix: str) -> None:
    output = tmp_path / f"out.{suffix}"
    scan = everybody.scan("10.0.0.0/18", "-p", "80", "-r", "50k", "-c", "1", "-o", str(output))
    assert scan.code == 0, scan.stderr
    lines = output.read_text().splitlines()
    assert len(lines) == (1 << 14) + (suffix == "csv")
    assert sum('10.0.33.7"' in line or line.startswith("10.0.33.7,") for line in lines) == 1


def test_without_an_output_the_hosts_are_lines_on_stdout(everybody: Pair) -> None:
    scan = everybody.irlstack(
        "scan", "10.0.0.0/24", "-p", "80", "-r", "10k", "-c", "1", "-i", "va", "-S", "198.18.0.10"
    )
    assert scan.code == 0, scan.stderr
    assert sorted(scan.stdout.split()) == sorted(f"10.0.0.{last}" for last in range(256))
