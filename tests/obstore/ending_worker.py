"""A process that commits by obstore and ends, in the way that its argument names. Prints what it has done.

Run as `python -m tests.obstore.ending_worker WAY URL`.
"""

from __future__ import annotations

import asyncio
import atexit
import os
import signal
import sys
from uuid import uuid4

from pydantic import SecretStr

from s3_checkpoint import ActiveSnapshot, S3Settings, connect
from s3_checkpoint.sync import SyncS3Checkpointer

TASKS = [ActiveSnapshot(node_name="next", payload={"n": 1})]


def settings(url: str) -> S3Settings:
    return S3Settings(
        bucket="ending",
        endpoint_url=url,
        region_name="us-east-1",
        access_key_id="a",
        secret_access_key=SecretStr("b"),
        transport="obstore",
        max_attempts=1,
    )


def say(text: str) -> None:
    os.write(1, f"{text}\n".encode())


async def closed(url: str) -> None:
    async with connect(dict, settings(url)) as checkpointer:
        await checkpointer.commit(uuid4(), 0, {"n": 1}, TASKS)
    say("done")


async def never_closed(url: str) -> None:
    connection = connect(dict, settings(url))
    checkpointer = await connection.__aenter__()
    await checkpointer.commit(uuid4(), 0, {"n": 1}, TASKS)
    say("done")


async def raised(url: str) -> None:
    async with connect(dict, settings(url)) as checkpointer:
        await checkpointer.commit(uuid4(), 0, {"n": 1}, TASKS)
        say("done")
        raise SystemExit(3)


async def interrupted(url: str) -> None:
    async with connect(dict, settings(url)) as checkpointer:
        await checkpointer.commit(uuid4(), 0, {"n": 1}, TASKS)
        say("done")
        os.kill(os.getpid(), signal.SIGINT)
        await asyncio.sleep(30)


async def many_in_flight(url: str) -> None:
    async with connect(dict, settings(url)) as checkpointer:
        await checkpointer.commit(uuid4(), 0, {"n": 1}, TASKS)
        saves = [asyncio.ensure_future(checkpointer.save(uuid4(), 0, {"n": n})) for n in range(30)]
        await asyncio.wait(saves, return_when=asyncio.FIRST_COMPLETED)
        say("done")
        raise SystemExit(3)


def sync_closed(url: str) -> None:
    with SyncS3Checkpointer(dict, settings(url)) as checkpointer:
        checkpointer.commit(uuid4(), 0, {"n": 1}, TASKS)
    say("done")


def sync_never_closed(url: str) -> None:
    checkpointer = SyncS3Checkpointer(dict, settings(url))
    checkpointer.commit(uuid4(), 0, {"n": 1}, TASKS)
    say("done")


def at_exit(url: str) -> None:
    checkpointer = SyncS3Checkpointer(dict, settings(url))

    @atexit.register
    def last() -> None:
        checkpointer.close()
        say("done")

    checkpointer.commit(uuid4(), 0, {"n": 1}, TASKS)


def commits_at_exit(url: str) -> None:
    checkpointer = SyncS3Checkpointer(dict, settings(url))
    checkpointer.commit(uuid4(), 0, {"n": 1}, TASKS)

    @atexit.register
    def last() -> None:
        checkpointer.commit(uuid4(), 0, {"n": 2}, TASKS)
        say("done")


WAYS = {
    "closed": 0,
    "never_closed": 0,
    "raised": 3,
    "interrupted": -signal.SIGINT,
    "many_in_flight": 3,
    "sync_closed": 0,
    "sync_never_closed": 0,
    "at_exit": 0,
    "commits_at_exit": 0,
}
"""Each way to end, and the exit code that says that nothing else went wrong."""


if __name__ == "__main__":
    way = globals()[sys.argv[1]]
    if asyncio.iscoroutinefunction(way):
        asyncio.run(way(sys.argv[2]))
    else:
        way(sys.argv[2])
