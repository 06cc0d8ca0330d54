"""Pages that are written by a program are as it would write them now."""

from __future__ import annotations

import importlib.util
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def test_settings_are_current() -> None:
    """`make docs` was run after the last change of a setting."""
    spec = importlib.util.spec_from_file_location("write_settings", ROOT / "tools/write_settings.py")
    module = importlib.util.module_from_spec(spec)  # type: ignore[arg-type]
    spec.loader.exec_module(module)  # type: ignore[union-attr]
    assert (ROOT / "docs/settings.md").read_text() == module.page()
