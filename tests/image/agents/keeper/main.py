"""Appends a line to /workspace/starts at each start, says how many there are, and stays until it is told to stop."""

import signal
import sys
from pathlib import Path

signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
starts = Path("/workspace/starts")
with starts.open("a") as file:
    file.write("started\n")
print(f"start number {len(starts.read_text().splitlines())}", flush=True)
while True:
    signal.pause()
