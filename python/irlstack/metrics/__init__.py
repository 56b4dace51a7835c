"""Numbers of a run for whoever watches it: OpenMetrics, served on a loopback address (docs/watching.md).

    run = irl.scan("10.0.0.0/8", ports=80, engine="sim")
    with irl.metrics.serve(run, 9464) as server:
        print(server.url)                # http://127.0.0.1:9464/metrics
        run.write("out.parquet")

It needs the extra `irlstack[metrics]`. Numbers are read when they are asked for, and cost a run nothing otherwise.
"""

from ipaddress import ip_address
from typing import TYPE_CHECKING

from irlstack.errors import ConfigError
from irlstack.report.extra import need
from irlstack.run import Run

if TYPE_CHECKING:
    from irlstack.metrics.server import Server

__all__ = ["address", "serve"]


def serve(run: Run, at: int | str = 0) -> "Server":
    """Serve a run's numbers, from before its start on.

    The server ends with its `with` block, by `close()`, or with the run object, whatever comes first. It runs in a
    thread of its own; the run does not wait for it.

    Args:
        run: a scan or an exchange.
        at: a port, or "ADDRESS:PORT" with a loopback address; port 0 = one that is free, see `Server.url`.

    Raises:
        ConfigError: the address is no loopback address, the port is in use, or prometheus_client is missing.
    """
    host, port = address(at)
    need("prometheus_client", "metrics")
    from irlstack.metrics.server import Server

    return Server(run, host, port)


def address(text: int | str) -> tuple[str, int]:
    """The address and the port that `9464`, `127.0.0.1:9464`, `localhost:9464` or `[::1]:9464` name.

    Raises:
        ConfigError: it is none, or not a loopback address.
    """
    host, _, port = str(text).rpartition(":")
    host = {"": "127.0.0.1", "localhost": "127.0.0.1"}.get(host, host.removeprefix("[").removesuffix("]"))
    if not (port.isascii() and port.isdigit() and int(port) <= 65535):
        raise ConfigError(f"Metrics cannot be served at {text!r}: give a port, such as 9464, or ADDRESS:PORT.")
    try:
        is_loopback = ip_address(host).is_loopback
    except ValueError:
        raise ConfigError(f"Metrics cannot be served at {text!r}: {host!r} is no address.") from None
    if not is_loopback:
        raise ConfigError(
            f"Metrics are served on loopback only, and {host} is reached from elsewhere. From another machine go by a "
            f"tunnel (ssh -L {port}:127.0.0.1:{port} THIS_HOST), or put a proxy that knows its clients before them."
        )
    return host, int(port)
