"""What a lab can be told while it is up: its keeper listens on a socket in the lab's folder.

A connection carries one word and a line feed, and gets one line of JSON: `{"done": ANSWER}` or `{"error": TEXT}`. The
words are "hold", "release" and "counters".
"""

import json
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from irlstack.errors import EngineError, IrlError
from irlstack.lab import registry, responders

_NAME = "control"
_ANSWER_WITHIN_S = 10.0
_LONGEST_WORD = 64


class Listener:
    """The keeper's end."""

    def __init__(self, folder: Path, parts: Mapping[str, responders.Responder]) -> None:
        """Listens in a folder for what the lab's responders and relays, by interface, are to do."""
        self._parts = parts
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.bind(str(folder / _NAME))
        (folder / _NAME).chmod(0o600)
        self.socket.listen()

    def serve(self) -> None:
        """Answers one connection, which waits to be accepted."""
        connection, _ = self.socket.accept()
        with connection:
            connection.settimeout(_ANSWER_WITHIN_S)
            try:
                word = connection.makefile("rb").readline(_LONGEST_WORD).decode(errors="replace").strip()
                connection.sendall(json.dumps(self._obey(word)).encode() + b"\n")
            except OSError:  # whoever asked is gone, or never asked
                return

    def _obey(self, word: str) -> dict[str, Any]:
        hosts = [each for each in self._parts.values() if isinstance(each, responders.Hosts)]
        try:
            if word == "counters":
                return {"done": {name: each.counters() for name, each in self._parts.items()}}
            if word not in ("hold", "release"):
                return {"error": f"a lab cannot be told {word!r}"}
            for each in hosts:
                each.hold() if word == "hold" else each.release()
            return {"done": len(hosts)}
        except IrlError as error:
            return {"error": str(error)}

    def close(self) -> None:
        """Listens no more."""
        self.socket.close()


def tell(lab: registry.Registration, word: str) -> Any:
    """Tells a lab's keeper something and returns its answer, once it is done.

    Raises:
        EngineError: the keeper is gone, or could not.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(_ANSWER_WITHIN_S)
        try:
            connection.connect(str(lab.folder / _NAME))
            connection.sendall(word.encode() + b"\n")
            answer = json.loads(connection.makefile("rb").readline())
        except (OSError, ValueError) as error:
            raise EngineError(f"The keeper of the lab '{lab.name}' does not answer: {error}") from error
    if "error" in answer:
        raise EngineError(f"The lab '{lab.name}' did not {word}: {answer['error']}")
    return answer["done"]
