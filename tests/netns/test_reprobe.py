"""Later passes on a real link: they find whom the first one missed, and the far end counts each of their probes."""

import json
import math
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

import irlstack as irl
from irlstack.lab import Impairment, Lab
from tests.netns.conftest import SPARE, Pair, sh

pytestmark = pytest.mark.alone
RATES = {"packet": "100k", "live": "300k"}
"""Fast enough that `live` holds its call, and slow enough that a veth pair loses nothing."""


@pytest.mark.parametrize("engine", RATES)
def test_whoever_the_first_pass_missed_is_found_by_the_second(
    pair: Pair, build_peer: Callable[..., Path], tmp_path: Path, engine: str
) -> None:
    """Each host hears the SYNs from half of our ports, and a target's next probe leaves from the next port."""
    pair.peer(build_peer("-DHALF_DEAF"))
    output, hosts = tmp_path / "out.parquet", 1 << 18
    before, far = pair.counters("a"), pair.counters("b")
    given = ["-p", "80", "-G", pair.mac_b, "-r", RATES[engine], "--engine", engine, "-c", "0.5", "-o", str(output)]
    scan = pair.scan("10.0.0.0/14", *given, "--reprobe", "2")
    assert scan.code == 0, scan.stderr
    document = scan.document
    assert document["engine"] == engine
    # A third would follow if somebody were silent still.
    first, second = document["passes"]
    assert first["sent"] == hosts
    assert abs(first["found"] - hosts / 2) < 5 * math.sqrt(hosts / 4)
    assert second["targets"] == second["sent"] == second["found"] == hosts - first["found"]
    assert first["end_s"] + 0.5 <= second["start_s"]
    rows = pl.read_parquet(output)
    assert rows["saddr"].n_unique() == rows.height == hosts
    assert (rows["probe_num"] == 1).sum() == second["found"]
    pair.conserved(document, before)
    arrived = pair.counters("b")["rx"] - far["rx"]
    neighbours = document["network"]["conflict_probes"] + document["stats"]["neighbour_sent"]
    assert arrived == first["sent"] + second["sent"] + document["stats"]["resets_sent"] + neighbours


@pytest.mark.parametrize("engine", RATES)
def test_in_the_end_a_lossy_link_hides_nobody(engine: str) -> None:
    """20 % each way: a probe is answered with 64 %, and with 21 of them 0.36^21 of the targets are still silent."""
    hosts = 1 << 14
    with Lab(everything_open=True, impairment=Impairment(loss=0.2, seed=5)) as lossy:

        def arrived() -> int:
            link = sh("ip", "-n", lossy.namespace("relay"), "-j", "-s", "link", "show", "ra")
            return int(json.loads(link)[0]["stats64"]["rx"]["packets"])

        before = arrived()
        plan = irl.Plan("10.0.0.0/18", ports=80, rate=20_000, source_ip=[SPARE])
        mac = lossy.interface("gateway").mac
        with lossy.enter():
            run = irl.scan(
                plan=plan, interface="va", engine=engine, gateway_mac=mac, dad="off", cooldown_time=0.2, reprobe=20
            )
            rows = pl.DataFrame(run)
        summary = run.summary
        seen = arrived() - before
    first, *later = summary["passes"]
    assert abs(first["found"] - 0.64 * hosts) < 5 * math.sqrt(hosts * 0.64 * 0.36)
    assert rows["saddr"].n_unique() == len(rows) == summary["found"] == hosts
    assert summary["imbalances"] == []
    assert summary["sent"] == first["sent"] + sum(each["sent"] for each in later) < 2 * hosts
    assert 0 < len(later) < 20, "none follows where everybody has answered"
    # A kernel may add a few frames of its own on a link with IPv6.
    assert 0 <= seen - summary["packets_sent"] < 20
