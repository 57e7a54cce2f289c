"""QEMU's machine protocol, as little of it as starting, stopping and watching a machine takes."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any


class QmpError(Exception):
    """QEMU refused a command or hung up."""


class Qmp:
    """One control connection; events between a command and its answer are dropped."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(60)
        self._socket.connect(str(path))
        self._lines = self._socket.makefile("r", encoding="utf-8")
        self._lines.readline()
        self.command("qmp_capabilities")

    def command(self, name: str, **arguments: Any) -> Any:
        """Run one command and return its result."""
        request: dict[str, Any] = {"execute": name}
        if arguments:
            request["arguments"] = arguments
        try:
            self._socket.sendall(json.dumps(request).encode() + b"\n")
            while line := self._lines.readline():
                answer = json.loads(line)
                if "return" in answer:
                    return answer["return"]
                if "error" in answer:
                    raise QmpError(f"QEMU refused {name}: {answer['error']['desc']}")
        except OSError as error:
            raise QmpError(f"QEMU did not answer {name}: {error}") from error
        raise QmpError(f"QEMU hung up at {name}")

    def close(self) -> None:
        """Hang up."""
        self._lines.close()
        self._socket.close()
