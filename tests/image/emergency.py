"""A boot that fails in the initrd: nobody is there to press a key, so the machine says why and reboots."""


def section(checks, bed):
    """Ask the initrd for its emergency mode, and wait for the firmware to start again."""
    with bed.machine("emergency", {}, kernel_arguments="rd.systemd.unit=emergency.target") as machine:
        console = machine.console
        console.expect(r"BdsDxe: starting", bed.boot_s)
        console.expect(r"AOS: emergency mode, rebooting", bed.boot_s)
        checks.check("a failed initrd says so on the console", True)
        console.expect(r"BdsDxe: starting", bed.boot_s)
        checks.check("and reboots by itself", True)
