"""The rules of docs/architecture.md: sizes, import direction, one home for each kind of code, words."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[1]
LINES = 300
VERBS = {
    *("Install", "Create", "Template", "Copy", "Ensure", "Check", "Start", "Stop", "Reload", "Remove"),
    *("Report", "Wait", "Obtain", "Collect", "Load", "Compare"),
}
# Words that a reader has to look up or reads twice, and old names of things that the glossary names.
WORDS = re.compile(
    r"\b(anew|lest|whom|unwell|witness(es)?|condemn(s|ed)?|beside|ill|retires?|proven)\b|what came of",
    re.IGNORECASE,
)
# In prose only: code has such names.
PROSE = re.compile(rf"{WORDS.pattern}|\b(nobody|aside|whose)\b", re.IGNORECASE)
PAGES = sorted(
    [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *ROOT.glob("playbooks/**/*.yml")]
    + [ROOT / f"docs/{name}.md" for name in ("deploy", "operate", "tls", "ha", "architecture", "glossary")]
)
# These have the words on purpose, or are written by a program.
EXEMPT = {
    "tests/test_structure.py",
    "meta/fleet_variables.yml",
    "CHANGELOG.md",
    "LICENSE",
    "docs/benchmarks.md",
}
PLUGINS = sorted(ROOT.glob("plugins/**/*.py"))


def name(path: Path) -> str:
    """Return a path from the root."""
    return path.relative_to(ROOT).as_posix()


def rescues(tasks: list[dict[str, Any]], tags: list[str]) -> Iterator[tuple[str, list[str]]]:
    """Name the tasks of the rescue blocks, each with its tags."""
    for task in tasks:
        own = [*tags, *([task["tags"]] if isinstance(task.get("tags"), str) else task.get("tags", []))]
        for part in ("block", "rescue"):
            yield from rescues(task.get(part, []), own)
        for one in task.get("rescue", []):
            more = one.get("tags", [])
            yield one["name"], [*own, *([more] if isinstance(more, str) else more)]


@pytest.mark.parametrize("path", sorted(ROOT.glob("playbooks/**/*.yml")), ids=name)
def test_the_way_back_runs_with_any_tags(path: Path) -> None:
    """With --tags gunicorn, too, a failure is noted, and the run goes back."""
    for play in yaml.safe_load(path.read_text()) or []:
        if not isinstance(play, dict) or "hosts" not in play:
            continue
        of_play = play.get("tags", [])
        of_play = [of_play] if isinstance(of_play, str) else of_play
        found = dict(rescues(play.get("tasks", []), of_play))
        assert {task: tags for task, tags in found.items() if "always" not in tags} == {}


@pytest.mark.parametrize("path", [*PLUGINS, *sorted(ROOT.glob("roles/**/*.py"))], ids=name)
def test_size(path: Path) -> None:
    """A file fits into a head."""
    assert len(path.read_text().splitlines()) <= LINES


def imported(path: Path) -> Iterator[str]:
    """Name the modules that a file imports."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            yield f"{'.' * node.level}{node.module or ''}"
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


@pytest.mark.parametrize("path", PLUGINS, ids=name)
def test_imports(path: Path) -> None:
    """What runs on hosts uses nothing of the control node, and nothing changes the search path."""
    found = set(imported(path))
    if path.parent.name in ("modules", "module_utils"):
        assert [module for module in found if "plugin_utils" in module] == []
    assert "sys.path" not in path.read_text()


def test_the_probe() -> None:
    """The probe imports what its package names, and the lock has that."""
    project = tomllib.loads((ROOT / "probe/pyproject.toml").read_text())["project"]
    needs = {one.name: one.specifier for one in map(Requirement, project["dependencies"])}
    tops = {
        module.partition(".")[0]
        for path in ROOT.glob("probe/src/**/*.py")
        for module in imported(path)
        if not module.startswith(".")
    }
    assert tops - sys.stdlib_module_names == set(needs)
    lock = dict(re.findall(r"^([\w-]+)==([\w.]+)", (ROOT / "requirements.txt").read_text(), re.MULTILINE))
    assert [package for package, allowed in needs.items() if lock[package] not in allowed] == []


def test_homes() -> None:
    """Roles have no Python but programs that run on hosts."""
    assert [name(path) for path in ROOT.glob("roles/**/*.py") if path.parent.name != "files"] == []


def test_each_role_has_a_scenario() -> None:
    """`make test-role ROLE=NAME` tests it."""
    scenarios = {path.parent.name for path in ROOT.glob("molecule/*/molecule.yml")}
    assert {path.name for path in ROOT.glob("roles/*")} <= scenarios


def test_jobs() -> None:
    """Each playbook is in the README's table, and its first comment shows its use."""
    table = set(re.findall(r"`ansible-playbook (\S+?)`? ", (ROOT / "README.md").read_text()))
    playbooks = sorted(ROOT.glob("playbooks/*.yml"))
    assert {f"playbooks/{path.name}" for path in playbooks} - {"playbooks/site.yml"} <= {
        entry.strip("`") for entry in table
    }
    for path in playbooks:
        use = "site.yml" if path.name == "site.yml" else f"playbooks/{path.name}"
        assert f": ansible-playbook {use}" in path.read_text().splitlines()[1]


def tasks(node: Any) -> Iterator[dict[str, Any]]:
    """Find the tasks of a file."""
    for item in node or []:
        if "hosts" not in item and not any("import_playbook" in key for key in item):
            yield item
        for key in ("tasks", "pre_tasks", "block", "rescue", "always"):
            yield from tasks(item.get(key))


@pytest.mark.parametrize(
    "path",
    [
        path
        for path in sorted([*ROOT.glob("roles/*/tasks/*.yml"), *ROOT.glob("playbooks/**/*.yml")])
        if "group_vars" not in path.parts
    ],
    ids=name,
)
def test_task_names(path: Path) -> None:
    """A task begins with a verb that Ansible's users know."""
    names = [task.get("name", "") for task in tasks(yaml.safe_load(path.read_text()))]
    assert [found for found in names if found.partition(" ")[0] not in VERBS] == []


@pytest.mark.parametrize("path", PAGES, ids=name)
def test_words_of_pages(path: Path) -> None:
    """Plain words."""
    lines = path.read_text().splitlines()
    assert [(number, line) for number, line in enumerate(lines, 1) if PROSE.search(line)] == []


def test_words() -> None:
    """Plain words in all files: code, comments, messages."""
    files = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    found = []
    for file in files.split():
        path = ROOT / file
        if file in EXEMPT or path.suffix in (".svg", ".txt") or not path.is_file():
            continue
        lines = path.read_text(errors="replace").splitlines()
        found += [f"{file}:{number}: {line}" for number, line in enumerate(lines, 1) if WORDS.search(line)]
    assert found == []


def test_old_names_are_gone() -> None:
    """No file uses the old name of a variable, but the list of old names and the changelog."""
    renamed = yaml.safe_load((ROOT / "meta/fleet_variables.yml").read_text())["renamed"]
    for old in renamed:
        found = subprocess.run(
            ["git", "grep", "-l", "--word-regexp", old], cwd=ROOT, capture_output=True, text=True, check=False
        )
        assert set(found.stdout.split()) <= {"meta/fleet_variables.yml", "CHANGELOG.md"}, old
