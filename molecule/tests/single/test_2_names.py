"""A VPS with a name instead of an address, in an inventory of its own folder."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from testbed import NODES, Run

from .conftest import NAME, Vps, run

# As a host that has just been made: it updates itself, for longer than the minute that apt waits by default.
BUSY = """
import fcntl, time
lock = open("/var/lib/dpkg/lock-frontend", "w")
fcntl.lockf(lock, fcntl.LOCK_EX)
open("/run/busy", "w").close()
time.sleep(75)
"""


@pytest.fixture(scope="module")
def vps2() -> Vps:
    """The machine; its name is in /etc/hosts only."""
    vps = Vps("vps2")
    vps.sh(f"echo '{NODES['vps2']['fleet_address']} {NAME}' >> /etc/hosts")
    return vps


@pytest.fixture(scope="module")
def inventory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for an environment: hosts, and nothing of what inventory/group_vars has."""
    node = NODES["vps2"]
    host = {
        "ansible_host": node["address"],
        "ansible_port": node["port"],
        "ansible_user": node["user"],
        "ansible_ssh_private_key_file": node["identity_file"],
        "ansible_ssh_common_args": "-o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null",
        "fleet_address": NAME,
        "fleet_tls": "self-signed",
    }
    folder = tmp_path_factory.mktemp("staging")
    groups = {group: {"hosts": {"vps2": host}} for group in ("balancers", "backends")}
    (folder / "hosts.yml").write_text(yaml.safe_dump(groups))
    (folder / "group_vars").mkdir()
    (folder / "group_vars/all.yml").write_text("gunicorn_readiness: {watch_seconds: 0}\n")
    return folder / "hosts.yml"


@pytest.fixture(scope="module")
def first(vps2: Vps, inventory: Path) -> Iterator[Run]:
    """The first run, on a bare host whose package manager is busy."""
    vps2.sh(f"cat > /tmp/busy.py <<'END'\n{BUSY}\nEND")
    vps2.sh("systemd-run -q python3 /tmp/busy.py; until [ -e /run/busy ]; do sleep 0.1; done")
    yield run(inventory, "site.yml")


def test_first_run(vps2: Vps, first: Run) -> None:
    """It waits for the package manager, and serves."""
    assert first.rc == 0, first.output
    assert vps2.get().status == 200


def test_second_run(vps2: Vps, first: Run, inventory: Path) -> None:
    """It changes nothing."""
    before = vps2.keys()
    again = run(inventory, "site.yml")
    assert (again.rc, again.changed) == (0, 0), again.output
    assert vps2.keys() == before


def test_a_lost_name(vps2: Vps, first: Run, inventory: Path) -> None:
    """Nginx starts, a run goes through, and the status says that the name is lost."""
    hosts = vps2.sh("cat /etc/hosts")
    vps2.sh(f"grep -v {NAME} /etc/hosts > /tmp/hosts; cat /tmp/hosts > /etc/hosts; systemctl restart nginx")
    assert vps2.get().status == 200
    lost = run(inventory, "site.yml")
    assert lost.rc == 0, lost.output
    assert vps2.get().status == 200
    status = run(inventory, "playbooks/status.yml")
    assert status.rc == 0, status.output
    assert NAME in status.output, status.output
    vps2.sh(f"cat > /etc/hosts <<'END'\n{hosts}\nEND")


@pytest.fixture
def by_password(vps2: Vps) -> Iterator[str]:
    """The password of root, which sshd takes for a while."""
    password = secrets.token_urlsafe()
    settings = "/etc/ssh/sshd_config.d/password.conf"
    vps2.sh(f"echo root:{password} | chpasswd; echo PermitRootLogin yes > {settings}; systemctl reload ssh")
    yield password
    vps2.sh(f"rm {settings}; passwd --lock root; systemctl reload ssh")


def test_ssh_by_password(first: Run, inventory: Path, by_password: str, tmp_path: Path) -> None:
    """It works as a key does; without either the message has SSH's own reason."""
    # No key, and no connection that another run has left open.
    no_key = ("-e", "ansible_ssh_private_key_file=/nonexistent", "-e")
    password = ("-e", f"ansible_password={by_password}")
    status = run(inventory, "playbooks/status.yml", *no_key, f"ansible_control_path={tmp_path}/1", *password)
    assert status.rc == 0, status.output
    assert "requestme" in status.output
    refused = run(inventory, "site.yml", *no_key, f"ansible_control_path={tmp_path}/2")
    assert refused.rc != 0
    assert "vps2 does not answer over SSH (root@" in refused.output, refused.output
    assert "Permission denied" in refused.output
