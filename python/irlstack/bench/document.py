"""The document that a benchmark ends in: where, with what, and every figure of every round."""

import datetime
import os
import platform
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import irlstack as irl
from irlstack.errors import EngineError, PrivilegeError

VERSION = 1


def need_linux() -> None:
    """Refuses where there are no network namespaces at all.

    Raises:
        EngineError: this is not Linux.
    """
    if sys.platform != "linux":
        raise EngineError("A benchmark makes network namespaces, which only Linux has.")


def need_root(what: str) -> None:
    """Refuses where no lab can be made.

    Raises:
        PrivilegeError: not root.
    """
    if os.geteuid() != 0:
        raise PrivilegeError(
            f"A benchmark makes network namespaces and raw sockets, which needs root: sudo irlstack bench {what}"
        )


def machine() -> dict[str, Any]:
    """The machine that the figures are of."""
    models = [line.partition(":")[2].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")]
    return {
        "cpu": models[0] if models else platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "kernel": platform.release(),
    }


def begin(
    bench: str, versions: Mapping[str, str], missing: Mapping[str, str], settings: Mapping[str, Any]
) -> dict[str, Any]:
    """The document without its figures, when the measuring begins.

    Args:
        bench: which benchmark.
        versions: of the contenders that are not ours.
        missing: contenders that are not there, and why.
        settings: what was asked for.
    """
    return {
        "version": VERSION,
        "bench": bench,
        "started": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "machine": machine(),
        "versions": {"irlstack": irl.__version__, "python": platform.python_version()} | dict(versions),
        "missing": dict(missing),
        "settings": dict(settings),
    }


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
