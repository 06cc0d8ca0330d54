"""Lookup that fetches the wheels of a lock for the platform of a host."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import time
import zipfile
from collections.abc import Iterator, Mapping
from email.parser import BytesParser
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from ansible.errors import AnsibleError
from ansible.plugins.lookup import LookupBase
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.tags import Tag, compatible_tags, cpython_tags
from packaging.utils import InvalidWheelFilename, canonicalize_name, parse_wheel_filename
from packaging.version import Version

ROOT = Path(__file__).parents[2]
CACHE = ROOT / ".cache" / "wheels"

# Ansible gives the plugins of a repository no way to import a package next to them.
sys.path.append(str(ROOT / "plugins"))

from fleet_rules.locks import Fault, parse_lock
from fleet_rules.own_wheels import sha256

DOCUMENTATION = """
name: wheels
short_description: Fetch the wheels of a lock for a host's platform
description:
  - Fetches what a lock with hashes names, once for each platform, into C(.cache/wheels) of the
    repository. What is there already is not asked for again, so no network is needed then.
  - A folder C(wheels) beside the lock may hold wheels that no index has. Their hashes have to be in
    the lock, too. Nothing is ever built from a source archive.
options:
  _terms:
    description: Lock files; the last folder of the path is the app's name.
    type: list
    elements: str
    required: true
  facts:
    description: Facts of the host, with the subsets C(architecture), C(distribution) and C(python).
    type: dict
    required: true
  index_url:
    description: Package index; empty is what the control node's pip uses, PyPI as a rule.
    type: str
    default: ""
"""

EXAMPLES = """
- name: Show what a host would install
  ansible.builtin.debug:
    msg: "{{ lookup('wheels', 'app_src/requestme/requirements.txt', facts=ansible_facts).wheels }}"
"""

RETURN = """
_raw:
  description:
    - One mapping a lock. C(archive) is the path of a reproducible C(.tar) with the wheels and a
      C(requirements.txt) that names each one's own hash.
    - C(id) has 12 hexadecimal digits, a hash of that C(requirements.txt); C(wheels) names the files.
  type: list
  elements: dict
"""

GLIBC = {"12": 36, "13": 41}  # Debian's release: the minor version of glibc 2
OLDEST_GLIBC = {"x86_64": 5, "aarch64": 17}  # that wheels were ever made for
LEGACY = {17: "manylinux2014", 12: "manylinux2010", 5: "manylinux1"}
QUIET_SECONDS = 30  # an index that sends no wheel for so long is given up


class Platform(NamedTuple):
    """What decides which wheels a host can use."""

    debian: str
    python: str  # with the patch level, for markers may ask for it
    architecture: str

    def __str__(self) -> str:
        return f"Debian {self.debian}, Python {self.python}, {self.architecture}"

    @property
    def minor(self) -> tuple[int, int]:
        """Python's version as tags have it."""
        major, minor, *_ = self.python.split(".")
        return int(major), int(minor)

    @property
    def systems(self) -> list[str]:
        """The platform's part of tags, best first."""
        names = []
        for glibc in range(GLIBC[self.debian], OLDEST_GLIBC[self.architecture] - 1, -1):
            names += [f"manylinux_2_{glibc}", *([LEGACY[glibc]] if glibc in LEGACY else [])]
        return [f"{name}_{self.architecture}" for name in (*names, "linux")]

    @property
    def tags(self) -> list[Tag]:
        """All tags of wheels that fit, best first."""
        abi = "cp{}{}".format(*self.minor)
        return [
            *cpython_tags(self.minor, abis=[abi], platforms=self.systems),
            *compatible_tags(self.minor, interpreter=abi, platforms=self.systems),
        ]

    @property
    def markers(self) -> dict[str, str]:
        """What a lock's markers see."""
        return {
            "implementation_name": "cpython",
            "implementation_version": self.python,
            "os_name": "posix",
            "platform_machine": self.architecture,
            "platform_python_implementation": "CPython",
            "platform_release": "",
            "platform_system": "Linux",
            "platform_version": "",
            "python_full_version": self.python,
            "python_version": "{}.{}".format(*self.minor),
            "sys_platform": "linux",
        }


class Pin(NamedTuple):
    """A package that the platform needs."""

    name: str
    version: str
    extras: frozenset[str]
    hashes: frozenset[str]

    def __str__(self) -> str:
        return f"{self.name}=={self.version}"


def platform_of(facts: Mapping[str, Any]) -> Platform:
    """Read the platform off a host's facts.

    Args:
        facts: The facts.

    Returns:
        The platform.

    Raises:
        AnsibleError: Facts are missing, or name a platform that Paddock does not know.
    """
    try:
        version = facts["python"]["version"]
        debian, architecture = str(facts["distribution_major_version"]), facts["architecture"]
    except KeyError as error:
        raise AnsibleError(
            f"the facts have no {error}; allowed: facts with architecture, distribution and python"
        ) from None
    for name, value, allowed in (
        ("Debian's version", debian, GLIBC),
        ("the architecture", architecture, OLDEST_GLIBC),
    ):
        if value not in allowed:
            raise AnsibleError(f"{name} is {value}; allowed: {', '.join(allowed)}")
    return Platform(debian, "{major}.{minor}.{micro}".format(**version), architecture)


def read_lock(lock: Path, platform: Platform) -> list[Pin]:
    """Read what a lock wants on a platform.

    Args:
        lock: The file.
        platform: The platform.

    Returns:
        The packages, sorted by name.

    Raises:
        AnsibleError: The file cannot be read, or does not name versions and hashes.
    """
    try:
        text = lock.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        raise AnsibleError(
            f"{lock} is missing or no text; allowed: a lock as uv pip compile --generate-hashes writes"
        ) from None
    pins: dict[str, Pin] = {}
    for found in parse_lock(text):
        if isinstance(found, Fault):
            raise AnsibleError(f"{lock}:{found.number}: {found}")
        requirement = found.requirement
        if requirement.marker and not requirement.marker.evaluate({**platform.markers, "extra": ""}):
            continue
        version = next(iter(requirement.specifier)).version
        pin = Pin(found.name, version, frozenset(requirement.extras), found.hashes)
        known = pins.setdefault(pin.name, pin)
        if known.version != pin.version:
            raise AnsibleError(
                f"{lock}:{found.number}: {pin} conflicts with {known}; allowed: one version for {platform}"
            )
    return sorted(pins.values())


def find_wheels(pins: list[Pin], platform: Platform, folders: list[Path]) -> dict[Pin, Path]:
    """Look for the wheels that are here already.

    Args:
        pins: The packages.
        platform: The platform.
        folders: Where to look.

    Returns:
        The best wheel of each package that has one whose hash the lock names.
    """
    ranks = {tag: rank for rank, tag in enumerate(platform.tags)}
    candidates: dict[tuple[str, Version], list[tuple[int, Path]]] = {}
    for path in sorted(path for folder in folders for path in folder.glob("*.whl")):
        try:
            name, version, _, tags = parse_wheel_filename(path.name)
        except InvalidWheelFilename:
            continue
        if fitting := [ranks[tag] for tag in tags if tag in ranks]:
            candidates.setdefault((name, version), []).append((min(fitting), path))
    found = {}
    for pin in pins:
        for _, path in sorted(candidates.get((pin.name, Version(pin.version)), [])):
            if sha256(path) in pin.hashes:
                found[pin] = path
                break
    return found


def check_metadata(wheels: Mapping[Pin, Path], platform: Platform) -> Iterator[str]:
    """Check that the packages fit to each other and to the platform.

    Args:
        wheels: The wheel of each package.
        platform: The platform.

    Yields:
        What does not fit.
    """
    pins = {pin.name: pin for pin in wheels}
    extras = {pin.name: {"", *pin.extras} for pin in wheels}
    todo = [(pin, extra) for pin in wheels for extra in sorted(extras[pin.name])]
    for pin, extra in todo:
        with zipfile.ZipFile(wheels[pin]) as wheel:
            member = next(name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
            metadata = BytesParser().parsebytes(wheel.read(member), headersonly=True)
        python = metadata.get("Requires-Python", "")
        if not extra and not SpecifierSet(python).contains(platform.python, prereleases=True):
            yield f"{pin} is for Python {python}; allowed: a version for {platform}"
        for line in metadata.get_all("Requires-Dist", []):
            wanted = Requirement(line)
            # With an extra, only what the package alone does not want.
            if wanted.marker and not wanted.marker.evaluate({**platform.markers, "extra": extra}):
                continue
            name = canonicalize_name(wanted.name)
            if name not in pins:
                yield f"{pin} needs {name}{wanted.specifier}, which the lock lacks; allowed: a whole lock"
                continue
            if not wanted.specifier.contains(pins[name].version, prereleases=True):
                allowed = f"versions that fit for {platform}"
                yield f"{pin} needs {name}{wanted.specifier}, not {pins[name]}; allowed: {allowed}"
            todo += [(pins[name], more) for more in sorted(wanted.extras - extras[name])]
            extras[name] |= wanted.extras


class Index:
    """A package index, asked through pip."""

    def __init__(self, url: str) -> None:
        """Name an index.

        Args:
            url: Its address; empty is what pip uses by itself.
        """
        self.url = url
        parts = urlsplit(url)
        # A password in it is nobody's to see.
        self.name = (
            parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
            or "pip's own index, as a rule PyPI"
        )

    def download(self, pins: list[Pin], platform: Platform, folder: Path, lock: int) -> str:
        """Download wheels.

        Args:
            pins: The packages.
            platform: The platform.
            folder: An empty folder for them.
            lock: A file descriptor that pip keeps open.

        Returns:
            What went wrong; empty if nothing did.

        Raises:
            TimeoutError: The index does not answer.
        """
        wheels, log = folder / "wheels", folder / "log"
        (folder / "tmp").mkdir()
        wanted = folder / "requirements.txt"
        wanted.write_text(
            "".join(
                f"{pin} {' '.join(f'--hash=sha256:{one}' for one in sorted(pin.hashes))}\n" for pin in pins
            )
        )
        abi = "cp{}{}".format(*platform.minor)
        command = [
            *(sys.executable, "-m", "pip", "download", "--no-deps", "--require-hashes"),
            *("--only-binary=:all:", "--no-cache-dir", "--progress-bar=off", "--no-input"),
            *("--disable-pip-version-check", "--timeout=10", "--retries=1"),
            *(f"--platform={system}" for system in platform.systems),
            *("--implementation=cp", f"--abi={abi}", "--abi=abi3", "--abi=none"),
            *(
                f"--python-version={platform.python}",
                f"--dest={wheels}",
                f"--requirement={wanted}",
            ),
        ]
        # Not an argument: a password in it would be in the list of processes.
        environment = {**os.environ, "TMPDIR": str(folder / "tmp"), "NO_COLOR": "1"}
        if self.url:
            environment["PIP_INDEX_URL"] = self.url
        with log.open("wb") as output, contextlib.ExitStack() as stack:
            pip = subprocess.Popen(
                command,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                pass_fds=[lock],
            )
            stack.callback(pip.wait)
            stack.callback(pip.kill)
            self._watch(pip, folder)
        said = log.read_text(errors="replace")
        if pip.returncode == 0:
            return ""
        if re.search(r"Retrying \(|Could not fetch URL|ConnectionError|ReadTimeout", said):
            reason = re.findall(r"(?:NewConnectionError|Error|Timeout)[^\n]*", said)
            raise TimeoutError(reason[0][:200] if reason else "")
        return said

    def _watch(self, pip: subprocess.Popen[bytes], folder: Path) -> None:
        """Wait for pip for as long as files grow: it has no time limit for all it does."""
        size, since = -1, time.monotonic()
        while pip.poll() is None:
            time.sleep(0.05)
            now = 0
            for place, _, names in os.walk(folder):  # pip may remove what this is about to see
                for name in names:
                    with contextlib.suppress(OSError):
                        now += os.stat(f"{place}/{name}").st_size
            if now != size:
                size, since = now, time.monotonic()
            elif time.monotonic() > since + QUIET_SECONDS:
                raise TimeoutError(f"nothing came for {QUIET_SECONDS} s")


def explain(said: str, lock: Path, pins: list[Pin], platform: Platform) -> str:
    """Say in one line why pip could not fetch a wheel.

    Args:
        said: What pip wrote.
        lock: The file that names the packages.
        pins: The packages.
        platform: The platform.

    Returns:
        The file, the package, the platform, and what would be right.
    """
    if "DO NOT MATCH THE HASHES" in said:
        names = re.findall(r"^\s+(\S+==\S+) from", said, re.MULTILINE)
        return f"{lock}: {', '.join(names)} has another hash on the index; allowed: what the lock names"
    if missing := re.search(r"(?:requirement|distribution found for) (\S+?==[^\s;]+)", said):
        return (
            f"{lock}: {missing[1]} has no wheel for {platform}; allowed: a package with such a wheel"
            f" (nothing is built from source), or your own in {lock.parent / 'wheels'}"
        )
    errors = re.findall(r"^ERROR: (.*)", said, re.MULTILINE) or said.strip().splitlines()[-3:]
    names = ", ".join(map(str, pins))
    return f"{lock}: the wheels of {names} cannot be fetched for {platform}: {' '.join(errors)}"


def pack(wheels: Mapping[Pin, Path], archive: Path) -> None:
    """Pack wheels and the list of their hashes, always into the same bytes.

    Args:
        wheels: The wheel of each package.
        archive: The file, written whole or not at all.
    """
    listed = "".join(f"{pin} --hash=sha256:{sha256(path)}\n" for pin, path in sorted(wheels.items()))
    partial = archive.with_name(".partial.tar")
    with tarfile.open(partial, "w") as packed:
        info = tarfile.TarInfo("requirements.txt")
        info.size, info.mode = len(listed), 0o644
        packed.addfile(info, io.BytesIO(listed.encode()))
        for path in sorted(wheels.values()):
            info = tarfile.TarInfo(path.name)
            info.size, info.mode = path.stat().st_size, 0o644
            with path.open("rb") as file:
                packed.addfile(info, file)
    partial.rename(archive)


def read_archive(archive: Path) -> dict[str, Any]:
    """Read what an archive holds.

    Args:
        archive: The file.

    Returns:
        The id of its list of hashes, its path and the names of its wheels.
    """
    with tarfile.open(archive) as packed:
        listed = packed.extractfile("requirements.txt").read()  # type: ignore[union-attr]
        names = [name for name in packed.getnames() if name.endswith(".whl")]
    return {
        "id": hashlib.sha256(listed).hexdigest()[:12],
        "archive": str(archive),
        "wheels": [str(CACHE / name) for name in names],
    }


@contextlib.contextmanager
def locked() -> Iterator[int]:
    """Let one process at a time change the cache; pip holds the lock too, for it may outlive us."""
    CACHE.mkdir(parents=True, exist_ok=True)
    lock = os.open(CACHE / ".lock", os.O_CREAT | os.O_WRONLY, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield lock
    finally:
        os.close(lock)


class LookupModule(LookupBase):
    """What Ansible looks for in this file."""

    def run(
        self, terms: list[str], variables: dict[str, Any] | None = None, **kwargs: object
    ) -> list[dict[str, Any]]:
        """Fetch the wheels of each lock.

        Args:
            terms: The locks.
            variables: The variables of the host.
            **kwargs: The options.

        Returns:
            The archive of each lock.

        Raises:
            AnsibleError: A lock cannot be met on the platform, or the index does not answer.
        """
        self.set_options(var_options=variables, direct=kwargs)
        platform = platform_of(self.get_option("facts"))
        return [self._wheels(Path(os.path.normpath(term)), platform) for term in terms]

    def _wheels(self, lock: Path, platform: Platform) -> dict[str, Any]:
        pins = read_lock(lock, platform)
        wanted = repr([platform, [(*pin[:2], *map(sorted, pin[2:])) for pin in pins]])
        digest = hashlib.sha256(wanted.encode()).hexdigest()[:12]
        archive = CACHE / f"{platform.architecture}-py{platform.python}-{digest}.tar"
        if not archive.exists():
            with locked() as held:
                if not archive.exists():
                    self._fetch(lock, pins, platform, archive, held)
        return read_archive(archive)

    def _fetch(self, lock: Path, pins: list[Pin], platform: Platform, archive: Path, held: int) -> None:
        folders = [lock.parent / "wheels", CACHE]
        found = find_wheels(pins, platform, folders)
        if missing := [pin for pin in pins if pin not in found]:
            self._download(missing, lock, platform, held)
            found |= find_wheels(missing, platform, [CACHE])
        for path in found.values():
            if path.parent != CACHE:
                shutil.copyfile(path, CACHE / ".partial.whl")
                (CACHE / ".partial.whl").rename(CACHE / path.name)
        if problems := list(check_metadata(found, platform)):
            raise AnsibleError("\n".join(f"{lock}: {problem}" for problem in problems))
        pack(found, archive)

    def _download(self, pins: list[Pin], lock: Path, platform: Platform, held: int) -> None:
        index = Index(self.get_option("index_url"))
        silent = CACHE / ".silent"
        # The workers of a run ask one after the other; that the index is silent costs time only once.
        run = {"index": index.url, "run": os.getppid()}
        with contextlib.suppress(OSError, ValueError):
            if time.time() < silent.stat().st_mtime + 300:
                before = json.loads(silent.read_text())
                if before.items() >= run.items():
                    raise AnsibleError(before["said"])
        folder = CACHE / ".fetch"
        shutil.rmtree(folder, ignore_errors=True)  # of a run that was killed
        folder.mkdir()
        try:
            said = index.download(pins, platform, folder, held)
            if said:
                raise AnsibleError(explain(said, lock, pins, platform))
            for path in (folder / "wheels").iterdir():
                path.rename(CACHE / path.name)
        except TimeoutError as error:
            said = (
                f"{lock}: {pins[0]} and {len(pins) - 1} more cannot be fetched for {platform}: {index.name}"
                f" does not answer ({error}); allowed: an index that answers, or the wheels in {CACHE}"
            )
            silent.write_text(json.dumps({**run, "said": said}))
            raise AnsibleError(said) from None
        finally:
            shutil.rmtree(folder, ignore_errors=True)
