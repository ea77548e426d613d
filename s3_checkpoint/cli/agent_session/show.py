"""`session show`: the transcript of a session, as it was appended."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from typing import Annotated, Any

import typer
from pydantic import JsonValue

from s3_checkpoint._concurrency.gather import each
from s3_checkpoint.cli.agent_session.finding import ProjectOption, SessionArgument, find, sessions_in
from s3_checkpoint.cli.arguments import Format, OutputOption
from s3_checkpoint.cli.bucket import opened
from s3_checkpoint.cli.exit_codes import CommandError, ExitCode
from s3_checkpoint.cli.output import Column, chosen, cut, one_line, when, write_rows
from s3_checkpoint.cli.session import Session, session_command


@session_command
async def command(
    session: Session,
    *,
    session_id: SessionArgument,
    project: ProjectOption = None,
    subpath: Annotated[
        str | None, typer.Option("--subpath", help="A subagent's transcript instead: subagents/agent-1, say.")
    ] = None,
    output: OutputOption = None,
) -> None:
    """Show the transcript of a session, or of a subagent. With -o jsonl, it is the file that the SDK resumes from."""
    async with opened(session.settings) as bucket:
        store = sessions_in(session, bucket)
        found = await find(store, session_id, project)
        key = {"project_key": found.project_key, "session_id": found.session_id}
        entries: Sequence[Any] | None = await store.load(key if subpath is None else {**key, "subpath": subpath})
        subpaths = sorted(await store.list_subkeys(key)) if found.subagents else []
    if entries is None:
        known = f"; its subagents are {', '.join(subpaths)}" if subpaths else ""
        raise CommandError(f"session {found.session_id} has no transcript {subpath!r}{known}", ExitCode.NOT_FOUND)
    columns = [
        Column("number", "#", justify="right"),
        Column("type", "TYPE"),
        Column("timestamp", "TIME", when),
        Column("text", "TEXT"),
    ]
    table = chosen(session, output) == Format.TABLE
    await write_rows(session, _lines(entries) if table else each(entries), columns, output)
    if subpath is None and subpaths and table:
        session.note(f"subagents: {', '.join(subpaths)} (--subpath shows one)")


async def _lines(entries: Sequence[Any]) -> AsyncGenerator[dict[str, JsonValue], None]:
    for number, entry in enumerate(entries):
        yield {
            "number": number,
            "type": str(entry.get("type", "")),
            "timestamp": _time_of(entry),
            "text": cut(_text_of(entry), 100),
        }


def _time_of(entry: dict[str, Any]) -> str | None:
    text = entry.get("timestamp")
    return text.replace("Z", "+00:00") if isinstance(text, str) and len(text) > 18 else None


def _text_of(entry: dict[str, Any]) -> str:
    """What a person looks for: the words of a message; else what is there apart from the usual fields."""
    message = entry.get("message")
    content = message.get("content") if isinstance(message, dict) else None
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        blocks = [block for block in content if isinstance(block, dict)]
        words = [str(block.get("text") or block.get("name") or block.get("type", "")) for block in blocks]
        return " · ".join(words)
    rest = {name: value for name, value in entry.items() if name not in ("type", "timestamp", "uuid", "message")}
    return one_line(rest)
