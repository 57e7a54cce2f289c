"""Appends a line to /workspace/starts at each start, says how many there are, and stays until it is told to stop."""

import signal
from pathlib import Path

# Blocked until it is waited for: a handler and pause() would miss one that comes between the two.
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
starts = Path("/workspace/starts")
with starts.open("a") as file:
    file.write("started\n")
print(f"start number {len(starts.read_text().splitlines())}", flush=True)
signal.sigwait([signal.SIGTERM])
