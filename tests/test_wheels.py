"""The lookup `wheels`: what a platform needs, fetched once, or one line that says what is wrong."""

from __future__ import annotations

import functools
import hashlib
import http.server
import io
import multiprocessing
import os
import re
import shutil
import socket
import sys
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

ROOT = Path(__file__).parents[1]
lookup_loader.add_directory(str(ROOT / "plugins" / "lookup"))
MODULE = sys.modules[type(lookup_loader.get("wheels")).__module__]

MANY = "cp313-cp313-manylinux_2_{}_x86_64"


def facts(debian: str = "13", minor: int = 13, architecture: str = "x86_64") -> dict[str, Any]:
    """Facts of a host."""
    version = {"major": 3, "minor": minor, "micro": 5}
    return {
        "python": {"version": version},
        "distribution_major_version": debian,
        "architecture": architecture,
    }


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

    def wheel(
        self, name: str, tag: str = "py3-none-any", metadata: str = "", where: Path | None = None
    ) -> str:
        """Add a wheel of version 1.0; returns its hash."""
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as wheel:
            text = f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n{metadata}"
            wheel.writestr(f"{name}-1.0.dist-info/METADATA", text)
            wheel.writestr(f"{name}-1.0.dist-info/WHEEL", f"Wheel-Version: 1.0\nTag: {tag}\n")
            wheel.writestr(f"{name}-1.0.dist-info/RECORD", "")
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

    def get(self, **host: Any) -> dict[str, Any]:
        """Call the lookup as Ansible does."""
        return lookup_loader.get("wheels").run([str(self.lock)], {}, facts=facts(**host), index_url=self.url)[
            0
        ]

    def refused(self, **host: Any) -> str:
        """Call the lookup, and return what it says is wrong."""
        with pytest.raises(AnsibleError) as caught:
            self.get(**host)
        assert not list(MODULE.CACHE.glob("*.tar"))
        assert str(self.lock) in str(caught.value)
        return str(caught.value)


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Index:
    """Return an empty index; keep pip to it, and the cache out of the repository."""
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setattr(MODULE, "CACHE", tmp_path / "cache")
    return Index(tmp_path)


def members(found: dict[str, Any]) -> list[str]:
    """Names of what an archive holds."""
    with tarfile.open(found["archive"]) as archive:
        return archive.getnames()


def listed(found: dict[str, Any]) -> str:
    """The archive's own list of hashes."""
    with tarfile.open(found["archive"]) as archive:
        return archive.extractfile("requirements.txt").read().decode()  # type: ignore[union-attr]


def test_archive(index: Index) -> None:
    """It holds the wheels, and a list of the very hashes of these."""
    pure = index.add("pure")
    fast, other = index.wheel("fast", MANY.format(28)), index.wheel("fast", MANY.format(17))
    index.pin("fast", other, fast)
    found = index.get()
    names = [f"fast-1.0-{MANY.format(28)}.whl", "pure-1.0-py3-none-any.whl"]
    assert members(found) == ["requirements.txt", *names]
    assert listed(found) == f"fast==1.0 --hash=sha256:{fast}\npure==1.0 --hash=sha256:{pure}\n"
    assert found["id"] == hashlib.sha256(listed(found).encode()).hexdigest()[:12]
    assert [Path(path).name for path in found["wheels"]] == names
    assert all(Path(path).is_file() for path in found["wheels"])


def test_no_network_when_all_is_there(index: Index) -> None:
    """Neither for the same lock nor for another one with the same packages; the bytes are the same."""
    index.add("one")
    index.add("two")
    first = index.get()
    content = Path(first["archive"]).read_bytes()
    shutil.rmtree(index.files)
    index.url = "http://127.0.0.1:1/simple"
    assert index.get() == first
    index.lock.write_text("# another comment\n" + index.lock.read_text())
    assert index.get() == first
    Path(first["archive"]).unlink()
    assert Path(index.get()["archive"]).read_bytes() == content
    kept = index.lock.read_text().partition("two")[0]
    index.lock.write_text(kept)
    assert index.get()["id"] != first["id"]


def test_broken_cache(index: Index) -> None:
    """What is not what the lock names is fetched again; what a killed run left is thrown away."""
    index.add("one")
    MODULE.CACHE.mkdir()
    (MODULE.CACHE / "one-1.0-py3-none-any.whl").write_text("truncated")
    (MODULE.CACHE / ".fetch" / "wheels").mkdir(parents=True)
    (MODULE.CACHE / ".fetch" / "wheels" / "one-1.0-py3-none-any.whl").write_text("half")
    (MODULE.CACHE / ".partial.tar").write_text("half")
    found = index.get()
    assert {path.name for path in MODULE.CACHE.iterdir()} == {
        *(".lock", "one-1.0-py3-none-any.whl", Path(found["archive"]).name)
    }


@pytest.mark.parametrize(
    ("tag", "hosts"),
    [
        ("py3-none-any", {"12", "13", "arm"}),
        ("cp313-cp313-manylinux_2_41_x86_64", {"13"}),
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
    """A wheel is for the platforms that its tag says; what is found here and what pip fetches agree."""
    index.add("one", tag)
    asked = {
        "12": {"debian": "12", "minor": 11},
        "13": {},
        "arm": {"architecture": "aarch64"},
    }
    for cached in (False, True):
        for name, host in asked.items():
            shutil.rmtree(MODULE.CACHE, ignore_errors=True)
            if cached:
                shutil.copytree(index.files / "one", MODULE.CACHE)
            if name in hosts:
                assert index.get(**host)["wheels"] == [str(MODULE.CACHE / f"one-1.0-{tag}.whl")]
            else:
                message = index.refused(**host)
                assert "one==1.0 has no wheel for Debian" in message
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
    assert members(index.get()) == ["requirements.txt", "here-1.0-py3-none-any.whl"]
    assert len(members(index.get(debian="12", minor=11))) == 3
    assert members(index.get(architecture="aarch64")) == ["requirements.txt"]


def test_source_only(index: Index) -> None:
    """Nothing is ever built."""
    index.files.mkdir()
    (index.files / "one").mkdir()
    (index.files / "one" / "one-1.0.tar.gz").write_bytes(b"source")
    index.link("one")
    index.pin("one", hashlib.sha256(b"source").hexdigest())
    assert "one==1.0 has no wheel for Debian 13, Python 3.13.5, x86_64" in index.refused()


def test_own_wheels(index: Index) -> None:
    """A folder beside the lock is as good as an index, if the lock names the hash."""
    digest = index.wheel("own", where=index.app / "wheels")
    index.pin("own", digest)
    assert listed(index.get()) == f"own==1.0 --hash=sha256:{digest}\n"
    shutil.rmtree(MODULE.CACHE)
    index.lock.write_text("")
    index.pin("own", "0" * 64)
    assert "own==1.0 has no wheel" in index.refused()


def test_wrong_hash(index: Index) -> None:
    """The package is named."""
    index.add("right")
    index.wheel("wrong")
    index.pin("wrong", "0" * 64)
    message = index.refused()
    assert "wrong==1.0 has another hash on the index" in message
    assert "right" not in message


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ("Requires-Dist: two>=2\n", "one==1.0 needs two>=2, not two==1.0"),
        ("Requires-Dist: three\n", "one==1.0 needs three, which the lock lacks"),
        ("Requires-Dist: two[fast]\n", "two==1.0 needs four, which the lock lacks"),
        ("Requires-Python: >=3.14\n", "'one' requires a different Python: 3.13.5 not in '>=3.14'"),
        ("Requires-Dist: three; extra == 'x'\nRequires-Dist: three; os_name == 'nt'\n", ""),
        ("Requires-Dist: Two (>=1)\nRequires-Python: >=3.9\n", ""),
    ],
)
def test_conflict(index: Index, metadata: str, message: str) -> None:
    """Packages that do not fit to each other, or to Python, are named."""
    index.add("one", metadata=metadata)
    index.add("two", metadata="Provides-Extra: fast\nRequires-Dist: four; extra == 'fast'\n")
    if message:
        assert message in index.refused()
    else:
        assert len(members(index.get())) == 3


def test_own_wheel_for_another_python(index: Index) -> None:
    """What pip never saw is looked at, too."""
    index.pin("own", index.wheel("own", metadata="Requires-Python: <3.13.5\n", where=index.app / "wheels"))
    assert "own==1.0 is for Python <3.13.5; allowed: a version for Debian 13" in index.refused()


def test_unreachable(index: Index) -> None:
    """The index is named, without the password in its address."""
    index.pin("one", "0" * 64)
    index.url = "http://user:secret@127.0.0.1:1/simple"
    message = index.refused()
    assert "http://127.0.0.1:1/simple does not answer" in message
    assert "one==1.0" in message
    assert "secret" not in message


def test_tarpit(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    """An index that takes connections and says nothing costs a run its patience only once."""
    monkeypatch.setattr(MODULE, "QUIET_SECONDS", 2)
    with socket.create_server(("127.0.0.1", 0)) as server:
        index.url = f"http://127.0.0.1:{server.getsockname()[1]}/simple"
        index.pin("one", "0" * 64)
        start = time.monotonic()
        assert "does not answer (nothing came for 2 s)" in index.refused()
        first = time.monotonic() - start
        index.refused(debian="12", minor=11)
        second = time.monotonic() - start - first
    assert 2 <= first < 10
    assert second < 1
    # Another index is asked.
    index.url = f"file://{index.files}"
    index.lock.write_text("")
    index.add("two")
    assert len(members(index.get())) == 2


class Counting(http.server.SimpleHTTPRequestHandler):
    """A server that notes what it is asked for."""

    asked: list[str]

    def do_GET(self) -> None:
        """Answer and note."""
        self.asked.append(self.path)
        super().do_GET()

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


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
        ids = {job.get(60)["id"] for job in jobs}
    assert len(ids) == 1
    assert sorted(path for path in asked if path.endswith(".whl")) == [
        f"/{name}/{name}-1.0-py3-none-any.whl" for name in ("one", "two")
    ]
    assert not [path for path in MODULE.CACHE.iterdir() if path.name.startswith((".partial", ".fetch"))]


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


def test_bad_facts(index: Index) -> None:
    """A platform that nobody has tried is refused."""
    for host, message in (
        ({"architecture": "riscv64"}, "the architecture is riscv64; allowed: x86_64, aarch64"),
        ({"debian": "11"}, "Debian's version is 11; allowed: 12, 13"),
    ):
        with pytest.raises(AnsibleError, match=re.escape(message)):
            index.get(**host)
    with pytest.raises(AnsibleError, match="the facts have no 'python'"):
        lookup_loader.get("wheels").run([str(index.lock)], {}, facts={})
