"""Limits of an Agentfile reach the cgroup, and the kernel keeps to them."""

from bed import journal, push_agents, shown


def section(checks, bed, machine):
    """The values of a running agent, and one that takes too much."""
    guest = machine.guest
    push_agents(machine)
    started = guest.run("aos run --detach /root/agents/keeper", check=False, timeout_s=bed.command_s)
    if not checks.check("a persistent agent starts", started.returncode == 0, started.stdout + started.stderr):
        return
    folder = "/sys/fs/cgroup" + shown(guest, "aos-agent@keeper.service", "ControlGroup")["ControlGroup"]
    kernel = guest.run(f"cd {folder} && cat memory.max cpu.max pids.max", check=False).stdout.split()
    # 96 MiB; 30% of 100 ms; 12 tasks, the launcher and its init.
    checks.check("memory, CPU and tasks are limited in the kernel", kernel == [str(96 << 20), "30000", "100000", "14"], kernel)
    checks.check("its cgroup is in the agents' slice", "/aos.slice/aos-default.slice/" in folder, folder)
    hog = guest.run("aos run /root/agents/hog", check=False, timeout_s=bed.command_s)
    checks.check("a hog ends with a failure", hog.returncode != 0 and "nothing stopped it" not in hog.stdout, hog.stdout + hog.stderr)
    unit = shown(guest, "aos-agent@hog.service", "Result", "ActiveState")
    # systemd is told not to look: a command beside the agent may be killed for lack of memory (aos exec).
    checks.check("its unit failed", unit == {"Result": "exit-code", "ActiveState": "failed"}, unit)
    status = guest.run("aos status hog", check=False).stdout
    checks.check("aos status says that it was memory", "failed" in status and "oom-kill" in status, status)
    held = [line for line in journal(guest, "aos-agent@hog.service").splitlines() if line.startswith("holding")]
    checks.check("it got no more than its limit", held and int(held[-1].split()[1]) <= 48, held[-1:])
    keeper = shown(guest, "aos-agent@keeper.service", "ActiveState")["ActiveState"]
    checks.check("its neighbour runs on", keeper == "active", keeper)
