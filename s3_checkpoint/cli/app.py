"""The command tree: which commands there are, and in which module each is.

A module of a command has a function `command`. One that talks to the bucket is an async function decorated with
`session.command`, which gives it the options all of them share, an open `Session`, and the mapping of errors to exit
codes.
"""

from __future__ import annotations

from typing import Annotated

import typer

from s3_checkpoint.cli.lazy_group import Commands, Group, Lazy, LazyGroup, add
from s3_checkpoint.cli.store_options import StoreOptions, with_store_options

_SESSION_COMMANDS = {
    "show": Lazy("s3_checkpoint.cli.agent_session.show", "Show a transcript; -o jsonl is what the SDK resumes from."),
    "delete": Lazy("s3_checkpoint.cli.agent_session.delete", "Delete a session and its subagents. Asks first."),
}

_THREAD_COMMANDS = {
    "show": Lazy("s3_checkpoint.cli.thread.show", "Show a checkpoint: values, next nodes, interrupts, pending writes."),
    "history": Lazy("s3_checkpoint.cli.thread.history", "Go back through a thread, newest checkpoint first."),
    "diff": Lazy("s3_checkpoint.cli.thread.diff", "Compare two checkpoints; by default, what the last turn changed."),
    "timeline": Lazy("s3_checkpoint.cli.thread.timeline", "Draw a thread: its checkpoints over time, turns and forks."),
    "copy": Lazy("s3_checkpoint.cli.thread.copy", "Copy a thread under another id, inside the bucket."),
    "import": Lazy("s3_checkpoint.cli.thread.import_threads", "Copy threads from SQLite or Postgres into the bucket."),
    "prune": Lazy("s3_checkpoint.cli.thread.prune", "Remove old checkpoints of a thread, or of every one with --all."),
    "delete": Lazy("s3_checkpoint.cli.thread.delete", "Delete a whole thread. Asks first."),
}

COMMANDS: Commands = {
    "runs": Lazy("s3_checkpoint.cli.runs", "List the runs in the bucket."),
    "steps": Lazy("s3_checkpoint.cli.steps", "List the steps of a run: when each was stored, and how large it is."),
    "show": Lazy("s3_checkpoint.cli.show", "Show a step of a run: its state, and the tasks that run next."),
    "active": Lazy("s3_checkpoint.cli.active", "List the tasks that run next after a step: node and payload."),
    "history": Lazy("s3_checkpoint.cli.history", "Go back through a run, newest step first."),
    "diff": Lazy("s3_checkpoint.cli.diff", "Compare two steps of a run by JSON path."),
    "timeline": Lazy("s3_checkpoint.cli.timeline", "Draw a run: its steps over time, what changed, gaps and forks."),
    "watch": Lazy("s3_checkpoint.cli.watch", "Follow a run or a thread, a line for each step as it is committed."),
    "sessions": Lazy("s3_checkpoint.cli.sessions", "List the sessions of the Claude Agent SDK."),
    "session": Group("See and delete a session of the Claude Agent SDK.", _SESSION_COMMANDS),
    "threads": Lazy("s3_checkpoint.cli.threads", "List LangGraph's threads; with -l, which wait for a human."),
    "thread": Group("See, compare, copy, prune and delete a LangGraph thread.", _THREAD_COMMANDS),
    "serve": Lazy("s3_checkpoint.cli.serve", "Show runs and threads in a browser, on loopback, read-only."),
    "fork": Lazy("s3_checkpoint.cli.fork", "Start a new run from a step of another."),
    "prune": Lazy("s3_checkpoint.cli.prune", "Remove old steps of a run, or of every run with --all."),
    "delete": Lazy("s3_checkpoint.cli.delete", "Delete a whole run. Asks first."),
    "usage": Lazy("s3_checkpoint.cli.usage", "Show what runs and threads take in the bucket, and cost a month."),
    "doctor": Lazy("s3_checkpoint.cli.doctor", "Probe a bucket for each thing the library relies on."),
    "policy": Lazy("s3_checkpoint.cli.policy", "Print the least IAM policy a worker, a reader or a janitor needs."),
    "demo": Lazy("s3_checkpoint.cli.demo", "Play a run whose workers are killed, and prove the result right."),
}
"""In the order in which `--help` shows them."""

_HELP = (
    "See, compare, fork, prune and check the checkpoints in an S3 bucket.\n\n"
    "Bucket and credentials come from options, else from S3_CHECKPOINT_… variables, else from the AWS configuration. "
    "Data goes to stdout, messages and progress to stderr.\n\n"
    "Exit codes: 0 done, 1 the answer is no, 2 wrong usage, 3 no such run or step, 4 access denied, "
    "5 settings or bucket unusable, 6 store unavailable (try again), 7 stored object unreadable, 8 conflict, "
    "9 store refused, 70 a fault of this program, 130 Ctrl-C."
)


def build() -> typer.Typer:
    """The whole command, ready to be called. Imports none of its commands."""
    app = typer.Typer(
        cls=LazyGroup,
        help=_HELP,
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_before_a_command)
    add(app, COMMANDS)
    return app


def _print_version(wanted: bool) -> None:
    if wanted:
        from s3_checkpoint import __version__

        typer.echo(f"s3-checkpoint {__version__}")
        raise typer.Exit


@with_store_options
def _before_a_command(
    options: StoreOptions,
    *,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """Nothing is done: the options are kept for the command."""
