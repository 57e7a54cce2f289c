"""Commands in the sandbox of an agent that runs: aos exec, over D-Bus, with the control groups that systemd delegates.

Controllers may be missing here; what limits do to a command is in tests/vm/calls.py.
"""

import json

import agents
from agents import HOME

UNIT = "aos-agent@host.service"
GROUP = f"/sys/fs/cgroup/aos.slice/aos-default.slice/{UNIT}"
CONTROL = "/run/aos-agents/host/control"

HOST = """\
import time
print("on", flush=True)
while True:
    time.sleep(1)
"""


def section(checks, machine):
    """One agent, and commands beside it."""
    agents.write(machine, "host", "host.py", HOST, extra="capabilities: [ 'file_read: /etc/systemd/**' ]\n")
    checks.succeeds("the agent runs", machine.run("aos", "run", "--detach", "./host", cwd=HOME), "host")
    command(checks, machine)
    groups(checks, machine)
    narrower(checks, machine)
    ends(checks, machine)
    strangers(checks, machine)
    rests(checks, machine)
    checks.succeeds("aos remove --stop", machine.run("aos", "remove", "--stop", "host"))
    checks.succeeds("its package goes", machine.run("aos", "packages", "remove", "host:1.0.0"))


def python(machine, program, *options, **how):
    """Runs Python inside."""
    return machine.run("aos", "exec", "host", *options, "--", "python3", "-c", program, **how)


def command(checks, machine):
    """Output, input, status; and that it is confined."""
    done = python(machine, "import sys; print('out'); print('err', file=sys.stderr); sys.exit(7)")
    checks.check("output, errors and status come out", (done.code, done.out, done.err) == (7, "out\n", "err\n"), done.text)
    done = python(machine, "import sys; print(sys.stdin.read().upper())", stdin=b"typed")
    checks.succeeds("input goes in", done, "TYPED")
    status = python(machine, "print(open('/proc/self/status').read(), open('/proc/self/cgroup').read())")
    fields = dict(line.split(":\t", 1) for line in status.out.splitlines() if ":\t" in line)
    wanted = {"CapEff": "0" * 16, "CapBnd": "0" * 16, "NoNewPrivs": "1", "Seccomp": "2", "NSpid": fields.get("Pid", "")}
    checks.check("it has no capability, no new privileges, a filter, and the agent's pid namespace",
                 all(fields.get(key) == value for key, value in wanted.items()), status.text)
    checks.check("of the control groups it sees no more than its own", "0::/call-" in status.out, status.text)
    refused = machine.run("aos", "exec", "host", "--", "/usr/bin/ls")
    checks.check("what the agent may not execute is not executed", refused.code == 126, refused.text)
    missing = machine.run("aos", "exec", "nobody", "--", "true")
    checks.check("an agent that is not there is said to be that", missing.code == 125 and "no agent" in missing.err, missing.text)


def groups(checks, machine):
    """A command's group is there while it runs, and nothing of it after its end."""
    leave = ("import subprocess, sys; subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'],"
             " start_new_session=True); print('left')")
    done = python(machine, leave, "--json")
    result = json.loads(done.out or "{}")
    checks.check("what a command left behind is ended with it",
                 done.code == 0 and result.get("contained") is True and not calls_left(machine), done.text)
    held = machine.sh(f"aos exec host -- python3 -c 'import time; time.sleep(600)' & call=$!; sleep 2; ls -d {GROUP}/call-*;"
                      " kill $call; wait $call")
    checks.check("a command has a control group", "/call-" in held.out, held.text)
    gone = machine.sh(f"for i in $(seq 100); do [ -z \"$(ls -d {GROUP}/call-* 2>/dev/null)\" ] && exit 0; sleep 0.1; done; exit 1")
    checks.succeeds("it ends with who asked for it", gone)
    own = machine.sh(f"cat {GROUP}/agent/cgroup.procs; systemctl show -P MainPID {UNIT}; cat {GROUP}/launcher/cgroup.procs").out.split()
    checks.check("the agent and the launcher are in groups of their own", len(own) == 4 and own[2] == own[3], own)


def calls_left(machine):
    """The groups of commands."""
    return machine.sh(f"ls -d {GROUP}/call-* 2>/dev/null").out.split()


def narrower(checks, machine):
    """Fewer capabilities, and not more."""
    read = "import os; print(len(open('/etc/systemd/system.conf').read()) > 0)"
    checks.succeeds("a command has the agent's capabilities", python(machine, read), "True")
    done = python(machine, read, "--no-capabilities")
    checks.check("or none of them", done.code == 1 and "Permission denied" in done.err, done.text)
    done = python(machine, read, "--capability", "file_read: /etc/systemd/system.conf")
    checks.succeeds("or a part", done, "True")
    done = python(machine, read, "--capability", "file_read: /etc/**")
    checks.check("and never more", done.code == 125 and "not covered" in done.err, done.text)


def ends(checks, machine):
    """Time limits, and limits that this machine may not have."""
    done = python(machine, "import time; time.sleep(600)", "--timeout", "1s")
    checks.check("a time limit ends a command", done.code == 124, done.text)
    available = machine.run("cat", f"{GROUP}/cgroup.controllers").out.split()
    done = python(machine, "print('ran')", "--memory", "64M")
    if "memory" in available:
        checks.succeeds("a memory limit is set", done, "ran")
    else:
        checks.check("a limit that cannot be enforced is refused",
                     done.code == 125 and "controller memory" in done.err and "ran" not in done.out, done.text)


def strangers(checks, machine):
    """Who may ask: polkit over D-Bus, and nobody else at the socket."""
    done = machine.run("aos", "exec", "host", "--", "python3", "-c", "print('ran')", user="stranger")
    checks.check("a stranger is refused", done.code == 125 and "ran" not in done.out, done.text)
    done = machine.run("aos", "exec", "host", "--", "python3", "-c", "print('ran')", user="reader")
    checks.check("and so is who may only look", done.code == 125 and "ran" not in done.out, done.text)
    reach = f"import socket; s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM); s.sendto(b'x', '{CONTROL}')"
    done = machine.run("python3", "-c", reach, user="stranger")
    checks.check("a stranger does not come near the socket", "PermissionError" in done.err, done.text)
    done = python(machine, f"import os; print(os.path.exists('{CONTROL}'), os.path.exists('/sys/fs/cgroup'))")
    checks.check("nor does the agent", done.out == "False False\n", done.text)
    key = machine.sh("stat -c '%U %a' /var/lib/aos/control.key")
    checks.check("the key is the supervisor's", key.out.strip() == "aos 600", key.text)
    done = machine.run("ln", "-s", "/etc", "/run/aos-agents/link", user="aos")
    folder = machine.sh("stat -c '%U' /run/aos-agents; ls /run/aos-agents")
    checks.check("the supervisor puts no link where systemd makes folders as root",
                 done.code != 0 and folder.out.startswith("root\n") and "link" not in folder.out, done.text + folder.text)
    machine.run("python3", "-c", reach)
    checks.succeeds("what has no key does no harm", python(machine, "print('still')"), "still")


def rests(checks, machine):
    """Paused, stopped, and after a restart of the supervisor."""
    call = ("aos exec host -- python3 -c 'import time; print(1, flush=True); time.sleep(3); print(2)' & call=$!; sleep 1;"
            " systemctl kill -s KILL agentd.service; wait $call")
    checks.succeeds("a command outlives the supervisor", machine.sh(call), "1\n2\n")
    if machine.run("systemctl", "show", "-P", "CanFreeze", UNIT).out.strip() == "yes":
        machine.run("aos", "pause", "host")
        checks.refused("a paused agent takes none", python(machine, "print('ran')"), "paused")
        machine.run("aos", "resume", "host")
    machine.run("aos", "stop", "host")
    checks.refused("nor does a stopped one", python(machine, "print('ran')"), "does not run")
