"""The command tree. Each command module has `register(app)`, which adds its commands; `build` calls them in order.

A command that talks to the bucket is an async function decorated with `session.command`, which gives it the options all
of them share, an open `Session`, and the mapping of errors to exit codes.
"""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from typing import Annotated, Protocol

import typer

from s3_checkpoint.cli import compare, demo, examine, look, manage, policy, session, timeline


class CommandModule(Protocol):
    """A module with commands."""

    def register(self, app: typer.Typer) -> None:
        """Adds the module's commands to `app`."""
        ...


COMMANDS: tuple[CommandModule, ...] = (look, compare, timeline, manage, examine, policy, demo)
"""The command modules, in the order in which `--help` shows their commands."""

_HELP = (
    "See, compare, fork, prune and check the checkpoints in an S3 bucket.\n\n"
    "Bucket and credentials come from options, else from S3_CHECKPOINT_… variables, else from the AWS configuration. "
    "Data goes to stdout, messages and progress to stderr.\n\n"
    "Exit codes: 0 done, 1 the answer is no, 2 wrong usage, 3 no such run or step, 4 access denied, "
    "5 settings or bucket unusable, 6 store unavailable (try again), 7 stored object unreadable, 8 conflict, "
    "9 store refused, 70 a fault of this program, 130 Ctrl-C."
)


def build() -> typer.Typer:
    """The whole command, ready to be called."""
    app = typer.Typer(
        help=_HELP,
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_shared_options)
    for module in COMMANDS:
        module.register(app)
    return app


def _print_version(wanted: bool) -> None:
    if wanted:
        try:
            typer.echo(f"s3-checkpoint {version('s3-checkpoint')}")
        except PackageNotFoundError:
            typer.echo("s3-checkpoint (not installed as a package)")
        raise typer.Exit


def _shared_options(
    *,
    context: typer.Context,
    bucket: session.BucketOption = None,
    prefix: session.PrefixOption = None,
    profile: session.ProfileOption = None,
    region: session.RegionOption = None,
    endpoint_url: session.EndpointOption = None,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and leave.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    context.obj = session.StoreOptions(bucket, prefix, profile, region, endpoint_url)
