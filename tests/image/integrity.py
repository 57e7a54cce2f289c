"""/usr is what was built: it cannot be written, the second slot is there, and a changed block is an error, not data."""

# Large enough for whole blocks of its own, and needed by nothing that runs here.
VICTIM = "/usr/lib/python3.13/pydoc_data/topics.py"


def section(checks, bed, machine):
    """Last, because it damages the disk."""
    guest = machine.guest
    write = guest.run("touch /usr/written; mount -o remount,rw /usr; touch /usr/written", check=False)
    checks.check("/usr cannot be written, remounted or not", write.returncode != 0 and write.stderr.lower().count("read-only") >= 2, write.stderr)
    table = guest.run("dmsetup table usr", check=False).stdout
    checks.check("/usr is a verity device", " verity " in table, table)
    parts = guest.run("lsblk -nlo PARTLABEL,SIZE /dev/vda", check=False).stdout.split("\n")
    empty = [line for line in parts if line.startswith("_empty")]
    checks.check("the second slot is laid out and empty", len(empty) == 3, parts)
    etc = guest.run("findmnt -no FSTYPE,OPTIONS /etc", check=False).stdout
    checks.check("/etc is an overlay on the image's", etc.startswith("overlay") and "/usr/share/factory/etc" in etc, etc)
    tamper(checks, guest)


def tamper(checks, guest):
    """Overwrite one block of a file behind verity's back."""
    whole = guest.run(f"sha256sum < {VICTIM}", check=False)
    extents = guest.run(f"filefrag -e -b4096 {VICTIM} | awk '$1 == \"0:\" {{ sub(/\\.\\..*/, \"\", $4); print $4 }}'", check=False).stdout.strip()
    if not checks.check("the block of a file is found", whole.returncode == 0 and extents.isdigit(), extents):
        return
    data = guest.run("lsblk -nlo PARTLABEL,PATH /dev/vda | awk '$1 ~ /^aos_[0-9.]+$/ { print $2 }'").stdout.strip()
    guest.run(f"dd if=/dev/urandom of={data} bs=4096 seek={extents} count=1 conv=notrunc,fsync status=none && echo 3 > /proc/sys/vm/drop_caches")
    damaged = guest.run(f"sha256sum < {VICTIM}", check=False)
    checks.check("a changed block is an input/output error", damaged.returncode != 0 and "error" in damaged.stderr.lower(), damaged.stdout + damaged.stderr)
    kernel = guest.run("journalctl -k --no-pager -o cat | grep -i 'verity.*corrupted'", check=False).stdout
    checks.check("and the kernel says which", "corrupted" in kernel, kernel)
