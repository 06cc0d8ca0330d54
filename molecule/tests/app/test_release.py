"""A release on a host is what the app's folder and its lock say."""

from __future__ import annotations

import re
from typing import Any

from testinfra.host import Host


def test_deployed_release_is_whole(deployed: Any) -> None:
    """Its folder is named by its content; code, packages, owner and modes are right."""
    deployed.assert_whole()


def test_no_tests_and_no_hidden_files(deployed: Any) -> None:
    """They stay on the control node."""
    app = f"{deployed.home}/releases/{deployed.release}/app"
    assert deployed.host.check_output(f"ls -A {app}").split() == [
        "__pycache__",
        "app.py",
        "requirements.in",
        "requirements.txt",
    ]


def test_everything_is_compiled(deployed: Any) -> None:
    """The sandboxed app cannot write byte code; and a traceback names the file where it is."""
    path = f"{deployed.home}/releases/{deployed.release}"
    count = f"find {path}/app {path}/venv/lib/python*/site-packages/gunicorn -name '*.%s' | wc -l"
    assert deployed.host.check_output(count % "pyc") == deployed.host.check_output(count % "py")
    assert deployed.host.run(f"grep -rl releases/.partial {path}/app").stdout == ""


def test_flask_script_runs(host: Host) -> None:
    """A script of a package works at the place that the folder was renamed to."""
    assert "Flask 3" in host.check_output("set -- /srv/requestme/releases/*; $1/venv/bin/flask --version")


def test_one_byte_is_another_release(source: Any) -> None:
    """The same content changes nothing; a byte makes a folder beside the old one."""
    source.run()
    assert source.run().changed == 0
    before, old = source.releases(), source.release
    # As the role that runs a release does once it serves.
    source.host.check_output(f"ln -sfn {source.home}/releases/{old} {source.home}/good/{old}")
    source.change("#\n")
    assert source.release != old
    assert source.run().changed > 0
    assert source.releases() == before | {source.release}
    source.assert_whole()
    assert source.run().changed == 0


def test_wrong_hash_leaves_nothing(source: Any) -> None:
    """A package that is not the locked one is refused."""
    before = source.releases()
    lock = source.folder / "requirements.txt"
    # The two hashes of the first package.
    lock.write_text(re.sub("sha256:.{64}", "sha256:" + "0" * 64, lock.read_text(), count=2))
    output = source.run(rc=2).output
    assert "nothing that serves was touched" in output
    assert "blinker" in output
    assert source.releases() == before
    assert source.host.run("ls /opt/paddock/*.tar.gz").stdout == ""


def test_folders_belong_to_root(source: Any) -> None:
    """Else their owner could swap what they hold."""
    source.run()
    source.host.check_output(
        f"chown -R nobody {source.home}/good; chown nobody {source.home} {source.home}/releases"
    )
    source.change("# owner\n")
    source.run()
    assert (
        source.host.check_output(f"stat -c %U:%a {source.home} {source.home}/*").split() == ["root:755"] * 3
    )
