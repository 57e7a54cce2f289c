"""What is wrong is told with its place, by its exit status, and leaves nothing."""

import os

from bench import Bench

BAD_AGENTFILES = [
    ("an unknown field", "nonsense: 1\n", ["Agentfile:", "nonsense"]),
    ("an unknown capability", "capabilities: [ 'fly: /' ]\n", ["Agentfile:", "fly"]),
    ("an unknown step", "build: { stages: [ { name: a, from: scratch, steps: [ { fetch: x } ] } ] }\n", ["Agentfile:", "fetch"]),
    ("a base that is none", "build: { stages: [ { name: a, from: alpine, steps: [] } ] }\n", ["Agentfile:", "alpine"]),
    ("stages in a circle", "build: { stages: [ { name: a, from: 'stage:b', steps: [] }, { name: b, from: 'stage:a', steps: [] } ] }\n",
     ["Agentfile:", "a", "b"]),
    ("dependsOn in a circle", "build: { stages: [ { name: a, from: scratch, dependsOn: [ b ], steps: [] }, "
     "{ name: b, from: scratch, dependsOn: [ a ], steps: [] } ] }\n", ["Agentfile:", "a", "b"]),
    ("a stage that is not there", "build: { stages: [ { name: a, from: 'stage:x', steps: [] } ] }\n", ["Agentfile:", "x"]),
    ("a file that is not there", "build: { stages: [ { name: a, from: scratch, steps: [ { copy: { from: absent, to: /app/ } } ] } ] }\n", ["absent"]),
    ("a file outside of the folder", "build: { stages: [ { name: a, from: scratch, steps: [ { copy: { from: ../x, to: /app/ } } ] } ] }\n", ["../x"]),
    ("an argument that is not declared", "build: { stages: [ { name: a, from: scratch, steps: [ { workdir: '/${NOPE}' } ] } ] }\n", ["Agentfile:", "NOPE"]),
    ("a range that is none", "dependencies: [ { skill: x, version: newest } ]\n", ["Agentfile:", "newest"]),
    ("a step that fails", "build: { stages: [ { name: a, from: host, steps: [ { copy: { from: src, to: /app/ } }, { run: 'echo oh no; exit 3' } ] } ] }\n",
     ["exit 3", "oh no"]),
    ("a step that wants the network", "build: { stages: [ { name: a, from: host, steps: [ { run: [ python3, -c, "
     "\"import socket; socket.create_connection(('127.0.0.1', 22), 2)\" ] } ] } ] }\n", ["run"]),
]


def section(checks, place, aos):
    ours = Bench(place, aos)
    agentfiles(checks, ours)
    words(checks, ours)
    store = ours.run("list", "packages", "--json")
    checks.check("nothing is in the store after all that", store.json == [], store.text)
    checks.succeeds("and it is whole", ours.run("store", "check"), "is whole")
    damaged(checks, Bench(place, aos, "damaged"))


def agentfiles(checks, ours):
    for name, more, expected in BAD_AGENTFILES:
        folder = ours.agent("bad", more=more)
        done = ours.run("build", folder)
        missing = [text for text in expected if text not in done.err]
        checks.check(f"Agentfile: {name}", done.code == 1 and not missing and "error:" in done.err,
                     f"exit status {done.code}, missing {missing}\n{done.text}")
    empty = ours.place / "empty"
    empty.mkdir()
    done = ours.run("build", empty)
    checks.check("no Agentfile: the names are told", done.code == 1 and "Agentfile.yaml" in done.err, done.text)
    pipe = ours.place / "pipe"
    pipe.mkdir()
    os.mkfifo(pipe / "Agentfile")
    done = ours.run("build", pipe)
    checks.check("a pipe in the place of the Agentfile is told at once", done.code == 1 and "not a file" in done.err, done.text)
    locks(checks, ours)
    ours.agent("two")
    ours.file("two/Agentfile.json", "{}")
    done = ours.run("build", ours.place / "two")
    checks.check("two Agentfiles: both are told", done.code == 1 and "Agentfile.json" in done.err, done.text)


def locks(checks, ours):
    """What a stranger's folder has in the place of its lock is neither followed nor waited for."""
    folder = ours.agent("lock")
    lock = folder / "Agentfile.lock"
    secret = ours.file("secret", "root:$y$SECRET:1:\n")
    lock.symlink_to(secret)
    done = ours.run("build", folder)
    checks.check("a link in the place of the lock is not followed", done.code == 1 and "symbolic link" in done.err
                 and "SECRET" not in done.text, done.text)
    lock.unlink()
    os.mkfifo(lock)
    done = ours.run("build", folder)
    checks.check("a pipe in the place of the lock is told at once", done.code == 1 and "not a file" in done.err, done.text)


def words(checks, ours):
    """Wrong command lines, and things that are not there."""
    wrong = [
        ["build", "--secret", "token", "."], ["build", "--build-arg", "novalue", "."], ["cache", "prune", "--keep", "much"],
        ["push"], ["key"], ["tag", "only-one"], ["build", "--plan", "--output", "x.aap", "."], ["list", "everything"],
        ["pull", "x", "--parallel", "0"],
    ]
    for line in wrong:
        done = ours.run(*line)
        checks.check(f"status 2: aos {' '.join(line)}", done.code == 2 and done.out == "", done.text)
    absent = [["inspect", "nobody:1.0.0"], ["sign", "nobody:1.0.0", "--key", "x"], ["export", "nobody"],
              ["remove", "nobody:1.0.0"], ["tag", "nobody:1.0.0", "a:1.0.0"], ["push", "nobody:1.0.0", "oci:/x"],
              ["import", "absent.aap"], ["verify", "absent.aap"], ["install", "nobody:1.0.0"], ["convert", "absent.yaml"]]
    for line in absent:
        done = ours.run(*line)
        checks.check(f"status 3: aos {' '.join(line)}", done.code == 3 and "error:" in done.err, done.text)
    for line in (["inspect", "UPPER"], ["inspect", "a:b:c"], ["pull", "oci:"], ["unpack", "docker://x/y:1", "z"]):
        done = ours.run(*line)
        checks.check(f"status 1: aos {' '.join(line)}", done.code == 1 and "error:" in done.err, done.text)
    for command in ("build", "list packages", "store check", "gc", "cache list", "key list"):
        done = ours.run(*command.split(), "--help")
        checks.check(f"aos {command} --help", done.code == 0 and "Usage:" in done.out, done.text)


def damaged(checks, ours):
    """A store that is not one."""
    ours.store.mkdir()
    (ours.store / "store").mkdir()
    (ours.store / "store/index.json").write_text("{")
    (ours.store / "store/oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')
    done = ours.run("list", "packages")
    checks.check("a damaged index is told with its file", done.code == 1 and "index.json" in done.err, done.text)
    locked = ours.run("list", "packages", env={"AOS_STORE": "/proc/nothing"})
    checks.check("a store that cannot be made is told", locked.code == 1 and "AOS_STORE" in locked.err, locked.text)
