"""A real registry, directory registries, and what other tools make of our packages."""

import json
import shutil

from bench import Bench, Registry, needs, other


def section(checks, place, aos):
    ours, theirs = Bench(place, aos), Bench(place, aos, "theirs")
    ours.run("build", ours.agent("hello"))
    key = ours.key("ci")
    ours.run("key", "export", "ci", "-o", theirs.place / "ours.pub")
    theirs.file("store/trust.d/ours.pub", (theirs.place / "ours.pub").read_text())
    theirs.trust("ours.toml", '[[allow]]\nnames = ["hello"]\nkeys = ["ours.pub"]\n')
    directory(checks, ours, theirs, key)
    others(checks, ours)
    if missing := needs("docker-registry"):
        checks.check(f"{missing} is there", False)
        return
    registry = Registry(place)
    try:
        remote(checks, ours, theirs, registry, key)
        base_image(checks, ours, registry)
    finally:
        registry.close()


def directory(checks, ours, theirs, key):
    """`oci:DIR`."""
    shared = ours.place / "shared"
    pushed = ours.run("push", "hello:1.0.0", f"oci:{shared}", "--sign", "ci", "--passphrase-file", ours.passphrase, "--json")
    checks.check("push into a directory registry", pushed.code == 0 and pushed.json["attachments"] == 3
                 and pushed.json["destination"] == f"oci:{shared}:hello:1.0.0", pushed.text)
    pulled = theirs.run("pull", f"oci:{shared}:hello:1.0.0", "--json")
    checks.check("pull from a directory registry", pulled.code == 0 and pulled.json["keys"] == [key], pulled.text)
    missing = theirs.run("pull", f"oci:{shared}:hello:9.9.9")
    checks.check("a name that is not there is status 3, and says what is",
                 missing.code == 3 and "hello:1.0.0" in missing.text, missing.text)
    only = theirs.run("inspect", f"oci:{shared}", "--json")
    checks.check("inspect a directory registry's only package", only.code == 0 and only.json["reference"] == "hello:1.0.0", only.text)


def others(checks, ours):
    """skopeo and umoci on what we wrote."""
    if missing := needs("skopeo", "umoci"):
        checks.check(f"{missing} are there", False)
        return
    layout = ours.store / "store"
    seen = other("skopeo", "inspect", f"oci:{layout}:hello:1.0.0")
    checks.check("skopeo inspects the store itself", seen.code == 0, seen.text)
    config = other("skopeo", "inspect", "--config", f"oci:{layout}:hello:1.0.0")
    checks.check("and the config has the entrypoint", json.loads(config.out)["config"]["Entrypoint"] == ["/app/start"], config.text)
    ours.run("export", "hello:1.0.0", "--bare", "-o", ours.place / "bare.aap")
    copied = other("skopeo", "copy", f"oci-archive:{ours.place / 'bare.aap'}", f"oci:{ours.place / 'copy'}:hello-1.0.0")
    checks.check("skopeo copies an exported package", copied.code == 0, copied.text)
    unpacked = other("umoci", "unpack", "--rootless", "--image", f"{ours.place / 'copy'}:hello-1.0.0", ours.place / "umoci")
    made = ours.place / "umoci/rootfs/app/made.txt"
    checks.check("umoci unpacks it", unpacked.code == 0 and made.read_text() == "hello world\n", unpacked.text)


def remote(checks, ours, theirs, registry, key):
    place = f"{registry.host}/team/hello"
    pushed = ours.run("push", "hello:1.0.0", place, "--json")
    checks.check("push to a registry", pushed.code == 0 and pushed.json["destination"] == f"{place}:1.0.0"
                 and pushed.json["uploaded"] > 0, pushed.text)
    again = ours.run("push", "hello:1.0.0", f"{place}:1.0.0", "--json")
    checks.check("a second push sends nothing", again.code == 0 and again.json["uploaded"] == 0, again.text)
    mounted = ours.run("push", "hello:1.0.0", f"{registry.host}/team/second", "--json")
    checks.check("a push beside it", mounted.code == 0, mounted.text)
    refused = Bench(ours.place, ours.aos, "untrusting").run("pull", f"{place}:1.0.0")
    checks.check("pull without trust is status 4", refused.code == 4 and key in refused.err, refused.text)
    pulled = theirs.run("pull", place, "--json")
    checks.check("pull without a tag takes the highest version, and verifies",
                 pulled.code == 0 and pulled.json["reference"] == f"{place}:1.0.0" and pulled.json["keys"] == [key], pulled.text)
    by_digest = theirs.run("pull", f"{place}@{pulled.json['digest']}")
    checks.check("pull by digest", by_digest.code == 0, by_digest.text)
    second = f"{registry.host}/team/second"
    other_name = theirs.run("pull", f"{second}:1.0.0")
    checks.check("a good package under another name is status 4, and is not tagged",
                 other_name.code == 4 and "leads to another package, hello:1.0.0" in other_name.err
                 and second not in theirs.run("list", "packages").out, other_name.text)
    exactly = theirs.run("pull", f"{second}@{pulled.json['digest']}")
    checks.check("its digest says that it is meant", exactly.code == 0, exactly.text)
    more = "build: { stages: [ { name: app, from: \"%s:1.0.0\", steps: [ { copy: { from: src, to: /app/ } } ] } ] }\n" % place
    as_image = ours.run("build", ours.agent("asimage", name="asimage", more=more))
    checks.check("a package is no base image: the policy is not asked for those",
                 as_image.code != 0 and f"from: aap:{place}:1.0.0" in as_image.err, as_image.text)
    view = theirs.run("inspect", f"{place}:1.0.0", "--remote", "--json")
    checks.check("inspect --remote", view.code == 0 and len(view.json["attachments"]) == 3 and view.json["trust"]["trusted"], view.text)
    missing = theirs.run("pull", f"{place}:9.9.9")
    checks.check("a tag that is not there is status 3", missing.code == 3, missing.text)
    dead = theirs.run("pull", "127.0.0.1:1/team/hello:1.0.0")
    checks.check("a registry that is not there is status 6", dead.code == 6, dead.text)
    local = theirs.run("pull", "hello:1.0.0")
    checks.check("pull of a local name says what is missing", local.code == 1 and "registry" in local.err, local.text)
    if not needs("skopeo"):
        seen = other("skopeo", "inspect", "--tls-verify=false", f"docker://{place}:1.0.0")
        checks.check("skopeo inspects it there", seen.code == 0 and json.loads(seen.out)["Digest"] == pulled.json["digest"], seen.text)
        copied = other("skopeo", "copy", "--dest-tls-verify=false", f"oci:{ours.store / 'store'}:hello:1.0.0",
                       f"docker://{registry.host}/skopeo/hello:1.0.0")
        fresh = Bench(ours.place, ours.aos, "fresh")
        shutil.copytree(theirs.store / "trust.d", fresh.store / "trust.d")
        taken = fresh.run("pull", f"{registry.host}/skopeo/hello:1.0.0")
        checks.check("what skopeo pushed has our digest, and no signature: status 4",
                     copied.code == 0 and taken.code == 4 and "not signed" in taken.err, copied.text + taken.text)
        fresh.trust("skopeo.toml", f'[[allow]]\nnames = ["hello"]\nrepositories = ["{registry.host}/skopeo/*"]\nunsigned = true\n')
        taken = fresh.run("pull", f"{registry.host}/skopeo/hello:1.0.0", "--json")
        checks.check("and is pulled where a rule says that it may be unsigned",
                     taken.code == 0 and taken.json["digest"] == pulled.json["digest"], taken.text)


def base_image(checks, ours, registry):
    """`from: HOST/PATH:TAG` and `from: aap:REF`."""
    if needs("skopeo", "umoci"):
        return
    image = ours.place / "image"
    for words in (["init", "--layout", image], ["new", "--image", f"{image}:1"]):
        other("umoci", *words)
    other("umoci", "unpack", "--rootless", "--image", f"{image}:1", ours.place / "bundle")
    (ours.place / "bundle/rootfs/base").mkdir()
    (ours.place / "bundle/rootfs/base/file").write_text("of the base\n")
    other("umoci", "repack", "--image", f"{image}:1", ours.place / "bundle")
    base = f"{registry.host}/base/image:1"
    pushed = other("skopeo", "copy", "--dest-tls-verify=false", f"oci:{image}:1", f"docker://{base}")
    checks.check("a base image is pushed by skopeo", pushed.code == 0, pushed.text)
    more = ("build:\n  stages:\n    - name: app\n      from: \"{base}\"\n      steps:\n        - copy: {{ from: src, to: /app/ }}\n")
    built = ours.run("build", ours.agent("onimage", name="onimage", more=more.format(base=base)), "--json")
    checks.check("from: an image of a registry", built.code == 0, built.text)
    offline = ours.run("build", ours.place / "onimage", "--offline", "--json")
    checks.check("and again without the network", offline.code == 0 and offline.json["digest"] == built.json["digest"], offline.text)
    ours.run("unpack", "onimage:1.0.0", ours.place / "onimage-files")
    checks.check("the base's files are in it", (ours.place / "onimage-files/base/file").is_file())
    built = ours.run("build", ours.agent("onpackage", name="onpackage", more=more.format(base="aap:hello:1.0.0")), "--json")
    ours.run("unpack", "onpackage:1.0.0", ours.place / "onpackage-files")
    checks.check("from: a package", built.code == 0 and (ours.place / "onpackage-files/app/made.txt").is_file(), built.text)
