"""What Gunicorn's workers do beside Gunicorn's own code when an app stops."""

from __future__ import annotations

import contextlib
import errno
import os
import select
import socket
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from gunicorn.workers.gthread import ThreadWorker

# The unit's ExecStop= makes it where the port goes too: at a reboot, or when the app is stopped.
CLOSING = Path(os.environ["RUNTIME_DIRECTORY"], "closing")


class Port(socket.socket):
    """A listening socket that another process, which has it too, may shut at any time."""

    def accept(self) -> tuple[socket.socket, Any]:
        """Accept a connection; raises BlockingIOError where there is none, and where the port is shut."""
        try:
            return super().accept()
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            raise BlockingIOError(errno.EAGAIN, "the port is shut") from error


def take(listeners: Iterable[Any]) -> None:
    """Have Gunicorn's listeners be ports."""
    for listener in listeners:
        listener.sock = Port(fileno=listener.sock.detach())


def shut(listeners: Iterable[Any]) -> None:
    """Have clients be refused from now on, if the port goes too.

    systemd keeps it open until the slot has ended (systemd.socket(5), implicit dependencies). Who connected
    meanwhile would send a request that nobody reads, and a balancer must not send a POST again.
    """
    if CLOSING.exists():
        for listener in listeners:
            # For all that have the socket: shutdown(2) is about it, not about this process's hold on it.
            with contextlib.suppress(OSError):
                listener.shutdown(socket.SHUT_RD)


class DrainingThreadWorker(ThreadWorker):
    """Shuts the port when it stops accepting for good, with all answered that had come."""

    def init_process(self) -> None:
        """Begin. Called once in each worker process."""
        take(self.sockets)
        super().init_process()

    def set_accept_enabled(self, enabled: bool) -> None:
        """Accept connections from now on, or none."""
        if not self.alive and CLOSING.exists():
            for listener in self.sockets:
                self._accept_all(listener)
            shut(self.sockets)
        super().set_accept_enabled(enabled)

    def _accept_all(self, listener: Any) -> None:
        before = -1
        while before != self.nr_conns and select.select([listener], [], [], 0)[0]:
            before = self.nr_conns
            self.accept(listener)
