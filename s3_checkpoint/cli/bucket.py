"""The bucket as a command uses it: open, with run ids that may be shortened, and steps read as they are stored."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from s3_checkpoint._format.keys import RunKeys, parse_run_prefix, runs_prefix
from s3_checkpoint._views.run_views import RunViews, StepView
from s3_checkpoint.checkpointer import S3Checkpointer
from s3_checkpoint.cli.exit_codes import CommandError, ExitCode
from s3_checkpoint.connection import connect
from s3_checkpoint.object_store import ObjectStore
from s3_checkpoint.run_admin import RunAdmin
from s3_checkpoint.settings import S3Settings

_SHORTENED = re.compile(r"[0-9a-f]{1,8}(?:-[0-9a-f]{0,4}){0,3}(?:-[0-9a-f]{0,12})?")


class OpenBucket:
    """An open checkpointer for any JSON, and what commands ask of it."""

    def __init__(self, checkpointer: S3Checkpointer[Any], settings: S3Settings) -> None:
        self.checkpointer = checkpointer
        self.admin: RunAdmin[Any] = RunAdmin(checkpointer)
        self.views: RunViews = RunViews(checkpointer, settings.max_state_bytes)

    @property
    def store(self) -> ObjectStore:
        """The store underneath."""
        return self.checkpointer.objects.store

    async def run(self, text: str, namespace: str = "") -> RunKeys:
        """The run that `text` names: a whole id (no request), or the beginning of just one run's id (1 LIST).

        `CommandError` for what cannot begin a run id, begins none, or begins several.
        """
        text = text.strip().lower()
        if not _SHORTENED.fullmatch(text):
            raise CommandError(f"{text!r} is not a run id, nor the beginning of one", ExitCode.USAGE)
        prefix = self.checkpointer.prefix
        whole = parse_run_prefix(prefix, f"{runs_prefix(prefix)}{text}/")
        if whole is not None:
            return RunKeys(prefix, whole, namespace)
        page = await self.store.list(runs_prefix(prefix) + text, delimiter="/")
        found = [run_id for group in page.prefixes if (run_id := parse_run_prefix(prefix, group)) is not None]
        if not found:
            raise CommandError(f"no run's id begins with {text!r}; `s3-checkpoint runs` lists them", ExitCode.NOT_FOUND)
        if len(found) > 1:
            some = ", ".join(str(run_id) for run_id in found[:3])
            raise CommandError(f"{len(found)} runs' ids begin with {text!r} ({some}, …); add to it", ExitCode.USAGE)
        return RunKeys(prefix, found[0], namespace)

    async def newest(self, run: RunKeys) -> int:
        """The newest step of the run; `CommandError` if it has none."""
        step = await self.checkpointer.index.latest(run)
        if step is None:
            raise CommandError(no_steps(run), ExitCode.NOT_FOUND)
        return step

    async def view(self, run: RunKeys, step: int | None = None) -> StepView:
        """A step of the run, or the newest; `CommandError` if it is not there. 2 GETs, and finding the newest."""
        step = await self.newest(run) if step is None else step
        found = await self.views.step(run, step)
        if found is None:
            if await self.checkpointer.index.latest(run) is None:
                raise CommandError(no_steps(run), ExitCode.NOT_FOUND)
            raise CommandError(
                f"run {run.run_id} has no step {step}; `s3-checkpoint steps {run.run_id}` lists them",
                ExitCode.NOT_FOUND,
            )
        return found


def no_steps(run: RunKeys) -> str:
    """What to say of a run without steps."""
    where = f" in namespace {run.namespace!r}" if run.namespace else ""
    return f"run {run.run_id} has no steps{where}; `s3-checkpoint runs` lists the runs there are"


@asynccontextmanager
async def opened(settings: S3Settings) -> AsyncIterator[OpenBucket]:
    """The bucket of `settings`, open for the length of the block. No request."""
    async with connect(Any, settings) as checkpointer:
        yield OpenBucket(checkpointer, settings)
