"""Faults of real processes: a pull that is killed, a registry that is killed, stopped or slow."""

import re
import signal
import time

from servers import Registry

# Large enough that a pull is caught in the middle.
LARGE = 400_000_000


def interrupted(bed):
    """Pulls and registries that end in the middle."""
    digest = bed.make("f", "big:1.0.0", LARGE)
    with Registry(bed.path("faults")) as registry:
        remote = f"{registry.host}/big:1.0.0"
        bed.checks.succeeds("push a large package", bed.aos("push", "f", "big:1.0.0", remote))
        killed_pulls(bed, registry, remote, digest)
        together(bed, remote, digest)
        killed_registry(bed, registry, remote, digest)
        stopped_registry(bed, registry, remote, digest)
        killed_push(bed, registry)


def partial_size(bed, store):
    """Bytes of the blob that is being transferred."""
    return max((path.stat().st_size for path in bed.path(store).glob("partial/*")), default=0)


def begun(bed, store, process, least):
    """Waits until so many bytes have come; false when the pull was faster."""
    while process.poll() is None:
        if partial_size(bed, store) >= least:
            return True
        time.sleep(0.002)
    return False


def large_requests(registry):
    """The finished requests for the large blob, by how much each sent."""
    gets = [line for line in registry.requests() if '"GET ' in line and "/blobs/" in line]
    return [line for line in gets if int(re.search(r'" 20[06] (\d+)', line)[1]) > 1_000_000]


def killed_pulls(bed, registry, remote, digest):
    """kill -9 at several points; the last pull fetches only the rest."""
    kept = []
    for part in (1, 2, 3):
        process = bed.spawn("pull", "k", remote)
        if begun(bed, "k", process, LARGE * part // 4):
            process.kill()
        process.communicate()
        kept.append(partial_size(bed, "k"))
    bed.checks.check("what a killed pull has stays", 0 < kept[0] <= kept[1] <= kept[2] < LARGE, kept)
    # The registry writes the line of a request when it notices that nobody reads any more.
    deadline = time.monotonic() + 30
    while len(large_requests(registry)) < len(kept) and time.monotonic() < deadline:
        time.sleep(0.02)
    bed.checks.succeeds("and the next one goes on", bed.aos("pull", "k", remote), digest)
    last = large_requests(registry)[len(kept):]
    sent = [int(line.split('" 206 ')[1].split()[0]) for line in last if '" 206 ' in line]
    fits = len(sent) == len(last) == 1 and sent[0] < LARGE - kept[2] + 1_000_000
    bed.checks.check("with the rest only", fits, f"{last} {kept}")
    seen = bed.skopeo("inspect", "--raw", f"oci:k/store:{remote}")
    bed.checks.succeeds("skopeo reads the store after it", seen)
    left = [path.name for place in ("partial", "leases", "tmp") for path in bed.path("k").joinpath(place).iterdir()]
    bed.checks.check("nothing half-made is in the partial files", not list(bed.path("k").glob("partial/*")), left)


def together(bed, remote, digest):
    """Two processes pull the same thing into one store."""
    processes = [bed.spawn("pull", "t", remote) for _ in range(2)]
    ended = [process.communicate() + (process.returncode,) for process in processes]
    good = all(code == 0 and digest in out.decode() for out, _, code in ended)
    bed.checks.check("two pulls of the same thing at once", good, ended)


def killed_registry(bed, registry, remote, digest):
    """The registry is killed in the middle and started again."""
    process = bed.spawn("--idle", "2", "pull", "r", remote)
    caught = begun(bed, "r", process, LARGE // 4)
    registry.kill()
    registry.start()
    out, err = process.communicate(timeout=120)
    good = caught and process.returncode == 0 and digest in out.decode()
    bed.checks.check("a registry that is killed and comes back", good, f"{caught} {out} {err}")


def stopped_registry(bed, registry, remote, digest):
    """The registry stops answering; and it does so for good."""
    process = bed.spawn("--idle", "1", "pull", "h", remote)
    caught = begun(bed, "h", process, LARGE // 4)
    registry.process.send_signal(signal.SIGSTOP)
    time.sleep(2)
    registry.process.send_signal(signal.SIGCONT)
    out, err = process.communicate(timeout=120)
    good = caught and process.returncode == 0 and digest in out.decode()
    bed.checks.check("a registry that stalls and goes on", good, f"{caught} {out} {err}")
    process = bed.spawn("--idle", "0.5", "pull", "i", remote)
    caught = begun(bed, "i", process, LARGE // 4)
    registry.process.send_signal(signal.SIGSTOP)
    started = time.monotonic()
    out, err = process.communicate(timeout=120)
    took = time.monotonic() - started
    registry.process.send_signal(signal.SIGCONT)
    good = caught and process.returncode == 1 and b"stalls" in err and took < 60
    bed.checks.check("a registry that stalls for ever", good, f"{caught} {took} {out} {err}")
    bed.checks.succeeds("and then does not", bed.aos("pull", "i", remote), digest)


def killed_push(bed, registry):
    """The registry is killed while it takes a blob; the push goes on or begins anew."""
    digest = bed.make("f", "other:1.0.0", LARGE + 1)
    remote = f"{registry.host}/fresh/other:1.0.0"
    process = bed.spawn("--idle", "2", "push", "f", "other:1.0.0", remote)
    uploads = registry.data / "docker/registry/v2/repositories/fresh/other/_uploads"
    while process.poll() is None:
        if any(path.stat().st_size > LARGE // 4 for path in uploads.glob("*/data")):
            break
        time.sleep(0.002)
    caught = process.poll() is None
    registry.kill()
    registry.start()
    out, err = process.communicate(timeout=120)
    bed.checks.check("a registry that is killed during a push", caught and process.returncode == 0, f"{caught} {out} {err}")
    bed.checks.succeeds("what was pushed is whole", bed.aos("pull", "w", remote), digest)
