"""The machine's own apt configuration turned into Debian 13's: same mirrors, Debian's keys, no mirror named here.

An archive counts when it serves a Debian release (or its -updates or -security) here; other vendors' are left out.
"""

from __future__ import annotations

import re
import subprocess

TARGET = "trixie"
_KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
_RELEASES = ("bookworm", "trixie", "stable", "oldstable")
_POCKETS = ("", "updates", "security")


class AptSourcesError(Exception):
    """No Debian mirror could be read from the machine's configuration."""


def read() -> str:
    """apt's own account of its sources, one `RELEASE URI` a line; empty before the first `apt-get update`."""
    done = subprocess.run(
        ["apt-get", "indextargets", "--format", "$(CREATED_BY) $(COMPONENT) $(RELEASE) $(REPO_URI)"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode != 0:
        raise AptSourcesError(f"apt-get indextargets: {done.stderr.strip()}")
    wanted = [line.split() for line in done.stdout.splitlines() if line.startswith("Packages main ")]
    return "\n".join(f"{release} {uri}" for _, _, release, uri in wanted)


def for_target(archives: str) -> str:
    """A deb822 file with the mirrors of `archives` (see `read`) and Debian 13's suites."""
    suites: dict[str, dict[str, None]] = {}
    for line in archives.splitlines():
        release, uri = line.split()
        name, dash, pocket = release.partition("-")
        if name in _RELEASES and pocket in _POCKETS:
            suites.setdefault(uri, {})[f"{TARGET}{dash}{pocket}"] = None
    if not any(TARGET in found for found in suites.values()):
        raise AptSourcesError("apt on this machine names no Debian mirror: add one (man 5 sources.list), then run this again")
    return "\n".join(
        f"Types: deb\nURIs: {uri}\nSuites: {' '.join(found)}\nComponents: main\nSigned-By: {_KEYRING}\n"
        for uri, found in suites.items()
    )


def archive(text: str) -> str:
    """The mirror that has Debian 13 itself, in what `for_target` returned."""
    match = re.search(rf"URIs: (\S+)\nSuites: {TARGET}(?: |\n)", text)
    if match is None:
        raise AptSourcesError("no mirror of Debian 13")
    return match.group(1)


def proxies() -> dict[str, str]:
    """apt's own proxy settings as environment variables, for what does not read apt's configuration."""
    done = subprocess.run(["apt-config", "dump"], capture_output=True, text=True, check=False)
    found = {}
    for scheme in ("http", "https"):
        if match := re.search(rf'^Acquire::{scheme}::Proxy "([^"]+)";', done.stdout, re.MULTILINE | re.IGNORECASE):
            found[f"{scheme}_proxy"] = match.group(1)
    return found
