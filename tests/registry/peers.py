"""What other programs make of our packages, and we of theirs: skopeo, umoci, docker-registry."""

import hashlib
import json
import threading

from bed import digest_in
from servers import Registry


def plain(bed):
    """A registry without a login: push, inspect, copy, unpack, pull."""
    check = bed.checks
    digest = bed.make("s", "web:1.0.0", 100_000, 6_000_000, 300)
    for text in ("signature", "sbom"):
        bed.aos("attach", "s", "web:1.0.0", text)
    with Registry(bed.path("plain")) as registry:
        remote = f"{registry.host}/team/web:1.0.0"
        docker = f"docker://{remote}"
        check.succeeds("push", bed.aos("push", "s", "web:1.0.0", remote), "uploaded: 7, mounted: 0, skipped: 0")
        check.succeeds("a second push uploads nothing", bed.aos("push", "s", "web:1.0.0", remote), "uploaded: 0", "skipped: 7")
        check.succeeds("another repository gets the blobs mounted",
                       bed.aos("push", "s", "web:1.0.0", f"{registry.host}/other/web:1.0.0"), "uploaded: 0, mounted: 7")
        inspected = bed.skopeo("inspect", "--tls-verify=false", docker)
        seen = json.loads(inspected.out or "{}")
        check.check("skopeo inspect: digest, layers, architecture",
                    (seen.get("Digest"), len(seen.get("Layers", [])), seen.get("Architecture")) == (digest, 3, "amd64"),
                    inspected.text)
        config = bed.skopeo("inspect", "--tls-verify=false", "--config", "--raw", docker)
        check.succeeds("skopeo inspect --config: the agent", config, "org.aos.agent")
        check.succeeds("skopeo copy", bed.skopeo("copy", "--src-tls-verify=false", docker, "oci:copied:web:1.0.0"))
        unpacked(bed, "what skopeo copied", "copied:web:1.0.0", digest)
        listed = bed.aos("tags", f"{registry.host}/team/web")
        check.check("tags leave out the list of attachments", listed.out == "1.0.0\n", listed.text)
        tags = bed.skopeo("list-tags", "--tls-verify=false", f"docker://{registry.host}/team/web")
        check.succeeds("skopeo list-tags: it is under the fallback tag", tags, f"sha256-{digest[7:]}")
        for name, reference in (("tag", remote), ("digest", f"{registry.host}/team/web@{digest}")):
            pulled = bed.aos("pull", f"p-{name}", reference)
            check.succeeds(f"pull by {name}, with attachments", pulled, digest, "attachments=2")
        raw = bed.skopeo("inspect", "--raw", "oci:p-tag/store:" + remote)
        check.check("skopeo reads the store that was pulled into",
                    "sha256:" + hashlib.sha256(raw.out.encode()).hexdigest() == digest, raw.text)
        theirs(bed, registry, digest)
        bases(bed, registry)
        refusals(bed, registry, remote)


def unpacked(bed, what, image, digest):
    """umoci unpacks it, and the files are what was packed."""
    name = f"unpacked-{len(list(bed.directory.glob('unpacked-*')))}"
    result = bed.command("umoci", "unpack", "--rootless", "--image", image, name)
    bed.checks.succeeds(f"umoci unpack: {what}", result)
    sizes = sorted(path.stat().st_size for path in bed.path(name).glob("rootfs/app/*"))
    bed.checks.check(f"umoci unpack: the files of {what}", sizes == [300, 100_000, 6_000_000], f"{sizes} {digest}")


def theirs(bed, registry, digest):
    """We pull what skopeo pushed."""
    remote = f"{registry.host}/skopeo/web:2.0.0"
    pushed = bed.skopeo("copy", "--dest-tls-verify=false", "oci:copied:web:1.0.0", f"docker://{remote}")
    bed.checks.succeeds("skopeo copy pushes our package", pushed)
    bed.checks.succeeds("pull what skopeo pushed: the same digest", bed.aos("pull", "q", remote), digest, "attachments=0")


def bases(bed, registry):
    """Base images of other tools: OCI and Docker's format, alone and in an index."""
    check = bed.checks
    tree = bed.path("tree")
    tree.mkdir()
    (tree / "hello").write_text("hello\n")
    for command in (["init", "--layout", "base"], ["new", "--image", "base:plain"],
                    ["insert", "--rootless", "--image", "base:plain", str(tree), "/srv"]):
        check.succeeds(f"umoci {command[0]}", bed.command("umoci", *command))
    digests = {}
    for kind in ("oci", "v2s2"):
        remote = f"{registry.host}/base/{kind}:1"
        pushed = bed.skopeo("copy", "--dest-tls-verify=false", "--format", kind, "oci:base:plain", f"docker://{remote}")
        check.succeeds(f"skopeo pushes a plain image ({kind})", pushed)
        pulled = bed.aos("pull-image", "b", remote, "amd64")
        check.succeeds(f"pull a plain image ({kind})", pulled, "layers=1 amd64")
        digests[kind] = json.loads(bed.skopeo("inspect", "--tls-verify=false", f"docker://{remote}").out)["Digest"]
        check.check(f"its digest ({kind})", digest_in(pulled) == digests[kind], pulled.text)
        refused = bed.aos("pull", "b", remote)
        check.refused(f"a plain image is no package ({kind})", refused, "cannot be used")
    raw = bed.skopeo("inspect", "--raw", "--tls-verify=false", f"docker://{registry.host}/base/oci:1").out
    entry = {"mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": digests["oci"], "size": len(raw)}
    index = {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json",
             "manifests": [{**entry, "platform": {"os": "linux", "architecture": "amd64"}}]}
    registry.put_manifest("base/oci", "all", index["mediaType"], index)
    pulled = bed.aos("pull-image", "b", f"{registry.host}/base/oci:all", "amd64")
    check.check("pull an image of an index", digest_in(pulled) == digests["oci"], pulled.text)
    check.refused("an architecture that is not there", bed.aos("pull-image", "b", f"{registry.host}/base/oci:all", "s390x"),
                  "linux/s390x")


def refusals(bed, registry, remote):
    """What is not there, and what is damaged in the registry."""
    check = bed.checks
    check.refused("no such tag", bed.aos("pull", "n", f"{registry.host}/team/web:9"), "is not in", "manifest unknown")
    check.refused("no such repository", bed.aos("tags", f"{registry.host}/none"), "is not in")
    layer = json.loads(bed.skopeo("inspect", "--raw", "--tls-verify=false", f"docker://{remote}").out)["layers"][1]
    blob = registry.blob(layer["digest"])
    good = blob.read_bytes()
    blob.write_bytes(good[:5000] + b"X" + good[5001:])
    check.refused("a blob that is altered in the registry", bed.aos("pull", "n", remote), "is altered")
    blob.write_bytes(good[:-100])
    check.refused("a blob that is cut in the registry", bed.aos("pull", "n", remote), "the manifest says")
    blob.unlink()
    check.refused("a blob that is gone from the registry", bed.aos("pull", "n", remote), "is not in")
    blob.write_bytes(good)
    check.succeeds("and whole again", bed.aos("pull", "n", remote), "attachments=2")


def directory(bed):
    """A directory as a registry, shared with skopeo and umoci."""
    check = bed.checks
    digest = bed.make("s", "web:1.0.0", 100_000, 6_000_000, 300)
    other = bed.make("s", "web:1.1.0", 5000)
    for text in ("signature", "sbom"):
        bed.aos("attach", "s", "web:1.0.0", text)
    check.succeeds("push to a directory", bed.aos("push-dir", "s", "web:1.0.0", "dir", "web:1.0.0"))
    check.succeeds("push another version", bed.aos("push-dir", "s", "web:1.1.0", "dir", "web:1.1.0"))
    for version, expected in (("1.0.0", digest), ("1.1.0", other)):
        raw = bed.skopeo("inspect", "--raw", f"oci:dir:web:{version}").out
        check.check(f"skopeo inspect oci: {version}", "sha256:" + hashlib.sha256(raw.encode()).hexdigest() == expected, raw)
    copied = bed.skopeo("copy", "oci:dir:web:1.0.0", "oci:from-dir:web:1.0.0")
    check.succeeds("skopeo copy oci:", copied)
    unpacked(bed, "what skopeo copied from the directory", "from-dir:web:1.0.0", digest)
    check.succeeds("skopeo writes into the directory", bed.skopeo("copy", "oci:from-dir:web:1.0.0", "oci:dir:theirs:3.0.0"))
    check.succeeds("pull what skopeo wrote", bed.aos("pull-dir", "d", "dir", "theirs:3.0.0"), digest)
    check.succeeds("push after skopeo", bed.aos("push-dir", "s", "web:1.1.0", "dir", "again:1.0.0"))
    names = bed.aos("tags-dir", "dir").out.split()[::2]
    check.check("all names are there", names == ["again:1.0.0", "theirs:3.0.0", "web:1.0.0", "web:1.1.0"], names)
    check.succeeds("pull with attachments", bed.aos("pull-dir", "d", "dir", "web:1.0.0"), digest, "attachments=2")
    pushers(bed)


def pushers(bed):
    """Processes that push into one directory at once."""
    results = []

    def push(number):
        for round_ in range(4):
            name = f"web:{number}.{round_}.0"
            bed.make(f"s{number}", name, 2000 + number)
            results.append(bed.aos("push-dir", f"s{number}", name, "shared", name))

    threads = [threading.Thread(target=push, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    bed.checks.check("4 processes push into one directory", all(result.code == 0 for result in results),
                     "\n".join(result.text for result in results))
    names = bed.aos("tags-dir", "shared").out.splitlines()
    bed.checks.check("and lose nothing", len(names) == 16, "\n".join(names))
