"""A machine's serial console as a conversation: everything it prints is logged, and `expect` waits for an event.

Invariants: one reader thread owns the socket's receiving side; `expect` consumes what it matched, so that two
identical prompts are two events; every wait has a deadline, and its error carries the console's tail.
"""

from __future__ import annotations

import contextlib
import re
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

# Cursor movement, colours and the queries that a shell or a wizard sends to a terminal.
_ESCAPES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[()][A-Za-z0-9]|[=>NOM78c])")


class ConsoleError(Exception):
    """The console did not print what was expected, or went away."""


class Console:
    """One serial line behind a Unix socket."""

    def __init__(self, path: Path, log: Path, what: str) -> None:
        self.log = log
        self.what = what
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.connect(str(path))
        self._changed = threading.Condition()
        self._text = ""
        self._read_to = 0
        self._closed = False
        self._copy: socket.socket | None = None
        self._reader = threading.Thread(target=self._read, name=f"console-{log.stem}", daemon=True)
        self._reader.start()

    def _read(self) -> None:
        with self.log.open("ab", buffering=0) as log:
            while True:
                try:
                    data = self._socket.recv(65536)
                except OSError:
                    data = b""
                if data:
                    log.write(data)
                with self._changed:
                    if data:
                        self._text += data.decode("utf-8", "replace").replace("\r", "")
                    else:
                        self._closed = True
                    self._pass_on(data)
                    self._changed.notify_all()
                if not data:
                    return

    def _pass_on(self, data: bytes) -> None:
        if self._copy is not None:
            with contextlib.suppress(OSError):
                self._copy.sendall(data) if data else self._copy.shutdown(socket.SHUT_WR)

    @property
    def text(self) -> str:
        """All that was printed so far, without terminal escapes."""
        with self._changed:
            return _ESCAPES.sub("", self._text)

    def tail(self, lines: int = 40) -> str:
        """The last lines, for an error message."""
        return "\n".join(self.text.splitlines()[-lines:])

    def expect(self, pattern: str, timeout_s: float) -> re.Match[str]:
        """Wait until `pattern` is printed after what the last `expect` matched; consume up to its end."""
        regex = re.compile(pattern, re.MULTILINE)
        deadline = time.monotonic() + timeout_s
        with self._changed:
            while True:
                fresh = _ESCAPES.sub("", self._text[self._read_to :])
                if match := regex.search(fresh):
                    # Positions are in the text without escapes: keep what follows the match as the new rest.
                    self._text = self._text[: self._read_to] + fresh
                    self._read_to += match.end()
                    return match
                if self._closed:
                    raise ConsoleError(self._describe(f"{self.what} closed before it printed {pattern!r}"))
                left_s = deadline - time.monotonic()
                if left_s <= 0:
                    raise ConsoleError(self._describe(f"{self.what} did not print {pattern!r} within {timeout_s:.0f} s"))
                self._changed.wait(min(left_s, 1.0))

    def _describe(self, problem: str) -> str:
        tail = "\n".join(_ESCAPES.sub("", self._text).splitlines()[-40:])
        return f"{problem}\n--- the end of {self.log}:\n{tail}\n---"

    def seen(self, pattern: str) -> bool:
        """Whether `pattern` was ever printed, consumed or not."""
        return re.search(pattern, self.text, re.MULTILINE) is not None

    def send(self, text: str) -> None:
        """Type `text`."""
        self._socket.sendall(text.encode())

    def line(self, text: str = "") -> None:
        """Type `text` and press Enter."""
        self.send(text + "\r")

    @contextlib.contextmanager
    def borrow(self) -> Iterator[socket.socket]:
        """The other end of what this console prints from now on, which also takes what a person types."""
        ours, theirs = socket.socketpair()
        relay = threading.Thread(target=self._relay, args=(ours,), daemon=True)
        with self._changed:
            self._copy = ours
        relay.start()
        try:
            yield theirs
        finally:
            with self._changed:
                self._copy = None
            theirs.close()
            ours.close()

    def _relay(self, typed: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := typed.recv(4096):
                self._socket.sendall(data)

    def close(self) -> None:
        """Hang up."""
        try:
            self._socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass  # already gone with the machine
        self._socket.close()
        self._reader.join(5)
