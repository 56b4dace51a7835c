"""Which targets, in which order: order spread, common ports, lists that come as a stream."""

import io
import os
import signal
import subprocess
import sys
import time
from collections import defaultdict
from contextlib import suppress
from itertools import pairwise
from pathlib import Path

import polars as pl
import pytest

import irlstack as irl
from tests.conftest import Command

IRLSTACK = Path(sys.executable).parent / "irlstack"


def order_of(plan: irl.Plan, **options: int) -> list[int]:
    return pl.concat([pl.DataFrame(batch) for batch in plan.targets(**options)])["address"].to_list()


def closest(addresses: list[int]) -> dict[int, tuple[int, int]]:
    """By /24: how many probes it gets, and the least distance of two of them."""
    places = defaultdict(list)
    for position, address in enumerate(addresses):
        places[address >> 8].append(position)
    return {
        network: (len(at), min((b - a for a, b in pairwise(at)), default=len(addresses)))
        for network, at in places.items()
    }


@pytest.mark.parametrize("shape", ["a prefix", "unequal prefixes", "several ports", "a list"])
def test_no_network_is_probed_twice_within_its_share(tmp_path: Path, shape: str) -> None:
    (tmp_path / "deny").write_text("10.0.16.0/21\n10.0.64.0-10.0.70.99\n")
    (tmp_path / "hosts").write_text("".join(f"10.{i % 7}.{i * i % 251}.{i % 256}\n" for i in range(20_000, 0, -1)))
    options = {"seed": 3, "order": "spread", "blocklist_file": [tmp_path / "deny"], "ports": 80}
    plan = {
        "a prefix": lambda: irl.Plan("10.0.0.0/17", **options),
        "unequal prefixes": lambda: irl.Plan("10.0.0.0/18", "10.9.9.0/24", "10.77.7.7", "10.80.0.0/22", **options),
        "several ports": lambda: irl.Plan("10.0.0.0/19", "10.9.9.0/25", **options | {"ports": "80,443,8080"}),
        "a list": lambda: irl.Plan(list_of_ips_file=tmp_path / "hosts", **options),
    }[shape]()
    order = order_of(plan)
    networks = closest(order)
    assert sum(count for count, _ in networks.values()) == plan.total
    for count, distance in networks.values():
        assert distance >= min(len(networks), plan.total / count) / 4
        assert count == 1 or distance > plan.total / count / 3


def test_the_random_order_does_not_keep_that_distance() -> None:
    networks = closest(order_of(irl.Plan("10.0.0.0/17", ports=80, seed=3)))
    assert min(distance for _, distance in networks.values()) < len(networks) / 4


def test_a_spread_plan_seeks_shards_and_reads_back(command: Command) -> None:
    arguments = ["plan", "10.0.0.0/18", "10.9.9.0/24", "-p", "80,443", "--order", "spread", "-e", "5", "--shards", "3"]
    assert command(*arguments).status == 0
    plan = irl.Plan.load("plan.toml")
    assert plan.order == "spread"
    assert plan.fingerprint() != irl.Plan.from_toml(plan.to_toml().replace("spread", "random")).fingerprint()
    whole = irl.Plan("10.0.0.0/18", "10.9.9.0/24", ports="80,443", seed=5, order="spread")
    lines = "".join(whole.targets().lines()).split()
    for shard in range(3):
        part = "".join(plan.targets(shard=shard).lines()).split()
        assert part == lines[shard::3]
        assert command("when", "plan.toml", part[777]).out == f"{part[777]} is at position 777 of shard {shard} of 3\n"
    assert "".join(whole.targets(first=1000, count=70).lines()).split() == lines[1000:1070]


def test_seeds_give_other_spread_orders() -> None:
    starts = [
        tuple(order_of(irl.Plan("10.0.0.0/16", ports=80, seed=seed, order="spread"), count=9)) for seed in range(9)
    ]
    assert len(set(starts)) == 9


def test_another_order_is_refused() -> None:
    with pytest.raises(irl.ConfigError, match="random or spread"):
        irl.Plan("10.0.0.0/16", ports=80, order="sorted")
    with pytest.raises(irl.ConfigError, match=r"2\^63"):
        irl.Plan("2001:db8::/32", ports=80, order="spread", max_targets=5).targets()


def test_common_ports_are_recorded_by_number(command: Command) -> None:
    plan = irl.Plan("10.0.0.0/24", top_ports=3)
    assert plan.ports == "22,80,443"
    assert irl.Plan("10.0.0.0/24", top_ports=3, probe_module="udp", probe_args={"text": "x"}).ports == "53,123,161"
    assert command("plan", "10.0.0.0/24", "--top-ports", "100", "-e", "1").status == 0
    assert len("".join(irl.Plan.load("plan.toml").targets().lines()).split()) == 256 * 100
    assert "top" not in Path("plan.toml").read_text()


def test_more_common_ports_than_there_are_is_an_error(command: Command) -> None:
    done = command("plan", "10.0.0.0/24", "--top-ports", "5000")
    assert done.status == 2
    assert "the table of common TCP ports has" in done.err
    done = command("plan", "10.0.0.0/24", "--top-ports", "5", "-p", "80")
    assert done.status == 2
    assert "not both" in done.err


class Pieces(io.RawIOBase):
    """A stream that remembers how much was asked of it at a time."""

    def __init__(self, text: bytes, raises: BaseException | None = None) -> None:
        self.text, self.raises, self.asked = io.BytesIO(text), raises, list[int]()

    def read(self, size: int = -1) -> bytes:
        self.asked.append(size)
        if self.raises is not None and len(self.asked) > 1:
            raise self.raises
        return self.text.read(size)


def test_a_stream_is_read_in_pieces() -> None:
    lines = "".join(f"10.{i >> 16}.{i >> 8 & 255}.{i & 255}\n" for i in range(200_000)).encode()
    stream = Pieces(lines)
    plan = irl.Plan(list_of_ips_file=stream, ports=80)
    assert plan.total == 200_000
    assert len(stream.asked) > 2
    assert max(stream.asked) <= 1 << 20
    assert min(stream.asked) > 0
    assert plan == irl.Plan.from_toml(plan.to_toml())
    assert plan.replace(rate=7).total == 200_000


def test_what_a_stream_raises_is_raised() -> None:
    with pytest.raises(KeyboardInterrupt):
        irl.Plan(list_of_ips_file=Pieces(b"10.0.0.1\n" * 200_000, KeyboardInterrupt()), ports=80)
    with pytest.raises(irl.ConfigError, match="-:2"):
        irl.Plan(list_of_ips_file=Pieces(b"10.0.0.1\nnowhere\n"), ports=80)
    with pytest.raises(irl.ConfigError, match="open for reading"):
        irl.Plan(list_of_ips_file=42, ports=80)  # type: ignore[arg-type]


def test_a_share_of_a_list_on_standard_input(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = "".join(f"10.0.{i >> 8}.{i & 255}\n" for i in range(1000)).encode()
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(lines)))
    done = command("plan", "-", "-p", "80", "-n", "1%", "-B", "10M", "--list")
    assert len(done.out.split()) == 10


def test_ctrl_c_ends_the_reading_of_a_list(tmp_path: Path) -> None:
    """The list never ends, so that only the signal does."""
    reader, writer = os.pipe()
    with subprocess.Popen([IRLSTACK, "plan", "-", "-p", "80"], stdin=reader, cwd=tmp_path) as process:
        os.close(reader)
        deadline = time.monotonic() + 20
        sent = 0
        while sent < 20_000_000:
            assert time.monotonic() < deadline
            sent += os.write(writer, b"10.0.0.1\n" * 1000)
        process.send_signal(signal.SIGINT)
        # A signal just before a read begins is heard when that read ends.
        with suppress(BrokenPipeError):
            os.write(writer, b"10.0.0.1\n")
        assert process.wait(timeout=10) == 130
        os.close(writer)
