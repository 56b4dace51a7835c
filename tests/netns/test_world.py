"""The World behind a real link: both responders say what the truth says, and nothing is missed or invented."""

import math
import random
from ipaddress import IPv4Address
from typing import Any

import pytest

import irlstack as irl
from irlstack.lab import Impairment, Lab
from tests.netns.conftest import SPARE, SPARE6

pytestmark = pytest.mark.alone
WORLD = irl.World(seed=1)
KINDS = {
    "tcp_synscan": {"ports": 80},
    "icmp_echoscan": {},
    "udp": {"ports": 53, "probe_args": {"text": "hello"}},
}


def check(lab: Lab, plan: irl.Plan, rows: str = "all") -> dict[str, Any]:
    """What a scan from a lab's client namespace found, against the truth; its books balance too."""
    with lab.enter():
        run = irl.scan(plan=plan, interface="va", cooldown_time=2, rows=rows)
        batches = list(run)
    summary = run.summary
    assert summary["imbalances"] == []
    assert summary["synthetic"] is False
    print(f"{summary['sent']} sent at {summary['send_rate']:.0f}/s, {run.stats['overruns']} overruns")
    return WORLD.check(plan, batches, rows=rows)


@pytest.mark.parametrize("probe", KINDS)
@pytest.mark.parametrize(
    ("targets", "source"),
    [("10.0.0.0/14", SPARE), ("fd00:10::/110", SPARE6), ("172.16.0.0/15", SPARE), ("fd00:172::/111", SPARE6)],
    ids=["kernel IPv4", "kernel IPv6", "user space IPv4", "user space IPv6"],
)
def test_nothing_is_missed_and_nothing_invented(lab: Lab, targets: str, source: str, probe: str) -> None:
    found = check(lab, irl.Plan(targets, rate=100_000, source_ip=[source], probe_module=probe, **KINDS[probe]))
    assert (found["missed"], found["invented"]) == (0, 0)
    assert found["found"] > 500


@pytest.mark.timeout(120)
@pytest.mark.parametrize("first", ["10.0.0.0", "172.16.0.0"], ids=["in the kernel", "in user space"])
def test_a_responder_agrees_with_the_truth_on_a_million_random_targets(lab: Lab, first: str) -> None:
    chance, base = random.Random(5), int(IPv4Address(first))
    targets = {(base + chance.getrandbits(20), chance.getrandbits(16) or 80) for _ in range(1_000_000)}
    lines = "\n".join(f"{IPv4Address(address)}:{port}" for address, port in targets)
    plan = irl.Plan(list_of_ips_file=lines.encode(), rate=100_000, source_ip=[SPARE])
    found = check(lab, plan)
    assert found["probed"] == len(targets)
    assert (found["missed"], found["invented"]) == (0, 0)


def test_with_two_percent_loss_as_many_are_missed_as_the_loss_predicts() -> None:
    """Lost each way with 2 %: missed with 1 - 0.98^2 = 3.96 %; the bound is five standard deviations."""
    with Lab(impairment=Impairment(loss=0.02, seed=3)) as lossy:
        found = check(lossy, irl.Plan("10.0.0.0/13", ports=80, rate=100_000, source_ip=[SPARE]), rows="success")
    expected, share = found["found"] + found["missed"], 1 - 0.98**2
    assert abs(found["missed"] - share * expected) < 5 * math.sqrt(expected * share * (1 - share))
    assert found["invented"] == 0
