"""jailbreak: tries to leave its sandbox, and reports what stopped each attempt.

Every attempt is one that works for an ordinary process, or for one that kept a privilege by mistake, and is harmless
if it succeeds. It counts as stopped only when it fails in the way that the sandbox makes it fail: an attempt that
fails for another reason, such as an unplugged network cable, proves nothing and is reported as unclear. The
neighbours at the end are what the Agentfile grants: a sandbox that stops those, too, is broken.

Exit status: 0 every attempt was stopped and every neighbour works; 1 not so; 2 it runs as root, outside AOS.
"""

import errno
import os
import signal
import sys

import attempts

WIDTH = 46
LABELS = {"succeeded": "NOT STOPPED", "unclear": "UNCLEAR"}
PATIENCE = 15  # seconds for one attempt


def main():
    if os.getuid() == 0:
        print("jailbreak: run it as an agent: aos run ./jailbreak (root outside AOS is stopped by nothing)")
        return 2
    sys.stdout.reconfigure(line_buffering=True)
    open_attempts, broken = 0, 0
    for group, rows in attempts.ATTEMPTS:
        print(f"{group.upper():<{WIDTH}}  STOPPED BY")
        for what, attempt, expected in rows:
            verdict, detail = judge(attempt, expected)
            open_attempts += verdict != "stopped"
            print(line(what, detail if verdict == "stopped" else f"{LABELS[verdict]}: {detail}"))
    print(f"{'ALLOWED':<{WIDTH}}  RESULT")
    for what, neighbour in attempts.NEIGHBOURS:
        verdict, detail = judge(neighbour, set())
        broken += verdict != "succeeded"
        print(line(what, "works" if verdict == "succeeded" else f"DOES NOT WORK: {detail}"))
    total = sum(len(rows) for _, rows in attempts.ATTEMPTS)
    neighbours = len(attempts.NEIGHBOURS)
    print(f"{total - open_attempts} of {total} attempts were stopped, {neighbours - broken} of {neighbours} allowed things work")
    return 1 if open_attempts or broken else 0


def line(what, result):
    return f"  {what:<{WIDTH - 2}}  {result}"


def judge(attempt, expected):
    """Runs an attempt in a process of its own, which may be killed for it; returns a verdict and what was seen."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        os._exit(perform(attempt, writer))
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        said = pipe.read(4096).decode("utf-8", "replace")
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        name = signal.Signals(os.WTERMSIG(status)).name
        return ("stopped" if name in expected else "unclear"), name
    word, _, detail = said.partition(" ")
    if word == "failed":
        code = detail.split(" ")[0]
        return ("stopped" if code in expected else "unclear"), detail if code not in expected else code
    if word == "succeeded":
        return "succeeded", detail or "it worked"
    return "unclear", said or "it said nothing"


def perform(attempt, writer):
    signal.alarm(PATIENCE)
    try:
        detail = attempt()
        said = f"succeeded {detail or ''}"
    except OSError as error:
        said = f"failed {errno.errorcode.get(error.errno, error.errno)} {error}"
    except Exception as error:  # whatever goes wrong in an attempt is a result
        said = f"broken {type(error).__name__}: {error}"
    os.write(writer, said.encode("utf-8", "replace")[:4096])
    return 0


if __name__ == "__main__":
    sys.exit(main())
