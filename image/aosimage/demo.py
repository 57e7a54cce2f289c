"""The demonstration: an example agent is packed here, copied into the machine, run there, and its result is shown."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from .guest import Guest
from .places import Places
from .progress import Step, StepFailed

EXAMPLE = "sitewatch"


def make_ssh_key(places: Places, folder: Path) -> Path:
    """A key for this run only."""
    key = folder / "id_ed25519"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "image/run", "-f", str(key)], check=True)
    return key


def pack(places: Places, step: Step) -> Path:
    """Pack the example with the `aos` from the built package; returns the .aap."""
    tool = _aos(places, step)
    target = places.cache / f"{EXAMPLE}.aap"
    target.unlink(missing_ok=True)
    # A store of its own: nothing of this machine's.
    store = {"AOS_STORE": str(places.cache / "aos-store")}
    step.run([str(tool), "build", str(places.root / "examples" / EXAMPLE), "--output", str(target)], env=store)
    step.note = f"{target.stat().st_size / 1e3:.0f} kB"
    return target


def _aos(places: Places, step: Step) -> Path:
    (deb,) = places.debs.glob("aos_*.deb")
    folder = places.cache / "aos"
    shutil.rmtree(folder, ignore_errors=True)
    step.run(["dpkg-deb", "-x", str(deb), str(folder)])
    return folder / "usr/bin/aos"


def run_inside(guest: Guest, package: Path, step: Step) -> str:
    """Install and run the package in the machine; returns what the agent printed and its unit's status."""
    inside = f"/root/{package.name}"
    guest.push(package, inside)
    # Nobody signed it: whoever is root in the machine vouches for it.
    for command in (f"aos install --local {inside}", f"aos run {EXAMPLE}"):
        ran = guest.run(command, timeout_s=600, check=False)
        step.write(ran.stdout + ran.stderr)
        if ran.returncode != 0:
            raise StepFailed(f"`{command}` in the machine ended with status {ran.returncode}: {ran.stderr.strip()[-1500:]}")
    status = guest.run(f"systemctl status --no-pager --full aos-agent@{EXAMPLE}.service", check=False).stdout
    step.write(status)
    return f"{ran.stdout.rstrip()}\n\n$ systemctl status aos-agent@{EXAMPLE}\n{status.rstrip()}"


def indent(text: str, width: int = 0) -> str:
    """For showing the machine's words among ours."""
    columns = width or shutil.get_terminal_size((120, 25)).columns
    return "\n".join(f"    {line[: max(columns - 4, 40)]}" for line in text.splitlines())


def have_terminal() -> bool:
    """Whether somebody sits in front of this run."""
    return os.isatty(0) and os.isatty(1)
