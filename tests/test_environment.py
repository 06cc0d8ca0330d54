"""The lookup `environment`: what a platform needs, fetched once, or one line that names what is wrong."""

from __future__ import annotations

import base64
import functools
import hashlib
import http.server
import io
import multiprocessing
import os
import re
import shutil
import socket
import tarfile
import threading
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible.errors import AnsibleError
from ansible.plugins.loader import lookup_loader
from ansible_collections.paddock.fleet.plugins.plugin_utils import environment as builder

MANY = "cp313-cp313-manylinux_2_{}_x86_64"


def facts(debian: str = "13", minor: int = 13, architecture: str = "x86_64") -> dict[str, Any]:
    """Facts of a host."""
    version = {"major": 3, "minor": minor, "micro": 5}
    return {
        "python": {"version": version},
        "distribution_major_version": debian,
        "architecture": architecture,
    }


def record_hash(content: str) -> str:
    """The hash of a file as a wheel's RECORD has it."""
    return base64.urlsafe_b64encode(hashlib.sha256(content.encode()).digest()).rstrip(b"=").decode()


class Index:
    """A package index in a folder, and an app whose lock names what is in it."""

    def __init__(self, folder: Path) -> None:
        """Make both."""
        self.files = folder / "simple"
        self.app = folder / "shop"
        self.app.mkdir()
        self.lock = self.app / "requirements.txt"
        self.lock.write_text("")
        self.url = f"file://{self.files}"
        self.cache = folder / ".cache"

    def wheel(
        self,
        name: str,
        tag: str = "py3-none-any",
        metadata: str = "",
        where: Path | None = None,
        more: dict[str, str] | None = None,
    ) -> str:
        """Add a wheel of version 1.0; returns its hash."""
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as wheel:
            text = f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n{metadata}"
            files = {
                f"{name}.py": f"name = {name!r}\n# {tag}\n",
                f"{name}-1.0.dist-info/METADATA": text,
                f"{name}-1.0.dist-info/WHEEL": f"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: {tag}\n",
                **(more or {}),
            }
            for path, content in files.items():
                wheel.writestr(zipfile.ZipInfo(path), content)
            lines = [
                f"{path},sha256={record_hash(content)},{len(content)}\n" for path, content in files.items()
            ]
            lines.append(f"{name}-1.0.dist-info/RECORD,,\n")
            wheel.writestr(zipfile.ZipInfo(f"{name}-1.0.dist-info/RECORD"), "".join(lines))
        folder = where or self.files / name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{name}-1.0-{tag}.whl").write_bytes(buffer.getvalue())
        self.link(name)
        return hashlib.sha256(buffer.getvalue()).hexdigest()

    def link(self, name: str) -> None:
        """Write the index's page of a package."""
        folder = self.files / name
        folder.mkdir(parents=True, exist_ok=True)
        names = sorted(path.name for path in folder.iterdir() if path.name != "index.html")
        (folder / "index.html").write_text("".join(f'<a href="{name}">{name}</a>\n' for name in names))

    def pin(self, name: str, *hashes: str, marker: str = "") -> None:
        """Add a package to the lock."""
        with self.lock.open("a") as lock:
            lock.write(f"{name}==1.0{marker}" + "".join(f" \\\n    --hash=sha256:{one}" for one in hashes))
            lock.write("\n    # via somebody\n")

    def add(self, name: str, tag: str = "py3-none-any", metadata: str = "", marker: str = "") -> str:
        """Add a package to the index and to the lock; returns its hash."""
        digest = self.wheel(name, tag, metadata)
        self.pin(name, digest, marker=marker)
        return digest

    def get(self, archive: bool = True, **host: Any) -> dict[str, Any]:
        """Call the lookup as Ansible does."""
        lookup = lookup_loader.get("paddock.fleet.environment")
        options = {"facts": facts(**host), "index_url": self.url, "archive": archive}
        return lookup.run([str(self.lock)], {}, **options)[0]

    def refused(self, **host: Any) -> str:
        """Call the lookup, and return what it says is wrong."""
        with pytest.raises(AnsibleError) as caught:
            self.get(**host)
        assert not list(self.cache.glob("environments/*"))
        assert str(self.lock) in str(caught.value)
        return str(caught.value)


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Index:
    """Return an empty index; keep uv to it, and the cache out of the repository."""
    for name in [name for name in os.environ if name.startswith("UV_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("UV_NO_CONFIG", "true")
    monkeypatch.chdir(tmp_path)
    return Index(tmp_path)


def unpacked(found: dict[str, Any]) -> dict[str, bytes]:
    """What an archive holds."""
    with tarfile.open(found["archive"]) as packed:
        return {name: packed.extractfile(name).read() for name in packed.getnames()}  # type: ignore[union-attr]


def modules(found: dict[str, Any]) -> set[str]:
    """Names of the modules in an archive."""
    return {Path(name).stem for name in unpacked(found) if name.endswith(".py")}


def test_archive(index: Index) -> None:
    """It holds the files of the wheels, at their places in an environment of the host's Python."""
    scripts = {
        "pure-1.0.dist-info/entry_points.txt": "[console_scripts]\npure = pure:main\n",
        "pure-1.0.data/data/share/man/man1/pure.1": "manual",
        "pure-1.0.data/scripts/pure-shell": "#!/bin/sh\n",
    }
    index.pin("pure", index.wheel("pure", more=scripts))
    fast, other = index.wheel("fast", MANY.format(28)), index.wheel("fast", MANY.format(17))
    index.pin("fast", other, fast)
    found = index.get()
    files = unpacked(found)
    site = "lib/python3.13/site-packages"
    assert files[f"{site}/fast.py"] == f"name = 'fast'\n# {MANY.format(28)}\n".encode()
    assert files[f"{site}/pure.py"].startswith(b"name = 'pure'")
    assert files["share/man/man1/pure.1"] == b"manual"
    assert files["bin/pure-shell"] == b"#!/bin/sh\n"
    assert b"import main" in files["bin/pure"]
    # The host makes what else is in bin/, and pyvenv.cfg.
    assert {name.split("/")[0] for name in files} == {"bin", "lib", "share"}
    assert {name for name in files if name.startswith("bin/")} == {"bin/pure", "bin/pure-shell"}
    with tarfile.open(found["archive"]) as archive:
        modes = {member.name: member.mode for member in archive}
        assert {(member.mtime, member.uid, member.gid) for member in archive} == {(0, 0, 0)}
    assert modes["bin/pure"] == 0o755
    assert modes[f"{site}/pure.py"] == 0o644
    assert found["sha256"] == hashlib.sha256(Path(found["archive"]).read_bytes()).hexdigest()
    assert found["digest"].startswith(found["id"])


def test_same_bytes(index: Index, tmp_path: Path) -> None:
    """An own wheel and one of the index, at other times and in another checkout: no byte differs."""
    index.add("one", metadata="Requires-Dist: own\n")
    index.pin("own", index.wheel("own", where=index.app / "wheels"))
    first = Path(index.get()["archive"]).read_bytes()
    shutil.rmtree(index.cache)
    os.utime(index.app / "wheels" / "own-1.0-py3-none-any.whl", (1, 1))
    shutil.copytree(index.app, tmp_path / "other" / "shop")
    index.lock = tmp_path / "other" / "shop" / "requirements.txt"
    assert Path(index.get()["archive"]).read_bytes() == first


def test_id_without_archive(index: Index) -> None:
    """The id needs no index, and it depends on what the host installs only."""
    index.add("one")
    index.add("two", marker=" ; sys_platform == 'win32'")
    index.url = "http://127.0.0.1:1/simple"
    first = index.get(archive=False)
    assert first["archive"] is None
    index.lock.write_text("# another comment\n" + index.lock.read_text().replace("win32", "win64"))
    assert index.get(archive=False) == first
    others = [index.get(archive=False, **host) for host in ({"debian": "12"}, {"minor": 12})]
    index.add("three")
    others.append(index.get(archive=False))
    assert len({entry["id"] for entry in (first, *others)}) == 4


def test_no_network_when_all_is_there(index: Index, asked: list[str]) -> None:
    """Neither for the same lock nor for another one with the same packages; the bytes are the same."""
    index.add("one")
    index.add("two")
    first = index.get()
    content = Path(first["archive"]).read_bytes()
    asked.clear()
    assert index.get() == first
    index.lock.write_text("# another comment\n" + index.lock.read_text())
    assert index.get() == first
    Path(first["archive"]).unlink()
    assert Path(index.get()["archive"]).read_bytes() == content
    kept = index.lock.read_text().partition("two")[0]
    index.lock.write_text(kept)
    assert index.get()["id"] != first["id"]
    # Another login does not make it another index.
    index.url = index.url.replace("://", "://user:new@")
    assert modules(index.get()) == {"one"}
    assert asked == []


def test_killed_run(index: Index) -> None:
    """What a killed run left is thrown away."""
    index.add("one")
    left = index.cache / "uv" / ".build" / "venv" / "lib"
    left.mkdir(parents=True)
    (left / "half").write_text("half")
    found = index.get()
    assert modules(found) == {"one"}
    assert not left.parents[1].exists()
    assert os.listdir(index.cache / "environments") == [Path(found["archive"]).name]


@pytest.mark.every(2)
@pytest.mark.parametrize(
    ("tag", "hosts"),
    [
        ("py3-none-any", {"12", "13", "arm"}),
        ("cp313-cp313-manylinux_2_40_x86_64", {"13"}),
        ("cp311-cp311-manylinux_2_36_x86_64", {"12"}),
        ("cp311-cp311-manylinux_2_37_x86_64", set()),
        ("cp38-abi3-manylinux1_x86_64", {"12", "13"}),
        ("cp38-abi3-manylinux2010_x86_64.manylinux_2_12_x86_64", {"12", "13"}),
        ("py3-none-manylinux2014_aarch64", {"arm"}),
        ("cp313-cp313-musllinux_1_2_x86_64", set()),
        ("cp313-cp313-win_amd64", set()),
        ("cp313-cp313t-manylinux_2_28_x86_64", set()),
    ],
)
def test_platforms(index: Index, tag: str, hosts: set[str]) -> None:
    """A wheel is for the platforms that its tag names, whatever the control node is."""
    index.add("one", tag)
    asked = {
        "12": {"debian": "12", "minor": 11},
        "13": {},
        "arm": {"architecture": "aarch64"},
    }
    for name, host in asked.items():
        shutil.rmtree(index.cache, ignore_errors=True)
        if name in hosts:
            assert modules(index.get(**host)) == {"one"}
        else:
            message = index.refused(**host)
            assert f"{index.lock}:1: one==1.0 has no wheel for Debian" in message
            assert host.get("architecture", "x86_64") in message
            assert "\n" not in message


def test_markers_are_those_of_the_host(index: Index) -> None:
    """Not those of the control node."""
    for name, marker in {
        "here": "sys_platform == 'linux' and platform_machine == 'x86_64'",
        "old": "python_full_version < '3.12'",
        "windows": "sys_platform == 'win32'",
    }.items():
        index.add(name, marker=f" ; {marker}")
    assert modules(index.get()) == {"here"}
    assert modules(index.get(debian="12", minor=11)) == {"here", "old"}
    assert modules(index.get(architecture="aarch64")) == set()


def test_source_only(index: Index) -> None:
    """Nothing is ever built."""
    index.files.mkdir()
    (index.files / "one").mkdir()
    (index.files / "one" / "one-1.0.tar.gz").write_bytes(b"source")
    index.link("one")
    index.pin("one", hashlib.sha256(b"source").hexdigest())
    assert "one==1.0 has no wheel for Debian 13, Python 3.13.5, x86_64" in index.refused()


def test_own_wheels(index: Index) -> None:
    """A folder next to the lock is as good as an index, if the lock names the hash."""
    index.files.mkdir()
    digest = index.wheel("own", where=index.app / "wheels")
    shutil.rmtree(index.files / "own")
    index.pin("own", digest)
    assert modules(index.get()) == {"own"}
    shutil.rmtree(index.cache)
    index.lock.write_text("")
    index.pin("own", "0" * 64)
    assert f"{index.lock}:1: own==1.0 has " in index.refused()


def test_wrong_hash(index: Index) -> None:
    """The package is named."""
    index.add("right")
    index.wheel("wrong")
    index.pin("wrong", "0" * 64)
    message = index.refused()
    assert (
        f"{index.lock}:4: wrong==1.0 has another hash on the index; allowed: what the lock names" in message
    )
    assert "right" not in message


@pytest.mark.every(2)
@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ("Requires-Dist: two>=2\n", "two>=2"),
        ("Requires-Dist: three\n", "three is needed, but the lock lacks it; allowed: a whole lock"),
        ("Requires-Dist: four\n", "four is needed, but the lock lacks it; allowed: a whole lock"),
        ("Requires-Dist: two[fast]\n", "four is needed, but the lock lacks it"),
        ("Requires-Python: >=3.14\n", "one==1.0 requires Python >=3.14"),
        ("Requires-Python: <3.13.5\n", "one==1.0 is for Python <3.13.5; allowed: a version for Debian 13"),
        ("Requires-Dist: three; extra == 'x'\nRequires-Dist: three; os_name == 'nt'\n", ""),
        ("Requires-Dist: Two (>=1)\nRequires-Python: >=3.9\n", ""),
    ],
)
def test_conflict(index: Index, metadata: str, message: str) -> None:
    """Packages that do not fit to each other, or to Python, are named."""
    index.add("one", metadata=metadata)
    index.add("two", metadata="Provides-Extra: fast\nRequires-Dist: four; extra == 'fast'\n")
    index.wheel("four")  # which is on the index; `three` is not
    if message:
        said = index.refused()
        assert message in said
        assert "\n" not in said
    else:
        assert modules(index.get()) == {"one", "two"}


def test_own_wheel_for_another_python(index: Index) -> None:
    """A wheel that no index has is looked at, too."""
    index.files.mkdir()
    index.pin("own", index.wheel("own", metadata="Requires-Python: <3.13.5\n", where=index.app / "wheels"))
    shutil.rmtree(index.files / "own")
    assert ":1: own==1.0 is for Python <3.13.5; allowed: a version for Debian 13" in index.refused()


def test_unreachable(index: Index) -> None:
    """The index is named, without the password in its address."""
    index.pin("one", "0" * 64)
    index.url = "http://user:secret@127.0.0.1:1/simple"
    message = index.refused()
    assert "http://***@127.0.0.1:1/simple does not answer" in message
    assert "one==1.0" in message
    assert "secret" not in message


def test_tarpit(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    """An index that takes connections and sends nothing costs a run its patience only once."""
    monkeypatch.setattr(builder, "QUIET_SECONDS", 2)
    with socket.create_server(("127.0.0.1", 0)) as server:
        index.url = f"http://127.0.0.1:{server.getsockname()[1]}/simple"
        index.pin("one", "0" * 64)
        start = time.monotonic()
        assert "does not answer (operation timed out)" in index.refused()
        first = time.monotonic() - start
        index.refused(debian="12", minor=11)
        second = time.monotonic() - start - first
    assert 2 <= first < 15
    assert second < 2
    # Another index is asked.
    index.url = f"file://{index.files}"
    index.lock.write_text("")
    index.add("two")
    assert modules(index.get()) == {"two"}


class Counting(http.server.SimpleHTTPRequestHandler):
    """A server that notes what it is asked for."""

    asked: list[str]

    def do_GET(self) -> None:
        """Answer and note."""
        self.asked.append(self.path)
        super().do_GET()

    def log_message(self, format: str, *args: object) -> None:
        """Log nothing."""


@pytest.fixture
def asked(index: Index) -> Iterator[list[str]]:
    """Serve the index over HTTP; returns what it was asked for."""
    handler = type("Handler", (Counting,), {"asked": []})
    serve = functools.partial(handler, directory=str(index.files))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), serve) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        index.url = f"http://127.0.0.1:{server.server_port}"
        yield handler.asked
        server.shutdown()


def test_many_workers(index: Index, asked: list[str]) -> None:
    """Workers that ask at once get one archive, fetched once."""
    index.add("one")
    index.add("two")
    with multiprocessing.get_context("fork").Pool(6) as pool:
        jobs = [pool.apply_async(index.get) for _ in range(12)]
        found = {tuple(job.get(60).items()) for job in jobs}
    assert len(found) == 1
    wheels = sorted({path for path in asked if path.endswith(".whl")})
    assert wheels == [f"/{name}/{name}-1.0-py3-none-any.whl" for name in ("one", "two")]
    before = len(asked)
    index.get()
    assert len(asked) == before
    assert len(os.listdir(index.cache / "environments")) == 1
    assert not (index.cache / "uv" / ".build").exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("one>=1", ':1: one is "one>=1"; allowed: name==version with --hash=sha256:...'),
        ("\none==1.0", ':2: one is "one==1.0"; allowed'),
        ("one==1.* --hash=sha256:" + "0" * 64, ':1: one is "one==1.*"; allowed'),
        ("--index-url https://u:s3cret@a.org/", ':1: line is "--index-url https://***@a.org/"; allowed: no'),
        ("-e .", ':1: line is "-e ."; allowed: name==version with --hash=sha256:...; a project of your own'),
        ("one @ https://example.org/one.whl --hash=sha256:" + "0" * 64, "allowed: name==version"),
        (None, " is missing or no text; allowed: a lock"),
    ],
)
def test_bad_lock(index: Index, text: str | None, message: str) -> None:
    """File and line are named."""
    index.lock.unlink()
    if text is not None:
        index.lock.write_text(text)
    assert message in index.refused()


def test_two_versions(index: Index) -> None:
    """A lock has one version of a package for a platform."""
    index.add("one")
    index.lock.write_text(index.lock.read_text() + f"one==1.1 --hash=sha256:{'0' * 64}\n")
    assert ":4: one==1.1 conflicts with one==1.0; allowed: one version for Debian 13" in index.refused()


def test_bad_facts(index: Index) -> None:
    """A platform that was not tried is refused."""
    for host, message in (
        ({"architecture": "riscv64"}, "the architecture is riscv64; allowed: x86_64, aarch64"),
        ({"debian": "11"}, "Debian's version is 11; allowed: 12, 13"),
    ):
        with pytest.raises(AnsibleError, match=re.escape(message)):
            index.get(**host)
    with pytest.raises(AnsibleError, match="the facts have no 'python'"):
        lookup_loader.get("paddock.fleet.environment").run([str(index.lock)], {}, facts={})


def test_no_uv(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is missing is named."""
    index.add("one")
    monkeypatch.setattr(builder.sys, "executable", str(index.app / "python"))
    monkeypatch.setenv("PATH", str(index.app))
    with pytest.raises(AnsibleError, match="uv is missing on the control node; allowed: pip install uv"):
        index.get()


def test_forged_archive(index: Index, capfd: pytest.CaptureFixture[str]) -> None:
    """An archive in the cache is not believed by its name: it is packed again from the packages."""
    index.add("one")
    index.add("two")
    found = index.get()
    archive = Path(found["archive"])
    honest = archive.read_bytes()
    site = "lib/python3.13/site-packages"
    for forge in (
        {f"{site}/evil.py": b"evil"},
        {name: content.replace(b"one", b"eno") for name, content in unpacked(found).items()},
        {**unpacked(found), f"{site}/more.pth": b"import os\n"},
    ):
        with tarfile.open(archive, "w:gz") as packed:
            for name, content in forge.items():
                info = tarfile.TarInfo(name)
                info.size = len(content)
                packed.addfile(info, io.BytesIO(content))
        assert index.get() == found
        assert archive.read_bytes() == honest
    archive.write_bytes(honest + b"more")
    assert index.get() == found
    assert archive.read_bytes() == honest
    assert f"{archive} does not hold what its lock does." in " ".join("".join(capfd.readouterr()).split())


@pytest.mark.parametrize("damage", ["changed", "gone"])
def test_forged_package(index: Index, damage: str, capfd: pytest.CaptureFixture[str]) -> None:
    """A file in the cache that is not what its wheel had is fetched again; the package is named."""
    index.add("one")
    index.add("two")

    def spoil() -> None:
        [cached] = (index.cache / "uv").glob("archive-*/*/one.py")
        cached.unlink()
        if damage == "changed":
            cached.write_text("evil = 1\n")

    found = index.get()
    honest = Path(found["archive"]).read_bytes()
    spoil()
    assert index.get() == found
    assert Path(found["archive"]).read_bytes() == honest
    said = " ".join("".join(capfd.readouterr()).split())
    assert "does not hold one as fetched" in said
    # Without an index: refused.
    spoil()
    shutil.rmtree(index.files)
    with pytest.raises(AnsibleError, match=r"one"):
        index.get()


def test_cache_is_private(index: Index) -> None:
    """Only its owner can change what hosts get."""
    index.add("one")
    for name in ("uv", "environments"):
        (index.cache / name).mkdir(parents=True)
        (index.cache / name).chmod(0o777)
    archive = Path(index.get()["archive"])
    for path in (archive.parent, index.cache / "uv"):
        assert path.stat().st_mode & 0o777 == 0o700
    assert archive.stat().st_mode & 0o777 == 0o600


@pytest.mark.every(3)
@pytest.mark.parametrize(
    ("member", "message"),
    [
        ("one-1.0.data/data/pyvenv.cfg", "replaces pyvenv.cfg; allowed: files of the package's own"),
        ("one-1.0.data/./data/./pyvenv.cfg", "replaces pyvenv.cfg"),
        ("one-1.0.data/data/bin/pyvenv.cfg", "replaces bin/pyvenv.cfg"),
        ("one-1.0.data/data/bin/python3.13", "one==1.0"),
        ("one-1.0.data/scripts/python", "one==1.0"),
        ("one-1.0.data/scripts/activate", "replaces bin/activate"),
        ("one-1.0.data/data/../../etc/cron.d/one", ""),
        ("../../../../etc/cron.d/one", ""),
        ("/etc/cron.d/one", ""),
        ("one\\..\\two", ""),
        ("link", ""),
        ("one/pyvenv.cfg", ""),
        ("one-1.0.data/data/share/man/man1/one.1", ""),
        ("one-1.0.data/scripts/python-one", ""),
    ],
)
def test_stray_files(index: Index, member: str, message: str) -> None:
    """A wheel keeps to the environment and leaves the files of the environment itself."""
    index.wheel("one")
    wheel = index.files / "one" / "one-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "a") as packed:
        info = zipfile.ZipInfo(member)
        info.external_attr = (0o120777 if member == "link" else 0o100644) << 16
        packed.writestr(info, "/etc/passwd")
    index.pin("one", hashlib.sha256(wheel.read_bytes()).hexdigest())
    if message:
        said = index.refused()
        assert f"{index.lock}:1: " in said
        assert message in said
    else:
        # uv leaves out what is outside, and makes a file of a link.
        with tarfile.open(index.get()["archive"]) as archive:
            for entry in archive:
                assert entry.isreg()
                assert ".." not in Path(entry.name).parts
                assert re.match(r"bin/python-one$|share/man/|lib/python3\.13/site-packages/", entry.name)
    assert not Path("/etc/cron.d/one").exists()


def test_no_wheel(index: Index) -> None:
    """What only has the hash and the name of a wheel is refused in one line."""
    for content in (b"no zip", b"PK\5\6" + bytes(18)):
        index.lock.write_text("")
        index.wheel("one")
        (index.files / "one" / "one-1.0-py3-none-any.whl").write_bytes(content)
        index.pin("one", hashlib.sha256(content).hexdigest())
        said = index.refused()
        assert f"{index.lock}:1: " in said
        assert "\n" not in said


@pytest.mark.every(3)
@pytest.mark.parametrize("status", [200, 401, 403, 404, 500, 0])
def test_password_is_nowhere(index: Index, status: int, capfd: pytest.CaptureFixture[str]) -> None:
    """The index's password is in no file of the cache and no message, whatever the index answers."""
    index.pin("one", "0" * 64)
    index.wheel("one")

    class Handler(http.server.SimpleHTTPRequestHandler):
        def do_GET(self) -> None:
            if status == 200 or (status == 403 and not self.path.endswith(".whl")):
                super().do_GET()
            elif status:
                self.send_error(status, f"no {self.path}")

        def log_message(self, format: str, *args: object) -> None:
            """Log nothing."""

    serve = functools.partial(Handler, directory=str(index.files))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), serve) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        index.url = f"http://us%40er:s3%2Fcret@127.0.0.1:{server.server_port}/"
        message = index.refused()
        server.shutdown()
    files = [path for path in index.cache.rglob("*") if path.is_file()]
    said = message.encode() + "".join(capfd.readouterr()).encode() + b"".join(map(Path.read_bytes, files))
    assert not re.search(b"s3/cret|s3%2Fcret|us@er|us%40er", said)
    assert (index.cache / "uv").stat().st_mode & 0o077 == 0


def test_token_in_the_query(index: Index) -> None:
    """Uv would write it into its cache."""
    index.add("one")
    index.url = "https://example.org/simple?token=s3cret"
    with pytest.raises(
        AnsibleError, match=r"https://example.org/simple\?\*\*\*; allowed: .*://user:pass"
    ) as caught:
        index.get()
    assert "s3cret" not in str(caught.value)
