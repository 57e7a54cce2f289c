"""What is built: our .debs, the local signing keys, the image. Each is skipped when its inputs are what they were."""

from __future__ import annotations

import os
import shutil
import subprocess
import uuid
from pathlib import Path

from . import host
from .places import Places, Stamp, digest
from .progress import Step, StepFailed

OUR_PACKAGES = ("agentd", "aos", "aos-appliance")
# What the packages are made of, and what the image is made of beside them.
_PACKAGE_SOURCES = ("Cargo.toml", "Cargo.lock", "crates", "debian", "docs", "examples", "systemd", "CHANGELOG.md", "README.md")
_IMAGE_SOURCES = ("mkosi.conf", "mkosi.images", "examples", "image/finalize", "image/initrd", "image/kernel", "image/repart", "image/tools", "rootfs-overlay")
# A commit's time when there is no git: 2026-01-01.
_EPOCH_WITHOUT_GIT = "1767225600"


def build_packages(places: Places, step: Step) -> None:
    """Build the .debs into image/out/debs with debian/rules, as the user who called."""
    sources = [places.root / name for name in _PACKAGE_SOURCES]
    stamp = Stamp(places.cache / "packages.stamp", digest(sources))
    if stamp.fresh(places.debs) and not missing_packages(places):
        step.note = "cached"
        return
    places.debs.parent.mkdir(parents=True, exist_ok=True)
    if places.user:
        shutil.chown(places.debs.parent, places.user)
    step.run(
        [str(places.root / "tests/lib/build-debs"), str(places.debs)],
        cwd=places.root, user=places.user, env={"PATH": host.user_path(places)},
    )  # fmt: skip
    if missing := missing_packages(places):
        raise StepFailed(f"the build made no {', '.join(missing)} package in {places.debs}")
    stamp.set()


def missing_packages(places: Places) -> list[str]:
    """Which of our packages are not in the folder, each of which must be there exactly once."""
    return [name for name in OUR_PACKAGES if len(list(places.debs.glob(f"{name}_*.deb"))) != 1]


def make_keys(places: Places, step: Step) -> None:
    """Make the key that signs the verity root hash, once; it never leaves this machine."""
    keys = places.cache / "keys"
    if (keys / "verity.crt").exists():
        return
    keys.mkdir(mode=0o700, parents=True, exist_ok=True)
    step.run([
        "openssl", "req", "-x509", "-newkey", "rsa:3072", "-sha256", "-nodes", "-days", "3650",
        "-subj", "/CN=AOS image key of this machine", "-keyout", str(keys / "verity.key"), "-out", str(keys / "verity.crt"),
    ])  # fmt: skip
    (keys / "verity.key").chmod(0o600)


def build_image(places: Places, step: Step, python: Path, sign: tuple[Path, Path] | None = None) -> None:
    """Build the disk of this flavour.

    With `sign` (key, certificate) the boot files are signed for Secure Boot, and a machine in setup mode enrols the
    certificate. /usr differs from the unsigned build's by the signed boot loader in it.
    """
    make_keys(places, step)
    debs = sorted(places.debs.glob("*.deb")) if places.flavour.startswith("aos") else []
    epoch = _source_date_epoch(places)
    inputs = digest([*(places.root / name for name in _IMAGE_SOURCES), *debs, *(sign or ())], places.version, places.flavour, epoch)
    stamp = Stamp(places.cache / f"image-{places.flavour}.stamp", inputs)
    if stamp.fresh(places.disk, places.kernel, places.manifest):
        step.note = f"cached, {_size(places)}"
        return
    # Split parts are named by their content: those of the last build would stay.
    shutil.rmtree(places.output, ignore_errors=True)
    places.output.mkdir(parents=True)
    # A folder per kernel: mkosi keeps one cached tree per name, and the kernel is in it.
    cache = places.cache / f"mkosi-{places.kernel_kind}"
    cache.mkdir(exist_ok=True)
    arguments = [
        "--output-directory", str(places.output), "--cache-directory", str(cache),
        "--verity-key", str(places.cache / "keys/verity.key"), "--verity-certificate", str(places.cache / "keys/verity.crt"),
        "--include", str(places.root / "image/kernel" / f"{places.kernel_kind}.conf"),
        "--image-version", places.version, "--source-date-epoch", epoch, "--seed", str(_seed(places)),
    ]  # fmt: skip
    if sign:
        arguments += [
            "--secure-boot=yes", "--secure-boot-auto-enroll=yes",
            "--secure-boot-key", str(sign[0].resolve()), "--secure-boot-certificate", str(sign[1].resolve()),
        ]  # fmt: skip
    if debs:
        arguments += ["--volatile-package", ",".join(OUR_PACKAGES), "--volatile-package-directory", str(_staged(places, debs))]
    step.run([*host.mkosi_command(places, python, places.root), *arguments, "--force", "build"])
    stamp.set()
    step.note = _size(places)


def _staged(places: Places, debs: list[Path]) -> Path:
    """A folder with nothing but our packages, for apt inside mkosi."""
    folder = places.cache / "debs"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for deb in debs:
        if deb.name.split("_")[0] in OUR_PACKAGES:
            shutil.copy2(deb, folder)
    return folder


def _seed(places: Places) -> uuid.UUID:
    """Of all ids in the image: the same for equal versions; different between versions, whose partitions coexist."""
    return uuid.uuid5(uuid.NAMESPACE_OID, f"aos image {places.version}")


def _source_date_epoch(places: Places) -> str:
    """The commit's time: equal commits give equal bytes, and each version's /usr is newer than the last one's."""
    done = subprocess.run(
        ["git", "-c", f"safe.directory={places.root}", "-C", str(places.root), "log", "-1", "--format=%ct"],
        capture_output=True, text=True, check=False, env={**os.environ, "GIT_OPTIONAL_LOCKS": "0"},
    ) if shutil.which("git") else None  # fmt: skip
    return done.stdout.strip() if done and done.returncode == 0 and done.stdout.strip() else _EPOCH_WITHOUT_GIT


def _size(places: Places) -> str:
    used = places.disk.stat().st_blocks * 512
    return f"{used / 1e6:.0f} MB used of {places.disk.stat().st_size / 1e6:.0f} MB"
