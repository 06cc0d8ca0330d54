"""Close the port of a slot for new connections: `shut_port.py PID`, with the PID of its main process.

systemd closes the port of an app that is stopped after the slot has ended (systemd.socket(5), implicit
dependencies). A request that arrives meanwhile would never be read, and a balancer must not send a
POST again. shutdown(2) is no way: systemd takes its socket for broken then.
"""

from __future__ import annotations

import array
import ctypes
import os
import socket
import struct
import sys
from pathlib import Path

# From the kernel's headers, which Python leaves out; and a filter of one step that drops every packet
# (Documentation/networking/filter.rst: BPF_RET | BPF_K, 0 bytes). Connections that are there have their own.
PIDFD_GETFD = 438
SO_ATTACH_FILTER = 26
DROP = array.array("B", struct.pack("HBBI", 0x06, 0, 0, 0))


def main(pid: int) -> None:
    """Put the filter on each TCP socket on which the process listens, for all processes that have it."""
    process, call = os.pidfd_open(pid), ctypes.CDLL(None).syscall
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        if not os.readlink(entry).startswith("socket:"):
            continue
        with socket.socket(fileno=call(PIDFD_GETFD, process, int(entry.name), 0)) as one:
            if one.family != socket.AF_UNIX and one.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                program = struct.pack("HL", 1, DROP.buffer_info()[0])
                one.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, program)


if __name__ == "__main__":
    main(int(sys.argv[1]))
