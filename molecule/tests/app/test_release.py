"""A release on a host is what the app's folder and its lock say."""

from __future__ import annotations

import re
import socket
import time
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from testbed import sample
from testinfra.host import Host


def test_deployed_release_is_whole(deployed: Any) -> None:
    """Its folder is named by its content; code, packages, owner and modes are right."""
    deployed.assert_whole()


def test_no_tests(deployed: Any) -> None:
    """They stay on the control node."""
    app = f"{deployed.home}/releases/{deployed.release}/app"
    assert deployed.host.check_output(f"ls -A {app}").split() == [
        "__pycache__",
        "app.py",
        "requirements.in",
        "requirements.txt",
    ]


def test_hidden_files_arrive(source: Any) -> None:
    """What is in the folder is on the host, except for what a rule leaves out; the run counts that."""
    arrive = ["uploads/.gitkeep", ".flaskenv", "static/.well-known/assetlinks.json", "static/größe.txt"]
    stay = [".venv/pyvenv.cfg", "env/pyvenv.cfg", "node_modules/a/index.js", "dev.sqlite"]
    for name in (*arrive, *stay):
        (source.folder / name).parent.mkdir(parents=True, exist_ok=True)
        (source.folder / name).write_text(name)
    (source.folder / ".paddockignore").write_text("*.sqlite\n")
    source.change(f"# {uuid.uuid4()}\n")  # only a new archive is told of
    rules = (
        r"\.paddockignore \(1\), \.venv \(1\), .*node_modules \(1\), tests \(1\), virtual environment \(1\)"
    )
    assert re.search(rf"changing \w{{12}}: 8 files; left out: {rules}", source.run().output)
    source.assert_whole()
    there = source.host.check_output(f"cd {source.home}/releases/{source.release}/app && find . -type f")
    found = there.replace("./", "").split()
    assert [name for name in (*arrive, *stay) if name in found] == arrive


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
    """The same content changes nothing; a byte makes a folder next to the old one."""
    source.run()
    assert source.run().changed == 0
    before, old = source.releases(), source.release
    source.serve()
    source.change("#\n")
    assert source.release != old
    assert source.run().changed > 0
    assert source.releases() == before | {source.release}
    source.assert_whole()
    assert source.run().changed == 0


def test_releases_share_an_environment(source: Any) -> None:
    """A line of code makes none; another lock does, and the first one goes with its last release."""
    source.settings["app_keep_releases"] = 0
    source.host.check_output(f"rm -rf {source.home}")
    source.run()
    first = source.environments()
    inode = f"stat -c %i {source.home}/environments/*"
    before = source.host.check_output(inode)
    source.change("# shared\n")
    source.run()
    assert source.host.check_output(inode) == before
    source.want_tornado()
    source.run()
    assert len(source.environments()) == 1
    assert source.environments() != first
    source.assert_whole()


@pytest.mark.full
def test_home_elsewhere(source: Any) -> None:
    """An app's folder may be a link to a larger disk; what its releases use stays."""
    home = source.home
    source.host.check_output(f"rm -rf {home} /var/big; mkdir /var/big; ln -s /var/big {home}")
    try:
        source.run()
        source.assert_whole()
    finally:
        source.host.check_output(f"rm -rf {home} /var/big")


@pytest.fixture
def cut_off(host: Host) -> Iterator[None]:
    """Leave the host nothing but its own subnet, which is where SSH comes from."""
    route = host.check_output("ip route show default")
    host.check_output("ip route replace unreachable default metric 0 && ip route del " + route)
    yield
    host.check_output(f"ip route del unreachable default metric 0 && ip route add {route}")


def test_no_network(source: Any, cut_off: None) -> None:
    """A host that is set up takes a new release with another lock without index and mirror."""
    host = source.host
    assert host.run("python3 -c \"import socket; socket.create_connection(('192.0.2.1', 80), 3)\"").rc != 0
    lists = "/var/lib/apt/lists /var/lib/apt/periodic/update-success-stamp /var/cache/apt/pkgcache.bin"
    host.run(f"touch -cd '9 days ago' {lists}")
    source.tags = "python,app"
    source.change("# no network\n")
    source.want_tornado()
    source.run()
    source.assert_whole()


def test_silent_index_changes_nothing(source: Any) -> None:
    """A run ends in time, before the host has changed."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}/simple"
        # Of the packages here, only this one can never be in the cache.
        with (source.folder / "requirements.txt").open("a") as lock:
            lock.write(f"nowhere==1.0 --hash=sha256:{'0' * 64}\n")
        source.settings["app_index_url"] = f"http://user:s3cret@{address}"
        before = source.host.check_output("find /srv | sort | sha256sum")
        start = time.monotonic()
        output = source.run(2, "-vvv").output
        assert time.monotonic() - start < 60
    assert f"http://***@{address} does not answer" in output
    assert "s3cret" not in output
    assert "changing/requirements.txt" in output
    assert source.host.check_output("find /srv | sort | sha256sum") == before


def test_wrong_hash_changes_nothing(source: Any) -> None:
    """A package that is not the locked one is refused."""
    before = source.host.check_output("find /srv | sort | sha256sum")
    lock = source.folder / "requirements.txt"
    # The two hashes of the first package.
    lock.write_text(re.sub("sha256:.{64}", "sha256:" + "0" * 64, lock.read_text(), count=2))
    output = source.run(rc=2).output
    assert "blinker==1.9.0 has another hash" in output
    assert source.host.check_output("find /srv | sort | sha256sum") == before


@pytest.mark.parametrize(
    ("spoil", "where"),
    sample(
        [
            ("touch {home}", "{home}"),
            ("mkdir {home}; ln -s /nowhere {home}/releases", "{home}/releases"),
            ("mkdir -p {home}/releases; echo data > {home}/environments", "{home}/environments"),
            ("mkdir -p {home}/releases; echo data > {home}/releases/{release}", "{home}/releases/{release}"),
            (
                "mkdir -p {home}/releases; ln -s /nowhere {home}/releases/{release}",
                "{home}/releases/{release}",
            ),
        ]
    ),
)
def test_something_in_the_way(source: Any, spoil: str, where: str) -> None:
    """It is named, and left as it is."""
    names = {"home": source.home, "release": source.release}
    source.host.check_output(f"rm -rf {source.home}; " + spoil.format(**names))
    listing = f"ls -ld --time-style=+ {where.format(**names)}"
    before = source.host.check_output(listing)
    assert f"{where.format(**names)} is in the way; allowed: a folder" in source.run(rc=2).output
    assert source.host.check_output(listing) == before
    source.assert_nothing_is_left()
    source.host.check_output(f"rm -rf {source.home}")


def test_folders_belong_to_root(source: Any) -> None:
    """Else their owner could swap what they hold."""
    source.run()
    source.host.check_output(
        f"chown -R nobody {source.home}/good; chown nobody {source.home} {source.home}/releases"
    )
    source.change("# owner\n")
    source.run()
    assert (
        source.host.check_output(f"stat -c %U:%a {source.home} {source.home}/*").split() == ["root:755"] * 5
    )


@pytest.mark.full
def test_a_strangers_folder_is_not_taken_over(source: Any, host: Host) -> None:
    """An app by the name of what somebody else has below /srv is refused; nothing there changes."""
    home = source.home
    source.run()
    host.check_output(
        f"mv {home} {home}.away && mkdir -m 0700 {home} && touch {home}/site && chown games {home}"
    )
    try:
        source.change("#\n")
        run = source.run(rc=2)
        assert f"{home} is not empty and has no releases" in run.output
        assert host.check_output(f"stat -c '%U %a' {home}; ls -A {home}") == "games 700\nsite"
    finally:
        host.check_output(f"rm -rf {home} && mv {home}.away {home}")
