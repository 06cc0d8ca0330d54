#!/usr/bin/python
"""Make one release of an app: its code and its environment, in a folder that never changes."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: app_release
short_description: An immutable release of a Python app
description:
  - Unpacks the code, fills a virtual environment from its lock with hashes, and only then gives the
    folder its name. So a folder of that name is whole, and what a killed run left aside is thrown
    away by the next. One call at a time works on an app: it waits for what a killed run left running.
  - Afterwards removes the oldest releases. Those that have served stay the longest - the role that
    runs a release says so by a link in C(good) - so the one that serves is never removed.
options:
  path: {description: Folder of the release., required: true, type: path}
  archive: {description: Archive of the code on this host; removed when done., required: true, type: path}
  keep: {description: How many good releases stay beside this one., default: 3, type: int}
  index_url: {description: Package index; empty is PyPI., default: "", type: str}
"""

EXAMPLES = r"""
- name: Make a release
  app_release:
    path: /srv/requestme/releases/3f2a9c1e77b0-py3.13
    archive: /opt/paddock/requestme-3f2a9c1e77b0.tar.gz
"""

RETURN = r"""
removed: {description: Old releases that were removed., returned: changed, type: list, elements: str}
"""

import fcntl
import os
import shutil
import tarfile
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule

UV = "/opt/paddock/uv"


class Failed(Exception):
    """The release cannot be made; the message says why."""


def fill(module: AnsibleModule, partial: Path, path: Path, lock: int) -> None:
    """Make code and environment in a folder aside; raises Failed with what uv said.

    Its programs hold the lock too: they may outlive a killed module.
    """
    app, venv = partial / "app", partial / "venv"
    app.mkdir(parents=True)
    with tarfile.open(module.params["archive"]) as code:
        # Debian 12's Python (3.11.2) has no filters yet. The archive is our own.
        code.extractall(app, **({"filter": "data"} if hasattr(tarfile, "data_filter") else {}))
    environment = {
        "UV_PYTHON_DOWNLOADS": "never",
        # The host's own certificate store: it may hold a company's authority.
        "UV_SYSTEM_CERTS": "true",
    }
    if module.params["index_url"]:
        environment["UV_DEFAULT_INDEX"] = module.params["index_url"]
    install = ["pip", "install", "--require-hashes", "--only-binary=:all:", "--compile-bytecode"]
    for command in (
        # Relocatable, for the folder is renamed afterwards.
        ["venv", "--relocatable", "--python=/usr/bin/python3", str(venv)],
        [*install, f"--python={venv}", f"--requirement={app}/requirements.txt"],
    ):
        rc, out, err = module.run_command(
            [UV, "--quiet", *command], environ_update=environment, pass_fds=[lock]
        )
        if rc != 0:
            said = (err or out).replace(str(partial), str(path)).strip()
            raise Failed(f"{path} cannot be made; nothing that serves was touched.\n{said}")
    # The sandboxed app cannot write its byte code. A file that does not compile is the boot's to judge.
    compiler = [str(venv / "bin/python"), "-m", "compileall", "-q", "-s", str(partial), "-p", str(path)]
    module.run_command([*compiler, str(app)], pass_fds=[lock])
    # uv leaves a lock file that everybody may write.
    module.run_command(["chmod", "--recursive", "go-w", str(partial)], check_rc=True)


def prune(partial: Path, path: Path, keep: int) -> list[str]:
    """Remove releases that are neither new nor among the last good ones; returns their names."""
    releases, good = path.parent, path.parent.parent / "good"
    marks = [mark for mark in good.iterdir() if (releases / mark.name).is_dir()]
    marks.sort(key=lambda mark: mark.lstat().st_mtime, reverse=True)
    # The newest mark is the release that serves.
    stay = {path.name, *(mark.name for mark in marks[: max(keep, 1)])}
    removed = sorted(entry.name for entry in releases.glob("*-py*") if entry.name not in stay)
    for name in removed:
        # Renamed first: a folder with a release's name is whole, also when this is killed.
        (releases / name).rename(partial)
        shutil.rmtree(partial)
        (good / name).unlink(missing_ok=True)
    return removed


def main() -> None:
    """Run as an Ansible module."""
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "archive": {"type": "path", "required": True},
            "keep": {"type": "int", "default": 3},
            "index_url": {"default": ""},
        },
        supports_check_mode=True,
    )
    path, archive = Path(module.params["path"]), Path(module.params["archive"])
    if module.check_mode:
        if path.exists():
            module.exit_json(changed=False)
        module.exit_json(changed=True, diff={"before": "", "after": f"{path}\n"})
    os.umask(0o022)
    releases, home = path.parent, path.parent.parent
    lock = os.open(f"/run/paddock-{home.name}-releases.lock", os.O_CREAT | os.O_WRONLY, 0o600)
    fcntl.flock(lock, fcntl.LOCK_EX)
    if path.exists():
        archive.unlink(missing_ok=True)
        module.exit_json(changed=False)
    for folder in (home, releases, home / "good"):
        folder.mkdir(parents=True, exist_ok=True)
        # Who owns a folder can swap what is in it.
        os.chown(folder, 0, 0)
        folder.chmod(0o755)
    partial = releases / ".partial"
    shutil.rmtree(partial, ignore_errors=True)
    try:
        fill(module, partial, path, lock)
        partial.rename(path)
        removed = prune(partial, path, module.params["keep"])
    except Failed as problem:
        module.fail_json(msg=str(problem))
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        archive.unlink(missing_ok=True)
    module.exit_json(changed=True, removed=removed)


if __name__ == "__main__":
    main()
