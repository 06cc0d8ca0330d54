"""The fixture of the tests of releases."""

from __future__ import annotations

import pytest
from fleet import Fleet


@pytest.fixture(scope="session")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Fleet:
    """The fleet, with a copy of its apps to edit."""
    return Fleet(tmp_path_factory.mktemp("fleet"))
