"""limits.disk on a machine whose file system has project quotas: `section(checks, guest)`, for any guest over SSH.

Attempt 16 of the escape corpus for real: an agent fills its workspace with bytes and with names, on the disk itself
and in a transaction; it is refused, its neighbours are not, and what the operator is told is what the kernel does.
"""

import json

HOME = "/root/disk-limit"
DISK = 16 << 20
FILES = 4096
TIMEOUT_S = 600

AGENTFILE = """\
apiVersion: aos/v1
kind: Agent
metadata: {{ name: {name}, version: {version} }}
build:
  stages:
    - name: app
      from: host
      steps:
        - copy: {{ from: main.py, to: /app/main.py }}
run:
  entrypoint: [ /usr/bin/python3, /app/main.py ]
  lifecycle: oneshot
  workspace: {workspace}
{limits}"""
LIMITED = "limits: { disk: 16M }\n"

# What the agents' code may use; the code is the first argument.
MAIN = '''\
import errno, fcntl, os, struct, sys
os.chdir("/workspace")

def fill(name, most):
    """Writes until it is refused; says how much there was, and why it ended."""
    file, written = os.open(name, os.O_WRONLY | os.O_CREAT), 0
    try:
        while written < most:
            written += os.write(file, b"\\xaa" * 65536)
        os.fsync(file)
        why = "nothing stopped it"
    except OSError as error:
        why = errno.errorcode[error.errno]
    os.close(file)
    print("filled", written, why, flush=True)

def crowd(most):
    """Makes names until it is refused."""
    os.makedirs("names", exist_ok=True)
    made, why = 0, "nothing stopped it"
    try:
        while made < most:
            os.close(os.open(f"names/{made}", os.O_WRONLY | os.O_CREAT))
            made += 1
    except OSError as error:
        why = errno.errorcode[error.errno]
    print("crowded", made, why, flush=True)

def leave():
    """Lets its own directory count for another project (FS_IOC_FSGETXATTR, FS_IOC_FSSETXATTR)."""
    folder = os.open(".", os.O_RDONLY)
    now = bytearray(fcntl.ioctl(folder, 0x801C581F, bytes(28)))
    flags, project = struct.unpack_from("<I", now)[0], struct.unpack_from("<I", now, 12)[0]
    for name, flags, project in (("project", flags, 0), ("flag", flags & ~0x200, project)):
        struct.pack_into("<I", now, 0, flags)
        struct.pack_into("<I", now, 12, project)
        try:
            fcntl.ioctl(folder, 0x401C5820, bytes(now))
            print("left", name, flush=True)
        except OSError as error:
            print("refused", name, errno.errorcode[error.errno], flush=True)

exec(sys.argv[1])
'''


def section(checks, guest):
    """In the order in which an operator meets it."""
    for name, workspace, limits in (("filler", "persistent", LIMITED), ("viewer", "transactional", LIMITED),
                                    ("free", "persistent", "")):
        write(guest, name, workspace, limits)
    fills(checks, guest)
    told(checks, guest)
    transaction(checks, guest)
    changed(checks, guest)
    elsewhere(checks, guest)
    removed(checks, guest)


def write(guest, name, workspace="persistent", limits="", version="1.0.0"):
    """Writes an agent's folder in the machine."""
    text = AGENTFILE.format(name=name, workspace=workspace, limits=limits, version=version)
    guest.run(f"mkdir -p {HOME}/{name} && cat > {HOME}/{name}/Agentfile", stdin=text.encode())
    guest.run(f"cat > {HOME}/{name}/main.py", stdin=MAIN.encode())


def run(guest, name, code):
    """Runs an agent once; its words."""
    done = guest.run(["aos", "run", f"{HOME}/{name}", "--", code], check=False, timeout_s=TIMEOUT_S)
    return done.stdout + done.stderr


def said(text, word):
    """The words of the line that begins with `word`."""
    lines = [line.split() for line in text.splitlines() if line.startswith(word)]
    return lines[-1] if lines else [word, "0", "nothing"]


def fills(checks, guest):
    """Bytes and names have an end; a neighbour's have not; what is deleted is free again."""
    text = run(guest, "filler", f"fill('big', {4 * DISK})")
    _, written, why = said(text, "filled")
    checks.check("an agent that fills its workspace gets EDQUOT", why == "EDQUOT", text)
    checks.check("after what it may use and no more", DISK - (1 << 20) < int(written) <= DISK, text)
    text = run(guest, "filler", f"fill('big', {DISK // 2})\nfill('more', 65536)\nos.remove('big')\nfill('more', 65536)")
    reasons = [line.split(maxsplit=2)[2] for line in text.splitlines() if line.startswith("filled")]
    checks.check("it stays full over a restart, until something is deleted", reasons[1:] == ["EDQUOT", "nothing stopped it"], text)
    text = run(guest, "filler", f"crowd({4 * FILES})")
    _, made, why = said(text, "crowded")
    checks.check("an agent that makes names gets EDQUOT", why == "EDQUOT" and FILES - 100 < int(made) < FILES, text)
    text = run(guest, "filler", "leave()")
    checks.check("it cannot leave its project", "refused project" in text and "refused flag" in text and "left" not in text, text)
    text = run(guest, "free", f"fill('big', {2 * DISK})\ncrowd({FILES + 100})")
    checks.check("a neighbour without a limit is not stopped", text.count("nothing stopped it") == 2, text)


def told(checks, guest):
    """What is in force can be read back."""
    layers = json.loads(guest.run("aos explain --json filler").stdout)["layers"]
    row = next((row for row in layers if row["layer"] == "disk"), {})
    expected = f"at most {DISK} bytes, {FILES} files"
    checks.check("aos explain has what was asked and what is in force",
                 row.get("asked") == expected and row.get("in_force", "").startswith(expected) and row.get("ok") is True, row)
    checks.check("with the names that are used", f"{FILES} files" in row.get("in_force", "").split("used: ")[-1], row)
    view = json.loads(guest.run("aos status --json filler").stdout)
    checks.check("aos status has the limit and the use", view.get("disk_limit") == DISK and 0 < view.get("disk_used", 0) <= DISK, view)
    shown = guest.run("aos status filler").stdout
    checks.check("and shows it to people", "of 16" in next((line for line in shown.splitlines() if "Disk" in line), ""), shown)
    free = json.loads(guest.run("aos status --json free").stdout)
    checks.check("an agent without a limit has none", "disk_limit" not in free, free)


def transaction(checks, guest):
    """What is changed counts, and so does what is committed; a commit of more than half has room."""
    text = run(guest, "viewer", f"fill('big', {4 * DISK})")
    checks.check("a transactional agent gets EDQUOT", said(text, "filled")[2] == "EDQUOT", text)
    text = run(guest, "viewer", f"os.remove('big')\nfill('big', {DISK * 3 // 4})")
    checks.check("three quarters of the limit fit", "nothing stopped it" in text, text)
    done = guest.run("aos commit viewer", check=False, timeout_s=TIMEOUT_S)
    checks.check("aos commit has room for them a second time", done.returncode == 0, done.stdout + done.stderr)
    done = guest.run("systemctl start aos-agent@viewer.service", check=False, timeout_s=TIMEOUT_S)
    checks.check("and leaves the limit as it was", done.returncode == 0, done.stdout + done.stderr)
    text = run(guest, "viewer", f"fill('new', {DISK})")
    _, written, why = said(text, "filled")
    checks.check("what was committed counts", why == "EDQUOT" and int(written) <= DISK // 4, text)


def changed(checks, guest):
    """A limit that comes when there is much already, and one that goes."""
    write(guest, "grown")
    text = run(guest, "grown", f"os.makedirs('a/b')\nfill('a/b/big', {2 * DISK})\nos.chmod('a', 0)")
    checks.check("an agent without a limit grows", "nothing stopped it" in text, text)
    write(guest, "grown", limits=LIMITED, version="1.0.1")
    text = run(guest, "grown", "fill('more', 1 << 20)")
    checks.check("a limit that comes later counts what was there", said(text, "filled")[2] == "EDQUOT", text)
    text = run(guest, "grown", "os.chmod('a', 0o700)\nos.remove('a/b/big')\nfill('more', 1 << 20)")
    checks.check("what is deleted is free again", "nothing stopped it" in text, text)
    write(guest, "grown", version="1.0.2")
    text = run(guest, "grown", f"fill('more', {2 * DISK})")
    checks.check("a package without a limit takes it away", "nothing stopped it" in text, text)


def elsewhere(checks, guest):
    """Where the file system cannot, nothing starts, and the reason is where an operator looks."""
    for name, mount, says in (
        ("memory", "mount -t tmpfs -o size=64M none", "put it on ext4 or xfs"),
        ("plain", "truncate -s 64M /root/plain.img && mkfs.ext4 -q /root/plain.img && mount -o loop /root/plain.img", "prjquota"),
    ):
        write(guest, name, limits=LIMITED)
        folder = f"/var/lib/aos-agents/{name}"
        guest.run(f"mkdir {folder} && {mount} {folder}")
        text = run(guest, name, "print('it ran')")
        checks.check(f"{name}: the start is refused, with what to change",
                     "it ran" not in text and "limits.disk needs project quotas" in text and says in text, text)
        status = guest.run(f"systemctl show -P ExecMainStatus aos-agent@{name}.service").stdout.strip()
        checks.check(f"{name}: the launcher ended with 205/LIMITS", status == "205", status)
        guest.run(f"umount {folder} && rm -f /root/plain.img")
        text = run(guest, name, "print('it ran')")
        checks.check(f"{name}: on the machine's own disk it starts", "it ran" in text, text)


def removed(checks, guest):
    """Nothing of a limit stays behind its agent; a workspace that is kept is not limited for the next one."""
    guest.run("aos remove --keep-workspace filler", timeout_s=TIMEOUT_S)
    write(guest, "filler")
    text = run(guest, "filler", f"fill('big', {2 * DISK})")
    checks.check("a kept workspace has no limit for an agent without one", "nothing stopped it" in text, text)
    for name in ("filler", "viewer", "free", "grown", "memory", "plain"):
        done = guest.run(f"aos remove {name}", check=False, timeout_s=TIMEOUT_S)
        checks.check(f"{name} is removed", done.returncode == 0, done.stdout + done.stderr)
    left = guest.run("ls -A /var/lib/aos/quotas; ls -d /var/lib/aos-agents/filler", check=False).stdout
    checks.check("no note of a limit is left", left == "", left)
    guest.run(f"rm -rf {HOME}")
