"""What every command that talks to a bucket shares: its options, its settings, and how it ends.

`session_command` turns an async function `f(session, …)` into one that typer can register: it adds the shared options,
runs it on an event loop, and turns this library's errors, Ctrl-C and a closed pipe into a message on stderr and an exit
code.
"""

from __future__ import annotations

import asyncio
import functools
import io
import os
import signal
import sys
import traceback
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Concatenate, ParamSpec

import typer
from rich.console import Console
from rich.text import Text

from s3_checkpoint._printable import ESCAPING, printable
from s3_checkpoint.cli.exit_codes import CommandError, ExitCode, exit_code
from s3_checkpoint.cli.progress import Counter
from s3_checkpoint.cli.store_options import StoreOptions, with_store_options
from s3_checkpoint.errors import CheckpointError
from s3_checkpoint.settings import S3Settings

_P = ParamSpec("_P")
PIPE_WIDTH = 240


@dataclass(frozen=True, slots=True)
class Session:
    """One run of a command: where the checkpoints are, and where to write to."""

    settings: S3Settings
    out: Console
    """Data."""
    err: Console
    """Messages and progress."""

    @property
    def where(self) -> str:
        """The bucket and prefix, for messages."""
        return f"s3://{self.settings.bucket}/{self.settings.prefix}".rstrip("/")

    def counter(self, what: str, total: int | None = None) -> Counter:
        """Counts what is done while the block runs: on stderr, if that is a terminal, and after two seconds."""
        return Counter(self.err, what, total)

    def note(self, text: str) -> None:
        """Writes a message to stderr, escaped."""
        self.err.print(Text(printable(text)), soft_wrap=True)

    def say(self, text: str) -> None:
        """Writes a sentence to stdout, escaped."""
        self.out.print(Text(printable(text)), soft_wrap=True)


def session_command(
    function: Callable[Concatenate[Session, _P], Coroutine[Any, Any, ExitCode | None]],
) -> Callable[..., None]:
    """`function` as a command: with the shared options, run to its end, its errors turned into exit codes."""

    @functools.wraps(function)
    def run(options: StoreOptions, **arguments: object) -> None:
        raise typer.Exit(guard(lambda: _run(function, options, arguments)))

    return with_store_options(run)


def _run(
    function: Callable[..., Coroutine[Any, Any, ExitCode | None]], options: StoreOptions, arguments: dict[str, object]
) -> int:
    # A pipe has no width: there, a table takes what it needs.
    out = Console(width=None if sys.stdout.isatty() else PIPE_WIDTH)
    session = Session(options.settings(), out, Console(stderr=True))
    return asyncio.run(function(session, **arguments)) or ExitCode.OK


@contextmanager
def ended_by_ctrl_c() -> Iterator[None]:
    """Ctrl-C leaves the block, and is no failure: it is how what runs inside ends."""
    try:
        yield
    except asyncio.CancelledError:
        if (task := asyncio.current_task()) is None or task.uncancel():
            raise


def confirmed(session: Session, question: str) -> bool:
    """The user's yes or no to deleting, asked on stderr; a no is noted. Ctrl-C is `KeyboardInterrupt`, at once.

    Without a terminal to ask on it raises `CommandError`. While a loop runs, asyncio answers the first Ctrl-C by
    cancelling the task, which a blocking prompt does not notice.
    """
    if not sys.stdin.isatty():
        raise CommandError("there is nobody to ask; give --yes to delete without asking", ExitCode.USAGE)
    of_the_loop = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        answer = typer.confirm(question, err=True)
    except typer.Abort as aborted:
        raise KeyboardInterrupt from aborted
    finally:
        signal.signal(signal.SIGINT, of_the_loop)
    if not answer:
        session.note("nothing was deleted")
    return answer


def guard(work: Callable[[], int]) -> int:
    """Does `work` and returns its exit code, or that of the error it ended in, after saying so on stderr."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal or pipe that cannot take every character gets escapes
            stream.reconfigure(errors=ESCAPING)
    try:
        code = work()
        sys.stdout.flush()
    except CommandError as error:
        return _complain(error.message, error.code)
    except CheckpointError as error:
        return _complain(str(error), exit_code(error))
    except KeyboardInterrupt:
        return _complain("interrupted", ExitCode.INTERRUPTED)
    except BrokenPipeError:
        # The interpreter flushes stdout once more at exit; there must be something that takes it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return ExitCode.PIPE_CLOSED
    except (typer.BadParameter, typer.Exit, typer.Abort):
        raise
    except Exception as error:  # noqa: BLE001 - a fault of ours: told with where it is, and without values or words
        where = "".join(traceback.format_tb(error.__traceback__))
        sys.stderr.write(printable(where, keep="\n"))
        return _complain(f"internal: {type(error).__name__}; please report this", ExitCode.INTERNAL)
    return code


def _complain(message: str, code: ExitCode) -> int:
    sys.stderr.write(f"s3-checkpoint: {printable(message)}\n")
    return code
