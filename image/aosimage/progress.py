"""Steps: one line each with its time, its log in image/out/logs, and on failure the command that repeats it.

Invariants: a step either ends with its line or raises `StepFailed`; everything a step's commands print is in its log;
children die with this process, and are ended (their whole process group) when it is interrupted.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

_TAIL_LINES = 25


class StepFailed(Exception):
    """A step did not reach its end; the message is what the user reads."""


class Step:
    """One running step: where its commands' output goes."""

    def __init__(self, name: str, log: Path) -> None:
        self.name = name
        self.log = log
        self.note = ""
        self._file = log.open("ab", buffering=0)

    def write(self, text: str) -> None:
        """Add a line of our own to the log."""
        self._file.write(text.encode() + b"\n")

    def run(
        self,
        command: list[str],
        *,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
        user: str | None = None,
    ) -> None:
        """Run a command into the log; a status other than 0 fails the step."""
        if user:
            command = ["runuser", "-u", user, "--", *command]
        self.write(f"$ {' '.join(command)}")
        child = subprocess.Popen(
            ["setpriv", "--pdeathsig", "TERM", "--", *command],
            cwd=cwd, env={**os.environ, **(env or {})}, stdin=subprocess.DEVNULL,
            stdout=self._file, stderr=self._file, start_new_session=True,
        )  # fmt: skip
        try:
            status = child.wait()
        except BaseException:
            _end_group(child)
            raise
        if status != 0:
            raise StepFailed(f"`{_brief(command)}` ended with status {status}")

    def read(self, command: list[str]) -> str:
        """Run a command and return what it prints; its errors go into the log."""
        self.write(f"$ {' '.join(command)}")
        done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=self._file, check=False)
        if done.returncode != 0:
            raise StepFailed(f"`{_brief(command)}` ended with status {done.returncode}")
        return done.stdout.decode(errors="replace")

    def tail(self) -> str:
        """The log's last lines."""
        lines = self.log.read_text(errors="replace").replace("\r", "\n").splitlines()
        return "\n".join(line for line in lines if line.strip())[-4000:].split("\n", 1)[-1] if lines else ""

    def close(self) -> None:
        """Close the log."""
        self._file.close()


def _brief(command: list[str]) -> str:
    """A command for a message; the log has all of it."""
    words = [word for word in command if word != "env" and not word.startswith("PYTHONPATH=")]
    line = " ".join(words)
    return line if len(line) <= 100 else f"{line[:90]} ..."


def _end_group(child: subprocess.Popen[bytes]) -> None:
    """End a child and what it started: politely, then not."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, number)
        try:
            child.wait(20)
        except subprocess.TimeoutExpired:
            continue
        return


class Progress:
    """Prints the steps and keeps their times."""

    def __init__(self, logs: Path) -> None:
        self.logs = logs
        self.times: list[tuple[str, float]] = []
        logs.mkdir(parents=True, exist_ok=True)

    @contextlib.contextmanager
    def step(self, name: str, title: str, repeat: str) -> Iterator[Step]:
        """Run the body as step `name`; `repeat` is the command that does this step again."""
        log = self.logs / f"{name}.log"
        log.unlink(missing_ok=True)
        step = Step(name, log)
        started = time.monotonic()
        interactive = sys.stdout.isatty()
        if interactive:
            print(f"  ....  {title}", end="\r", flush=True)
        try:
            yield step
        except KeyboardInterrupt:
            print(f"\n  stop  {title}: interrupted after {time.monotonic() - started:.1f} s", flush=True)
            raise
        except Exception as error:
            seconds = time.monotonic() - started
            print(f"  FAIL  {title}  {seconds:.1f} s", flush=True)
            raise StepFailed(_failure(step, str(error), repeat)) from error
        finally:
            step.close()
        seconds = time.monotonic() - started
        self.times.append((name, seconds))
        print(f"  ok    {title}{f' ({step.note})' if step.note else ''}  {seconds:.1f} s", flush=True)


def _failure(step: Step, reason: str, repeat: str) -> str:
    tail = step.tail().splitlines()[-_TAIL_LINES:]
    shown = "\n".join(f"    | {line[:200]}" for line in tail)
    return f"step `{step.name}` failed: {reason}\n{shown}\n  log:     {step.log}\n  repeat:  {repeat}"
