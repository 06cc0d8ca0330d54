"""A fleet of which each backend can be stopped, frozen and made unhealthy: an app on four addresses."""

from __future__ import annotations

import json
import time
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

from balancer import Balancer, Run

ROOT = Path(__file__).parents[2]
ADDRESSES = {f"w{number}": f"127.0.0.1{number}" for number in (1, 2, 3, 4)}
NAMES = sorted(ADDRESSES)
PORT = 9301
# Far above what the tests wait for: nothing is well again because Nginx gave up on its own.
APP = {
    "name": "watched",
    "framework": "flask",
    "port": PORT,
    "timeout": 60,
    "routes": [{"path": "/watched/"}],
}


class Watched:
    """The fleet, behind one balancer.

    Attributes:
        hosts: The fleet_address of each backend.
    """

    hosts = ADDRESSES

    def __init__(self, balancer: Balancer, folder: Path) -> None:
        self.balancer = balancer
        self.inventory = folder / "watched.yml"
        hosts = {name: {"fleet_address": address} for name, address in self.hosts.items()}
        self.inventory.write_text(json.dumps({"watched": {"hosts": hosts}}))

    def play(self, playbook: str = "molecule/nginx/converge.yml", *options: str, **variables: object) -> Run:
        """Run a playbook; without one, the role."""
        fleet = {"apps": [APP], "__fleet_backends": NAMES, "health_enabled": True}
        variables = {**fleet, "health_interval": 0.3, **variables}
        return self.balancer.play(ROOT / playbook, f"--inventory={self.inventory}", *options, **variables)

    def sh(self, command: str) -> str:
        """Run a shell command on the balancer."""
        return self.balancer.host.check_output("sh -c %s", command)

    def start(self, *names: str) -> None:
        """Start backends, or make them healthy again; without names all, as if none had been unhealthy."""
        if not names:
            self.sh("systemctl try-restart nginx-health 2>/dev/null || true")
        for name in names or NAMES:
            unit, address = f"watched-{name}.service", ADDRESSES[name]
            self.sh(f"rm -f /run/{address}; systemctl kill -s CONT {unit} 2>/dev/null || true")
            run = f"systemd-run --quiet --collect --unit={unit} upstream {address}:{PORT}"
            self.sh(f"systemctl is-active --quiet {unit} || {run}")

    def stop(self, *names: str) -> None:
        """Stop backends: their addresses refuse."""
        for name in names or NAMES:
            unit = f"watched-{name}.service"
            self.sh(f"systemctl kill -s KILL {unit}; systemctl stop {unit} || true")

    def freeze(self, name: str) -> None:
        """Freeze a backend: it takes connections and does nothing."""
        self.sh(f"systemctl kill -s STOP watched-{name}.service")

    def health(self, name: str, status: int) -> None:
        """Make a backend answer its health path with a status, and all else as ever."""
        self.sh(f"printf {status} > /run/{ADDRESSES[name]}")

    def serving(self) -> set[str]:
        """Backends that answer to clients; one that hangs is among them as `-`."""
        names = {address: name for name, address in ADDRESSES.items()}

        def ask(_: int) -> str:
            with suppress(OSError, ValueError, KeyError):
                return names[json.loads(self.balancer.ask("/watched/").body)["host"]]
            return "-"

        with ThreadPoolExecutor(12) as pool:
            return set(pool.map(ask, range(12)))

    def await_serving(self, names: Collection[str]) -> None:
        """Wait until those answer, and no others."""
        deadline = time.monotonic() + 60
        while (found := self.serving()) != set(names):
            assert time.monotonic() < deadline, f"{sorted(found)} serve; {self.log()}"
            time.sleep(0.5)

    def await_out(self, *names: str) -> None:
        """Wait until those are out by their health."""
        deadline = time.monotonic() + 60
        while (found := self.out().keys()) != set(names):
            assert time.monotonic() < deadline, f"{sorted(found)} are out; {self.log()}"
            time.sleep(0.5)

    def out(self) -> dict[str, Any]:
        """Who is out by its health."""
        path = "/var/lib/paddock/rotation/health.json"
        return json.loads(self.sh(f"cat {path} || echo {{}}")).get("watched", {})

    def log(self) -> str:
        """What the health checks said last."""
        return self.sh("journalctl --unit=nginx-health --lines=20 --no-pager --output=cat")
