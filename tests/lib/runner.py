"""Runs the steps of tests/run: in order, each with a time-out, a log and a count.

A step is a row of STEPS (tests/lib/steps.py). Its process group is its own, so that a time-out
or an interrupt ends all of it (TERM first, for its own clean-up). What a step counts is read
from its output: cargo-nextest's summary, and lines "N passed, N failed"; a step that counts
nothing is one check. Steps whose requirements failed are not run and count as failed.
"""

import argparse
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
from steps import STEPS, TOOLS  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
LOGS = ROOT / "target" / "test-logs"
# A CI that ends silent jobs sees a line at least this often.
HEARTBEAT_S = 60
# What a step may take to clean up after TERM.
GRACE_S = 60
TAIL_LINES = 60

NEXTEST = re.compile(r"^\s*Summary \[.*?\]\s+(?:\d+/)?\d+ tests? run: (\d+) passed")
NEXTEST_BAD = re.compile(r"(\d+) (?:failed|timed out|exec failed)\b")
CARGO_TEST = re.compile(r"^test result: \w+\. (\d+) passed; (\d+) failed")
# A row of a table of checks, such as the escape corpus prints.
ROW = re.compile(r"^(ok|FAIL) +\d+ \S")
PLAIN = re.compile(r"^(\d+) passed, (\d+) failed\s*$")
ANSI = re.compile(r"\x1b(?:\[[0-9;?]*[a-zA-Z]|\(B)")


@dataclass
class Outcome:
    """What came of one step."""

    name: str
    status: str  # ok, FAIL, TIME-OUT, NOT RUN
    seconds: float
    passed: int
    failed: int
    closing: list

    @property
    def good(self):
        return self.status == "ok"


def counts(lines):
    """(passed, failed, closing lines) that a step's own runners reported."""
    passed = failed = 0
    closing = []
    for raw in lines:
        line = ANSI.sub("", raw.rstrip())
        if match := NEXTEST.match(line):
            passed += int(match[1])
            failed += sum(int(number) for number in NEXTEST_BAD.findall(line))
        elif match := ROW.match(line):
            passed += match[1] == "ok"
            failed += match[1] != "ok"
            continue
        elif match := (CARGO_TEST.match(line) or PLAIN.match(line)):
            if match[1] == match[2] == "0":
                continue
            passed += int(match[1])
            failed += int(match[2])
        else:
            continue
        closing.append(line.strip())
    return passed, failed, closing


def end_group(process, why):
    """Ends a step's whole process group, giving it time to clean up."""
    print(f"      {why}: ending it", flush=True)
    for number, patience in ((signal.SIGTERM, GRACE_S), (signal.SIGKILL, 10)):
        try:
            os.killpg(process.pid, number)
        except ProcessLookupError:
            return
        try:
            process.wait(patience)
            return
        except subprocess.TimeoutExpired:
            continue


def last_line(log):
    """The last line that says something, for the heartbeat."""
    with open(log, "rb") as file:
        file.seek(max(0, log.stat().st_size - 4096))
        lines = [ANSI.sub("", line) for line in file.read().decode("utf-8", "replace").split("\n") if line.strip()]
    return lines[-1].strip()[:100] if lines else ""


def wait(process, timeout_s, log, started):
    """Waits with a heartbeat; returns the status word."""
    while True:
        elapsed = time.monotonic() - started
        try:
            return "ok" if process.wait(max(0.1, min(HEARTBEAT_S, timeout_s - elapsed))) == 0 else "FAIL"
        except subprocess.TimeoutExpired:
            elapsed = time.monotonic() - started
            if elapsed >= timeout_s:
                end_group(process, f"no end after {timeout_s} s")
                return "TIME-OUT"
            print(f"      ... {elapsed:.0f} s: {last_line(log)}", flush=True)


def run_step(step, verbose):
    """Runs one step to its outcome."""
    log = LOGS / f"{step.name}.log"
    print(f"== {step.name}: {step.what} (at most {step.timeout_s} s)", flush=True)
    started = time.monotonic()
    with open(log, "wb") as out:
        process = subprocess.Popen(
            step.command, cwd=ROOT, stdin=subprocess.DEVNULL, start_new_session=True,
            stdout=out, stderr=subprocess.STDOUT, env=dict(os.environ, TERM="dumb", **step.env),
        )
        echo = subprocess.Popen(["tail", "-n", "+1", "-f", f"--pid={process.pid}", str(log)]) if verbose else None
        try:
            status = wait(process, step.timeout_s, log, started)
        except BaseException:
            end_group(process, "interrupted")
            raise
    if echo:
        echo.wait()
    seconds = time.monotonic() - started
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    passed, failed, closing = counts(lines)
    if not passed and not failed:
        passed = 1 if status == "ok" else 0
    # The exit status decides: no count talks a failure away.
    if status != "ok" and not failed:
        failed = 1
    if status == "ok" and failed:
        status = "FAIL"
    report(step, status, seconds, lines, closing, log)
    return Outcome(step.name, status, seconds, passed, failed, closing)


def report(step, status, seconds, lines, closing, log):
    """What the console shows of a finished step."""
    for line in closing[-3:]:
        print(f"      {line}")
    for line in lines:
        if line.startswith("notice: "):
            print(f"      {line}")
    if status != "ok":
        bad = [line for line in lines if line.startswith("FAIL")]
        for line in bad[:40]:
            print(f"      {line}")
        print(f"   -- the last lines of {log.relative_to(ROOT)}:")
        for line in lines[-TAIL_LINES:]:
            print(f"      {ANSI.sub('', line)}")
        print(f"   -- again: tests/run {step.name}")
    print(f"   {status} {step.name} {seconds:.0f} s", flush=True)


def install_tools(chosen):
    """Installs what the chosen steps need and is missing. Returns an outcome, or None."""
    started = time.monotonic()
    packages = sorted({package for step in chosen for package in step.apt})
    tools = sorted({tool for step in chosen for tool in step.cargo if shutil.which(tool) is None})
    log = LOGS / "tools.log"
    with open(log, "wb") as out:
        commands = [[str(ROOT / "tests/lib/apt-need"), *packages]] if packages else []
        for tool in tools:
            print(f"== tools: cargo install {tool} {TOOLS[tool]} (once; minutes)", flush=True)
            # Not optimised, it is there in half the time; a test tool's speed hardly matters.
            commands.append([
                "cargo", "install", "--locked", "--quiet", "--version", TOOLS[tool], "--root", str(cargo_root()),
                "--config", "profile.release.opt-level=0", "--config", "profile.release.lto=false",
                "--config", "profile.release.debug=false",
                "--config", "profile.release.codegen-units=16", tool,
            ])
        for command in commands:
            code = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT, cwd="/").returncode
            if code:
                print(f"   FAIL tools: {' '.join(command)}\n{log.read_text(errors='replace')[-3000:]}", flush=True)
                return Outcome("tools", "FAIL", time.monotonic() - started, 0, 1, [])
    seconds = time.monotonic() - started
    if seconds < 2:
        return None
    print(f"   ok tools {seconds:.0f} s", flush=True)
    return Outcome("tools", "ok", seconds, 0, 0, [])


def cargo_root():
    """Where cargo installs programs: its home, whose bin/ is put into PATH."""
    return Path(os.environ.get("CARGO_HOME") or Path.home() / ".cargo")


def choose(arguments):
    """The steps to run, in order."""
    by_name = {step.name: step for step in STEPS}
    if arguments.steps:
        unknown = [name for name in arguments.steps if name not in by_name]
        if unknown:
            sys.exit(f"tests/run: no step {', '.join(unknown)}; tests/run --list shows them")
        wanted, queue = set(), list(arguments.steps)
        while queue:
            name = queue.pop()
            if name not in wanted:
                wanted.add(name)
                queue += by_name[name].requires
        return [step for step in STEPS if step.name in wanted]
    return [
        step for step in STEPS
        if (arguments.all or not step.long) and not (arguments.quick and step.boots)
    ]


def summary(outcomes, total_s):
    """The table, and the line that says it all."""
    print("\n" + "=" * 72)
    print(f"{'step':<16} {'result':<9} {'seconds':>8} {'passed':>7} {'failed':>7}")
    for outcome in outcomes:
        print(f"{outcome.name:<16} {outcome.status:<9} {outcome.seconds:>8.0f} {outcome.passed:>7} {outcome.failed:>7}")
    print(f"{'together':<16} {'':<9} {total_s:>8.0f}")
    passed = sum(outcome.passed for outcome in outcomes)
    failed = sum(outcome.failed for outcome in outcomes)
    print(f"\n{passed} passed, {failed} failed", flush=True)
    return failed == 0 and all(outcome.good for outcome in outcomes)


def run_all(chosen, arguments):
    """Outcomes of the tools and of every chosen step."""
    outcomes = []
    tools = install_tools(chosen)
    if tools:
        outcomes.append(tools)
    bad = {"tools"} if tools and not tools.good else set()
    for step in chosen:
        missing = [name for name in step.requires if name in bad]
        if bad == {"tools"} or missing:
            print(f"== {step.name}: NOT RUN, because {', '.join(missing) or 'tools'} failed", flush=True)
            outcome = Outcome(step.name, "NOT RUN", 0, 0, 1, [])
        else:
            outcome = run_step(step, arguments.verbose)
        if not outcome.good:
            bad.add(step.name)
            if arguments.fail_fast:
                outcomes.append(outcome)
                break
        outcomes.append(outcome)
    return outcomes


def main():
    parser = argparse.ArgumentParser(prog="tests/run", description="Installs what the tests need and runs them.")
    parser.add_argument("steps", nargs="*", metavar="STEP", help="only these, and what they build on")
    parser.add_argument("--quick", action="store_true", help="leave out what boots a machine")
    parser.add_argument("--all", action="store_true", help="also what takes long")
    parser.add_argument("--list", action="store_true", help="print the steps")
    parser.add_argument("--fail-fast", action="store_true", help="stop at the first failure")
    parser.add_argument("--verbose", action="store_true", help="the steps' output on the console, too")
    arguments = parser.parse_args()
    if arguments.list:
        for step in STEPS:
            marks = " ".join(filter(None, ["boots a machine" if step.boots else "", "long" if step.long else ""]))
            print(f"{step.name:<16} {step.what}{'  [' + marks + ']' if marks else ''}")
        return 0
    chosen = choose(arguments)
    LOGS.mkdir(parents=True, exist_ok=True)
    os.environ["PATH"] = f"{cargo_root() / 'bin'}:{os.environ['PATH']}:/usr/sbin:/sbin"
    # A terminated runner ends its step too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    started = time.monotonic()
    return 0 if summary(run_all(chosen, arguments), time.monotonic() - started) else 1


if __name__ == "__main__":
    sys.exit(main())
