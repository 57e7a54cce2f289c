"""Packages through the installed programs: built in steps, signed, moved, trusted, revoked, collected.

The publisher is an unprivileged member of the group aos; the operator is root, with a store of his own; the stranger
has a third one.
"""

import json

from agents import HOME, home
from bad_input import difference, listing

PUBLISHER, STRANGER = "reader", "stranger"
OURS = home(PUBLISHER)
SIGNED, BARE = f"{OURS}/signed/courier.aap", f"{OURS}/bare/courier.aap"
PASSPHRASE = f"{OURS}/passphrase"
TRUST, STATE = "/etc/aos/trust.d", "/var/lib/aos"

AGENTFILE = """\
apiVersion: aos/v1
kind: Agent
metadata: { name: courier, version: 1.0.0 }
build:
  args: { WHO: nobody in particular }
  stages:
    - name: made
      from: host
      steps:
        - run: 'echo "made for ${WHO} by uid $$(id -u)" > /made.txt'
    - name: app
      from: host
      steps:
        - copy: { from: main.py, to: /app/main.py }
        - copy: { stage: made, from: made.txt, to: /app/made.txt }
run:
  entrypoint: [ /usr/bin/python3, /app/main.py ]
  lifecycle: persistent
"""
PROGRAM = """\
import time
print(open("/app/made.txt").read(), end="", flush=True)
while True:
    time.sleep(1)
"""


def section(checks, machine):
    """From a folder of one user to an agent of another, and back out."""
    machine.write(f"{HOME}/courier/Agentfile", AGENTFILE)
    machine.write(f"{HOME}/courier/main.py", PROGRAM)
    digest = build(checks, machine)
    key = publish(checks, machine)
    if not checks.check("there is something to trust", digest and key, f"digest {digest}, key {key}"):
        return
    untrusted(checks, machine, key)
    trusted(checks, machine)
    revoked(checks, machine)
    collected(checks, machine, digest)
    older_store(checks, machine)


def aos(machine, *words, user=None, cwd=HOME):
    return machine.run("aos", *words, user=user, cwd=cwd, timeout_s=300)


def answer(done):
    """The JSON on standard output; None when there is none."""
    try:
        return json.loads(done.out)
    except ValueError:
        return None


def pid(machine, agent):
    return machine.run("systemctl", "show", "-P", "MainPID", f"aos-agent@{agent}").out.strip()


def build(checks, machine):
    """Two stages with a run step in the installed launcher, by root and by somebody without any right."""
    rooted = aos(machine, "build", "./courier", "--tag", "workbench:1.0.0", "--json")
    checks.succeeds("root: aos build with a run step", rooted, '"cached_steps": 0')
    plain = aos(machine, "build", "./courier", "--json", user=PUBLISHER)
    checks.succeeds("an unprivileged user: aos build with a run step", plain, '"cached_steps": 0')
    first, second = answer(rooted), answer(plain)
    same = first and second and first["layers"] == second["layers"]
    checks.check("both built the same layers", same, rooted.text + plain.text)
    again = aos(machine, "build", "./courier", "--check-reproducible", "--json", user=PUBLISHER)
    checks.succeeds("and the same bytes once more", again, '"reproducible": true')
    launchers = "for p in /proc/[0-9]*; do case $(readlink $p/exe) in */aos-launch) tr '\\0' ' ' < $p/cmdline; echo; esac; done"
    left = machine.sh(f"({launchers}) | grep plan-fd; grep overlay /proc/mounts")
    checks.check("no process and no mount of a step is left", not left.out.strip(), left.text)
    return second and second["digest"]


def publish(checks, machine):
    """A key, a signature, a file with it and a file without. Returns the key's id."""
    machine.write(PASSPHRASE, "correct horse\n")
    machine.sh("mkdir signed bare", user=PUBLISHER, cwd=OURS)
    made = aos(machine, "key", "generate", "publisher", "--passphrase-file", PASSPHRASE, user=PUBLISHER)
    checks.succeeds("aos key generate prints the id", made)
    for what, words in {
        "aos key export": ("key", "export", "publisher", "-o", f"{OURS}/publisher.pub"),
        "aos export --bare": ("export", "courier:1.0.0", "--bare", "-o", BARE),
        "aos sign": ("sign", "courier:1.0.0", "--key", "publisher", "--passphrase-file", PASSPHRASE),
        "aos export": ("export", "courier:1.0.0", "-o", SIGNED),
    }.items():
        checks.succeeds(what, aos(machine, *words, user=PUBLISHER))
    return made.out.strip()


def untrusted(checks, machine, key):
    """Without a rule nobody takes the package, and everybody is told what would change that."""
    for user in (None, STRANGER):
        done = aos(machine, "import", SIGNED, user=user)
        checks.refused(f"{user or 'root'}: aos import without a rule says what to do", done, "no rule", key, "[[allow]]", "trust.d")
        checks.check("with exit status 4", done.code == 4, f"exit status {done.code}")
    before = listing(machine)
    for what, file in (("unsigned", BARE), ("signed by a stranger", SIGNED)):
        done = aos(machine, "install", file)
        checks.refused(f"agentd refuses what is {what}", done, "is not trusted", TRUST, "aos install --local")
        checks.check("with exit status 4", done.code == 4, f"exit status {done.code}")
    after = listing(machine)
    checks.check("and keeps nothing of it", before == after, difference(before, after))


def trusted(checks, machine):
    """A rule in /etc/aos/trust.d is enough, for all stores and for agentd."""
    machine.write(f"{TRUST}/publisher.pub", (machine.root / f"{OURS}/publisher.pub".lstrip("/")).read_bytes())
    machine.write(f"{TRUST}/publisher.toml", '[[allow]]\nnames = ["courier"]\nkeys = ["publisher.pub"]\n')
    for user in (None, STRANGER):
        checks.succeeds(f"{user or 'root'}: aos import with the rule", aos(machine, "import", SIGNED, user=user), "courier:1.0.0")
    checks.refused("agentd still refuses the same without its signature", aos(machine, "install", BARE), "it is not signed")
    done = aos(machine, "install", SIGNED, user=PUBLISHER)
    checks.refused("the publisher may not aos install", done, "not authorised for org.aos.agentd1.install")
    checks.check("and is asked for no more than that", "install-local" not in done.err, done.err)
    done = aos(machine, "install", "--local", BARE, user=PUBLISHER)
    checks.refused("nor aos install --local", done, "not authorised for org.aos.agentd1.install-local")
    checks.succeeds("root: aos install from the store, with its signature", aos(machine, "install", "courier:1.0.0"), "courier:1.0.0")
    checks.succeeds("the signed file as well", aos(machine, "install", SIGNED), "courier:1.0.0")
    checks.succeeds("and it runs", aos(machine, "run", "--detach", "courier"), "courier")
    said = "made for nobody in particular by uid 0"
    logs = machine.sh(f"for i in $(seq 50); do aos logs courier | grep '{said}' && exit; sleep 0.2; done; exit 1")
    checks.succeeds("what the run step made is in it", logs, said)


def revoked(checks, machine):
    """A key that is revoked refuses the next start, and leaves alone what runs."""
    agent = pid(machine, "courier")
    machine.write(f"{TRUST}/revoked.toml", '[[revoke]]\nkeys = ["publisher.pub"]\nreason = "a test"\n')
    done = aos(machine, "restart", "courier")
    checks.refused("a restart is refused when the key is revoked", done, "is revoked")
    checks.check("with exit status 4", done.code == 4, f"exit status {done.code}")
    checks.check("and the agent runs on", pid(machine, "courier") == agent != "0", f"{agent} {pid(machine, 'courier')}")
    checks.succeeds("aos stop", aos(machine, "stop", "courier"))
    checks.refused("a start is refused", aos(machine, "start", "courier"), "is revoked")
    checks.refused("to enable it is refused", aos(machine, "enable", "courier"), "is revoked")
    machine.run("systemctl", "start", "aos-agent@courier")
    stopped = machine.sh("for i in $(seq 100); do systemctl -q is-active aos-agent@courier || exit 0; sleep 0.2; done; exit 1")
    checks.succeeds("what systemctl started is stopped", stopped)
    checks.succeeds("aos status says why", aos(machine, "status", "courier"), "is revoked")
    (machine.root / f"{TRUST}/revoked.toml".lstrip("/")).unlink()
    checks.succeeds("without the revocation it starts", aos(machine, "start", "courier"))


def collected(checks, machine, digest):
    """Nothing that a running or an enabled agent uses is ever collected, and what nobody uses is."""
    root = f"{STATE}/rootfs/{digest.replace(':', '-')}"
    other = f"{OURS}/bare/other.aap"
    aos(machine, "build", "./courier", "--build-arg", "WHO=another", "--output", other, user=PUBLISHER)
    checks.succeeds("another package takes the name", aos(machine, "install", "--local", other), "courier:1.0.0")
    for state, command in (("running", None), ("enabled", "stop")):
        if command:
            aos(machine, "enable", "courier")
            aos(machine, command, "courier")
        would, did = aos(machine, "gc", "--dry-run", "--json"), aos(machine, "gc", "--json")
        names = [name for done in (would, did) for name in (answer(done) or {}).get("machine", {}).get("packages", ["?"])]
        checks.check(f"aos gc, dry or not, keeps what an agent that is {state} uses",
                     not names and machine.run("test", "-d", root).code == 0, would.text + did.text)
        checks.succeeds("with its signatures: it starts again", aos(machine, "restart", "courier"))
    mine = aos(machine, "gc", user=PUBLISHER)
    checks.succeeds("a user's aos gc leaves the machine's store alone, and says so", mine, "org.aos.agentd1.install")
    checks.succeeds("aos remove of the agent", aos(machine, "remove", "--stop", "courier"))
    machine.run("aos", "gc")
    checks.check("what it alone used is gone", machine.run("test", "-e", root).code != 0)
    checks.succeeds("both stores are whole", aos(machine, "store", "check"))
    checks.succeeds("and the user's", aos(machine, "store", "check", user=PUBLISHER))


def older_store(checks, machine):
    """A store of a version that knew no origins: as after an upgrade from 0.1.0."""
    checks.succeeds("root runs what root built", aos(machine, "run", "--detach", "workbench"), "workbench")
    agent = pid(machine, "workbench")
    machine.run("systemctl", "stop", "agentd.service")
    index = machine.root / f"{STATE}/store/index.json".lstrip("/")
    content = json.loads(index.read_text())
    for entry in content["manifests"]:
        entry.get("annotations", {}).pop("org.aos.origin", None)
    # The same file, whose owner is the supervisor.
    index.write_text(json.dumps(content))
    checks.succeeds("agentd opens a store without origins", machine.run("systemctl", "start", "agentd.service"))
    checks.succeeds("what ran runs", aos(machine, "status", "workbench"), "running", agent)
    checks.refused("its next start is refused, with what to do", aos(machine, "restart", "workbench"), "is not trusted", "aos install --local")
    checks.check("and it runs on", pid(machine, "workbench") == agent)
    checks.succeeds("root installs what root built again", aos(machine, "install", "workbench:1.0.0"))
    checks.succeeds("then it starts", aos(machine, "restart", "workbench"))
    checks.succeeds("aos remove", aos(machine, "remove", "--stop", "workbench"))
