"""Who may do what: a stranger nothing, a member of the group aos reading, root all.

Every refusal names the action and the right that is missing.
"""

from agents import HOME

MANAGER = ("org.aos.Agentd1", "/org/aos/Agentd1", "org.aos.Agentd1.Manager")


def section(checks, machine):
    """Each verb, by each kind of caller, over the CLI and over the bus."""
    cli(checks, machine)
    bus(checks, machine)
    beside(checks, machine)
    signals(checks, machine)
    systemd(checks, machine)
    files(checks, machine)


def cli(checks, machine):
    """The command says which right is missing."""
    refused = lambda who, verb, right, *what: checks.refused(  # noqa: E731
        f"{who}: aos {verb} is refused, naming {right}",
        machine.run("aos", verb, *what, user=who, cwd=HOME), f"org.aos.agentd1.{right}")
    refused("stranger", "list", "read")
    refused("stranger", "stop", "manage", "tick")
    # It looks before it removes, so the first right that is missing is the one to read.
    refused("stranger", "remove", "read", "tick")
    # It builds, then asks which packages are there before it installs one.
    refused("stranger", "run", "read", "./exit7")
    checks.succeeds("a member of aos may list", machine.run("aos", "list", user="reader"), "sitewatch")
    checks.succeeds("a member of aos may explain", machine.run("aos", "explain", "tick", user="reader"))
    refused("reader", "start", "manage", "tick")
    refused("reader", "stop", "manage", "tick")
    refused("reader", "enable", "manage", "tick")
    refused("reader", "remove", "manage", "tick")
    # It is built into his own store; to run what nobody signed is a right of its own.
    refused("reader", "run", "install-local", "./exit7")


def bus(checks, machine):
    """The same over D-Bus, where the CLI is not in between."""
    for user in ("stranger", "reader"):
        for method, right, arguments in (
            ("Start", "manage", ("s", "tick")),
            ("Remove", "manage", ("sb", "tick", "false")),
            ("Enable", "manage", ("s", "tick")),
            ("RemovePackage", "install", ("s", "exit7:1.0.0")),
        ):
            done = machine.run("busctl", "call", *MANAGER, method, *arguments, user=user)
            checks.refused(f"{user}: {method} over D-Bus is refused, naming {right}", done, f"org.aos.agentd1.{right}")
    done = machine.run("busctl", "call", *MANAGER, "ListAgents", user="stranger")
    checks.refused("stranger: ListAgents over D-Bus is refused", done, "org.aos.agentd1.read")


def beside(checks, machine):
    """There is no reading beside the methods that ask polkit."""
    agent = (MANAGER[0], f"{MANAGER[1]}/agent/tick")
    properties = "org.freedesktop.DBus.Properties"
    done = machine.run("busctl", "call", *agent, properties, "GetAll", "s", "org.aos.Agentd1.Agent", user="stranger")
    checks.check("stranger: an agent has no properties", done.out.strip() in ("", "a{sv} 0"), done.text)
    done = machine.run("busctl", "call", *agent, "org.aos.Agentd1.Agent", "Get", user="stranger")
    checks.refused("stranger: Get of an agent is refused", done, "org.aos.agentd1.read")
    done = machine.run("busctl", "call", *agent, "org.aos.Agentd1.Agent", "Get", user="reader")
    checks.succeeds("reader: Get of an agent answers", done, "tick:1.0.0")
    for user in ("stranger", "root"):
        done = machine.run("busctl", "call", *MANAGER[:2], "org.freedesktop.DBus.ObjectManager", "GetManagedObjects",
                           user=user)
        checks.check(f"{user}: GetManagedObjects answers nothing", done.code != 0 and not done.out.strip(), done.text)
    done = machine.run("busctl", "introspect", *MANAGER[:2], user="stranger")
    checks.check("stranger: introspection is refused", done.code != 0 and "ListAgents" not in done.out, done.text)
    done = machine.run("busctl", "introspect", *MANAGER[:2], user="reader")
    checks.succeeds("reader: introspection", done, "ListAgents", "AgentExited", "Version")
    done = machine.run("busctl", "introspect", *agent, user="reader")
    checks.succeeds("reader: introspection of an agent", done, "org.aos.Agentd1.Agent")
    done = machine.run("busctl", "get-property", *MANAGER, "Version", user="stranger")
    checks.succeeds("stranger: the version is public", done)


def signals(checks, machine):
    """Who may not read receives no signal; a signal of the bus itself shows that he listens."""
    wait = lambda user, *what: machine.popen("timeout", "20", "busctl", "wait", *what, user=user)  # noqa: E731
    ours = (MANAGER[1], MANAGER[2], "AgentChanged")
    stranger = wait("stranger", *ours)
    neighbour = wait("stranger", "/org/freedesktop/DBus", "org.freedesktop.DBus", "NameOwnerChanged")
    reader = wait("reader", *ours)
    # Each restart sends several; the first may come before somebody listens.
    for _ in range(10):
        machine.run("aos", "restart", "tick")
        if reader.poll() is not None and neighbour.poll() is not None:
            break
    machine.run("aos", "restart", "tick")
    text = reader.communicate()[0]
    checks.check("reader: AgentChanged is received", reader.returncode == 0 and "tick" in text, text)
    text = neighbour.communicate()[0]
    checks.check("stranger: a signal of the bus is received", neighbour.returncode == 0, text)
    text = stranger.communicate()[0]
    checks.check("stranger: no AgentChanged is received", stranger.returncode == 124 and "tick" not in text,
                 f"exit status {stranger.returncode}\n{text}")


def systemd(checks, machine):
    """User aos manages its own units and nothing else."""
    start = lambda unit, verb="start": machine.run("systemctl", "--no-ask-password", verb, unit, user="aos")  # noqa: E731
    checks.succeeds("user aos may start aos-agent@tick.service", start("aos-agent@tick.service"))
    checks.succeeds("user aos may stop aos-agent@tick.service", start("aos-agent@tick.service", "stop"))
    for unit in ("polkit.service", "systemd-tmpfiles-clean.service", "agentd.service", "aos-agentx@tick.service"):
        done = start(unit, "restart")
        checks.check(f"user aos may not restart {unit}", done.code != 0, done.text)
    done = machine.run("systemctl", "--no-ask-password", "enable", "systemd-networkd.service", user="aos")
    checks.check("user aos may not enable units", done.code != 0, done.text)
    done = machine.run("systemctl", "--no-ask-password", "set-property", "--runtime",
                       "system.slice", "MemoryMax=1G", user="aos")
    checks.check("user aos may not set properties of other units", done.code != 0, done.text)
    done = machine.run("systemd-run", "--no-ask-password", "--unit=aos-agent@evil.service", "--wait",
                       "id", user="aos")
    checks.check("user aos may not make a transient unit", done.code != 0, done.text)


def files(checks, machine):
    """State is not for everybody's eyes."""
    done = machine.run("cat", "/var/lib/aos/state.sqlite", user="stranger")
    checks.check("a stranger cannot read the state", done.code != 0, done.text)
    done = machine.run("ls", "/var/lib/aos-agents/sitewatch", user="stranger")
    checks.check("a stranger cannot look into a workspace", done.code != 0, done.text)
    done = machine.sh("for p in $(find / -xdev -perm /6000 -type f); do dpkg -S $p; done 2>/dev/null | grep aos")
    checks.check("no set-uid file is ours", not done.out.strip(), done.text)
