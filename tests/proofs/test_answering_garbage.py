"""The real client and a server that answers anything at all: nothing but our errors, no more memory than allowed."""

from __future__ import annotations

import asyncio
import contextlib
import tracemalloc
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from s3_checkpoint import CheckpointError, S3Checkpointer, S3Settings, StateDecodingError, connect
from tests.conftest import TRANSPORTS
from tests.proofs.ledger import RUN, Work, tasks_of

MEGABYTE = 1024**2
PLAIN = b'Content-Type: application/json\r\nETag: "x"\r\nLast-Modified: Mon, 23 Nov 2026 10:00:00 GMT\r\n'


def answer(status: str, head: bytes = b"", body: bytes = b"", *, length: int | None = None) -> bytes:
    length_line = f"Content-Length: {len(body) if length is None else length}\r\n".encode()
    return b"HTTP/1.1 " + status.encode() + b"\r\n" + length_line + head + b"Connection: close\r\n\r\n" + body


def listing(inner: str) -> bytes:
    text = f'<?xml version="1.0"?><ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">{inner}</ListBucketResult>'
    return answer("200 OK", b"Content-Type: application/xml\r\n", text.encode())


LINE = "<Contents><Key>{}</Key><Size>{}</Size><LastModified>{}</LastModified></Contents>"
ENTITIES = "".join(f'<!ENTITY e{n} "{f"&e{n - 1};" * 10}">' for n in range(1, 12))
ENTITY_BOMB = f'<!DOCTYPE x [<!ENTITY e0 "ha">{ENTITIES}]><ListBucketResult><Name>&e11;</Name></ListBucketResult>'
ANSWERS: dict[str, bytes] = {
    "nothing": b"",
    "noise": bytes(range(256)) * 8,
    "another protocol": b"SSH-2.0-OpenSSH_9.6\r\n",
    "a status that is none": answer("999 Whatever"),
    "a status without text": b"HTTP/1.1 200\r\n\r\n",
    "success without headers": answer("200 OK"),
    "success without a body's length": b"HTTP/1.1 200 OK\r\n" + PLAIN + b"Connection: close\r\n\r\n{}",
    "success without last-modified": answer("200 OK", b"Content-Type: application/json\r\n", b"{}"),
    "a date that is none": answer("200 OK", b"Last-Modified: yesterday\r\nETag: \"x\"\r\n", b"{}"),
    "a length that is none": b"HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\n",
    "a negative length": answer("200 OK", PLAIN, b"{}", length=-1),
    "a longer body than its length": answer("200 OK", PLAIN, b"{}" * 1000, length=2),
    "a shorter body than its length": answer("200 OK", PLAIN, b"{}", length=1000),
    "a length beyond all bounds": answer("200 OK", PLAIN, b"{}", length=10**15),
    "metadata that is not text": answer("200 OK", PLAIN + b"x-amz-meta-write-id: \xff\xfe\r\n", b"{}"),
    "a thousand headers": answer("200 OK", PLAIN + b"".join(b"x-amz-meta-%d: x\r\n" % n for n in range(1000)), b"{}"),
    "an endless header": b"HTTP/1.1 200 OK\r\nx-amz-meta-a: " + b"a" * MEGABYTE,
    "an error that is not XML": answer("500 Oops", b"", b"<html>oops"),
    "an error with noise": answer("403 Forbidden", b"", bytes(range(256))),
    "an unknown error": answer("418 Teapot", b"", b"<Error><Code>Teapot</Code></Error>"),
    "a redirection to nowhere": answer("301 Moved", b"Location: http://127.0.0.1:1/\r\n"),
    "a listing that is not XML": answer("200 OK", b"", b"{]"),
    "a listing of something else": answer("200 OK", b"", b"<Other/>"),
    "a listing cut short": answer("200 OK", b"", b"<?xml version='1.0'?><ListBucketResult><Contents><Key>a"),
    "a page without a way on": listing("<IsTruncated>true</IsTruncated>"),
    "a line without a key": listing("<IsTruncated>false</IsTruncated><Contents><Size>1</Size></Contents>"),
    "a size that is none": listing(LINE.format("a", "big", "2026-11-23T10:00:00.000Z")),
    "a time that is none": listing(LINE.format("a", "1", "soon")),
    "a time beyond all calendars": listing(LINE.format("a", "1", "999999-01-01T00:00:00Z")),
    "a size of ten thousand digits": listing(LINE.format("a", "9" * 10_000, "2026-11-23T10:00:00.000Z")),
    "an entity bomb": answer("200 OK", b"", ENTITY_BOMB.encode()),
}  # fmt: skip


@asynccontextmanager
async def server_of(serve: Callable[[asyncio.StreamWriter], Awaitable[None]]) -> AsyncIterator[str]:
    """A server that reads a request's head and then does as it likes."""
    serving: set[asyncio.Task[object]] = set()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        serving.add(task)
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            await reader.readuntil(b"\r\n\r\n")
            await serve(writer)
            await writer.drain()
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()
        serving.discard(task)

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        await asyncio.gather(*serving, return_exceptions=True)


def settings_for(url: str, **more: object) -> S3Settings:
    values = {"bucket": "bucket", "endpoint_url": url, "access_key_id": "x", "secret_access_key": "y"}
    return S3Settings.model_validate({**values, "max_attempts": 1, **more})


def calls(c: S3Checkpointer[Work]) -> dict[str, Callable[[], Awaitable[object]]]:
    return {
        "load": lambda: c.load(RUN, 5),
        "load of the latest": lambda: c.load(RUN),
        "load_active": lambda: c.load_active(RUN, 5),
        "resume": lambda: c.resume(RUN),
        "list": lambda: c.list(RUN),
        "save": lambda: c.save(RUN, 5, Work(label="a")),
        "save_active": lambda: c.save_active(RUN, 5, tasks_of("a")),
        "commit": lambda: c.commit(RUN, 5, Work(label="a"), tasks_of("a")),
    }


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_nothing_but_our_errors_comes_out_whatever_a_server_answers(transport: str) -> None:
    """And nothing is taken for a state, for an empty run or for a success that is none.

    Story: a date that is none came out as the SDK's bare ValueError, and a page of `<Other/>` was a run without steps.
    """
    current = b""

    async def serve(writer: asyncio.StreamWriter) -> None:
        writer.write(current)

    async with server_of(serve) as url, connect(Work, settings_for(url, transport=transport)) as checkpointer:
        for name, current in ANSWERS.items():
            for call_name, call in calls(checkpointer).items():
                try:
                    found = await call()
                except CheckpointError:
                    continue
                except Exception as error:  # noqa: BLE001 - that is what is looked for
                    pytest.fail(f"{call_name}, answered with {name}: {error!r}")
                assert found is None, f"{call_name}, answered with {name}, gives {found!r}"
                assert call_name in ("save", "save_active", "commit"), f"{call_name}, answered with {name}, gives None"
                assert b"200 OK" in current, f"{call_name}, answered with {name}, is a success"
                assert b"ETag" in current, f"{call_name}, answered with {name}, is a success"


@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/1.1 200 OK\r\n" + PLAIN + b"Connection: close\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + PLAIN + b"Content-Length: 1099511627776\r\n\r\n",
    ],
    ids=["without a length", "with a length of a terabyte"],
)
async def test_a_body_without_end_is_refused_within_the_bound(head: bytes) -> None:
    """Story: a body whose length is not told was an answer without `ContentLength`, and a KeyError came out."""
    sent = 0

    async def serve(writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        writer.write(head)
        while sent < 256 * MEGABYTE:
            writer.write(b" " * 65536)
            await writer.drain()
            sent += 65536

    async with server_of(serve) as url, connect(Work, settings_for(url, max_state_bytes=MEGABYTE)) as checkpointer:
        tracemalloc.start()
        with pytest.raises(StateDecodingError, match="more than"):
            await checkpointer.load(RUN, 5)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()

    assert peak < 4 * MEGABYTE
    assert sent < 64 * MEGABYTE


async def test_a_page_without_a_way_on_is_an_error_not_the_end() -> None:
    """Story: a listing that said it continued, and not how, was taken for complete."""

    async def serve(writer: asyncio.StreamWriter) -> None:
        writer.write(ANSWERS["a page without a way on"])

    async with server_of(serve) as url, connect(Work, settings_for(url)) as checkpointer:
        with pytest.raises(CheckpointError, match="NextContinuationToken"):
            await checkpointer.list(RUN)
