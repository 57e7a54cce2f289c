"""Two at once, and `kill -9` at any moment: the store stays whole and the next run goes on."""

import os
import signal
import time

from bench import Bench, Registry, needs

# Spread over the time that a build or pull of these sizes takes on a quick machine and on a slow one.
MOMENTS_S = [0.005, 0.01, 0.02, 0.03, 0.05, 0.08, 0.12, 0.2, 0.3, 0.5]
PAYLOAD_BYTES = 24 << 20


def section(checks, place, aos):
    ours = Bench(place, aos)
    folder = ours.agent("large", name="large")
    (folder / "src/random").write_bytes(os.urandom(PAYLOAD_BYTES))
    killed(checks, ours, "build", ["build", folder, "--no-cache"])
    done = ours.run("build", folder, "--json")
    checks.check("the next build succeeds", done.code == 0, done.text)
    if missing := needs("docker-registry"):
        checks.check(f"{missing} is there", False)
        return
    registry = Registry(place)
    try:
        pulls(checks, ours, Bench(place, aos, "theirs"), registry)
    finally:
        registry.close()


def killed(checks, bench, what, words):
    """Kills a command at each of the moments; the store is whole after each."""
    damaged, ended = [], 0
    for moment in MOMENTS_S:
        process = bench.start(*words)
        time.sleep(moment)
        ended += process.poll() is None
        process.send_signal(signal.SIGKILL)
        process.communicate()
        checked = bench.run("store", "check", "--json")
        if checked.code != 0 or not checked.json["whole"]:
            damaged.append((moment, checked.text))
    checks.check(f"{what}: killed {ended} times of {len(MOMENTS_S)}, the store was whole each time", not damaged and ended, damaged)
    collected = bench.run("gc", "--json")
    checks.check(f"{what}: gc removes what was left", collected.code == 0 and bench.run("store", "check", "--json").json["problems"] == [], collected.text)


def pulls(checks, ours, theirs, registry):
    place = f"{registry.host}/team/large:1.0.0"
    pushed = [ours.start("push", "large:1.0.0", place) for _ in range(2)]
    ended = [(process.communicate(timeout=300), process.returncode) for process in pushed]
    checks.check("two pushes of the same at once succeed", all(code == 0 for _, code in ended), ended)
    theirs.trust("all.toml", '[[allow]]\nnames = ["*"]\nunsigned = true\n')
    killed(checks, theirs, "pull", ["pull", place])
    running = [theirs.start("pull", place), theirs.start("gc"), theirs.start("pull", place), theirs.start("gc")]
    ended = [(process.communicate(timeout=300), process.returncode) for process in running]
    checks.check("two pulls of the same and two collections at once succeed", all(code == 0 for _, code in ended), ended)
    unpacked = theirs.run("unpack", place, theirs.place / "files")
    checks.check("what was pulled is complete",
                 unpacked.code == 0 and (theirs.place / "files/app/random").stat().st_size == PAYLOAD_BYTES, unpacked.text)
    checks.succeeds("their store is whole", theirs.run("store", "check"), "is whole")
