"""The state partition has project quotas on, from its making and over a reboot; so limits.disk works as installed."""

import disk_limit


def section(checks, bed, machine):
    """The partition itself, and then what every machine with quotas has to do."""
    guest = machine.guest
    root = guest.run("findmnt -no FSTYPE,OPTIONS /").stdout
    checks.check("the state partition is mounted with prjquota", "ext4" in root and "prjquota" in root, root)
    for folder in ("/var/lib/aos-agents", "/var/lib/aos-changes"):
        target = guest.run(["findmnt", "-no", "TARGET", "--target", folder]).stdout.strip()
        checks.check(f"{folder} is on it", target == "/", target)
    disk_limit.section(checks, guest)
