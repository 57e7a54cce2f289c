"""The published form: a compressed raw disk, a compressed qcow2, the list of packages, and their SHA-256 sums."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

from .places import Places
from .progress import Step


def publish(places: Places, step: Step) -> list[Path]:
    """Write aos_VERSION_amd64[_metal][_signed].{raw.zst,qcow2,manifest} and SHA256SUMS into image/out; returns them."""
    kind = places.flavour.removeprefix("aos").replace("-", "_")
    stem = places.out / f"aos_{places.version}_amd64{kind}"
    raw, qcow2, manifest = (Path(f"{stem}.{suffix}") for suffix in ("raw.zst", "qcow2", "manifest"))
    for old in places.out.glob(f"aos_*_amd64{kind}.*"):
        old.unlink()
    # --no-progress and a fixed level and thread count: the same disk gives the same bytes.
    step.run(["zstd", "--quiet", "--force", "-15", "--long=27", "-T2", str(places.disk), "-o", str(raw)])
    step.run(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", "-c", "-o", "compression_type=zstd", str(places.disk), str(qcow2)])
    shutil.copyfile(places.manifest, manifest)
    made = [raw, qcow2, manifest]
    sums = places.out / "SHA256SUMS"
    published = sorted(file for file in places.out.glob(f"aos_{places.version}_amd64*") if file.is_file())
    sums.write_text("".join(f"{_sha256(file)}  {file.name}\n" for file in published))
    step.note = ", ".join(f"{file.name} {file.stat().st_size / 1e6:.1f} MB" for file in (raw, qcow2))
    return [*made, sums]


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
