"""Plans from Python."""

import pickle
import stat
from ipaddress import IPv4Address
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pytest

import irlstack as irl


def keys(plan: irl.Plan, shard: int = 0, count: int | None = None) -> np.ndarray:
    """Each target as one number: address times 65,536 plus port."""
    table = pa.table(plan.targets(count=count, shard=shard))
    return table["address"].to_numpy().astype(np.uint64) << np.uint64(16) | table["port"].to_numpy()


def test_the_first_forty_million_targets_of_300_ports_on_all_of_ipv4_are_unique() -> None:
    plan = irl.Plan(ports="80-379", seed=1)
    targets = keys(plan, count=40_000_000)
    targets.sort()
    assert len(targets) == 40_000_000
    assert (np.diff(targets) > 0).all()


def test_shards_are_disjoint_and_complete() -> None:
    plan = irl.Plan("10.0.0.0/18", ports="80,443", seed=5, shards=3)
    together = np.concatenate([keys(plan, shard) for shard in range(3)])
    assert len(together) == plan.total == 2 << 14
    assert len(np.unique(together)) == len(together)


def test_a_shard_has_every_third_position() -> None:
    whole = keys(irl.Plan("10.0.0.0/20", ports=80, seed=5))
    plan = irl.Plan("10.0.0.0/20", ports=80, seed=5, shards=3)
    for shard in range(3):
        assert (keys(plan, shard) == whole[shard::3]).all()


def test_find_inverts_the_order() -> None:
    plan = irl.Plan("fd00::/112", ports="80,443", seed=3, shards=2)
    rows = next(iter(plan.targets(first=100, count=50, shard=1))).to_pydict()
    for position, address, port in zip(rows["position"], rows["address"], rows["port"], strict=True):
        text = f"[{irl.PrefixSet.all('ipv6').select(int.from_bytes(address))}]:{port}"
        assert plan.find(text) == (1, position)
    assert plan.find("[fd00::1]:81") is None
    assert plan.find("10.0.0.1:80") is None


def test_targets_reach_arrow_libraries_without_a_copy_of_ours() -> None:
    targets = irl.Plan("10.0.0.0/16", ports=80, seed=1).targets()
    frame = pl.DataFrame(targets)
    assert frame.schema == {"position": pl.UInt64, "address": pl.UInt32, "port": pl.UInt16}
    assert frame.height == len(targets) == 65_536
    batch = next(iter(targets))
    assert pa.record_batch(batch).num_rows == len(batch)


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("192.0.2.10", ["192.0.2.10"]),
        (IPv4Address("192.0.2.10"), ["192.0.2.10"]),
        ("192.0.2.10, 192.0.2.11", ["192.0.2.10", "192.0.2.11"]),
        (["192.0.2.10", IPv4Address("192.0.2.11")], ["192.0.2.10", "192.0.2.11"]),
        ((), []),
    ],
)
def test_one_source_address_needs_no_list(given: str, meant: list[str]) -> None:
    plan = irl.Plan("10.0.0.0/16", ports=80, source_ip=given)
    assert [str(address) for address in plan.source_ip] == meant


@pytest.mark.parametrize("given", ["192.0.2", ["192.0.2.10", "eth0"], 17, b"192.0.2.10", "", [17]])
def test_what_is_no_source_address_is_named(given: str) -> None:
    with pytest.raises(irl.ConfigError, match=r"source_ip: .* is no address"):
        irl.Plan("10.0.0.0/16", ports=80, source_ip=given)


def test_a_plan_file_is_private_and_gives_the_same_plan(tmp_path: Path) -> None:
    path = tmp_path / "plan.toml"
    plan = irl.Plan("10.0.0.0/16", ports="80,443", max_targets=100, probe_ttl=64, contact="a@example.org")
    plan.save(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    again = irl.Plan.load(path)
    assert again == plan
    assert again.fingerprint() == plan.fingerprint()
    assert (keys(again) == keys(plan)).all()
    assert pickle.loads(pickle.dumps(plan)) == plan  # noqa: S301


def test_a_changed_list_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "hosts.txt"
    path.write_text("10.0.0.1:80\n10.0.0.2:81\n")
    irl.Plan(list_of_ips_file=path).save(tmp_path / "plan.toml")
    assert irl.Plan.load(tmp_path / "plan.toml").total == 2
    path.write_text("10.0.0.1:80\n")
    with pytest.raises(irl.ConfigError, match="has changed since the plan was made"):
        irl.Plan.load(tmp_path / "plan.toml").targets()


def test_denied_addresses_are_counted_and_never_listed(tmp_path: Path) -> None:
    deny = tmp_path / "deny.txt"
    deny.write_text("10.0.0.0/25\n")
    plan = irl.Plan("10.0.0.0/24", ports=80, blocklist_file=[deny])
    assert plan.counts() == {"asked": 256, "special": 0, "denied": 128, "duplicates": 0, "kept": 128}
    assert "".join(plan.targets().lines()).count("\n") == 128
    assert irl.Plan(ports=80).counts()["special"] > 500_000_000


def test_lines_are_addresses_with_ports_where_there_are_ports() -> None:
    assert "".join(irl.Plan("10.0.0.7", ports=80).targets().lines()) == "10.0.0.7:80\n"
    assert "".join(irl.Plan("fd00::7", ports=80).targets().lines()) == "[fd00::7]:80\n"
    assert "".join(irl.Plan("10.0.0.7", probe_module="icmp_echoscan").targets().lines()) == "10.0.0.7\n"


@pytest.mark.parametrize(
    ("targets", "options", "message"),
    [
        (["10.0.0.0/8"], {"ports": 65536}, "65535"),
        (["10.0.0.0/8"], {"ports": ""}, "not a port"),
        (["10.0.0.0/8", "fd00::/8"], {"ports": 80}, "one address family"),
        (["10.0.0.0/8"], {"ports": 80, "probe_ttl": 300}, "probe_ttl = 300"),
        (["10.0.0.0/8"], {"ports": 80, "probe_ttl": 0}, "ttl"),
        (["10.0.0.0/8"], {"ports": 80, "probes": -1}, "probes"),
        (["10.0.0.0/8"], {"ports": 80, "max_targets": 0}, "max_targets"),
        (["10.0.0.0/8"], {"ports": 80, "secret": b"short"}, "16 bytes, not 5"),
        (["10.0.0.0/8"], {"ports": 80, "source_port": "9-1"}, "backwards"),
        (["10.0.0.0/8"], {"ports": 80, "source_ip": ["fd00::1"]}, "source"),
    ],
)
def test_a_wrong_value_is_named(targets: list[str], options: dict[str, object], message: str) -> None:
    with pytest.raises(irl.ConfigError, match=message):
        irl.Plan(*targets, **options)  # type: ignore[arg-type]


def test_what_only_the_files_and_counts_can_tell_is_told_when_they_are_read() -> None:
    with pytest.raises(irl.ConfigError, match="no target left"):
        irl.Plan("127.0.0.0/8", ports=80).total  # noqa: B018
    with pytest.raises(irl.ConfigError, match=r"--max-targets"):
        irl.Plan("fd00::/8", ports=80).total  # noqa: B018
    with pytest.raises(irl.ConfigError, match="Shard 3 of 3 does not exist"):
        irl.Plan("10.0.0.0/8", ports=80, shards=3).targets(shard=3)


def test_a_list_from_standard_input_cannot_be_saved(tmp_path: Path) -> None:
    plan = irl.Plan(list_of_ips_file=b"10.0.0.1\n10.0.0.2\n10.0.0.1\n", ports=80)
    assert plan.counts()["duplicates"] == 1
    with pytest.raises(irl.ConfigError, match="standard input"):
        plan.save(tmp_path / "plan.toml")
