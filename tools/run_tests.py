#!/usr/bin/env python3
"""Run every check of this repository, side by side, and show a line for each.

`run_tests.py [NAME...]` runs only the checks named, such as `lint` or `molecule-nginx`. The whole
output of a check is in build/NAME.log. Exit status 0 only if all passed and each ran a test.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
BUILD = ROOT / "build"
NODES = ROOT / "molecule/testbed/nodes"
PYTHON = (
    "app_src",
    "bench",
    "playbooks",
    "plugins",
    "probe",
    "roles",
    "tools",
    "tests",
    "molecule",
    str(NODES),
)
# A play keeps a core busy, and tests that wait for a host should not wait for a core.
WORKERS = max(os.cpu_count() or 2, 2)

LINT = [
    ["ruff", "check", *PYTHON],
    ["ruff", "format", "--check", *PYTHON],
    ["codespell"],
    ["yamllint", "--strict", "."],
    ["ansible-lint"],
]
UNIT = [
    [
        *("python", "-m", "pytest", "--numprocesses=2", "--dist=worksteal"),
        *("app_src", "probe", "tests", "--ignore=tests/readme"),
    ]
]
README = [["python", "-m", "pytest", "tests/readme"]]


def molecule(scenario: str) -> list[list[str]]:
    """The command of a scenario."""
    return [["molecule", "test", "--scenario-name", scenario]]


def weight(scenario: Path) -> int:
    """About how long a scenario takes: the size of its tests."""
    return sum(test.stat().st_size for test in (ROOT / "molecule/tests" / scenario.name).glob("*.py"))


SCENARIOS = sorted((path.parent for path in ROOT.glob("molecule/*/molecule.yml")), key=weight, reverse=True)
# The longest first, so that none runs alone at the end.
CHECKS = {
    **{f"molecule-{path.name}": molecule(path.name) for path in SCENARIOS},
    "readme": README,
    "unit": UNIT,
    "lint": LINT,
}


class Result(NamedTuple):
    """What became of a check."""

    name: str
    ok: bool
    passed: int
    failed: int
    seconds: float


def run(name: str) -> Result:
    """Run the commands of one check, until one fails, with their output in a log."""
    started = time.monotonic()
    log = BUILD / f"{name}.log"
    with log.open("w") as out:
        codes = (
            subprocess.run(command, cwd=ROOT, stdout=out, stderr=out, check=False).returncode
            for command in CHECKS[name]
        )
        ok = not any(codes)
    text = log.read_text(errors="replace")
    passed, failed = (sum(map(int, re.findall(rf"\b(\d+) {word}\b", text))) for word in ("passed", "failed"))
    if name != "lint":
        ok = ok and passed > 0
    result = Result(name, ok, passed, failed, time.monotonic() - started)
    tests = f"{passed} passed, {failed} failed" if passed + failed else ""
    print(f"{'ok  ' if ok else 'FAIL'}  {name:<18} {tests:<24} {result.seconds:4.0f} s", flush=True)
    if not ok:
        print("\n".join(text.splitlines()[-60:]) + f"\n(all of it: {log.relative_to(ROOT)})", flush=True)
    return result


def main(names: list[str]) -> int:
    """Run the checks; returns the exit status."""
    unknown = [name for name in names if name not in CHECKS]
    if unknown:
        print(f"unknown check {unknown[0]}; allowed: {', '.join(CHECKS)}", file=sys.stderr)
        return 2
    os.environ |= {"NO_COLOR": "1", "MOLECULE_COMMAND_BORDERS": "false", "PY_COLORS": "0"}
    BUILD.mkdir(exist_ok=True)
    chosen = [name for name in CHECKS if not names or name in names]
    needs_nodes = bool({*chosen} - {"lint", "unit"})
    if needs_nodes:
        subprocess.run([NODES, "purge"], check=True)
        # What Molecule noted of nodes, where a run was killed: it would take them for made.
        for state in (ROOT / ".ansible/tmp").glob("molecule.*"):
            shutil.rmtree(state)
        subprocess.run([NODES, "image", "trixie", "bookworm"], check=True, stdout=subprocess.DEVNULL)
    started = time.monotonic()
    try:
        with ThreadPoolExecutor(WORKERS) as pool:
            results = list(pool.map(run, chosen))
    finally:
        if needs_nodes:
            subprocess.run([NODES, "purge"], check=False)
    bad = [result for result in results if not result.ok]
    print(f"\n{len(results) - len(bad)} of {len(results)} checks ok in {time.monotonic() - started:.0f} s")
    # A check that broke without a failed test counts as one.
    failed = sum(max(result.failed, 1) for result in bad)
    print(f"{sum(result.passed for result in results)} passed, {failed} failed")
    return int(bool(bad))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
