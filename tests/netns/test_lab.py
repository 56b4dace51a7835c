"""A lab comes up, serves, and goes without a trace, however it ends."""

import json
import os
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

import irlstack as irl
from irlstack.lab import Lab, LabConfig, commands, netns, registry

KILLED_INSIDE = """
import os
from irlstack.lab import Lab
with Lab(name={name!r}) as lab:
    print(lab.registration.pid, flush=True)
    os.kill(os.getpid(), 9)
"""


def traces(name: str) -> list[str]:
    """Namespaces, processes (but zombies that init has yet to reap) and files that carry a lab's name."""
    found = [path.name for path in Path("/run/netns").glob(f"irl-{name}-*")]
    found += [str(path) for path in registry.FOLDER.glob(f"{name}.*")]
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if f"/labs/{name}.d/".encode() in (process / "cmdline").read_bytes():
                found.append(str(process))
        except OSError:
            continue
    return found


def get(host: str) -> bytes:
    with urllib.request.urlopen(f"http://{host}/", timeout=10) as reply:
        return reply.read()


def test_nginx_answers_on_every_address_of_its_ranges(lab: Lab) -> None:
    from irlstack.lab.servers import BODY

    with lab.enter():
        for host in ("198.19.0.0", "198.19.77.3", "198.19.255.255", "[fd00:19::1]", "[fd00:19::ffff:ffff:1]"):
            assert get(host) == BODY


def test_entering_is_for_the_calling_thread_and_ends_with_the_block(lab: Lab) -> None:
    here = str(Path("/proc/thread-self/ns/net").readlink())
    with lab.enter("servers"):
        assert (
            str(Path("/proc/thread-self/ns/net").readlink()) == f"net:[{lab.registration.namespaces['servers'].inode}]"
        )
    assert str(Path("/proc/thread-self/ns/net").readlink()) == here


def test_run_happens_in_the_client_namespace(lab: Lab) -> None:
    done = lab.run(["ip", "-br", "addr", "show", "va"], check=True)
    assert "198.18.0.1/24" in done.stdout
    assert lab.run(["false"]).returncode == 1


def test_links_have_two_queues_and_offloads_that_would_fake_checksums_are_off(lab: Lab) -> None:
    assert len(lab.run(["sh", "-c", "ls -d /sys/class/net/va/queues/rx-*"]).stdout.split()) == 2
    features = lab.run(["ethtool", "-k", "va"]).stdout
    assert "tx-checksumming: off" in features
    assert "generic-receive-offload: on" in features


def test_threads_receive_at_the_gateway_when_asked_for(lab: Lab) -> None:
    threaded = ["cat", "/sys/class/net/vb/threaded"]
    assert lab.run(threaded, role="net").stdout == "0\n"
    with Lab(threaded=True) as other:
        assert other.run(threaded, role="net").stdout == "1\n"


def test_the_registry_names_namespace_keeper_and_seed(lab: Lab) -> None:
    document = json.loads((registry.FOLDER / f"{lab.name}.json").read_text())
    assert document["version"] == 1
    assert document["state"] == "ready"
    assert document["namespaces"]["client"]["inode"] == Path(f"/run/netns/irl-{lab.name}-client").stat().st_ino
    assert document["world"]["seed"] == 1
    command = Path(f"/proc/{document['keeper']['pid']}/cmdline").read_text()
    assert "irlstack.lab.keeper" in command
    assert document["interfaces"]["client"]["mac"] == lab.interface().mac


def test_down_leaves_nothing_even_of_what_others_run_inside() -> None:
    with Lab() as lab:
        left = lab.start(["sleep", "1000"])
        assert traces(lab.name)
    assert traces(lab.name) == []
    assert left.wait() == -signal.SIGTERM


def test_an_error_inside_the_block_still_takes_the_lab_down() -> None:
    lab = Lab()
    with pytest.raises(ZeroDivisionError), lab:
        raise ZeroDivisionError
    assert traces(lab.name) == []


def test_a_lab_goes_with_the_process_that_holds_it() -> None:
    name = LabConfig().name
    holder = subprocess.Popen([sys.executable, "-c", KILLED_INSIDE.format(name=name)], stdout=subprocess.PIPE)
    assert holder.stdout is not None
    keeper = os.pidfd_open(int(holder.stdout.readline()))
    assert netns.wait_for_end(keeper, 20)
    holder.wait()
    holder.stdout.close()
    assert traces(name) == []


def test_what_a_killed_keeper_leaves_the_next_up_removes() -> None:
    crashed = commands.up()
    keeper = os.pidfd_open(crashed.pid)
    signal.pidfd_send_signal(keeper, signal.SIGKILL)
    assert netns.wait_for_end(keeper, 10)
    assert [each.state for each in commands.status() if each.name == crashed.name] == ["crashed"]
    with Lab():
        assert traces(crashed.name) == []


def test_a_crashed_labs_name_is_free_again() -> None:
    name = commands.up().name
    keeper = os.pidfd_open(registry.find(name).pid)
    signal.pidfd_send_signal(keeper, signal.SIGKILL)
    assert netns.wait_for_end(keeper, 10)
    assert commands.up(name).name == name
    assert commands.down(name) == [name]
    assert traces(name) == []


def test_a_name_serves_one_lab_only(lab: Lab) -> None:
    with pytest.raises(irl.ConfigError, match="There is a lab"):
        commands.up(lab.name)
    assert get_in(lab, "198.19.0.1")


def get_in(lab: Lab, host: str) -> bytes:
    with lab.enter():
        return get(host)


def test_two_labs_stand_side_by_side(lab: Lab) -> None:
    with Lab() as other:
        assert get_in(lab, "198.19.0.1") == get_in(other, "198.19.0.1")


def test_a_lab_that_cannot_be_made_says_why_and_leaves_nothing() -> None:
    lab = Lab(nginx=("198.18.0.2/33",))
    with pytest.raises(irl.EngineError, match=r"198\.18\.0\.2/33"):
        lab.up()
    assert traces(lab.name) == []


@pytest.mark.parametrize("name", ["", "a b", "../x", "Lab", "x" * 33])
def test_a_name_that_cannot_be_a_file_or_namespace_is_refused(name: str) -> None:
    with pytest.raises(irl.ConfigError, match="cannot name a lab"):
        Lab(name=name)


def test_a_shell_needs_a_lab_to_enter() -> None:
    with pytest.raises(irl.ConfigError, match="Name one lab"):
        commands.shell("no-such-lab")
