"""Which session a command is about, and the store it is in."""

from __future__ import annotations

from typing import Annotated

import typer

from s3_checkpoint.claude import S3SessionStore, SessionInfo
from s3_checkpoint.cli.bucket import OpenBucket
from s3_checkpoint.cli.exit_codes import CommandError, ExitCode
from s3_checkpoint.cli.session import Session

SessionArgument = Annotated[str, typer.Argument(metavar="SESSION", help="Session id, or the beginning of one.")]
ProjectOption = Annotated[
    str | None, typer.Option("--project", "-p", help="Only in this project (project_key).", show_default="all projects")
]


def sessions_in(session: Session, bucket: OpenBucket) -> S3SessionStore:
    """The sessions of the open bucket."""
    settings = session.settings
    return S3SessionStore(
        bucket.store,
        prefix=settings.prefix,
        compression=settings.compression,
        max_state_bytes=settings.max_state_bytes,
        conditional_writes=settings.conditional_writes,
    )


async def find(store: S3SessionStore, text: str, project: str | None) -> SessionInfo:
    """The one session whose id is, or begins with, `text`; `CommandError` if there is none, or several."""
    found = [info async for info in store.sessions(project) if info.session_id.startswith(text)]
    exact = [info for info in found if info.session_id == text]
    found = exact or found
    if not found or not text:
        raise CommandError(
            f"no session's id begins with {text!r}; `s3-checkpoint sessions` lists them", ExitCode.NOT_FOUND
        )
    if len(found) > 1:
        some = ", ".join(f"{info.session_id} of {info.project_key}" for info in found[:3])
        hint = "give --project" if exact else "add to it"
        raise CommandError(f"{len(found)} sessions' ids begin with {text!r} ({some}, …); {hint}", ExitCode.USAGE)
    return found[0]
