"""Agents that take without end stay within their limits, and the machine answers its operator beside them."""

import time

from bed import push_agents, shown

WAYS = ("fork", "compute", "write", "log")
ROUNDS = 5


def section(checks, bed, machine):
    """One agent for each way, all at once; what the operator waits for is told, before and meanwhile."""
    guest = machine.guest
    push_agents(machine)
    quiet = answers(checks, guest, "before them")
    for way in WAYS:
        command = f"aos run --detach --name rude-{way} /root/agents/rude -- {way}"
        started = guest.run(command, check=False, timeout_s=bed.command_s)
        checks.check(f"rude-{way} starts", started.returncode == 0, started.stdout + started.stderr)
    time.sleep(10)
    loaded = answers(checks, guest, "beside them")
    print(f"     `aos list` took {quiet:.2f} s before, {loaded:.2f} s beside four rude agents (medians of {ROUNDS})")
    for way in WAYS:
        unit = f"aos-agent@rude-{way}.service"
        folder = "/sys/fs/cgroup" + shown(guest, unit, "ControlGroup")["ControlGroup"]
        read = guest.run(f"cd {folder} && cat pids.current pids.max memory.current memory.max", check=False)
        numbers = [int(word) for word in read.stdout.split()]
        within = len(numbers) == 4 and numbers[0] <= numbers[1] == 34 and numbers[2] <= numbers[3] == 96 << 20
        checks.check(f"rude-{way} stays within its limits", within, read.stdout + read.stderr)
    weight = guest.run("cat /sys/fs/cgroup/aos.slice/aos-default.slice/aos-agent@rude-write.service/io.weight", check=False)
    asked = shown(guest, "aos-agent@rude-write.service", "IOWeight")["IOWeight"]
    checks.check("its share of the disks is as asked", asked == "10" and weight.stdout.split() == ["default", "10"],
                 f"{asked} {weight.stdout} {weight.stderr}")
    others = guest.run("systemctl is-active agentd.service ssh.service systemd-journald.service", check=False)
    checks.check("the machine's own services run", others.returncode == 0, others.stdout)
    for way in WAYS:
        gone = guest.run(f"aos remove --stop rude-{way}", check=False, timeout_s=bed.command_s)
        checks.check(f"rude-{way} is stopped and removed", gone.returncode == 0, gone.stdout + gone.stderr)
    left = guest.run("ls /sys/fs/cgroup/aos.slice/aos-default.slice | grep rude; pgrep -fc 'rude[.]py'", check=False)
    checks.check("nothing of them runs", left.stdout.strip() == "0", left.stdout)


def answers(checks, guest, when):
    """The median of how long `aos list` takes in the machine; every one has to succeed."""
    script = ("for i in $(seq %d); do a=$(date +%%s%%N); aos list >/dev/null || exit 1;"
              " echo $(( $(date +%%s%%N) - a )); done" % ROUNDS)
    told = guest.run(script, check=False, timeout_s=300)
    checks.check(f"aos list answers {when}", told.returncode == 0, told.stdout + told.stderr)
    times = sorted(int(word) / 1e9 for word in told.stdout.split())
    return times[len(times) // 2] if times else float("nan")
