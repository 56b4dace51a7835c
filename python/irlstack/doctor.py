"""What this machine can do, and the exact line that mends what it cannot."""

import os
import platform
import re
import socket
import sys
from dataclasses import dataclass, field
from importlib import metadata, util
from pathlib import Path
from typing import Any

import irlstack._core as core
from irlstack.errors import EngineError

_CAPABILITIES = {"CAP_NET_ADMIN": 12, "CAP_NET_RAW": 13, "CAP_SYS_ADMIN": 21, "CAP_PERFMON": 38, "CAP_BPF": 39}
_LIVE_KERNEL = (5, 18)
"""The first with live XDP frames."""
_OPTIONAL = ("numpy", "polars", "pyarrow", "duckdb", "matplotlib")
_SOURCE_PORTS = (61_000, 65_535)
_XDP_MTU = 3_498
"""Above it a frame does not fit the one page that XDP needs."""

_BUILT, _KERNEL = "kernel programs built in", "kernel with live XDP frames"
_PACKET, _LIVE = "sending (packet)", "sending (live)"


@dataclass(frozen=True)
class Check:
    """One thing that was looked at: what it is, whether it is fine, and if not, the line that mends it.

    There are several lines where it depends on how irlstack is run.
    """

    what: str
    fine: bool
    found: str
    mend: str = ""


@dataclass(frozen=True)
class Report:
    """Everything `irlstack doctor` found.

    `engines` are those that can be used here, best first; `passed_over` says why another one cannot.
    """

    versions: dict[str, str]
    checks: list[Check]
    interfaces: list[dict[str, Any]]
    engines: list[str] = field(default_factory=list)
    passed_over: dict[str, str] = field(default_factory=dict)


def examine() -> Report:
    """Look at this machine. Sends nothing and changes nothing."""
    capabilities = effective_capabilities()
    checks = [_platform(), _kernel_filter(), _kernel(), *_privileges(capabilities), _ports()]
    interfaces = []
    for _, name in socket.if_nameindex():
        try:
            interfaces.append(core.interface(name))
        except EngineError:
            continue  # loopback and the like: neither Ethernet nor bare IP packets, so nothing for us
    checks += [check for each in interfaces for check in _interface(each)]
    engines, passed_over = _ladder({check.what: check for check in checks})
    return Report(versions(), checks, interfaces, engines, passed_over)


def _ladder(checks: dict[str, Check]) -> tuple[list[str], dict[str, str]]:
    """The engines from the best down, and what those lack that cannot be used."""
    needs = {
        "live": (_BUILT, _KERNEL, _LIVE),
        "packet": (_PACKET,),
        "sim": (),
        "pcap:FILE": (),
        "replay:FILE": (),
    }
    engines, passed_over = [], {}
    for engine, names in needs.items():
        lacking = [f"{checks[name].what}: {checks[name].found}" for name in names if not checks[name].fine]
        if lacking:
            passed_over[engine] = "; ".join(lacking)
        else:
            engines.append(engine)
    return engines, passed_over


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
        _BUILT,
        built,
        "yes" if built else "no: there was no clang when irlstack was built",
        "" if built else "sudo apt-get install clang libbpf-dev && make build",
    )


def _kernel() -> Check:
    release = platform.release()
    digits = re.match(r"(\d+)\.(\d+)", release)
    new = digits is not None and (int(digits[1]), int(digits[2])) >= _LIVE_KERNEL
    return Check(_KERNEL, new, release, "" if new else "Boot Linux 5.18 or later; until then 'packet' sends.")


def _privileges(capabilities: set[str]) -> list[Check]:
    python = Path(sys.executable).resolve()
    command = Path(sys.argv[0]).resolve() if Path(sys.argv[0]).name == "irlstack" else "irlstack"
    names = ("net_raw", "net_admin", "bpf", "perfmon")
    unprivileged = "--reuid $(id -u) --regid $(id -g) --init-groups"
    ambient = ",".join(f"+{name}" for name in names)
    lines = "\n".join(
        (
            f"sudo {command} ...",
            f"sudo setcap {','.join(f'cap_{name}' for name in names)}+ep {python}",
            f"sudo setpriv {unprivileged} --inh-caps {ambient} --ambient-caps {ambient} {python} -m jupyter lab",
            f"docker run {' '.join(f'--cap-add {name.upper()}' for name in names)} ...",
        )
    )
    checks: list[Check] = []
    for what, needed in (
        (_PACKET, {"CAP_NET_RAW"}),
        (_LIVE, {"CAP_NET_RAW", "CAP_NET_ADMIN", "CAP_BPF"}),
        ("filtering in the kernel", {"CAP_NET_ADMIN", "CAP_BPF"}),
        ("counting live frames that the device refuses", {"CAP_PERFMON"}),
        ("making a lab", {"CAP_SYS_ADMIN", "CAP_NET_ADMIN"}),
    ):
        missing = needed - capabilities
        if "CAP_SYS_ADMIN" in capabilities:
            missing -= {"CAP_BPF", "CAP_PERFMON"}  # the older name of the same rights
        found = "no " + ", ".join(sorted(missing)) if missing else "allowed"
        # Said once in full: the lines grant everything but a lab.
        first = all(check.fine for check in checks)
        mend = lines if first else f"sudo {command} ..." if what == "making a lab" else "as above"
        checks.append(Check(what, not missing, found, mend if missing else ""))
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
    checks: list[Check] = []
    if not interface["ethernet"]:
        found = "none: packets leave from the IP header on; packet sends and receives, best from a spare address"
        return [Check(f"{name}: Ethernet", True, found, "route a spare address to it, at the other end")]
    if mtu > _XDP_MTU:
        mend = f"sudo ip link set {name} mtu {_XDP_MTU}"
        checks.append(Check(f"{name}: MTU small enough for the filter", False, str(mtu), mend))
    if interface["xdp_program"] is not None:
        found = f"the program '{interface['xdp_program']}' is there"
        mend = f"sudo ip link set {name} xdp off, if it is nobody's; --engine packet works beside it"
        checks.append(Check(f"{name}: free for the filter", False, found, mend))
    if interface["driver"] == "veth":
        found = "live frames get through only if the other end has GRO on or runs an XDP program"
        checks.append(Check(f"{name}: veth", True, found, "ethtool -K PEER gro on, at the other end"))
    return checks
