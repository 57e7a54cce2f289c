"""Limits fail closed: an agent whose unit lacks what its Agentfile limits does not start, and says why.

A machine below cgroup v1 has no controllers at all. There the refusal itself is tested, and then switched off
by a drop-in of this machine's own (no-controllers.conf), so that the other sections can run agents with limits.
Elsewhere the unit loses what the supervisor set, as a reboot does, and is started by hand.
"""

from pathlib import Path

import agents
from agents import HOME

UNIT = "aos-agent@sitewatch.service"
TEMPLATE = "usr/lib/systemd/system/aos-agent@.service"
OVERRIDE = "/etc/systemd/system/aos-agent@.service.d/no-controllers.conf"
NEEDED = {"cpu", "memory", "pids"}


def section(checks, machine):
    """The refusal, in whichever way this machine can show it."""
    disk(checks, machine)
    available = set(machine.run("cat", "/sys/fs/cgroup/cgroup.controllers").out.split())
    run = ("aos", "run", "./examples/sitewatch")
    if NEEDED <= available:
        checks.succeeds("an agent with limits runs", machine.run(*run, cwd=HOME))
        machine.run("systemctl", "revert", UNIT)
        checks.refused("without them systemctl start fails", machine.run("systemctl", "start", UNIT))
        explained(checks, machine, "aos start sitewatch")
        checks.succeeds("aos start brings them back", machine.run("aos", "start", "sitewatch"))
        return
    print(f"     controllers here: {' '.join(sorted(available)) or 'none'}")
    checks.refused("without controllers an agent with limits is refused", machine.run(*run, cwd=HOME))
    explained(checks, machine, "cgroup v2 controllers")
    override(checks, machine)


def disk(checks, machine):
    """This machine's file system has no project quotas: nothing starts without the limit that it asks for."""
    agents.write(machine, "limited", "limited.py", "print('it ran')\n", extra="limits: { disk: 64M }\n")
    done = machine.run("aos", "run", "./limited", cwd=HOME)
    checks.refused("an agent with a limit on the disk is refused", done, "limits.disk needs project quotas", "/var/lib/aos-agents")
    checks.check("and did not run", "it ran" not in done.text, done.text)
    explained(checks, machine, "limits.disk", "aos-agent@limited.service")
    told = machine.run("journalctl", "--no-pager", "-u", "aos-quota@limited.service")
    checks.succeeds("the unit that would have set it says why not", told, "aos-quota: limits.disk needs project quotas")
    agents.write(machine, "limited", "limited.py", "print('it ran')\n", version="1.0.1")
    checks.succeeds("without the limit it runs", machine.run("aos", "run", "./limited", cwd=HOME), "it ran")
    checks.succeeds("and is removed", machine.run("aos", "remove", "limited"))


def explained(checks, machine, says, unit=UNIT):
    """The launcher's exit status and its reason are where an operator looks."""
    status = machine.run("systemctl", "show", "-P", "ExecMainStatus", unit)
    checks.check("the launcher ended with 205/LIMITS", status.out.strip() == "205", status.text)
    text = machine.run("systemctl", "show", "-P", "StatusText", unit)
    checks.check("systemctl status has the reason", text.out.startswith("limits: ") and says in text.out, text.text)
    checks.succeeds("the journal has it", machine.run("journalctl", "--no-pager", "-u", unit), "aos-launch: limits: ")


def override(checks, machine):
    """From here on this machine goes without limits; nothing else of the unit changes."""
    text = (Path(__file__).resolve().parent / "no-controllers.conf").read_text(encoding="utf-8")
    start = commands((machine.root / TEMPLATE).read_text(encoding="utf-8"))
    checks.check("the override differs from the unit by --unit alone",
                 [f"{line} --unit" for line in commands(text)] == start, f"{commands(text)}\n{start}")
    machine.write(OVERRIDE, text)
    machine.run("systemctl", "daemon-reload")


def commands(text):
    """What a unit file starts."""
    return [line.removeprefix("ExecStart=") for line in text.splitlines() if line.startswith("ExecStart=/")]


def restore(machine):
    """Takes the override away: nothing of the test's is left for the sections that look for leftovers."""
    machine.run("rm", "-rf", OVERRIDE.rsplit("/", 1)[0])
    machine.run("systemctl", "daemon-reload")
