"""The bucket as a command uses it: open, with run ids that may be shortened, and steps read as they are stored."""

from __future__ import annotations

import re
import shlex
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any

from s3_checkpoint._format.keys import RunKeys, encode_segment, parse_run_prefix, runs_prefix
from s3_checkpoint._format.thread_keys import threads_prefix
from s3_checkpoint._runs.grace import GRACE
from s3_checkpoint._runs.retention import namespaces_of
from s3_checkpoint._views.run_views import RunViews, StepView
from s3_checkpoint.checkpointer import S3Checkpointer
from s3_checkpoint.cli.exit_codes import CommandError, ExitCode
from s3_checkpoint.connection import connect
from s3_checkpoint.object_store import ObjectStore
from s3_checkpoint.run_admin import RunAdmin
from s3_checkpoint.settings import S3Settings

if TYPE_CHECKING:
    from s3_checkpoint.langgraph import S3Saver, ThreadAdmin

THREADS_EXTRA = "s3-checkpoint[cli,langgraph]"
_SHORTENED = re.compile(r"[0-9a-f]{1,8}(?:-[0-9a-f]{0,4}){0,3}(?:-[0-9a-f]{0,12})?")


class OpenBucket:
    """An open checkpointer for any JSON, and what commands ask of it."""

    saver: S3Saver
    """The saver behind `threads`."""

    def __init__(self, checkpointer: S3Checkpointer[Any], settings: S3Settings, grace: timedelta = GRACE) -> None:
        self.checkpointer = checkpointer
        self._settings, self._grace = settings, grace
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
        given, text = text, text.strip().lower()
        if not _SHORTENED.fullmatch(text):
            known = given != "" and await self.is_beginning_of_thread(given)
            hint = f"; `s3-checkpoint thread show {shlex.quote(given)}` shows a LangGraph thread" if known else ""
            raise CommandError(f"{given!r} is not a run id, nor the beginning of one{hint}", ExitCode.USAGE)
        prefix = self.checkpointer.prefix
        whole = parse_run_prefix(prefix, f"{runs_prefix(prefix)}{text}/")
        if whole is not None:
            return RunKeys(prefix, whole, namespace)
        page = await self.store.list(runs_prefix(prefix) + text, delimiter="/")
        found = [run_id for group in page.prefixes if (run_id := parse_run_prefix(prefix, group)) is not None]
        if not found:
            if await self.is_beginning_of_thread(text):
                hint = f"but a LangGraph thread's does: `s3-checkpoint thread show {text}`"
            else:
                hint = "`s3-checkpoint runs` lists them"
            raise CommandError(f"no run's id begins with {text!r}; {hint}", ExitCode.NOT_FOUND)
        if len(found) > 1:
            some = ", ".join(str(run_id) for run_id in found[:3])
            raise CommandError(f"{len(found)} runs' ids begin with {text!r} ({some}, …); add to it", ExitCode.USAGE)
        return RunKeys(prefix, found[0], namespace)

    async def newest(self, run: RunKeys) -> int:
        """The newest step of the run; `CommandError` if it has none."""
        step = await self.checkpointer.index.latest(run)
        if step is None:
            raise await self.no_steps(run)
        return step

    async def view(self, run: RunKeys, step: int | None = None) -> StepView:
        """A step of the run, or the newest; `CommandError` if it is not there. 2 GETs, and finding the newest."""
        step = await self.newest(run) if step is None else step
        found = await self.views.step(run, step)
        if found is None:
            if await self.checkpointer.index.latest(run) is None:
                raise await self.no_steps(run)
            raise CommandError(
                f"run {run.run_id} has no step {step}; `s3-checkpoint steps {run.run_id}` lists them",
                ExitCode.NOT_FOUND,
            )
        return found

    async def no_steps(self, run: RunKeys) -> CommandError:
        """What to say of a run without steps here, and where to look instead. 2 LISTs."""
        names = [name for name in await namespaces_of(self.store, run) if name]
        where = f" in namespace {run.namespace!r}" if run.namespace else ""
        if names:
            hint = f"it has some in --namespace {', '.join(map(repr, names[:3]))}{', …' if names[3:] else ''}"
        elif await self.is_beginning_of_thread(str(run.run_id)):
            hint = f"a LangGraph thread has this id: `s3-checkpoint thread show {run.run_id}`"
        elif run.namespace:
            hint = f"`s3-checkpoint steps {run.run_id}` lists those of the graph itself"
        else:
            hint = "`s3-checkpoint runs` lists the runs there are"
        return CommandError(f"run {run.run_id} has no steps{where}; {hint}", ExitCode.NOT_FOUND)

    async def is_beginning_of_thread(self, text: str) -> bool:
        """Whether a LangGraph thread's id begins with `text`. 1 LIST."""
        begins = threads_prefix(self.checkpointer.prefix) + encode_segment(text)
        return bool((await self.store.list(begins, limit=1)).keys)

    @cached_property
    def threads(self) -> ThreadAdmin:
        """The operator's calls on the threads in this bucket. `CommandError` if LangGraph's package is missing."""
        try:
            from s3_checkpoint.langgraph import S3Saver, ThreadAdmin
        except ModuleNotFoundError as missing:
            message = f"threads need a package: pip install '{THREADS_EXTRA}'"
            raise CommandError(message, ExitCode.CONFIGURATION) from missing
        self.saver = S3Saver(
            self.store,
            prefix=self.checkpointer.prefix,
            compression=self._settings.compression,
            max_state_bytes=self._settings.max_state_bytes,
            grace=self._grace,
            cache_bytes=0,  # a command reads nothing twice, and what it copies it reads back from the bucket
        )
        return ThreadAdmin(self.saver)

    async def thread(self, text: str) -> str:
        """The thread that `text` names: a whole id, or the beginning of just one thread's id. 2 LISTs, or 3.

        `CommandError` for what begins no id, or several.
        """
        found = await self.threads.find(text, limit=4)
        if found and (found[0] == text or len(found) == 1):
            return found[0]
        if found:
            some = ", ".join(map(repr, found[:3]))
            raise CommandError(f"several threads' ids begin with {text!r} ({some}, …); add to it", ExitCode.USAGE)
        raise CommandError(
            f"no thread's id begins with {text!r}; `s3-checkpoint threads` lists them", ExitCode.NOT_FOUND
        )

    async def checkpoint_id(self, thread_id: str, text: str, namespace: str = "") -> str:
        """The checkpoint of the thread whose id is `text`, or begins or ends so. 1 LIST per 1,000 objects.

        `CommandError` for what is no checkpoint's, or several's.
        """
        ids = await self.threads.checkpoint_ids(thread_id, namespace=namespace)
        found = [one for one in ids if one == text] or [one for one in ids if text and one.startswith(text)]
        found = found or [one for one in ids if text and one.endswith(text)]
        if len(found) == 1:
            return found[0]
        if found:
            raise CommandError(f"{len(found)} checkpoints' ids begin or end with {text!r}; add to it", ExitCode.USAGE)
        if not ids:
            raise await self.no_checkpoints(thread_id, namespace)
        hint = f"`s3-checkpoint thread history {shlex.quote(thread_id)}` lists them"
        raise CommandError(f"thread {thread_id!r} has no checkpoint {text!r}; {hint}", ExitCode.NOT_FOUND)

    async def no_checkpoints(self, thread_id: str, namespace: str) -> CommandError:
        """What to say of a thread without checkpoints in a namespace, and where to look instead. 1 LIST."""
        names = [name for name in await self.threads.namespaces(thread_id) if name != namespace]
        where = f"in namespace {namespace!r}" if namespace else "of the graph itself"
        hint = ", ".join(f"--namespace {shlex.quote(name)}" if name else "the graph itself" for name in names[:3])
        told = f"it has some: {hint}{', …' if names[3:] else ''}" if names else "nothing is left of it but writes"
        return CommandError(f"thread {thread_id!r} has no checkpoints {where}; {told}", ExitCode.NOT_FOUND)


@asynccontextmanager
async def opened(settings: S3Settings, grace: timedelta = GRACE) -> AsyncIterator[OpenBucket]:
    """The bucket of `settings`, open for the length of the block. `grace`: of what is done to threads. No request."""
    async with connect(Any, settings) as checkpointer:
        yield OpenBucket(checkpointer, settings, grace)
