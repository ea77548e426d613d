"""A server on loopback that answers what a test says, byte for byte."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Answered:
    """A request: its line and headers, and its body."""

    head: str
    body: bytes


@dataclass(slots=True)
class RawServer:
    """`answer` is asked for the answer to each request; an empty one closes the connection."""

    answer: Callable[[Answered], bytes]
    url: str = ""
    seen: list[Answered] = field(default_factory=list)
    serving: set[asyncio.Task[object]] = field(default_factory=set)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.serving.add(task)
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            length = re.search(r"(?i)\r\ncontent-length: *([0-9]+)", head)
            request = Answered(head, await reader.readexactly(int(length[1])) if length else b"")
            self.seen.append(request)
            writer.write(self.answer(request))
            await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # the client has gone
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()
            self.serving.discard(task)


@asynccontextmanager
async def raw_server(answer: Callable[[Answered], bytes]) -> AsyncIterator[RawServer]:
    """The server, on a free port."""
    server = RawServer(answer)
    listening = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    server.url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
    try:
        yield server
    finally:
        listening.close()
        await asyncio.gather(*server.serving, return_exceptions=True)


def answer(status: str, *headers: str, body: bytes = b"") -> bytes:
    """An HTTP answer, after which the connection is closed."""
    lines = [f"HTTP/1.1 {status}", *headers, f"Content-Length: {len(body)}", "Connection: close", "", ""]
    return "\r\n".join(lines).encode() + body


def s3_error(status: str, code: str, *, request_id: str = "REQUEST") -> bytes:
    """An error as S3 tells it."""
    text = f"<Error><Code>{code}</Code><Message>told</Message><RequestId>{request_id}</RequestId></Error>"
    return answer(status, "Content-Type: application/xml", body=f'<?xml version="1.0"?>\n{text}'.encode())


def listing(keys: Sequence[str], *, token: str = "") -> bytes:
    """A page of a listing; with a token it says that it continues."""
    told = f"<IsTruncated>true</IsTruncated><NextContinuationToken>{token}</NextContinuationToken>"
    entries = "".join(
        f"<Contents><Key>{key}</Key><LastModified>2026-11-23T17:00:00.000Z</LastModified>"
        f'<ETag>"e"</ETag><Size>3</Size></Contents>'
        for key in keys
    )
    text = (
        '<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
        f"{told if token else '<IsTruncated>false</IsTruncated>'}{entries}</ListBucketResult>"
    )
    return answer("200 OK", "Content-Type: application/xml", body=text.encode())
