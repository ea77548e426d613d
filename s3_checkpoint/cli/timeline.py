"""`timeline`: a run as a picture, in the terminal or as a page of its own."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Annotated

import typer
from pydantic import JsonValue

from s3_checkpoint._format.keys import RunKeys
from s3_checkpoint._runs.fork import Fork
from s3_checkpoint._views.run_views import (
    RUNS_SEARCHED,
    Damaged,
    Pairs,
    StepView,
    changes_between,
    fork_rows,
    missing_between,
    timeline_row,
)
from s3_checkpoint.cli.arguments import Format, NamespaceOption, OutputOption, RunArgument
from s3_checkpoint.cli.bucket import opened
from s3_checkpoint.cli.drawing import Aside, Entry, change_counts, draw
from s3_checkpoint.cli.exit_codes import CommandError, ExitCode
from s3_checkpoint.cli.output import chosen, cut, size, write_long_document
from s3_checkpoint.cli.progress import Counter
from s3_checkpoint.cli.session import Session, session_command
from s3_checkpoint.cli.step_notes import tell_damaged, tell_pruned
from s3_checkpoint.web.timeline_page import Page

STEPS_SHOWN = 200


@session_command
async def command(
    session: Session,
    *,
    run: RunArgument,
    html: Annotated[
        Path | None, typer.Option("--html", help="Write one self-contained page to this file, to step through.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="With --html: write over a file that is there.")] = False,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="How many steps back.")] = STEPS_SHOWN,
    forks: Annotated[bool, typer.Option(help="Look for runs forked from this one: 2 requests per run.")] = True,
    namespace: NamespaceOption = "",
    output: OutputOption = None,
) -> ExitCode | None:
    """Draw a run: its steps over time, with size, what changed, the tasks that run next, gaps and forks."""
    if html is not None and not force:
        _refuse_what_is_there(html)
    damaged: list[Damaged] = []
    async with opened(session.settings) as bucket:
        keys = await bucket.run(run, namespace)
        numbers = await bucket.checkpointer.index.steps(keys)
        if not numbers:
            raise await bucket.no_steps(keys)
        views = bucket.views.pairs(keys, numbers[-limit:], damaged)
        floor = await bucket.checkpointer.index.floor(keys)
        head: dict[str, JsonValue] = {
            "run_id": str(keys.run_id),
            "namespace": keys.namespace,
            "bucket": session.where,
            "pruned_up_to": floor,
        }

        async def children() -> list[Fork]:
            if not forks:
                return []
            found, searched = await bucket.views.forks(keys.run_id)
            if searched == RUNS_SEARCHED:
                session.note(f"looked for forks among the first {RUNS_SEARCHED} runs only")
            return found

        async def tail() -> dict[str, JsonValue]:
            return {"forks": [*fork_rows(await children())]}

        if html is not None:
            with session.counter("reading steps", len(numbers[-limit:])) as counter:
                page = await _page(head, keys, views, counter)
                text = page.text(await tail()) if len(page) else None
            if text is not None:
                _write_page(session, html, text, force=force)
        elif chosen(session, output, in_pipe=Format.TABLE) == Format.TABLE:
            with session.counter("reading steps", len(numbers[-limit:])) as counter:
                lines = await _lines(views, counter)
                found = await children() if lines else []
            if lines:
                shown = sum(isinstance(line, Entry) for line in lines)
                count = f"{shown:,}" if len(numbers) <= limit else f"last {limit:,} of {len(numbers):,}"
                draw(session, f"run {keys.run_id}: {count} steps", list(_with_forks(lines, found)))
        else:
            await write_long_document(session, head, "steps", _rows(keys, views), tail, output)
    if limit < len(numbers):
        session.note(f"the last {limit} of {len(numbers):,} steps; --limit N shows more")
    tell_pruned(session, floor)
    return tell_damaged(session, damaged)


async def _rows(keys: RunKeys, views: Pairs) -> AsyncGenerator[dict[str, JsonValue], None]:
    """The steps as JSON, for programs and for the page."""
    async with aclosing(views):
        async for before, view in views:
            yield timeline_row(keys, before, view)


async def _lines(views: Pairs, counter: Counter) -> list[Entry | Aside]:
    lines: list[Entry | Aside] = []
    async with aclosing(views):
        async for before, view in views:
            lines += _lines_of(before, view)
            counter.add()
    return lines


def _lines_of(before: StepView | None, view: StepView) -> Iterator[Entry | Aside]:
    if view.origin is not None:
        yield Aside("↳", f"fork of {view.origin.run_id}, step {view.origin.step}", "cyan")
    if missing := missing_between(before, view):
        one, other = missing
        yield Aside("⋮", f"steps {one}–{other} missing" if other > one else f"step {one} missing", "yellow")
    changes = changes_between(before, view) if before else []
    nodes = ", ".join(task.node_name for task in view.active) or "–"
    yield Entry(str(view.step), view.last_modified, view.size, change_counts(changes), cut(nodes, 400))


def _with_forks(lines: list[Entry | Aside], forks: list[Fork]) -> Iterator[Entry | Aside]:
    for line in lines:
        yield line
        for fork in forks:
            if isinstance(line, Entry) and line.name == str(fork.step):
                yield Aside("↳", f"forked as {fork.run_id}", "cyan")


async def _page(head: dict[str, JsonValue], keys: RunKeys, views: Pairs, counter: Counter) -> Page:
    """The page of the run, but for what comes last; empty if none of its steps can be read."""
    page = Page(head)
    async with aclosing(_rows(keys, views)) as steps:
        async for row in steps:
            page.add(row)
            counter.add()
    return page


def _refuse_what_is_there(path: Path) -> None:
    if os.path.lexists(path):  # a link that leads nowhere too
        raise _is_there(path)


def _write_page(session: Session, path: Path, text: str, *, force: bool) -> None:
    try:
        # "x" creates: a file or a link that has appeared since then is not written through either.
        with path.open("w" if force else "x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise _is_there(path) from None
    except OSError as error:
        raise CommandError(f"{path} cannot be written: {error.strerror}", ExitCode.CONFIGURATION) from error
    session.note(f"wrote {path} ({size(len(text.encode()))}); open it in a browser")


def _is_there(path: Path) -> CommandError:
    return CommandError(f"{path} is there already; --force writes over it", ExitCode.CONFLICT)
