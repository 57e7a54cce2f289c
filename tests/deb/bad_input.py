"""Bad input through the installed package's public interfaces: CLI and D-Bus.

Each gets a non-zero status and a message that names what is wrong; nothing half-made stays.
"""

import subprocess
from pathlib import Path

from agents import EXIT, HOME, agentfile

MANAGER = ("org.aos.Agentd1", "/org/aos/Agentd1", "org.aos.Agentd1.Manager")
STORE = "/var/lib/aos"
# Writes an archive for each thing that a package must not have; cargo builds it beside the tests.
HOSTILE = Path(__file__).resolve().parents[2] / "target/debug/examples/hostile-archives"

# name, what is changed in a good Agentfile, what the message must name.
AGENTFILES = [
    ("unknown field", ("lifecycle: oneshot", "lifecycle: oneshot\n  colour: red"), ["Agentfile:", "colour"]),
    ("unknown capability", ("", "capabilities: [ 'file_raed: /srv/**' ]\n"), ["Agentfile:", "file_raed"]),
    ("capability with a newline", ("", 'capabilities: [ "file_read: /srv/a\\nfile_write: /**" ]\n'), ["Agentfile:"]),
    ("a field named twice", ("  version: 1.0.0", "  version: 1.0.0\n  version: 2.0.0"), ["Agentfile:", "version"]),
    ("a limit that is not enforced", ("", "limits: { gpu: 1 }\n"), ["Agentfile:", "gpu"]),
    ("a name with a slash", ("name: bad", "name: a/b"), ["Agentfile:", "name"]),
    ("a name with ..", ("name: bad", "name: ..", ), ["Agentfile:", "name"]),
    ("a name with a newline", ("name: bad", 'name: "a\\nb"'), ["Agentfile:", "name"]),
    ("a name of 300 characters", ("name: bad", "name: " + "a" * 300), ["Agentfile:", "name"]),
    ("a version that is none", ("version: 1.0.0", "version: one"), ["Agentfile:", "version"]),
    ("a file that is not there", ("from: bad.py", "from: absent.py"), ["absent.py"]),
    ("a file outside of the folder", ("from: bad.py", "from: ../exit7/exit7.py"), ["../exit7/exit7.py"]),
    ("an entrypoint that does not exist", ("/usr/bin/python3", "/usr/bin/absent"), ["Agentfile:", "run.entrypoint[0]", "/usr/bin/absent"]),
    ("a network capability", ("", "capabilities: [ 'net: example.org:443' ]\n"), ["Agentfile:", "net", "broker"]),
    ("a star in the middle of a path", ("", "capabilities: [ 'exec: /usr/*/git' ]\n"), ["Agentfile:", "/usr/*/git", "/usr/**"]),
    ("a grant in /proc", ("", "capabilities: [ 'file_read: /proc/**' ]\n"), ["/proc"]),
]


def listing(machine):
    """What the daemon keeps, by name and size."""
    return machine.sh(
        f"cd {STORE} && find store rootfs agents tmp \\( -type f -printf '%p %s\\n' -o -print \\) | sort; ls /etc/userdb /var/lib/aos-agents").out


def section(checks, machine):
    """Every kind of bad input."""
    before = restarts(machine)
    agentfiles(checks, machine)
    packages(checks, machine)
    hostile(checks, machine)
    bus(checks, machine)
    second_daemon(checks, machine)
    checks.succeeds("agentd is still active", machine.run("systemctl", "is-active", "agentd.service"))
    after = restarts(machine)
    checks.check("agentd never restarted by itself", after == before, f"{before} {after}")


def restarts(machine):
    """How often the supervisor was restarted: other sections kill it."""
    return int(machine.run("systemctl", "show", "-P", "NRestarts", "agentd.service").out)


def agentfiles(checks, machine):
    """One change in a good Agentfile each."""
    good = agentfile("bad", "bad.py")
    machine.write(f"{HOME}/bad/bad.py", EXIT)
    for name, (old, new), expected in AGENTFILES:
        text = good.replace(old, new, 1) if old else good + new
        machine.write(f"{HOME}/bad/Agentfile", text)
        before = listing(machine)
        done = machine.run("aos", "run", "./bad", cwd=HOME)
        checks.refused(f"Agentfile: {name}", done, *expected)
        after = listing(machine)
        checks.check(f"Agentfile: {name}: nothing stays", before == after, difference(before, after))


def difference(before, after):
    """Lines that are in one listing only."""
    old, new = set(before.splitlines()), set(after.splitlines())
    return "\n".join([f"- {line}" for line in sorted(old - new)] + [f"+ {line}" for line in sorted(new - old)])


def packages(checks, machine):
    """Archives that were cut or changed. They are installed as local: no missing signature refuses them."""
    built = machine.run("aos", "build", "./exit7", "--output", "/srv/agents/exit7.aap", cwd=HOME)
    checks.succeeds("aos build writes a package", built)
    file = machine.root / "srv/agents/exit7.aap"
    if not file.is_file():
        return
    content = file.read_bytes()
    middle = len(content) // 2
    variants = {
        "truncated": content[:middle],
        "empty": b"",
        "not an archive": b"#!/bin/sh\necho hello\n" * 100,
    }
    blob = content.find(b"\x1f\x8b")
    if checks.check("the package has a gzip layer to alter", blob > 0):
        altered = bytearray(content)
        altered[blob + 40] ^= 0xFF
        variants["altered"] = bytes(altered)
    for name, data in variants.items():
        machine.write("/srv/agents/variant.aap", data)
        before = listing(machine)
        done = machine.run("aos", "install", "--local", "/srv/agents/variant.aap")
        checks.refused(f"package: {name}", done, "variant.aap")
        after = listing(machine)
        checks.check(f"package: {name}: nothing stays", before == after, difference(before, after))


def hostile(checks, machine):
    """The hostile archives of the store's own tests, through the installed programs."""
    if not checks.check("the hostile archives' writer is built (tests/run unit)", HOSTILE.is_file(), HOSTILE):
        return
    folder = machine.root / "srv/agents/hostile"
    written = subprocess.run([HOSTILE, folder], check=True, stdout=subprocess.PIPE, text=True).stdout
    checks.check("hostile archives are written", len(written.splitlines()) > 20, written)
    for line in written.splitlines():
        name, says = line.split("\t")
        before = listing(machine)
        # As root's own, so that it is not the missing signature that refuses it.
        done = machine.run("aos", "install", "--local", f"/srv/agents/hostile/{name}", timeout_s=120)
        checks.refused(f"{name}: {says}", done, name, says)
        after = listing(machine)
        checks.check(f"{name}: nothing stays", before == after, difference(before, after))


def bus(checks, machine):
    """Arguments that no honest client sends."""
    calls = [
        ("a bad id", ("Start", "s", "../../etc"), "InvalidArg"),
        ("an empty id", ("Start", "s", ""), "InvalidArg"),
        ("an id of 300 characters", ("Start", "s", "a" * 300), "InvalidArg"),
        ("an unknown agent", ("Start", "s", "nobody"), "NotFound"),
        ("an unknown package", ("Run", "ssasa{sv}", "x", "nobody:1.0.0", "0", "0"), "NotFound"),
        ("an unknown option", ("Run", "ssasa{sv}", "x", "exit7:1.0.0", "0", "1", "colour", "s", "red"), "InvalidArg"),
        ("a hostile reference", ("RemovePackage", "s", "../x:1"), "InvalidArg"),
    ]
    for name, call, error in calls:
        # busctl shows the error's name in its debug log only.
        done = machine.run("busctl", "call", *MANAGER, *call, env={"SYSTEMD_LOG_LEVEL": "debug"})
        checks.refused(f"D-Bus: {name} is {error}", done, f".Error.{error}")
        said = [line for line in done.err.splitlines() if line.startswith("Call failed: ")]
        checks.check(f"D-Bus: {name}: the message says something", said and len(said[-1]) > 25, done.err)
    done = machine.run("busctl", "call", *MANAGER, "Start", "u", "7")
    checks.check("D-Bus: a wrong signature is refused", done.code != 0, done.text)


def second_daemon(checks, machine):
    """Two supervisors would fight over the state."""
    done = machine.sh("exec /usr/libexec/aos/agentd --boot-id $(tr -d - < /proc/sys/kernel/random/boot_id)",
                      user="aos", timeout_s=20)
    checks.refused("a second agentd is refused", done, "another agentd")
    checks.succeeds("and the first one answers", machine.run("aos", "list"))


def full_disk(checks, machine):
    """A store without room: a clear refusal, and nothing half-made."""
    machine.run("systemctl", "stop", "agentd.service")
    mounted = machine.run("mount", "-t", "tmpfs", "-o", "size=2M,mode=0711,uid=aos,gid=aos", "none", STORE)
    # A service's own mount namespace would not reach the daemon.
    if mounted.code != 0 or "tmpfs" not in machine.run("findmnt", "-n", STORE).out:
        machine.run("mount", "-t", "tmpfs", "-o", "size=2M,mode=0711", "none", STORE)
    try:
        machine.run("chown", "aos:aos", STORE)
        machine.run("systemctl", "start", "agentd.service")
        machine.write(f"{HOME}/big/Agentfile", agentfile("big", "big.py").replace(
            "from: big.py, to: /app/big.py", "from: ., to: /app"))
        machine.write(f"{HOME}/big/big.py", "print('never')\n")
        machine.sh(f"head -c 4000000 /dev/urandom > {HOME}/big/data")
        before = listing(machine)
        done = machine.run("aos", "run", "./big", cwd=HOME)
        checks.refused("full disk: the install is refused", done, "space")
        after = listing(machine)
        checks.check("full disk: nothing half-made stays", before == after, difference(before, after))
        checks.succeeds("full disk: the daemon goes on", machine.run("aos", "list"))
    finally:
        machine.run("systemctl", "stop", "agentd.service")
        machine.run("umount", STORE)
        machine.run("systemctl", "start", "agentd.service")
    checks.succeeds("with room again the old state is there", machine.run("aos", "list"), "sitewatch")
