"""Print those of some ports of an address that accept a connection: open_ports.py ADDRESS PORT..."""

import socket
import sys
from concurrent.futures import ThreadPoolExecutor


def is_open(port: str) -> bool:
    """Try one."""
    try:
        socket.create_connection((sys.argv[1], int(port)), timeout=2).close()
    except OSError:
        return False
    return True


with ThreadPoolExecutor(64) as pool:
    ports = sys.argv[2:]
    print(*(port for port, there in zip(ports, pool.map(is_open, ports), strict=False) if there))
