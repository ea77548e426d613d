"""Runs the page's server on loopback until Ctrl-C."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager

import uvicorn

from s3_checkpoint.errors import ConfigurationError
from s3_checkpoint.settings import S3Settings
from s3_checkpoint.web.app import create_app

LOOPBACK = "127.0.0.1"


def listen(port: int) -> socket.socket:
    """A socket on loopback; `port` 0 is any free one.

    Raises:
        ConfigurationError: The port is in use, or not this user's to take.
    """
    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((LOOPBACK, port))
    except OSError as error:
        listening.close()
        told = f"port {port} cannot be used ({error.strerror}); give another with --port, or --port 0 for any free one"
        raise ConfigurationError(told) from error
    return listening


class _Server(uvicorn.Server):
    """One that leaves signals to the event loop's runner."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """See `uvicorn.Server`."""
        yield


async def serve(
    settings: S3Settings,
    listening: socket.socket,
    *,
    refresh_s: float,
    started: Callable[[str], None],
    waiting_on: Collection[str] = (),
) -> None:
    """Serves the page until the task is cancelled; requests in flight then have a second to end.

    Args:
        settings: Which bucket to show.
        listening: Where to listen, from `listen`; closed at the end.
        refresh_s: Seconds between two looks of an open page; 0: none.
        started: Called with the page's address once it answers.
        waiting_on: Nodes at which a run waits for a human.
    """
    config = uvicorn.Config(
        create_app(settings, refresh_s=refresh_s, waiting_on=waiting_on),
        log_level="warning",
        access_log=False,
        server_header=False,
        lifespan="on",
        ws="none",
        timeout_graceful_shutdown=1,
        proxy_headers=False,
    )
    server = _Server(config)
    serving = asyncio.ensure_future(server.serve([listening]))
    try:
        while not server.started and not serving.done():
            await asyncio.wait([serving], timeout=0.02)
        if server.started:
            started(f"http://{LOOPBACK}:{listening.getsockname()[1]}/")
        await asyncio.shield(serving)
    finally:
        server.should_exit = True
        await asyncio.wait([serving])
        listening.close()
