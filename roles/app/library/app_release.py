#!/usr/bin/python
"""Make one release of an app: its code and its environment, in folders that never change."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: app_release
short_description: An immutable release of a Python app
description:
  - Fills an environment from wheels, unless the host has that one, unpacks the code, links the
    environment, and only then gives the folder its name. So a folder of that name is whole, and what
    a killed run left aside is thrown away by the next. One call at a time works on an app - it waits
    for what a killed run left running.
  - Afterwards removes the oldest releases, and the environments that no release links to. Releases
    that have served stay the longest - the role that runs a release says so by a link in C(good) - so
    the one that serves is never removed. Marks of a release in C(good) and C(bad) go with it,
    unless it is held back.
options:
  path: {description: Folder of the release., required: true, type: path}
  environment: {description: Folder of the environment., required: true, type: path}
  code: {description: Archive of the code on this host; removed when done., required: true, type: path}
  wheels:
    description: Archive of the wheels and their C(requirements.txt) on this host; removed when done.
      Needed only where the environment is missing.
    required: true
    type: path
  keep:
    description: How many good releases stay beside this one, the one that serves and the one before.
    default: 3
    type: int
"""

EXAMPLES = r"""
- name: Make a release
  app_release:
    path: /srv/requestme/releases/3f2a9c1e77b0-py3.13
    environment: /srv/requestme/environments/047416962b72-py3.13
    code: /opt/paddock/requestme-3f2a9c1e77b0.tar.gz
    wheels: /opt/paddock/requestme-047416962b72.tar
"""

RETURN = r"""
removed: {description: Old releases and environments that went., returned: changed, type: list, elements: str}
"""

import fcntl
import os
import re
import shutil
import tarfile
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule

UV = "/opt/paddock/uv"


class Failed(Exception):
    """The release cannot be made; the message says why."""


def folder(path: Path) -> None:
    """Make a folder of root's; raises Failed where something else has the name."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError:
        raise Failed(f"{path} is in the way; allowed: a folder, or nothing. Move it aside.") from None
    # Who owns a folder can swap what is in it.
    os.chown(path, 0, 0)
    path.chmod(0o755)


def is_whole(path: Path) -> bool:
    """Whether the folder is there; raises Failed where something else has its name."""
    if path.is_symlink() or (path.exists() and not path.is_dir()):
        raise Failed(f"{path} is in the way; allowed: a folder, or nothing. Move it aside.")
    return path.exists()


def refuse_strangers(home: Path) -> None:
    """Raise Failed where the app's folder holds what somebody else has put there: this would take it over."""
    there = {entry.name for entry in home.iterdir()} - {"lost+found"} if home.is_dir() else set()
    if there and "releases" not in there:
        raise Failed(f"{home} is not empty and has no releases. Move it away, or give the app another name.")


def throw_away(path: Path) -> None:
    """Remove what is no release, whatever it is."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def unpack(archive: Path, target: Path) -> None:
    """Unpack one of our own archives."""
    target.mkdir(parents=True)
    if not archive.exists():
        raise Failed(f"{archive} has gone; run it again")
    with tarfile.open(archive) as packed:
        # Debian 12's Python (3.11.2) has no filters yet.
        packed.extractall(target, **({"filter": "data"} if hasattr(tarfile, "data_filter") else {}))


def run(module: AnsibleModule, lock: int, *command: str) -> None:
    """Run a program that holds the lock too, for it may outlive a killed module."""
    environment = {"UV_PYTHON_DOWNLOADS": "never", "UV_NO_CONFIG": "true", "UV_NO_PROGRESS": "true"}
    rc, out, err = module.run_command(list(command), environ_update=environment, pass_fds=[lock])
    if rc != 0:
        raise Failed((err or out).strip())


def make_environment(module: AnsibleModule, environment: Path, lock: int) -> None:
    """Make an environment in a folder aside; raises Failed with what uv said."""
    partial = environment.parent / ".partial"
    throw_away(partial)
    wheels, venv = partial / "wheels", partial / "venv"
    unpack(Path(module.params["wheels"]), wheels)
    # Relocatable, for the folder is renamed afterwards. The cache is inside, so nothing of it stays.
    uv = (UV, "--quiet", "--offline", f"--cache-dir={partial}/cache")
    run(module, lock, *uv, "venv", "--relocatable", "--python=/usr/bin/python3", str(venv))
    run(
        *(module, lock, *uv, "pip", "install", f"--python={venv}", "--compile-bytecode"),
        # That they fit to each other was checked on the control node.
        *("--no-deps", "--require-hashes", "--only-binary=:all:"),
        *("--no-index", f"--find-links={wheels}", f"--requirement={wheels}/requirements.txt"),
    )
    # uv leaves a lock file that everybody may write.
    run(module, lock, "chmod", "--recursive", "go-w", str(venv))
    venv.rename(environment)
    throw_away(partial)


def make_release(module: AnsibleModule, path: Path, environment: Path, lock: int) -> None:
    """Make a release in a folder aside."""
    partial = path.parent / ".partial"
    throw_away(partial)
    unpack(Path(module.params["code"]), partial / "app")
    (partial / "venv").symlink_to(os.path.relpath(environment, path))
    # The sandboxed app cannot write its byte code. A file that does not compile is the boot's to judge.
    compiler = [
        str(environment / "bin/python"),
        "-m",
        "compileall",
        "-q",
        "-s",
        str(partial),
        "-p",
        str(path),
    ]
    module.run_command([*compiler, str(partial / "app")], pass_fds=[lock])
    partial.rename(path)


def remove(path: Path) -> None:
    """Remove a folder; renamed first, for a folder with its name is whole, also when this is killed."""
    partial = path.parent / ".partial"
    throw_away(partial)
    path.rename(partial)
    throw_away(partial)


def prune(path: Path, keep: int) -> list[str]:
    """Remove releases that are neither new nor among the last good ones; returns what went."""
    releases, home = path.parent, path.parent.parent
    marks = [mark for mark in (home / "good").iterdir() if (releases / mark.name).is_dir()]
    marks.sort(key=lambda mark: mark.lstat().st_mtime, reverse=True)
    # The newest mark is the release that serves, the next one is what it took over from.
    stay = {path.name, *(mark.name for mark in marks[: 2 + max(keep, 0)])}
    old = [entry for entry in sorted(releases.glob("*-py*")) if entry.name not in stay and entry.is_dir()]
    for release in old:
        remove(release)
    for name in ("good", "bad"):
        for mark in (home / name).glob("*-py*"):
            # What is held back stays so, also without its folder.
            if not (releases / mark.name).exists() and not (home / "held" / mark.name).exists():
                mark.unlink()
    used = {os.path.realpath(release / "venv") for release in releases.glob("*-py*")}
    made = sorted((home / "environments").glob("*-py*"))
    unused = [entry for entry in made if os.path.realpath(entry) not in used]
    for environment in unused:
        remove(environment)
    return [entry.name for entry in old + unused]


def main() -> None:
    """Run as an Ansible module."""
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "environment": {"type": "path", "required": True},
            "code": {"type": "path", "required": True},
            "wheels": {"type": "path", "required": True},
            "keep": {"type": "int", "default": 3},
        },
        supports_check_mode=True,
    )
    path, environment = Path(module.params["path"]), Path(module.params["environment"])
    if module.check_mode:
        if path.exists():
            module.exit_json(changed=False)
        module.exit_json(changed=True, diff={"before": "", "after": f"{path}\n"})
    os.umask(0o022)
    home = path.parent.parent
    lock = os.open(f"/run/paddock-{home.name}-releases.lock", os.O_CREAT | os.O_WRONLY, 0o600)
    fcntl.flock(lock, fcntl.LOCK_EX)
    partials = [parent / ".partial" for parent in (path.parent, environment.parent)]
    try:
        refuse_strangers(home)
        for parent in (home, path.parent, environment.parent, home / "good"):
            folder(parent)
        if is_whole(path):
            module.exit_json(changed=False)
        if not is_whole(environment):
            make_environment(module, environment, lock)
        make_release(module, path, environment, lock)
        removed = prune(path, module.params["keep"])
    except Failed as problem:
        said = str(problem).replace(str(partials[0]), str(path)).replace(str(partials[1]), str(environment))
        module.fail_json(msg=f"{path} cannot be made; nothing that serves was touched.\n{said}")
    finally:
        for partial in partials:
            if partial.parent.is_dir():
                throw_away(partial)
        # Also what a killed run has uploaded.
        uploads = Path(module.params["code"]).parent
        for upload in uploads.iterdir() if uploads.is_dir() else ():
            if re.fullmatch(rf"{re.escape(home.name)}-[0-9a-f]{{12}}\.tar(\.gz)?", upload.name):
                upload.unlink(missing_ok=True)
    module.exit_json(changed=True, removed=removed)


if __name__ == "__main__":
    main()
