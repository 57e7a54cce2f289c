"""Checkpoints through the installed programs: what an agent is comes back as a whole, also of one that runs, of one
that is hostile, and when somebody kills what does the work; strangers get nothing; packages stay while needed."""

import json
import time

import agents
from agents import HOME
from workspace import PROGRAM, tree, wait

NAME = "kept"
LAYERED = "kept-layered"
# Moments of a restore, and what is there after a kill in them.
MOMENTS = (
    ("keeps what is there", "[ -e checkpoints/new ]", "old"),
    ("makes the copy", "[ -e stage.json ]", "old"),
    ("moves out", "[ -e intent.json ]", "new"),
    ("moves in", "ls /var/lib/aos-agents/kept/.aos-restore-*/in >/dev/null 2>&1", "new"),
)


def section(checks, machine):
    """In the order of docs/checkpoints.md."""
    agents.write(machine, NAME, "kept.py", PROGRAM)
    agents.write(machine, LAYERED, "kept.py", PROGRAM, extra="  workspace: transactional\n")
    there_and_back(checks, machine)
    while_running(checks, machine)
    layers(checks, machine)
    hostile(checks, machine)
    access(checks, machine)
    killed(checks, machine)
    supervisor_killed(checks, machine)
    retention(checks, machine)
    removed(checks, machine)


def base(name=NAME):
    """An agent's workspace."""
    return f"/var/lib/aos-agents/{name}"


def changes(name=NAME):
    """Where its checkpoints are."""
    return f"/var/lib/aos-changes/{name}"


def run(machine, code, *words, name=NAME):
    """Runs the agent once."""
    return machine.run("aos", "run", *words, f"./{name}", "--", code, cwd=HOME)


def state(machine, name=NAME):
    """What an agent is: its files, and what it is made of."""
    shown = json.loads(machine.run("aos", "status", "--json", name).out)
    return tree(machine, base(name)), shown["capabilities"], shown["digest"]


def numbers(machine, name=NAME):
    """The checkpoints and why they were made."""
    return [(one["number"], one["cause"]) for one in json.loads(machine.run("aos", "checkpoints", name, "--json").out)]


def there_and_back(checks, machine):
    """The thin path."""
    checks.succeeds("an agent works", run(machine, "os.makedirs('d/e'); open('d/e/f', 'w').write('first'); open('a', 'w').write('a'); os.link('a', 'd/b')"))
    first = state(machine)
    checks.succeeds("aos checkpoint", machine.run("aos", "checkpoint", NAME, "--name", "first"), "checkpoint 1: 5 files")
    checks.succeeds("it works on", run(machine, "shutil.rmtree('d'); open('a', 'w').write('other'); open('new', 'w').write('x')"))
    checks.succeeds("and is changed", machine.run("aos", "capability", "grant", NAME, "file_read: /srv/agents/**"))
    second = state(machine)
    checks.check("it is another one now", first != second, first)
    checks.succeeds("aos restore", machine.run("aos", "restore", NAME, "first"), "what was there before is checkpoint 2")
    checks.check("it is what it was", state(machine) == first, state(machine))
    owners = set(machine.run("find", base(), "-printf", "%U:%G\\n").out.split())
    checks.check("all of it is the agent's user's", len(owners) == 1 and "0:0" not in owners, owners)
    checks.succeeds("aos restore of what was replaced", machine.run("aos", "restore", NAME, "2"))
    checks.check("it is the other one again", state(machine) == second, state(machine))
    checks.succeeds("aos restore without a name takes the newest", machine.run("aos", "restore", NAME))
    checks.check("which is no restore's", state(machine) == first, numbers(machine))
    checks.succeeds("aos checkpoints", machine.run("aos", "checkpoints", NAME), "first", "NUMBER", "restore")
    checks.succeeds("it starts", run(machine, "print(sorted(os.listdir('.')))"), "['a', 'd']")
    checks.refused("one that is not there", machine.run("aos", "restore", NAME, "none"), "no checkpoint none")
    checks.refused("--processes says why not", machine.run("aos", "checkpoint", NAME, "--processes"), "Landlock")


def while_running(checks, machine):
    """Frozen while it is copied: two files that are written one after the other agree."""
    code = "n = 0\nwhile True:\n    n += 1\n    for f in ('x', 'y'):\n        with open(f, 'w') as o: o.write(f'{n:08}')\n    open('big', 'w').write('b' * 3000000) if n == 1 else None\n    for i in range(40 if n == 1 else 0): shutil.copy('big', f'big{i}')"
    checks.succeeds("it runs", machine.run("aos", "run", "--detach", f"./{NAME}", "--", code, cwd=HOME))
    wait(lambda: machine.run("test", "-e", f"{base()}/big39").code == 0)
    begun = time.monotonic()
    checks.succeeds("aos checkpoint of an agent that runs", machine.run("aos", "checkpoint", NAME, "--name", "live"))
    print(f"     a running agent with 120 MB in {time.monotonic() - begun:.2f} s")
    folder = f"{changes()}/checkpoints/{max(number for number, _ in numbers(machine)):04}/base"
    one, other = (machine.run("cat", f"{folder}/{name}").out for name in ("x", "y"))
    agree = one.isdigit() and other.isdigit() and int(one) - int(other) in (0, 1)
    checks.check("its files are of one moment", agree or "" in (one, other), f"{one} {other}")
    checks.succeeds("it goes on", machine.run("aos", "status", NAME), "running")
    before = machine.run("cat", f"{base()}/x").out
    checks.check("and writes", wait(lambda: machine.run("cat", f"{base()}/x").out not in ("", before)), before)
    checks.refused("aos restore is refused", machine.run("aos", "restore", NAME), f"aos stop {NAME}")
    checks.succeeds("paused by somebody", machine.run("aos", "pause", NAME))
    checks.succeeds("it is kept", machine.run("aos", "checkpoint", NAME))
    checks.succeeds("and stays paused", machine.run("aos", "status", NAME), "paused")
    checks.succeeds("aos stop", machine.run("aos", "stop", NAME))
    checks.succeeds("restored, it is stopped", machine.sh(f"aos restore {NAME} live && aos status {NAME}"), "stopped")
    listed = json.loads(machine.run("aos", "checkpoints", NAME, "--json").out)
    checks.check("that it was to run is noted", [one["desired"] for one in listed if one["name"] == "live"] == ["running"], listed)


def layers(checks, machine):
    """A transactional workspace with its changes and snapshots, also after a commit."""
    checks.succeeds("below", run(machine, "open('low', 'w').write('low'); open('gone', 'w').write('x')", name=LAYERED))
    machine.run("aos", "commit", LAYERED)
    checks.succeeds("a change", run(machine, "os.remove('gone'); open('s', 'w').write('1')", name=LAYERED))
    machine.run("aos", "snapshot", LAYERED, "one")
    checks.succeeds("on it", run(machine, "open('s', 'w').write('2')", name=LAYERED))
    diff = machine.run("aos", "diff", "--json", LAYERED).out
    before = tree(machine, base(LAYERED))
    checks.succeeds("aos checkpoint", machine.run("aos", "checkpoint", LAYERED))
    checks.succeeds("aos commit", machine.run("aos", "commit", LAYERED))
    checks.succeeds("aos restore", machine.run("aos", "restore", LAYERED))
    checks.check("changes are changes again", machine.run("aos", "diff", "--json", LAYERED).out == diff, diff)
    checks.check("and what is below is as it was", tree(machine, base(LAYERED)) == before, before)
    checks.succeeds("with its snapshot", machine.sh(f"aos discard {LAYERED} --to 1"), "snapshot 1")
    checks.succeeds("the agent sees it", run(machine, "print(open('s').read(), os.path.exists('gone'))", name=LAYERED), "1 False")


def hostile(checks, machine):
    """Links, sockets, odd names, closed and deep directories, sparse files, attributes."""
    code = """
import socket
os.symlink('/etc/shadow', 'shadow'); os.symlink('/etc', 'etc'); os.mkfifo('pipe')
open(b'odd\\xff\\n\\x1b[31m', 'w').write('x'); os.truncate(os.open('sparse', os.O_CREAT | os.O_WRONLY), 1 << 40)
socket.socket(socket.AF_UNIX).bind('socket')
for i in range(200): os.link('a', f'link{i}')
try: os.setxattr('a', 'user.note', b'y')
except OSError: pass
for mode in (0o4755, 0o2755):
    try: os.chmod('a', mode)
    except OSError: pass
os.makedirs('closed/in'); open('closed/in/f', 'w').write('x'); os.chmod('closed', 0)
os.mkdir('deep'); os.chdir('deep')
for _ in range(3000): os.mkdir('n'); os.chdir('n')
"""
    checks.succeeds("an agent makes what it can", run(machine, code))
    listing = f"cd {base()} && ls -A --quoting-style=c; stat -c '%n %F %a %h %s' shadow etc pipe socket sparse a closed"
    before = machine.sh(listing).out
    checks.succeeds("aos checkpoint", machine.run("aos", "checkpoint", NAME, "--name", "hostile"))
    used = int(machine.sh(f"du -sk {changes()}/checkpoints | cut -f 1").out)
    checks.check("a sparse file stays one", used < 1_000_000, used)
    checks.succeeds("all is gone", machine.sh(f"find {base()} -mindepth 1 -delete; ls -A {base()} | wc -l"), "0")
    checks.succeeds("aos restore", machine.run("aos", "restore", NAME, "hostile"))
    checks.check("everything is there again", machine.sh(listing).out == before, machine.sh(listing).out)
    checks.succeeds("/etc is what it was", machine.run("test", "-f", "/etc/passwd"))
    checks.succeeds("a device of root's", machine.run("mknod", f"{base()}/device", "c", "1", "3"))
    done = machine.run("aos", "checkpoint", NAME)
    checks.refused("a checkpoint is whole or none", done, "/device cannot be copied")
    checks.check("no control character is printed", "\x1b[31m" not in done.text, repr(done.text))
    machine.run("rm", f"{base()}/device")
    left = machine.sh(f"ls {changes()}/checkpoints | grep -v '^[0-9]*$'; find {changes()}/trash -mindepth 1").out
    checks.check("nothing of it is left", left == "", left)
    checks.succeeds("back to something small", machine.run("aos", "restore", NAME, "first"))


def access(checks, machine):
    """Reading the list is reading; everything else is managing, or granting."""
    for words in (("checkpoint", NAME), ("restore", NAME), ("checkpoint", NAME, "--remove", "1")):
        for user in ("stranger", "reader"):
            checks.refused(f"aos {' '.join(words)} as {user}", machine.run("aos", *words, user=user), "org.aos.agentd1.manage")
    checks.refused("aos checkpoints as a stranger", machine.run("aos", "checkpoints", user="stranger"), "org.aos.agentd1.read")
    checks.succeeds("aos checkpoints as a reader", machine.run("aos", "checkpoints", user="reader"), "first")
    for user in ("stranger", "reader", "aos"):
        closed = machine.run("ls", f"{changes()}/checkpoints", user=user)
        checks.check(f"the files are closed to {user}", closed.code != 0, closed.text)
    seen = run(machine, "print(os.listdir('/workspace'), os.path.exists('/var/lib/aos-changes'))")
    checks.succeeds("and to the agent", seen, "['a', 'd'] False")
    checks.refused("the bus takes no path for a name", machine.run("aos", "checkpoint", NAME, "--name", "../x"), "begins with a letter")


def fill(machine):
    """Two states, each of many files; the first is checkpoint `many`."""
    # A start after a restore leaves what it finds.
    code = "os.path.exists('s/k39/19') or [(os.makedirs(f'{d}/k{i}', exist_ok=True), [open(f'{d}/k{i}/{j}', 'w').write(sys.argv[2] * 2000) for j in range(20)]) for d in 'pqrs' for i in range(40)]"
    done = [machine.run("aos", "run", f"./{NAME}", "--", code, "old", cwd=HOME), machine.run("aos", "checkpoint", NAME, "--name", "many"),
            machine.run("aos", "run", f"./{NAME}", "--", "os.path.exists('now') or [open('now', 'w').write('x')] + [shutil.rmtree(d) for d in 'pq']", cwd=HOME)]
    return [one.text for one in done if one.code != 0]


def at(machine, moment, unit):
    """Begins a restore, and kills a unit at a moment of it. Whether that was in time."""
    done = machine.sh(f"cd {changes()}; (aos restore {NAME} many >/dev/null 2>&1 &); for i in $(seq 3000); do {moment} && break; sleep 0.005; done;"
                      f" systemctl kill -s KILL {unit}; {moment} && echo in time")
    return "in time" in done.out


def settled(machine):
    """Waits until the agent can be started, and starts it for a moment."""
    wait(lambda: machine.run("pgrep", "-x", "aos").code != 0, 60)
    is_so = wait(lambda: machine.run("aos", "start", NAME).code == 0, 90)
    machine.run("aos", "stop", NAME)
    return is_so


def kept_as(machine):
    """The newest checkpoint that somebody asked for: its files."""
    newest = [number for number, cause in numbers(machine) if cause == "asked"][-1]
    return tree(machine, f"{changes()}/checkpoints/{newest:04}/base")


def difference(one, other):
    """Some lines of one that the other does not have."""
    return sorted(set(one.splitlines()) - set(other.splitlines()))[:5]


def again(machine, now):
    """What is there becomes `now` again, and what restores kept goes."""
    if tree(machine, base()) != now:
        machine.run("aos", "restore", NAME, str(numbers(machine)[-1][0]))
    extra = [str(number) for number, cause in numbers(machine) if cause == "replaced"]
    return not extra or machine.run("aos", "checkpoint", NAME, "--remove", *extra).code == 0


def killed(checks, machine):
    """kill -9 of who copies and moves, and of agentd: the old or the new, and never half of each."""
    failed = fill(machine)
    checks.check("two states", not failed, failed)
    now, want = tree(machine, base()), kept_as(machine)
    checks.check("that differ", now != want)
    for unit in (f"aos-workspace@{NAME}.service", "agentd.service"):
        for words, moment, expected in MOMENTS:
            in_time = at(machine, moment, unit)
            checks.check(f"{unit} killed while it {words}: the agent starts", settled(machine), machine.run("aos", "status", NAME).text)
            files = tree(machine, base())
            found = "old" if files == now else "new" if files == want else "half"
            checks.check(f"and it is the {expected} one", found == expected or (not in_time and found != "half"), f"{found}, in time: {in_time}, not in the old: {difference(files, now)}, not in the new: {difference(files, want)}")
            print(f"     in time: {in_time}, {found}")
            checks.check("and can be taken back", again(machine, now) and tree(machine, base()) == now, numbers(machine))
    stray = machine.sh(f"ls -A {base()} | grep aos-restore; ls {changes()} | grep -e stage -e restore -e intent").out
    checks.check("nothing half-made is left", stray == "", stray)


def supervisor_killed(checks, machine):
    """kill -9 of agentd while an agent is frozen: the next one thaws it."""
    code = "import itertools\nfor n in itertools.count(): open('n', 'w').write(str(n)); time.sleep(0.05)"
    machine.run("aos", "run", "--detach", f"./{NAME}", "--", code, cwd=HOME)
    done = machine.sh(f"(aos checkpoint {NAME} >/dev/null 2>&1 &); for i in $(seq 3000); do [ $(systemctl show -P FreezerState aos-agent@{NAME}) = frozen ] && break; sleep 0.005; done; systemctl kill -s KILL agentd.service; systemctl show -P FreezerState aos-agent@{NAME}")
    checks.check("agentd was killed while it was frozen", "frozen" in done.out, done.text)
    runs = wait(lambda: "running" in machine.run("aos", "status", NAME).text, 60)
    checks.check("it goes on", runs, machine.run("aos", "status", NAME).text)
    machine.run("aos", "stop", NAME)


def retention(checks, machine):
    """Packages stay as long as a checkpoint is made of them."""
    agents.write(machine, NAME, "kept.py", PROGRAM + "\n", version="2.0.0")
    checks.succeeds("another package", run(machine, "print('two')"), "two")
    old = f"{NAME}:1.0.0"
    checks.refused("the old one is in use", machine.run("aos", "packages", "remove", old), "use")
    checks.succeeds("aos restore brings it back", machine.run("aos", "restore", NAME, "first"))
    checks.succeeds("as it was", machine.run("aos", "status", NAME), "1.0.0")
    every = [str(number) for number, _ in numbers(machine)]
    checks.succeeds("aos checkpoint --remove", machine.run("aos", "checkpoint", NAME, "--remove", *every))
    left = machine.sh(f"ls {changes()}/checkpoints").out
    checks.check("their files are gone", left == "" and numbers(machine) == [], left)
    checks.succeeds("and nothing holds the other package", machine.run("aos", "packages", "remove", f"{NAME}:2.0.0"))


def removed(checks, machine):
    """Checkpoints go with their agents."""
    checks.succeeds("one more", machine.run("aos", "checkpoint", NAME))
    checks.succeeds("aos remove", machine.run("aos", "remove", NAME, LAYERED, timeout_s=300))
    for path in (base(), changes(), base(LAYERED), changes(LAYERED)):
        checks.check(f"{path} is gone", machine.run("test", "-e", path).code != 0)
    checks.succeeds("and no checkpoint is listed", machine.run("aos", "checkpoints"), "no checkpoints")
