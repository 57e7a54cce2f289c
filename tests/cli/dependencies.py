"""Dependencies: versions, the lock, conflicts in words, circles, components that are reused."""

from bench import STAGES, Bench

NEEDS = "dependencies:\n{lines}"
USES = """build:
  stages:
    - name: app
      from: scratch
      steps:
        - copy: {{ from: src, to: /app/ }}
        - copy: {{ package: {name}, from: skill, to: /app/skills/{name}/ }}
dependencies:
{lines}"""


def line(kind, name, version):
    return f"  - {{ {kind}: {name}, version: \"{version}\" }}\n"


def section(checks, place, aos):
    ours = Bench(place, aos)
    for version in ("1.0.0", "1.1.0", "2.0.0-rc.1"):
        built = ours.run("build", ours.skill(f"pdf-{version}", "pdf", version), "--json")
        if not checks.check(f"a skill is built: {version}", built.code == 0 and built.json["kind"] == "Skill", built.text):
            return
    locking(checks, ours)
    sharing(checks, ours, Bench(place, aos, "theirs"))
    conflicts(checks, ours)


def locking(checks, ours):
    folder = ours.agent("reader", name="reader", more=USES.format(name="pdf", lines=line("skill", "pdf", "^1")))
    frozen = ours.run("build", folder, "--locked")
    checks.check("build --locked without a lock is status 5", frozen.code == 5 and "aos lock" in frozen.err, frozen.text)
    checks.check("and writes none", not (folder / "Agentfile.lock").exists())
    planned = ours.run("build", folder, "--plan")
    checks.check("a plan writes no lock", planned.code == 0 and not (folder / "Agentfile.lock").exists(), planned.text)
    built = ours.run("build", folder, "--json")
    lock = (folder / "Agentfile.lock").read_text() if (folder / "Agentfile.lock").exists() else ""
    checks.check("build makes the lock", built.code == 0 and 'version = "1.1.0"' in lock and 'source = "local"' in lock, built.text + lock)
    ours.run("unpack", "reader:1.0.0", ours.place / "reader-files")
    copied = ours.place / "reader-files/app/skills/pdf/SKILL.md"
    checks.check("a dependency's files are copied", copied.is_file() and copied.read_text().endswith("1.1.0\n"))
    needs = ours.run("inspect", "reader:1.0.0", "--json").json["agent"]["dependencies"]
    checks.check("the package says what it was built with", [(one["kind"], one["name"], one["req"], one["version"]) for one in needs]
                 == [("skill", "pdf", "^1", "1.1.0")], needs)
    ours.run("build", ours.skill("pdf-1.2.0", "pdf", "1.2.0"))
    again = ours.run("build", folder, "--json")
    checks.check("a newer version does not move the lock", again.json["digest"] == built.json["digest"], again.text)
    stays = ours.run("lock", folder, "--json")
    checks.check("lock keeps what fits", stays.code == 0 and stays.json["changed"] is False, stays.text)
    moved = ours.run("lock", folder, "--update", "--json")
    checks.check("lock --update takes the newest",
                 moved.code == 0 and moved.json["added"] == ["skill pdf 1.2.0"] and moved.json["removed"] == ["skill pdf 1.1.0"], moved.text)
    checks.check("build --locked with a lock that fits", ours.run("build", folder, "--locked").code == 0)
    ours.agent("reader", name="reader", more=USES.format(name="pdf", lines=line("skill", "pdf", "^2.0.0-rc")))
    stale = ours.run("lock", folder, "--locked")
    checks.check("a lock that does not fit is status 5, and says why", stale.code == 5 and "1.2.0" in stale.err and "^2.0.0-rc" in stale.err, stale.text)
    pre = ours.run("lock", folder, "--json")
    checks.check("a pre-release when it is asked for", pre.code == 0 and pre.json["added"] == ["skill pdf 2.0.0-rc.1"], pre.text)


def sharing(checks, ours, theirs):
    """Dependencies of dependencies, from a directory registry."""
    shared = ours.place / "shared"
    folder = ours.agent("reader", name="reader", more=USES.format(name="pdf", lines=line("skill", "pdf", "~1.1")))
    ours.run("build", folder)
    for package in ("pdf:1.0.0", "pdf:1.1.0", "reader:1.0.0"):
        ours.run("push", package, f"oci:{shared}")
    theirs.trust("all.toml", '[[allow]]\nnames = ["*"]\nunsigned = true\n')
    boss = theirs.agent("boss", name="boss", more=STAGES + NEEDS.format(lines=line("agent", "reader", "^1")))
    nowhere = theirs.run("lock", boss)
    checks.check("a dependency that nobody has is status 5, in words", nowhere.code == 5 and "there is no agent reader" in nowhere.err, nowhere.text)
    locked = theirs.run("lock", boss, "--from", f"oci:{shared}", "--json")
    found = [(one["kind"], one["name"], one["version"], one["source"]) for one in locked.json["packages"]] if locked.code == 0 else []
    checks.check("dependencies of dependencies are locked, with where they are",
                 found == [("agent", "reader", "1.0.0", f"oci:{shared}"), ("skill", "pdf", "1.1.0", f"oci:{shared}")], locked.text)
    theirs.run("lock", boss, "--from", f"oci:{shared}")
    built = theirs.run("build", boss, "--locked", "--json")
    checks.check("and the build uses the lock", built.code == 0, built.text)
    strict = Bench(theirs.place, theirs.aos, "strict")
    boss = strict.agent("boss", name="boss", more=NEEDS.format(lines=line("agent", "reader", "^1")))
    refused = strict.run("lock", boss, "--from", f"oci:{shared}")
    checks.check("an untrusted dependency is status 4", refused.code == 4, refused.text)


def conflicts(checks, ours):
    ours.run("build", ours.skill("left", "left", "1.0.0", NEEDS.format(lines=line("skill", "pdf", "=1.0.0"))))
    ours.run("build", ours.skill("right", "right", "1.0.0", NEEDS.format(lines=line("skill", "pdf", "=1.1.0"))))
    torn = ours.agent("torn", name="torn", more=NEEDS.format(lines=line("skill", "left", "*") + line("skill", "right", "*")))
    told = ours.run("build", torn)
    checks.check("a conflict is status 5, and says who wants what and what exists",
                 told.code == 5 and all(text in told.err for text in (
                     "skill left 1.0.0 wants skill pdf =1.0.0", "skill right 1.0.0 wants skill pdf =1.1.0", "skill pdf exists in")), told.text)
    checks.check("and nothing is written", not (torn / "Agentfile.lock").exists())
    # A circle needs a version that exists before it does: left 2 needs right, right 2 needs left.
    ours.run("build", ours.skill("left", "left", "2.0.0"))
    ours.run("build", ours.skill("right", "right", "2.0.0", NEEDS.format(lines=line("skill", "left", "^2"))))
    (ours.place / "left/Agentfile.lock").unlink(missing_ok=True)
    circle = ours.run("build", ours.skill("left", "left", "2.0.0", NEEDS.format(lines=line("skill", "right", "^2"))))
    checks.check("a circle is status 5, and is named",
                 circle.code == 5 and "skill left 2.0.0 -> skill right 2.0.0 -> skill left 2.0.0" in circle.err, circle.text)
