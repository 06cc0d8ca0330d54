"""Clients that mean no good: python3 - WHAT ADDRESS PORT COUNT SECONDS.

Prints one JSON object at the end: how many connections or requests there were, and what became of them.
"""

import asyncio
import collections
import contextlib
import json
import resource
import sys

REQUEST = b"GET %s HTTP/1.1\r\nHost: fleet\r\nConnection: close\r\n\r\n"


async def idle(at: tuple[str, int], count: int, seconds: float) -> dict[str, int]:
    """Connect and say nothing."""
    found = await asyncio.gather(
        *(asyncio.open_connection(*at) for _ in range(count)), return_exceptions=True
    )
    await asyncio.sleep(seconds)
    return {"connected": sum(not isinstance(one, BaseException) for one in found)}


async def dripping(at: tuple[str, int], count: int, seconds: float) -> dict[str, int]:
    """Send a header that never ends; tells how many were let in, and how many not sent away in time."""

    async def one() -> str:
        try:
            reader, writer = await asyncio.open_connection(*at)
            writer.write(REQUEST[:-2] % b"/requestme")
            async with asyncio.timeout(seconds):
                while True:
                    writer.write(b"X-More: of it\r\n")
                    with contextlib.suppress(TimeoutError):
                        if not await asyncio.wait_for(reader.read(9999), 5):
                            return "sent away"
        except TimeoutError:
            return "left"
        except OSError:
            return "sent away"

    return dict(collections.Counter(await asyncio.gather(*(one() for _ in range(count)))))


async def leaving(at: tuple[str, int], count: int, seconds: float) -> dict[str, int]:
    """Ask for what takes long, and leave at once."""
    gone = 0
    for number in range(count):
        _, writer = await asyncio.open_connection(*at)
        writer.write(REQUEST % b"/requestme?seconds=0.3")
        await writer.drain()
        await asyncio.sleep(seconds / count)
        writer.transport.abort()
        gone += number >= 0
    return {"left": gone}


async def crowd(at: tuple[str, int], count: int, seconds: float) -> dict[str, int]:
    """Ask so often for what takes a second, whatever comes back."""
    statuses: collections.Counter[str] = collections.Counter()

    async def one() -> None:
        status = "lost"
        try:
            async with asyncio.timeout(20):
                reader, writer = await asyncio.open_connection(*at)
                writer.write(REQUEST % b"/requestme?seconds=1")
                status = (await reader.read(12)).split(b" ")[-1].decode() or "closed"
                writer.close()
        except (OSError, TimeoutError):
            pass
        statuses[status] += 1

    tasks = []
    for _ in range(count):
        tasks.append(asyncio.create_task(one()))
        await asyncio.sleep(seconds / count)
    await asyncio.gather(*tasks)
    return dict(statuses)


if __name__ == "__main__":
    what, address, port, count, seconds = sys.argv[1:]
    # Each connection is a file.
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    print(json.dumps(asyncio.run(globals()[what]((address, int(port)), int(count), float(seconds)))))
