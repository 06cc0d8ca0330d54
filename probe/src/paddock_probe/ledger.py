"""The ledger: each POST carries an id that the service notes; at the end it is asked for its notes."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from typing import NamedTuple
from urllib.parse import quote

from .client import ERRORS, LIMIT, Answer, Client
from .records import UNKNOWN, LedgerLog, Record

TRIES = 60
AT_LEAST = 8  # a host may have executed something and never answered: ask a few times more
PAUSE = 0.05  # seconds


class Balance(NamedTuple):
    """What was asked against what was done. All but `failed_but_executed` must be empty."""

    posts: int
    acknowledged: int
    twice: list[str]
    missing: list[str]
    missing_hosts: list[str]
    failed_but_executed: list[str]

    @property
    def clean(self) -> bool:
        """Whether each acknowledged POST was executed, and none twice."""
        return not (self.twice or self.missing or self.missing_hosts)


def body(id_: str) -> bytes:
    """The body of a POST."""
    return json.dumps({"id": id_}).encode()


def question(path: str, run: str) -> str:
    """The path that asks for the ids of a run, which begin with its name and a dash."""
    return path.replace("{run}", f"{quote(run)}-")


def told(answer: Answer, key: str) -> tuple[str, list[str]] | None:
    """The host and the ids that an answer tells; UNKNOWN for a ledger that all hosts share."""
    content = answer.json()
    host, ids = content.get(key, UNKNOWN), content.get("ids")
    if isinstance(host, str) and isinstance(ids, list):
        return host, [str(id_) for id_ in ids]
    return None


async def collect(client: Client, path: str, key: str, records: list[Record]) -> LedgerLog:
    """Ask through the balancer until every host that acknowledged a POST has told its ids.

    Args:
        client: Makes a connection for each request.
        path: Asks for the ids of this run.
        key: Names the host in an answer.
        records: Of the load.

    Returns:
        The ids by host, and the hosts that did not answer within 60 tries.
    """
    log = LedgerLog()
    wanted = {record.backend for record in records if record.id and not record.error} - {UNKNOWN}
    for attempt in range(TRIES):
        if UNKNOWN in log.ids or (attempt >= AT_LEAST and wanted <= set(log.ids)):
            break
        try:
            async with asyncio.timeout(LIMIT):
                answer, _ = await client.ask("GET", path)
        except ERRORS:
            await asyncio.sleep(PAUSE)
            continue
        if answer.status == 200 and (notes := told(answer, key)):
            log.ids[notes[0]] = notes[1]
        await asyncio.sleep(PAUSE)
    if UNKNOWN not in log.ids:
        log.missing_hosts = sorted(wanted - set(log.ids))
    return log


def balance(log: LedgerLog, records: list[Record]) -> Balance:
    """Compare what the clients know with what the hosts noted."""
    done = Counter(id_ for ids in log.ids.values() for id_ in ids)
    posts = [record for record in records if record.id]
    acknowledged = [record for record in posts if not record.error]
    unknown = set(log.missing_hosts)
    return Balance(
        posts=len(posts),
        acknowledged=len(acknowledged),
        twice=sorted(id_ for id_, times in done.items() if times > 1),
        missing=sorted(r.id for r in acknowledged if not done[r.id] and r.backend not in unknown),
        missing_hosts=log.missing_hosts,
        failed_but_executed=sorted(record.id for record in posts if record.error and done[record.id]),
    )
