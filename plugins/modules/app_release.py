#!/usr/bin/python
"""Make one release of an app: its code and its environment, in folders that never change."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: app_release
short_description: An immutable release of a Python app
description:
  - Unpacks an environment, unless the host has that one, unpacks the code, links the environment, and
    only then gives the folder its name. So a folder of that name is whole, and what a killed run left
    is removed by the next. One call at a time works on an app - it waits for what a killed run left
    running.
  - Root uses nothing that differs from the digests that the control node has computed, and starts no
    interpreter of an environment.
  - Afterwards removes the oldest releases, and the environments that no release links to. Releases
    that have served stay the longest - the role that runs a release marks them by a link in C(good) - so
    the one that serves is never removed. Marks of a release in C(good) and C(bad) go with it,
    unless it is held back.
options:
  path: {description: Folder of the release., required: true, type: path}
  digest:
    description: SHA-256 of the code, as the lookup C(release) computes it. Its first 12 digits name the
      folder; one that is there and has been made of other code is refused.
    required: true
    type: str
  environment: {description: Folder of the environment., required: true, type: path}
  environment_digest:
    description: SHA-256 of what the lock has for this host, as the lookup C(environment) computes it.
    required: true
    type: str
  code:
    description: Archive of the code on the control node. It is copied to the host, and removed there when
      done.
    required: true
    type: path
  packages:
    description: Archive of the environment, likewise. Needed only where the host does not have that one.
    default: ""
    type: path
  packages_sha256:
    description: SHA-256 of that archive, as the lookup C(environment) computes it.
    default: ""
    type: str
  keep:
    description: How many good releases stay in addition to this one, the one that serves and the one before.
    default: 3
    type: int
"""

EXAMPLES = r"""
- name: Make a release
  paddock.fleet.app_release:
    path: /srv/requestme/releases/{{ code.id }}-py3.13
    digest: "{{ code.digest }}"
    environment: /srv/requestme/environments/{{ packages.id }}-py3.13
    environment_digest: "{{ packages.digest }}"
    code: "{{ code.archive }}"
    packages: "{{ packages.archive }}"
    packages_sha256: "{{ packages.sha256 }}"
"""

RETURN = r"""
removed: {description: Old releases and environments that went., returned: changed, type: list, elements: str}
"""

import os
import re
import shutil
import time
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.paddock.fleet.plugins.module_utils.host_lock import Held, take
from ansible_collections.paddock.fleet.plugins.module_utils.release_archive import (
    ArchiveError,
    add_interpreter,
    file_digest,
    folder_digest,
    unpack,
)

# What a killed run has left works on: packages unpack and compile in less.
PATIENCE = 300.0


class Failed(Exception):
    """The release cannot be made; the message says why."""


def refuse_foreign(path: Path) -> None:
    """Raise Failed where somebody else than root has made what has this name."""
    if os.path.lexists(path) and path.lstat().st_uid != 0:
        raise Failed(f"{path} is not root's; allowed: what root has made, or nothing. Move it away.")


def folder(path: Path) -> None:
    """Make a folder of root's; raises Failed where something else has the name."""
    if path.is_symlink():
        refuse_foreign(path)  # it could lead anywhere
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError:
        raise Failed(f"{path} is in the way; allowed: a folder, or nothing. Move it away.") from None
    # Who owns a folder can swap what is in it.
    os.chown(path, 0, 0)
    path.chmod(0o755)


def is_whole(path: Path) -> bool:
    """Whether the folder is there; raises Failed where something else has its name."""
    if path.is_symlink() or (path.exists() and not path.is_dir()):
        raise Failed(f"{path} is in the way; allowed: a folder, or nothing. Move it away.")
    refuse_foreign(path)
    return path.exists()


def mark(path: Path, digest: str) -> Path:
    """Where it is noted that a release or an environment has been made of this content."""
    return path.parent.parent / "digests" / f"{digest}{path.name[12:]}"


def is_made(path: Path, digest: str) -> bool:
    """Whether the folder is there; raises Failed where it has been made of something else."""
    if not is_whole(path):
        return False
    marks = list(mark(path, "").parent.glob(f"{path.name[:12]}*{path.name[12:]}"))
    if marks and mark(path, digest) not in marks:
        raise Failed(
            f"{path} has been made of other content: {marks[0].name[:64]}, not {digest}. Two contents with"
            " one id do not happen by chance: find out who made them. Any change of a file makes another id."
        )
    return True


def note(path: Path, digest: str) -> None:
    """Note what a release or an environment is made of; before it gets its name."""
    new = mark(path, digest)
    folder(new.parent)
    for old in new.parent.glob(f"{path.name[:12]}*{path.name[12:]}"):
        if old != new:
            throw_away(old)  # of a release that has gone
    folder(new)


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


def compile_below(module: AnsibleModule, lock: int, path: Path, partial: Path, final: Path) -> None:
    """Compile what will be in `final`: the sandboxed app cannot write its byte code.

    By the system's interpreter, and without `site`: in the environment's own, a package's .pth would
    run as root. A file that does not compile is for the readiness check to judge.
    """
    compiler = ("/usr/bin/python3", "-I", "-S", "-m", "compileall", "-q", "-j0")
    command = [*compiler, "--invalidation-mode=timestamp", f"-s{partial}", f"-p{final}", str(path)]
    module.run_command(command, pass_fds=[lock])


def make_environment(module: AnsibleModule, environment: Path, lock: int) -> None:
    """Make an environment in a folder that gets its name last."""
    partial, packages = environment.parent / ".partial", Path(module.params["packages"])
    throw_away(partial)
    venv = partial / "venv"
    if packages.exists() and file_digest(packages) != module.params["packages_sha256"]:
        raise Failed(f"{packages} is not the archive of the control node; run it again")
    # Not the time 0: a browser would keep what it has of a package's static files.
    unpack(packages, venv, int(time.time()))
    add_interpreter(venv, environment.name.rpartition("-py")[2])
    compile_below(module, lock, venv / "lib", venv, environment)
    note(environment, module.params["environment_digest"])
    venv.rename(environment)
    throw_away(partial)


def make_release(module: AnsibleModule, path: Path, environment: Path, lock: int) -> None:
    """Make a release in a folder that gets its name last."""
    partial = path.parent / ".partial"
    throw_away(partial)
    unpack(Path(module.params["code"]), partial / "app")
    if folder_digest(partial / "app") != module.params["digest"]:
        raise Failed(f"{module.params['code']} is not the code of the control node; run it again")
    (partial / "venv").symlink_to(os.path.relpath(environment, path))
    compile_below(module, lock, partial / "app", partial, path)
    note(path, module.params["digest"])
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
    made = {entry.name for name in ("releases", "environments") for entry in (home / name).glob("*-py*")}
    for entry in (home / "digests").glob("*-py*"):
        if f"{entry.name[:12]}{entry.name[64:]}" not in made:
            throw_away(entry)
    return [entry.name for entry in old + unused]


def main() -> None:
    """Run as an Ansible module."""
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "digest": {"type": "str", "required": True},
            "environment": {"type": "path", "required": True},
            "environment_digest": {"type": "str", "required": True},
            "code": {"type": "path", "required": True},
            "packages": {"type": "path", "default": ""},
            "packages_sha256": {"type": "str", "default": ""},
            "keep": {"type": "int", "default": 3},
        },
        supports_check_mode=True,
    )
    path, environment = Path(module.params["path"]), Path(module.params["environment"])
    digest, environment_digest = module.params["digest"], module.params["environment_digest"]
    if module.check_mode:
        try:
            if is_made(path, digest):
                module.exit_json(changed=False)
        except Failed as problem:
            module.fail_json(msg=str(problem))
        module.exit_json(changed=True, diff={"before": "", "after": f"{path}\n"})
    os.umask(0o022)
    home = path.parent.parent
    try:
        lock = take(Path(f"/run/paddock-{home.name}-releases.lock"), PATIENCE)
    except Held as problem:
        module.fail_json(msg=f"{problem}. Nothing was changed.")
    partials = [parent / ".partial" for parent in (path.parent, environment.parent)]
    ours = False
    try:
        refuse_strangers(home)
        for parent in (home, path.parent, environment.parent, home / "good"):
            folder(parent)
        ours = True
        if is_made(path, digest):
            note(path, digest)  # of an older Paddock's release nothing was noted
            module.exit_json(changed=False)
        if not is_made(environment, environment_digest):
            make_environment(module, environment, lock)
        make_release(module, path, environment, lock)
        removed = prune(path, module.params["keep"])
    except (Failed, ArchiveError) as problem:
        said = str(problem).replace(str(partials[0]), str(path)).replace(str(partials[1]), str(environment))
        module.fail_json(msg=f"{path} cannot be made; nothing that serves was touched.\n{said}")
    finally:
        for partial in partials if ours else ():
            throw_away(partial)
        # Also what a killed run has left in its own temporary folder.
        for upload in Path(module.params["code"]).parent.parent.glob(f"ansible-tmp-*/{home.name}-*.tar.gz"):
            if re.fullmatch(rf"{re.escape(home.name)}-[0-9a-f]{{12}}\.tar\.gz", upload.name):
                upload.unlink(missing_ok=True)
    module.exit_json(changed=True, removed=removed)


if __name__ == "__main__":
    main()
