"""A TCP proxy on loopback, between the real client and the moto server, that spoils answers.

The server is asked to close the connection after its answer, so each connection here carries one request. It is always
forwarded whole (unless it is to be refused), and its answer held back whole: what the client gets of it is the rule's
business.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import unquote, urlsplit

from s3_checkpoint._obstore.store import ABSENT_NAME
from s3_checkpoint.testing import Aim, Request, Verb

Spoiling = Literal[
    "refuse",  # reset before the request is forwarded: it takes no effect
    "cut",  # it takes effect; the connection is closed without an answer
    "reset",  # it takes effect; the connection is reset without an answer
    "truncate",  # it takes effect; the connection is closed in the middle of the answer's last part
    "headless",  # it takes effect; the connection is closed in the middle of the answer's headers
    "hold",  # it takes effect; the answer waits until `release` is set
]
Garbling = Callable[[bytes], bytes]
"""It takes effect; of the answer, the client gets what this makes of it."""
_RESET = struct.pack("ii", 1, 0)
_CONNECTION = re.compile(rb"(?im)^connection:.*\r\n")
_REQUEST_LINE = re.compile(rb"([A-Z]+) (\S+) HTTP/1.1\r\n")


@dataclass(slots=True)
class Wire:
    """The proxy. `rules` are asked in order; `seen` are the requests in the order of their arrival."""

    host: str
    port: int
    rules: list[tuple[Aim, Spoiling | Garbling]] = field(default_factory=list)
    rewrite: Callable[[bytes], bytes] | None = None
    """What reaches the server of each request's head; None: all of it."""
    seen: list[Request] = field(default_factory=list)
    url: str = ""
    release: asyncio.Event = field(default_factory=asyncio.Event)
    serving: set[asyncio.Task[object]] = field(default_factory=set)
    _held: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(0))
    """One for each answer that `until_held` has not told of."""

    def spoil(
        self, spoiling: Spoiling | Garbling, verb: Verb | None, under: str = "", *, first: int = 1, times: int = 1
    ) -> None:
        self.rules.append((Aim(verb, under, first, times), spoiling))

    async def until_held(self, answers: int = 1) -> None:
        """Waits until so many more answers are held: their requests have taken effect."""
        for _ in range(answers):
            await self._held.acquire()

    def verbs(self) -> list[str]:
        """What was sent: `PutObject active`, `PutObject steps`, …; but for what obstore asks after an empty listing."""
        asked = [request for request in self.seen if not request.key.endswith(ABSENT_NAME)]
        kinds = ["active" if "/active/" in r.key else "steps" if "/steps/" in r.key else "" for r in asked]
        return [f"{request.verb} {kind}".strip() for request, kind in zip(asked, kinds, strict=True)]

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.serving.add(task)
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            request = _parse(head)
            self.seen.append(request)
            spoiling = next((spoiling for aim, spoiling in self.rules if aim.meets(request)), None)
            if spoiling == "refuse":
                _reset(writer)
                return
            answer = await self._ask(head, reader)
            if spoiling == "hold":
                self._held.release()
                await self.release.wait()
            elif spoiling == "reset":
                _reset(writer)
                return
            writer.write(_spoilt(answer, spoiling))
            await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # the client has gone
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()
            self.serving.discard(task)

    async def _ask(self, head: bytes, reader: asyncio.StreamReader) -> bytes:
        """The whole answer to a request, of which `head` was read already."""
        length = re.search(rb"(?i)\r\ncontent-length: *([0-9]+)", head)
        body = await reader.readexactly(int(length[1])) if length else b""
        head = _CONNECTION.sub(b"", self.rewrite(head) if self.rewrite else head)
        upstream, forward = await asyncio.open_connection(self.host, self.port)
        try:
            forward.write(head.removesuffix(b"\r\n") + b"Connection: close\r\n\r\n" + body)
            return await upstream.read()
        finally:
            forward.close()
            await forward.wait_closed()


@asynccontextmanager
async def wire_to(url: str) -> AsyncIterator[Wire]:
    """A proxy to the server at `url`, on a free port."""
    parts = urlsplit(url)
    wire = Wire(str(parts.hostname), int(parts.port or 0))
    server = await asyncio.start_server(wire.serve, "127.0.0.1", 0)
    wire.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield wire
    finally:
        wire.release.set()
        server.close()
        await asyncio.gather(*wire.serving, return_exceptions=True)


def _parse(head: bytes) -> Request:
    match = _REQUEST_LINE.match(head)
    assert match, head
    method, target = match[1].decode(), match[2].decode()
    path, _, query = target.partition("?")
    key = unquote(path).lstrip("/").partition("/")[2]
    if "list-type" in query:
        return Request("ListObjectsV2", query)
    verbs: dict[str, Verb] = {"GET": "GetObject", "HEAD": "HeadObject", "PUT": "PutObject", "POST": "DeleteObjects"}
    mode: Literal["create", "overwrite"] = "create" if b"if-none-match" in head.lower() else "overwrite"
    return Request(verbs[method], key or f"?{query}", mode if method == "PUT" else None)


def _spoilt(answer: bytes, spoiling: Spoiling | Garbling | None) -> bytes:
    if callable(spoiling):
        return spoiling(answer)
    head, _, body = answer.partition(b"\r\n\r\n")
    if spoiling == "cut":
        return b""
    if spoiling == "headless":
        return head[: len(head) // 2]
    if spoiling == "truncate":
        return head + b"\r\n\r\n" + body[: len(body) // 2] if body else head
    return answer


def _reset(writer: asyncio.StreamWriter) -> None:
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    writer.transport.abort()
