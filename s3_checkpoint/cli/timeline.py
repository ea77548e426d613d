"""`timeline`: a run as a picture, in the terminal or as a page of its own.

Of the states, two are held at a time: what a step changed is counted, or written, before the next one is read.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from statistics import median
from typing import Annotated
from uuid import UUID

import typer
from pydantic import JsonValue
from rich.table import Table
from rich.text import Text

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
    pause_between,
    timeline_row,
)
from s3_checkpoint.cli.bucket import OpenBucket, no_steps, opened
from s3_checkpoint.cli.exit_codes import ExitCode
from s3_checkpoint.cli.look import RunArgument, tell_damaged, tell_pruned, where
from s3_checkpoint.cli.output import (
    Format,
    NamespaceOption,
    OutputOption,
    chosen,
    cut,
    size,
    write_long_document,
)
from s3_checkpoint.cli.session import CommandError, Session, command
from s3_checkpoint.cli.timeline_page import Page
from s3_checkpoint.models import Origin

STEPS_SHOWN = 200
BAR = 20


@dataclass(frozen=True, slots=True)
class Moment:
    """A step of the timeline and what led to it, without the state itself."""

    step: int
    size: int
    last_modified: datetime
    origin: Origin | None
    next: str
    """The names of the tasks that run next, cut."""
    counts: Counter[str]
    """How many values of the state were added, changed and removed since the step before."""
    missing: tuple[int, int] | None
    """First and last of the steps that lie between this and the step before, and are not there."""
    pause: timedelta
    """Since the step before."""


def register(app: typer.Typer) -> None:
    """Adds the command to `app`."""
    app.command("timeline")(timeline)


@command
async def timeline(
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
            raise CommandError(no_steps(keys), ExitCode.NOT_FOUND)
        views = bucket.views.pairs(keys, numbers[-limit:], damaged)
        floor = await bucket.checkpointer.index.floor(keys)

        async def children() -> list[Fork]:
            return await _forks(session, bucket, keys.run_id) if forks else []

        if html is not None:
            with session.working("reading"):
                text = await _page(_head(keys, where(session), floor), keys, views, children)
            if text is not None:
                _write_page(session, html, text, force=force)
        elif chosen(session, output, in_pipe=Format.TABLE) == Format.TABLE:
            with session.working("reading"):
                async with aclosing(views):
                    moments = [_moment(before, view, _counted(before, view)) async for before, view in views]
                found = await children() if moments else []
            if moments:
                _draw(session, keys, moments, found)
        else:
            await write_long_document(
                session,
                _head(keys, where(session), floor),
                "steps",
                _rows(keys, views),
                lambda: _tail(children),
                output,
            )
    if limit < len(numbers):
        session.note(f"the last {limit} of {len(numbers):,} steps; --limit N shows more")
    tell_pruned(session, floor)
    return tell_damaged(session, damaged)


Children = Callable[[], Awaitable[list[Fork]]]
"""Looks for the forks of the run, when the steps have been read."""


async def _rows(keys: RunKeys, views: Pairs) -> AsyncGenerator[dict[str, JsonValue], None]:
    """The steps as JSON, for programs and for the page."""
    async with aclosing(views):
        async for before, view in views:
            yield timeline_row(keys, before, view)


def _counted(before: StepView | None, view: StepView) -> Counter[str]:
    """How many values of the state changed, by kind; the changes hold the values and are let go."""
    return (
        Counter(change.kind for root, change in changes_between(before, view) if root == "$") if before else Counter()
    )


def _moment(before: StepView | None, view: StepView, counts: Counter[str]) -> Moment:
    return Moment(
        step=view.step,
        size=view.size,
        last_modified=view.last_modified,
        origin=view.origin,
        next=cut(", ".join(task.node_name for task in view.active) or "–", 40),
        counts=counts,
        missing=missing_between(before, view),
        pause=pause_between(before, view),
    )


def _head(keys: RunKeys, place: str, floor: int | None) -> dict[str, JsonValue]:
    return {"run_id": str(keys.run_id), "namespace": keys.namespace, "bucket": place, "pruned_up_to": floor}


async def _tail(children: Children) -> dict[str, JsonValue]:
    return {"forks": [*fork_rows(await children())]}


async def _page(head: dict[str, JsonValue], keys: RunKeys, views: Pairs, children: Children) -> str | None:
    """The page of the run; None if none of its steps can be read."""
    page = Page(head)
    async with aclosing(_rows(keys, views)) as rows:
        async for row in rows:
            page.add(row)
    return page.text(await _tail(children)) if len(page) else None


def _refuse_what_is_there(path: Path) -> None:
    if os.path.lexists(path):  # a link that leads nowhere too
        raise _is_there(path)


def _write_page(session: Session, path: Path, text: str, *, force: bool) -> None:
    try:
        # "x" creates: a file or a link that has appeared in the meantime is not written through either.
        with path.open("w" if force else "x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise _is_there(path) from None
    except OSError as error:
        raise CommandError(f"{path} cannot be written: {error.strerror}", ExitCode.CONFIGURATION) from error
    session.note(f"wrote {path} ({size(len(text.encode()))}); open it in a browser")


def _is_there(path: Path) -> CommandError:
    return CommandError(f"{path} is there already; --force writes over it", ExitCode.CONFLICT)


async def _forks(session: Session, bucket: OpenBucket, parent: UUID) -> list[Fork]:
    found, searched = await bucket.views.forks(parent)
    if searched == RUNS_SEARCHED:
        session.note(f"looked for forks among the first {RUNS_SEARCHED} runs only")
    return found


def _draw(session: Session, keys: RunKeys, moments: list[Moment], forks: list[Fork]) -> None:
    first, last = moments[0], moments[-1]
    span = last.last_modified - first.last_modified
    session.say(
        f"run {keys.run_id}: {len(moments):,} steps, {first.last_modified.astimezone():%Y-%m-%d %H:%M:%S}, "
        f"{_span(span)} long"
    )
    table = Table(box=None, pad_edge=False, header_style="bold")
    for header in ("STEP", "AFTER", "SIZE", "", "CHANGES", "NEXT"):
        table.add_column(header, justify="right" if header in ("STEP", "AFTER", "SIZE") else "left", no_wrap=True)
    largest = max(1, *(moment.size for moment in moments))
    usual = median([moment.pause.total_seconds() for moment in moments[1:]] or [0.0])
    for moment in moments:
        if moment.origin is not None:
            _aside(table, "↳", Text(f"fork of {moment.origin.run_id}, step {moment.origin.step}", "cyan"))
        if moment.missing:
            one, other = moment.missing
            _aside(table, "⋮", Text(f"steps {one}–{other} missing" if other > one else f"step {one} missing", "yellow"))
        seconds = moment.pause.total_seconds()
        long_pause = seconds > 60 and seconds > 10 * usual
        table.add_row(
            Text(str(moment.step), "bold"),
            Text(f"+{_span(moment.pause)}", "yellow" if long_pause else ""),
            size(moment.size),
            Text("█" * max(1, round(BAR * moment.size / largest)), "blue"),
            _counts(moment.counts),
            Text(moment.next),
        )
        for fork in forks:
            if fork.step == moment.step:
                _aside(table, "↳", Text(f"forked as {fork.run_id}", "cyan"))
    session.out.print(table)


def _aside(table: Table, sign: str, text: Text) -> None:
    """A line that is no step."""
    table.add_row(sign, "", "", "", "", text)


def _counts(counts: Counter[str]) -> Text:
    """How many values of the state were added, changed and removed."""
    text = Text()
    for kind, sign, style in (("added", "+", "green"), ("changed", "~", "yellow"), ("removed", "-", "red")):
        if counts[kind]:
            text.append(f"{sign}{counts[kind]} ", style)
    return text


def _span(span: timedelta) -> str:
    seconds = span.total_seconds()
    for unit, length in (("d", 86400.0), ("h", 3600.0), ("min", 60.0)):
        if seconds >= length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.0f} s"
