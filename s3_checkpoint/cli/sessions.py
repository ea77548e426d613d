"""`sessions`: which sessions of the Claude Agent SDK there are."""

from __future__ import annotations

from collections.abc import AsyncGenerator

from pydantic import JsonValue

from s3_checkpoint.claude import S3SessionStore
from s3_checkpoint.cli.agent_session.finding import ProjectOption, sessions_in
from s3_checkpoint.cli.arguments import LimitOption, OutputOption
from s3_checkpoint.cli.bucket import opened
from s3_checkpoint.cli.output import Column, ago, size, when, write_rows
from s3_checkpoint.cli.session import Session, session_command


@session_command
async def command(
    session: Session,
    *,
    project: ProjectOption = None,
    limit: LimitOption = None,
    output: OutputOption = None,
) -> None:
    """List the sessions of the Claude Agent SDK in the bucket. 1 request per 1,000 objects."""
    columns = [
        Column("session_id", "SESSION"),
        Column("project_key", "PROJECT"),
        Column("subagents", "SUBAGENTS", justify="right"),
        Column("objects", "OBJECTS", justify="right"),
        Column("bytes", "SIZE", size, justify="right"),
        Column("last_modified", "WRITTEN", when),
        Column("last_modified", "", ago),
    ]
    async with opened(session.settings) as bucket:
        rows = _rows(sessions_in(session, bucket), project)
        if not await write_rows(session, rows, columns, output, limit=limit):
            session.note(f"no sessions in {session.where}")


async def _rows(store: S3SessionStore, project: str | None) -> AsyncGenerator[dict[str, JsonValue], None]:
    async for info in store.sessions(project):
        yield {
            "session_id": info.session_id,
            "project_key": info.project_key,
            "subagents": info.subagents,
            "objects": info.objects,
            "bytes": info.bytes,
            "last_modified": info.last_modified.isoformat(),
        }
