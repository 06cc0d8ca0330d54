"""A VPS as cloud images are: a user with sudo, not root; by its name, in an inventory of its own folder."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from testbed import NODES, Run

from .conftest import NAME, Vps, run

USER = "deploy"
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
    """The machine; its name is in /etc/hosts only, and SSH lets in one user, who is not root."""
    vps = Vps("vps2")
    vps.sh(f"echo '{NODES['vps2']['fleet_address']} {NAME}' >> /etc/hosts")
    vps.sh(f"""
        useradd --create-home --shell /bin/bash {USER}
        echo '{USER} ALL=(ALL) NOPASSWD: ALL' > /etc/sudoers.d/{USER}
        install -D --mode 600 --owner {USER} /root/.ssh/authorized_keys /home/{USER}/.ssh/authorized_keys
        chown {USER}: /home/{USER}/.ssh
        echo PermitRootLogin no > /etc/ssh/sshd_config.d/root.conf
        systemctl reload ssh
    """)
    return vps


@pytest.fixture(scope="module")
def inventory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for an environment: hosts, and nothing of what inventory/group_vars has."""
    node = NODES["vps2"]
    host = {
        "ansible_host": node["address"],
        "ansible_port": node["port"],
        "ansible_user": USER,
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
    """It waits for the package manager, serves, and leaves no upload in the user's home."""
    assert first.rc == 0, first.output
    assert vps2.get().status == 200
    assert vps2.sh(f"ls -A /home/{USER}/.ansible/tmp") == ""


def test_second_run(vps2: Vps, first: Run, inventory: Path) -> None:
    """It would change nothing, and changes nothing."""
    before = vps2.keys()
    dry = run(inventory, "site.yml", "--check", "--diff")
    assert (dry.rc, dry.changed) == (0, 0), dry.output
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
    """The password of the user, for a while."""
    password = secrets.token_urlsafe()
    vps2.sh(f"echo {USER}:{password} | chpasswd")
    yield password
    vps2.sh(f"passwd --lock {USER}")


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
    assert f"vps2 does not answer over SSH ({USER}@" in refused.output, refused.output
    assert "Permission denied" in refused.output
