"""A disk that somebody else has filled to the last block keeps nobody from stopping and removing agents."""

import disk_limit

IDS = ("held", "gone", "later")


def section(checks, guest):
    """Three agents run; the disk is filled by root, whom no reserve of the file system stops."""
    disk_limit.write(guest, "loop")
    for name in IDS:
        started = guest.run(["aos", "run", "--detach", "--name", name, f"{disk_limit.HOME}/loop", "--", "import time; time.sleep(3600)"], check=False)
        checks.check(f"{name} runs", started.returncode == 0, started.stderr)
    full = guest.run("cat /dev/zero > /srv/filler; for i in 1 2 3; do cat /dev/zero > /srv/filler$i; done; df --output=avail / | tail -1",
                     check=False, timeout_s=600)
    checks.check("the disk is full", full.stdout.strip() == "0", full.stdout + full.stderr)
    try:
        does(checks, guest, "aos stop held")
        does(checks, guest, "aos remove --stop gone")
        does(checks, guest, "systemctl restart agentd.service")
        does(checks, guest, "aos stop later")
        does(checks, guest, "aos remove later")
        left = guest.run("aos list --json", check=False).stdout
        checks.check("what was removed is gone", "gone" not in left and "later" not in left and "held" in left, left)
        refused = guest.run("aos start held", check=False, timeout_s=300)
        checks.check("a start is refused, with the reason", refused.returncode != 0 and "space" in refused.stderr, refused.stderr)
    finally:
        guest.run("rm -f /srv/filler*")
    does(checks, guest, "aos start held")
    does(checks, guest, "aos remove --stop held")
    guest.run(f"rm -rf {disk_limit.HOME}")


def does(checks, guest, command):
    """A command that has to succeed."""
    done = guest.run(command, check=False, timeout_s=300)
    checks.check(command, done.returncode == 0, done.stdout + done.stderr)
