"""Prints `tick 1` to `tick 100`, then `done`; ends with status 3, so that a lost status is noticed."""

import sys
import time

for number in range(1, 101):
    print(f"tick {number}", flush=True)
    time.sleep(0.5)
print("done", flush=True)
sys.exit(3)
