#!/usr/bin/python3 -S
"""A journal in files: JOURNAL/entries is written, JOURNAL/late is what journald has not written yet."""

import json
import os
import sys
import time

ENTRIES = os.path.join(os.environ["JOURNAL"], "entries")
LATE = os.path.join(os.environ["JOURNAL"], "late")


def lines():
    try:
        with open(ENTRIES, encoding="utf-8") as file:
            return [line for line in file if line.endswith("\n")]
    except FileNotFoundError:
        return []


def write_late():
    if os.path.exists(LATE):
        with open(LATE, encoding="utf-8") as late, open(ENTRIES, "a", encoding="utf-8") as entries:
            entries.write(late.read())
        os.unlink(LATE)


arguments = sys.argv[1:]
if "--sync" in arguments:
    write_late()
    sys.exit(0)
if os.getuid() != 0 and "--follow" not in arguments:
    write_late()  # who may not sync waits, and it is written meanwhile
if "--show-cursor" in arguments:
    print(f"-- cursor: {len(lines())}")
    sys.exit(0)

place = 0
wanted = None
for argument in arguments:
    if argument.startswith("--after-cursor="):
        place = int(argument.partition("=")[2])
    if argument.startswith("_SYSTEMD_UNIT="):
        wanted = argument.partition("=")[2]
while True:
    for line in lines()[place:]:
        place += 1
        entry = json.loads(line)
        if entry["_SYSTEMD_UNIT"] == wanted:
            print(json.dumps({"__CURSOR": str(place), "__REALTIME_TIMESTAMP": "1", **entry}), flush=True)
    if "--follow" not in arguments:
        break
    time.sleep(0.02)
