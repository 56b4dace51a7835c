"""Real servers of a lab: nginx, from a configuration and a folder of its own, never the system's service."""

import os
import resource
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from irlstack.errors import EngineError
from irlstack.lab import netns

BODY = b"IRLstack lab: an nginx on every address.\n"
_WORKERS = 2
_READY = "start worker process "
# What a worker needs beside its connections: log, event queues, listening sockets, modules' files.
_SPARE_FILES = 64

_CONFIGURATION = """\
daemon off;
worker_processes {workers};
worker_rlimit_nofile {files};
pid {folder}/nginx.pid;
error_log stderr notice;
events {{ worker_connections {connections}; multi_accept on; }}
http {{
    access_log off;
    server_tokens off;
    default_type text/plain;
    keepalive_timeout 5s;
    client_header_timeout 10s;
    send_timeout 10s;
    reset_timedout_connection on;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    server {{
        listen 80 backlog=8192;
        listen [::]:80 backlog=8192;
        root {folder}/www;
    }}
}}
"""


class Nginx:
    """nginx on port 80 of every local address of a namespace; it dies with the process that started it."""

    def __init__(self, namespace: str, folder: Path) -> None:
        """Starts nginx and returns once it listens.

        Raises:
            EngineError: it is not installed, or ended at once; the message carries its words.
        """
        program = shutil.which("nginx", path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin")
        if program is None:
            raise EngineError(
                "nginx is not installed: apt-get install nginx-light (irlstack needs none of its service)"
            )
        (folder / "www").mkdir(parents=True)
        (folder / "www" / "index.html").write_bytes(BODY)
        for each in (folder, folder / "www", folder / "www" / "index.html"):
            each.chmod(0o755 if each.is_dir() else 0o644)
        files = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        files = 65_536 if files == resource.RLIM_INFINITY else min(files, 65_536)
        configuration = folder / "nginx.conf"
        configuration.write_text(
            _CONFIGURATION.format(
                workers=_WORKERS, files=files, connections=max(files - _SPARE_FILES, 64), folder=folder
            )
        )
        # A process namespace of its own: whatever kills the keeper, the kernel ends nginx's workers with nginx.
        guard = ["setpriv", "--pdeathsig", "KILL", "unshare", "--pid", "--fork", "--kill-child"]
        command = [*guard, program, "-p", str(folder), "-c", str(configuration), "-e", "stderr"]
        self._process = netns.start(namespace, command, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE)
        pipe = self._process.stderr
        assert pipe is not None  # noqa: S101 - asked for above
        self.errors: IO[bytes] = pipe
        said = []
        for line in self._lines():
            if _READY in line:
                return
            said.append(line)
        self.stop()
        raise EngineError(f"nginx ended before it listened: {' '.join(said[-3:])}")

    def _lines(self) -> Iterator[str]:
        for line in self.errors:
            yield line.decode(errors="replace").rstrip()

    def stop(self) -> None:
        """Ends nginx and waits until the last of its processes has ended."""
        # Its guard waits for it, and so leaves no orphan for init to bury.
        guard = self._process.pid
        for child in Path(f"/proc/{guard}/task/{guard}/children").read_text().split():
            os.kill(int(child), signal.SIGKILL)
        self._process.wait()
        for _ in self.errors:  # it ends when nobody holds the pipe any more
            pass
        self.errors.close()
