"""A throwaway Debian 13 machine for Python tests: tests/lib/nspawn.sh behind a context manager.

The machine is destroyed on every exit path; its journal is written to `log` first.
"""

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

NSPAWN = str(Path(__file__).resolve().parent / "nspawn.sh")


@dataclass
class Result:
    """What a command in the machine came to."""

    code: int
    out: str
    err: str

    @property
    def text(self):
        return self.out + self.err


class Machine:
    """One machine, from boot to destruction."""

    def __init__(self, name, base="minimal", log=None, options=(), keep=False):
        self.name = f"{name}-{os.getpid()}"
        self.base, self.log, self.options, self.keep = base, log, list(options), keep
        self.root = None

    def __enter__(self):
        owner = [] if self.keep else ["--owner", str(os.getpid())]
        made = subprocess.run(
            [NSPAWN, "create", "--base", self.base, *owner, self.name], check=True, stdout=subprocess.PIPE, text=True)
        self.root = Path(made.stdout.strip())
        return self

    def boot(self):
        """Boots and waits until systemd has started everything."""
        subprocess.run([NSPAWN, "boot", self.name, *self.options], check=True, stdin=subprocess.DEVNULL)

    def __exit__(self, *_):
        if self.log:
            with open(self.log, "wb") as out:
                subprocess.run([NSPAWN, "logs", self.name], stdout=out, stderr=out, check=False)
        if self.keep:
            print(f"kept: {NSPAWN} enter {self.name} bash -l; then {NSPAWN} destroy {self.name}")
        else:
            subprocess.run([NSPAWN, "destroy", self.name], check=True)

    def run(self, *command, user=None, cwd=None, env=None, stdin=None, timeout_s=120):
        """Runs a command as a service in the machine. A time-out is exit status 124."""
        options = []
        if user:
            options += ["-u", user]
        if cwd:
            options += ["-C", cwd]
        for key, value in (env or {}).items():
            options += ["-E", f"{key}={value}"]
        # Ended inside, so that nothing is left running there when the time is up.
        bounded = ["timeout", "-k", "5", str(timeout_s), *command]
        done = subprocess.run(
            [NSPAWN, "exec", self.name, *options, "--", *bounded], input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=timeout_s + 60)
        return Result(done.returncode, done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace"))

    def sh(self, script, **how):
        """Runs a shell script."""
        return self.run("sh", "-c", script, **how)

    def popen(self, *command, user=None):
        """Starts a command whose output is read later."""
        options = ["-u", user] if user else []
        return subprocess.Popen(
            [NSPAWN, "exec", self.name, *options, "--", *command],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    def write(self, path, content, mode=0o644):
        """Writes a file into the machine's tree, from outside."""
        file = self.root / path.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, str):
            content = content.encode()
        file.write_bytes(content)
        file.chmod(mode)
