"""Take secrets, and what moves a terminal's cursor, out of a text of the app's."""

from __future__ import annotations

import base64
import functools
import html
import json
import re
import shlex
import urllib.parse
from collections.abc import Iterator

MASK = "********"
# Shorter ones are in every text.
SHORTEST = 4
# Control characters but for tab and newline, and those that turn the direction of what is written.
CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")


def clean(text: str, secrets: frozenset[str]) -> str:
    """Make a text of the app's fit for a terminal and a log.

    Args:
        text: What the app said.
        secrets: The values of its environment.

    Returns:
        The text without these values, without each of their lines, as they are and as programs quote
        them, and without control characters.
    """
    pattern = _pattern(secrets)
    if pattern:
        text = pattern.sub(MASK, text)
    return CONTROLS.sub("", text)


@functools.lru_cache(maxsize=64)
def _pattern(secrets: frozenset[str]) -> re.Pattern[str] | None:
    parts = {part for secret in secrets for part in (secret, secret.strip(), *secret.splitlines())}
    parts |= {part.strip() for part in parts}
    forms = {form for part in parts if len(part) >= SHORTEST for form in _forms(part)}
    longest_first = sorted(forms, key=lambda form: (-len(form), form))
    return re.compile("|".join(map(re.escape, longest_first))) if forms else None


def _forms(secret: str) -> Iterator[str]:
    """How programs write a text."""
    raw = secret.encode("utf-8", "surrogatepass")
    yield from _quoted(secret)
    # A log in JSON of a text in JSON, for one.
    for once in {*_quoted(secret)}:
        yield from _quoted(once)
    yield repr(raw)[2:-1]
    yield shlex.quote(secret).strip("'")
    yield html.escape(secret)
    for quoted in (urllib.parse.quote(raw), urllib.parse.quote(raw, safe=""), urllib.parse.quote_plus(raw)):
        yield quoted
        yield re.sub("%..", lambda code: code[0].lower(), quoted)
    yield raw.hex()
    # In base64, three bytes are four letters: it depends on where in them the secret begins.
    for before in range(3):
        text = base64.b64encode(bytes(before) + raw).decode()
        # Letters that what comes before or after it has a part in stay out.
        kept = text[(0, 2, 3)[before] : (len(raw) + before) * 8 // 6]
        if len(kept) >= SHORTEST:
            yield kept
            yield kept.replace("+", "-").replace("/", "_")


def _quoted(text: str) -> Iterator[str]:
    yield text
    yield repr(text)[1:-1]
    # With a quote of both kinds in the text around it.
    yield repr(f"'\"{text}")[4:-1]
    yield json.dumps(text)[1:-1]
    yield json.dumps(text, ensure_ascii=False)[1:-1]
