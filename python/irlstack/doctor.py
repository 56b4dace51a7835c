"""What this machine can do, and the exact line that mends what it cannot."""

import os
import platform
import socket
import sys
from dataclasses import dataclass, field
from importlib import metadata, util
from pathlib import Path
from typing import Any

import irlstack._core as core
from irlstack.errors import EngineError

_CAPABILITIES = {"CAP_NET_ADMIN": 12, "CAP_NET_RAW": 13, "CAP_SYS_ADMIN": 21, "CAP_BPF": 39}
_OPTIONAL = ("numpy", "polars", "pyarrow", "duckdb", "matplotlib")
_SOURCE_PORTS = (61_000, 65_535)
_XDP_MTU = 3_498
"""Above it a frame does not fit the one page that XDP needs."""


@dataclass(frozen=True)
class Check:
    """One thing that was looked at: what it is, whether it is fine, and if not, the line that mends it."""

    what: str
    fine: bool
    found: str
    mend: str = ""


@dataclass(frozen=True)
class Report:
    """Everything `irlstack doctor` found; `engines` are those that can be used here, best first."""

    versions: dict[str, str]
    checks: list[Check]
    interfaces: list[dict[str, Any]]
    engines: list[str] = field(default_factory=list)


def examine() -> Report:
    """Look at this machine. Sends nothing and changes nothing."""
    capabilities = effective_capabilities()
    checks = [_platform(), _kernel_filter(), *_privileges(capabilities), _ports()]
    interfaces = []
    for _, name in socket.if_nameindex():
        try:
            interfaces.append(core.interface(name))
        except EngineError:
            continue  # loopback, tunnels: not Ethernet, so nothing for us
    checks += [check for each in interfaces for check in _interface(each)]
    fine = {check.what: check.fine for check in checks}
    engines = ["packet"] if fine["sending (packet)"] else []
    return Report(versions(), checks, interfaces, [*engines, "sim"])


def versions() -> dict[str, str]:
    """Versions of irlstack, Python, the kernel and what irlstack works with; for bug reports."""
    found = {
        "irlstack": core.__version__,
        "python": platform.python_version(),
        "kernel": platform.release(),
        "machine": f"{platform.machine()}, {os.cpu_count()} CPUs",
    }
    for name in _OPTIONAL:
        found[name] = metadata.version(name) if util.find_spec(name) else "not installed"
    return found


def effective_capabilities() -> set[str]:
    """The capabilities of this process that matter here."""
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    except OSError:
        return set()
    mask = next((int(line.split()[1], 16) for line in lines if line.startswith("CapEff:")), 0)
    return {name for name, bit in _CAPABILITIES.items() if mask >> bit & 1}


def _platform() -> Check:
    system = platform.system()
    return Check("Linux", system == "Linux", system, "" if system == "Linux" else "Use Linux; here only 'sim' works.")


def _kernel_filter() -> Check:
    built = core.FILTER_BUILT
    return Check(
        "kernel filter built in",
        built,
        "yes" if built else "no: there was no clang when irlstack was built",
        "" if built else "sudo apt-get install clang libbpf-dev && make build",
    )


def _privileges(capabilities: set[str]) -> list[Check]:
    python = Path(sys.executable).resolve()
    command = Path(sys.argv[0]).resolve() if Path(sys.argv[0]).name == "irlstack" else "irlstack"
    lines = f"sudo {command} ...   or   sudo setcap cap_net_raw,cap_net_admin,cap_bpf+ep {python}"
    checks = []
    for what, needed in (
        ("sending (packet)", {"CAP_NET_RAW"}),
        ("filtering in the kernel", {"CAP_NET_ADMIN", "CAP_BPF"}),
        ("making a lab", {"CAP_SYS_ADMIN", "CAP_NET_ADMIN"}),
    ):
        missing = needed - capabilities
        if "CAP_SYS_ADMIN" in capabilities:
            missing -= {"CAP_BPF"}  # the older name of the same right
        root = what == "making a lab"
        found = "no " + ", ".join(sorted(missing)) if missing else "allowed"
        checks.append(Check(what, not missing, found, (f"sudo {command} ..." if root else lines) if missing else ""))
    return checks


def _ports() -> Check:
    try:
        first, last = map(int, Path("/proc/sys/net/ipv4/ip_local_port_range").read_text(encoding="ascii").split())
    except OSError:
        return Check("source ports", True, "unknown")
    overlap = first <= _SOURCE_PORTS[1] and last >= _SOURCE_PORTS[0]
    mend = f'sudo sysctl -w net.ipv4.ip_local_port_range="{min(first, 32_768)} {_SOURCE_PORTS[0] - 1}"'
    found = f"the host's own connections use {first}-{last}"
    return Check("source ports 61000-65535 free", not overlap, found, mend if overlap else "")


def _interface(interface: dict[str, Any]) -> list[Check]:
    name, mtu = interface["name"], interface["mtu"]
    checks = []
    if mtu > _XDP_MTU:
        mend = f"sudo ip link set {name} mtu {_XDP_MTU}"
        checks.append(Check(f"{name}: MTU small enough for the filter", False, str(mtu), mend))
    if interface["xdp_program"] is not None:
        found = f"the program '{interface['xdp_program']}' is there"
        mend = f"sudo ip link set {name} xdp off, if it is nobody's; --engine packet works beside it"
        checks.append(Check(f"{name}: free for the filter", False, found, mend))
    return checks
