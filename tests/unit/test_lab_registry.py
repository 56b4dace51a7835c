"""The registry of labs, as far as it can be tried without a namespace."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import irlstack as irl
from irlstack.lab import Impairment, Lab, LabConfig, registry
from irlstack.lab.registry import Interface, Namespace, Registration


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(registry, "FOLDER", tmp_path / "irlstack" / "labs")
    return registry.FOLDER


def mine(name: str = "demo") -> Registration:
    started = registry.start_time(os.getpid())
    assert started is not None
    return Registration(
        name,
        os.getpid(),
        started,
        seed=7,
        namespaces={"client": Namespace("irl-demo-client", 4_026_532_300)},
        interfaces={"client": Interface("client", "va", "02:00:00:00:00:01", "198.18.0.1", "fd00:18::1")},
        ranges={"nginx": ["198.19.0.0/16"]},
    )


def test_what_is_saved_is_found_again(folder: Path) -> None:
    with registry.locked():
        mine().save()
        assert registry.find("demo") == mine()
        assert [path.name for path in folder.iterdir()] == ["demo.json"]
    assert registry.find("other") is None


def test_the_folder_goes_with_the_last_lab(folder: Path) -> None:
    with registry.locked():
        mine().save()
        mine("second").save()
    with registry.locked():
        mine().path.unlink()
    assert folder.exists()
    with registry.locked():
        mine("second").path.unlink()
    assert not folder.parent.exists()


def test_another_version_or_another_thing_is_no_registration() -> None:
    document = json.loads(json.dumps(mine().document()))
    assert Registration.parse(document) == mine()
    with pytest.raises(ValueError, match="registry version 2"):
        Registration.parse(document | {"version": 2})
    with pytest.raises(ValueError, match="not a lab's registration"):
        Registration.parse({"version": 1, "name": "x"})


def test_files_that_are_no_registration_are_passed_over(folder: Path) -> None:
    with registry.locked():
        mine().save()
        (folder / "broken.json").write_text("{")
        (folder / "strange.json").write_text('{"version": 9}')
        assert [each.name for each in registry.labs()] == ["demo"]


def test_a_recycled_pid_is_not_taken_for_the_keeper() -> None:
    alive = mine()
    assert alive.alive()
    alive.start_time += 1
    assert not alive.alive()


def test_a_process_that_ended_is_not_alive_even_before_its_parent_noticed() -> None:
    child = subprocess.Popen([sys.executable, "-c", ""])
    pidfd = os.pidfd_open(child.pid)
    from irlstack.lab import netns

    assert netns.wait_for_end(pidfd, 10)
    assert registry.start_time(child.pid) is None
    child.wait()


def test_labs_have_names_of_their_own_unless_given_one() -> None:
    assert LabConfig().name != LabConfig().name
    assert repr(Lab("demo", seed=3)) == "Lab('demo', seed=3, down)"


@pytest.mark.parametrize("wrong", [{"loss": 1.5}, {"duplicate": -0.1}, {"reorder": 2}, {"delay_ms": -1}])
def test_an_impairment_is_checked_when_it_is_made(wrong: dict[str, float]) -> None:
    with pytest.raises(irl.ConfigError):
        Impairment(**wrong)


@pytest.mark.parametrize("pairs", [0, 5])
def test_a_lab_has_as_many_pairs_as_the_paper_has_ports(pairs: int) -> None:
    assert LabConfig(pairs=4).pairs == 4
    with pytest.raises(irl.ConfigError, match="1 to 4 pairs"):
        LabConfig(pairs=pairs)


def test_the_clients_ends_are_where_measurements_leave() -> None:
    two = mine()
    two.interfaces["gateway"] = Interface("net", "vb", "02:00:00:00:00:02", "198.18.0.2", "fd00:18::2")
    two.interfaces["client2"] = Interface("client", "va2", "02:00:00:00:00:03", "198.18.2.1", "fd00:18:2::1")
    assert [each.name for each in two.client_ends()] == ["va", "va2"]


def test_a_lab_that_is_down_has_no_namespace() -> None:
    with pytest.raises(irl.ConfigError, match="is not up"):
        Lab().namespace()
