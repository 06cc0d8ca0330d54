"""What comes with a lock or lies on the way to a host: root runs none of it."""

from __future__ import annotations

import hashlib
import io
import os
import re
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hostile_wheel import wheel
from testbed import INVENTORY, PLAIN, ROOT
from testinfra.host import Host

NOTES = "/run/hostile/notes"
# Runs wherever an interpreter of the environment starts, and notes as which user.
NOTE = f"import os, sys; open({NOTES!r}, 'a').write(f'{{os.getuid()}} {{sys.orig_argv}}' + chr(10))\n"


@pytest.fixture
def notes(host: Host) -> Iterator[None]:
    """A file that everybody on the host may write."""
    host.check_output(f"mkdir -p -m 0755 {Path(NOTES).parent} && install -m 0666 /dev/null {NOTES}")
    yield
    host.check_output(f"rm -r {Path(NOTES).parent}")


def test_packages_never_run_as_root(source: Any, notes: None) -> None:
    """Not when they are installed or compiled, nor when the next release is made over them."""
    line = wheel(
        source.folder / "wheels",
        {"hostile.pth": NOTE, "sitecustomize.py": NOTE, "compileall.py": NOTE, "os.py": NOTE},
    )
    with (source.folder / "requirements.txt").open("a") as lock:
        lock.write(line)
    source.change("# hostile\n")
    source.run()
    source.change("# another release with the same environment\n")
    source.run()
    host, path = source.host, f"{source.home}/releases/{source.release}"
    assert host.check_output(f"cat {NOTES}") == ""
    # It is live: as the app's user it does run, twice.
    host.check_output(f"setpriv --reuid=games --clear-groups {path}/venv/bin/python -I -c ''")
    assert {line.split()[0] for line in host.check_output(f"cat {NOTES}").splitlines()} == {"5"}


def test_byte_code_is_valid(deployed: Any) -> None:
    """Compiled by the system's interpreter, it is what the environment's interpreter loads."""
    path = f"{deployed.home}/releases/{deployed.release}"
    check = f"""
import importlib.util, pathlib, sys
for top in ("{path}/app", "{path}/venv/lib"):
    for source in pathlib.Path(top).rglob("*.py"):
        code, stat = pathlib.Path(importlib.util.cache_from_source(str(source))), source.stat()
        times = int(stat.st_mtime).to_bytes(4, "little") + stat.st_size.to_bytes(4, "little")
        if code.read_bytes()[:16] != importlib.util.MAGIC_NUMBER + bytes(4) + times:
            sys.exit(source)
        print(source)
"""
    run = f"setpriv --reuid=games --clear-groups {path}/venv/bin/python -I - <<'END'\n{check}END"
    assert len(deployed.host.check_output(run).splitlines()) > 100
    assert deployed.host.run(f"grep -rlF /.partial/ {path}/app {path}/venv/").stdout == ""


CODE = {"app.py": b"app = 1\n"}
CODE_DIGEST = "2d8844537e05e16d198efe58efec9a2765f5e3176127ee8e8a9f68fd513921ec"


def archive(files: dict[str, bytes], link: str = "") -> bytes:
    """Pack files, and a link."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        if link:
            info = tarfile.TarInfo(link)
            info.type, info.linkname = tarfile.SYMTYPE, "/etc"
            tar.addfile(info)
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size, info.mode = len(content), 0o644
            tar.addfile(info, io.BytesIO(content))
    return packed.getvalue()


def forgeries() -> dict[str, tuple[bytes, bytes, bytes, str]]:
    """Uploads that differ from what the run computed: code, packages, the packages of the run, the answer."""
    site = "lib/python3/site-packages"
    code, packages = archive(CODE), archive({f"{site}/good.py": b""})
    not_code, not_below = "is not the code of the control node", "has {}; allowed: files"
    evil, note = {"app.py": b"app = 2\n"}, {f"{site}/evil.pth": NOTE.encode()}
    settings = archive({"pyvenv.cfg": b"home = /run/hostile\n"})
    interpreter = archive({"bin/python3": b"#!/run/hostile\n"})
    above = archive({f"{site}/../../../../../evil": b""})
    return {
        "none": (code, packages, packages, ""),
        "other code": (archive(evil), packages, packages, not_code),
        "more code": (archive({**CODE, "evil.py": b""}), packages, packages, not_code),
        "no code": (archive({}), packages, packages, not_code),
        "above": (
            archive({**CODE, "../../../evil": b""}),
            packages,
            packages,
            not_below.format("'../../../evil'"),
        ),
        "absolute": (
            archive({**CODE, "/srv/evil": b""}),
            packages,
            packages,
            not_below.format("'/srv/evil'"),
        ),
        "link": (archive({**CODE, "etc/evil": b""}, "etc"), packages, packages, not_below.format("'etc'")),
        "no archive": (b"evil", packages, packages, "cannot be unpacked"),
        "other packages": (code, archive(note), packages, "is not the archive of the control node"),
        "packages above": (code, above, above, f"has '{site}/../../../../../evil'; allowed: files"),
        "no packages": (code, b"evil", b"evil", "cannot be unpacked"),
        "settings": (code, settings, settings, "a package replaces pyvenv.cfg; allowed: one that"),
        "interpreter": (code, interpreter, interpreter, "a package replaces bin/python3; allowed: one that"),
    }


def test_uploads_are_compared(host: Host, notes: None, tmp_path: Path) -> None:
    """The module takes nothing but what the control node has computed, and leaves nothing of the rest."""
    home, python, digest = "/srv/forged", "py3", "e" * 64
    for case, (code, packages, computed, answer) in forgeries().items():
        host.check_output("rm -rf /srv/forged")
        (tmp_path / "code").write_bytes(code)
        (tmp_path / "packages").write_bytes(packages)
        arguments = {
            "path": f"{home}/releases/{CODE_DIGEST[:12]}-{python}",
            "digest": CODE_DIGEST,
            "environment": f"{home}/environments/{digest[:12]}-{python}",
            "environment_digest": digest,
            "code": str(tmp_path / "code"),
            "packages": str(tmp_path / "packages"),
            "packages_sha256": hashlib.sha256(computed).hexdigest(),
        }
        rc, said = make(host, arguments)
        assert (rc == 0) == (answer == ""), f"{case}: {said}"
        assert answer in said, case
        made = host.check_output(
            f"ls {home}/releases {home}/environments; ls -d /srv/evil* {home}/evil* || :"
        )
        assert (arguments["path"].rpartition("/")[2] in made) == (answer == ""), case
        assert "evil" not in made, case
        assert host.check_output(f"cat {NOTES}") == "", case
    host.check_output("rm -rf /srv/forged")


def make(host: Host, arguments: dict[str, str]) -> tuple[int, str]:
    """Run the module on the host, without the role."""
    done = subprocess.run(
        [
            *(
                "ansible",
                "-i",
                str(INVENTORY),
                host.backend.host,
                "--become",
                "-m",
                "paddock.fleet.app_release",
            ),
            *("-a", " ".join(f"{key}={value}" for key, value in arguments.items())),
        ],
        cwd=ROOT,
        env={**os.environ, **PLAIN},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


def test_one_id_has_one_content(source: Any) -> None:
    """Other code with the id of a release that is there is refused, also by a run that changes nothing."""
    source.run()
    host, release = source.host, source.release
    mark = host.check_output(f"ls -d {source.home}/digests/{release[:12]}*")
    assert re.fullmatch(rf"{source.home}/digests/{release[:12]}[0-9a-f]{{52}}{release[12:]}", mark)
    other = f"{source.home}/digests/{release[:12]}{'0' * 52}{release[12:]}"
    host.check_output(f"mv {mark} {other}")
    for option in ((), ("--check",)):
        assert "has been made of other content" in source.run(2, *option).output
    # When the release has gone, so has what it was made of.
    host.check_output(f"rm -r {source.home}/releases/{release}")
    source.run()
    assert host.check_output(f"ls -d {source.home}/digests/{release[:12]}*") == mark
    # An older Paddock has noted nothing.
    host.check_output(f"rm -r {source.home}/digests")
    source.run()
    assert host.check_output(f"ls -d {source.home}/digests/{release[:12]}*") == mark
    assert source.run().changed == 0
    # The environment has one, too.
    used = host.check_output(f"basename $(readlink {source.home}/releases/{release}/venv)")
    host.check_output(f"mkdir {source.home}/digests/{used[:12]}{'0' * 52}{used[12:]}")
    source.change("# other code\n")
    assert f"environments/{used} has been made of other content" in source.run(2).output
    host.check_output(f"rm -r {source.home}")


def test_what_others_made_is_not_taken(source: Any) -> None:
    """A folder by the name of a release or an environment that is not root's is refused."""
    host, home = source.host, source.home
    source.run()
    for path in (f"{home}/releases/{source.release}", f"$(realpath {home}/releases/{source.release}/venv)"):
        host.check_output(f"chown games {path}")
        source.change("#\n" if "realpath" in path else "")
        assert "is not root's; allowed: what root has made" in source.run(2).output
        host.check_output(f"chown root {home}/releases/* {home}/environments/*")
    # A link of somebody else could lead anywhere.
    host.check_output(
        f"rm -r {home} && mkdir {home} && ln -s /root {home}/releases && chown -h games {home}/releases"
    )
    mode = host.check_output("stat -c %a /root")
    assert f"{home}/releases is not root's" in source.run(2).output
    assert host.check_output("stat -c %a /root") == mode
    host.check_output(f"rm -r {home}")


def test_wheel_that_replaces_the_environment(source: Any) -> None:
    """It is refused before anything changes; package and lock are named."""
    before = source.host.check_output("find /srv | sort | sha256sum")
    line = wheel(source.folder / "wheels", {"hostile-1.0.data/data/pyvenv.cfg": "home = /run/hostile\n"})
    with (source.folder / "requirements.txt").open("a") as lock:
        lock.write(line)
    output = source.run(rc=2).output
    assert re.search(
        r"changing/requirements.txt:\d+: hostile==1.0 replaces pyvenv.cfg; allowed: files", output
    )
    assert source.host.check_output("find /srv | sort | sha256sum") == before
