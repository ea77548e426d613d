"""A worker as it runs in production, and the store it runs against, each in a process of its own.

The work is a chain of hashes: what a run ends with depends on every step, and a step done twice or left out would show.
Who did a step is in its state and in its tasks, so that two workers never commit the same content, as with any
superstep that is not deterministic.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import random
import threading
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from datetime import timedelta
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any
from uuid import UUID, uuid5

from pydantic import BaseModel

from s3_checkpoint import (
    ActiveSnapshot,
    RunAdmin,
    S3Checkpointer,
    S3Settings,
    StepConflictError,
    StoreUnavailableError,
)
from s3_checkpoint._transports import open_store
from s3_checkpoint.models import InlineTasks

LAST_STEP = 11
GRACE = timedelta(seconds=8)
"""Of workers and janitor. A quarter of it is for a request in flight, so it is not shorter."""
KEEP = 2
RUNS = UUID("6f1c1d0e-0000-4000-8000-000000000000")


class Chain(BaseModel):
    """The state."""

    link: str
    by: str


def run_id(number: int) -> UUID:
    return uuid5(RUNS, str(number))


def links() -> list[str]:
    """What every step of an undisturbed run holds."""
    found = [hashlib.sha256(b"start").hexdigest()]
    for _ in range(LAST_STEP):
        found.append(next_link(found[-1]))
    return found


def next_link(link: str) -> str:
    return hashlib.sha256(link.encode()).hexdigest()


class Log:
    """One JSON line per event, handed to the kernel at once: SIGKILL loses none that was written."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def write(self, event: str, number: int, step: int | None, begun: float, **more: object) -> None:
        line = {"event": event, "run": number, "step": step, "begun": begun, "ended": time.monotonic(), **more}
        os.write(self._file, json.dumps(line).encode() + b"\n")


@asynccontextmanager
async def checkpointer_of(settings: S3Settings, name: str = "") -> AsyncIterator[S3Checkpointer[Chain]]:
    """Half of the workers keep tasks in objects of their own, as those too large for the metadata are.

    Half of either speak by obstore: workers of both transports share their runs.
    """
    transport = "obstore" if name[-1:] in "2367" else "aiobotocore"
    async with open_store(settings.model_copy(update={"transport": transport})) as store:
        inline: InlineTasks = "never" if name[-1:] in "13579" else "auto"
        yield S3Checkpointer(Chain, store, grace=GRACE, inline_tasks=inline)


async def advance(
    checkpointer: S3Checkpointer[Chain], number: int, name: str, log: Log, *, computes_s: float = 0
) -> bool:
    """One superstep of the run: resume, work, commit. False if there is nothing left to do."""
    begun = time.monotonic()
    try:
        found = await checkpointer.resume(run_id(number))
    except StoreUnavailableError as error:
        log.write("unavailable", number, None, begun, detail=str(error))
        return True
    by = found.state.by if found else ""
    log.write("resumed", number, found.step if found else None, begun, by=by)
    if found is None:
        step, link = 0, links()[0]
    elif found.step == LAST_STEP:
        return False
    else:
        assert found.active[0].payload == {"by": found.state.by}
        step, link = found.step + 1, next_link(found.state.link)
    await asyncio.sleep(computes_s)
    begun = time.monotonic()
    try:
        await checkpointer.commit(
            run_id(number), step, Chain(link=link, by=name), [ActiveSnapshot(node_name="next", payload={"by": name})]
        )
    except StepConflictError as error:
        log.write("lost", number, step, begun, winner=error.winner)
    except StoreUnavailableError as error:
        log.write("unavailable", number, step, begun, detail=str(error))
    else:
        log.write("committed", number, step, begun, by=name)
    return True


async def work_on(settings: S3Settings, numbers: Iterable[int], name: str, folder: Path) -> None:
    """Finishes one run after the other, whatever others do to it."""
    log = Log(folder / f"{name}.log")
    async with checkpointer_of(settings, name) as checkpointer:
        for number in numbers:
            done = folder / f"{number}.done"
            if not done.exists():
                while await advance(checkpointer, number, name, log):
                    pass
                done.touch()


def runs_begun(folder: Path) -> list[int]:
    """The numbers of the runs that workers have finished so far, and of the one after."""
    done = sorted(int(path.stem) for path in folder.glob("*.done"))
    return [*done, done[-1] + 1 if done else 0]


async def straggle(settings: S3Settings, name: str, folder: Path) -> None:
    """Supersteps that compute for longer than the grace period, a few runs at once: steps come when they are gone."""
    log = Log(folder / f"{name}.log")
    async with checkpointer_of(settings, name) as checkpointer:

        async def late() -> None:
            while True:
                await advance(checkpointer, runs_begun(folder)[-1], name, log, computes_s=1.5 * GRACE.total_seconds())
                await asyncio.sleep(0.1)

        await asyncio.gather(*(late() for _ in range(3)))


async def clean_up(settings: S3Settings, name: str, folder: Path) -> None:
    """Prunes every run again and again, and deletes every third sooner or later, finished or not."""
    log = Log(folder / f"{name}.log")
    chance = random.Random()
    async with checkpointer_of(settings) as checkpointer:
        admin = RunAdmin(checkpointer)
        while True:
            for number in runs_begun(folder)[-12:]:
                begun = time.monotonic()
                try:
                    if number % 3 == 2 and chance.random() < 0.15:
                        log.write("deleting", number, None, begun)
                        removed = await admin.delete(run_id(number), grace=GRACE)
                        log.write("deleted", number, None, begun, states=removed.states)
                    else:
                        removed = await admin.prune(run_id(number), keep_last=KEEP, grace=GRACE)
                        log.write("pruned", number, None, begun, states=removed.states)
                except StoreUnavailableError as error:
                    log.write("unavailable", number, None, begun, detail=str(error))


def work(settings: dict[str, Any], runs: int, name: str, folder: str) -> None:
    """The whole life of a worker process."""
    asyncio.run(work_on(S3Settings.model_validate(settings), range(runs), name, Path(folder)))


def be_late(settings: dict[str, Any], name: str, folder: str) -> None:
    """The life of a process whose supersteps take long."""
    asyncio.run(straggle(S3Settings.model_validate(settings), name, Path(folder)))


def keep_clean(settings: dict[str, Any], name: str, folder: str) -> None:
    """The life of a janitor process."""
    asyncio.run(clean_up(S3Settings.model_validate(settings), name, Path(folder)))


def serve(ready: Connection) -> None:
    """An S3, until the process is killed."""
    from s3_checkpoint.testing import local_s3

    with local_s3() as s3:
        ready.send(s3.endpoint_url)
        threading.Event().wait()
