"""Makes a key at a terminal of its own: types a passphrase twice, prints what the terminal showed.

    typed.py AOS KEYS PASSPHRASE
"""

import os
import pty
import sys

aos, keys, passphrase = sys.argv[1:]
child, terminal = pty.fork()
if child == 0:
    os.environ.update(AOS_KEYS=keys, HOME=keys)
    os.execv(aos, [aos, "key", "generate", "typed"])
shown = b""
answered = 0
while True:
    try:
        piece = os.read(terminal, 4096)
    except OSError:
        break
    if not piece:
        break
    shown += piece
    prompts = shown.count(b"(not shown): ") + shown.count(b"again: ")
    if prompts > answered:
        os.write(terminal, passphrase.encode() + b"\n")
        answered += 1
_, status = os.waitpid(child, 0)
sys.stdout.write(shown.decode())
sys.exit(os.waitstatus_to_exitcode(status))
