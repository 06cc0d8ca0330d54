"""What the tests of the role app share: the releases that should be, and runs of the playbook."""

from __future__ import annotations

import json
import shutil
import subprocess
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.paddock.fleet.plugins.plugin_utils.release import release_files, release_id
from testbed import ROOT, Run, killed, play
from testinfra.host import Host

PLAYBOOK = str(ROOT / "molecule/app/converge.yml")


@dataclass
class Source:
    """The folder of one app on the control node, and where its releases are on the host."""

    host: Host
    folder: Path
    settings: dict[str, Any] = field(default_factory=dict)
    tags: str = "app"

    @property
    def home(self) -> str:
        """The app's folder on the host."""
        return f"/srv/{self.folder.name}"

    @property
    def release(self) -> str:
        """Name of the release that the folder is now."""
        python = self.host.check_output("python3 -c 'import sys; print(*sys.version_info[:2], sep=\".\")'")
        return f"{release_id(release_files(self.folder))}-py{python}"

    def change(self, text: str) -> None:
        """Append to the code."""
        with (self.folder / "app.py").open("a") as code:
            code.write(text)

    def releases(self) -> set[str]:
        """Whatever is in the folder of the releases, hidden or not."""
        return set(self.host.run(f"ls -A {self.home}/releases").stdout.split())

    def environments(self) -> set[str]:
        """Whatever is in the folder of the environments."""
        return set(self.host.run(f"ls -A {self.home}/environments").stdout.split())

    def serve(self) -> None:
        """Mark the release as good, as the role that runs it does."""
        target = f"{self.home}/releases/{self.release}"
        self.host.check_output(f"ln -sfn {target} {self.home}/good/{self.release}")

    def want_tornado(self) -> None:
        """Lock one package more, which the control node has fetched for the other app."""
        other = (ROOT / "app_src/welcome/requirements.txt").read_text()
        with (self.folder / "requirements.txt").open("a") as lock:
            lock.write(other[other.index("tornado==") :])

    def options(self) -> tuple[str, ...]:
        """What ansible-playbook is told of the folder."""
        extra = self.folder.parent.parent / "extra.json"
        variables = {"fleet_app_src": str(self.folder.parent), "app_apps": [{"name": self.folder.name}]}
        extra.write_text(json.dumps({**variables, **self.settings}))
        return ("--tags", self.tags, "-e", f"@{extra}", "--limit", self.host.backend.host)

    def run(self, rc: int = 0, *options: str) -> Run:
        """Run the playbook to its end."""
        run = play(PLAYBOOK, *self.options(), *options)
        assert (run.rc != 0) == (rc != 0), f"{run.rc}\n{run.output}"
        return run

    def killed(self) -> AbstractContextManager[None]:
        """Begin a run, and kill it with all its processes here at the end of the block."""
        return killed(PLAYBOOK, *self.options())

    def assert_whole(self) -> None:
        """Compare the release on the host with the folder, file by file and package by package."""
        path = f"{self.home}/releases/{self.release}"
        there = self.host.check_output(
            f"cd {path}/app && find . -type f ! -name '*.pyc' -exec sha256sum {{}} +"
        )
        files = release_files(self.folder)
        names = " ".join(file.path for file in files)
        here = subprocess.check_output(f"sha256sum {names}", shell=True, text=True, cwd=self.folder)
        assert sorted(there.replace("./", "").splitlines()) == sorted(here.splitlines())
        code = "import importlib.metadata as m; print(*(f'{d.name}=={d.version}' for d in m.distributions()))"
        frozen = self.host.check_output(f'{path}/venv/bin/python -I -c "{code}"')
        lock = (self.folder / "requirements.txt").read_text()
        locked = sorted(line.split()[0] for line in lock.splitlines() if line[:1].isalpha())
        assert sorted(frozen.lower().split()) == locked
        tree = f"find {path} {path}/venv/"
        assert self.host.run(f"{tree} ! -user root -o -perm /022 ! -type l").stdout == ""
        assert self.host.run(f"{tree} -type f ! -perm -o=r -o -type d ! -perm -o=rx").stdout == ""
        # Relocatable: its scripts run where they are now.
        assert path in self.host.check_output(f"{path}/venv/bin/python -c 'import sys; print(sys.prefix)'")
        assert "gunicorn" in self.host.check_output(f"{path}/venv/bin/gunicorn --version")
        assert self.host.check_output(f"readlink {path}/venv").startswith("../../environments/")
        self.assert_nothing_is_left()

    def assert_nothing_is_left(self) -> None:
        """Look at all places where something is made or uploaded."""
        uploads = f"/root/.ansible/tmp/*/{self.folder.name}-????????????.tar*"
        left = f"ls -d {self.home}/*/.partial {uploads} /root/.cache"
        assert self.host.run(left).stdout == ""


@pytest.fixture
def source(host: Host, tmp_path: Path) -> Source:
    """A copy of an app's folder that a test may change, under another name."""
    folder = tmp_path / "app_src" / "changing"
    shutil.copytree(ROOT / "app_src/requestme", folder)
    return Source(host, folder)


@pytest.fixture(params=["requestme", "welcome"])
def deployed(host: Host, request: pytest.FixtureRequest) -> Source:
    """The folder of an app that the scenario has deployed."""
    return Source(host, ROOT / "app_src" / request.param)
