"""A node by SSH, with ways to ports that only the node itself reaches."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import time
from typing import Any

from testbed import EPHEMERAL


class Remote:
    """A host, its shell, and tunnels to its own loopback.

    Attributes:
        name: In the inventory.
        address: In the nodes' network.
        container: What podman knows it as.
    """

    def __init__(self, instance: dict[str, Any]) -> None:
        self.name: str = instance["instance"]
        self.address: str = instance["fleet_address"]
        self.container: str = instance["container"]
        self._ssh = [
            *("ssh", "-i", instance["identity_file"], "-p", str(instance["port"]), "-l", instance["user"]),
            *("-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR"),
        ]
        control = ("ControlMaster=auto", f"ControlPath={EPHEMERAL}/%p", "ControlPersist=60")
        self._shared = [word for option in control for word in ("-o", option)]
        self._ports: dict[int, int] = {}
        self._tunnels: list[subprocess.Popen[bytes]] = []

    def sh(self, command: str, check: bool = True) -> str:
        """Run a shell command on the node; returns what it printed."""
        argv = [*self._ssh, *self._shared, "127.0.0.1", command]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0 or not check, f"{self.name}: {command}: {done.stdout}{done.stderr}"
        return done.stdout.strip()

    def open(self, *ports: int) -> None:
        """Make ports of the node reachable from here, as they are to the node itself."""
        forwards = []
        for port in ports:
            with socket.socket() as free:
                free.bind(("127.0.0.1", 0))
                self._ports[port] = free.getsockname()[1]
            forwards += ["-L", f"127.0.0.1:{self._ports[port]}:127.0.0.1:{port}"]
        argv = [*self._ssh, "-o", "ControlPath=none", "-N", *forwards, "127.0.0.1"]
        self._tunnels.append(subprocess.Popen(argv))
        for port in ports:
            deadline = time.monotonic() + 15
            while True:
                with contextlib.suppress(OSError), self.connect(port):
                    break
                assert time.monotonic() < deadline, f"no tunnel to port {port} of {self.name}"
                time.sleep(0.1)

    def reach(self, port: int) -> tuple[str, int]:
        """Where a port of the node is to be reached from here."""
        if port not in self._ports:
            self.open(port)
        return "127.0.0.1", self._ports[port]

    def connect(self, port: int, patience: float = 15) -> socket.socket:
        """Open a connection to a port."""
        return socket.create_connection(self.reach(port), timeout=patience)

    def hang_up(self) -> None:
        """Take the tunnels and the shared connection down."""
        for tunnel in self._tunnels:
            tunnel.kill()
            tunnel.wait()
        self._tunnels.clear()
        self._ports.clear()
        argv = [*self._ssh, *self._shared, "-O", "exit", "127.0.0.1"]
        subprocess.run(argv, capture_output=True, check=False)
