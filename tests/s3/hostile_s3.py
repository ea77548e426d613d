"""A server on loopback that answers an S3 client as it likes, and another one that must not be asked.

`HostileS3` gives each request the answer set; `Elsewhere` counts who comes, and would satisfy them all.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from aiobotocore.config import AioConfig
from aiobotocore.session import AioSession

from s3_checkpoint import S3Settings
from s3_checkpoint._s3.client import client_for
from s3_checkpoint._s3.store import S3ObjectStore
from s3_checkpoint.object_store import Match, ObjectAttributes, ObjectStore

PLAIN = ObjectAttributes(metadata={"digest": "0" * 64})
CALLS: dict[str, Callable[[ObjectStore], Awaitable[object]]] = {
    "get": lambda store: store.get("runs/k", max_bytes=1000),
    "head": lambda store: store.head("runs/k"),
    "put create": lambda store: store.put("runs/k", b"{}", PLAIN, mode="create"),
    "put overwrite": lambda store: store.put("runs/k", b"{}", PLAIN, mode="overwrite"),
    "put match": lambda store: store.put("runs/k", b"{}", PLAIN, mode=Match('"e"')),
    "put large": lambda store: store.put("runs/k", b"x" * 100_000, PLAIN, mode="create"),
    "list": lambda store: store.list("runs/"),
    "delete": lambda store: store.delete(["runs/k"]),
    "copy": lambda store: store.copy("runs/k", "runs/l"),
}
"""Every call of the `ObjectStore` contract, and of `put` every mode and both ways it is sent."""
WRITING = frozenset(name for name in CALLS if name.split()[0] in ("put", "delete", "copy"))

S3_DATE = b"Last-Modified: Mon, 23 Nov 2026 10:00:00 GMT\r\n"
SOUND: dict[str, bytes] = {
    "get": b"{}",
    "head": b"",
    "list": b"<ListBucketResult><KeyCount>0</KeyCount><IsTruncated>false</IsTruncated></ListBucketResult>",
    "delete": b"<DeleteResult></DeleteResult>",
    "copy": b'<CopyObjectResult><ETag>"e"</ETag></CopyObjectResult>',
}
"""The bodies of S3's own answers; a PUT's is empty."""


def answer(status: int, body: bytes = b"", headers: bytes = b"", *, length: int | None = None) -> bytes:
    """An answer with `headers` (whole lines), of a length that may be a lie."""
    size = len(body) if length is None else length
    return b"HTTP/1.1 %d Words\r\nContent-Length: %d\r\n%bConnection: close\r\n\r\n%b" % (status, size, headers, body)


def sound(call: str, headers: bytes = b"") -> bytes:
    """What S3 answers to this call."""
    return answer(200, SOUND.get(call, b""), b'ETag: "e"\r\n' + S3_DATE + headers)


@dataclass(slots=True)
class HostileS3:
    """Answers each request with `answer`, then with `endless` for as long as the client reads."""

    url: str = ""
    answer: bytes = b""
    endless: bytes = b""
    body_of_head: bool = False
    """Whether a HEAD is answered with a body, which HTTP forbids."""
    asked: list[bytes] = field(default_factory=list)
    sent: int = 0
    """Bytes of endless answers that clients have taken."""
    serving: set[asyncio.Task[object]] = field(default_factory=set)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.serving.add(task)
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            self.asked.append(head)
            if b"\r\nexpect: 100-continue" in head.lower():
                writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            await _read_body(head, reader)
            if head.startswith(b"HEAD") and not self.body_of_head:
                writer.write(self.answer.partition(b"\r\n\r\n")[0] + b"\r\n\r\n")
                await writer.drain()
                return
            writer.write(self.answer)
            await writer.drain()
            while self.endless and self.sent < 2**30:
                writer.write(self.endless)
                await writer.drain()
                self.sent += len(self.endless)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # the client has gone
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()
            self.serving.discard(task)


async def _read_body(head: bytes, reader: asyncio.StreamReader) -> None:
    for line in head.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            await reader.readexactly(int(value))
        elif name.lower() == b"transfer-encoding":
            while (size := int((await reader.readline()).split(b";")[0], 16)) > 0:
                await reader.readexactly(size + 2)
            while await reader.readline() != b"\r\n":
                pass


@asynccontextmanager
async def hostile_s3() -> AsyncIterator[HostileS3]:
    """A server for the block."""
    hostile = HostileS3()
    server = await asyncio.start_server(hostile.serve, "127.0.0.1", 0)
    hostile.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield hostile
    finally:
        server.close()
        for task in hostile.serving:
            task.cancel()
        await asyncio.gather(*hostile.serving, return_exceptions=True)


def settings_for(url: str, **more: object) -> S3Settings:
    """Settings for a bucket there, with a token that no other host may see; one attempt."""
    values = {"bucket": "bucket", "endpoint_url": url, "access_key_id": "x", "secret_access_key": "y"}
    return S3Settings.model_validate({**values, "session_token": "secret-token", "max_attempts": 1, **more})


@asynccontextmanager
async def store_at(url: str, *, ours: bool = True, **more: object) -> AsyncIterator[S3ObjectStore]:
    """A store there, through a client made here or (`ours=False`) one that a caller made and hands in."""
    settings = settings_for(url, **more)
    if ours:
        async with client_for(settings) as client:
            yield S3ObjectStore(client, settings)
        return
    config = AioConfig(retries={"mode": "standard", "total_max_attempts": 1})
    session = session_of_a_caller()
    async with session.create_client("s3", region_name="us-east-1", endpoint_url=url, config=config) as client:
        yield S3ObjectStore(client, settings)


@cache
def session_of_a_caller() -> Any:
    """One for all tests: the SDK reads its descriptions again for each session, which takes half a second."""
    session: Any = AioSession()
    session.set_credentials("x", "y", "secret-token")
    return session
