"""Speed and memory of a pull, beside skopeo copy, from the same registry on loopback."""

import os
import shutil
import statistics

from servers import Registry

# The memory that a pull may have, whatever the size of its blobs.
MEMORY_MAX_KIB = 64 << 10
ROUNDS = 5
SHAPES = {"one blob of 1 GiB": [1 << 30], "60 blobs of 1 MB": [1_000_000 + number for number in range(60)]}


def measured(bed, words):
    """Seconds, and KiB of memory at most, of a command that must succeed."""
    # GNU time starts it: a child of this process would be charged with this process's own memory.
    figures = bed.path("figures")
    result = bed.command("/usr/bin/time", "-o", figures, "-f", "%e %M", *words)
    if result.code:
        raise RuntimeError(f"{words}: {result.text}")
    seconds, kib = figures.read_text().split()
    return float(seconds), int(kib)


def against_skopeo(bed):
    """Both get the same bytes in turn, each into a fresh directory, synced between."""
    skopeo = shutil.which("skopeo")
    with Registry(bed.path("speed")) as registry:
        for number, (shape, sizes) in enumerate(SHAPES.items()):
            name = f"shape{number}:1.0.0"
            bed.make("speed-store", name, *sizes)
            remote = f"{registry.host}/{name}"
            bed.checks.succeeds(f"push {shape}", bed.aos("push", "speed-store", name, remote))
            ours, theirs = [], []
            for _ in range(ROUNDS):
                for words, times in (
                    ([str(bed.program), "pull", str(bed.path("speed-aos")), remote], ours),
                    ([skopeo, "copy", "-q", "--src-tls-verify=false", f"docker://{remote}",
                      f"oci:{bed.path('speed-skopeo')}:x"], theirs),
                ):
                    os.sync()
                    times.append(measured(bed, words))
                    for directory in ("speed-aos", "speed-skopeo"):
                        shutil.rmtree(bed.path(directory), ignore_errors=True)
            report(bed, shape, ours, theirs)


def report(bed, shape, ours, theirs):
    """One line, and the bounds."""
    seconds = [statistics.median(time for time, _ in runs) for runs in (ours, theirs)]
    memory = [max(kib for _, kib in runs) for runs in (ours, theirs)]
    line = (f"pull of {shape}: aos {seconds[0]:.2f} s, {memory[0] / 1024:.0f} MiB; "
            f"skopeo {seconds[1]:.2f} s, {memory[1] / 1024:.0f} MiB; {seconds[1] / seconds[0]:.2f} times as fast")
    print(f"     {line}", flush=True)
    bed.checks.check(f"pull of {shape} is not slower than skopeo copy", seconds[0] <= seconds[1], line)
    bed.checks.check(f"pull of {shape} stays within 64 MiB", memory[0] <= MEMORY_MAX_KIB, line)
