"""Connections that are all outstanding at once: what each costs, and that each comes to its end."""

import json
import os
import subprocess
import sys
from typing import Any

import pytest

from irlstack.lab import Lab

pytestmark = pytest.mark.alone
COUNT = int(os.environ.get("IRLSTACK_OUTSTANDING", "1000000"))
"""5,000,000 in `make soak`."""
BYTES_EACH = 192


@pytest.mark.timeout(60 + COUNT // 20_000)
def test_all_that_is_held_is_kept_in_little_memory_and_ends_well_once_released() -> None:
    with Lab(everything_open=True, service="exchange:100") as lab:
        lab.hold()
        command = [sys.executable, "-m", "tests.netns.outstanding", "10.0.0.0/8", str(COUNT)]
        child = lab.start(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert child.stdin is not None
        assert child.stdout is not None
        held: dict[str, Any] = json.loads(child.stdout.readline())
        lab.release()
        child.stdin.write("\n")
        child.stdin.flush()
        ended = json.loads(child.stdout.readline())
        child.stdin.close()
        child.stdout.close()
        assert child.wait() == 0
    success = ended["statuses"].get("success", 0)
    cost = f"{held['bytes_each']:.0f} bytes each ({held['with_rings']:.0f} with the rings)"
    print(f"{COUNT:,} outstanding at {cost}; {success:,} ended as success once released")
    assert held["bytes_each"] <= BYTES_EACH
    assert success >= 0.9999 * COUNT, ended["statuses"]
    assert ended["stats"]["connections_opened"] == COUNT
