"""What limits do to a command beside an agent: with controllers, and a kernel that runs out of a limit for real."""

import json

AGENT = """\
apiVersion: aos/v1
kind: Agent
metadata:
  name: host
  version: 1.0.0
build:
  stages:
    - name: app
      from: host
      steps:
        - copy: { from: host.py, to: /app/host.py }
run:
  entrypoint: [ /usr/bin/python3, /app/host.py ]
  lifecycle: persistent
limits:
  memory: 192M
  tasks: 64
"""
HOST = "import time\nheld = bytearray(40 << 20)\nfor i in range(0, len(held), 4096): held[i] = 1\nprint('on', flush=True)\nwhile True: time.sleep(1)\n"
UNIT = "aos-agent@host.service"
# Takes ever more, a megabyte at a time.
HOG = "held = []\\nwhile True: held.append(bytearray(b'x' * (1 << 20)))"
FORKS = "import os\\nchildren = 0\\ntry:\\n  while children < 50:\\n    if os.fork() == 0: import time; time.sleep(600)\\n    children += 1\\nexcept OSError: pass\\nprint(children)"


def section(checks, guest):
    """The command goes first, the agent never."""
    guest.run("mkdir -p /srv/host")
    for name, text in (("Agentfile.yaml", AGENT), ("host.py", HOST)):
        guest.run(f"cat > /srv/host/{name} <<'END'\n{text}\nEND")
    started = guest.run("cd /srv && aos run --detach ./host", check=False, timeout_s=300)
    if not checks.check("an agent with limits runs", started.returncode == 0, started.stdout + started.stderr):
        return
    before = main_pids(guest)
    done, result = python(guest, HOG, "--memory 32M")
    checks.check("a command beyond its own limit is killed, and says so",
                 done.returncode == 137 and result.get("oom_killed") is True, done.stdout + done.stderr)
    checks.check("it had no more than that", 0 < result.get("memory_peak_bytes", 0) <= 32 << 20, result)
    checks.check("the agent runs on", main_pids(guest) == before, before)
    done, result = python(guest, HOG, "")
    checks.check("a command without a limit, beyond the agent's, is killed before the agent",
                 done.returncode == 137 and result.get("oom_killed") is True, done.stdout + done.stderr)
    checks.check("and the agent, which holds 40 MB, runs on", main_pids(guest) == before, before)
    state = guest.run(f"systemctl show -p ActiveState -p Result {UNIT}", check=False).stdout.split()
    checks.check("systemd does not think otherwise", sorted(state) == ["ActiveState=active", "Result=success"], state)
    done, _ = python(guest, FORKS, "--tasks 8")
    checks.check("processes are limited", done.returncode == 0 and done.stderr.split()[:1] == ["7"], done.stdout + done.stderr)
    left = guest.run(f"ls -d /sys/fs/cgroup/aos.slice/aos-default.slice/{UNIT}/call-*", check=False).stdout
    checks.check("nothing of them is left", left == "", left)
    own_limit(checks, guest)
    guest.run("aos remove --stop host", check=False)


def own_limit(checks, guest):
    """The agent itself beyond its limit: it is stopped, and everybody is told why."""
    # Not one that is started again after its end.
    guest.run(f"printf \"{HOG}\" > /srv/host/host.py && sed -i /lifecycle:/d /srv/host/Agentfile.yaml")
    done = guest.run("cd /srv && aos run --replace --name hog ./host", check=False, timeout_s=300)
    checks.check("aos run ends with 137", done.returncode == 137, done.stdout + done.stderr)
    status = guest.run("aos status hog; aos list --json; systemctl status --no-pager aos-agent@hog", check=False).stdout
    checks.check("out of memory is what aos and systemd say", "oom-kill" in status and "out of memory" in status, status)
    guest.run("aos remove hog", check=False)


def python(guest, program, options):
    """Runs Python inside; the process and the result."""
    done = guest.run(f"aos exec host --json {options} -- python3 -c \"$(printf \"{program}\")\"", check=False, timeout_s=300)
    try:
        return done, json.loads(done.stdout)
    except ValueError:
        return done, {}


def main_pids(guest):
    """The launcher, the init and the agent."""
    return guest.run(f"systemctl show -P MainPID {UNIT}; cat /sys/fs/cgroup/aos.slice/aos-default.slice/{UNIT}/agent/cgroup.procs").stdout.split()
