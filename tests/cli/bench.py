"""A place to run `aos` in: a store, keys and folders of its own, and nothing of the machine's."""

import json
import os
import shutil
import socket
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

PASSPHRASE = "correct horse\n"
# A build that hangs is a failure, not a hung test.
TIMEOUT_S = 300

AGENT = """apiVersion: aos/v1
kind: Agent
metadata: {{ name: {name}, version: {version}, description: a test }}
{more}run: {{ entrypoint: [ /app/start ] }}
"""

STAGES = """build:
  args: { WHO: world }
  stages:
    - name: made
      from: host
      steps:
        - run: "echo \\"hello ${WHO}\\" > /made.txt"
    - name: app
      from: scratch
      steps:
        - copy: { from: src, to: /app/ }
        - copy: { stage: made, from: made.txt, to: /app/made.txt }
"""

SKILL = """apiVersion: aos/v1
kind: Skill
metadata: {{ name: {name}, version: {version}, description: a skill }}
{more}"""


@dataclass
class Done:
    """A program that ended."""

    code: int
    out: str
    err: str

    @property
    def text(self):
        return self.out + self.err

    @property
    def json(self):
        try:
            return json.loads(self.out)
        except ValueError as error:
            raise AssertionError(f"no JSON: exit status {self.code}\n{self.text}") from error


class Bench:
    """A store, keys, and folders."""

    def __init__(self, place, aos, name="main"):
        self.aos = aos
        self.place = place / name
        self.place.mkdir(parents=True)
        self.store = self.place / "store"
        self.passphrase = self.place / "passphrase"
        self.passphrase.write_text(PASSPHRASE)
        self.environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(self.place / "home"),
            "AOS_STORE": str(self.store),
            "AOS_KEYS": str(self.place / "keys"),
            "AOS_LAUNCH": str(Path(aos).with_name("aos-launch")),
            "TMPDIR": str(self.place / "tmp"),
            # No supervisor answers here, whatever machine this is.
            "DBUS_SYSTEM_BUS_ADDRESS": "unix:path=/nonexistent/bus",
        }
        for name in ("home", "tmp"):
            (self.place / name).mkdir()

    def run(self, *words, cwd=None, env=None, stdin=None, prefix=(), fds=()):
        """Runs `aos` with these words."""
        done = subprocess.run([*prefix, self.aos, *map(str, words)], cwd=cwd or self.place, input=stdin,
                              env={**self.environment, **(env or {})}, capture_output=True, text=True,
                              timeout=TIMEOUT_S, check=False, pass_fds=fds)
        return Done(done.returncode, done.stdout, done.stderr)

    def start(self, *words, cwd=None):
        """Starts `aos` with these words."""
        return subprocess.Popen([self.aos, *map(str, words)], cwd=cwd or self.place, env=self.environment,
                                stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def file(self, name, text, mode=0o644):
        path = self.place / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(mode)
        return path

    def agent(self, folder, name="hello", version="1.0.0", more=STAGES, capabilities=()):
        """A folder with an agent."""
        text = AGENT.format(name=name, version=version, more=more)
        if capabilities:
            text += f"capabilities: {json.dumps(list(capabilities))}\n"
        self.file(f"{folder}/Agentfile", text)
        self.file(f"{folder}/src/start", "#!/bin/sh\ncat /app/made.txt\n", 0o755)
        return self.place / folder

    def skill(self, folder, name, version, more=""):
        """A folder with a skill."""
        self.file(f"{folder}/Agentfile", SKILL.format(name=name, version=version, more=more))
        self.file(f"{folder}/SKILL.md", f"---\nname: {name}\ndescription: a skill\n---\n{version}\n")
        return self.place / folder

    def trust(self, name, text):
        """A rule of this store."""
        return self.file(f"store/trust.d/{name}", text)

    def key(self, name):
        """Makes a key; returns its id."""
        made = self.run("key", "generate", name, "--passphrase-file", self.passphrase)
        assert made.code == 0, made.text
        return made.out.strip()


class Registry:
    """A docker-registry of this test; ends with it."""

    def __init__(self, place):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.host = f"127.0.0.1:{port}"
        config = place / "registry.yml"
        config.write_text(
            f"version: 0.1\nlog: {{ level: error }}\nstorage: {{ filesystem: {{ rootdirectory: {place / 'registry'} }} }}\n"
            f"http: {{ addr: '{self.host}' }}\n")
        self.process = subprocess.Popen(["docker-registry", "serve", str(config)],
                                        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for _ in range(100):
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                return
            except OSError:
                time.sleep(0.1)
        raise RuntimeError("docker-registry does not answer")

    def close(self):
        self.process.terminate()
        self.process.wait()


def needs(*programs):
    """The programs that are missing."""
    return [program for program in programs if shutil.which(program) is None]


def other(*words, cwd=None):
    """Runs another program."""
    done = subprocess.run(list(map(str, words)), cwd=cwd, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    return Done(done.returncode, done.stdout, done.stderr)
