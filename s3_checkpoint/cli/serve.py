"""`serve`: the page that shows runs and threads, on loopback."""

from __future__ import annotations

import webbrowser
from importlib.util import find_spec
from typing import Annotated

import typer

from s3_checkpoint.cli.exit_codes import CommandError, ExitCode
from s3_checkpoint.cli.session import Session, ended_by_ctrl_c, session_command

PORT = 8765
REFRESH_S = 10.0


@session_command
async def command(
    session: Session,
    *,
    port: Annotated[int, typer.Option("--port", "-p", min=0, max=65535, help="0: any free one.")] = PORT,
    open_page: Annotated[bool, typer.Option("--open", help="Open the page in the browser.")] = False,
    refresh: Annotated[
        float,
        typer.Option(
            "--refresh",
            min=0,
            help="Seconds between two looks of an open page at what is new (a run: 1 LIST; a list: 2 requests for each "
            "run shown that is not finished); 0: only when it is loaded again.",
        ),
    ] = REFRESH_S,
    waiting_on: Annotated[
        list[str] | None,
        typer.Option("--waiting-on", metavar="NODE", help="A run waits for a human before this node. Repeatable."),
    ] = None,
) -> None:
    """Show runs and threads in a browser: statuses, timelines, states. Read-only, on 127.0.0.1, until Ctrl-C."""
    if find_spec("starlette") is None or find_spec("uvicorn") is None:
        raise CommandError("the page needs two packages: pip install 's3-checkpoint[web]'", ExitCode.CONFIGURATION)

    from s3_checkpoint.web.serving import listen, serve

    def started(address: str) -> None:
        session.say(address)
        session.note("serving until Ctrl-C; every user of this machine can read on it what your credentials can read")
        if open_page:
            webbrowser.open(address)

    with ended_by_ctrl_c():
        await serve(session.settings, listen(port), refresh_s=refresh, started=started, waiting_on=waiting_on or ())
    session.note("stopped")
