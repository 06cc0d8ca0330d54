"""An environment for a host, made by uv on the control node from a lock."""

from __future__ import annotations

import base64
import contextlib
import csv
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from email.parser import BytesHeaderParser
from pathlib import Path
from urllib.parse import urlsplit

from ansible.errors import AnsibleError
from ansible.utils.display import Display
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from ..module_utils.release_archive import OF_THE_ENVIRONMENT
from .archives import File, locked
from .fleet_rules.locks import Pin, mask
from .platforms import Platform, explain

QUIET_SECONDS = 15  # an index that sends nothing for so long is given up, after one more attempt
SILENT_SECONDS = 300  # and the same run does not ask it again


class Builder:
    """uv with a cache of its own, which holds all that was fetched once."""

    def __init__(self, cache: Path, index_url: str) -> None:
        """Name a cache and an index.

        Args:
            cache: A folder.
            index_url: Address of the package index; empty is the one that uv uses by itself.

        Raises:
            AnsibleError: The address has a query.
        """
        if urlsplit(index_url).query:  # uv writes it into its cache
            raise AnsibleError(
                f"the package index is {mask(index_url)}; allowed: an address as https://user:password@host/simple"
            )
        self.cache, self.url = cache, index_url
        self.index = mask(index_url) or "uv's own index, usually PyPI,"

    @contextlib.contextmanager
    def environment(self, lock: Path, pins: Sequence[Pin], platform: Platform) -> Iterator[list[File]]:
        """Make the files of an environment in a folder that exists until the end of the block.

        Args:
            lock: The lock. Its folder may have wheels that no index has, in ``wheels``.
            pins: The packages of the lock for the platform.
            platform: The platform.

        Yields:
            The files sorted by path, without those that each environment has.

        Raises:
            AnsibleError: The lock cannot be met on the platform, or the index does not answer.
        """
        with locked(self.cache) as held:
            build = _Build(self, lock, pins, platform, held)
            try:
                build.fetch()
                yield build.tree.files()
            finally:
                shutil.rmtree(build.folder, ignore_errors=True)


class _Tree:
    """An environment on this machine, and what its packages have brought."""

    def __init__(self, venv: Path, lock: Path, pins: Sequence[Pin], platform: Platform) -> None:
        self.venv, self.lock, self.pins, self.platform = venv, lock, pins, platform
        self.bare: dict[str, bytes | str] = {}

    def note_bare(self) -> None:
        """Note what it has without packages."""
        self.bare = {path: _content(self.venv / path) for path in self._paths()}

    def _paths(self) -> list[str]:
        """All files and links below the environment."""
        return sorted(
            os.path.relpath(os.path.join(place, name), self.venv)
            for place, folders, names in os.walk(self.venv)
            for name in (*names, *(one for one in folders if os.path.islink(os.path.join(place, one))))
        )

    def installed(self) -> Iterator[tuple[Pin, Path]]:
        """Packages and the folders of what is known about them."""
        pins = {pin.name: pin for pin in self.pins}
        for info in sorted(self.venv.glob("lib/python*/site-packages/*.dist-info")):
            if pin := pins.get(canonicalize_name(info.name.partition("-")[0])):
                yield pin, info

    def damaged(self) -> list[str]:
        """Packages with files that differ from the list of their wheel."""
        return [
            pin.name
            for pin, info in self.installed()
            if any(
                kind == "sha256" and _sha256(info.parent / path) != digest
                for path, kind, digest in _record(info)
            )
        ]

    def files(self) -> list[File]:
        """Read what the packages have brought.

        Returns:
            The files as they are below an environment of the platform, sorted by path.

        Raises:
            AnsibleError: A package replaces a file of the environment itself.
        """
        found = []
        here = f"/python{sys.version_info.major}.{sys.version_info.minor}/"
        there = f"/python{self.platform.minor}/"
        for path in self._paths():
            source = self.venv / path
            if path in self.bare and _content(source) == self.bare[path]:
                continue
            if path in self.bare or OF_THE_ENVIRONMENT.fullmatch(path):
                raise AnsibleError(
                    f"{self._owner(path)} replaces {path}; allowed: files of the package's own"
                )
            if path == ".lock" or path.endswith(".dist-info/uv_cache.json"):
                continue
            content: bytes | Path = source
            if path.endswith(".dist-info/RECORD"):
                lines = source.read_text().splitlines(keepends=True)
                content = "".join(line for line in lines if "/uv_cache.json," not in line).encode()
            executable = bool(source.stat().st_mode & 0o100)
            found.append(File(path.replace(here, there, 1), executable, content))
        return sorted(found, key=lambda file: file.path)

    def _owner(self, path: str) -> str:
        """The line of the lock that has brought a file, as far as it is known."""
        for pin, info in self.installed():
            if any(
                os.path.normpath(info.parent / name) == str(self.venv / path) for name, *_ in _record(info)
            ):
                return f"{self.lock}:{pin.number}: {pin}"
        return f"{self.lock}: a package"


class _Build:
    """One environment in the making."""

    def __init__(
        self, builder: Builder, lock: Path, pins: Sequence[Pin], platform: Platform, held: int
    ) -> None:
        self.builder, self.lock, self.pins, self.platform, self.held = builder, lock, pins, platform, held
        self.folder = builder.cache / ".build"
        self.tree = _Tree(self.folder / "venv", lock, pins, platform)

    def fetch(self) -> None:
        """Install the packages, from the cache if it has them all as they were made."""
        problem = self._install("--offline")
        if not problem and (damaged := self.tree.damaged()):
            Display().warning(
                f"{self.builder.cache} does not hold {', '.join(damaged)} as fetched for {self.lock}."
                " It is fetched again."
            )
            self._uv("cache", "clean", *damaged)
            problem = self._install("--offline")
        if problem:
            problem = self._ask_index()
        if problem := problem or self._unfit():
            raise AnsibleError(problem)

    def _unfit(self) -> str:
        """A package for another Python: uv looks at the lower limit only."""
        for pin, info in self.tree.installed():
            metadata = BytesHeaderParser().parsebytes((info / "METADATA").read_bytes())
            python = metadata.get("Requires-Python", "")
            if not SpecifierSet(python).contains(self.platform.python, prereleases=True):
                allowed = f"a version for {self.platform}"
                return f"{self.lock}:{pin.number}: {pin} is for Python {python}; allowed: {allowed}"
        return ""

    def _ask_index(self) -> str:
        note, run = self.builder.cache / ".silent", {"index": self.builder.index, "run": os.getppid()}
        # The workers of a run ask one after the other: only the first one waits for a silent index.
        with contextlib.suppress(OSError, ValueError):
            before = json.loads(note.read_text())
            if before.items() >= run.items() and time.time() < note.stat().st_mtime + SILENT_SECONDS:
                return before["problem"]
        said = self._install()
        if not re.search(r"error sending request|operation timed out|connection (closed|reset)", said):
            return explain(said, self.lock, self.pins, self.platform) if said else ""
        reason = said.strip().splitlines()[-1].removeprefix("  cause: ")
        problem = (
            f"{self.lock}: {self.pins[0]} and {len(self.pins) - 1} more cannot be fetched for"
            f" {self.platform}: {self.builder.index} does not answer ({reason}); allowed: an index that"
            f" answers, or the packages in {self.builder.cache}"
        )
        note.unlink(missing_ok=True)
        note.touch(0o600)
        note.write_text(json.dumps({**run, "problem": problem}))
        return problem

    def _install(self, *options: str) -> str:
        """Install the packages into an empty environment; returns what went wrong."""
        shutil.rmtree(self.folder, ignore_errors=True)  # of a run that was killed
        self.folder.mkdir(mode=0o700)
        # Relocatable: no file has the environment's path in it.
        if problem := self._uv("venv", "--relocatable", f"--python={sys.executable}", str(self.tree.venv)):
            return problem
        self.tree.note_bare()
        wanted, wheels = self.folder / "requirements.txt", self.lock.parent / "wheels"
        wanted.write_text("".join(pin.line for pin in self.pins))
        return self._uv(
            *("pip", "install", "--require-hashes", "--only-binary=:all:", *options),
            *(f"--python={self.tree.venv}", f"--python-version={self.platform.python}"),
            *(f"--python-platform={self.platform.tag}", f"--requirement={wanted}"),
            *([f"--find-links={wheels}"] if wheels.is_dir() else []),
        )

    def _uv(self, *arguments: str) -> str:
        """Run uv; returns what went wrong, without passwords."""
        folder = Path(sys.executable).parent
        uv = shutil.which("uv", path=f"{folder}{os.pathsep}{os.environ.get('PATH', '')}")
        if not uv:
            raise AnsibleError("uv is missing on the control node; allowed: pip install uv")
        # The address of the index is no argument: a password in it would be in the list of processes.
        environment = {
            "UV_SYSTEM_CERTS": "true",  # a company's proxy may sign for the package index
            **os.environ,
            **({"UV_DEFAULT_INDEX": self.builder.url} if self.builder.url else {}),
            "UV_CACHE_DIR": str(self.builder.cache),
            "UV_HTTP_RETRIES": "1",
            "UV_HTTP_TIMEOUT": str(QUIET_SECONDS),
            "UV_PYTHON_DOWNLOADS": "never",
            "UV_NO_PROGRESS": "true",
            "NO_COLOR": "1",
        }
        done = subprocess.run(
            [uv, "--quiet", *arguments],
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            pass_fds=[self.held],  # it may outlive this process
            umask=0o077,
        )
        return mask(done.stderr) or "uv failed" if done.returncode else ""


def _record(info: Path) -> Iterator[tuple[str, str, str]]:
    """Read the list of a wheel's files: path, kind of hash, hash."""
    for path, digest, *_ in csv.reader((info / "RECORD").read_text().splitlines()):
        kind, _, value = digest.partition("=")
        yield path, kind, value


def _content(path: Path) -> bytes | str:
    return os.readlink(path) if path.is_symlink() else path.read_bytes()


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").digest()
    except OSError:
        return ""
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
