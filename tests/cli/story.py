"""Build, list, inspect, sign, export; import elsewhere; diff, tag, remove, gc, check."""

import json
import stat
from pathlib import Path

from bench import Bench, needs, other

HERE = Path(__file__).resolve().parent


def section(checks, place, aos):
    ours = Bench(place, aos)
    keys(checks, ours)
    build(checks, ours)
    signed = sign(checks, ours)
    elsewhere(checks, ours, Bench(place, aos, "elsewhere"), signed)
    differences(checks, ours)
    names(checks, ours)
    converting(checks, ours)


def keys(checks, ours):
    made = ours.run("key", "generate", "ci", "--passphrase-file", ours.passphrase)
    key_id = made.out.strip()
    checks.check("key generate prints the id", made.code == 0 and len(key_id) == 64, made.text)
    private = ours.place / "keys/ci.key"
    checks.check("the private key is 0600 and encrypted",
                 stat.S_IMODE(private.stat().st_mode) == 0o600 and "ENCRYPTED PRIVATE KEY" in private.read_text())
    listed = ours.run("key", "list", "--json")
    checks.check("key list shows it", listed.code == 0 and listed.json == [{"name": "ci", "id": key_id, "private": True}], listed.text)
    again = ours.run("key", "generate", "ci", "--passphrase-file", ours.passphrase)
    checks.check("a key is never replaced", again.code == 1 and "exists" in again.err, again.text)
    exported = ours.run("key", "export", "ci", "-o", ours.place / "ci.pub")
    checks.check("key export writes the public half", exported.code == 0 and "BEGIN PUBLIC KEY" in (ours.place / "ci.pub").read_text(), exported.text)
    if not needs("openssl"):
        plain = other("openssl", "pkey", "-in", private, "-passin", f"file:{ours.passphrase}", "-noout", "-text")
        checks.check("openssl reads the private key", plain.code == 0 and "ED25519" in plain.text.upper(), plain.text)
    imported = ours.run("key", "import", "friend", ours.place / "ci.pub")
    checks.check("key import keeps a public key", imported.code == 0 and imported.out.strip() == key_id, imported.text)
    missing = ours.run("key", "export", "nobody")
    checks.check("a key that is not there is status 3", missing.code == 3 and "hint" not in missing.out, missing.text)
    silent = ours.run("key", "generate", "x", prefix=("setsid", "-w"))
    checks.check("without a terminal and a file nothing is asked", silent.code == 1 and "--passphrase-file" in silent.err, silent.text)
    with open(ours.passphrase, encoding="utf-8") as secret:
        by_descriptor = ours.run("key", "generate", "fd", "--passphrase-file", f"fd:{secret.fileno()}", fds=(secret.fileno(),))
    checks.check("a passphrase from a descriptor", by_descriptor.code == 0, by_descriptor.text)
    by_input = ours.run("key", "generate", "piped", "--passphrase-file", "-", stdin=ours.passphrase.read_text())
    checks.check("a passphrase from standard input", by_input.code == 0, by_input.text)
    typed = other("python3", "-B", HERE / "typed.py", ours.aos, ours.place / "typed-keys", "open sesame")
    checks.check("a passphrase that is typed twice, and not shown",
                 typed.code == 0 and "sesame" not in typed.out and typed.out.count("(not shown)") == 1, typed.text)
    wrong = ours.run("key", "export", "ci", "--private")
    checks.check("key export --private stays encrypted", "ENCRYPTED" in wrong.out, wrong.text)


def build(checks, ours):
    folder = ours.agent("hello", capabilities=["file_read: /etc/hostname"])
    plan = ours.run("build", folder, "--plan")
    checks.check("build --plan is a table", plan.code == 0 and "STAGE" in plan.out and "made" in plan.out, plan.text)
    shown = ours.run("build", folder, "--plan", "--format", "json")
    stages = [stage["name"] for stage in shown.json["stages"]]
    checks.check("build --plan --format json has the stages in order", stages == ["made", "app"], shown.text)
    checks.check("and nothing was built", ours.run("list", "packages", "--json").json == [])
    built = ours.run("build", folder)
    checks.check("build ends with name, digest, size and time",
                 built.code == 0 and built.out == "hello:1.0.0\n" and "hello:1.0.0 sha256:" in built.err
                 and " in " in built.err.splitlines()[-1], built.text)
    again = ours.run("build", folder, "--json").json
    checks.check("the second build is cached", again["cached_steps"] == again["steps"] == 3, again)
    checks.check("provenance and SBOM are attached",
                 sorted(again["attachments"]) == ["https://slsa.dev/provenance/v1", "https://spdx.dev/Document"], again)
    quiet = ours.run("build", folder, "--quiet")
    checks.check("build --quiet says one line", len(quiet.err.splitlines()) == 1, quiet.text)
    rows = ours.run("list", "packages", "--json").json
    checks.check("list packages shows it", [(row["reference"], row["kind"], row["origin"], row["signatures"]) for row in rows]
                 == [("hello:1.0.0", "Agent", "built", 0)], rows)
    view = ours.run("inspect", "hello:1.0.0", "--json").json
    checks.check("inspect shows what it may do, its layers and attachments",
                 view["agent"]["capabilities"] == ["file_read: /etc/hostname"] and len(view["layers"]) == 2
                 and len(view["attachments"]) == 2 and view["digest"] == again["digest"], view)
    checks.succeeds("inspect for people", ours.run("inspect", "hello:1.0.0"), "file_read: /etc/hostname", "/app/start", "built")
    twice = ours.run("build", folder, "--check-reproducible", "--json")
    checks.check("build --check-reproducible", twice.code == 0 and twice.json["reproducible"] is True, twice.text)
    folder = ours.agent("random", name="random", more="""build:
  stages:
    - name: app
      from: host
      steps:
        - copy: { from: src, to: /app/ }
        - run: "od -N 16 -t x1 /dev/urandom > /app/made.txt"
""")
    random = ours.run("build", folder, "--check-reproducible")
    checks.check("what is not reproducible is status 7, and names the file",
                 random.code == 7 and "app/made.txt: contents" in random.err, random.text)


def sign(checks, ours):
    signed = ours.run("sign", "hello:1.0.0", "--key", "ci", "--passphrase-file", ours.passphrase, "--json")
    checks.check("sign", signed.code == 0 and signed.json["reference"] == "hello:1.0.0", signed.text)
    key = signed.json["key"]
    wrong = ours.file("wrong", "not it\n")
    refused = ours.run("sign", "hello:1.0.0", "--key", "ci", "--passphrase-file", wrong)
    checks.check("a wrong passphrase signs nothing", refused.code == 1 and "passphrase" in refused.err, refused.text)
    verified = ours.run("verify", "hello:1.0.0", "--key", "ci", "--json")
    checks.check("verify --key", verified.code == 0 and verified.json["keys"] == [key], verified.text)
    stranger = ours.key("stranger")
    refused = ours.run("verify", "hello:1.0.0", "--key", "stranger")
    checks.check("verify with another key is status 4", refused.code == 4 and stranger in refused.err, refused.text)
    refused = ours.run("verify", "hello:1.0.0", "--json")
    checks.check("verify without a rule is status 4, and JSON says why",
                 refused.code == 4 and refused.json["trusted"] is False and "no rule" in refused.json["reason"], refused.text)
    exported = ours.run("export", "hello:1.0.0", "--json")
    checks.check("export writes the package and signature.json",
                 exported.code == 0 and (ours.place / "hello-1.0.0.aap").is_file()
                 and exported.json["signature"].endswith("signature.json"), exported.text)
    first = (ours.place / "hello-1.0.0.aap").read_bytes()
    ours.run("export", "hello:1.0.0", "-o", ours.place / "again.aap")
    checks.check("export gives the same bytes", (ours.place / "again.aap").read_bytes() == first)
    envelope = json.loads((ours.place / "signature.json").read_text())
    checks.check("signature.json is a DSSE envelope", envelope["payloadType"] == "application/vnd.in-toto+json", envelope)
    verified = ours.run("verify", "hello-1.0.0.aap", "--key", "ci.pub")
    checks.check("verify reads a file and a public key", verified.code == 0, verified.text)
    return key


def elsewhere(checks, ours, theirs, key):
    package = ours.place / "hello-1.0.0.aap"
    refused = theirs.run("import", package)
    checks.check("import without trust is status 4, and says what to do",
                 refused.code == 4 and key in refused.err and "trust.d" in refused.err and "[[allow]]" in refused.err, refused.text)
    checks.check("and nothing is there", theirs.run("list", "packages", "--json").json == [])
    theirs.file("store/trust.d/ours.pub", (ours.place / "ci.pub").read_text())
    theirs.trust("ours.toml", '[[allow]]\nnames = ["hello"]\nkeys = ["ours.pub"]\n')
    taken = theirs.run("import", package, "--json")
    checks.check("import with trust", taken.code == 0 and taken.json["reference"] == "hello:1.0.0" and taken.json["keys"] == [key], taken.text)
    checks.check("the digest is the same",
                 taken.json["digest"] == ours.run("inspect", "hello:1.0.0", "--json").json["digest"], taken.text)
    origin = theirs.run("list", "packages", "--json").json[0]
    checks.check("its origin is told", origin["origin"] == "imported" and origin["signatures"] >= 1, origin)
    bare = theirs.place / "bare.aap"
    ours.run("export", "hello:1.0.0", "--bare", "-o", bare)
    theirs.run("remove", "hello:1.0.0")
    theirs.run("gc")
    refused = theirs.run("import", bare)
    checks.check("a package without its signature is refused", refused.code == 4 and "not signed" in refused.err, refused.text)
    beside = theirs.run("import", bare, "--signature", ours.place / "signature.json")
    checks.check("and accepted with signature.json", beside.code == 0, beside.text)
    piped = theirs.run("import", "-", prefix=("sh", "-c", 'f=$1; shift; exec "$@" < "$f"', "sh", package))
    checks.check("import from standard input", piped.code == 0, piped.text)
    altered = bytearray(package.read_bytes())
    altered[len(altered) // 2] ^= 1
    (theirs.place / "altered.aap").write_bytes(altered)
    refused = theirs.run("import", "altered.aap")
    checks.check("an altered package is refused", refused.code == 1, refused.text)
    unpacked = theirs.run("unpack", "hello:1.0.0", theirs.place / "files")
    checks.check("unpack", unpacked.code == 0 and (theirs.place / "files/app/made.txt").read_text() == "hello world\n", unpacked.text)
    refused = theirs.run("unpack", "hello:1.0.0", theirs.place / "files")
    checks.check("unpack into a folder with files is refused", refused.code == 1 and "not empty" in refused.err, refused.text)
    checks.succeeds("their store is whole", theirs.run("store", "check"), "is whole")


def differences(checks, ours):
    folder = ours.agent("hello", version="1.1.0", capabilities=["file_read: /etc/hostname", "file_write: /srv/**"])
    ours.file("hello/src/more", "more\n")
    ours.file("hello/src/start", "#!/bin/sh\necho more\n", 0o755)
    ours.run("build", folder, "--build-arg", "WHO=moon")
    told = ours.run("diff", "hello:1.0.0", "hello:1.1.0", "--json").json
    checks.check("diff: capabilities", (told["capabilities_added"], told["capabilities_removed"]) == (["file_write: /srv/**"], []), told)
    checks.check("diff: fields", [field["field"] for field in told["fields"]] == ["version"], told)
    checks.check("diff: files", told["files_added"] == ["app/more"] and told["files_removed"] == []
                 and [(file["path"], file["what"]) for file in told["files_changed"]]
                 == [("app/made.txt", ["contents"]), ("app/start", ["contents"])], told)
    shown = ours.run("diff", "hello:1.0.0", "hello:1.1.0").out
    checks.check("diff for people shows capabilities first", shown.index("file_write: /srv/**") < shown.index("app/more"), shown)
    same = ours.run("diff", "hello:1.0.0", "hello-1.0.0.aap")
    checks.check("diff of the same", same.code == 0 and "are the same" in same.out, same.text)


def names(checks, ours):
    tagged = ours.run("tag", "hello:1.0.0", "reg.example/team/hello:stable", "--json")
    checks.check("tag", tagged.code == 0 and tagged.json["reference"] == "reg.example/team/hello:stable", tagged.text)
    rows = {row["reference"] for row in ours.run("list", "packages", "--json").json}
    checks.check("both names are listed", {"hello:1.0.0", "reg.example/team/hello:stable"} <= rows, rows)
    newest = ours.run("inspect", "hello", "--json").json
    checks.check("a name alone is the highest version", newest["reference"] == "hello:1.1.0", newest)
    before = ours.run("gc", "--dry-run", "--json").json
    removed = ours.run("remove", "hello:1.1.0", "random:1.0.0")
    checks.check("remove takes the name away", removed.code == 0 and "hello:1.1.0: removed" in removed.err, removed.text)
    would = ours.run("gc", "--dry-run", "--json").json
    checks.check("gc --dry-run says what would go", would["dry_run"] and would["bytes"] > before["bytes"], would)
    did = ours.run("gc", "--json").json
    checks.check("gc removes just that", did["blobs"] == would["blobs"] and did["bytes"] == would["bytes"], did)
    gone = ours.run("inspect", "hello:1.1.0")
    checks.check("what is gone is status 3, and says what is there", gone.code == 3 and "hello:1.0.0" in gone.err, gone.text)
    checks.check("what has a name stays", ours.run("inspect", "hello:1.0.0").code == 0)
    whole = ours.run("store", "check", "--json").json
    checks.check("the store is whole, without garbage", whole["whole"] and whole["problems"] == [], whole)
    listed = ours.run("cache", "list", "--json").json
    checks.check("cache list", any(entry["kind"] == "step" for entry in listed), listed)
    pruned = ours.run("cache", "prune", "--keep", "1K", "--older", "7d", "--json")
    checks.check("cache prune", pruned.code == 0 and pruned.json["bytes"] > 0, pruned.text)
    checks.check("and what is built still is", ours.run("store", "check").code == 0)
    blobs = ours.store / "store/blobs/sha256"
    layer = ours.run("inspect", "hello:1.0.0", "--json").json["layers"][0]["digest"].removeprefix("sha256:")
    content = (blobs / layer).read_bytes()
    (blobs / layer).write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    damaged = ours.run("store", "check", "--json")
    checks.check("store check finds damage", damaged.code == 1 and not damaged.json["whole"], damaged.text)
    (blobs / layer).write_bytes(content)


def converting(checks, ours):
    ours.file("manifest.yaml", "name: watcher\nmodel: some-model\nsystem_prompt: watch\ncapabilities: [ 'file_read:/srv/**' ]\nbudget_config: { tokens: 100 }\n")
    converted = ours.run("convert", "manifest.yaml", "--json")
    checks.check("convert: an aaOS manifest, with notes",
                 converted.code == 0 and "kind: Agent" in converted.json["agentfile"] and converted.json["notes"], converted.text)
    written = ours.run("convert", "manifest.yaml", "-o", "watcher/Agentfile")
    checks.check("convert: a folder that is not there is told", written.code == 1 and "watcher" in written.err, written.text)
    other_system = ours.run("convert", "hello/src/start")
    checks.check("convert: something else is refused", other_system.code == 1, other_system.text)
