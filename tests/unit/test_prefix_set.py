"""PrefixSet from Python."""

import ipaddress
import pickle
from pathlib import Path

import pytest

import irlstack as irl


def test_items_may_be_text_or_ipaddress_objects() -> None:
    items = irl.PrefixSet(
        ipaddress.ip_network("192.0.2.0/24"), ipaddress.ip_address("198.51.100.7"), "10.0.0.1-10.0.0.2"
    )
    assert items.prefixes() == ["10.0.0.1/32", "10.0.0.2/32", "192.0.2.0/24", "198.51.100.7/32"]
    assert items.family == "ipv4"


def test_rank_and_select_are_inverse() -> None:
    items = irl.PrefixSet("10.0.0.0/30", "10.0.1.0/30")
    addresses = [items.select(rank) for rank in range(items.count)]
    assert [items.rank(address) for address in addresses] == list(range(8))
    assert addresses[4] == ipaddress.IPv4Address("10.0.1.0")
    assert items.rank("10.0.0.9") is None
    with pytest.raises(IndexError, match="no address of rank 8"):
        items.select(8)


def test_membership_takes_text_objects_and_integers() -> None:
    items = irl.PrefixSet("10.0.0.0/8")
    assert "10.1.2.3" in items
    assert ipaddress.ip_address("10.1.2.3") in items
    assert 0x0A010203 in items
    assert "fd00::1" not in items
    assert 1 << 40 not in items


def test_sets_combine() -> None:
    one, other = irl.PrefixSet("10.0.0.0/24"), irl.PrefixSet("10.0.0.128/25", "10.0.2.0/24")
    assert (one | other).count == 512
    assert (one & other).prefixes() == ["10.0.0.128/25"]
    assert (one - other).prefixes() == ["10.0.0.0/25"]
    assert not one - one
    with pytest.raises(irl.ConfigError, match="IPv6"):
        one | irl.PrefixSet("fd00::/8")


def test_all_of_ipv6_is_counted_beyond_what_len_can_say() -> None:
    everything = irl.PrefixSet.all("ipv6") - irl.PrefixSet("::/1")
    assert everything.count == 2**127
    with pytest.raises(irl.ConfigError, match="count"):
        len(everything)


def test_it_is_a_value() -> None:
    items = irl.PrefixSet("10.0.0.0/8", "192.0.2.7")
    assert pickle.loads(pickle.dumps(items)) == items  # noqa: S301
    assert pickle.loads(pickle.dumps(irl.PrefixSet.empty("ipv6"))) == irl.PrefixSet.empty("ipv6")  # noqa: S301
    assert len({items, irl.PrefixSet("192.0.2.7", "10.0.0.0/8")}) == 1
    assert eval(repr(items), {"PrefixSet": irl.PrefixSet}) == items  # noqa: S307


def test_a_bad_line_is_named_by_file_and_line(tmp_path: Path) -> None:
    path = tmp_path / "blocklist.conf"
    path.write_text("# ours\n10.0.0.0/8\n\n10.0.0.0/33 # too long\n")
    with pytest.raises(irl.ConfigError, match=r"blocklist\.conf:4: .*10\.0\.0\.0/33"):
        irl.PrefixSet.from_file(path)
    with pytest.raises(FileNotFoundError, match="No such file"):
        irl.PrefixSet.from_file(tmp_path / "absent")


@pytest.mark.parametrize("text", ["", "10.0.0.0/33", "10.0.0.256", "10.0.0.9-10.0.0.1", "example.org", "fd00::/129"])
def test_what_is_no_prefix_is_refused(text: str) -> None:
    with pytest.raises(irl.ConfigError):
        irl.PrefixSet(text)
