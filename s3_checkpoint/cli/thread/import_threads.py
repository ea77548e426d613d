"""`thread import`: threads moved in from another LangGraph saver."""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections.abc import Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import unquote, urlsplit

import typer

from s3_checkpoint.cli.arguments import OutputOption
from s3_checkpoint.cli.bucket import opened
from s3_checkpoint.cli.exit_codes import CommandError, ExitCode
from s3_checkpoint.cli.output import report
from s3_checkpoint.cli.session import Session, session_command

if TYPE_CHECKING:
    from langgraph.checkpoint.serde.base import SerializerProtocol

_ENCRYPTED = "encrypted checkpoints need --encrypted, and the key in LANGGRAPH_AES_KEY"


@session_command
async def command(
    session: Session,
    *,
    source: Annotated[
        str,
        typer.Option("--from", metavar="URL", help="sqlite:///PATH (//// for an absolute one) or postgresql://…"),
    ],
    threads: Annotated[
        list[str] | None, typer.Option("--thread", help="Only this thread id; can be given several times.")
    ] = None,
    encrypted: Annotated[
        bool,
        typer.Option("--encrypted", help="The source is encrypted with LANGGRAPH_AES_KEY; the copy is too."),
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Count what there is; write nothing.")] = False,
    output: OutputOption = None,
) -> None:
    """Copy threads from a SQLite or Postgres database of LangGraph's savers into the bucket.

    Checkpoints, pending writes and namespaces, oldest first; each checkpoint is read back and compared. Cut short, it
    can be run again: what is there and equal is not written again. Values are carried over as they are stored, without
    the application's types. The database is only read. Stop the workers before.
    """
    async with opened(session.settings) as bucket:
        _ = bucket.threads  # says what to install before a database is asked
        from s3_checkpoint.langgraph.moving import copy_threads

        serde = _serializer(encrypted=encrypted)
        bucket.saver.serde = serde
        with _opened(source, serde) as saver, session.counter("counting checkpoints") as counter:

            def progress(done: int, total: int) -> None:
                if done == 1:
                    counter.now("copying checkpoints", total)
                counter.add()

            try:
                copied = await asyncio.to_thread(
                    copy_threads, saver, bucket.saver, threads=threads, dry_run=dry_run, on_progress=progress
                )
            except Exception as error:
                raise _explained(error, source) from error
    verb = "would copy" if dry_run else "copied"
    there = f"; {copied.there_before:,} checkpoints were there before" if copied.there_before else ""
    told = (
        f"{verb} {copied.threads:,} threads: {copied.checkpoints:,} checkpoints in {copied.namespaces:,} "
        f"namespaces, {copied.writes:,} pending writes{there}"
    )
    report(session, output, told, asdict(copied))


def _serializer(*, encrypted: bool) -> SerializerProtocol:
    from langgraph.checkpoint.serde.encrypted import EncryptedSerializer

    from s3_checkpoint.langgraph.moving import OpaqueSerializer

    if not encrypted:
        return OpaqueSerializer()
    if not os.environ.get("LANGGRAPH_AES_KEY"):
        raise CommandError(_ENCRYPTED, ExitCode.USAGE)
    try:
        return EncryptedSerializer.from_pycryptodome_aes(serde=OpaqueSerializer())
    except (ImportError, ValueError) as error:
        raise CommandError(str(error), ExitCode.CONFIGURATION) from error


def _opened(url: str, serde: SerializerProtocol) -> AbstractContextManager[Any]:
    """The saver behind a URL, for reading."""
    scheme = url.partition(":")[0]
    if scheme == "sqlite":
        _must_have("langgraph.checkpoint.sqlite", "langgraph-checkpoint-sqlite")
        return _sqlite(url, serde)
    if scheme in ("postgresql", "postgres"):
        _must_have("langgraph.checkpoint.postgres", "langgraph-checkpoint-postgres 'psycopg[binary]'")
        return _postgres(url, serde)
    raise CommandError(f"--from takes sqlite:///PATH or postgresql://…, not {scheme!r}", ExitCode.USAGE)


def _must_have(module: str, packages: str) -> None:
    try:
        found = find_spec(module) is not None
    except ModuleNotFoundError:
        found = False
    if not found:
        raise CommandError(f"this needs a package: pip install {packages}", ExitCode.CONFIGURATION)


@contextmanager
def _sqlite(url: str, serde: SerializerProtocol) -> Iterator[Any]:
    from langgraph.checkpoint.sqlite import SqliteSaver

    parts = urlsplit(url)
    path = Path(unquote(parts.path.removeprefix("/")))
    if parts.netloc or not parts.path.removeprefix("/"):
        raise CommandError("a SQLite file is sqlite:///PATH, or sqlite:////PATH for an absolute one", ExitCode.USAGE)
    if not path.is_file():
        raise CommandError(f"there is no file {path}", ExitCode.NOT_FOUND)
    # Read-only: the saver makes its tables where they are not, which is not for a source.
    with closing(
        sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True, check_same_thread=False)
    ) as opened_file:
        yield SqliteSaver(opened_file, serde=serde)


@contextmanager
def _postgres(url: str, serde: SerializerProtocol) -> Iterator[Any]:
    import psycopg
    from langgraph.checkpoint.postgres import PostgresSaver
    from psycopg.rows import dict_row

    try:
        connection = psycopg.connect(url, autocommit=True, prepare_threshold=0, row_factory=dict_row)
    except psycopg.OperationalError as error:
        raise CommandError(f"the database does not answer: {error}", ExitCode.UNAVAILABLE) from error
    with connection:
        connection.read_only = True
        yield PostgresSaver(connection, serde=serde)


def _explained(error: Exception, source: str) -> Exception:
    """An error of the database as one of this command; errors of ours as they are."""
    from s3_checkpoint.errors import CheckpointError, StateDecodingError

    if isinstance(error, StateDecodingError):
        return CommandError(f"{error}; {_ENCRYPTED}", ExitCode.UNREADABLE)
    if isinstance(error, CheckpointError):
        return error
    scheme = source.partition(":")[0]
    if type(error).__module__.partition(".")[0] in ("sqlite3", "psycopg"):
        return CommandError(
            f"this {scheme} database holds no threads of LangGraph that can be read: {error}", ExitCode.NO
        )
    return error
