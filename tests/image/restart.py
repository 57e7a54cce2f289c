"""A reboot: what is enabled is up again with its workspace, what is not is not; the state partition took the larger disk."""

from bed import push_agents, shown, until


def section(checks, bed, machine):
    """Enable, grow the disk, reboot, compare."""
    guest = machine.guest
    push_agents(machine)
    guest.run("aos run --detach --replace /root/agents/keeper", check=False, timeout_s=bed.command_s)
    enabled = guest.run("aos enable keeper", check=False)
    checks.check("an agent is enabled", enabled.returncode == 0, enabled.stderr)
    guest.run("test -e /etc/machine-id && cp /etc/machine-id /root/machine-id")
    # The agent says which start it is, after it has written it down.
    said = "journalctl -o cat -u aos-agent@keeper _SYSTEMD_INVOCATION_ID=$(systemctl show -P InvocationID aos-agent@keeper) | grep -Po 'start number \\K[0-9]+'"
    until(guest, said, 60)
    starts = int(guest.run(said, check=False).stdout or 0)
    before = state_mib(guest)
    checks.check("the state partition filled the disk at first boot", before > 4500, f"{before} MiB")
    machine.grow_disk(12 << 30)
    machine.reboot(bed.boot_s)
    state = guest.run("systemctl is-system-running --wait", check=False, timeout_s=bed.boot_s).stdout.strip()
    checks.check("the machine is `running` after the reboot", state == "running", guest.run("systemctl --failed --no-legend", check=False).stdout)
    up = until(guest, "systemctl is-active -q aos-agent@keeper", 120)
    checks.check("the enabled agent is up again", up, guest.run("systemctl status --no-pager aos-agent@keeper", check=False).stdout)
    limits = shown(guest, "aos-agent@keeper.service", "MemoryMax", "TasksMax", "CPUQuotaPerSecUSec")
    wanted = {"MemoryMax": str(96 << 20), "TasksMax": "14", "CPUQuotaPerSecUSec": "300ms"}
    checks.check("with its limits", limits == wanted, limits)
    counted = until(guest, f"[ $(wc -l < /var/lib/aos-agents/keeper/starts) = {starts + 1} ]", 60)
    checks.check("and its workspace", starts > 0 and counted, guest.run("cat /var/lib/aos-agents/keeper/starts", check=False).stdout)
    listed = guest.run("aos list", check=False).stdout
    checks.check("the supervisor still knows the others", all(name in listed for name in ("keeper", "ticker", "sitewatch")), listed)
    same = guest.run("cmp /etc/machine-id /root/machine-id && hostnamectl hostname", check=False).stdout.strip()
    checks.check("it is the same machine", same == "credbox", same)
    after = state_mib(guest)
    checks.check("the state partition grew with the disk", after > before + 3500, f"{before} -> {after} MiB")


def state_mib(guest):
    """The size of the file system that holds the state."""
    return int(guest.run("df --output=size -BM / | tail -1").stdout.strip().rstrip("M"))
