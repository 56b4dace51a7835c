"""Packets on disk: the sample of a run's frames, dry runs into a file, and answers judged again."""

import json
import struct
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import pytest

import irlstack as irl
from irlstack.lab.topology import Impairment
from tests import pcapng
from tests.conftest import Command

PROBES: dict[str, tuple[str, dict[str, Any]]] = {
    "tcp_synscan": ("10.2.64.0/18", {"ports": "80,443"}),
    "tcp_synscan of IPv6": ("fd00:10::3:0/114", {"ports": 80}),
    "smallest": ("10.2.64.0/19", {"ports": 80, "probe_args": {"layout": "smallest"}}),
    "icmp_echoscan": ("10.2.64.0/19", {"probe_module": "icmp_echoscan"}),
    "icmp_echoscan of IPv6": ("fd00:10::3:0/114", {"probe_module": "icmp_echoscan"}),
    "udp": ("10.33.192.0/19", {"probe_module": "udp", "ports": 53, "probe_args": {"text": "hello"}}),
    "dns": ("10.33.192.0/19", {"probe_module": "dns", "ports": 53, "probe_args": {"question": "A,www.example.com"}}),
}


def rows(run: irl.Run) -> list[tuple[Any, ...]]:
    return sorted((row for batch in run for row in zip(*batch.to_pydict().values(), strict=True)), key=repr)


@pytest.mark.parametrize("probe", PROBES)
def test_answers_from_a_sample_judged_again_give_the_same_rows(tmp_path: Path, probe: str) -> None:
    targets, more = PROBES[probe]
    source = "fd00:18::10" if ":" in targets else "198.18.0.10"
    plan = irl.Plan(targets, seed=3, rate=0, probes=2, source_ip=source, **more)
    path = tmp_path / "sample.pcapng"
    # With its payload wanted an answer comes as a whole frame, without it as a record.
    unwanted = {"cooldown"} if probe == "dns" else {"cooldown", "data"}
    fields = [each["name"] for each in irl.scan_fields() if each["name"] not in unwanted]
    told: dict[str, Any] = {"plan": plan, "rows": "all", "output_fields": fields}
    link = {"engine": "sim", "impairment": Impairment(duplicate=0.1), "cooldown_time": 0.3}
    run = irl.scan(**told, **link, capture_sample=path, capture_sample_size=200_000)
    before = rows(run)
    sample = run.summary["capture_sample"]
    assert sample["sent"]["one_in"] == sample["received"]["one_in"] == 1, "all of it"
    assert len(before) > 50
    assert sample["received"]["frames"] >= len(before)

    again = irl.scan(**told, engine=f"replay:{path}")
    assert rows(again) == before
    assert (again.summary["engine"], again.summary["unsent"], again.summary["synthetic"]) == ("replay", True, False)
    assert again.summary["imbalances"] == []
    assert again.summary["network"]["capture_frames_cut"] == 0


def test_several_workers_share_a_capture(tmp_path: Path) -> None:
    plan = irl.Plan("10.3.0.0/17", ports=80, seed=3, rate=0)
    path = tmp_path / "sample.pcapng"
    run = irl.scan(plan=plan, engine="sim", cooldown_time=0.3, capture_sample=path, capture_sample_size=100_000)
    before = rows(run)
    assert rows(irl.scan(plan=plan, engine=f"replay:{path}", sender_threads=3)) == before


def test_a_sample_is_all_of_a_share_of_the_targets(tmp_path: Path) -> None:
    path = tmp_path / "sample.pcapng"
    run = irl.scan(
        "10.0.0.0/14", ports=80, seed=3, engine="sim", rate=0, cooldown_time=0.3, capture_sample=path,
        capture_sample_size=200,
    )  # fmt: skip
    found = {row[0] for row in rows(run)}
    told, capture = run.summary["capture_sample"], pcapng.read(path)
    assert (told["path"], told["size"]) == (str(path), 200)
    assert (len(capture.sent), len(capture.received)) == (told["sent"]["frames"], told["received"]["frames"])
    assert 0 < len(capture.sent) <= 200
    assert 50 < len(capture.received) <= 200
    assert told["sent"]["one_in"] > told["received"]["one_in"] > 1
    assert f"all of 1 in {told['sent']['one_in']} targets" in capture.comment
    assert "synthetic" in capture.comment
    assert run.summary["plan_fingerprint"] in capture.comment
    assert (capture.names, capture.link_types) == (["sim"], [1])
    times = [packet.time_ns for packet in capture.packets]
    assert times == sorted(times)
    assert all(packet.comment is None for packet in capture.sent), "frames as they left"
    assert all("rebuilt" in (packet.comment or "") for packet in capture.received), "made of records"
    # Whose probe is in it and who answered, has its answer in it.
    probed = {int(IPv4Address(packet.frame[30:34])) for packet in capture.sent if packet.frame[47] == 2}
    answered = {int(IPv4Address(packet.frame[26:30])) for packet in capture.received}
    assert probed & found <= answered


def test_a_sample_of_an_exchange_has_its_dialogues(tmp_path: Path) -> None:
    path = tmp_path / "sample.pcapng"
    run = irl.exchange(
        "10.2.64.0/19", ports=80, engine="sim", rate=0, cooldown_time=0.3, reprobe=0, request=b"GET / HTTP/1.0\r\n\r\n",
        capture_sample=path, capture_sample_size=10_000,
    )  # fmt: skip
    assert run.write(tmp_path / "out.csv")["capture_sample"]["sent"]["frames"] > 0
    assert any(b"GET / HTTP/1.0" in packet.frame for packet in pcapng.read(path).sent)


def test_a_sample_that_cannot_be_written_stops_the_run_before_its_first_frame(command: Command) -> None:
    scan = ["scan", "10.0.0.0/24", "-p", "80", "--engine", "sim", "-r", "0", "-c", "0.1", "-o", "out.csv"]
    done = command(*scan, "--capture-sample", "nowhere/sample.pcapng")
    assert done.status == 4, done.err
    assert "nowhere/sample.pcapng" in done.err, done.err
    done = command(*scan, "--capture-sample", "sample.pcapng", "--capture-sample-size", "0")
    assert done.status == 2
    assert "--capture-sample-size" in done.err


def test_a_sample_is_there_however_a_run_ends(tmp_path: Path) -> None:
    path = tmp_path / "sample.pcapng"
    run = irl.scan("10.0.0.0/8", ports=80, engine="sim", rate=100_000, capture_sample=path)
    next(iter(run))
    run.stop()
    assert len(pcapng.read(path).sent) > 0


def test_a_dry_run_writes_every_frame_and_is_never_refused(command: Command, tmp_path: Path) -> None:
    # Global addresses, and no permission: nothing leaves.
    scan = ["scan", "9.9.9.0/24", "-p", "443", "-e", "5", "-r", "0", "-o", "out.csv", "-m", "meta.json"]
    done = command(*scan, "--engine", "pcap:dry.pcapng")
    assert done.status == 0, done.err
    assert "256 probes" in done.err
    assert "pcap, nothing sent" in done.err
    capture = pcapng.read(tmp_path / "dry.pcapng")
    assert "none of them left" in capture.comment
    assert capture.received == []
    plan = irl.Plan("9.9.9.0/24", ports=443, seed=5)
    planned = [row for batch in plan.targets() for row in batch.to_pydict()["address"]]
    assert [int(IPv4Address(packet.frame[30:34])) for packet in capture.sent] == planned, "in the plan's order"
    assert {packet.frame[26:30] for packet in capture.sent} == {IPv4Address("192.0.2.1").packed}
    assert {struct.unpack_from("!H", packet.frame, 36)[0] for packet in capture.sent} == {443}
    document = json.loads((tmp_path / "meta.json").read_text())
    assert (document["unsent"], document["synthetic"], document["sent"]) == (True, False, 256)
    assert not (tmp_path / "out.csv.checkpoint").exists()

    again = command(*scan, "--engine", "pcap:dry.pcapng")
    assert again.status == 2
    assert "replay:dry.pcapng" in again.err
    assert pcapng.read(tmp_path / "dry.pcapng") == capture


def test_a_dry_run_probed_nobody_as_the_ledger_has_it(command: Command, tmp_path: Path) -> None:
    assert command("plan", "10.0.0.0/28", "-p", "80", "-r", "1k", "-o", "plan.toml").status == 0
    done = command("scan", "--plan", "plan.toml", "--engine", "pcap:dry.pcapng", "-m", "meta.json")
    assert done.status == 0, done.err
    done = command("ledger", "10.0.0.3:80", ".")
    assert "was probed" not in done.out


def test_a_capture_cut_short_is_judged_up_to_there(command: Command, tmp_path: Path) -> None:
    plan = ["-p", "80", "-e", "5", "-r", "0", "-S", "198.18.0.10", "-o", "plan.toml"]
    assert command("plan", "10.2.64.0/18", *plan).status == 0

    def found(engine: str, *more: str) -> tuple[int, str, set[str]]:
        scan = ["scan", "--plan", "plan.toml", "-f", "saddr", "-c", "0.3", "-m", "meta.json", "-o", "out.csv"]
        done = command(*scan, "--engine", engine, *more)
        return done.status, done.err, set((tmp_path / "out.csv").read_text().split()[1:])

    _, _, whole = found("sim", "--capture-sample", "all.pcapng", "--capture-sample-size", "1000000")
    data = (tmp_path / "all.pcapng").read_bytes()
    middle = len(data) // 2
    (tmp_path / "cut.pcapng").write_bytes(data[: middle - 1])
    status, err, few = found("replay:cut.pcapng")
    assert status == 0, err
    assert "ends within a packet" in err
    assert 0 < len(few) < len(whole)
    assert few < whole
    assert json.loads((tmp_path / "meta.json").read_text())["network"]["capture_ends_cut"] == 1

    (tmp_path / "bad.pcapng").write_bytes(data[:middle] + b"\x07" * 4000 + data[middle:])
    status, err, few = found("replay:bad.pcapng")
    assert status == 5, err
    assert "cannot be read on" in err
    assert "The rows until then are kept." in err
    assert few < whole

    (tmp_path / "none.pcapng").write_text("saddr\n10.0.0.1\n")
    done = command("scan", "--plan", "plan.toml", "--engine", "replay:none.pcapng")
    assert done.status == 2
    assert "is no capture" in done.err


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--engine", "pcap"], "pcap:FILE writes"),
        (["--engine", "replay:"], "replay:FILE judges"),
        (["--engine", "replay:nowhere.pcapng"], "nowhere.pcapng"),
        (["--engine", "pcap:x.pcapng", "-i", "lo"], "no interface to choose"),
    ],
)
def test_what_cannot_be_is_refused(command: Command, more: list[str], said: str) -> None:
    done = command("scan", "10.0.0.0/28", "-p", "80", "-r", "1k", *more)
    assert done.status in (2, 4), done.err
    assert said in done.err, done.err


def test_a_capture_answers_no_request(tmp_path: Path) -> None:
    path = tmp_path / "dry.pcapng"
    list(irl.scan("10.0.0.0/28", ports=80, engine=f"pcap:{path}", rate=0))
    with pytest.raises(irl.ConfigError, match="answers no request"):
        list(irl.exchange("10.0.0.0/28", ports=80, engine=f"replay:{path}", rate=0))
