"""Where everything is: one object that all steps share. Nothing outside the checkout is written but packages by apt."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Places:
    """Paths of a checkout, and who asked.

    A flavour is `aos`, or `base` without our packages, with `-metal` for the generic kernel and `-signed` for Secure Boot.
    """

    root: Path
    debs: Path
    flavour: str = "aos"

    @property
    def out(self) -> Path:
        """What people take away: packages, released images, logs."""
        return self.root / "image/out"

    @property
    def logs(self) -> Path:
        """One log per step."""
        return self.out / "logs"

    @property
    def cache(self) -> Path:
        """What makes the next run quick; can be deleted at any time, but for keys/."""
        return self.root / "image/.cache"

    @property
    def output(self) -> Path:
        """Where mkosi puts this flavour's disk."""
        return self.cache / "output" / self.flavour

    @property
    def kernel_kind(self) -> str:
        """Which file of image/kernel is included."""
        return "metal" if "-metal" in self.flavour else "cloud"

    @property
    def version(self) -> str:
        """The workspace's version."""
        match = re.search(r'^version *= *"([^"]+)"', (self.root / "Cargo.toml").read_text(), re.MULTILINE)
        if match is None:
            raise ValueError(f"{self.root}/Cargo.toml has no version")
        return match.group(1)

    @property
    def stem(self) -> str:
        """mkosi's name of the image: id, version, architecture."""
        return f"aos_{self.version}_x86-64"

    @property
    def disk(self) -> Path:
        """The built disk."""
        return self.output / f"{self.stem}.raw"

    @property
    def kernel(self) -> Path:
        """The kernel alone, to try KVM with."""
        return self.output / f"{self.stem}.vmlinuz"

    @property
    def manifest(self) -> Path:
        """The list of packages in the image."""
        return self.output / f"{self.stem}.manifest"

    @property
    def user(self) -> str | None:
        """Who called sudo; Rust is compiled as them, with their toolchain."""
        name = os.environ.get("SUDO_USER")
        return name if name and name != "root" else None


def digest(paths: Iterable[Path], *more: str) -> str:
    """A digest of files (folders: of everything below, names and modes included) and of further words."""
    total = hashlib.sha256()
    for word in more:
        total.update(f"{len(word)}:{word}".encode())
    for path in paths:
        files = sorted(p for p in path.rglob("*") if not p.is_dir()) if path.is_dir() else [path]
        for file in files:
            if file.is_symlink():
                content = os.readlink(file).encode()
            elif file.is_file():
                content = file.read_bytes()
            else:
                content = b"absent"
            mode = file.lstat().st_mode if file.is_symlink() or file.exists() else 0
            total.update(f"{file} {mode:o} {len(content)}:".encode())
            total.update(content)
    return total.hexdigest()


class Stamp:
    """Remembers that a step was done with certain inputs."""

    def __init__(self, path: Path, inputs: str) -> None:
        self._path = path
        self._inputs = inputs

    def fresh(self, *outputs: Path) -> bool:
        """Whether the step was done with the same inputs and its outputs are still there."""
        return self._path.exists() and self._path.read_text() == self._inputs and all(o.exists() for o in outputs)

    def set(self) -> None:
        """The step was done."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._path.write_text(self._inputs)
