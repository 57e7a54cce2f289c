"""The same input gives the same bytes; builds at once; the cache; files and streams."""

import os
import shutil

from bench import STAGES, Bench


def section(checks, place, aos):
    ours = Bench(place, aos)
    folder = ours.agent("hello")
    digest = ours.run("build", folder, "--json").json["digest"]
    anywhere(checks, ours, Bench(place, aos, "elsewhere"), folder, digest)
    at_once(checks, ours)
    files(checks, ours, folder)
    settings(checks, ours)
    closed(checks, ours)
    agentfiles(checks, ours)


def anywhere(checks, ours, theirs, folder, digest):
    """Another path, user, day, umask, time zone and order of files."""
    other = theirs.place / "another/path with spaces"
    other.parent.mkdir()
    other.mkdir()
    for path in sorted(folder.rglob("*"), reverse=True):
        target = other / path.relative_to(folder)
        if path.is_dir():
            target.mkdir(parents=True, exist_ok=True)
        else:
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, target)
            os.utime(target, (1, 1))
    built = theirs.run("build", other, "--json", "--jobs", "1", env={"TZ": "Asia/Tokyo", "LC_ALL": "C", "USER": "somebody"})
    checks.check("another path, time and environment: the same digest", built.json["digest"] == digest, built.text)
    if os.geteuid() == 0 and shutil.which("setpriv"):
        place = theirs.place / "nobody"
        place.mkdir()
        shutil.copytree(other, place / "agent")
        for path in [place, *place.rglob("*")]:
            os.chown(path, 65534, 65534)
        built = theirs.run("build", place / "agent", "--json",
                           env={"AOS_STORE": str(place / "store"), "TMPDIR": str(place), "HOME": str(place)},
                           prefix=("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"))
        checks.check("another user: the same digest", built.code == 0 and built.json["digest"] == digest, built.text)
    dated = ours.run("build", folder, "--json", env={"SOURCE_DATE_EPOCH": "1700000000"})
    checks.check("SOURCE_DATE_EPOCH is input", dated.code == 0 and dated.json["digest"] != digest, dated.text)
    again = theirs.run("build", other, "--json", env={"SOURCE_DATE_EPOCH": "1700000000"})
    checks.check("and gives the same everywhere", again.json["digest"] == dated.json["digest"], again.text)
    wrong = ours.run("build", folder, env={"SOURCE_DATE_EPOCH": "yesterday"})
    checks.check("a SOURCE_DATE_EPOCH that is no number is told", wrong.code == 1 and "SOURCE_DATE_EPOCH" in wrong.err, wrong.text)
    ours.run("build", folder)


def at_once(checks, ours):
    """Several builds of the same, and of different folders, in one store."""
    folders = [ours.agent(f"many{number}", name=f"many{number % 2}", more=STAGES.replace("hello", f"hello {number % 2}"))
               for number in range(4)]
    running = [ours.start("build", folder, "--json", "--no-cache") for folder in folders]
    ended = [(process.communicate(timeout=300), process.returncode) for process in running]
    checks.check("four builds at once succeed", all(code == 0 for _, code in ended), ended)
    rows = {row["reference"]: row["digest"] for row in ours.run("list", "packages", "--json").json}
    checks.check("and each package is there", {"many0:1.0.0", "many1:1.0.0"} <= rows.keys(), rows)
    running = [ours.start("gc"), ours.start("build", folders[0], "--no-cache"), ours.start("gc"),
               ours.start("build", folders[1], "--no-cache"), ours.start("store", "check")]
    ended = [(process.communicate(timeout=300), process.returncode) for process in running]
    checks.check("builds and gc at once succeed", all(code == 0 for _, code in ended), ended)
    checks.succeeds("the store is whole", ours.run("store", "check"), "is whole")


def files(checks, ours, folder):
    written = ours.run("build", folder, "--output", ours.place / "hello.aap")
    checks.check("--output prints the file", written.code == 0 and written.out.strip().endswith("hello.aap"), written.text)
    piped = ours.run("export", "hello:1.0.0", "-o", ours.place / "exported.aap")
    checks.check("--output is what export writes",
                 (ours.place / "hello.aap").read_bytes() == (ours.place / "exported.aap").read_bytes(), piped.text)
    nowhere = ours.run("build", folder, "-o", "/nonexistent/x.aap")
    checks.check("a folder that does not exist is told before anything is built",
                 nowhere.code == 1 and nowhere.err == "error: the folder /nonexistent does not exist\n", nowhere.text)
    left = sorted(path.name for path in (ours.place / "tmp").iterdir())
    checks.check("no temporary file stays", left == [], left)


def closed(checks, ours):
    """Layers have files that everybody may write: nobody else reaches them where they are unpacked."""
    trees = list((ours.store / "cache/trees").iterdir())
    open_ones = [tree for tree in trees if tree.stat().st_mode & 0o077]
    checks.check("unpacked layers are closed to other users", trees and not open_ones, f"{trees} {open_ones}")


def settings(checks, ours):
    """Arguments, secrets, names, environment of the package."""
    folder = ours.agent("secret", name="secret", more="""build:
  args: { WHO: world }
  stages:
    - name: app
      from: host
      steps:
        - copy: { from: src, to: /app/ }
        - run: { command: "wc -c < /run/secrets/token > /app/made.txt; echo ${WHO} >> /app/made.txt", secrets: [ token ], cache: [ /var/cache/x ] }
        - expose: [ 8080, "53/udp" ]
        - label: { team: tests }
        - workdir: /app
        - env: { MODE: fast }
""")
    token = ours.file("token", "s3cr3t-value")
    missing = ours.run("build", folder)
    checks.check("a secret that is not given is told", missing.code == 1 and "token" in missing.err, missing.text)
    built = ours.run("build", folder, "--secret", f"id=token,src={token}", "--build-arg", "WHO=moon", "--json")
    checks.check("secrets and arguments", built.code == 0, built.text)
    ours.run("unpack", "secret:1.0.0", ours.place / "secret-files")
    made = (ours.place / "secret-files/app/made.txt").read_text()
    checks.check("the step had both", made == "12\nmoon\n", made)
    found = [path for path in ours.store.rglob("*") if path.is_file() and b"s3cr3t-value" in path.read_bytes()]
    checks.check("the secret is nowhere in the store", found == [], found)
    agent = ours.run("inspect", "secret:1.0.0", "--json").json["agent"]
    checks.check("expose, label, workdir and env are in the package",
                 (agent["expose"], agent["labels"], agent["run"]["workdir"], agent["run"]["env"].get("MODE"))
                 == (["53/udp", "8080/tcp"], {"team": "tests"}, "/app", "fast"), agent)
    unknown = ours.run("build", folder, "--secret", f"id=token,src={token}", "--build-arg", "NOBODY=1")
    checks.check("an unknown argument is refused", unknown.code == 1 and "NOBODY" in unknown.err, unknown.text)
    named = ours.run("build", folder, "--secret", f"id=token,src={token}", "-t", "other:2.0.0", "--json")
    checks.check("-t names the package", named.code == 0 and named.json["reference"] == "other:2.0.0", named.text)
    beside = ours.run("build", folder, "--secret", f"id=token,src={token}", "-t", "reg.example/team/secret:edge", "--json")
    rows = [row["reference"] for row in ours.run("list", "packages", "--json").json]
    checks.check("-t with a registry names it as well", "reg.example/team/secret:edge" in rows, beside.text)


def agentfiles(checks, ours):
    """The formats, -f, .aosignore, templates."""
    folder = ours.agent("formats", name="formats", more="")
    (folder / "Agentfile").unlink()
    ours.file("formats/Agentfile.toml", 'apiVersion = "aos/v1"\nkind = "Agent"\nmetadata = { name = "formats", version = "1.0.0" }\n'
              'run = { entrypoint = ["/app/src/start"] }\n')
    toml = ours.run("build", folder, "--json")
    (folder / "Agentfile.toml").unlink()
    ours.file("formats/Agentfile.json", '{"apiVersion":"aos/v1","kind":"Agent","metadata":{"name":"formats","version":"1.0.0"},"run":{"entrypoint":["/app/src/start"]}}')
    json_ = ours.run("build", folder, "--json")
    checks.check("TOML and JSON give the same package", toml.code == json_.code == 0 and toml.json["digest"] == json_.json["digest"], toml.text + json_.text)
    ours.file("formats/src/junk.log", "x")
    ours.file("formats/.aosignore", "*.log\n.aosignore\n")
    ignored = ours.run("build", folder, "--json")
    checks.check(".aosignore leaves out", ignored.json["digest"] == json_.json["digest"], ignored.text)
    (folder / "Agentfile.json").rename(ours.place / "elsewhere.json")
    elsewhere = ours.run("build", folder, "-f", ours.place / "elsewhere.json", "--json")
    checks.check("-f names an Agentfile elsewhere", elsewhere.code == 0 and elsewhere.json["digest"] == json_.json["digest"], elsewhere.text)
    ours.file("template/Agentfile", "apiVersion: aos/v1\nkind: Agent\nmetadata: { name: template, version: 1.0.0, labels: { of: template } }\n"
              "run: { entrypoint: [ /app/start ], env: { A: template, B: template } }\n")
    ours.file("child/Agentfile", "apiVersion: aos/v1\nkind: Agent\nextends: ../template\nmetadata: { name: child, version: 2.0.0 }\nrun: { env: { A: child } }\n")
    ours.file("child/start", "#!/bin/sh\n", 0o755)
    child = ours.run("build", ours.place / "child", "--json")
    agent = ours.run("inspect", "child:2.0.0", "--json").json.get("agent", {}) if child.code == 0 else {}
    checks.check("extends takes what a template has", agent.get("labels") == {"of": "template"}
                 and agent["run"]["env"] == {"A": "child", "B": "template"}, child.text + str(agent))
