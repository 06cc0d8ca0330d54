"""The lookup `release`: same code, same id; other code, other id."""

from __future__ import annotations

import os
import socket
import sys
import tarfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from ansible.errors import AnsibleError
from ansible.plugins.loader import lookup_loader

ROOT = Path(__file__).parents[1]
lookup_loader.add_directory(str(ROOT / "plugins" / "lookup"))


def release(folder: Path, **options: object) -> dict[str, Any]:
    """Call the lookup as Ansible does."""
    return lookup_loader.get("release").run([str(folder)], {}, **options)[0]


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
    module = sys.modules[type(lookup_loader.get("release")).__module__]
    monkeypatch.setattr(module, "ARCHIVES", tmp_path / "releases")
    return tmp_path / "releases"


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
    assert found == {"id": release(app)["id"], "archive": None}
    Path(release(app)["archive"]).unlink()
    release(app, archive=False)
    assert not list(archives.iterdir())


@pytest.mark.parametrize(
    "name",
    [
        "tests/test_app.py",
        "wheels/own-1-py3-none-any.whl",
        ".git/HEAD",
        ".env",
        "__pycache__/a.txt",
        "lib/__pycache__/b",
        "a.pyc",
    ],
)
def test_what_is_left_out(app: Path, name: str) -> None:
    """What never runs on a host makes no new release."""
    before = identifier(app)
    (app / name).parent.mkdir(parents=True, exist_ok=True)
    (app / name).write_text("x")
    assert identifier(app) == before


@pytest.mark.parametrize("name", ["lib/tests/data.py", "tests.py", "wheels/a.py", "lib/a.whl", "README"])
def test_what_counts(app: Path, name: str) -> None:
    """Any other file does, the lock included."""
    before = identifier(app)
    (app / name).parent.mkdir(parents=True, exist_ok=True)
    (app / name).write_text("x")
    assert identifier(app) != before


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
    (tmp_path / "empty" / ".hidden").write_text("x")
    for name, state in {
        "gone": "is missing",
        "file": "is not a folder",
        "loop": "is not a folder",
        "empty": "has no files",
    }.items():
        with pytest.raises(AnsibleError) as caught:
            identifier(tmp_path / name)
        assert str(caught.value) == f"{tmp_path / name} {state}; allowed: a folder with the app's code"
