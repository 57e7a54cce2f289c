"""The inside of a running machine, over SSH: one multiplexed connection, because each handshake is dear under emulation."""

from __future__ import annotations

import shlex
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path


class GuestError(Exception):
    """The guest was not reached, or a command in it failed."""


class Guest:
    """Root's SSH session in the machine behind a forwarded loopback port."""

    def __init__(self, port: int, key: Path, folder: Path, alive: Callable[[], None]) -> None:
        """`folder` takes the control socket (so its path is short); `alive` raises when the machine has ended."""
        self.port = port
        self.key = key
        self._folder = folder
        self._alive = alive

    @property
    def ssh_options(self) -> list[str]:
        """Options that belong to this machine only; nothing of the user's configuration is read."""
        options = {
            "BatchMode": "yes",
            "ConnectTimeout": "60",
            "ControlMaster": "auto",
            "ControlPath": self._folder / "ssh",
            "ControlPersist": "yes",
            "IdentitiesOnly": "yes",
            "LogLevel": "ERROR",
            "ServerAliveInterval": "30",
            "ServerAliveCountMax": "10",
            "StrictHostKeyChecking": "accept-new",
            "UserKnownHostsFile": self._folder / "known_hosts",
        }
        return ["-F", "none", "-i", str(self.key), *(w for k, v in options.items() for w in ("-o", f"{k}={v}"))]

    def wait_ssh(self, timeout_s: float) -> None:
        """Return once sshd greets; QEMU's forwarding accepts long before, so the greeting is the event."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            self._alive()
            try:
                with socket.create_connection(("127.0.0.1", self.port), timeout=10) as probe:
                    probe.settimeout(30)
                    if probe.recv(4) == b"SSH-":
                        return
            except OSError:
                pass  # refused or reset until sshd listens
            time.sleep(0.5)
        raise GuestError(f"sshd in the machine did not answer on 127.0.0.1:{self.port} within {timeout_s:.0f} s")

    def run(
        self, command: str | list[str], *, timeout_s: float = 300, check: bool = True, stdin: bytes | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run a shell line, or exact arguments, as root; with `check`, a non-zero status raises with the output."""
        line = command if isinstance(command, str) else shlex.join(command)
        try:
            done = subprocess.run(
                ["ssh", *self.ssh_options, "-p", str(self.port), "root@127.0.0.1", line],
                input=stdin if stdin is not None else b"", capture_output=True, timeout=timeout_s, check=False,
            )  # fmt: skip
        except subprocess.TimeoutExpired as error:
            self._alive()
            raise GuestError(f"`{line}` in the machine took more than {timeout_s:.0f} s") from error
        result = subprocess.CompletedProcess(
            line, done.returncode, done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace")
        )
        if done.returncode == 255:
            self._alive()
        if check and done.returncode != 0:
            output = (result.stdout + result.stderr).strip()[-4000:]
            raise GuestError(f"`{line}` in the machine ended with status {done.returncode}:\n{output}")
        return result

    def start(self, command: str) -> subprocess.Popen[bytes]:
        """Start a shell line and return at once; the caller reads its output and waits."""
        return subprocess.Popen(
            ["ssh", *self.ssh_options, "-p", str(self.port), "root@127.0.0.1", command],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip

    def push(self, source: Path, target: str) -> None:
        """Copy a file or a folder into the machine, as `target`, which must not exist when it is a folder."""
        arguments = ["scp", "-q", "-r", *self.ssh_options, "-P", str(self.port), str(source), f"root@127.0.0.1:{target}"]
        done = subprocess.run(arguments, capture_output=True, text=True, timeout=300, check=False)
        if done.returncode != 0:
            raise GuestError(f"{source} could not be copied into the machine: {done.stderr.strip()}")

    def hang_up(self) -> None:
        """End the shared connection, before the machine reboots or stops."""
        if (self._folder / "ssh").exists():
            subprocess.run(
                ["ssh", *self.ssh_options, "-p", str(self.port), "-O", "exit", "root@127.0.0.1"],
                capture_output=True, timeout=30, check=False,
            )  # fmt: skip
