"""An HTTP server for one run, which never makes it wait."""

import errno
import logging
import socket
import threading
import weakref
from socketserver import TCPServer, ThreadingMixIn
from types import TracebackType
from typing import Any, Self
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from prometheus_client import CollectorRegistry, make_wsgi_app

from irlstack.errors import ConfigError
from irlstack.metrics.families import Families
from irlstack.run import Run

_LOOK_EVERY_S = 0.1
"""How long closing may take."""
_PATIENCE_S = 5.0
"""How long a client may take to say what it wants."""
_log = logging.getLogger(__name__)


class Server:
    """Serves a run's numbers until it is closed, or the run object goes.

    Attributes:
        url: where they are.
    """

    def __init__(self, run: Run, host: str, port: int) -> None:
        """Binds; from here on connections are taken.

        Raises:
            ConfigError: it cannot be bound.
        """
        self._over = threading.Event()
        try:
            self._http = _Http(host, port)
        except OSError as error:
            where = f"port {port} of {host}"
            if error.errno == errno.EADDRINUSE:
                raise ConfigError(f"Metrics: {where} is in use; give another, or 0 for one that is free.") from error
            raise ConfigError(f"Metrics cannot be served on {where}: {error.strerror}.") from error
        registry = CollectorRegistry()
        # Weakly: whoever drops a run wants it stopped.
        self._run = weakref.ref(run)
        registry.register(Families(self._run))
        self._http.set_app(make_wsgi_app(registry))
        bound = f"[{host}]" if ":" in host else host
        self.url = f"http://{bound}:{self._http.server_port}/metrics"
        self._thread = threading.Thread(target=self._serve, name="irl-metrics", daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        with self._http:
            while not self._over.is_set() and self._run() is not None:
                self._http.handle_request()

    def close(self) -> None:
        """Take no more connections, and let go of the port."""
        self._over.set()
        self._thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Server, {self.url}{', closed' if self._over.is_set() else ''}>"


class _Http(ThreadingMixIn, WSGIServer):
    """A thread a request: a client that is slow holds nobody up."""

    daemon_threads = True
    timeout = _LOOK_EVERY_S

    def __init__(self, host: str, port: int) -> None:
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        super().__init__((host, port), _Silent)

    def server_bind(self) -> None:
        """Binds, and asks no resolver for the name of the address as HTTPServer does."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = self.server_address[:2]  # type: ignore[assignment]
        self.setup_environ()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is nothing to tell a person of."""
        _log.debug("A request for metrics from %s failed.", client_address, exc_info=True)


class _Silent(WSGIRequestHandler):
    timeout = _PATIENCE_S

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - its name there
        _log.debug("metrics: " + format, *args)
