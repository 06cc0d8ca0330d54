"""What an attacker can do that has taken an app over: run any program in its place."""

import subprocess
import sys


def run(program: bytes) -> tuple[int, bytes]:
    """Run a Python program as a child of the app, in its sandbox.

    Args:
        program: Its text.

    Returns:
        The exit status and all that it printed.
    """
    done = subprocess.run(
        [sys.executable, "-I", "-"],
        input=program,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=60,
        check=False,
    )
    return done.returncode, done.stdout
