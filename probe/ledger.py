"""The ledger: each POST carries an id that the app notes on its host; at the end we ask for the notes."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from typing import NamedTuple
from urllib.parse import quote

from .client import ERRORS, LIMIT, Client
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
    """The path that asks a host for the ids of a run."""
    return f"{path}{'&' if '?' in path else '?'}run={quote(run)}-"


async def collect(client: Client, path: str, run: str, records: list[Record]) -> LedgerLog:
    """Ask through the balancer until every host that acknowledged a POST has told its ids.

    Args:
        client: Makes a connection for each request.
        path: Of the ledger.
        run: What the ids of this run begin with.
        records: Of the load.

    Returns:
        The ids by host, and the hosts that did not answer within 60 tries.
    """
    log = LedgerLog()
    wanted = {record.backend for record in records if record.id and not record.error} - {UNKNOWN}
    for attempt in range(TRIES):
        if attempt >= AT_LEAST and wanted <= set(log.ids):
            break
        try:
            async with asyncio.timeout(LIMIT):
                answer, _ = await client.ask("GET", question(path, run))
        except ERRORS:
            await asyncio.sleep(PAUSE)
            continue
        told = answer.json()
        host, ids = told.get("host"), told.get("ids")
        if answer.status == 200 and isinstance(host, str) and isinstance(ids, list):
            log.ids[host] = [str(id_) for id_ in ids]
        await asyncio.sleep(PAUSE)
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
