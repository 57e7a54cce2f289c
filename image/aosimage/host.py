"""What the building machine needs: Debian packages, mkosi in Debian 13's version, the tools tree, a Rust toolchain.

Packages are installed by apt from the machine's own mirror. mkosi comes from the same mirror's Debian 13, unpacked into
the cache and not installed, so that Debian 12 builds with the same version.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

from . import aptsources
from .places import Places, Stamp, digest
from .progress import Step, StepFailed

RUST_NEEDED = (1, 95)
_MKOSI_SERIES = "25.3"

# Package and what image/run needs it for.
_BUILD = {
    "apt": "fetches Debian 13's packages",
    "ca-certificates": "mirrors over https",
    "debian-archive-keyring": "checks Debian 13's signatures",
    "openssl": "makes the local signing keys",
    "systemd": "sysusers and tmpfiles for the tools tree",
    "tar": "unpacks packages",
    "util-linux": "setpriv, runuser, unshare",
    "zstd": "compresses the release",
}
_PACKAGE = {
    "build-essential": "dpkg-buildpackage wants it",
    "debhelper": "builds the .debs",
    "dh-sequence-installsysusers": "the same",
    "dpkg-dev": "the same",
    "libc6-dev": "Rust links with it",
    "gcc": "compiles SQLite",
}
_BOOT = {
    "openssh-client": "talks to the machine",
    "ovmf": "its UEFI firmware",
    "qemu-system-x86": "runs it",
    "qemu-utils": "its disk",
}


def install_packages(step: Step, *, packaging: bool, booting: bool) -> None:
    """Install what is missing."""
    wanted = {**_BUILD, **(_PACKAGE if packaging else {}), **(_BOOT if booting else {})}
    if packaging:
        # Part of debhelper where it is newer than Debian 12's.
        wanted.pop("dh-sequence-installsysusers")
    missing = [name for name in wanted if not _installed(name)]
    if packaging and not _provided("dh-sequence-installsysusers"):
        missing.append("dh-sequence-installsysusers")
    if not missing:
        step.note = "nothing to install"
        return
    step.note = f"installed {', '.join(missing)}"
    install = ["apt-get", "install", "-y", "--no-install-recommends", *missing]
    environment = {"DEBIAN_FRONTEND": "noninteractive"}
    try:
        step.run(install, env=environment)
    except StepFailed:
        step.run(["apt-get", "update"], env=environment)
        step.run(install, env=environment)


def _installed(name: str) -> bool:
    done = subprocess.run(["dpkg-query", "-W", "-f", "${db:Status-Status}", name], capture_output=True, text=True, check=False)
    return done.stdout == "installed"


def _provided(name: str) -> bool:
    listing = subprocess.run(["dpkg-query", "-W", "-f", "${db:Status-Status} ${Provides}\n"], capture_output=True, text=True, check=False)
    return _installed(name) or any(
        line.startswith("installed ") and name in line for line in listing.stdout.splitlines()
    )


def write_sources(places: Places, step: Step) -> None:
    """Write the sandbox tree whose apt sources replace mkosi's built-in ones."""
    if not aptsources.read():
        step.run(["apt-get", "update"])
    text = aptsources.for_target(aptsources.read())
    tree = places.cache / "sandbox/etc/apt"
    for folder in ("sources.list.d", "apt.conf.d"):
        (tree / folder).mkdir(parents=True, exist_ok=True)
    (tree / "sources.list.d/mkosi.sources").write_text(text)
    # A mirror behind a proxy, or one that serves an older state, is configured for this machine's apt: keep it.
    dump = step.read(["apt-config", "dump"])
    kept = [line for line in dump.splitlines() if re.match(r'Acquire::(https?::Proxy|Check-Valid-Until|Check-Date)[^"]*"', line)]
    (tree / "apt.conf.d/90-machine").write_text("\n".join([*kept, ""]))
    step.write(text)


def fetch_mkosi(places: Places, step: Step) -> Path:
    """Unpack Debian 13's mkosi into the cache; returns its Python path."""
    target = places.cache / f"mkosi-{_MKOSI_SERIES}"
    python = target / "usr/lib/python3/dist-packages"
    if python.exists():
        step.note = "cached"
        return python
    private = places.cache / "apt"
    for folder in ("state/lists/partial", "cache/archives/partial"):
        (private / folder).mkdir(parents=True, exist_ok=True)
    (private / "status").touch()
    options = [
        f"Dir::Etc::SourceList={os.devnull}",
        f"Dir::Etc::SourceParts={places.cache}/sandbox/etc/apt/sources.list.d",
        f"Dir::State={private}/state",
        f"Dir::State::Status={private}/status",
        f"Dir::Cache={private}/cache",
        "APT::Sandbox::User=root",
    ]
    apt = ["apt-get", *(word for option in options for word in ("-o", option))]
    step.run([*apt, "update"])
    with tempfile.TemporaryDirectory(dir=places.cache) as folder:
        step.run([*apt, "download", "mkosi"], cwd=Path(folder))
        (package,) = Path(folder).glob("mkosi_*.deb")
        if not package.name.startswith(f"mkosi_{_MKOSI_SERIES}"):
            raise StepFailed(f"the mirror has {package.name}, but mkosi.conf was written for mkosi {_MKOSI_SERIES}")
        unpacked = Path(folder) / "unpacked"
        step.run(["dpkg-deb", "-x", str(package), str(unpacked)])
        shutil.copytree(unpacked, target, symlinks=True, dirs_exist_ok=True)
    return python


def mkosi_command(places: Places, python: Path, directory: Path) -> list[str]:
    """mkosi with what belongs to this machine; `directory` has the mkosi.conf."""
    for folder in ("packages", "workspace"):
        (places.cache / folder).mkdir(parents=True, exist_ok=True)
    return [
        "env", f"PYTHONPATH={python}", *(f"{k}={v}" for k, v in aptsources.proxies().items()),
        "python3", "-B", "-m", "mkosi", "--directory", str(directory),
        "--package-cache-directory", str(places.cache / "packages"),
        "--workspace-directory", str(places.cache / "workspace"),
        "--sandbox-tree", str(places.cache / "sandbox"),
        "--build-sources", "",
    ]  # fmt: skip


def build_tools(places: Places, step: Step, python: Path) -> None:
    """Build the tools tree, once per configuration."""
    config = places.root / "image/tools/mkosi.conf"
    tree = places.cache / "tools/tools"
    stamp = Stamp(places.cache / "tools.stamp", digest([config, places.cache / "sandbox"]))
    if stamp.fresh(tree):
        step.note = "cached"
        return
    for folder in ("tools", "mkosi-tools"):
        (places.cache / folder).mkdir(parents=True, exist_ok=True)
    step.run([
        *mkosi_command(places, python, config.parent),
        "--output-directory", str(places.cache / "tools"), "--cache-directory", str(places.cache / "mkosi-tools"),
        "--force", "build",
    ])  # fmt: skip
    stamp.set()


def user_path(places: Places) -> str:
    """PATH of whoever compiles: theirs, with rustup's usual place in front."""
    home = Path(f"~{places.user or 'root'}").expanduser()
    return f"{home}/.cargo/bin:{os.environ.get('AOS_USER_PATH') or os.environ['PATH']}"


def rust_version(places: Places) -> tuple[int, ...] | None:
    """The version of the cargo that would be used, if there is one."""
    cargo = shutil.which("cargo", path=user_path(places))
    if cargo is None:
        return None
    as_user = ["runuser", "-u", places.user, "--"] if places.user else []
    done = subprocess.run(
        [*as_user, "env", f"PATH={user_path(places)}", cargo, "--version"], capture_output=True, text=True, check=False, cwd=places.root
    )
    match = re.search(r"(\d+)\.(\d+)\.(\d+)", done.stdout)
    return tuple(map(int, match.groups())) if match else None


def need_rust(places: Places, step: Step) -> None:
    """Take the Rust that is there; else Debian 13's from backports, which stays out of the machine's apt configuration."""
    found = rust_version(places)
    if found and found[:2] >= RUST_NEEDED:
        step.note = f"Rust {'.'.join(map(str, found))}"
        return
    release = Path("/etc/os-release").read_text()
    advice = f"Rust {RUST_NEEDED[0]}.{RUST_NEEDED[1]} or newer is needed; install it with rustup (https://rustup.rs)"
    if "VERSION_CODENAME=trixie" not in release:
        raise StepFailed(f"{advice}: this Debian's own is older" if found else advice)
    sources = aptsources.for_target(aptsources.read())
    private = places.cache / "apt-backports"
    for folder in ("parts", "lists/partial"):
        (private / folder).mkdir(parents=True, exist_ok=True)
    (private / "parts/backports.sources").write_text(
        sources + f"\nTypes: deb\nURIs: {aptsources.archive(sources)}\nSuites: trixie-backports\nComponents: main\n"
        "Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg\n"
    )
    apt = [
        "apt-get", "-o", f"Dir::Etc::SourceList={os.devnull}", "-o", f"Dir::Etc::SourceParts={private}/parts",
        "-o", f"Dir::State::Lists={private}/lists",
    ]  # fmt: skip
    step.run([*apt, "update"])
    step.run([*apt, "install", "-y", "--no-install-recommends", "-t", "trixie-backports", "cargo", "rustc"], env={"DEBIAN_FRONTEND": "noninteractive"})
    found = rust_version(places)
    if not found or found[:2] < RUST_NEEDED:
        raise StepFailed(advice)
    step.note = f"installed Rust {'.'.join(map(str, found))} from Debian's backports"
