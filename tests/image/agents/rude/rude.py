"""Takes without end what its argument names: processes, processor time, files in memory, lines of the journal."""

import os
import sys
import time


def fork():
    """Children that fork in turn; what is refused is tried again."""
    while True:
        try:
            os.fork()
        except OSError:
            time.sleep(0.01)


def compute():
    """One process of many threads' worth of work."""
    for _ in range(8):
        if os.fork() == 0:
            break
    while True:
        pass


def write():
    """Fills /tmp and goes on when it is full."""
    number = 0
    while True:
        number += 1
        try:
            with open(f"/tmp/{number}", "wb") as file:
                file.write(b"x" * 65536)
        except OSError:
            time.sleep(0.01)


def log():
    """Lines as fast as they go."""
    while True:
        print("x" * 400, flush=True)


print(sys.argv[1], "begins", flush=True)
{"fork": fork, "compute": compute, "write": write, "log": log}[sys.argv[1]]()
