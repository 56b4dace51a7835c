"""Exchanges with the simulated Internet, from Python: rows against its truth, and what their reader can ask of them."""

import asyncio
import re
import threading
import time
from pathlib import Path
from typing import Any

import polars as pl
import pytest

import irlstack as irl
from irlstack.lab import Impairment

WORLD = irl.World(seed=1)
OPEN = irl.World(seed=1, everything_open=True)
GET = b"GET / HTTP/1.0\r\n\r\n"


def exchange(*targets: str, **options: Any) -> irl.Run:
    given = {"engine": "sim", "ports": 80, "rate": 200_000, "seed": 7, "cooldown_time": 0.3, "request": GET} | options
    return irl.exchange(*targets, **given)


def rows(run: irl.Run) -> list[dict[str, Any]]:
    return pl.DataFrame(run).to_dicts()


def test_each_target_that_answers_is_a_row_that_says_what_is_so() -> None:
    run = exchange("10.11.0.0/17", world=WORLD, rows="all", reprobe=0)
    said = rows(run)
    assert len({row["saddr"] for row in said}) == len(said) == 1 << 15
    words = {"open": "success", "duplicate": "success", "middlebox": "success", "closed": "connection-refused"}
    words |= {"filtered": "unknown-error", "absent": "connection-timeout", "wrong_ack": "connection-timeout"}
    for row in said[::7]:
        truth = WORLD.truth_of(f"10.11.{row['saddr'] >> 8 & 255}.{row['saddr'] & 255}", 80)
        assert words[truth["class"].replace("-", "_")] == row["status"], (row, truth)
    answered = [row for row in said if row["status"] == "success"]
    assert all(
        row["response"].startswith(b"HTTP/1.0 200 OK") and row["bytes"] == len(row["response"]) for row in answered
    )
    assert run.summary["imbalances"] == []
    assert run.summary["connections"] == run.summary["exchanged"] == len(answered) > 0
    assert run.summary["request"] == GET.hex()
    assert (run.summary["until"], run.summary["close"], run.summary["rows_selected"]) == ("close", "rst", "all")


def test_text_is_a_template_and_bytes_are_as_they_are() -> None:
    for request in ("{address}:{port}", b"{address}"):
        run = exchange("10.0.0.0/28", world=OPEN, request=request)
        assert {row["status"] for row in rows(run)} == {"success"}
        assert run.summary["request_is_template"] == isinstance(request, str)
    with pytest.raises(irl.ConfigError, match=r"there is no \{hots\}"):
        list(exchange("10.0.0.0/28", world=OPEN, request="{hots}"))


@pytest.mark.parametrize(
    ("until", "end"), [(5, b"HTTP/"), (b"\r\n", b"HTTP/1.0 200 OK\r\n"), ("OK", b"HTTP/1.0 200 OK")]
)
def test_a_response_ends_where_it_is_told_to(until: str | int | bytes, end: bytes) -> None:
    said = rows(exchange("10.0.0.0/26", world=OPEN, until=until, close="fin"))
    assert [row["response"] for row in said] == [end] * 64


def test_columns_are_those_asked_for() -> None:
    run = exchange("10.0.0.0/28", world=OPEN, output_fields=["saddr", "status"])
    assert pl.DataFrame(run).columns == ["saddr", "status"]
    with pytest.raises(irl.ConfigError, match="no output field 'seqnum'"):
        list(exchange("10.0.0.0/28", world=OPEN, output_fields=["seqnum"]))


def test_a_bad_link_loses_no_exchange() -> None:
    bad = Impairment(loss=0.05, duplicate=0.05, reorder=0.1, delay_ms=1, seed=3)
    run = exchange("10.0.0.0/22", world=OPEN, impairment=bad, rate=20_000, reprobe=5, cooldown_time=1.2, timeout=60)
    said = rows(run)
    assert [row["status"] for row in said] == ["success"] * 1024
    assert all(row["response"].endswith(b"</p>\n") for row in said)
    assert any(row["retransmits"] for row in said)


def test_who_stops_reading_stops_the_run_and_resets_its_connections() -> None:
    run = exchange("10.0.0.0/14", world=OPEN, impairment=Impairment(delay_ms=100), rate=50_000)
    for _ in run:
        break
    stats = run.stats
    assert stats["connections_aborted"] > 0
    assert stats["connections_opened"] == sum(
        stats[f"connections_{how}"]
        for how in ("reset", "finished", "reset_by_peer", "timed_out", "unreachable", "aborted")
    )


def test_async_readers_get_the_same_rows() -> None:
    async def read() -> int:
        return sum([len(pl.DataFrame(batch)) async for batch in exchange("10.0.0.0/22", world=OPEN)])

    assert asyncio.run(read()) == 1024


def test_exchanges_and_scans_run_beside_each_other_on_a_stack() -> None:
    with irl.Stack.simulated(OPEN) as stack:
        plan = {"ports": 80, "rate": 50_000, "cooldown_time": 0.2, "source_ip": "198.18.0.10"}
        talk = stack.exchange("10.0.0.0/22", request=GET, source_port="61000-61999", **plan)
        scan = stack.scan("10.0.0.0/22", source_port="62000-62999", **plan)
        assert len(pl.DataFrame(talk)) == len(pl.DataFrame(scan)) == 1024


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"until": 0}, "until is 1 or more"),
        ({"until": b""}, "at least one byte"),
        ({"close": "maybe"}, '"rst" or "fin"'),
        ({"rows": "some"}, '"success", "answered" or "all"'),
        ({"probe_module": "icmp_echoscan", "ports": None}, "begins with the probe tcp_synscan"),
        ({"probes": 2}, "give --reprobe instead"),
        ({"max_memory": 1 << 20}, "give --max-memory as much"),
        ({"max_bytes": -1}, "max_bytes = -1 cannot be"),
    ],
)
def test_what_cannot_be_is_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(irl.ConfigError, match=said):
        list(exchange("10.0.0.0/28", world=OPEN, **options))


def listed(tmp_path: Path) -> Path:
    table = pl.DataFrame(
        {
            "saddr": [f"10.2.0.{number}" for number in range(64)],
            "name": [f"n{number}" for number in range(64)],
            "ask": [f"ask {number}".encode() for number in range(64)],
        }
    )
    table.write_parquet(tmp_path / "list.parquet")
    table.select("saddr", "name").write_csv(tmp_path / "list.csv")
    return tmp_path


@pytest.mark.parametrize("source", ["parquet", "csv", "bytes", "table"])
def test_the_targets_of_a_list_are_rows_with_their_further_columns(tmp_path: Path, source: str) -> None:
    folder = listed(tmp_path)
    table = pl.read_parquet(folder / "list.parquet")
    given: dict[str, Any] = {
        "parquet": {"list_of_ips_file": folder / "list.parquet"},
        "csv": {"list_of_ips_file": str(folder / "list.csv")},
        "bytes": {"list_of_ips_file": (folder / "list.csv").read_bytes()},
        "table": {},
    }[source]
    targets = [table] if source == "table" else []
    run = exchange("10.0.0.0/8", *targets, world=OPEN, **given)
    said = rows(run)
    assert sorted(row["name"] for row in said) == sorted(table["name"])
    assert {row["status"] for row in said} == {"success"}
    assert all(row["saddr"] & 255 == int(row["name"][1:]) for row in said)
    assert run.summary["list"]["targets"] == 64


def test_what_a_list_says_is_written_to_files_too(tmp_path: Path) -> None:
    run = exchange(
        "10.0.0.0/8", world=OPEN, list_of_ips_file=listed(tmp_path) / "list.parquet", request_column="ask", request=b""
    )
    run.write(tmp_path / "rows.parquet")
    written = pl.read_parquet(tmp_path / "rows.parquet")
    assert written.height == 64
    assert {"response", "name"} < set(written.columns)


def test_a_list_that_cannot_be_is_refused(tmp_path: Path) -> None:
    with pytest.raises(irl.ConfigError, match="one of a list"):
        exchange("10.0.0.0/8", world=OPEN, request_column="ask", request=b"")
    with pytest.raises(FileNotFoundError):
        list(exchange("10.0.0.0/8", world=OPEN, list_of_ips_file=tmp_path / "none.csv"))
    with pytest.raises(irl.ConfigError, match="Each row brings"):
        exchange("10.0.0.0/8", world=OPEN, list_of_ips_file=listed(tmp_path) / "list.csv", request_column="ask")


def test_a_silent_target_costs_less_than_a_byte() -> None:
    def resident() -> int:
        found = re.search(r"VmRSS:\s+(\d+) kB", Path("/proc/self/status").read_text())
        assert found
        return int(found[1]) * 1024

    targets = 1 << 21
    how: dict[str, Any] = {"rate": 1_000_000, "max_bytes": 100, "max_connections": targets, "reprobe": 0}
    run = exchange("10.0.0.0/11", world=OPEN, impairment=Impairment(loss=1.0), **how)
    reader = threading.Thread(target=lambda: sum(map(len, run)))
    reader.start()
    while run.stats.get("probes_sent", 0) < targets // 4:
        time.sleep(0.01)
    sent, before = run.stats["probes_sent"], resident()
    reader.join()
    assert run.stats["probes_sent"] == targets
    assert (resident() - before) / (targets - sent) < 1
