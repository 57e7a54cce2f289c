"""Transactional workspaces through the installed programs: what an agent changes is apart until it is committed,
frozen or discarded; forks share it; strangers get nothing; a kill in the middle is rolled forward."""

import json
import time

import agents
from agents import HOME

NAME = "layered"
BASE = f"/var/lib/aos-agents/{NAME}"
CHANGES = f"/var/lib/aos-changes/{NAME}"
# Runs the code of its first argument in /workspace.
PROGRAM = "import os, shutil, sys, time\nos.chdir('/workspace')\nexec(sys.argv[1])\n"
FORKS = 200


def section(checks, machine):
    """In the order of docs/workspaces.md."""
    # Goes on after `lifecycle:`, in `run:`.
    agents.write(machine, NAME, "layered.py", PROGRAM, extra="  workspace: transactional\n")
    transaction(checks, machine)
    while_running(checks, machine)
    snapshots(checks, machine)
    access(checks, machine)
    hostile(checks, machine)
    killed(checks, machine)
    forks(checks, machine)
    removed(checks, machine)


def run(machine, code, *words):
    """Runs the agent once."""
    return machine.run("aos", "run", *words, "./layered", "--", code, cwd=HOME)


def changed(machine, agent=NAME):
    """The changes by path."""
    done = machine.run("aos", "diff", "--json", agent)
    if done.code != 0:
        return done.text
    return {entry["path"]: entry["kind"] for entry in json.loads(done.out)["entries"]}


def tree(machine, folder):
    """What a folder holds: type, mode, owner, path, and the contents' digests."""
    return machine.sh(f"cd {folder} && find . -printf '%y %m %u %p %l\\n' | sort; find . -type f -exec sha256sum {{}} + | sort").out


def transaction(checks, machine):
    """Write, look, commit a part, commit the rest, discard."""
    checks.succeeds("a transactional agent runs", run(machine, "open('a', 'w').write('one\\n'); os.makedirs('d/e'); open('d/e/f', 'w').write('x')"))
    checks.check("nothing is below its changes yet", machine.run("ls", "-A", BASE).out == "", tree(machine, BASE))
    expected = {"a": "added", "d": "added", "d/e": "added", "d/e/f": "added"}
    checks.check("aos diff ID lists the changes", changed(machine) == expected, changed(machine))
    checks.succeeds("aos diff ID is a table for people", machine.run("aos", "diff", NAME), "added", "d/e/f")
    checks.succeeds("aos diff --patch has the text", machine.run("aos", "diff", "--patch", NAME), "+++ b/a", "+one")
    checks.succeeds("aos commit of a path", machine.run("aos", "commit", NAME, "/workspace/d/e"))
    checks.check("only that is committed", machine.run("find", BASE, "-type", "f").out.split() == [f"{BASE}/d/e/f"], tree(machine, BASE))
    checks.check("the rest is still a change", changed(machine) == {"a": "added"}, changed(machine))
    checks.succeeds("aos commit of all", machine.run("aos", "commit", NAME), "committed 1 change")
    owner = machine.run("stat", "-c", "%U", f"{BASE}/a").out.strip()
    checks.check("what is committed is the agent's user's", owner == f"aos-{NAME}", owner)
    checks.check("nothing is left to commit", changed(machine) == {}, changed(machine))
    checks.refused("a path without a change is told", machine.run("aos", "commit", NAME, "absent"), "nothing has changed")
    checks.refused("a path elsewhere is refused", machine.run("aos", "commit", NAME, "../x"), "not a path below /workspace")
    before = tree(machine, BASE)
    done = run(machine, "os.remove('a'); shutil.rmtree('d'); open('d', 'w').write('file'); open('b', 'w').write('b')")
    checks.succeeds("it removes and replaces", done)
    expected = {"a": "deleted", "b": "added", "d": "replaced"}
    checks.check("and aos diff says so", changed(machine) == expected, changed(machine))
    checks.check("what is below is untouched", tree(machine, BASE) == before, tree(machine, BASE))
    checks.succeeds("aos discard", machine.run("aos", "discard", NAME))
    checks.succeeds("the agent sees what was there", run(machine, "print(sorted(os.listdir('.')), open('a').read())"), "['a', 'd'] one")
    checks.refused("aos diff of an agent without a transaction", machine.run("aos", "diff", "exit7"), "run.workspace: transactional")


def while_running(checks, machine):
    """Layers do not change under an agent that runs; a diff is possible."""
    detached = machine.run("aos", "run", "--detach", "./layered", "--", "open('live', 'w').write('x'); time.sleep(600)", cwd=HOME)
    checks.succeeds("it runs in the background", detached)
    seen = wait(lambda: changed(machine) == {"live": "added"})
    checks.check("aos diff shows a running agent's changes", seen, changed(machine))
    for words in (("commit", NAME), ("discard", NAME), ("snapshot", NAME), ("fork", NAME)):
        checks.refused(f"aos {words[0]} is refused while it runs", machine.run("aos", *words), f"aos stop {NAME}")
    # Past the supervisor: the launcher holds the changes.
    machine.sh(f"""printf '{{"version":1,"token":"x","reader_uid":0,"changes":"{CHANGES}","lower":["{BASE}"],"below":"own","operation":{{"discard":{{"to":null}}}}}}' > /var/lib/aos/agents/{NAME}/workspace.json""")
    direct = machine.run("systemctl", "start", f"aos-workspace@{NAME}.service")
    checks.check("by systemctl too", direct.code != 0 and changed(machine) == {"live": "added"}, direct.text)
    machine.run("rm", "-f", f"/var/lib/aos/agents/{NAME}/workspace.json")
    checks.succeeds("aos stop", machine.run("aos", "stop", NAME))
    checks.succeeds("aos commit after it", machine.run("aos", "commit", NAME))


def wait(is_so, seconds=20):
    """Until something is so."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if is_so():
            return True
        time.sleep(0.2)
    return False


def snapshots(checks, machine):
    """Freeze, go on, go back."""
    checks.succeeds("a change", run(machine, "open('s', 'w').write('1')"))
    checks.succeeds("aos snapshot", machine.run("aos", "snapshot", NAME, "first"), "snapshot 1")
    checks.succeeds("a change on it", run(machine, "open('s', 'w').write('2'); os.remove('a')"))
    checks.succeeds("aos snapshot again", machine.run("aos", "snapshot", NAME), "snapshot 2")
    checks.succeeds("aos snapshot --list", machine.run("aos", "snapshot", NAME, "--list"), "1", "first", "2")
    checks.check("all of it is a change", changed(machine) == {"s": "added", "a": "deleted"}, changed(machine))
    checks.succeeds("aos discard --to", machine.run("aos", "discard", NAME, "--to", "1"), "snapshot 1")
    checks.succeeds("the agent sees the first one", run(machine, "print(open('s').read(), os.path.exists('a'))"), "1 True")
    checks.refused("a snapshot that is not there", machine.run("aos", "discard", NAME, "--to", "7"), "no snapshot 7")
    checks.succeeds("aos commit takes snapshots too", machine.run("aos", "commit", NAME))
    text = machine.run("cat", f"{BASE}/s").out
    checks.check("their content is below now", text == "1" and changed(machine) == {}, text)


def access(checks, machine):
    """Nobody but the agent, root and who may manage agents."""
    checks.succeeds("a change", run(machine, "open('secret', 'w').write('s3cret')"))
    for words in (("diff", "--patch", NAME), ("commit", NAME), ("fork", NAME)):
        for user in ("stranger", "reader"):
            done = machine.run("aos", *words, user=user)
            checks.refused(f"aos {words[0]} as {user}", done, "org.aos.agentd1.manage")
    machine.run("aos", "diff", "--patch", NAME)
    for path in (f"{CHANGES}/upper/secret", f"{BASE}/a"):
        checks.check(f"{path} is closed to others", machine.run("cat", path, user="stranger").code != 0)
    answers = machine.sh(f"ls /run/aos-agents/{NAME}/answer-*").out.split()
    checks.check("there is an answer", len(answers) == 1, answers)
    for user, may in (("stranger", False), ("reader", False), ("aos", True)):
        for answer in answers:
            checks.check(f"the answer can{'' if may else 'not'} be read by {user}",
                         (machine.run("cat", answer, user=user).code == 0) == may)
    seen = run(machine, "print(os.path.exists('/run/aos-agents'), os.path.exists('/var/lib/aos-changes'))")
    checks.succeeds("the agent sees neither", seen, "False False")
    done = machine.run("systemctl", "start", f"aos-workspace@{NAME}.service")
    checks.check("without a request nothing is done", done.code != 0 and changed(machine) == {"secret": "added"}, done.text)
    checks.succeeds("aos discard", machine.run("aos", "discard", NAME))


def hostile(checks, machine):
    """Links, odd names, closed directories, pipes, depth."""
    code = """
os.symlink('/etc/shadow', 'shadow'); os.symlink('/etc', 'etc'); os.mkfifo('pipe')
open('odd\\n\\x1b[31m', 'w').write('x'); os.makedirs('closed/in'); open('closed/in/f', 'w').write('x'); os.chmod('closed', 0)
for name in ['opaque', 'redirect', 'metacopy', 'whiteout']:
    try: os.setxattr('s', 'user.overlay.' + name, b'y')
    except OSError: pass
here = os.getcwd()
for _ in range(3000): os.mkdir('n'); os.chdir('n')
"""
    checks.succeeds("an agent makes what it can", run(machine, code))
    listed = machine.run("aos", "diff", NAME)
    checks.succeeds("aos diff shows it, bounded", listed, "odd\\x0a\\x1b[31m", "not looked at")
    checks.check("no control character is printed", "\x1b[31m" not in listed.text, repr(listed.text[-400:]))
    committed = machine.run("aos", "commit", NAME, "shadow", "etc", "pipe", "closed")
    checks.succeeds("aos commit", committed)
    kinds = machine.run("stat", "-c", "%F %a", f"{BASE}/shadow", f"{BASE}/etc", f"{BASE}/pipe", f"{BASE}/closed").out
    checks.check("links stay links, what is closed stays closed",
                 kinds.splitlines()[:2] == ["symbolic link 777"] * 2 and "fifo" in kinds and "directory 0" in kinds, kinds)
    checks.succeeds("/etc is what it was", machine.run("test", "-f", "/etc/passwd"))
    checks.succeeds("aos discard takes the deep tree away", machine.run("aos", "discard", NAME, timeout_s=300))
    left = machine.sh(f"find {CHANGES}/trash {CHANGES}/upper -mindepth 1 | wc -l").out.strip()
    checks.check("nothing of it is left", left == "0", left)


def killed(checks, machine):
    """kill -9 in the middle of a commit: the launcher refuses until it is ended, which the next operation or start does."""
    code = "[(os.makedirs(f'k/{i}'), [open(f'k/{i}/{j}', 'w').write('x' * 20000) for j in range(20)]) for i in range(200)]"
    checks.succeeds("many changes", run(machine, code))
    want = machine.sh(f"cd {CHANGES}/upper/k && find . -type f | wc -l").out
    machine.sh(f"(aos commit {NAME} >/dev/null 2>&1 &); for i in $(seq 2000); do [ -e {CHANGES}/intent.json ] && break; sleep 0.002; done;"
               f" sleep 0.05; systemctl kill -s KILL aos-workspace@{NAME}.service; sleep 1")
    if machine.run("test", "-e", f"{CHANGES}/intent.json").code == 0:
        by_hand = machine.run("systemctl", "start", f"aos-agent@{NAME}.service")
        words = machine.run("systemctl", "show", "-P", "StatusText", f"aos-agent@{NAME}.service")
        checks.check("systemd does not start the agent half-way", by_hand.code != 0 and "cut short" in words.out, words.text)
    else:
        print("     the commit was faster than the kill")
    checks.succeeds("aos run ends it first", run(machine, "print(len(os.listdir('k')))"), "200")
    got = machine.sh(f"cd {BASE}/k && find . -type f | wc -l").out
    checks.check("all of it is committed", got == want and changed(machine) == {}, f"{got} of {want}")
    stray = machine.sh(f"ls -A {BASE} | grep aos-commit").out
    checks.check("and nothing half-made is left", not stray and machine.run("test", "-e", f"{CHANGES}/intent.json").code != 0, stray)


def forks(checks, machine):
    """Many, at once, with nothing copied."""
    code = "open('who', 'w').write(os.environ['AOS_AGENT_ID']); print(os.getuid(), len(os.listdir('k')), os.path.exists('big'))"
    checks.succeeds("a large change", run(machine, "open('big', 'wb').write(os.urandom(50 << 20))"))
    checks.succeeds("the parent", run(machine, code))
    before, used = tree(machine, BASE), machine.sh("du -s /var/lib/aos-agents /var/lib/aos-changes | awk '{ s += $1 } END { print s }'").out
    begun = time.monotonic()
    done = machine.run("aos", "fork", NAME, "-n", str(FORKS), "--as", "try")
    took = time.monotonic() - begun
    checks.succeeds(f"aos fork -n {FORKS}", done, f"made {FORKS} agents")
    print(f"     {FORKS} forks in {took:.2f} s, with starting aos and the snapshot's unit")
    after = machine.sh("du -s /var/lib/aos-agents /var/lib/aos-changes | awk '{ s += $1 } END { print s }'").out
    checks.check("nothing was copied", int(after) - int(used) < 1024, f"{used} {after}")
    uid = machine.run("id", "-u", f"aos-{NAME}").out.strip()
    for fork in ("try-1", "try-2"):
        checks.succeeds(f"{fork} starts", machine.run("aos", "start", fork))
        logs = machine.sh(f"for i in $(seq 50); do journalctl -u aos-agent@{fork} --no-pager -o cat | grep -q '^{uid} ' && break; sleep 0.2; done;"
                          f" journalctl -u aos-agent@{fork} --no-pager -o cat")
        checks.succeeds(f"{fork} has the parent's files and user", logs, f"{uid} 200 True")
        checks.check(f"{fork}'s changes are its own", changed(machine, fork) == {"who": "modified"}, changed(machine, fork))
    whose = [machine.run("cat", f"/var/lib/aos-changes/{name}/upper/who").out for name in ("try-1", "try-2")]
    checks.check("each wrote its own", whose == ["try-1", "try-2"], whose)
    checks.check("no byte of the original is touched", tree(machine, BASE) == before, "")
    checks.refused("a fork is not committed", machine.run("aos", "commit", "try-1"), "fork")
    checks.refused("the parent is not committed", machine.run("aos", "commit", NAME), "try-1")
    checks.refused("nor removed", machine.run("aos", "remove", NAME), "try-1")
    checks.succeeds("the parent goes on", run(machine, "open('own', 'w').write('x')"))
    checks.succeeds("agentd knows the forks after a restart", machine.sh("systemctl restart agentd && aos status try-7"), "try-7")
    many = " ".join(f"try-{number}" for number in range(1, FORKS + 1))
    checks.succeeds("forks are removed", machine.sh(f"aos remove {many}", timeout_s=600))
    checks.succeeds("the parent's user stays", machine.run("id", f"aos-{NAME}"), uid)
    checks.check("a fork's goes", machine.run("id", "aos-try-1").code != 0)
    checks.succeeds("and the parent can be committed", machine.run("aos", "commit", NAME))


def removed(checks, machine):
    """Changes go with the agent."""
    checks.succeeds("a change that is not committed", run(machine, "open('last', 'w').write('x')"))
    checks.succeeds("aos remove", machine.run("aos", "remove", NAME, timeout_s=300))
    for path in (BASE, CHANGES, f"/run/aos-agents/{NAME}", f"/var/lib/aos/agents/{NAME}"):
        checks.check(f"{path} is gone", machine.run("test", "-e", path).code != 0)
