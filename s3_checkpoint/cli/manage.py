"""`fork`, `prune`, `delete`, `usage`: what an operator changes, and what it costs."""

from __future__ import annotations

import sys
from collections.abc import AsyncGenerator
from datetime import timedelta
from typing import Annotated
from uuid import UUID

import typer
from pydantic import JsonValue
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from s3_checkpoint._format.thread_keys import threads_prefix
from s3_checkpoint._runs.retention import GRACE, objects_under
from s3_checkpoint.cli.bucket import no_steps, opened
from s3_checkpoint.cli.exit_codes import ExitCode
from s3_checkpoint.cli.look import RunArgument, StepOption, where
from s3_checkpoint.cli.output import (
    Column,
    Format,
    OutputOption,
    ago,
    chosen,
    duration,
    size,
    write_document,
    write_rows,
)
from s3_checkpoint.cli.session import CommandError, Session, ask, command
from s3_checkpoint.errors import InvalidArgumentError
from s3_checkpoint.models import Pruned, PrunedRuns

DRY = Annotated[bool, typer.Option("--dry-run", help="Say what would go; remove nothing.")]
PRICE = 0.023


def register(app: typer.Typer) -> None:
    """Adds the commands to `app`."""
    app.command("fork")(fork)
    app.command("prune")(prune)
    app.command("delete")(delete)
    app.command("usage")(usage)


@command
async def fork(
    session: Session,
    *,
    run: RunArgument,
    step: StepOption = None,
    new_run_id: Annotated[
        UUID | None, typer.Option("--new-run-id", help="The new run's id.", show_default="a random one")
    ] = None,
    output: OutputOption = None,
) -> None:
    """Start a new run from a step of another: state and active tasks are copied, the rest of the history is not.

    The new run's id goes to stdout.
    """
    async with opened(session.settings) as bucket:
        keys = await bucket.run(run)
        step = await bucket.newest(keys) if step is None else step
        try:
            new = await bucket.admin.fork(keys.run_id, step, new_run_id)
        except InvalidArgumentError as error:
            if error.argument != "step":
                raise
            raise CommandError(f"run {keys.run_id} has no step {step}", ExitCode.NOT_FOUND) from error
    if chosen(session, output) == Format.TABLE or output is None:
        session.out.file.write(f"{new}\n")
    else:
        origin: JsonValue = {"run_id": str(keys.run_id), "step": step}
        write_document(session, {"run_id": str(new), "origin": origin}, output)
    session.note(f"run {new} begins, at its step 0, with step {step} of run {keys.run_id}")


@command
async def prune(
    session: Session,
    *,
    run: Annotated[
        str | None, typer.Argument(metavar="[RUN]", help="Run id, or the beginning of one.", show_default=False)
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="Every run in the bucket.")] = False,
    keep_last: Annotated[int | None, typer.Option("--keep-last", min=1, help="Keep this many newest steps.")] = None,
    older_than: Annotated[
        timedelta | None,
        typer.Option(
            "--older-than",
            parser=duration,
            metavar="SPAN",
            help="Remove only steps older than this: 45s, 90m, 12h, 30d.",
        ),
    ] = None,
    grace: Annotated[
        timedelta,
        typer.Option(
            "--grace",
            parser=duration,
            metavar="SPAN",
            help="Keep whatever is younger. 0s is for runs whose workers are stopped: beside a worker, "
            "a pruned step could be committed again.",
            show_default="1h",
        ),
    ] = GRACE,
    dry_run: DRY = False,
    output: OutputOption = None,
) -> None:
    """Remove old steps of a run, or of every run with --all. The newest step of a run is never removed.

    Say what to keep with --keep-last, --older-than, or both: then a step goes only if both let it go. Safe while
    workers are committing. Namespaces of subgraphs are pruned by the same rule, each by itself.
    """
    if (run is None) != every:
        raise CommandError("name a run, or give --all for every run", ExitCode.USAGE)
    if keep_last is None and older_than is None:
        raise CommandError("say what to keep: --keep-last N, --older-than SPAN, or both", ExitCode.USAGE)
    async with opened(session.settings) as bucket:
        if run is not None:
            keys = await bucket.run(run)
            with session.working("pruning"):
                one = await bucket.admin.prune(
                    keys.run_id, keep_last=keep_last, older_than=older_than, grace=grace, dry_run=dry_run
                )
            if not one.kept + one.states:
                raise CommandError(no_steps(keys), ExitCode.NOT_FOUND)
            _report(session, one, output, f"run {one.run_id}", {"run_id": str(one.run_id), "steps": list(one.steps)})
            return
        with _progress(session) as bar:
            task = bar.add_task("listing runs", total=None)
            total = len([None async for _ in bucket.admin.runs()])
            bar.update(task, description="pruning", total=total)
            removed = await bucket.admin.prune_all(
                keep_last=keep_last,
                older_than=older_than,
                grace=grace,
                dry_run=dry_run,
                on_run=lambda _: bar.advance(task),
            )
    _report(session, removed, output, f"{removed.runs:,} runs in {where(session)}", {"runs": removed.runs})


def _progress(session: Session) -> Progress:
    """A bar on stderr, if that is a terminal."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=session.err,
        transient=True,
        disable=not session.err.is_terminal,
    )


def _report(
    session: Session, removed: Pruned | PrunedRuns, output: OutputOption, what: str, more: dict[str, JsonValue]
) -> None:
    if chosen(session, output) != Format.TABLE:
        counts: dict[str, JsonValue] = {
            "states": removed.states,
            "snapshots": removed.snapshots,
            "bytes": removed.bytes,
            "kept": removed.kept,
            "young": removed.young,
            "dry_run": removed.dry_run,
        }
        if isinstance(removed, Pruned):
            counts["left"] = removed.left
        write_document(session, more | counts, output or Format.JSONL)
        return
    verb = "would remove" if removed.dry_run else "removed"
    session.say(
        f"{what}: {verb} {removed.states:,} steps and {removed.snapshots:,} snapshots, {size(removed.bytes)}; "
        f"{removed.kept:,} steps stay"
        + (f", {removed.young:,} of them because they are younger than --grace" if removed.young else "")
    )


@command
async def delete(
    session: Session,
    *,
    run: RunArgument,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    dry_run: DRY = False,
    grace: Annotated[
        timedelta,
        typer.Option(
            "--grace",
            parser=duration,
            metavar="SPAN",
            help="Leave active snapshots younger than this that a commit in progress may need; 0s if no worker runs.",
            show_default="1h",
        ),
    ] = GRACE,
    output: OutputOption = None,
) -> ExitCode | None:
    """Delete a whole run: all steps, snapshots and namespaces. Asks first. Stop the run's workers before."""
    async with opened(session.settings) as bucket:
        keys = await bucket.run(run)
        with session.working("listing"):
            planned = await bucket.admin.delete(keys.run_id, dry_run=True, grace=grace)
        if not planned.states + planned.snapshots + planned.left:
            raise CommandError(no_steps(keys), ExitCode.NOT_FOUND)
        if not (yes or dry_run):
            if not sys.stdin.isatty():
                raise CommandError("there is nobody to ask; give --yes to delete without asking", ExitCode.USAGE)
            objects = planned.states + planned.snapshots
            question = (
                f"Delete run {keys.run_id}: {planned.states:,} steps, {objects:,} objects, {size(planned.bytes)}?"
            )
            if not ask(question):
                session.note("nothing was deleted")
                return ExitCode.NO
        with session.working("deleting"):
            deleted = planned if dry_run else await bucket.admin.delete(keys.run_id, grace=grace)
    if chosen(session, output) == Format.TABLE:
        verb = "would delete" if dry_run else "deleted"
        objects = deleted.states + deleted.snapshots
        session.say(f"{verb} run {keys.run_id}: {objects:,} objects, {size(deleted.bytes)}")
    else:
        _report(session, deleted, output, "", {"run_id": str(keys.run_id)})
    if deleted.left:
        session.note(
            f"{deleted.left:,} active snapshots are left: a commit in progress may need them. "
            "Delete again in an hour, or with --grace 0s once no worker runs"
        )
    return None


@command
async def usage(
    session: Session,
    *,
    price: Annotated[
        float,
        typer.Option("--price", min=0, help="US dollars per GB and month; the default is S3 Standard in us-east-1."),
    ] = PRICE,
    output: OutputOption = None,
) -> None:
    """Show what each run takes in the bucket, and LangGraph's threads together, and what storing it costs a month.

    Storage of current versions only: requests, transfer, and noncurrent versions of a versioned bucket come on top.
    """
    columns = [
        Column("run_id", "RUN"),
        Column("steps", "STEPS", justify="right"),
        Column("objects", "OBJECTS", justify="right"),
        Column("bytes", "SIZE", size, justify="right"),
        Column("usd_per_month", "$/MONTH", _dollars, justify="right"),
        Column("last_modified", "LAST WRITE", ago, justify="right"),
    ]
    total = {"runs": 0, "objects": 0, "bytes": 0}
    async with opened(session.settings) as bucket:

        async def rows() -> AsyncGenerator[dict[str, JsonValue], None]:
            async for one in bucket.admin.usage():
                total["runs"] += 1
                total["objects"] += one.objects
                total["bytes"] += one.bytes
                yield {
                    "run_id": str(one.run_id),
                    "steps": one.steps,
                    "objects": one.objects,
                    "bytes": one.bytes,
                    "usd_per_month": one.bytes / 1e9 * price,
                    "last_modified": one.last_modified.isoformat(),
                }

        await write_rows(session, rows(), columns, output)
        threads = threads_prefix(session.settings.prefix)
        sizes = [listed.size async for listed in objects_under(bucket.store, threads)]
    if sizes:
        session.note(f"LangGraph threads: {len(sizes):,} objects, {size(sum(sizes))}")
    stored = total["bytes"] + sum(sizes)
    session.note(
        f"{where(session)}: {total['runs']:,} runs, {total['objects'] + len(sizes):,} objects, {size(stored)}, "
        f"about ${_dollars(stored / 1e9 * price)} a month for storage at ${price} per GB"
    )


def _dollars(amount: float) -> str:
    return f"{amount:.2f}" if amount >= 1 else f"{amount:.6f}"
