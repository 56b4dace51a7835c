"""The wiring of a lab: which namespaces, links, addresses and routes there are.

    client va  ── [relay ra  rb ] ── vb  net vr ── vs servers
           va2 ── [relay ra2 rb2] ── vb2

`client` is where measurements run. `net` is the gateway and, by XDP on `vb`, the hosts of the World's fast range.
`servers` holds nginx and other real servers on every address of its range (AnyIP) and the World's user-space responder.
A `relay` sits in the middle when the link shall lose, delay, reorder or repeat frames. Up to four links join client and
net (the paper's ports); the same hosts answer on each.
"""

import re
import secrets
from dataclasses import dataclass, field

from irlstack.errors import ConfigError
from irlstack.lab import netns
from irlstack.lab.registry import Interface, Namespace, Registration

MAX_PAIRS = 4
_NAME = re.compile(r"[a-z0-9][a-z0-9_.-]{0,31}")
_FORWARDING = {"net/ipv4/ip_forward": "1", "net/ipv6/conf/all/forwarding": "1"}
_SERVING = {
    "net/core/somaxconn": "8192",
    "net/ipv4/tcp_max_syn_backlog": "8192",
    # Scanners reset every connection, and their many peers would fill the caches of a small machine.
    "net/ipv4/tcp_max_tw_buckets": "4096",
    "net/ipv4/tcp_fin_timeout": "5",
}


@dataclass(frozen=True)
class Impairment:
    """What a lab's relay does to frames, each way, with a seed so that runs repeat."""

    loss: float = 0.0
    duplicate: float = 0.0
    reorder: float = 0.0
    delay_ms: float = 0.0
    seed: int = 1

    def __post_init__(self) -> None:
        for name in ("loss", "duplicate", "reorder"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"{name} is a probability between 0 and 1, not {getattr(self, name)}.")
        if self.delay_ms < 0:
            raise ConfigError(f"delay_ms cannot be negative: {self.delay_ms}.")


@dataclass(frozen=True)
class LabConfig:
    """Everything that fixes a lab.

    Attributes:
        name: unique on this machine.
        seed: the World's.
        xdp: prefixes, of both families, whose hosts answer from XDP on the gateway's interface.
        user: prefixes whose hosts answer from user space.
        nginx: prefixes with nginx on port 80 of every address.
        sshd: whether openssh's sshd is on port 22 of these addresses, too.
        misbehaving: whether the server of `irlstack.lab.misbehaving` is, on the ports of its habits.
        service: what stands behind the World's open ports: "response", "exchange:BYTES", "exchange:BYTES:fin" or
            "gnutella"; see docs/world.md.
        impairment: a relay on the link, if any.
        pairs: links between client and gateway, 1 to 4: va and vb, va2 and vb2, and so on, each with its own subnet.
        threaded: the gateway receives in kernel threads of its own, on another core than the sender's: three times
            the rate, but frames are dropped when it cannot follow. By default it receives in the sender's time, so
            that the link itself loses nothing. An engine that holds its core needs threads.
    """

    name: str = field(default_factory=lambda: secrets.token_hex(4))
    seed: int = 1
    everything_open: bool = False
    xdp: tuple[str, ...] = ("10.0.0.0/8", "fd00:10::/64")
    user: tuple[str, ...] = ("172.16.0.0/12", "fd00:172::/64")
    nginx: tuple[str, ...] = ("198.19.0.0/16", "fd00:19::/64")
    sshd: bool = False
    misbehaving: bool = False
    service: str = "response"
    impairment: Impairment | None = None
    threaded: bool = False
    pairs: int = 1

    def __post_init__(self) -> None:
        if not 1 <= self.pairs <= MAX_PAIRS:
            raise ConfigError(f"A lab has 1 to {MAX_PAIRS} pairs, not {self.pairs}.")
        if not _NAME.fullmatch(self.name):
            raise ConfigError(
                f"'{self.name}' cannot name a lab: up to 32 lower-case letters, digits, '.', '_' and '-', "
                "the first a letter or digit."
            )


# The first pair's subnet is 0, the servers' 1, further pairs' 2, 3 and 4.
_SERVERS = {
    "router": ("net", "vr", "198.18.1.1/24", "fd00:1::1/64", "fe80::1/64"),
    "servers": ("servers", "vs", "198.18.1.2/24", "fd00:1::2/64", "fe80::2/64"),
}


def suffix(pair: int) -> str:
    """What follows the names of a pair's ends and roles: nothing for pair 1, then 2, 3 and 4."""
    return "" if pair == 1 else str(pair)


def _ends(config: LabConfig) -> dict[str, tuple[str, str, str, str, str]]:
    """The role of each end: namespace, name, IPv4 prefix, IPv6 prefix, link-local."""
    ends = {}
    for pair in range(1, config.pairs + 1):
        n, ipv4, ipv6 = (
            suffix(pair),
            f"198.18.{0 if pair == 1 else pair}",
            "fd00:18:" + (f"{pair}::" if pair > 1 else ":"),
        )
        ends[f"client{n}"] = ("client", f"va{n}", f"{ipv4}.1/24", f"{ipv6}1/64", "fe80::1/64")
        ends[f"gateway{n}"] = ("net", f"vb{n}", f"{ipv4}.2/24", f"{ipv6}2/64", "fe80::2/64")
        if config.impairment:
            ends[f"relay_client{n}"] = ("relay", f"ra{n}", "", "", "")
            ends[f"relay_net{n}"] = ("relay", f"rb{n}", "", "", "")
    return ends | _SERVERS


def build(config: LabConfig, registration: Registration) -> None:
    """Makes namespaces and links, and adds them to the registration, which is saved before each namespace is made.

    Raises:
        EngineError: the kernel or `ip` refused something.
    """
    roles = {"client": {}, "net": _FORWARDING, "servers": _SERVING} | ({"relay": {}} if config.impairment else {})
    for role, settings in roles.items():
        name = f"irl-{config.name}-{role}"
        registration.namespaces[role] = Namespace(name, 0)
        registration.save()
        netns.make(name, settings)
        registration.namespaces[role] = Namespace(name, netns.inode(name))
    ends = _ends(config)
    default_routes = []
    for pair in range(1, config.pairs + 1):
        n = suffix(pair)
        if config.impairment:
            _link(registration, ends, f"client{n}", f"relay_client{n}")
            _link(registration, ends, f"relay_net{n}", f"gateway{n}")
        else:
            _link(registration, ends, f"client{n}", f"gateway{n}")
        _, _, ipv4, ipv6, _ = ends[f"gateway{n}"]
        for everywhere, gateway in (("default", ipv4), ("::/0", ipv6)):
            # The kernel's own packets take the first pair.
            via = f"via {gateway.partition('/')[0]} dev va{n}"
            default_routes.append(f"route add {everywhere} {via}" + (f" metric {1024 + pair}" if pair > 1 else ""))
    _link(registration, ends, "router", "servers")
    for role, (namespace, name, ipv4, ipv6, _) in ends.items():
        mac = netns.ip("-br", "link", "show", name, netns=registration.namespaces[namespace].name).split()[2]
        address4, address6 = ipv4.partition("/")[0], ipv6.partition("/")[0]
        registration.interfaces[role] = Interface(namespace, name, mac, address4, address6)
    far = [*config.user, *config.nginx]
    routes = {
        "client": default_routes,
        "net": [
            *(f"route add {each} via {'fd00:1::2' if ':' in each else '198.18.1.2'}" for each in far),
            # What XDP leaves to the responder in user space also reaches the kernel, which must not answer for it.
            *(f"route add blackhole {each}" for each in config.xdp),
        ],
        "servers": [
            "route add default via 198.18.1.1",
            "route add ::/0 via fd00:1::1",
            *(f"route add local {each} dev lo" for each in config.nginx),
        ],
    }
    for role, commands in routes.items():
        netns.batch(commands, registration.namespaces[role].name)
    registration.ranges = {"xdp": list(config.xdp), "user": list(config.user), "nginx": list(config.nginx)}
    registration.save()


def _link(registration: Registration, every: dict[str, tuple[str, str, str, str, str]], one: str, other: str) -> None:
    ends = []
    for role in (one, other):
        namespace, name, *_ = every[role]
        ends.append(f"{name} numrxqueues 2 numtxqueues 2 netns {registration.namespaces[namespace].name}")
    netns.batch([f"link add {ends[0]} type veth peer name {ends[1]}"])
    for role in (one, other):
        namespace, name, ipv4, ipv6, link_local = every[role]
        full_name = registration.namespaces[namespace].name
        # The kernel's offloads leave checksums unfinished on a veth pair, where no device ever finishes them.
        # GRO keeps NAPI on, without which frames redirected into this end would be lost silently.
        netns.configure(full_name, ["ethtool", "-K", name, "tx", "off", "tso", "off", "gso", "off", "gro", "on"])
        commands = [f"addr add {ipv4} dev {name}"] if ipv4 else []
        commands += [f"addr add {each} dev {name} nodad" for each in (ipv6, link_local) if each]
        if namespace == "relay":
            # The segments of real servers would arrive there as one that is too long to go on.
            commands.append(f"link set {name} gro_max_size 1")
        netns.batch([*commands, f"link set {name} up"], full_name)


def thread_napi(netns_name: str, interface: str) -> None:
    """Moves an interface's receive work to kernel threads of its own."""
    netns.configure(netns_name, ["sh", "-c", f"echo 1 > /sys/class/net/{interface}/threaded"])
