"""Limits fail closed: an agent whose unit lacks what its Agentfile limits does not start, and says why.

A machine below cgroup v1 has no controllers at all. There the refusal itself is tested, and then switched off
by a drop-in of this machine's own (no-controllers.conf), so that the other sections can run agents with limits.
Elsewhere the unit loses what the supervisor set, as a reboot does, and is started by hand.
"""

from pathlib import Path

from agents import HOME

UNIT = "aos-agent@sitewatch.service"
TEMPLATE = "usr/lib/systemd/system/aos-agent@.service"
OVERRIDE = "/etc/systemd/system/aos-agent@.service.d/no-controllers.conf"
NEEDED = {"cpu", "memory", "pids"}


def section(checks, machine):
    """The refusal, in whichever way this machine can show it."""
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


def explained(checks, machine, says):
    """The launcher's exit status and its reason are where an operator looks."""
    status = machine.run("systemctl", "show", "-P", "ExecMainStatus", UNIT)
    checks.check("the launcher ended with 205/LIMITS", status.out.strip() == "205", status.text)
    text = machine.run("systemctl", "show", "-P", "StatusText", UNIT)
    checks.check("systemctl status has the reason", text.out.startswith("limits: ") and says in text.out, text.text)
    checks.succeeds("the journal has it", machine.run("journalctl", "--no-pager", "-u", UNIT), "aos-launch: limits: ")


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
