#!/usr/bin/env python3
"""Ask the demo's balancer a few real questions and show the answers."""

from __future__ import annotations

import json
import ssl
import sys
import urllib.error
import urllib.request

URL = "http://127.0.0.1:8088"
# With TLS the demo's own authority signs, which no client trusts yet.
TLS = ssl._create_unverified_context()
QUESTIONS = ("/", "/", "/requestme", "/requestme", "/welcome/", "/welcome/")


def ask(path: str) -> tuple[int, str]:
    """Return status and body of a GET."""
    try:
        with urllib.request.urlopen(URL + path, timeout=10, context=TLS) as response:
            return response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def main() -> int:
    """Print one line an answer, then the URL; returns the exit status."""
    print(f"\n{'GET':<12} {'status':<7} {'served by':<10} answer")
    failed = False
    for path in QUESTIONS:
        try:
            status, body = ask(path)
        except OSError as error:
            print(f"{URL}{path}: {error}", file=sys.stderr)
            return 1
        host = json.loads(body)["host"] if body.startswith("{") else "-"
        print(f"{path:<12} {status:<7} {host:<10} {body.strip()}")
        failed |= status != 200
    print(f"\nThe demo serves at\n{URL}")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
