"""What the sections of the registry tests share: a directory, the program under test, its peers."""

import os
import re
import subprocess
from pathlib import Path

from machine import Result

# No single command of the tests takes longer on a slow machine.
TIMEOUT_S = 300


def digest_in(result):
    """The first digest that a command printed."""
    found = re.search(r"sha256:[0-9a-f]{64}", result.out)
    return found.group() if found else None


class Bed:
    """A directory for everything, and commands that run in it."""

    def __init__(self, directory, program, checks):
        self.directory, self.program, self.checks = Path(directory), Path(program), checks
        # Nothing of the user's own: no credentials, no proxies.
        self.env = {"PATH": os.environ["PATH"], "HOME": str(self.directory / "home"), "LC_ALL": "C.UTF-8",
                    "XDG_RUNTIME_DIR": str(self.directory / "home")}
        (self.directory / "home").mkdir()

    def path(self, name):
        return self.directory / name

    def command(self, *words, timeout=TIMEOUT_S):
        """Runs a program to its end."""
        done = subprocess.run([str(word) for word in words], cwd=self.directory, env=self.env, timeout=timeout,
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        return Result(done.returncode, done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace"))

    def aos(self, *words, **options):
        """Runs the program under test."""
        return self.command(self.program, *words, **options)

    def spawn(self, *words):
        """Starts the program under test."""
        return subprocess.Popen([str(self.program), *map(str, words)], cwd=self.directory, env=self.env,
                                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    def skopeo(self, *words):
        return self.command("skopeo", *words)

    def make(self, store, name, *sizes):
        """A package in a store, with layers of these sizes; its digest."""
        made = self.aos("make", store, name, *sizes)
        if made.code:
            raise RuntimeError(made.text)
        return digest_in(made)
