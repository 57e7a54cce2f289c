"""The operator's tour: run, look, list, stop, enable, remove, through every public interface."""

import json

from agents import HOME

BUS = ("org.aos.Agentd1", "/org/aos/Agentd1")


def section(checks, machine):
    """Everything in order of the README."""
    sitewatch(checks, machine)
    status_passes(checks, machine)
    long_running(checks, machine)
    interfaces(checks, machine)
    boot_links(checks, machine)


def sitewatch(checks, machine):
    """The example works at once, and remembers."""
    run = lambda: machine.run("aos", "run", "./examples/sitewatch", cwd=HOME)  # noqa: E731
    first = run()
    checks.succeeds("aos run ./examples/sitewatch exits with 0", first)
    checks.check("sitewatch says something", first.out.strip(), first.text)
    second = run()
    checks.succeeds("aos run ./examples/sitewatch exits with 0 again", second)
    checks.check("the second run reports no changes", "no change" in second.out.lower(), second.text)
    workspace = machine.run("find", "/var/lib/aos-agents/sitewatch", "-type", "f", "-user", "aos-sitewatch")
    checks.check("its workspace holds its report, owned by its own user", workspace.out.strip(), workspace.text)


def status_passes(checks, machine):
    """Exit status, arguments and both streams pass through."""
    done = machine.run("aos", "run", "./exit7", "--", "one", "two words", cwd=HOME)
    checks.check("the exit status of the agent is aos's", done.code == 7, f"exit status {done.code}\n{done.text}")
    checks.check("the agent got its arguments", "['one', 'two words']" in done.out, done.text)
    checks.check("stderr of the agent is shown", "to stderr" in done.text, done.text)
    unit = machine.run("systemctl", "show", "-P", "ExecMainStatus", "aos-agent@exit7.service")
    checks.check("systemd has the same status", unit.out.strip() == "7", unit.text)


def long_running(checks, machine):
    """A persistent agent, seen through systemd."""
    detached = machine.run("aos", "run", "--detach", "./tick", cwd=HOME)
    checks.succeeds("aos run --detach prints the id", detached, "tick")
    checks.succeeds("systemctl status shows it", machine.run("systemctl", "status", "--no-pager", "aos-agent@tick"),
                    "active (running)", "aos-launch")
    logs = machine.sh("for i in $(seq 50); do journalctl -u aos-agent@tick --no-pager | grep -q 'tick 3' && break;"
                      " sleep 0.2; done; journalctl -u aos-agent@tick --no-pager")
    checks.succeeds("journalctl -u has its output", logs, "tick 3")
    checks.succeeds("aos logs has its output", machine.run("aos", "logs", "tick"), "tick 3")
    checks.succeeds("aos list shows it", machine.run("aos", "list"), "tick", "running", "exit7")
    checks.succeeds("aos status shows it", machine.run("aos", "status", "tick"), "running")
    own = machine.sh("stat -c %U /proc/$(systemctl show -P MainPID aos-agent@tick)")
    checks.check("it runs as its own user", own.out.strip() == "aos-tick", own.text)
    checks.succeeds("aos explain names the layers", machine.run("aos", "explain", "tick"), "landlock", "seccomp")
    before = machine.run("systemctl", "show", "-P", "InvocationID", "aos-agent@tick").out
    checks.succeeds("aos restart", machine.run("aos", "restart", "tick"))
    after = machine.run("systemctl", "show", "-P", "InvocationID", "aos-agent@tick").out
    checks.check("restart made a new invocation", before != after and after.strip(), before + after)
    again = machine.run("aos", "run", "--detach", "./tick", cwd=HOME)
    checks.refused("running a running agent is refused", again, "running")
    checks.succeeds("aos stop", machine.run("aos", "stop", "tick"))
    stopped = machine.run("systemctl", "is-active", "aos-agent@tick")
    checks.check("it is stopped", stopped.out.strip() in ("inactive", "failed"), stopped.text)


def interfaces(checks, machine):
    """D-Bus speaks for itself, and JSON is JSON."""
    tree = machine.run("busctl", "introspect", *BUS)
    checks.succeeds("busctl introspect", tree, "org.aos.Agentd1.Manager", "ListAgents", "Explain", "AgentExited")
    listed = machine.run("busctl", "--json=short", "call", *BUS, "org.aos.Agentd1.Manager", "ListAgents")
    ids = sorted(row["id"]["data"] for row in json.loads(listed.out)["data"][0]) if listed.code == 0 else []
    checks.check("ListAgents lists what was run", ids == ["exit7", "sitewatch", "tick"], f"{ids}\n{listed.text}")
    stopped = machine.run("systemctl", "stop", "agentd.service")
    checks.succeeds("systemctl stop agentd", stopped)
    checks.succeeds("D-Bus activation brings it back", machine.run("aos", "list"), "sitewatch")
    checks.succeeds("agentd.service is active again", machine.run("systemctl", "is-active", "agentd.service"))


def boot_links(checks, machine):
    """Enabled means: the generator links the unit, without the daemon."""
    checks.succeeds("aos enable", machine.run("aos", "enable", "tick"))
    machine.run("systemctl", "daemon-reload")
    wants = "/run/systemd/generator/multi-user.target.wants/aos-agent@tick.service"
    checks.succeeds("the generator links it into the boot", machine.run("test", "-L", wants))
    checks.succeeds("aos disable", machine.run("aos", "disable", "tick"))
    machine.run("systemctl", "daemon-reload")
    checks.check("and unlinks it", machine.run("test", "-L", wants).code != 0)
