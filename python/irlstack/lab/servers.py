"""Real servers of a lab: nginx, openssh's sshd and one that misbehaves, each on every local address of a namespace.

Each has a configuration and a folder of its own; the system's services are left alone.
"""

import os
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO

from irlstack.errors import EngineError
from irlstack.lab import misbehaving, netns

BODY = b"IRLstack lab: an nginx on every address.\n"
_WORKERS = 2
_SBIN = "/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin"
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


# Everybody may ask at once, and nobody ever gets in.
_SSHD_CONFIGURATION = """\
ListenAddress 0.0.0.0:{port}
ListenAddress [::]:{port}
HostKey {folder}/host_key
PidFile none
AuthorizedKeysFile none
PasswordAuthentication no
KbdInteractiveAuthentication no
UsePAM no
UseDNS no
MaxStartups 10000
PerSourceMaxStartups none
PerSourceNetBlockSize 32:128
LoginGraceTime 30
"""
SSH_PORT = 22
_SSHD_RUN = Path("/run/sshd")


class Server:
    """A server in a namespace; it dies with the process that started it."""

    name = ""

    def __init__(self, namespace: str, command: Sequence[str | Path], ready: str, times: int = 1) -> None:
        """Starts it and returns once it has said so often that it is ready.

        Raises:
            EngineError: it ended at once; the message carries its words.
        """
        # A process namespace of its own: whatever kills the keeper, the kernel ends its children with it.
        guard = ["setpriv", "--pdeathsig", "KILL", "unshare", "--pid", "--fork", "--kill-child"]
        self._process = netns.start(namespace, [*guard, *command], stdin=subprocess.DEVNULL, stderr=subprocess.PIPE)
        pipe = self._process.stderr
        assert pipe is not None  # noqa: S101 - asked for above
        self.errors: IO[bytes] = pipe
        said = []
        for line in self._lines():
            times -= ready in line
            if not times:
                return
            said.append(line)
        self.stop()
        raise EngineError(f"{self.name} ended before it listened: {' '.join(said[-3:])}")

    def _lines(self) -> Iterator[str]:
        for line in self.errors:
            yield line.decode(errors="replace").rstrip()

    def stop(self) -> None:
        """Ends it and waits until the last of its processes has ended."""
        # Its guard waits for it, and so leaves no orphan for init to bury.
        guard = self._process.pid
        for child in Path(f"/proc/{guard}/task/{guard}/children").read_text().split():
            os.kill(int(child), signal.SIGKILL)
        self._process.wait()
        for _ in self.errors:  # it ends when nobody holds the pipe any more
            pass
        self.errors.close()


class Nginx(Server):
    """nginx on port 80."""

    name = "nginx"

    def __init__(self, namespace: str, folder: Path) -> None:
        """Starts nginx and returns once it listens.

        Raises:
            EngineError: it is not installed, or ended at once; the message carries its words.
        """
        program = _program("nginx", "nginx-light")
        (folder / "www").mkdir(parents=True)
        (folder / "www" / "index.html").write_bytes(BODY)
        for each in (folder, folder / "www", folder / "www" / "index.html"):
            each.chmod(0o755 if each.is_dir() else 0o644)
        files = open_files()
        configuration = folder / "nginx.conf"
        configuration.write_text(
            _CONFIGURATION.format(
                workers=_WORKERS, files=files, connections=max(files - _SPARE_FILES, 64), folder=folder
            )
        )
        command = ["-p", str(folder), "-c", str(configuration), "-e", "stderr"]
        super().__init__(namespace, [program, *command], "start worker process ")


class Sshd(Server):
    """openssh's sshd on port 22, which lets nobody in."""

    name = "sshd"

    def __init__(self, namespace: str, folder: Path) -> None:
        """Starts sshd with a key of its own and returns once it listens.

        Raises:
            EngineError: it is not installed, or ended at once; the message carries its words.
        """
        program = _program("sshd", "openssh-server")
        folder.mkdir()
        # Where it locks its helpers up; a system that starts sshd itself has it.
        _SSHD_RUN.mkdir(mode=0o755, exist_ok=True)
        key = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", str(folder / "host_key")]
        made = subprocess.run(key, capture_output=True, text=True, check=False)  # noqa: S603 - of openssh, too
        if made.returncode:
            raise EngineError(f"ssh-keygen made no host key: {made.stderr.strip()}")
        configuration = folder / "sshd.conf"
        configuration.write_text(_SSHD_CONFIGURATION.format(port=SSH_PORT, folder=folder))
        super().__init__(namespace, [program, "-D", "-e", "-f", configuration], "Server listening on ", times=2)


class Misbehaving(Server):
    """The server of [`irlstack.lab.misbehaving`][], a habit a port."""

    name = "the misbehaving server"

    def __init__(self, namespace: str) -> None:
        """Starts it and returns once it listens.

        Raises:
            EngineError: it ended at once; the message carries its words.
        """
        # The keeper's own environment finds this very package.
        super().__init__(namespace, [sys.executable, "-m", misbehaving.__name__], misbehaving.READY)


def open_files() -> int:
    """How many files a server may have open."""
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    return 65_536 if files == resource.RLIM_INFINITY else min(files, 65_536)


def _program(name: str, package: str) -> str:
    program = shutil.which(name, path=_SBIN)
    if program is None:
        raise EngineError(f"{name} is not installed: apt-get install {package} (irlstack needs none of its service)")
    return program
