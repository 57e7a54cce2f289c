"""The agents that the package tests run, and users of the machine who run them."""

import os
import shutil

# Where they lie in the machine.
HOME = "/srv/agents"
# A stranger, and one who will be in the group `aos` once it exists; their stores are in their homes.
USERS = {"stranger": 2001, "reader": 2002}


def home(user):
    """A user's home, outside of what the section `remove and purge` looks at."""
    return f"/srv/home/{user}"


TICK = """\
import os, sys, time
print(f"tick pid={os.getpid()} uid={os.getuid()}", flush=True)
number = 0
while True:
    print(f"tick {number}", flush=True)
    number += 1
    time.sleep(0.5)
"""

EXIT = "import sys\nprint('to stdout', sys.argv[1:])\nprint('to stderr', file=sys.stderr)\nsys.exit(7)\n"


def agentfile(name, program, lifecycle="oneshot", version="1.0.0", extra=""):
    """An Agentfile for one Python program."""
    return f"""\
apiVersion: aos/v1
kind: Agent
metadata:
  name: {name}
  version: {version}
build:
  stages:
    - name: app
      from: host
      steps:
        - copy: {{ from: {program}, to: /app/{program} }}
run:
  entrypoint: [ /usr/bin/python3, /app/{program} ]
  lifecycle: {lifecycle}
{extra}"""


def write(machine, name, program, source, **how):
    """Writes one agent's folder."""
    machine.write(f"{HOME}/{name}/Agentfile", agentfile(name, program, **how))
    machine.write(f"{HOME}/{name}/{program}", source)


def write_all(machine, examples):
    """Writes every agent and the users, before the boot."""
    shutil.copytree(examples, machine.root / "srv/agents/examples", symlinks=True)
    write(machine, "tick", "tick.py", TICK, lifecycle="persistent")
    write(machine, "exit7", "exit7.py", EXIT)
    lines = [f"u {user} {uid} - {home(user)} /bin/sh\n" for user, uid in USERS.items()]
    machine.write("/etc/sysusers.d/test.conf", "".join(lines))
    for user, uid in USERS.items():
        folder = machine.root / home(user).lstrip("/")
        folder.mkdir(parents=True)
        os.chown(folder, uid, uid)
