"""The Nginx of this host: its file, who is out of its pools, and what it really runs.

The module nginx_config, the health checks and a renewed certificate all work through this file. By hand:
`python3 /usr/local/lib/paddock/nginx_host.py reload` puts rotation and certificate into effect.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import os
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

try:  # next to this file, or in a module of Ansible
    import host_lock
    import nginx_pool
except ImportError:
    from ansible_collections.paddock.fleet.plugins.module_utils import host_lock, nginx_pool

CONFIG = Path("/etc/nginx/nginx.conf")
ERROR_LOG = Path("/var/log/nginx/error.log")
# Status of the running Nginx. The folder is root's: an app could take a port, and answer for Nginx there.
STATUS = Path("/run/paddock-nginx/status.sock")
GENERATION = "@generation@"


class Run(NamedTuple):
    """A program that has ended."""

    rc: int
    output: str


def run(*command: str) -> Run:
    """Run a program.

    Args:
        *command: The program and its arguments.

    Returns:
        Its exit status and all it printed.
    """
    environment = {**os.environ, "LC_ALL": "C.UTF-8"}
    try:
        done = subprocess.run(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=environment,
            timeout=60,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return Run(127, str(error))
    return Run(done.returncode, done.stdout.decode("utf-8", "replace").strip())


def expiry(certificate: str) -> str:
    """Tell when a certificate ends, by ISO 8601; empty if it cannot be read."""
    options = ("-noout", "-enddate", "-dateopt", "iso_8601", "-in", certificate)
    done = run("openssl", "x509", *options)
    return done.output.partition("=")[2] if done.rc == 0 else ""


def stamped(wanted: nginx_pool.Wanted) -> tuple[str, str]:
    """Make the configuration that is to run.

    Args:
        wanted: What a run asked for.

    Returns:
        The configuration and its generation: a stamp of the text with its rotation, and of the
        certificates, for Nginx reads those only when it loads.

    Raises:
        nginx_pool.Refused: There is no place for the stamp: no run has asked for a configuration.
    """
    text = nginx_pool.render(wanted, nginx_pool.out_of_rotation(wanted))
    if GENERATION not in text:
        raise nginx_pool.Refused(f"{nginx_pool.WANTED} has no configuration; run the playbook.")
    content = hashlib.sha256(text.encode())
    for path in wanted.certificates:
        with contextlib.suppress(OSError):
            content.update(Path(path).read_bytes())
    generation = content.hexdigest()[:12]
    return text.replace(GENERATION, generation), generation


def installed() -> str:
    """Text of the configuration file; empty where there is none."""
    try:
        return CONFIG.read_text(encoding="utf-8")
    except FileNotFoundError:
        return ""


def running() -> str | None:
    """Tell what runs: the stamp that the running Nginx answers with; None where none does."""
    with contextlib.closing(http.client.HTTPConnection("localhost")) as nginx:
        nginx.sock = socket.socket(socket.AF_UNIX)
        nginx.sock.settimeout(2)
        try:
            nginx.sock.connect(str(STATUS))
            nginx.request("GET", "/generation")
            return nginx.getresponse().read(100).decode()
        except (OSError, ValueError, http.client.HTTPException):
            return None


def in_effect() -> bool:
    """Tell whether the running Nginx has what was asked for. One that does not run misses nothing."""
    wanted = nginx_pool.wanted()
    if not wanted.content:
        return running() is None
    text, generation = stamped(wanted)
    return installed() == text and running() in (None, generation)


def refusal(text: str) -> str:
    """Tell what `nginx -t` has against a text; empty when nothing."""
    candidate = CONFIG.with_name(f".{CONFIG.name}.new")
    try:
        # A test makes its sockets and removes them: it must not be the one of a Nginx that starts meanwhile.
        nginx_pool.write(candidate, text.replace(f"unix:{STATUS};", "unix:/run/paddock-nginx-test.sock;"))
        done = run("nginx", "-t", "-q", "-c", str(candidate))
    finally:
        candidate.unlink(missing_ok=True)
    return done.output.replace(str(candidate), str(CONFIG)) if done.rc != 0 else ""


def systemctl(*arguments: str) -> bool:
    """Run systemctl on Nginx's unit; returns whether it succeeded."""
    return run("systemctl", *arguments, "nginx.service").rc == 0


def read_unit() -> None:
    """Have systemd read the unit where its files have changed since."""
    if run("systemctl", "show", "--value", "--property=NeedDaemonReload", "nginx.service").output == "yes":
        run("systemctl", "daemon-reload")


def load(start: bool) -> bool:
    """Reload, or start what does not run; neither tells whether it worked.

    Args:
        start: Whether to start.

    Returns:
        Whether anything was loaded.
    """
    if systemctl("is-active"):
        systemctl("reload")
    elif start:
        systemctl("reset-failed")
        systemctl("start")
    else:
        return False
    return True


def answers(generation: str, seconds: float) -> bool:
    """Wait until the running Nginx has the generation."""
    deadline = time.monotonic() + seconds
    while running() != generation:
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def apply(wanted: nginx_pool.Wanted, wait: float = 10, start: bool = True) -> None:
    """Run a configuration, or keep the one before it. Call it `alone`.

    Args:
        wanted: What to run.
        wait: Seconds until the running Nginx must answer with it.
        start: Whether to start Nginx where it does not run.

    Raises:
        nginx_pool.Refused: Nginx does not run it; the files are as they were.
    """
    text, generation = stamped(wanted)
    if problem := refusal(text):
        raise nginx_pool.Refused(
            f"Nginx refuses the new configuration; the one before it keeps serving.\n{problem}"
        )
    # A Nginx that starts gets it by its unit; one that runs under an older unit does not have it.
    STATUS.parent.mkdir(mode=0o700, exist_ok=True)
    before, before_text = nginx_pool.wanted(), installed()
    log_size = ERROR_LOG.stat().st_size if ERROR_LOG.exists() else 0
    nginx_pool.remember(nginx_pool.WANTED, wanted._asdict())
    nginx_pool.write(CONFIG, text)
    if load(start) and not answers(generation, wait):
        said = _tail(log_size)
        if before_text:
            nginx_pool.remember(nginx_pool.WANTED, before._asdict())
            nginx_pool.write(CONFIG, before_text)
            load(start)
        raise nginx_pool.Refused(
            "Nginx accepted the new configuration but does not run it (its status server does not answer"
            f" {generation}); the file before it is back in place.\n{said}"
        )


def reload(addresses: Mapping[str, str] | None = None) -> bool:
    """Put rotation and certificate into effect. Call it `alone`; an Nginx that is stopped stays so.

    Args:
        addresses: Addresses of names that have changed. No name is looked up here.

    Returns:
        Whether there was something to do.

    Raises:
        nginx_pool.Refused: Nginx does not run it, or all backends of an app are drained; the files are as
            they were.
    """
    before = nginx_pool.wanted()
    wanted = before._replace(addresses={**before.addresses, **(addresses or {})})
    nginx_pool.refuse_empty_pools(wanted)
    text, generation = stamped(wanted)
    if text == installed() and (running() == generation or not systemctl("is-active")):
        return False
    apply(wanted, start=False)
    return True


def _tail(size: int) -> str:
    """Tell what the error log has gained since it had `size` bytes, its last lines."""
    try:
        with ERROR_LOG.open("rb") as log:
            log.seek(size)
            lines = log.read().decode("utf-8", "replace").splitlines()[-5:]
            return "\n".join(map(host_lock.printable, lines))
    except OSError:
        return ""


def main(arguments: list[str]) -> int:
    """Run the command `reload`; returns the exit status."""
    if arguments != ["reload"]:
        print("usage: nginx_host.py reload", file=sys.stderr)
        return 2
    try:
        with nginx_pool.alone():
            done = reload()
    except (OSError, nginx_pool.Refused) as problem:
        print(problem, file=sys.stderr)
        return 1
    print("Nginx runs it." if done else "Nothing to do.")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
