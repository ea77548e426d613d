"""`watch`: a run or a thread followed, a line for each step as it is committed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer
from pydantic import JsonValue
from rich.text import Text

from s3_checkpoint._format.json_diff import Change
from s3_checkpoint._format.keys import RunKeys, parse_run_prefix, runs_prefix
from s3_checkpoint._printable import printable
from s3_checkpoint._views import run_views
from s3_checkpoint._views.run_views import StepView
from s3_checkpoint.cli.arguments import Format, NamespaceOption, OutputOption, duration
from s3_checkpoint.cli.bucket import OpenBucket, opened
from s3_checkpoint.cli.drawing import change_counts
from s3_checkpoint.cli.exit_codes import CommandError, ExitCode
from s3_checkpoint.cli.output import as_json, chosen, cut, size, when, write_line
from s3_checkpoint.cli.session import Session, ended_by_ctrl_c, session_command
from s3_checkpoint.errors import StateDecodingError, StoreUnavailableError
from s3_checkpoint.object_store import pages

if TYPE_CHECKING:
    from s3_checkpoint.langgraph import CheckpointView, ThreadAdmin

ViewT = TypeVar("ViewT")
INTERVAL = timedelta(seconds=2)
LEAST_INTERVAL_S = 0.1
LIST_PRICE = 0.005 / 1000
"""US dollars for a LIST request. Source: Amazon S3 pricing, S3 Standard, us-east-1."""

Pause = Callable[[], Awaitable[None]]
"""Waits until it is time to look again."""


@session_command
async def command(
    session: Session,
    *,
    what: Annotated[str, typer.Argument(metavar="RUN|THREAD", help="Run or thread id, or the beginning of one.")],
    thread: Annotated[bool, typer.Option("--thread", help="It is a thread, also if a run's id begins so.")] = False,
    interval: Annotated[
        timedelta,
        typer.Option(
            "--interval", parser=duration, metavar="SPAN", help="Look so often: 1 LIST each.", show_default="2s"
        ),
    ] = INTERVAL,
    limit: Annotated[int | None, typer.Option("--limit", "-n", min=1, help="Stop after so many lines.")] = None,
    namespace: NamespaceOption = "",
    output: OutputOption = None,
) -> None:
    """Follow a run or a thread: its newest step, then each one as it is committed, until Ctrl-C.

    Each look is 1 LIST behind the last step seen; each step shown is 1 GET more, 2 where its tasks or values are in
    objects of their own.
    """
    seconds = interval.total_seconds()
    if seconds < LEAST_INTERVAL_S:
        raise CommandError(f"--interval must be {LEAST_INTERVAL_S} s or more", ExitCode.USAGE)
    lines = 0

    async def pause() -> None:
        session.out.file.flush()
        await asyncio.sleep(seconds)

    async with opened(session.settings) as bucket:
        followed = await (bucket.thread(what) if thread else _run_or_thread(bucket, what, namespace))
        table = chosen(session, output) == Format.TABLE
        if isinstance(followed, str):
            found = _thread_lines(new_checkpoints(bucket.threads, followed, namespace, pause), table=table)
            name = f"thread {followed}"
        else:
            found = _run_lines(followed, new_steps(bucket, followed, pause), table=table)
            name = f"run {followed.run_id}"
        an_hour = 3600 / seconds
        session.note(
            f"watching {name} every {seconds:g} s until Ctrl-C: {an_hour:,.0f} LISTs an hour, "
            f"about ${an_hour * LIST_PRICE:.3f} on S3 Standard"
        )
        with ended_by_ctrl_c():
            async with aclosing(found):
                async for line in found:
                    if isinstance(line, Text):
                        session.out.print(line, soft_wrap=True)
                    else:
                        write_line(session, line)
                    session.out.file.flush()
                    lines += 1
                    if lines == limit:
                        return
    session.note(f"stopped after {lines:,} lines")


async def _run_or_thread(bucket: OpenBucket, text: str, namespace: str) -> RunKeys | str:
    """The run that is meant; a thread's id if only that of a thread begins so. `CommandError` if none does."""
    prefix = bucket.checkpointer.prefix
    begins = runs_prefix(prefix) + text.strip().lower()
    page = await bucket.store.list(begins, delimiter="/")
    is_run = any(parse_run_prefix(prefix, group) is not None for group in page.prefixes)
    if not is_run and await bucket.is_beginning_of_thread(text):
        return await bucket.thread(text)
    try:
        return await bucket.run(text, namespace)
    except CommandError as error:
        if is_run:
            raise
        lists = "`s3-checkpoint runs` and `s3-checkpoint threads` list them"
        raise CommandError(f"no run's and no thread's id begins with {text!r}; {lists}", error.code) from error


async def new_steps(bucket: OpenBucket, keys: RunKeys, pause: Pause) -> AsyncGenerator[StepView | str, None]:
    """The newest step of a run, and then every one behind it as it is committed; or what is wrong with one, as text.

    Requests:
        What finding the newest step takes; then 1 LIST for each look, and those of a step shown.
    """
    newest = await bucket.checkpointer.index.latest(keys)
    numbers = [newest] if newest is not None else []
    while True:
        for number in numbers:
            newest = number
            try:
                view = await bucket.views.step(keys, number)
            except StateDecodingError as error:
                yield str(error)
                continue
            if view is not None:
                yield view
        await pause()
        try:
            numbers = await _steps_behind(bucket, keys, newest)
        except StoreUnavailableError as error:
            numbers = []
            yield f"no answer, trying again: {error.detail}"


async def _steps_behind(bucket: OpenBucket, keys: RunKeys, newest: int | None) -> list[int]:
    after = keys.state(newest) if newest is not None else ""
    found: list[int] = []
    async for page in pages(bucket.store, keys.steps, start_after=after):
        steps = (keys.parse_state(key) for key in page.keys)
        found += [step for step in steps if step is not None and (newest is None or step > newest)]
    return sorted(found)


async def new_checkpoints(
    admin: ThreadAdmin, thread_id: str, namespace: str, pause: Pause
) -> AsyncGenerator[CheckpointView | str, None]:
    """The newest checkpoint of a thread, and every one after it as it is put; again when it has new pending writes.

    Requests:
        1 LIST for each look, and those of `ThreadAdmin.checkpoint` for each shown.
    """
    seen: tuple[str, int] | None = None
    while True:
        try:
            since = await admin.checkpoints_since(thread_id, seen[0] if seen else None, namespace=namespace)
            for one in reversed(since):
                if one != seen:
                    seen = one
                    view = await admin.checkpoint(thread_id, one[0], namespace=namespace)
                    if view is not None:
                        yield view
        except StoreUnavailableError as error:
            yield f"no answer, trying again: {error.detail}"
        await pause()


def _run_lines(
    keys: RunKeys, views: AsyncGenerator[StepView | str, None], *, table: bool
) -> AsyncGenerator[Text | str, None]:
    def line(view: StepView, counts: Text) -> Text:
        tasks = ", ".join(task.node_name for task in view.active) or "no tasks"
        time = when(view.last_modified.isoformat())
        return _line(time, f"step {view.step}", size(view.size), counts, f"next: {cut(tasks, 200)}")

    return _lines(views, run_views.changes_between, line, lambda view: view.as_row(keys.run_id), table=table)


def _thread_lines(
    views: AsyncGenerator[CheckpointView | str, None], *, table: bool
) -> AsyncGenerator[Text | str, None]:
    from s3_checkpoint.langgraph import thread_views

    def line(view: CheckpointView, counts: Text) -> Text:
        asked = [value for write in view.interrupts for value in thread_views.asked(write.value)]
        waits = f", waits for {cut(as_json(asked[0] if len(asked) == 1 else asked), 200)}" if asked else ""
        nodes = "encrypted" if view.remaining is None else ", ".join(view.remaining) or "no nodes"
        step = "step –" if view.step is None else f"step {view.step}"
        told = f"{view.status.value}, next: {cut(nodes, 200)}{waits}"
        return _line(when(view.saved_at.isoformat()), step, size(view.size), counts, told)

    def row(view: CheckpointView) -> dict[str, JsonValue]:
        return {**view.as_row(), "status": view.status.value}

    return _lines(views, thread_views.changes_between, line, row, table=table)


async def _lines(
    views: AsyncGenerator[ViewT | str, None],
    changes_between: Callable[[ViewT, ViewT], list[tuple[str, Change]]],
    line: Callable[[ViewT, Text], Text],
    row: Callable[[ViewT], dict[str, JsonValue]],
    *,
    table: bool,
) -> AsyncGenerator[Text | str, None]:
    before: ViewT | None = None
    async with aclosing(views):
        async for view in views:
            if isinstance(view, str):
                yield Text(printable(view), "yellow") if table else as_json({"error": view})
                continue
            changes = changes_between(before, view) if before is not None else []
            if table:
                yield line(view, change_counts(changes))
            else:
                yield as_json({**row(view), "changes": [one.as_row(root) for root, one in changes]})
            before = view


def _line(time: str, step: str, stored: str, counts: Text, told: str) -> Text:
    line = Text.assemble((time, "dim"), "  ", (step, "bold"), "  ", stored, "  ", counts)
    return line.append(printable(told))
