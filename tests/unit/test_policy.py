"""Policies, and the files they come from."""

import pickle
from pathlib import Path

import pytest

import irlstack as irl


def test_later_files_overrule_earlier_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "xdg"))
    monkeypatch.setattr("irlstack.policy.SYSTEM_FILE", tmp_path / "system.toml")
    (tmp_path / "xdg/irlstack").mkdir(parents=True)
    (tmp_path / "system.toml").write_text('[policy]\ncontact = "system@example.org"\nblocklist_file = "deny"\n')
    (tmp_path / "xdg/irlstack/irlstack.toml").write_text('[policy]\ncontact = "user@example.org"\nrate = 10\n')
    (tmp_path / "irlstack.toml").write_text('[policy]\nauthorized = "ticket 1"\n')
    assert irl.Policy.from_config() == irl.Policy(
        contact="user@example.org", authorized="ticket 1", rate=10, blocklist_file=tmp_path / "deny"
    )


def test_what_is_given_overrules_what_is_configured() -> None:
    base = irl.Policy(contact="a@example.org", rate=5)
    assert irl.Policy(rate=0).over(base) == irl.Policy(contact="a@example.org", rate=0)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("policy = 1", "table"),
        ("[polcy]", "polcy"),
        ('[policy]\ncontakt = "x"', "contakt"),
        ("[policy]\ncontact = 5", "text"),
        ('[policy]\nrate = "fast"', "number"),
        ("[policy", "no TOML"),
    ],
)
def test_a_wrong_file_is_named(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "irlstack.toml"
    path.write_text(text)
    with pytest.raises(irl.ConfigError, match=message) as caught:
        irl.Policy.from_file(path)
    assert str(path) in str(caught.value)


def test_a_rate_below_zero_is_refused() -> None:
    with pytest.raises(irl.ConfigError, match="rate"):
        irl.Policy(rate=-1)


def test_probes_and_policies_are_values() -> None:
    for value in (irl.Policy(contact="a"), irl.Probe("udp", text="x")):
        assert pickle.loads(pickle.dumps(value)) == value  # noqa: S301
        assert hash(pickle.loads(pickle.dumps(value))) == hash(value)  # noqa: S301


def test_an_unknown_probe_or_argument_is_named() -> None:
    with pytest.raises(irl.ConfigError, match="tcp_synscan, tcp_synackscan, icmp_echoscan, udp, dns, ntp"):
        irl.Probe("quic")
    with pytest.raises(irl.ConfigError, match="layout"):
        irl.Probe("tcp_synscan", mss="5")
