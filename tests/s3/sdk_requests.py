"""Counts requests where they leave: at the SDK's own event hooks, so that a repeat below our code is seen too."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from aiobotocore.session import AioSession

from s3_checkpoint import S3Settings
from s3_checkpoint._s3.client import client_for


class RequestLog:
    """Every HTTP request a client sends: its operation, and its headers."""

    def __init__(self, client: Any) -> None:
        self.client = client
        self.requests: list[tuple[str, Any]] = []
        client.meta.events.register("before-send.s3", self._note)

    def _note(self, request: Any, event_name: str, **_: Any) -> None:
        self.requests.append((event_name.rpartition(".")[2], request))

    def counts(self) -> dict[str, int]:
        """Requests by operation since the last call."""
        counted = Counter(operation for operation, _ in self.requests)
        self.requests.clear()
        return dict(counted)


def new_session(access_key: str) -> AioSession:
    """A session of an application, with explicit credentials."""
    session = AioSession()
    session.set_credentials(access_key, "secret")
    return session


@asynccontextmanager
async def logged_client(settings: S3Settings) -> AsyncIterator[RequestLog]:
    """An open client of these settings, with its log."""
    async with client_for(settings) as client:
        yield RequestLog(client)
