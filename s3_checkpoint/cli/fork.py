"""`fork`: a new run from a step of another."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

import typer
from pydantic import JsonValue

from s3_checkpoint.cli.arguments import Format, OutputOption, RunArgument, StepOption
from s3_checkpoint.cli.bucket import opened
from s3_checkpoint.cli.exit_codes import CommandError, ExitCode
from s3_checkpoint.cli.output import chosen, write_document
from s3_checkpoint.cli.session import Session, session_command
from s3_checkpoint.errors import InvalidArgumentError


@session_command
async def command(
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
