"""The demonstration as a whole: the run, what is stored of it, and the proof that its result is right."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from uuid import UUID

from s3_checkpoint._format.keys import RunKeys
from s3_checkpoint._s3.client import client_for
from s3_checkpoint.connection import connect
from s3_checkpoint.demo.graph import Census, Report, count_identifiers, standard_library, summarize
from s3_checkpoint.demo.plan import Plan, Tally
from s3_checkpoint.demo.processes import local_queue, local_settings, server
from s3_checkpoint.demo.stage import Stage, Watcher
from s3_checkpoint.object_store import ListedObject
from s3_checkpoint.run_admin import RunAdmin
from s3_checkpoint.run_models import HistoryEntry
from s3_checkpoint.settings import S3Settings


@dataclass(frozen=True, slots=True)
class Performance:
    """All there is to tell afterwards."""

    run_id: UUID
    bucket: str
    local: bool
    """Whether the bucket was one of the demonstration's own, and is gone."""
    seed: int
    tally: Tally
    steps: list[HistoryEntry[Census]]
    """As stored, ascending."""
    keys: list[ListedObject]
    report: Report | None
    """What the run found."""
    direct: Report
    """What one plain pass over the same files finds."""
    equal: bool
    """Whether the two agree, in every single count."""
    seconds: float


async def perform(
    files: Sequence[str], settings: S3Settings | None, *, workers: int, kills: int, seed: int, watcher: Watcher
) -> Performance:
    """Plays the run and looks at what is stored. Without `settings`, in a bucket of its own on this machine.

    The queue is always on this machine: a configured one may have workers that cannot see these files. Raises the
    errors of the checkpointer, and `RuntimeError` if a process does not do as it should. No process is left behind.
    """
    started = time.monotonic()
    for name in ("NO_PROXY", "no_proxy"):  # the servers are on this machine, whatever proxy leads elsewhere
        os.environ[name] = ",".join(filter(None, (os.environ.get(name), "127.0.0.1")))
    files = files or standard_library()
    plan = Plan.draw(len(files), kills, seed)
    async with AsyncExitStack() as stack:
        url = await stack.enter_async_context(server())
        local = settings is None
        if settings is None:
            settings = local_settings(url)
            async with client_for(settings) as client:
                await client.create_bucket(Bucket=settings.bucket)
        queue, queue_url = await stack.enter_async_context(local_queue(url))
        watcher.line(f"S3 and SQS at {url}" if local else f"bucket {settings.bucket}; SQS at {url}")
        stage = Stage(queue, queue_url, settings, plan, watcher)
        checkpointer = await stack.enter_async_context(connect(Census, settings))
        await checkpointer.resume(stage.run_id)  # a bucket that cannot be used is told here, before any worker starts
        await stage.play(files, workers)

        steps = [entry async for entry in RunAdmin(checkpointer).history(stage.run_id)][::-1]
        run = RunKeys(settings.prefix, stage.run_id)
        page = await checkpointer.objects.store.list(run.run)
    direct = await asyncio.to_thread(count_identifiers, files)
    final = steps[-1].state
    return Performance(
        stage.run_id,
        settings.bucket,
        local,
        seed,
        stage.tally,
        steps,
        list(page.objects),
        final.report,
        summarize(len(files), direct),
        final.counts == dict(direct) and final.report == summarize(len(files), direct),
        time.monotonic() - started,
    )
