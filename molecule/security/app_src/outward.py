"""What an app can do on the network beyond answering."""

import socket
from collections.abc import Callable


def connect(address: str, port: int) -> None:
    """Reach a server."""
    socket.create_connection((address, port), timeout=2).close()


def send(address: str, port: int) -> None:
    """Send a datagram, as a look-up of a name would."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.sendto(b"?", (address, port))


def listen(address: str, port: int) -> None:
    """Open a port of one's own."""
    with socket.socket() as listener:
        listener.bind(("0.0.0.0", 0))


def outward(address: str, port: int) -> dict[str, str]:
    """Say what became of each attempt; `done` where it worked."""
    attempts: list[Callable[[str, int], None]] = [connect, send, listen]
    outcome = {}
    for attempt in attempts:
        try:
            attempt(address, port)
            outcome[attempt.__name__] = "done"
        except OSError as error:
            outcome[attempt.__name__] = str(error)
    return outcome
