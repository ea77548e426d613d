"""`timeline`: a run as a picture, in the terminal or as a page of its own."""

from __future__ import annotations

from contextlib import aclosing
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from statistics import median
from typing import Annotated
from uuid import UUID

import typer
from pydantic import JsonValue
from rich.table import Table
from rich.text import Text

from s3_checkpoint.cli.bucket import OpenBucket, StepView, no_steps, opened
from s3_checkpoint.cli.compare import changes_between
from s3_checkpoint.cli.exit_codes import ExitCode
from s3_checkpoint.cli.json_diff import Change
from s3_checkpoint.cli.look import Damaged, RunArgument, tell_damaged, views_of, where
from s3_checkpoint.cli.output import Format, NamespaceOption, OutputOption, chosen, cut, size, write_document
from s3_checkpoint.cli.session import CommandError, Session, command
from s3_checkpoint.cli.timeline_page import page
from s3_checkpoint.keys import RunKeys
from s3_checkpoint.lineage import Fork, fork_of
from s3_checkpoint.read_ahead import ReadAhead, each

STEPS_SHOWN = 200
RUNS_SEARCHED = 500
BAR = 20


@dataclass(frozen=True, slots=True)
class Moment:
    """A step of the timeline, and what led to it."""

    view: StepView
    changes: list[tuple[str, Change]]
    """Against the step before; empty for the first."""
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
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="How many steps back.")] = STEPS_SHOWN,
    forks: Annotated[bool, typer.Option(help="Look for runs forked from this one: 2 requests per run.")] = True,
    namespace: NamespaceOption = "",
    output: OutputOption = None,
) -> ExitCode | None:
    """Draw a run: its steps over time, with size, what changed, the tasks that run next, gaps and forks."""
    async with opened(session.settings) as bucket:
        keys = await bucket.run(run, namespace)
        numbers = await bucket.checkpointer.index.steps(keys)
        if not numbers:
            raise CommandError(no_steps(keys), ExitCode.NOT_FOUND)
        with session.working("reading"):
            moments, damaged = await _moments(bucket, keys, numbers[-limit:])
            children = await _forks(session, bucket, keys.run_id) if forks else []
    if limit < len(numbers):
        session.note(f"the last {limit} of {len(numbers):,} steps; --limit N shows more")
    unreadable = tell_damaged(session, damaged)
    if not moments:
        return unreadable
    if html is not None:
        text = page(as_document(keys, where(session), moments, children))
        try:
            html.write_text(text, encoding="utf-8")
        except OSError as error:
            raise CommandError(f"{html} cannot be written: {error.strerror}", ExitCode.CONFIGURATION) from error
        session.note(f"wrote {html} ({size(len(text.encode()))}); open it in a browser")
    elif chosen(session, output, in_pipe=Format.TABLE) == Format.TABLE:
        _draw(session, keys, moments, children)
    else:
        write_document(session, as_document(keys, where(session), moments, children), output)
    return unreadable


async def _moments(bucket: OpenBucket, keys: RunKeys, numbers: list[int]) -> tuple[list[Moment], list[Damaged]]:
    moments: list[Moment] = []
    damaged: list[Damaged] = []
    async with aclosing(views_of(bucket, keys, numbers)) as views:
        async for view in views:
            if isinstance(view, Damaged):
                damaged.append(view)
            else:
                moments.append(_moment(moments[-1].view if moments else None, view))
    return moments, damaged


def _moment(before: StepView | None, view: StepView) -> Moment:
    if before is None:
        return Moment(view, [], None, timedelta(0))
    missing = (before.step + 1, view.step - 1) if view.step > before.step + 1 else None
    return Moment(view, changes_between(before, view), missing, view.last_modified - before.last_modified)


async def _forks(session: Session, bucket: OpenBucket, parent: UUID) -> list[Fork]:
    runs: list[UUID] = []
    async for run_id in bucket.admin.runs():
        if len(runs) == RUNS_SEARCHED:
            session.note(f"looked for forks among the first {RUNS_SEARCHED} runs only")
            break
        if run_id != parent:
            runs.append(run_id)

    async def one(run_id: UUID) -> Fork | None:
        return await fork_of(bucket.store, RunKeys(bucket.checkpointer.prefix, run_id), parent)

    async with aclosing(ReadAhead(each(runs), one, ahead=16)) as found:
        return [fork async for fork in found if fork is not None]


def as_document(keys: RunKeys, place: str, moments: list[Moment], forks: list[Fork]) -> JsonValue:
    """The timeline as JSON, for programs and for the page."""
    return {
        "run_id": str(keys.run_id),
        "namespace": keys.namespace,
        "bucket": place,
        "steps": [
            {
                **moment.view.as_row(keys.run_id),
                "changes": [_change(root, change) for root, change in moment.changes],
                "missing_before": list(moment.missing) if moment.missing else None,
                "pause_s": moment.pause.total_seconds(),
            }
            for moment in moments
        ],
        "forks": [{"run_id": str(fork.run_id), "step": fork.step} for fork in forks],
    }


def _change(root: str, change: Change) -> dict[str, JsonValue]:
    """A change; one of the state with its path as keys too, which for odd keys are surer than text."""
    row = change.as_row(root)
    return row | {"at": list(change.path)} if root == "$" else row


def _draw(session: Session, keys: RunKeys, moments: list[Moment], forks: list[Fork]) -> None:
    first, last = moments[0].view, moments[-1].view
    span = last.last_modified - first.last_modified
    session.out.print(
        f"run {keys.run_id}: {len(moments):,} steps, {first.last_modified.astimezone():%Y-%m-%d %H:%M:%S}, "
        f"{_span(span)} long",
        soft_wrap=True,
        highlight=False,
    )
    table = Table(box=None, pad_edge=False, header_style="bold")
    for header in ("STEP", "AFTER", "SIZE", "", "CHANGES", "NEXT"):
        table.add_column(header, justify="right" if header in ("STEP", "AFTER", "SIZE") else "left", no_wrap=True)
    largest = max(moment.view.size for moment in moments)
    usual = median([moment.pause.total_seconds() for moment in moments[1:]] or [0.0])
    for moment in moments:
        view = moment.view
        if view.origin is not None:
            _aside(table, "↳", Text(f"fork of {view.origin.run_id}, step {view.origin.step}", "cyan"))
        if moment.missing:
            one, other = moment.missing
            _aside(table, "⋮", Text(f"steps {one}–{other} missing" if other > one else f"step {one} missing", "yellow"))
        seconds = moment.pause.total_seconds()
        long_pause = seconds > 60 and seconds > 10 * usual
        table.add_row(
            Text(str(view.step), "bold"),
            Text(f"+{_span(moment.pause)}", "yellow" if long_pause else ""),
            size(view.size),
            Text("█" * max(1, round(BAR * view.size / largest)), "blue"),
            _counts(moment.changes),
            cut(", ".join(task.node_name for task in view.active) or "–", 40),
        )
        for fork in forks:
            if fork.step == view.step:
                _aside(table, "↳", Text(f"forked as {fork.run_id}", "cyan"))
    session.out.print(table)


def _aside(table: Table, sign: str, text: Text) -> None:
    """A line that is no step."""
    table.add_row(sign, "", "", "", "", text)


def _counts(changes: list[tuple[str, Change]]) -> Text:
    """How many values of the state were added, changed and removed."""
    text = Text()
    kinds = [change.kind for root, change in changes if root == "$"]
    for kind, sign, style in (("added", "+", "green"), ("changed", "~", "yellow"), ("removed", "-", "red")):
        count = kinds.count(kind)  # type: ignore[arg-type]
        if count:
            text.append(f"{sign}{count} ", style)
    return text


def _span(span: timedelta) -> str:
    seconds = span.total_seconds()
    for unit, length in (("d", 86400.0), ("h", 3600.0), ("min", 60.0)):
        if seconds >= length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.0f} s"
