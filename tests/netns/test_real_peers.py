"""Dialogues with Linux's own TCP and real servers, over links that lose nothing, one frame in a hundred, and one in 20
each way: nginx, openssh, and a server with a bad habit on each of its ports. What it says is known to the last byte.
"""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest

from irlstack.lab import Lab
from irlstack.lab.misbehaving import (
    BODY_BYTES,
    NOISE_BYTES,
    REPLY_BYTES,
    RESET_BYTES,
    SLOW_BYTES,
    UPLOAD_BYTES,
    Habit,
    content,
)
from irlstack.lab.servers import BODY, SSH_PORT
from irlstack.lab.topology import Impairment
from tests.netns.conftest import IRLSTACK, SPARE

pytestmark = pytest.mark.timeout(170)
HOSTS = 16
FEW = 4
CUT = 1_000_000


@pytest.fixture(scope="module", params=[0.0, 0.01, 0.05], ids=lambda loss: f"loss {loss:.0%}")
def peers(request: pytest.FixtureRequest, need_root: None) -> Iterator[Lab]:
    impairment = Impairment(loss=request.param, delay_ms=1, seed=5) if request.param else None
    with Lab(sshd=True, misbehaving=True, impairment=impairment) as lab:
        yield lab


def patience(lab: Lab, seconds: float) -> list[str]:
    """How long an exchange may take: where nothing is lost, nothing has to be sent again, and whoever waits, waits."""
    return ["--timeout", str(seconds if lab.config.impairment else 5)]


def exchanged(lab: Lab, tmp_path: Path, hosts: int, ports: str, *options: str) -> pl.DataFrame:
    """The rows of an exchange with so many hosts, one for each of their ports."""
    rows = tmp_path / "rows.parquet"
    where = [
        "-i",
        "va",
        "-S",
        SPARE,
        "-r",
        "2k",
        "-c",
        "1",
        "--reprobe",
        "6",
        "-n",
        str(hosts * ports.count(",") + hosts),
    ]
    prefix = {HOSTS: "198.19.7.0/28", FEW: "198.19.7.0/30"}[hosts]
    asked = [prefix, "-p", ports, *where, *options, "--rows", "all", "-o", str(rows), "--json"]
    done = lab.run([*IRLSTACK, "exchange", *asked])
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1])["imbalances"] == []
    table = pl.read_parquet(rows)
    assert table.height == table.select("saddr", "sport").n_unique() == hosts * (ports.count(",") + 1)
    return table


def of(table: pl.DataFrame, port: int, status: str) -> pl.DataFrame:
    """The rows of a port, all of which have this status."""
    rows = table.filter(pl.col("sport") == port)
    assert set(rows["status"]) == {status}, rows
    return rows


def test_each_habit_is_met_with_the_right_status_and_every_byte(peers: Lab, tmp_path: Path) -> None:
    habits = [Habit.BYTE_AT_A_TIME, Habit.RESET, Habit.HALF_CLOSE, Habit.SILENCE, Habit.GARBAGE, Habit.CLOSE]
    habits += [Habit.GIGABYTE, Habit.BYTE_A_SECOND]
    ports = ",".join(str(int(port)) for port in [80, *habits])
    asked = ["--request", r"GET / HTTP/1.0\r\n\r\n", "--max-bytes", str(CUT), *patience(peers, 15)]
    table = exchanged(peers, tmp_path, HOSTS, ports, *asked)
    assert all(page.endswith(b"\r\n\r\n" + BODY) for page in of(table, 80, "success")["response"])
    assert set(of(table, Habit.BYTE_AT_A_TIME, "success")["response"]) == {content(SLOW_BYTES)}
    assert set(of(table, Habit.HALF_CLOSE, "success")["response"]) == {content(REPLY_BYTES)}
    # Linux resets whoever's request it never read, and what was under way then may be gone. A reset that is lost is not
    # sent again: whoever waits for the rest then waits to the end of its time. And where the request is lost, with the
    # handshake's ACK, and a SYN-ACK that is sent again is acknowledged first, nothing is unread when Linux closes: its
    # FIN comes, which is a success, with all that was said.
    for port, most in ((Habit.RESET, RESET_BYTES), (Habit.GARBAGE, NOISE_BYTES), (Habit.CLOSE, 0)):
        rows = table.filter(pl.col("sport") == port)
        closes = {"success"} if peers.config.impairment and port != Habit.RESET else set()
        assert set(rows["status"]) <= {"connection-closed", "io-timeout"} | closes
        assert set(rows.filter(pl.col("status") == "success")["response"]) <= {content(most)}
        closed = rows.filter(pl.col("status") == "connection-closed")
        assert closed.height >= (HOSTS // 2 if peers.config.impairment else HOSTS)
        assert set(closed["closed_by"]) == {"peer"}
        assert all(content(most).startswith(response) for response in rows["response"])
    silent = of(table, Habit.SILENCE, "io-timeout")
    assert set(silent["bytes"]) == {0}
    assert set(silent["stage"]) == {"response"}
    drips = of(table, Habit.BYTE_A_SECOND, "io-timeout")
    assert all(len(said) > 0 and content(100).startswith(said) for said in drips["response"])
    endless = of(table, Habit.GIGABYTE, "success")
    assert set(endless["response"]) == {content(CUT)}
    assert endless["truncated"].all()
    assert set(endless["closed_by"]) == {"us"}


def test_who_speaks_first_is_heard(peers: Lab, tmp_path: Path) -> None:
    table = exchanged(peers, tmp_path, HOSTS, str(SSH_PORT), "--until", r"\n", "--timeout", "15", "--close", "fin")
    said = of(table, SSH_PORT, "success")["response"]
    assert all(line.startswith(b"SSH-2.0-OpenSSH") and line.endswith(b"\n") for line in said)


def test_ten_megabytes_come_intact(peers: Lab, tmp_path: Path) -> None:
    asked = ["--request", "x", "--max-bytes", str(2 * BODY_BYTES), "--timeout", "120"]
    rows = of(exchanged(peers, tmp_path, FEW, str(int(Habit.BODY)), *asked), Habit.BODY, "success")
    assert set(rows["response"]) == {content(BODY_BYTES)}
    assert not rows["truncated"].any()
    print(rows.select("close_ns", "retransmits"))


def test_a_megabyte_goes_up_intact_and_one_that_nobody_reads_is_given_up(peers: Lab, tmp_path: Path) -> None:
    request = tmp_path / "request"
    request.write_bytes(content(UPLOAD_BYTES))
    asked = ["--request", f"@{request}", "--timeout"]
    table = exchanged(peers, tmp_path, FEW, str(int(Habit.UPLOAD)), *asked, "30")
    answer = f"{hashlib.sha256(content(UPLOAD_BYTES)).hexdigest()} {UPLOAD_BYTES}\n".encode()
    rows = of(table, Habit.UPLOAD, "success")
    assert set(rows["response"]) == {answer}
    print(rows.select("close_ns", "retransmits"))
    # Nobody reads however long we wait, but it takes some time to be connected where SYNs are lost.
    table = exchanged(peers, tmp_path, FEW, str(int(Habit.NEVER_READS)), *asked, "8")
    unread = of(table, Habit.NEVER_READS, "io-timeout")
    assert set(unread["stage"]) == {"request"}
    assert set(unread["bytes"]) == {0}
