"""The lookup `release`: same code, same id; other code, other id."""

from __future__ import annotations

import gzip
import os
import re
import socket
import subprocess
import sys
import tarfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from ansible.errors import AnsibleError
from ansible.plugins.loader import lookup_loader

ROOT = Path(__file__).parents[1]


def release(folder: Path, **options: object) -> dict[str, Any]:
    """Call the lookup as Ansible does."""
    return lookup_loader.get("paddock.fleet.release").run([str(folder)], {}, **options)[0]


def identifier(folder: Path) -> str:
    """Return the id only."""
    return release(folder, archive=False)["id"]


@pytest.fixture
def app(tmp_path: Path) -> Path:
    """Return the folder of a small app."""
    folder = tmp_path / "shop"
    (folder / "static").mkdir(parents=True)
    (folder / "app.py").write_text("app = 1\n")
    (folder / "requirements.txt").write_text("gunicorn==27.0.1\n")
    (folder / "static" / "a.css").write_text("a {}\n")
    return folder


@pytest.fixture(autouse=True)
def archives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Keep the archives out of the repository."""
    monkeypatch.chdir(tmp_path)  # where no inventory is, the caches lie in the current folder
    return tmp_path / ".cache" / "releases"


def test_id_and_archive(app: Path, archives: Path) -> None:
    """The archive holds exactly the files of the app, without times and owners."""
    (app / "run.sh").write_text("#!/bin/sh\n")
    (app / "run.sh").chmod(0o700)
    found = release(app)
    assert len(found["id"]) == 12
    assert int(found["id"], 16) >= 0
    assert Path(found["archive"]) == archives / f"shop-{found['id']}.tar.gz"
    with tarfile.open(found["archive"]) as archive:
        members = archive.getmembers()
    assert [(member.name, oct(member.mode)) for member in members] == [
        ("app.py", "0o644"),
        ("requirements.txt", "0o644"),
        ("run.sh", "0o755"),
        ("static/a.css", "0o644"),
    ]
    assert {(member.mtime, member.uid, member.gid, member.uname) for member in members} == {(0, 0, 0, "")}


def test_archive_is_reproducible(app: Path) -> None:
    """Two builds at different times and with different modes give the same bytes."""
    first = Path(release(app)["archive"])
    content = first.read_bytes()
    assert content[4:8] == bytes(4)  # the time in the header of gzip
    first.unlink()
    os.utime(app / "app.py", (1, 1))
    (app / "app.py").chmod(0o600)
    second = Path(release(app)["archive"])
    assert (second, second.read_bytes()) == (first, content)


def test_archive_is_written_once(app: Path, archives: Path) -> None:
    """An archive that is there is left alone, and nothing else is left behind."""
    path = Path(release(app)["archive"])
    inode = path.stat().st_ino
    assert Path(release(app)["archive"]).stat().st_ino == inode
    assert list(archives.iterdir()) == [path]


def test_forged_archive(app: Path) -> None:
    """An archive is not believed by its name: it is packed again from the folder."""
    found = release(app)
    archive = Path(found["archive"])
    honest = archive.read_bytes()
    evil = gzip.decompress(honest).replace(b"app = 1", b"app = 2")
    for forged in (gzip.compress(evil), b"", b"no archive", honest[:-9], honest + gzip.compress(b"more")):
        archive.write_bytes(forged)
        assert release(app) == found
        assert archive.read_bytes() == honest


def test_archive_from_many_workers(app: Path, archives: Path) -> None:
    """Workers that write the same archive at once leave one whole file."""
    (app / "big.bin").write_bytes(os.urandom(300_000))
    with ThreadPoolExecutor(8) as pool:
        found = {release["archive"] for release in pool.map(release, [app] * 16)}
    assert [str(path) for path in archives.iterdir()] == list(found)
    with tarfile.open(found.pop()) as archive:
        assert len(archive.getmembers()) == 4


def test_no_archive(app: Path, archives: Path) -> None:
    """Validation computes the id without writing."""
    found = release(app, archive=False)
    assert found == {**release(app), "archive": None}
    assert re.fullmatch(f"{found['id']}[0-9a-f]{{52}}", found["digest"])
    Path(release(app)["archive"]).unlink()
    release(app, archive=False)
    assert not list(archives.iterdir())


def put(app: Path, name: str, text: str = "x") -> None:
    """Add a file to the app's folder."""
    (app / name).parent.mkdir(parents=True, exist_ok=True)
    (app / name).write_text(text)


def shipped(app: Path) -> set[str]:
    """Return the names of what the archive holds."""
    with tarfile.open(release(app)["archive"]) as archive:
        return set(archive.getnames())


@pytest.mark.parametrize(
    ("name", "rule"),
    [
        ("tests/test_app.py", "tests"),
        ("wheels/own-1-py3-none-any.whl", "wheels/*.whl"),
        ("wheels/.gitignore", "wheels/.gitignore"),
        (".git/HEAD", ".git"),
        ("vendor/library/.git", ".git"),
        (".venv/bin/python", ".venv"),
        ("env/pyvenv.cfg", "virtual environment"),
        ("lib/deeper/py3/pyvenv.cfg", "virtual environment"),
        ("node_modules/a/index.js", "node_modules"),
        ("frontend/node_modules/a/index.js", "node_modules"),
        (".pytest_cache/README.md", ".pytest_cache"),
        ("static/.DS_Store", ".DS_Store"),
        (".coverage", ".coverage"),
        ("lib/.app.py.swp", ".*.sw?"),
        ("__pycache__/a.txt", "__pycache__"),
        ("lib/__pycache__/b", "__pycache__"),
        ("a.pyc", "*.pyc"),
    ],
)
def test_what_is_left_out(app: Path, name: str, rule: str) -> None:
    """What never runs on a host makes no new release, and is counted."""
    before = release(app)
    put(app, name)
    assert release(app) == {**before, "left_out": {rule: 1}}


@pytest.mark.parametrize(
    "name",
    [
        *("uploads/.gitkeep", ".flaskenv", "static/.well-known/assetlinks.json", ".env", ".config/a.toml"),
        *("lib/tests/data.py", "tests.py", "wheels/a.py", "lib/a.whl", "README", "pyvenv.cfg", "dev.sqlite"),
        *(".gitignore", "lib/.gitignore", "git", "venv.py", "wheels/lib/own-1-py3-none-any.whl"),
    ],
)
def test_what_counts(app: Path, name: str) -> None:
    """Any other file arrives, hidden or not."""
    before = identifier(app)
    put(app, name)
    assert identifier(app) != before
    assert name in shipped(app)


def test_left_out_folders_are_not_walked(app: Path) -> None:
    """A folder counts once, and what is in it is not looked at."""
    for number in range(3):
        put(app, f"node_modules/{number}/index.js")
        put(app, f"lib{number}/__pycache__/a.pyc")
        put(app, f"lib{number}/b.pyc")
    (app / "node_modules" / "loop").symlink_to("loop")
    found = release(app, archive=False)
    assert found["left_out"] == {"node_modules": 1, "__pycache__": 3, "*.pyc": 3}
    assert found["files"] == 3


def test_file_that_is_open_in_an_editor(app: Path) -> None:
    """Emacs marks it by a symlink that leads nowhere; a deploy goes on all the same."""
    (app / ".#app.py").symlink_to("me@here.1")
    assert release(app)["left_out"] == {".#*": 1}


def test_git_ignored_files_arrive(app: Path) -> None:
    """What Git ignores is often what a build has made."""
    put(app, "static/.gitignore", "*.js\n")
    put(app, "static/bundle.js")
    put(app, ".gitignore", "*\n")
    assert {"static/bundle.js", "static/.gitignore"} <= shipped(app)


def test_ignore_file(app: Path) -> None:
    """An app says in the syntax of .gitignore what stays, and what a rule leaves out and is wanted."""
    for name in ("dev.sqlite", "data/a.csv", "data/deep/b.csv", "data/keep.csv", "docs/a.md", "tests/a.py"):
        put(app, name)
    put(app, ".paddockignore", "# mine\n\n*.sqlite\n/data/**\n!/data/keep.csv\ndocs/\n!/tests/\n")
    assert shipped(app) == {
        *("app.py", "requirements.txt", "static/a.css", ".paddockignore", "data/keep.csv", "tests/a.py")
    }
    assert release(app)["left_out"] == {".paddockignore": 4}


def test_ignore_file_agrees_with_git(app: Path) -> None:
    """Real Git is asked about the same folder and the same patterns."""
    names = ("data/a.csv", "data/deep/b.csv", "data/deep/er/c.csv", "data/keep/d.csv", "e.csv", "logs/f.log")
    for name in names:
        put(app, name)
    git = ["git", "-C", str(app), "-c", "core.excludesFile=/dev/null"]
    subprocess.run(["git", "init", "-q", str(app)], check=True)
    for patterns in (
        "/data/**\n!/data/keep/\n",
        "/data/*\n!/data/keep/\n",
        "data/**\n!data/deep/b.csv\n",
        "data/\n!data/keep/\n",
        "**/deep\n*.csv\n!e.csv\n",
        "deep/er\nlogs\n",
        "*.csv\n!data/**\n",
        "*\n!*/\n!*.log\n",
        "*.csv\n!data/\n",
        "data\n!/data\n*.log\n",
    ):
        put(app, ".gitignore", f"{patterns}!/requirements.txt\n")  # the lock always ships
        put(app, ".paddockignore", patterns)
        listed = [*git, "ls-files", "--others", "--exclude-standard"]
        expected = subprocess.run(listed, check=True, capture_output=True, text=True).stdout.split()
        assert sorted(shipped(app)) == sorted(expected), patterns


def test_lock_is_never_left_out(app: Path) -> None:
    """Or another lock would have the name of the release before."""
    put(app, ".paddockignore", "*.txt\n/requirements.*\n")
    before = identifier(app)
    put(app, "requirements.txt", "gunicorn==27.0.2\n")
    assert identifier(app) != before
    assert "requirements.txt" in shipped(app)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"*.log\n!\n", ".paddockignore:2: is '!'; allowed: a pattern in the syntax of .gitignore"),
        (b"\xff", ".paddockignore cannot be read; allowed: text in the syntax of .gitignore"),
    ],
)
def test_bad_ignore_file(app: Path, content: bytes, message: str) -> None:
    """File and line are named."""
    (app / ".paddockignore").write_bytes(content)
    with pytest.raises(AnsibleError, match=re.escape(message)):
        identifier(app)


def test_a_run_says_what_was_left_out(app: Path) -> None:
    """Once, when a release is new, also where several hosts want it at the same time."""
    for name in ("bin/a", ".venv/pyvenv.cfg", "a/__pycache__/a", "b/__pycache__/b", "x.log", ".env"):
        put(app, name)
    put(app, ".paddockignore", "*.log\n")
    checkout = app.parent / "checkout"
    checkout.mkdir()
    (checkout / "ansible.cfg").touch()
    (checkout / "play.yml").write_text(
        "- hosts: all\n  gather_facts: false\n  connection: local\n  tasks:\n"
        f"    - ansible.builtin.debug: {{msg: \"{{{{ lookup('paddock.fleet.release', '{app}').id }}}}\"}}\n"
    )

    def run() -> str:
        done = subprocess.run(
            [Path(sys.executable).with_name("ansible-playbook"), "-i", "a,b,c,d,e", "play.yml"],
            cwd=checkout,
            env=os.environ | {"ANSIBLE_CONFIG": str(checkout / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1"},
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout + done.stderr

    said = run()
    line = f"shop {identifier(app)}: 6 files; left out: .paddockignore (1), .venv (1), __pycache__ (2)\n"
    assert said.count(line) == 1
    assert said.count("[WARNING]: shop ships its .env, which the app's user can read.") == 1
    again = run()
    assert "left out" not in again
    assert "WARNING" not in again


def test_executable_bit_and_name_count(app: Path) -> None:
    """The same bytes under another mode or name are another release."""
    ids = [identifier(app)]
    (app / "app.py").chmod(0o755)
    ids.append(identifier(app))
    (app / "app.py").rename(app / "main.py")
    ids.append(identifier(app))
    assert len(set(ids)) == 3


def test_trees_do_not_collide(tmp_path: Path) -> None:
    """Bytes cannot wander between names and contents."""
    trees = [{"ab": "c"}, {"a": "bc"}, {"a": "b", "c": ""}, {"a": "", "b": "c"}, {"ax": ""}]
    ids = set()
    for number, tree in enumerate(trees):
        folder = tmp_path / str(number)
        folder.mkdir()
        for name, content in tree.items():
            (folder / name).write_text(content)
        ids.add(identifier(folder))
    assert len(ids) == len(trees)


def test_symlink_to_own_file(app: Path) -> None:
    """A symlink inside the folder counts by its content and is shipped as a file."""
    (app / "copy.py").write_text("app = 1\n")
    expected = identifier(app)
    (app / "copy.py").unlink()
    (app / "copy.py").symlink_to("app.py")
    assert identifier(app) == expected
    with tarfile.open(release(app)["archive"]) as archive:
        assert archive.getmember("copy.py").isreg()


def _socket(path: Path) -> None:
    here = Path.cwd()
    os.chdir(path.parent)  # a socket's path has little room
    try:
        socket.socket(socket.AF_UNIX).bind(path.name)
    finally:
        os.chdir(here)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda app: (app / "x").symlink_to("x"), "x leads nowhere; allowed: a symlink to a file"),
        (lambda app: (app / "x").symlink_to("gone"), "x leads nowhere"),
        (lambda app: (app / "x").symlink_to("/etc/passwd"), "x leads to /etc/passwd; allowed"),
        (lambda app: (app / "x").symlink_to("../../"), "x leads to"),
        (lambda app: (app / "x").symlink_to("static"), "x leads to"),
        (lambda app: os.mkfifo(app / "x"), "x is neither a file nor a folder; allowed: files"),
        (lambda app: _socket(app / "x"), "x is neither a file nor a folder"),
    ],
    ids=["loop", "dangling", "outside", "parent", "folder", "fifo", "socket"],
)
def test_refused_content(app: Path, spoil: Any, message: str) -> None:
    """What cannot be shipped is named, on one line."""
    spoil(app)
    with pytest.raises(AnsibleError) as caught:
        identifier(app)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_refused_folder(tmp_path: Path) -> None:
    """A folder that is none is named, with what would be right."""
    (tmp_path / "file").write_text("")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "a.pyc").write_text("x")
    for name, state in {
        "gone": "is missing",
        "file": "is not a folder",
        "loop": "is not a folder",
        "empty": "has no files",
    }.items():
        with pytest.raises(AnsibleError) as caught:
            identifier(tmp_path / name)
        assert str(caught.value) == f"{tmp_path / name} {state}; allowed: a folder with the app's code"
