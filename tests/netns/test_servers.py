"""Real servers: nginx on each address of a /16, and what its side thinks of our frames."""

import re
import subprocess
from pathlib import Path

from irlstack.lab import Lab
from tests.netns.conftest import IRLSTACK, SPARE

HOSTS = 1 << 16


def test_nginx_on_a_16_is_found_whole_and_tcpdump_calls_every_frame_correct(lab: Lab, tmp_path: Path) -> None:
    capture = tmp_path / "far.pcap"
    # -B: a buffer for every frame, so that the kernel drops none before tcpdump has written it.
    command = ["tcpdump", "-i", "vb", "-n", "-B", "65536", "--immediate-mode", "-w", str(capture), f"src {SPARE}"]
    dump = lab.start(command, role="net", stderr=subprocess.PIPE, text=True)
    assert dump.stderr is not None
    assert any("listening on vb" in line for line in dump.stderr)
    arguments = ["198.19.0.0/16", "-p", "80", "-i", "va", "-S", SPARE, "-r", "20k", "-c", "2", "--json"]
    scan = lab.run([*IRLSTACK, "scan", *arguments, "-o", str(tmp_path / "rows.csv")])
    dump.terminate()
    _, said = dump.communicate()
    assert scan.returncode == 0, scan.stderr
    assert len((tmp_path / "rows.csv").read_text().splitlines()) == HOSTS + 1
    assert re.search(r"\b0 packets dropped by kernel", said), said

    dissected = subprocess.run(
        ["tcpdump", "-n", "-vv", "-r", str(capture)], capture_output=True, text=True, check=True
    ).stdout
    assert dissected.count("Flags [S],") == HOSTS
    assert dissected.count("Flags [R],") == HOSTS, "one reset of ours for each valid SYN-ACK"
    assert dissected.count("(correct)") == 2 * HOSTS
    complaints = [
        line for line in dissected.splitlines() if re.search(r"\b(incorrect|bad|wrong|invalid|truncated)\b", line)
    ]
    assert complaints == []
