"""`s3-checkpoint demo`: workers are killed in the middle of supersteps, messages come twice, the result is right."""

from __future__ import annotations

import asyncio
import os
import random
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from pydantic import JsonValue
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from s3_checkpoint.cli import session
from s3_checkpoint.cli.arguments import Format
from s3_checkpoint.cli.exit_codes import CommandError, ExitCode
from s3_checkpoint.cli.output import as_json, foreign, size
from s3_checkpoint.cli.store_options import StoreOptions, with_store_options
from s3_checkpoint.models import ActiveSnapshot

if TYPE_CHECKING:
    from s3_checkpoint.demo.performance import Performance

_NEEDED = ("moto", "flask", "flask_cors")


OutputOption = Annotated[Format, typer.Option("--output", "-o", help="table, json, or jsonl: json on one line.")]


@with_store_options
def command(
    options: StoreOptions,
    *,
    files: Annotated[
        list[Path] | None,
        typer.Argument(
            help="Python sources to count in; else the standard library's modules.",
            exists=True,
            dir_okay=False,
            readable=True,
            show_default=False,
        ),
    ] = None,
    workers: Annotated[int, typer.Option("--workers", min=2, max=16, help="Worker processes at a time.")] = 3,
    kills: Annotated[int, typer.Option("--kills", min=0, max=8, help="Workers to kill, in as many supersteps.")] = 3,
    seed: Annotated[
        int | None, typer.Option("--seed", help="Draws which supersteps are hit; else another one each time.")
    ] = None,
    output: OutputOption = Format.TABLE,
) -> None:
    """Count the identifiers of real source files with workers that are killed, and prove the result right.

    Each worker polls a queue as Lambda does, and runs one superstep per message with the Lambda handler. Some workers
    are killed with SIGKILL in the middle of a superstep; some messages are delivered twice.

    With a bucket configured, the run is stored there, and stays; without, in a local one that is gone afterwards. The
    queue is always a local one.
    """
    paths = [str(path.resolve()) for path in files or ()]
    drawn = random.randrange(1_000_000) if seed is None else seed  # noqa: S311
    raise typer.Exit(session.guard(lambda: _demo(options, paths, workers, kills, drawn, output)))


def _demo(options: StoreOptions, files: Sequence[str], workers: int, kills: int, seed: int, output: Format) -> int:
    if any(find_spec(name) is None for name in _NEEDED):
        raise CommandError(
            "the demonstration is not installed; pip install 's3-checkpoint[demo]'", ExitCode.CONFIGURATION
        )
    from s3_checkpoint.demo.performance import perform

    configured = options.bucket or os.environ.get("S3_CHECKPOINT_BUCKET")
    screen = _Screen(Console(stderr=True))
    with screen.progress:
        playing = perform(
            files,
            options.settings() if configured else None,
            workers=workers,
            kills=kills,
            seed=seed,
            watcher=screen,
        )
        try:
            performance = asyncio.run(playing)
        except RuntimeError as error:
            raise CommandError(f"the demonstration broke off: {error}", ExitCode.NO) from error
    if output in (Format.JSON, Format.JSONL):
        sys.stdout.write(as_json(_document(performance), indent=output == Format.JSON) + "\n")
    else:
        _show(performance, Console(width=None if sys.stdout.isatty() else session.PIPE_WIDTH, highlight=False))
    return ExitCode.OK if performance.equal else ExitCode.NO


class _Screen:
    """A line for what happens, a bar for how far the run is."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.progress = Progress(
            TextColumn("superstep"), MofNCompleteColumn(), BarColumn(), TimeElapsedColumn(), console=console
        )
        self._bar = self.progress.add_task("", total=None)

    def line(self, text: str) -> None:
        """Writes it above the bar."""
        self.progress.print(foreign(text), soft_wrap=True)

    def reached(self, step: int, last: int) -> None:
        """Moves the bar."""
        self.progress.update(self._bar, completed=step, total=last)


def _nodes(active: Sequence[ActiveSnapshot]) -> str:
    return ", ".join(
        name if count == 1 else f"{name} ×{count}" for name, count in Counter(task.node_name for task in active).items()
    )


def _show(performance: Performance, out: Console) -> None:
    tally, found = performance.tally, performance.report
    steps = _table("The run as it is stored: each step one commit", "step", "size", "active nodes", "stored at (UTC)")
    for entry in performance.steps:
        stored = entry.last_modified.astimezone(UTC).strftime("%H:%M:%S")
        steps.add_row(str(entry.step), size(entry.size), foreign(_nodes(entry.active)), stored)
    events = _table("What happened on the way", "", "")
    for name, value in _events(performance).items():
        events.add_row(name, str(value))

    out.print()
    out.print(steps)
    out.print()
    out.print(foreign(f"s3://{performance.bucket}", "bold"))
    for listed in performance.keys:
        stored = listed.last_modified.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S")
        out.print(foreign(f"{stored} {listed.size:>10} {listed.key}"), soft_wrap=True)
    out.print()
    out.print(events)
    out.print()
    direct = performance.direct
    if performance.equal and found is not None:
        top = ", ".join(f"{name} {count:,}" for name, count in found.top[:5])
        right = (
            f": {found.occurrences:,} occurrences of {found.identifiers:,} "
            f"identifiers in {found.files} files ({top}, …), each count equal to that of one plain pass."
        )
        out.print(Text.assemble(("The result is right", "bold green"), foreign(right)))
    else:
        wrong = f": the run found {found}, one plain pass {direct}."
        out.print(Text.assemble(("The result is wrong", "bold red"), foreign(wrong)))
    out.print(f"{len(tally.kills)} workers killed, seed {performance.seed}, {performance.seconds:.1f} s in all.")
    if not performance.local:
        out.print(f"The run stays in the bucket; s3-checkpoint delete {performance.run_id} removes it.", markup=False)


def _table(title: str, *headers: str) -> Table:
    table = Table(
        title=title,
        title_justify="left",
        title_style="bold",
        box=None,
        pad_edge=False,
        show_header=any(headers),
        header_style="bold",
    )
    for header in headers:
        table.add_column(header, justify="right" if header in ("step", "size") else "left")
    return table


def _events(performance: Performance) -> dict[str, JsonValue]:
    tally = performance.tally
    snapshots = sum("/active/" in listed.key for listed in performance.keys)
    return {
        "supersteps committed": tally.supersteps,
        "S3 requests per superstep, at most": max(tally.requests, default=0),
        "workers started": tally.workers,
        "workers killed in the middle of a superstep": len(tally.kills),
        "messages handled": tally.deliveries,
        "redeliveries after a visibility time-out": tally.redeliveries,
        "duplicates injected": tally.duplicates,
        "deliveries superseded": tally.superseded,
        "snapshots of losers, which no step names": snapshots - len(performance.steps),
    }


def _document(performance: Performance) -> dict[str, JsonValue]:
    tally = performance.tally
    return {
        "run_id": str(performance.run_id),
        "bucket": performance.bucket,
        "local": performance.local,
        "seed": performance.seed,
        "equal": performance.equal,
        "report": performance.report.model_dump(mode="json") if performance.report else None,
        "direct": performance.direct.model_dump(mode="json"),
        "supersteps": tally.supersteps,
        "kills": [asdict(kill) for kill in tally.kills],
        "workers": tally.workers,
        "deliveries": tally.deliveries,
        "redeliveries": tally.redeliveries,
        "duplicates": tally.duplicates,
        "superseded": tally.superseded,
        "requests_per_superstep": list(tally.requests),
        "steps": [
            {
                "step": entry.step,
                "size": entry.size,
                "active": [task.node_name for task in entry.active],
                "last_modified": entry.last_modified.astimezone(UTC).isoformat(),
            }
            for entry in performance.steps
        ],
        "keys": [
            {
                "key": listed.key,
                "size": listed.size,
                "last_modified": listed.last_modified.astimezone(UTC).isoformat(),
            }
            for listed in performance.keys
        ],
        "seconds": round(performance.seconds, 2),
    }
