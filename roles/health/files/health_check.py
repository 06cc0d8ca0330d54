"""One health check of an app on a backend."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import os
import re
import time
from dataclasses import dataclass

import host_lock
import nginx_host as nginx
from health_pool import UNKNOWN, Fault

# Later than that, an answer was missed because this host is too busy: it says nothing of the backend.
LATE = 0.25


def say(text: str, level: int = 6) -> None:
    """Write lines to the journal, with a level of syslog."""
    for line in text.splitlines():
        print(f"<{level}>{host_lock.printable(line)}", flush=True)


@dataclass
class Target:
    """An app on a backend, and where it is asked.

    Attributes:
        app: Name of the app.
        backend: Name of the backend.
        address: Address or name of its host.
        port: Port of the app.
        path: Path of its health.
        host: The Host header that the app knows.
        ip: The address that is asked; empty while a name is not known.
        slow: For how many answers it has been out and slow.
    """

    app: str
    backend: str
    address: str
    port: int
    path: str
    host: str
    ip: str = ""
    slow: int = 0

    def __post_init__(self) -> None:
        with contextlib.suppress(ValueError):
            self.ip = str(ipaddress.ip_address(self.address))

    async def ask(self, seconds: float) -> Fault | None:
        """Ask once.

        Args:
            seconds: How long the whole answer may take.

        Returns:
            What is wrong; None if nothing is.
        """
        began, writer = time.monotonic(), None
        try:
            async with asyncio.timeout(seconds):
                reader, writer = await asyncio.open_connection(self.ip, self.port)
                request = f"GET {self.path} HTTP/1.1\r\nHost: {self.host}\r\nConnection: close\r\n"
                # As over TLS: an app that redirects plain requests would answer a redirect.
                request += "User-Agent: paddock-health\r\nX-Forwarded-Proto: https\r\n\r\n"
                writer.write(request.encode())
                status = await reader.readline()
                # To the end. Otherwise the app logs a client that hung up.
                for _ in range(64):
                    if not await reader.read(65536):
                        break
        except TimeoutError:
            if time.monotonic() - began > seconds + LATE:
                return UNKNOWN
            return Fault(f"does not answer within {seconds:g} s", silent=True, slow=writer is not None)
        except OSError as error:
            return Fault(f"cannot be asked ({os.strerror(error.errno or 0)})", silent=True)
        except ValueError:  # a line without an end
            return Fault("does not speak HTTP", silent=True)
        finally:
            if writer:
                writer.transport.abort()
        words = status.decode("latin-1").split()
        if not words:
            return Fault("hangs up without an answer")
        # The rest is the app's to choose, and people read what is said of it on terminals.
        if len(words) < 2 or not words[0].startswith("HTTP/1.") or not re.fullmatch("[0-9]{3}", words[1]):
            return Fault("does not speak HTTP", silent=True)
        return None if words[1] == "200" else Fault(f"answers {words[1]}")


def cut_connections(target: Target) -> None:
    """Cut connections to a backend that does not answer: Nginx asks another one then, and no client waits."""
    address = f"[{target.ip}]" if ":" in target.ip else target.ip
    done = nginx.run("ss", "-K", "-H", "-n", "-t", "dst", address, "dport", "=", f":{target.port}")
    if done.rc != 0:
        say(f"connections to {target.backend} cannot be cut: {done.output}", 4)
