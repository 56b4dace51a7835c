"""An exchange whose hosts hold: `python -m tests.netns.outstanding PREFIX COUNT` in a lab's client namespace.

Prints a JSON line when all connections are outstanding, with what they cost, and another when it is over. Goes on from
the first when a line comes on standard input.
"""

import json
import re
import sys
import threading
import time
from pathlib import Path

import polars as pl

import irlstack as irl
from tests.netns.conftest import SPARE


def memory() -> int:
    """Resident bytes of this process."""
    found = re.search(r"VmRSS:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found
    return int(found[1]) * 1024


def main() -> None:
    prefix, count = sys.argv[1], int(sys.argv[2])
    statuses: dict[str, int] = {}
    with irl.Stack("va", source_ip=[SPARE]) as stack:
        run = stack.exchange(
            prefix,
            ports=80,
            max_targets=count,
            request=b"x" * 100,
            until=100,
            rate=0,
            reprobe=2,
            cooldown_time=1,
            timeout=600,
            max_connections=count + 100_000,
            max_bytes=100,
            max_memory=8 << 30,
        )

        def read() -> None:
            for batch in run:
                for status, rows in pl.DataFrame(batch)["status"].value_counts().iter_rows():
                    statuses[status] = statuses.get(status, 0) + rows

        reader = threading.Thread(target=read)
        before = memory()
        reader.start()

        def opened(connections: int) -> int:
            while run.stats.get("connections_opened", 0) < connections:
                time.sleep(0.05)
            return memory()

        # What does not grow with connections, rings above all, is touched by the first half of them.
        half, whole = opened(count // 2), opened(count)
        each, with_rings = (whole - half) / (count - count // 2), (whole - before) / count
        print(json.dumps({"outstanding": count, "bytes_each": each, "with_rings": with_rings}), flush=True)
        sys.stdin.readline()
        reader.join()
        print(json.dumps({"statuses": statuses, "stats": run.stats}, default=str), flush=True)


if __name__ == "__main__":
    main()
