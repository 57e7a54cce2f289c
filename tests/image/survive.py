"""agentd is killed with -9 while an agent runs: the agent does not notice, and agentd comes back knowing it."""

import json

from bed import journal, push_agents, shown, until


def section(checks, bed, machine):
    """Start, kill, compare, wait for the end."""
    guest = machine.guest
    push_agents(machine)
    started = guest.run("aos run --detach /root/agents/ticker", check=False, timeout_s=bed.command_s)
    if not checks.check("a long agent starts", started.returncode == 0 and started.stdout.strip() == "ticker", started.stdout + started.stderr):
        return
    before = shown(guest, "aos-agent@ticker.service", "MainPID", "InvocationID", "ActiveState")
    supervisor = shown(guest, "agentd.service", "MainPID")["MainPID"]
    guest.run(f"kill -9 {supervisor}")
    back = until(guest, f"systemctl is-active -q agentd && [ $(systemctl show -P MainPID agentd) != {supervisor} ]", 60)
    checks.check("agentd is back after kill -9", back, guest.run("systemctl status --no-pager agentd", check=False).stdout)
    after = shown(guest, "aos-agent@ticker.service", "MainPID", "InvocationID", "ActiveState")
    checks.check("the agent kept its process", before == after and after["ActiveState"] == "active", f"{before} {after}")
    listed = guest.run("aos list --json", check=False)
    agents = {agent.get("id"): agent for agent in json.loads(listed.stdout or "[]")}
    known = agents.get("ticker", {})
    checks.check("the new agentd knows it runs", known.get("state") == "running" and str(known.get("main_pid")) == after["MainPID"], known or listed.stderr)
    ended = until(guest, "! systemctl is-active -q aos-agent@ticker", 300)
    lines = journal(guest, "aos-agent@ticker.service", f"_SYSTEMD_INVOCATION_ID={before['InvocationID']}").splitlines()
    ticks = [line for line in lines if line.startswith("tick ")]
    checks.check("its output is complete", ended and ticks == [f"tick {n}" for n in range(1, 101)] and "done" in lines, lines[-5:])
    known_s = until(guest, "aos list --json | grep -q '\"exit_status\": *3'", 30)
    checks.check("agentd recorded its exit status", known_s, guest.run("aos list --json", check=False).stdout)
