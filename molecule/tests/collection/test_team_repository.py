"""The second way in: a team's own repository, which has an inventory, an app and a requirement."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest
import testbed
import yaml
from testbed import NODES, ROOT

REPOSITORY = ROOT / "molecule/collection/repository"
VERSION = "v0.1.0"
INVENTORY = "inventory/production.yml"

Run = Callable[..., subprocess.CompletedProcess[str]]


def git(folder: Path, *arguments: str) -> str:
    """Run git in a folder; returns what it printed."""
    argv = ["git", "-C", str(folder), "-c", "user.name=Test", "-c", "user.email=test@example.org", *arguments]
    return subprocess.run(argv, check=True, capture_output=True, text=True).stdout


@pytest.fixture(scope="module")
def upstream(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a git repository with this tree under a tag, as a user finds it at its origin."""
    folder = tmp_path_factory.mktemp("upstream") / "paddock"
    folder.mkdir()
    for name in git(ROOT, "ls-files", "--cached", "--others", "--exclude-standard").splitlines():
        if (ROOT / name).exists() or (ROOT / name).is_symlink():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name, follow_symlinks=False)
    for command in (
        ["init", "--quiet"],
        ["add", "--all"],
        ["commit", "--quiet", "-m", "all"],
        ["tag", VERSION],
    ):
        git(folder, *command)
    return folder


@pytest.fixture(scope="module")
def team(tmp_path_factory: pytest.TempPathFactory, upstream: Path) -> Path:
    """Return the team's repository, with the nodes in its inventory."""
    folder = tmp_path_factory.mktemp("team") / "repository"
    shutil.copytree(REPOSITORY, folder)
    # The same packages as the sample app has, so no lock is kept twice.
    shutil.copy(ROOT / "app_src/requestme/requirements.txt", folder / "app_src/hello")
    hosts = {
        name: {
            "ansible_host": node["address"],
            "ansible_port": node["port"],
            "ansible_user": node["user"],
            "ansible_ssh_private_key_file": node["identity_file"],
            "ansible_ssh_common_args": "-o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null",
            "fleet_address": node["fleet_address"],
        }
        for name, node in NODES.items()
    }
    groups = {"balancers": {"hosts": {"lb1": hosts["lb1"]}}, "backends": {"hosts": {"app1": hosts["app1"]}}}
    (folder / INVENTORY).write_text(yaml.safe_dump(groups))
    wanted = [{"name": f"git+file://{upstream}", "type": "git", "version": VERSION}]
    (folder / "collections").mkdir()
    (folder / "collections/requirements.yml").write_text(yaml.safe_dump({"collections": wanted}))
    return folder


@pytest.fixture(scope="module")
def run(team: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Return a function that runs a command of Ansible in the team's repository, without our settings."""
    home = tmp_path_factory.mktemp("home")
    environment = {name: value for name, value in os.environ.items() if "ANSIBLE" not in name}
    environment |= {"ANSIBLE_HOME": str(home), **testbed.PLAIN}
    # Else the link of this checkout's environment would do.
    environment["ANSIBLE_COLLECTIONS_SCAN_SYS_PATH"] = "false"

    def run(tool: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        argv = [str(Path(sys.executable).with_name(tool)), *arguments]
        done = subprocess.run(
            argv, cwd=team, env=environment, capture_output=True, text=True, timeout=600, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done

    run("ansible-galaxy", "collection", "install", "-r", "collections/requirements.yml")
    return run


def test_deploy(team: Path, run: Run) -> None:
    """The first run serves, the second changes nothing, and the cache is in the team's repository."""
    run("ansible-playbook", "paddock.fleet.site", "-i", INVENTORY)
    with urllib.request.urlopen(NODES["lb1"]["url"], timeout=5) as answer:
        page = answer.read().decode()
    assert page == "Hello from a team's repository."
    again = run("ansible-playbook", "paddock.fleet.site", "-i", INVENTORY)
    assert again.stdout.count("changed=0") == 3, again.stdout
    assert (team / ".cache").is_dir()


@pytest.mark.parametrize("playbook", ["status", "history"])
def test_look(run: Run, playbook: str) -> None:
    """The other playbooks have the collection's name too."""
    assert "hello" in run("ansible-playbook", f"paddock.fleet.{playbook}", "-i", INVENTORY).stdout


def test_only_what_is_needed(run: Run, tmp_path: Path) -> None:
    """The collection has no sample, no test and no inventory of ours."""
    run("ansible-galaxy", "collection", "build", str(ROOT), "--output-path", str(tmp_path))
    archive = next(tmp_path.glob("paddock-fleet-*.tar.gz"))
    with tarfile.open(archive) as content:
        names = content.getnames()
    tops = {name.partition("/")[0] for name in names}
    assert tops >= {"playbooks", "plugins", "roles", "meta", "requirements.txt"}
    assert tops.isdisjoint({"app_src", "inventory", "molecule", "tests", ".venv", ".git", "site.yml"})
