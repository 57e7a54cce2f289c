"""An agent under control while it runs: paused, resumed, its capabilities changed, its plan shown beforehand.

Every change is seen from three sides: the command's answer, what systemd and the kernel say, and what the agent
itself can do, which says twice a second whether it can read a file.
"""

import agents
from agents import HOME

UNIT = "aos-agent@reach.service"
PLAN = "/var/lib/aos/agents/reach/plan.json"
GRANT = "file_read: /srv/data/**"
MANAGER = ("org.aos.Agentd1", "/org/aos/Agentd1", "org.aos.Agentd1.Manager")

REACH = """\
import time
while True:
    try:
        open("/srv/data/file").close()
        print("reads", flush=True)
    except OSError:
        print("refused", flush=True)
    time.sleep(0.5)
"""


def section(checks, machine):
    """One agent that is not started again by itself."""
    machine.write("/srv/data/file", "data\n")
    agents.write(machine, "reach", "reach.py", REACH, extra=f"capabilities: [ '{GRANT}' ]\n")
    plan(checks, machine)
    checks.succeeds("the agent runs", machine.run("aos", "run", "--detach", "./reach", cwd=HOME), "reach")
    installed_plan(checks, machine)
    rights(checks, machine)
    capabilities(checks, machine)
    if machine.run("systemctl", "show", "-P", "CanFreeze", UNIT).out.strip() == "yes":
        pause(checks, machine)
        stop_paused(checks, machine)
        killed_while_paused(checks, machine)
    else:
        print("     no freezer here")
        checks.refused("without a freezer aos pause is refused", machine.run("aos", "pause", "reach"), "freeze")
    checks.succeeds("aos remove --stop", machine.run("aos", "remove", "--stop", "reach"))
    checks.succeeds("its package goes", machine.run("aos", "packages", "remove", "reach:1.0.0"))


def show(machine, name):
    """One property of the unit."""
    return machine.run("systemctl", "show", "-P", name, UNIT).out.strip()


def until(machine, condition):
    """Waits until a shell condition holds, at most twenty seconds."""
    return machine.sh(f"for i in $(seq 100); do {condition} && exit 0; sleep 0.2; done; exit 1")


def says(machine, word):
    """Whether the current run comes to say this as its last word."""
    run = f"_SYSTEMD_INVOCATION_ID={show(machine, 'InvocationID')}"
    last = f"journalctl -o cat --no-pager -n 1 {run} SYSLOG_IDENTIFIER=aos-agent"
    return until(machine, f'[ "$({last})" = {word} ]')


def plan(checks, machine):
    """A dry run is for everybody who can read the folder, and makes nothing."""
    for user in ("stranger", None):
        done = machine.run("aos", "run", "--dry-run", "./reach", user=user, cwd=HOME)
        checks.succeeds(f"{user or 'root'}: aos run --dry-run shows the plan", done, GRANT, "seccomp: policy agent-v1",
                        "/usr/bin/python3", "entrypoint")
    listed = machine.run("aos", "list")
    checks.check("a dry run makes no agent", "reach" not in listed.text, listed.text)
    listed = machine.run("aos", "packages")
    checks.check("and installs nothing", "reach" not in listed.text, listed.text)


def installed_plan(checks, machine):
    """Of what is installed the supervisor derives it, for those who may read."""
    run = lambda user: machine.run("aos", "run", "--dry-run", "--json", "reach", user=user)  # noqa: E731
    checks.succeeds("reader: the plan of an installed package", run("reader"), GRANT, '"instructions"')
    checks.refused("stranger: the plan of an installed package is refused", run("stranger"), "org.aos.agentd1.read")


def rights(checks, machine):
    """Pausing and narrowing are management; granting is a right of its own; systemd's verbs go by the unit's name."""
    for words, right in ((("pause", "reach"), "manage"), (("resume", "reach"), "manage"),
                         (("capability", "revoke", "reach", GRANT), "manage"),
                         (("capability", "narrow", "reach", GRANT), "manage"),
                         (("capability", "grant", "reach", "listen: 8080"), "grant")):
        done = machine.run("aos", *words, user="reader")
        checks.refused(f"reader: aos {' '.join(words[:2])} is refused, naming {right}", done, f"org.aos.agentd1.{right}")
    checks.succeeds("reader: aos capability list", machine.run("aos", "capability", "list", "reach", user="reader"),
                    GRANT, "in force", "package", "kernel: ")
    for verb in ("freeze", "thaw"):
        for unit in ("agentd.service", "system.slice", "aos-agentx@reach.service"):
            done = machine.run("systemctl", "--no-ask-password", verb, unit, user="aos")
            checks.check(f"user aos may not {verb} {unit}", done.code != 0, done.text)
    checks.check("and froze none", machine.run("systemctl", "show", "-P", "FreezerState", "agentd.service").out.strip()
                 == "running")


def capabilities(checks, machine):
    """Revoked on the disk at once, in force from the next start, whoever makes it."""
    change = lambda *words: machine.run("aos", "capability", *words)  # noqa: E731
    checks.succeeds("it reads what it was granted", says(machine, "reads"))
    done = change("revoke", "reach", GRANT)
    checks.succeeds("aos capability revoke says when it is in force", done, "from the next start", "goes on")
    checks.check("the plan on the disk has nothing of it", machine.run("grep", "srv/data", PLAN).code == 1)
    checks.succeeds("the run keeps it", says(machine, "reads"))
    checks.succeeds("aos capability list says so", change("list", "reach"), "revoked, still in force until restart")
    checks.succeeds("aos explain says so", machine.run("aos", "explain", "reach"), "still in force until it is restarted",
                    GRANT, "namespaces apart", "freezer")
    checks.succeeds("systemctl restart", machine.run("systemctl", "restart", UNIT))
    checks.succeeds("after it the agent is refused", says(machine, "refused"))
    checks.succeeds("nothing is left", change("list", "reach"), "may do nothing")
    checks.succeeds("aos capability grant --now", change("grant", "reach", GRANT, "--now"), "restarted, in force now")
    checks.succeeds("and it reads again", says(machine, "reads"))
    checks.refused("narrowing does not widen", change("narrow", "reach", "file_read: /srv/**"), "not part of")
    checks.refused("what the kernel cannot enforce is refused", change("grant", "reach", "net: example.org:443"), "net")
    checks.succeeds("more than the package declares", change("grant", "reach", "listen: 8080"), "from the next start")
    checks.succeeds("is shown as granted", change("list", "reach"), "granted", "from the next start")
    done = machine.run("busctl", "call", *MANAGER, "RevokeCapabilities", "sasa{sv}", "reach", "1", "listen: 8080",
                       "1", "apply", "s", "stop")
    # What was granted and never in force is taken back without a stop.
    checks.succeeds("RevokeCapabilities over D-Bus answers how it took effect", done, '"effect" s "now"')
    done = machine.run("busctl", "call", *MANAGER, "RevokeCapabilities", "sasa{sv}", "reach", "1", GRANT,
                       "1", "apply", "s", "stop")
    checks.succeeds("and stops the agent when that is asked for", done, '"effect" s "stopped"')
    checks.check("the agent is stopped", show(machine, "ActiveState") == "inactive")
    checks.succeeds("aos capability grant for an agent at rest", change("grant", "reach", GRANT), "from the next start")
    checks.succeeds("aos start", machine.run("aos", "start", "reach"))
    checks.succeeds("the new run has it", says(machine, "reads"))


def lines(machine):
    """How much the unit has written."""
    return machine.sh(f"journalctl --sync; journalctl -o cat --no-pager -u {UNIT} | wc -l").out.strip()


def pause(checks, machine):
    """Frozen for systemd, for the kernel and for itself; the supervisor may die meanwhile."""
    checks.succeeds("aos pause", machine.run("aos", "pause", "reach"))
    checks.succeeds("aos list shows it", machine.run("aos", "list"), "paused")
    checks.check("systemd has it frozen", show(machine, "FreezerState") == "frozen")
    events = machine.run("cat", f"/sys/fs/cgroup{show(machine, 'ControlGroup')}/cgroup.events")
    checks.succeeds("the kernel has it frozen", events, "frozen 1")
    before = lines(machine)
    machine.run("sleep", "2")
    checks.check("it says nothing", lines(machine) == before)
    checks.succeeds("aos explain shows it", machine.run("aos", "explain", "reach"), "paused", "freezer", "frozen")
    checks.succeeds("aos pause again", machine.run("aos", "pause", "reach"))
    checks.refused("aos start says what to do", machine.run("aos", "start", "reach"), "aos resume reach")
    machine.run("systemctl", "restart", "agentd.service")
    checks.succeeds("it is paused for a new supervisor too", machine.run("aos", "status", "reach"), "paused")
    machine.run("systemctl", "stop", UNIT)
    checks.check("systemctl stop leaves it as it is", show(machine, "ActiveState") == "active")
    checks.succeeds("aos resume", machine.run("aos", "resume", "reach"))
    checks.succeeds("it goes on", until(machine, f"[ $(journalctl -o cat --no-pager -u {UNIT} | wc -l) -gt {before} ]"))
    checks.succeeds("aos list shows that it runs", machine.run("aos", "list"), "running")
    checks.succeeds("user aos may freeze it", machine.run("systemctl", "--no-ask-password", "freeze", UNIT, user="aos"))
    checks.succeeds("what systemctl froze is paused", until(machine, "aos list | grep -q 'reach.*paused'"))
    checks.succeeds("user aos may thaw it", machine.run("systemctl", "--no-ask-password", "thaw", UNIT, user="aos"))
    checks.succeeds("what systemctl thawed runs", until(machine, "aos list | grep -q 'reach.*running'"))


def stop_paused(checks, machine):
    """Stopping and restarting thaw first, so that the agent ends in order."""
    machine.run("aos", "pause", "reach")
    before = show(machine, "InvocationID")
    checks.succeeds("aos restart of a paused agent", machine.run("aos", "restart", "reach"))
    checks.check("is a new run", show(machine, "InvocationID") not in ("", before))
    checks.check("that is not frozen", show(machine, "FreezerState") == "running")
    machine.run("aos", "pause", "reach")
    checks.succeeds("aos stop of a paused agent", machine.run("aos", "stop", "reach"))
    checks.check("it ended in order", (show(machine, "ActiveState"), show(machine, "Result")) == ("inactive", "success"))


def killed_while_paused(checks, machine):
    """What is killed while it is frozen is not stuck."""
    checks.succeeds("aos start", machine.run("aos", "start", "reach"))
    machine.run("aos", "pause", "reach")
    machine.run("systemctl", "kill", "-s", "KILL", "--kill-whom=all", UNIT)
    checks.succeeds("a paused agent can be killed", until(machine, f"! systemctl -q is-active {UNIT}"))
    checks.succeeds("aos list shows it", until(machine, "aos list | grep -q 'reach.*failed'"))
    checks.succeeds("it starts again", machine.run("aos", "start", "reach"))
    checks.succeeds("and runs", says(machine, "reads"))
    machine.run("aos", "pause", "reach")
