"""Exchanges on real interfaces: nginx on a whole /16, interruptions, and where the kernel would be in the way."""

import json
import signal
import subprocess
import time
from pathlib import Path

import polars as pl
import pytest

from irlstack.lab import Lab
from irlstack.lab.servers import BODY
from irlstack.lab.topology import Impairment
from tests.netns.conftest import CLIENT, GATEWAY, IRLSTACK, SPARE, Pair

HOSTS = 1 << 16
GET = ["--request", r"GET / HTTP/1.0\r\n\r\n"]


@pytest.mark.alone
@pytest.mark.parametrize(
    ("engine", "close", "length"),
    [("live", "rst", 16), ("packet", "fin", 16), ("live", "fin", 20), ("packet", "rst", 20)],
    ids=["live-rst", "packet-fin", "live-fin of a 20", "packet-rst of a 20"],
)
def test_nginx_on_a_16_gives_every_page_whole(lab: Lab, tmp_path: Path, engine: str, close: str, length: int) -> None:
    rows, hosts = tmp_path / "rows.parquet", 1 << (32 - length)
    where = ["-i", "va", "-S", SPARE, "--engine", engine, "-r", "8k", "-c", "2"]
    arguments = [f"198.19.0.0/{length}", "-p", "80", *where, *GET, "--close", close, "-o", str(rows), "--json"]
    done = lab.run([*IRLSTACK, "exchange", *arguments])
    assert done.returncode == 0, done.stderr
    print(done.stderr)
    summary = json.loads(done.stdout.splitlines()[-1])
    table = pl.read_parquet(rows)
    assert table["saddr"].n_unique() == table.height == hosts
    assert dict(table.group_by("status").len().iter_rows()) == {"success": hosts}
    assert all(response.startswith(b"HTTP/1.1 200 OK\r\n") for response in table["response"])
    assert all(response.endswith(b"\r\n\r\n" + BODY) for response in table["response"])
    assert table["connect_ns"].null_count() == 0
    assert (table["connect_ns"] <= table["first_byte_ns"]).all()
    assert (table["first_byte_ns"] <= table["close_ns"]).all()
    assert summary["connections"] == summary["exchanged"] == hosts
    assert summary["imbalances"] == []


def test_a_peer_that_holds_the_ports_of_an_earlier_connection_is_reached_from_another(tmp_path: Path) -> None:
    # Of two ports each target gets one; at the next run, whose key is another, half of them get the same. The server
    # closed first, so that it is in TIME-WAIT then, where it takes no SYN whose timestamp is older: that of every other
    # key is.
    where = ["-i", "va", "-S", SPARE, "-s", "61000-61001", "-r", "2k", "-c", "1", "--close", "fin"]
    with Lab() as lab:
        for prefix in range(12):
            for _ in range(2):
                rows = tmp_path / "rows.parquet"
                asked = [f"198.19.{prefix}.0/24", "-p", "80", *where, *GET, "-o", str(rows), "--json"]
                done = lab.run([*IRLSTACK, "exchange", *asked])
                assert done.returncode == 0, done.stderr
                assert dict(pl.read_parquet(rows).group_by("status").len().iter_rows()) == {"success": 256}
            if json.loads(done.stdout.splitlines()[-1])["stats"]["reprobed"] > 0:
                return
    pytest.fail("nobody was in TIME-WAIT")


@pytest.mark.parametrize("engine", ["live", "packet"])
def test_a_target_that_a_list_has_again_is_reached_from_another_port(lab: Lab, tmp_path: Path, engine: str) -> None:
    rows, said = tmp_path / "rows.parquet", tmp_path / "list.csv"
    said.write_text("ip,turn\n" + "".join(f"198.19.0.{number % 50},{number // 50}\n" for number in range(200)))
    where = ["-i", "va", "-S", SPARE, "--engine", engine, "-r", "8k", "-c", "1", "-I", str(said)]
    arguments = ["198.19.0.0/16", "-p", "80", *where, *GET, "-o", str(rows), "--json"]
    done = lab.run([*IRLSTACK, "exchange", *arguments])
    assert done.returncode == 0, done.stderr
    table = pl.read_parquet(rows)
    assert dict(table.group_by("status").len().iter_rows()) == {"success": 200}
    assert table.select("saddr", "turn").n_unique() == table.select("saddr", "dport").n_unique() == 200
    assert json.loads(done.stdout.splitlines()[-1])["list"]["duplicates"] == 150


@pytest.mark.alone
def test_nginx_on_a_16_gives_every_page_over_a_link_that_loses_one_frame_in_a_hundred(tmp_path: Path) -> None:
    rows = tmp_path / "rows.parquet"
    with Lab(impairment=Impairment(loss=0.01, seed=3)) as lab:
        where = ["-i", "va", "-S", SPARE, "-r", "5k", "-c", "1", "--reprobe", "5", "--timeout", "30"]
        asked = ["198.19.0.0/16", "-p", "80", *where, *GET, "-o", str(rows), "--json"]
        done = lab.run([*IRLSTACK, "exchange", *asked])
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout.splitlines()[-1])
    table = pl.read_parquet(rows)
    assert table["saddr"].n_unique() == table.height == HOSTS
    assert dict(table.group_by("status").len().iter_rows()) == {"success": HOSTS}
    assert all(response.endswith(b"\r\n\r\n" + BODY) for response in table["response"])
    assert summary["stats"]["retransmits"] > 0
    assert summary["imbalances"] == []


def test_an_interrupted_exchange_keeps_its_rows_and_leaves_no_connection_behind(lab: Lab, tmp_path: Path) -> None:
    rows, updates, metadata = (tmp_path / name for name in ("rows.csv", "u.csv", "m.json"))
    where = ["-i", "va", "-S", SPARE, "-r", "2k", "-u", str(updates), "-m", str(metadata)]
    # nginx waits for the rest of the request.
    arguments = ["198.19.0.0/16", "-p", "80", *where, "--request", r"GET / HTTP/1.0\r\n", "-o", str(rows)]
    run = lab.start([*IRLSTACK, "exchange", *arguments], stderr=subprocess.PIPE, text=True)
    until = time.monotonic() + 20
    while not updates.exists() or len(updates.read_text().splitlines()) < 3:
        assert time.monotonic() < until
        time.sleep(0.05)
    run.send_signal(signal.SIGINT)
    _, said = run.communicate(timeout=20)
    assert run.returncode == 130, said
    summary = json.loads(metadata.read_text())
    stats = summary["stats"]
    assert stats["connections_aborted"] > 1000
    assert len(rows.read_text().splitlines()) == stats["rows"] + 1 == stats["connections_opened"] + 1
    assert summary["imbalances"] == []
    held = lab.run(["ss", "-Htn", "state", "established", "src", "198.19.0.0/16"], role="net")
    assert held.stdout == "", "each was reset"


def test_without_the_filter_the_hosts_own_address_is_refused(pair: Pair) -> None:
    without = ["setpriv", "--bounding-set", "-all,+net_raw", "--inh-caps", "-all"]
    asked = ["exchange", f"{GATEWAY}/32", "-p", "80", "-i", "va", "-S", CLIENT, "--engine", "packet", "-r", "10", *GET]
    command = ["ip", "netns", "exec", pair.a, *without, *IRLSTACK, *asked]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 4, done.stderr
    assert "kernel would reset our connections" in done.stderr
