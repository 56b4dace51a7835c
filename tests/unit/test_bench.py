"""What `irlstack bench` does before and after it measures: arguments, peers, figures, the plot. Nothing is sent."""

import ipaddress
import json
import os
import struct
from pathlib import Path
from typing import Any

import pytest

from irlstack.bench import batches, clients, document, far_end, figures, ground, loops, peers, plot, rounds, rx, tcp
from irlstack.errors import ConfigError, EngineError
from tests.conftest import Command


def test_batch_sizes_are_read_in_order_and_once() -> None:
    assert batches.parse("256, 1,16,1") == [256, 1, 16]
    assert batches.parse("all") == [1, 2, 4, 8, 16, 32, 64, 128, 256]


@pytest.mark.parametrize("text", ["0", "257", "1,,2", "", "many", "-1", "1.5"])
def test_what_is_no_batch_size_is_refused_by_name(text: str) -> None:
    with pytest.raises(ConfigError, match="is no batch size; write numbers from 1 to 256"):
        batches.parse(text)


def test_a_call_is_as_busy_as_its_time_without_its_idle_turns() -> None:
    # 2 s of silence, 100 ns a turn; then 1 s of which 4 million idle turns took 0.4 s, and 2 million frames the rest.
    network = {
        "live_quiet_turns": 20_000_000,
        "live_quiet_ns": 2_000_000_000,
        "live_call_ns": 3_000_000_000,
        "live_idle_turns": 24_000_000,
        "live_frames": 2_000_000,
    }
    assert batches.usage(network) == pytest.approx((0.6, 300.0, 100.0))
    # Idle turns of the busy time that would have taken longer than it lasted: noise, and nothing below 0 comes of it.
    assert batches.usage(network | {"live_idle_turns": 40_000_000})[:2] == (0, 0)


@pytest.mark.parametrize("lacking", ["live_quiet_turns", "live_frames", "live_call_ns"])
def test_calls_that_never_ran_or_never_idled_are_said(lacking: str) -> None:
    network = {"live_quiet_turns": 1, "live_quiet_ns": 1, "live_call_ns": 3, "live_idle_turns": 1, "live_frames": 1}
    with pytest.raises(EngineError, match="give more --seconds"):
        batches.usage(network | {lacking: 0})
    with pytest.raises(EngineError):
        batches.usage({})


def test_a_spread_is_median_least_and_most() -> None:
    assert figures.spread([5.0, 1.0, 2.0, 4.0]) == {"median": 3.0, "min": 1.0, "max": 5.0}


def test_ratios_are_taken_inside_a_round() -> None:
    # A machine that was twice as slow in round 2 changes no ratio.
    rates = {"ours": [40.0, 20.0], "theirs": [10.0, 5.0], "silent": [0.0, 1.0]}
    assert figures.ratios(rates, ["ours", "absent"]) == {"ours": {"theirs": {"median": 4.0, "min": 4.0, "max": 4.0}}}


@pytest.mark.parametrize(("limit", "least", "most"), [(60_000, 54_000, 60_000), (10_000, None, None)])
def test_the_highest_rate_that_fits_is_closed_in_on(limit: int, least: int | None, most: int | None) -> None:
    tried = []

    def fits(rate: int) -> bool:
        tried.append(rate)
        return rate <= limit

    best = figures.highest(fits, 20_000, 400_000, 5)
    assert len(tried) == 5
    if least is None or most is None:
        assert best is None
    else:
        assert best is not None
        assert least <= best <= most


def test_nobody_always_follows_the_same_one() -> None:
    turns = list(rounds.interleaved(["a", "b", "c"], 3))
    assert sorted(turns) == [(number, name) for number in (1, 2, 3) for name in "abc"]
    assert {turns[3 * number][1] for number in range(3)} == {"a", "b", "c"}


def test_a_flight_lasts_from_before_the_first_frames_to_after_the_last() -> None:
    neighbours = [(0.0, 0), (0.1, 3)]
    flight = [(0.2, 3), (0.3, 5_003), (0.4, 9_003)]
    assert far_end.flight_s([*neighbours, *flight, (0.5, 9_003), (0.6, 9_010)]) == pytest.approx(0.2)
    with pytest.raises(EngineError, match="No frames arrived"):
        far_end.flight_s(neighbours)


def test_who_ends_early_is_measured_until_it_runs_dry() -> None:
    flying = [(0.0, 0), (0.1, 1_000), (0.2, 2_000)]
    assert far_end.last_in_full_flight(flying) == (0.2, 2_000)
    assert far_end.last_in_full_flight([*flying, (0.3, 2_100), (0.4, 2_100)]) == (0.2, 2_000)
    assert far_end.last_in_full_flight([(0.0, 7), (0.1, 7)]) == (0.0, 7)


def test_the_deny_list_is_of_300_prefixes_of_what_is_scanned() -> None:
    denied = [ipaddress.ip_network(each) for each in ground.denied()]
    assert len(set(denied)) == 300
    assert all(each.subnet_of(ipaddress.ip_network("10.0.0.0/8")) for each in denied)  # type: ignore[arg-type]
    assert len({each.network_address.packed[1] for each in denied}) == 256, "scattered"


def pcap(packets: int, magic: int = 0xA1B2C3D4) -> bytes:
    records = b"".join(struct.pack("=IIII", 0, 0, length, 60) + bytes(length) for length in range(packets))
    return struct.pack("=IHHiIII", magic, 2, 4, 0, 0, 64, 1) + records


@pytest.mark.parametrize("magic", [0xA1B2C3D4, 0xA1B23C4D])
def test_whole_packets_of_a_capture_are_counted(tmp_path: Path, magic: int) -> None:
    path = tmp_path / "answers.pcap"
    path.write_bytes(pcap(10, magic))
    assert rx.packets_in(path) == 10
    path.write_bytes(pcap(10, magic)[:-1])
    assert rx.packets_in(path) == 9, "the last one was cut off"
    path.write_bytes(pcap(0, magic))
    assert rx.packets_in(path) == 0


@pytest.mark.parametrize("content", [b"", b"saddr,daddr\n", pcap(3, 0xD4C3B2A1)])
def test_what_is_no_capture_is_said(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "answers.pcap"
    path.write_bytes(content)
    with pytest.raises(EngineError, match="is no pcap file"):
        rx.packets_in(path)


def tool(folder: Path, name: str, said: str, status: int = 0) -> None:
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text(f"#!/bin/sh\nprintf '%s\\n' '{said}'\nexit {status}\n")
    path.chmod(0o755)


def test_peers_are_found_in_peers_dir_before_path(tmp_path: Path) -> None:
    tool(tmp_path / "own", "zmap", "zmap 4.3.4")
    tool(tmp_path / "system", "zmap", "zmap 2.1.1")
    tool(tmp_path / "system", "masscan", "Masscan version 1.3.2 ( https://example.org )", status=1)
    folders = {"PEERS_DIR": str(tmp_path / "own"), "PATH": str(tmp_path / "system") + ":/bin"}
    found, missing = peers.find(["zmap", "masscan"], folders)
    assert {name: peer.version for name, peer in found.items()} == {"zmap": "4.3.4", "masscan": "1.3.2"}
    assert found["zmap"].path == tmp_path / "own" / "zmap"
    assert missing == {}


def test_a_peer_that_is_missing_old_or_broken_is_left_out_with_the_reason(tmp_path: Path) -> None:
    tool(tmp_path, "zmap", "zmap 2.1.1")
    (tmp_path / "tcpdump").write_bytes(b"\x7fELF, but no program")
    (tmp_path / "tcpdump").chmod(0o755)
    found, missing = peers.find(["zmap", "masscan", "tcpdump"], {"PEERS_DIR": str(tmp_path), "PATH": "/nowhere"})
    assert found == {}
    assert "2.1.1 is older than ZMap 4" in missing["zmap"]
    assert missing["masscan"] == "there is no masscan in PEERS_DIR or PATH"
    assert "does not run" in missing["tcpdump"]


@pytest.mark.parametrize(
    ("version", "fit"),
    [
        ("4.0.0", True),
        ("4.3.4", True),
        ("Development Build. Commit 8de8833 - Thu Apr 30 23:04:25 2026 -0600", True),
        ("Development Build. Commit 1234567 - Mon Mar 2 10:00:00 2020 -0500", False),
        ("3.0.0-RC1", False),
        ("unknown", False),
    ],
)
def test_zmap_is_a_peer_from_version_4_on(version: str, fit: bool) -> None:
    assert (peers.too_old(version) is None) == fit


def test_every_work_has_an_answer_to_its_request_that_fits_a_frame() -> None:
    assert {name: (len(work.request), work.reply) for name, work in tcp.WORKS.items()} == {
        "rst": (100, 100),
        "fin": (100, 100),
        "gnutella": (80, 266),
    }


def test_processes_that_share_the_hosts_meet_no_host_twice() -> None:
    ours = [{clients.host(number) for number in range(first, 20_000, 2)} for first in (0, 1)]
    assert not ours[0] & ours[1]
    assert len(ours[0] | ours[1]) == 20_000
    assert {host.partition(".")[0] for host in ours[0]} == {"10"}


def test_rows_that_say_success_are_counted_and_the_others_too(tmp_path: Path) -> None:
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "rows.parquet"
    parquet.write_table(pyarrow.table({"status": ["success", "connection-timeout", "success"]}), path)
    assert tcp.rows_in(path) == (2, 1)
    parquet.write_table(pyarrow.table({"saddr": [1]}), path)
    for nothing in (path, tmp_path / "nowhere.parquet"):
        with pytest.raises(EngineError, match="has no rows of an exchange"):
            tcp.rows_in(nothing)


def test_peers_scan_a_twelfth_bit_at_most() -> None:
    assert loops.peer_prefix("10.0.0.0/8") == "10.0.0.0/12"
    assert loops.peer_prefix("10.64.0.0/10") == "10.64.0.0/12"
    assert loops.peer_prefix("10.64.0.0/14") == "10.64.0.0/14"


MISTAKES = [
    (["tx", "--rounds", "0"], "--rounds 0 cannot be"),
    (["tx", "--rounds", "two"], "two"),
    (["tx", "--seconds", "0"], "--seconds 0 cannot be"),
    (["tx", "--seconds", "nan"], "--seconds nan cannot be"),
    (["tx", "--seconds", "3600"], "from 0.1 to 60 s"),
    (["tx", "--only", "carrier pigeon"], "there is no such contender; there are scan (live), "),
    (["tx", "--batches", "0"], "is no batch size"),
    (["tx", "--batches", "1", "--only", "raw socket"], "leave --only out"),
    (["tx", "--plot", "f.svg"], "give --batches too"),
    (["tx", "--batches", "1", "--plot", "f.doc"], "the suffix says how to draw"),
    (["tx", "--batches", "1", "--plot", "nowhere/f.svg"], "there is no folder nowhere"),
    (["scan", "10.0.0.0/16"], "is said with --prefix"),
    (["scan", "--prefix", "10.0.0.1/10"], "has host bits set"),
    (["scan", "--prefix", "192.168.0.0/16"], "the hosts that answer are those of 10.0.0.0/8"),
    (["scan", "--prefix", "10.0.0.0/17"], "over before it can be measured"),
    (["scan", "--zmap-rate", "0"], "give at least 1"),
    (["scan", "--zmap-rate", "fast"], "is not a number"),
    (["tcp", "10.0.0.0/16"], "is said with --prefix"),
    (["tcp", "--prefix", "192.168.0.0/16"], "the hosts that answer are those of 10.0.0.0/8"),
    (["tcp", "--work", "both"], "there is no such work; there are rst, fin, gnutella"),
    (["tcp", "--only", "carrier pigeon"], "there is no such contender; there are "),
    (["rx", "--rate", "0"], "--rate 0 cannot be"),
    (["rx", "--rate", "10M"], "no more than the 16,777,216 hosts there are"),
    (["rx", "--seconds", "-1"], "--seconds -1 cannot be"),
    (["upload"], "upload"),
]


@pytest.mark.parametrize(("arguments", "said"), MISTAKES, ids=[" ".join(arguments) for arguments, _ in MISTAKES])
def test_wrong_arguments_are_said_before_anything_is_measured(
    command: Command, arguments: list[str], said: str
) -> None:
    done = command("bench", *arguments)
    assert done.status == 2
    assert said in " ".join(done.err.split())
    assert done.out == ""


@pytest.mark.parametrize("arguments", [["tx"], ["tx", "--batches", "1"], ["scan"], ["rx"]], ids=" ".join)
def test_without_root_nothing_begins(command: Command, monkeypatch: pytest.MonkeyPatch, arguments: list[str]) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    done = command("bench", *arguments)
    assert done.status == 4
    assert f"needs root: sudo irlstack bench {arguments[0]}" in " ".join(done.err.split())


def test_a_contender_that_is_missing_here_cannot_be_asked_for() -> None:
    with pytest.raises(ConfigError, match="--only ZMap: it cannot be measured here: there is no zmap"):
        rounds.chosen({}, {"zmap": "there is no zmap in PEERS_DIR or PATH"}, ["ZMap"])


def test_a_document_says_where_with_what_and_what_was_missing() -> None:
    out = document.begin("tx", {"zmap": "4.3.4"}, {"masscan": "there is none"}, {"rounds": 1})
    assert json.loads(json.dumps(out)) == out
    assert out["version"] == 1
    assert set(out["versions"]) == {"irlstack", "python", "zmap"}
    assert out["missing"] == {"masscan": "there is none"}
    assert set(out["machine"]) == {"cpu", "cores", "kernel"}


def drawn(factor: float) -> dict[str, Any]:
    def spread(middle: float) -> figures.Spread:
        return figures.spread([middle * 0.9, middle, middle * 1.1])

    sizes = {1: 1.0e6, 16: 3.0e6, 256: 4.0e6}
    return {
        "machine": {"cpu": "a processor", "cores": 2, "kernel": "6.1"},
        "batches": [
            {"batch": size, "rate": spread(rate * factor), "busy_ns_a_frame": spread(1e9 / rate)}
            for size, rate in sizes.items()
        ],
    }


def test_the_plot_is_the_same_for_the_same_figures_and_names_the_machine(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    paths = [tmp_path / name for name in ("one.svg", "same.svg", "other.svg")]
    for path, factor in zip(paths, (1.0, 1.0, 2.0), strict=True):
        plot.check(path)
        plot.draw(drawn(factor), path)
    one, same, other = (path.read_text() for path in paths)
    assert one == same != other
    assert "a processor, 2 cores, Linux 6.1" in one
    assert "frames a batch" in one
