"""This terminal as the machine's serial console, for `--keep`: raw mode, Ctrl-] to leave."""

from __future__ import annotations

import os
import select
import socket
import sys
import termios
import tty

_LEAVE = b"\x1d"


def attach(connection: socket.socket) -> None:
    """Connect standard input and output to the console until Ctrl-] or until the machine ends."""
    inside, outside = sys.stdin.fileno(), sys.stdout.fileno()
    saved = termios.tcgetattr(inside)
    try:
        tty.setraw(inside)
        connection.sendall(b"\r")
        while True:
            ready, _, _ = select.select([inside, connection], [], [])
            if connection in ready:
                data = connection.recv(65536)
                if not data:
                    return
                os.write(outside, data)
            if inside in ready:
                typed = os.read(inside, 4096)
                if not typed or _LEAVE in typed:
                    return
                connection.sendall(typed)
    finally:
        termios.tcsetattr(inside, termios.TCSADRAIN, saved)
        print()
