"""Building, booting and demonstrating the appliance; the tests of the image use the same machine.

Modules: progress (steps, times, logs), host (what the building machine needs), aptsources (its mirror, for Debian 13),
debs and disk (what is built), release (what is published), accel, qmp, console, guest and vm (a running machine), demo (the example).
"""
