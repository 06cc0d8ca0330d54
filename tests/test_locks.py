"""What an app's lock and its own wheels may be, and what is said of the others."""

from __future__ import annotations

import hashlib
import io
import os
import re
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
from ansible_collections.paddock.fleet.plugins.plugin_utils.fleet_rules.locks import make_command
from ansible_collections.paddock.fleet.plugins.plugin_utils.fleet_rules.own_wheels import check_own_wheels
from ansible_collections.paddock.fleet.plugins.plugin_utils.fleet_rules.sources import (
    check_entrypoint,
    check_lock,
    read_pins,
)

ROOT = Path(__file__).parents[1]
HASH = "--hash=sha256:" + "0" * 64
GOOD = f"gunicorn==27.0.1 {HASH}\n"
OWN = "a project of your own becomes a wheel (uv build --wheel -o wheels)"
INDEX = "no index here; fleet_index_url names it"
ONE_FILE = "all packages in this one file, as uv pip compile writes them"


@pytest.fixture
def app(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder of an app with a good lock."""
    monkeypatch.chdir(tmp_path)
    folder = Path("app_src/shop")
    folder.mkdir(parents=True)
    (folder / "requirements.txt").write_text(GOOD)
    return folder


def said(folder: Path) -> list[str]:
    """Return what is said of the lock and the wheels."""
    lock = folder / "requirements.txt"
    found = [*check_lock(lock, "flask"), *check_own_wheels(folder, read_pins(lock))]
    return [f"{problem.where}: {problem.text}" for problem in found]


@pytest.mark.parametrize(
    ("line", "shown", "allowed"),
    [
        *((line, line, OWN) for line in ("-e .", "--editable ./libs/a", ".", "./libs/a", "../a", "libs/a")),
        *((line, line, OWN) for line in ("-e git+https://a.org/x.git", "/srv/x", "file:///srv/x", "./a[x]")),
        ("a @ https://u:s3cret@a.org/a.whl", "a @ https://***@a.org/a.whl", OWN),
        ("--index-url https://u:s3cret@a.org/simple", "--index-url https://***@a.org/simple", INDEX),
        ("--extra-index-url=https://s3cret@a.org", "--extra-index-url=https://***@a.org", INDEX),
        *((line, line, INDEX) for line in ("-i https://a.org", "-f ./wheels", "--find-links wheels")),
        *((line, line, INDEX) for line in ("--no-index", "--trusted-host a.org")),
        *((line, line, ONE_FILE) for line in ("-r other.txt", "-rother.txt", "-c limits.txt")),
        *((line, line, ONE_FILE) for line in ("--requirement other.txt", "--constraint=limits.txt")),
        ("--no-binary :all:", "--no-binary :all:", "packages with wheels: nothing is built from source"),
        ("--pre", "--pre", "no options of pip"),
    ],
)
def test_line_that_would_be_dropped(app: Path, line: str, shown: str, allowed: str) -> None:
    """Whatever pip would do and Paddock does not is refused, with the line and no password."""
    (app / "requirements.txt").write_text(f"# made by hand\n{line} \\\n  # why\n{GOOD}")
    [text] = said(app)
    assert f'requirements.txt:2: {"a" if line[:2] == "a " else "line"} is "{shown}"; allowed: ' in text
    assert allowed in text
    assert "s3cret" not in text


def test_options_of_a_package(app: Path) -> None:
    """A package has hashes and no other options; a hash of another kind in addition is no harm."""
    (app / "requirements.txt").write_text(f"{GOOD}a==1 {HASH} --global-option=x\nb==1 {HASH} --hash=md5:0\n")
    [text] = said(app)
    assert text == (
        'app_src/shop/requirements.txt:2: a is "--global-option=x"; allowed: no options of pip but --hash'
    )
    (app / "requirements.txt").write_text("gunicorn==27.0.1 --hash=md5:0\n")
    assert "gunicorn is" in said(app)[0]


def test_harmless_options(app: Path) -> None:
    """What tools write and what is so anyway passes."""
    (app / "requirements.txt").write_text(f"--require-hashes\n--only-binary=:all:\n--prefer-binary\n{GOOD}")
    assert said(app) == []


def test_no_lock_at_all(app: Path) -> None:
    """A file that was never locked is one problem, with the command that helps."""
    (app / "requirements.txt").write_text("flask\ngunicorn\n# x\nrequests>=2\n")
    command = "uv pip compile --universal --only-binary :all: --generate-hashes app_src/shop/requirements.in"
    move = "mv app_src/shop/requirements.txt app_src/shop/requirements.in && "
    start = (
        'app_src/shop/requirements.txt:1: flask is "flask"; allowed: name==version with'
        " --hash=sha256:... (also in line 2, 4), as this writes it: "
    )
    assert said(app) == [f"{start}{move}{command} -o app_src/shop/requirements.txt"]
    (app / "requirements.in").write_text("flask\n")
    assert said(app) == [f"{start}{command} -o app_src/shop/requirements.txt"]
    (app / "requirements.txt").unlink()
    assert said(app)[0].endswith(f"as this writes it: {command} -o app_src/shop/requirements.txt")
    (app / "requirements.in").unlink()
    (app / "pyproject.toml").write_text("")
    command = "uv export --no-build --project app_src/shop --no-dev --no-emit-project"
    assert said(app)[0].endswith(f"as this writes it: {command} -o app_src/shop/requirements.txt")


@pytest.mark.parametrize("way", ["lock.sh", "uv pip compile", "uv export"])
def test_locks_are_made_without_builds(app: Path, way: str, tmp_path: Path) -> None:
    """A lock names no package that only has a source archive; setup.py never runs here."""
    ran = tmp_path / "ran"
    with tarfile.open(tmp_path / "evil-1.0.tar.gz", "w:gz") as archive:
        for name, text in {
            "PKG-INFO": "Metadata-Version: 2.1\nName: evil\nVersion: 1.0\n",
            "setup.py": f"open({str(ran)!r}, 'w')\nfrom setuptools import setup\nsetup(name='evil')\n",
        }.items():
            info = tarfile.TarInfo(f"evil-1.0/{name}")
            info.size = len(text)
            archive.addfile(info, io.BytesIO(text.encode()))
    if way == "uv export":
        (app / "pyproject.toml").write_text(
            "[project]\nname = 'shop'\nversion = '1'\nrequires-python = '>=3.11'\ndependencies = ['evil']\n"
        )
    else:
        (app / "requirements.in").write_text("evil\n")
    command = make_command(app / "requirements.txt")
    if way == "lock.sh":
        (tmp_path / "requirements.in").write_text("evil\n")
        command = str(ROOT / "tools" / "lock.sh")
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    found = {"UV_FIND_LINKS": str(tmp_path), "UV_CACHE_DIR": str(tmp_path / "cache"), "PATH": path}
    done = subprocess.run(
        ["sh", "-c", command],
        cwd=tmp_path,
        env=os.environ | found,
        capture_output=True,
        text=True,
        check=False,
    )
    assert re.search(r"evil ha(s|ve) no usable wheels", " ".join(done.stderr.split())), done.stderr
    assert not ran.exists()


# --- Own wheels ----------------------------------------------------------------------------------


def wheel(folder: Path, version: str = "1.0", **files: str) -> str:
    """Build a wheel of the package `Shop.Core`; returns its hash."""
    path = folder / "wheels" / f"shop_core-{version}-py3-none-any.whl"
    path.parent.mkdir(exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in {"shop/__init__.py": "app = 1\n", **files}.items():
            archive.writestr(name, text)
        archive.writestr(f"shop_core-{version}.dist-info/METADATA", f"Name: Shop.Core\nVersion: {version}\n")
        archive.writestr(f"shop_core-{version}.dist-info/RECORD", "")
    return hashlib.sha256(path.read_bytes()).hexdigest()


def pin(folder: Path, *hashes: str, version: str = "1.0") -> None:
    """Write a lock with the wheel in its third line."""
    line = " \\\n    ".join([f"Shop.Core=={version}", *(f"--hash=sha256:{one}" for one in hashes)])
    (folder / "requirements.txt").write_text(f"{GOOD}\n{line}\n")


@pytest.mark.parametrize("place", ["src/shop/__init__.py", "shop/__init__.py"])
def test_good_wheel(app: Path, place: str) -> None:
    """The lock names it, and the code that is there is in it; older versions may be there too."""
    pin(app, wheel(app, **{"shop/a.html": "a"}), "1" * 64)
    wheel(app, "0.9", **{"shop/__init__.py": "old"})
    (app / place).parent.mkdir(parents=True)
    (app / place).write_text("app = 1\n")
    (app / "shop_core-1.0.dist-info").mkdir()
    (app / "shop_core-1.0.dist-info" / "RECORD").write_text("other")
    assert said(app) == []


def test_wheel_that_the_lock_does_not_name(app: Path) -> None:
    """It was built again and its hash was not put into the lock."""
    pin(app, wheel(app))
    digest = wheel(app, **{"shop/new.py": "x"})
    assert said(app) == [
        "app_src/shop/requirements.txt:3: app_src/shop/wheels/shop_core-1.0-py3-none-any.whl has the hash"
        f" sha256:{digest}, which the lock does not name; allowed: --hash=sha256:{digest} in"
        " app_src/shop/requirements.txt:3, or the wheel that the lock names"
    ]


def test_wheel_that_replaces_the_environment(app: Path) -> None:
    """It could choose the interpreter that runs."""
    pin(app, wheel(app, **{"shop_core-1.0.data/data/pyvenv.cfg": "home = /tmp"}))
    assert said(app) == [
        "app_src/shop/requirements.txt:3: app_src/shop/wheels/shop_core-1.0-py3-none-any.whl replaces"
        " pyvenv.cfg; allowed: files of the package's own"
    ]


def test_wheel_of_another_version(app: Path) -> None:
    """The version was raised in one of the two places."""
    pin(app, wheel(app, "1.1"))
    assert said(app) == [
        "app_src/shop/requirements.txt:3: shop-core is 1.0; allowed: a version that app_src/shop/wheels holds"
        " (1.1) and its hash, or no wheel of it there"
    ]


@pytest.mark.parametrize("place", ["src/shop", "shop"])
def test_wheel_that_is_older_than_its_source(app: Path, place: str) -> None:
    """The code was edited and the wheel was not built again."""
    pin(app, wheel(app, **{"shop/page.html": "one"}))
    (app / place).mkdir(parents=True)
    (app / place / "page.html").write_text("two")
    (app / place / "__init__.py").write_text("app = 1\n")
    lock = "app_src/shop/requirements.txt:3"
    assert said(app) == [
        f"{lock}: app_src/shop/wheels/shop_core-1.0-py3-none-any.whl is older than its source"
        f" ({place}/page.html); allowed: a wheel of the code that is there ((cd app_src/shop &&"
        f" uv build --wheel -o wheels)), and its new hash in {lock}"
    ]


def test_broken_wheel(app: Path) -> None:
    """A file that is no wheel, by its name or its content."""
    pin(app, "0" * 64)
    (app / "wheels").mkdir()
    (app / "wheels" / "shop.whl").write_text("x")
    (app / "wheels" / "shop_core-1.0-py3-none-any.whl").write_text("x")
    one, two = said(app)
    assert "app_src/shop/wheels/shop.whl has no name of a wheel; allowed: the name that it was built" in one
    assert "shop_core-1.0-py3-none-any.whl cannot be read (File is not a zip file); allowed: a wheel" in two


def test_wheel_that_nothing_asks_for(app: Path) -> None:
    """It is not installed, so it is no matter."""
    wheel(app)
    assert said(app) == []


def test_entrypoint_of_a_package(app: Path) -> None:
    """B10: a module may come with a package of the lock."""
    (app / "requirements.txt").write_text(f"{GOOD}My.Service==1 {HASH}\n")
    pins = read_pins(app / "requirements.txt")
    for module in ("gunicorn:app", "my_service:app", "my_service.web:create_app()"):
        assert check_entrypoint(app, module, pins), module
    for module in ("flask:app", "service:app", "my:app"):
        assert not check_entrypoint(app, module, pins), module


def test_entrypoint_of_an_own_wheel(app: Path) -> None:
    """Of a wheel that is here, it is known what is in it, whatever it is called."""
    pin(app, wheel(app, **{"shop/wsgi.py": "", "shop_core/__init__.py": ""}))
    pins = read_pins(app / "requirements.txt")
    for module in ("shop:create_app()", "shop.wsgi:app", "shop_core:app"):
        assert check_entrypoint(app, module, pins), module
    for module in ("shop.asgi:app", "shop_core.web:app", "app:app"):
        assert not check_entrypoint(app, module, pins), module
    assert not check_entrypoint(app, "shop:app")
