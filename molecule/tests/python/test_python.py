"""The role python: the interpreter of the apps."""

from __future__ import annotations

from testinfra.host import Host


def test_interpreter_and_time_zones(host: Host) -> None:
    """Apps have the system's interpreter, and it knows the time zones."""
    code = "import zoneinfo; print(zoneinfo.ZoneInfo('Europe/Berlin'))"
    assert host.check_output(f'/usr/bin/python3 -c "{code}"') == "Europe/Berlin"


def test_nothing_to_build_with(host: Host) -> None:
    """Environments come from the control node: a host needs neither pip nor uv nor a compiler."""
    assert host.run("ls /opt/paddock/uv").rc != 0
    for package in ("python3-pip", "python3-venv", "gcc"):
        assert not host.package(package).is_installed
