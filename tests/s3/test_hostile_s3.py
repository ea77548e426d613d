"""Whatever answers in S3's place: no other host is asked, nothing is taken for a success, no memory is spent."""

from __future__ import annotations

import asyncio
import itertools
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import pytest
from moto.backends import get_backend

from s3_checkpoint import (
    AccessDeniedError,
    CheckpointError,
    ConfigurationError,
    RunAdmin,
    S3Settings,
    StateDecodingError,
    StepConflictError,
    StoreError,
    StoreUnavailableError,
    connect,
)
from s3_checkpoint._format.keys import RunKeys
from s3_checkpoint._s3.client import client_for
from s3_checkpoint._s3.store import S3ObjectStore
from s3_checkpoint._transports import open_store
from s3_checkpoint.object_store import ObjectHead, Refused, StoredObject
from tests.s3.hostile_s3 import (
    CALLS,
    PLAIN,
    S3_DATE,
    SOUND,
    WRITING,
    HostileS3,
    answer,
    hostile_s3,
    settings_for,
    sound,
    store_at,
)
from tests.s3.test_prepared_requests import Recorder
from tests.states import RUN, Counter
from tests.warm_python import WarmPython, warm_python

STATUSES = (300, 301, 302, 303, 304, 307, 308, 399, 201, 202, 204, 206, 400, 403, 404, 407, 418, 500, 511)
HEADERS = (
    b"Location: {elsewhere}\r\n",
    b"Location: //{host}/bucket/runs/k\r\n",
    b"URI: {elsewhere}\r\nContent-Location: {elsewhere}\r\n",
    b"Refresh: 0; url={elsewhere}\r\nLink: <{elsewhere}>; rel=canonical\r\n",
    b'Alt-Svc: h2="{host}", http/1.1="{host}"\r\nLocation: {elsewhere}\r\n',
    b"x-amz-bucket-region: {host}/#\r\nLocation: {elsewhere}\r\n",
    b"x-amz-bucket-region: eu-north-1\r\nLocation: {elsewhere}\r\n",
    b"Set-Cookie: a=b\r\nProxy: {elsewhere}\r\nX-Forwarded-Host: {host}\r\nOrigin: {elsewhere}\r\n",
)
BODIES = (
    b"",
    b"<Error><Code>PermanentRedirect</Code><Endpoint>{host}</Endpoint><Region>{host}/#</Region></Error>",
    b"<Error><Code>TemporaryRedirect</Code><Endpoint>{host}</Endpoint><Bucket>bucket</Bucket></Error>",
    b"<Error><Code>AuthorizationHeaderMalformed</Code><Region>x@{host}/</Region></Error>",
    b'<html><meta http-equiv="refresh" content="0; url={elsewhere}"></html>',
)
HTML = b"<html><head><title>Please sign in</title></head><body>Welcome</body></html>"


@pytest.fixture
async def hostile() -> AsyncIterator[HostileS3]:
    async with hostile_s3() as server:
        yield server


@pytest.fixture
async def elsewhere() -> AsyncIterator[HostileS3]:
    """Another server, which must not be asked; it would say yes to everything."""
    async with hostile_s3() as server:
        yield server


REDIRECTS = (301, 302, 303, 307, 308, 400)
"""Those that the SDK or an HTTP library is known to follow."""


@pytest.mark.parametrize("every", [False, pytest.param(True, marks=pytest.mark.long)], ids=["some", "every"])
@pytest.mark.parametrize("ours", [True, False], ids=["a client made here", "a client handed in"])
@pytest.mark.parametrize("call", CALLS)
async def test_nothing_that_an_answer_says_leads_to_another_host(
    hostile: HostileS3, elsewhere: HostileS3, call: str, ours: bool, every: bool
) -> None:
    """Story: any redirect was followed, with the security token and the state; a 303 made a GET of a PUT.

    Every redirect, with every header and body that could lead elsewhere, and of the other statuses each with a third of
    them; none is a success either.
    """
    elsewhere.answer = sound(call)
    host = elsewhere.url.removeprefix("http://")

    def aimed(text: bytes) -> bytes:
        return text.replace(b"{elsewhere}", f"{elsewhere.url}/bucket/runs/k".encode()).replace(b"{host}", host.encode())

    pairs = [(header, BODIES[0]) for header in HEADERS] + [(HEADERS[0], body) for body in BODIES[1:]]
    async with store_at(hostile.url, ours=ours) as store:
        for (at, status), (index, (header, body)) in itertools.product(enumerate(STATUSES), enumerate(pairs)):
            if not every and status not in REDIRECTS and (at + index) % 3:
                continue
            hostile.answer = answer(status, aimed(body), aimed(header) + b'ETag: "e"\r\n' + S3_DATE)
            if (call, status) == ("head", 404):
                assert await CALLS[call](store) is None
                continue
            with pytest.raises(CheckpointError) as caught:
                await CALLS[call](store)
            assert status == 403 or not isinstance(caught.value, AccessDeniedError), (status, header, body)
            assert "internal" not in str(caught.value)

    assert elsewhere.asked == []


async def test_a_redirect_to_the_same_host_is_not_followed_either(hostile: HostileS3) -> None:
    """One request, one answer."""
    async with store_at(hostile.url) as store:
        hostile.answer = answer(307, b"", f"Location: {hostile.url}/other\r\n".encode())
        with pytest.raises(StoreError, match="redirect to 127"):
            await store.get("k", max_bytes=10)

    assert [head.split(b"\r\n")[0] for head in hostile.asked if b"HEAD /bucket HTTP" not in head] == [
        b"GET /bucket/k HTTP/1.1"
    ]


async def test_a_303_is_never_a_commit(hostile: HostileS3, elsewhere: HostileS3) -> None:
    """Story: the GET that the HTTP library made of the PUT had an ETag, and `commit` returned."""
    elsewhere.answer = sound("put create")
    hostile.answer = answer(303, b"", f"Location: {elsewhere.url}/\r\n".encode())

    async with connect(Counter, settings_for(hostile.url)) as checkpointer:
        with pytest.raises(CheckpointError) as caught:
            await checkpointer.commit(RUN, 0, Counter(n=0), [])

    assert not isinstance(caught.value, StepConflictError)
    assert elsewhere.asked == []


@pytest.mark.parametrize("bucket", ["bucket", "bucket.with.dots", "team--euw1-az1--x-s3"])
@pytest.mark.parametrize("where", ["header", "body"])
@pytest.mark.parametrize(
    "region", ["x.example/", "x@y.example", "127.0.0.1:9/#", "x.example?", "a b", "", "x\ty", "eu-north-1.example"]
)
async def test_a_region_that_is_none_leads_nowhere(bucket: str, where: str, region: str) -> None:
    """Story: for a bucket with dots the SDK made `https://s3.x.example/` of a region, and sent the token there."""
    settings = S3Settings.model_validate(
        {"bucket": bucket, "region_name": "eu-west-1", "access_key_id": "a", "secret_access_key": "b"}
    )
    headers = {"x-amz-bucket-region": region} if where == "header" else {}
    text = region if where == "body" else "eu-west-1"
    body = f"<Error><Code>AuthorizationHeaderMalformed</Code><Region>{text}</Region></Error>".encode()
    async with client_for(settings) as client:
        recorder = Recorder(client, *[(400, headers, body)] * 3)
        with pytest.raises(CheckpointError):
            await S3ObjectStore(client, settings).put("k", b"x", PLAIN, mode="create")

    hosts = {url.split("/")[2] for _, url, *_ in recorder.sent}
    assert all(host.endswith(".amazonaws.com") for host in hosts), hosts


@pytest.mark.parametrize("status", [301, 307, 400])
async def test_a_region_that_is_one_is_still_followed(status: int) -> None:
    """AWS's own 301 and 307, and its 400: the SDK asks in the bucket's region. Story: the 307 read as a denial."""
    settings = S3Settings.model_validate(
        {"bucket": "bucket", "region_name": "us-east-1", "access_key_id": "a", "secret_access_key": "b"}
    )
    code = {301: "PermanentRedirect", 307: "TemporaryRedirect", 400: "AuthorizationHeaderMalformed"}[status]
    headers = {"x-amz-bucket-region": "eu-north-1", "location": "https://x.example/"}
    body = f"<Error><Code>{code}</Code><Endpoint>x.example</Endpoint><Region>eu-north-1</Region></Error>".encode()
    async with client_for(settings) as client:
        recorder = Recorder(client, (status, headers, body))
        await S3ObjectStore(client, settings).put("k", b"x", PLAIN, mode="create")

    assert [url.split("/")[2] for _, url, *_ in recorder.sent] == [
        "bucket.s3.amazonaws.com",
        "bucket.s3.eu-north-1.amazonaws.com",
    ]


@pytest.mark.parametrize(
    ("status", "body", "told"),
    [
        (404, b"", StoreError),
        (404, HTML, StoreError),
        (404, b"<Error><Code>NotFound</Code></Error>", StoreError),
        (404, b"<Error><Code>404</Code></Error>", StoreError),
        (404, b"<Error><Code>NoSuchUpload</Code></Error>", StoreError),
        (404, b"<Other><Code>NoSuchKey</Code>", StoreError),
        (404, b'{"Code": "NoSuchKey"}', StoreError),
        (404, b"<Error><Code>NoSuchBucket</Code></Error>", ConfigurationError),
        (302, b"<Error><Code>NoSuchKey</Code></Error>", StoreError),
        (403, b"<Error><Code>NoSuchKey</Code></Error>", AccessDeniedError),
        (500, b"<Error><Code>NoSuchKey</Code></Error>", StoreUnavailableError),
        (410, b"", StoreError),
    ],
)
async def test_nosuchkey_alone_is_absence(
    hostile: HostileS3, status: int, body: bytes, told: type[CheckpointError]
) -> None:
    """Story: a proxy's empty 404 made `load` return None, and a run began again at its first step."""
    hostile.answer = answer(status, body)
    async with store_at(hostile.url) as store, connect(Counter, settings_for(hostile.url)) as checkpointer:
        for call in (
            lambda: store.get("k", max_bytes=9),
            lambda: store.copy("a", "b"),
            lambda: checkpointer.load(RUN, 0),
        ):
            with pytest.raises(told):
                await call()

        hostile.answer = answer(404, b"<Error><Code>NoSuchKey</Code><Key>k</Key></Error>")
        assert await store.get("k", max_bytes=9) is None
        assert await store.copy("a", "b") is False
        assert await checkpointer.load(RUN, 0) is None


def _head(found: StoredObject | ObjectHead) -> ObjectHead:
    return found.head if isinstance(found, StoredObject) else found


PAGES = {
    "HTML": HTML,
    "XHTML": b'<?xml version="1.0"?><!DOCTYPE html>' + HTML,
    "XHTML, no doctype": b'<?xml version="1.0"?>' + HTML,
    "JSON": b'{"error": "blocked"}',
    "nothing": b"",
    "white space": b" \r\n",
    "text": b"OK",
    "XML of another kind": b"<Result><ETag>e</ETag><CopyObjectResult><ETag>e</ETag></CopyObjectResult></Result>",
    "a listing": SOUND["list"],
    "cut short": b"<ListBucketResult><KeyCount>0</KeyCount>",
}


@pytest.mark.parametrize("ours", [True, False], ids=["a client made here", "a client handed in"])
@pytest.mark.parametrize("call", CALLS)
async def test_a_page_of_another_server_is_no_success(hostile: HostileS3, call: str, ours: bool) -> None:
    """200 with an ETag and a date, as any web server says it: for a PUT the outcome is unknown, a read is an error."""
    async with store_at(hostile.url, ours=ours) as store:
        for page, body in PAGES.items():
            hostile.answer = answer(200, body, b'ETag: "e"\r\nContent-Type: text/html\r\n' + S3_DATE)
            if call in ("get", "head"):
                found = await CALLS[call](store)
                assert not isinstance(found, StoredObject | ObjectHead) or not _head(found).attributes.metadata
            elif (call, page) == ("list", "a listing") or (call.startswith("put") and not body.strip()):
                await CALLS[call](store)
            else:
                with pytest.raises(CheckpointError) as caught:
                    await CALLS[call](store)
                assert getattr(caught.value, "outcome_unknown", False) == (call in WRITING), page


async def test_a_page_of_another_server_is_no_state(hostile: HostileS3) -> None:
    """It has none of our metadata."""
    hostile.answer = answer(200, b'{"n": 1}', b'ETag: "e"\r\n' + S3_DATE)
    async with connect(Counter, settings_for(hostile.url)) as checkpointer:
        with pytest.raises(StateDecodingError):
            await checkpointer.load(RUN, 0)


async def test_answers_of_s3_are_a_success(hostile: HostileS3) -> None:
    """The same checks let S3's own answers through, by either client."""
    for ours in (True, False):
        async with store_at(hostile.url, ours=ours) as store:
            for call, send in CALLS.items():
                hostile.answer = sound(call)
                assert not isinstance(await send(store), Refused)


@pytest.mark.parametrize("call", ["copy", "delete", "list", "put create"])
async def test_an_error_inside_a_success_is_an_error(hostile: HostileS3, call: str) -> None:
    """S3 begins a long answer with 200 and may end it with an error."""
    hostile.answer = answer(200, b"<Error><Code>InternalError</Code><Message>words</Message></Error>")
    async with store_at(hostile.url) as store:
        with pytest.raises(StoreUnavailableError) as caught:
            await CALLS[call](store)

    assert caught.value.outcome_unknown == (call in WRITING)


@pytest.mark.parametrize("ours", [True, False], ids=["a client made here", "a client handed in"])
async def test_a_listing_of_other_keys_is_an_error(hostile: HostileS3, ours: bool) -> None:
    """Of keys and of groups: what a server lists that ignores the prefix is never taken for ours."""
    when = "<LastModified>2026-11-23T10:00:00.000Z</LastModified>"
    async with store_at(hostile.url, ours=ours) as store:
        for inner in (
            "".join(f"<Contents><Key>{key}</Key><Size>1</Size>{when}</Contents>" for key in ("runs/1", "b")),
            "<CommonPrefixes><Prefix>other/</Prefix></CommonPrefixes>",
        ):
            hostile.answer = answer(200, f"<ListBucketResult><KeyCount>1</KeyCount>{inner}</ListBucketResult>".encode())
            with pytest.raises(StoreError, match="outside this prefix"):
                await store.list("runs/")


LONG = b"a" * 65536
ENDS = {
    "told": b"Content-Length: 100000000\r\n\r\n",
    "not told": b"Connection: close\r\n\r\n",
    "in chunks": b"Transfer-Encoding: chunked\r\n\r\n",
}


@pytest.mark.parametrize("ours", [True, False], ids=["a client made here", "a client handed in"])
@pytest.mark.parametrize("call", [call for call in CALLS if call != "head"])
async def test_no_answer_is_read_without_a_bound(hostile: HostileS3, call: str, ours: bool) -> None:
    """Story: an error of 100 MB, or a listing without end, was read whole: 440 to 960 MiB more."""
    refusable = ("put create", "put match", "put large")
    async with store_at(hostile.url, ours=ours, max_state_bytes=1000) as store, asyncio.timeout(120):
        for status, length in itertools.product((200, 301, 403, 404, 412, 500), ENDS):
            hostile.answer = b'HTTP/1.1 %d Words\r\nETag: "e"\r\n%b' % (status, S3_DATE) + ENDS[length]
            hostile.endless = b"10000\r\n" + LONG + b"\r\n" if length == "in chunks" else LONG
            hostile.sent = 0
            if status == 412 and call in refusable:
                assert isinstance(await CALLS[call](store), Refused)
            else:
                with pytest.raises(CheckpointError) as caught:
                    await CALLS[call](store)
                assert status != 200 or call not in WRITING or getattr(caught.value, "outcome_unknown", False)
            assert hostile.sent < 16 * 2**20, (status, length)


async def _all(entries: AsyncIterator[object]) -> list[object]:
    return [entry async for entry in entries]


@pytest.mark.parametrize("kind", ["a step", "nothing"])
async def test_no_call_continues_for_ever_with_one_token(hostile: HostileS3, kind: str) -> None:
    """Story: `list`, `delete`, `runs` asked for the same page again and again, without end."""
    run = RunKeys("", RUN)
    when = "<LastModified>2026-11-23T10:00:00.000Z</LastModified>"
    line = f"<Contents><Key>{run.state(3)}</Key><Size>1</Size>{when}</Contents>"
    group = f"<CommonPrefixes><Prefix>{run.run}</Prefix></CommonPrefixes>"
    async with connect(Counter, settings_for(hostile.url)) as checkpointer:
        admin = RunAdmin(checkpointer)
        calls: dict[str, Callable[[], Awaitable[object]]] = {
            "list": lambda: checkpointer.list(RUN),
            "load": lambda: checkpointer.load(RUN),
            "resume": lambda: checkpointer.resume(RUN),
            "history": lambda: _all(admin.history(RUN)),
            "runs": lambda: _all(admin.runs()),
            "delete": lambda: admin.delete(RUN),
            "prune": lambda: admin.prune(RUN, keep_last=1),
            "usage": lambda: _all(admin.usage()),
        }
        for name, call in calls.items():
            inner = "" if kind == "nothing" else group if name in ("runs", "usage") else line
            body = f"<IsTruncated>true</IsTruncated><NextContinuationToken>t</NextContinuationToken>{inner}"
            hostile.answer = answer(200, f"<ListBucketResult>{body}</ListBucketResult>".encode())
            hostile.asked.clear()
            async with asyncio.timeout(120):
                with pytest.raises(StoreError):
                    await call()
            assert not any(head.startswith(b"POST") for head in hostile.asked), "something is deleted"
            assert len(hostile.asked) <= 64, name


DRIPS = {
    "a body": (b"HTTP/1.1 200 OK\r\n" + S3_DATE + b"Content-Length: 1000\r\n\r\n", b"x"),
    "an error": (b"HTTP/1.1 503 Slow\r\nContent-Length: 1000\r\n\r\n", b"x"),
    "a header": (b"HTTP/1.1 200 OK\r\nx-amz-meta-a: ", b"x"),
    "100 Continue": (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
}


@pytest.mark.parametrize("kind", DRIPS)
async def test_an_answer_that_drips_counts_as_none(kind: str) -> None:
    """Each byte comes in time, the whole never does."""
    begin, drop = DRIPS[kind]

    async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(begin)
        try:
            while not writer.is_closing():
                writer.write(drop)
                await writer.drain()
                await asyncio.sleep(0.02)
        except ConnectionError:
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(drip, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server, store_at(url, read_timeout_s=0.1) as store, asyncio.timeout(60):
        calls = [CALLS[call](store) for call in ("list", "get", "delete", "put create", "put large")]
        outcomes = await asyncio.gather(*calls, return_exceptions=True)  # at once, since each waits for time-outs

    assert [type(outcome) for outcome in outcomes] == [StoreUnavailableError] * len(calls)


async def test_a_head_with_a_body_is_not_the_answer_to_the_next_request(hostile: HostileS3) -> None:
    """HTTP forbids it; what comes after the head is thrown away with its connection, or the HEAD is an error."""
    hostile.body_of_head = True
    hostile.answer = answer(200, b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", b'ETag: "e"\r\n' + S3_DATE)
    async with store_at(hostile.url) as store:
        with pytest.raises(StoreUnavailableError):
            await store.head("k")
        hostile.answer = sound("get")
        found = await store.get("k", max_bytes=10)

    assert found is not None
    assert found.body == b"{}"


GROWTH = """
import asyncio, os, resource
from s3_checkpoint import CheckpointError
from tests.s3.hostile_s3 import CALLS, store_at

def resident():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024

async def main(quiet, url, calls):
    async with store_at(quiet) as store:  # all that is imported and made at the first request is there
        await store.get("k", max_bytes=10)
    before = resident()
    async with store_at(url) as store:
        for call in calls.split(","):
            try:
                await CALLS[call](store)
            except CheckpointError:
                continue
            raise SystemExit(f"{call} is a success")
    print(resident() - before)

asyncio.run(main(os.environ['QUIET'], os.environ['URL'], os.environ['CALLS']))
"""
AMPLIFIED = b"<Contents/>" * 200_000
HUGE = {
    "a listing of empty elements": (
        b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n<ListBucketResult>" + AMPLIFIED,
        b"",
        "list",
    ),
    "an error of empty elements": (
        b"HTTP/1.1 403 No\r\nConnection: close\r\n\r\n<Error>" + AMPLIFIED,
        b"",
        "list,get,delete",
    ),
    "a listing without end": (b"HTTP/1.1 200 OK\r\n\r\n<ListBucketResult>", LONG, "list"),
    "100 MB of error": (
        b"HTTP/1.1 403 No\r\nContent-Length: 100000000\r\n\r\n",
        LONG,
        "get,put create,list,delete,copy",
    ),
    "an error without end": (b"HTTP/1.1 404 No\r\n\r\n", LONG, "get,put create,list,delete,copy"),
    "an answer without end": (b"HTTP/1.1 200 OK\r\n\r\n", LONG, "put create,delete,copy"),
}


@pytest.fixture(scope="module")
def python() -> Iterator[WarmPython]:
    with warm_python("s3_checkpoint", "s3_checkpoint._s3.client", "tests.s3.hostile_s3") as running:
        yield running


@pytest.mark.parametrize("kind", HUGE)
async def test_a_hostile_answer_costs_little_memory(
    hostile: HostileS3, elsewhere: HostileS3, python: WarmPython, tmp_path: Path, kind: str
) -> None:
    """Measured in a process of its own: 40 MiB at most. Story: up to 960 MiB."""
    elsewhere.answer = sound("get")
    hostile.answer, hostile.endless, calls = HUGE[kind]
    script = tmp_path / "growth.py"
    script.write_text(GROWTH)
    environment = {**os.environ, "QUIET": elsewhere.url, "URL": hostile.url, "CALLS": calls}
    async with asyncio.timeout(120):
        ended = await asyncio.to_thread(python.run, script, environment, tmp_path)

    assert ended.returncode == 0, ended.stderr
    assert int(ended.stdout) <= 40, f"{int(ended.stdout)} MiB more"


@pytest.mark.parametrize("call", ["get", "head"])
async def test_metadata_that_is_no_text_is_not_called_an_outage(settings_by_transport: S3Settings, call: str) -> None:
    """Another program's object, on a server that hands its bytes on: to ask again would not help."""
    written = get_backend("s3")["123456789012"]["aws"].put_object(settings_by_transport.bucket, "theirs", b"{}")
    written.set_metadata({"x-amz-meta-author": "\u00e9"})  # sent as one byte, which is no UTF-8

    async with open_store(settings_by_transport) as store:
        with pytest.raises(StoreError) as raised:
            await (store.get("theirs", max_bytes=100) if call == "get" else store.head("theirs"))

    assert not isinstance(raised.value, StoreUnavailableError)
    assert "calling again" not in str(raised.value)


ODD_ANSWERS = {
    "metadata that is no text": (200, S3_DATE + b"x-amz-meta-author: \xe9\r\n"),
    "a date that is none": (200, b"Last-Modified: yesterday\r\n"),
    "a number that is none": (200, S3_DATE + b"x-amz-mp-parts-count: some\r\n"),
    "a part of an object": (206, S3_DATE),
    "no date": (200, b""),
    "too much": (200, S3_DATE),
}


@pytest.mark.parametrize("ours", [True, False], ids=["a client made here", "a client handed in"])
@pytest.mark.parametrize("kind", ODD_ANSWERS)
async def test_an_odd_answer_gives_its_connection_back(hostile: HostileS3, kind: str, ours: bool) -> None:
    """Story: it was lent out until the garbage collector came; with all of them lent out, every call waited."""
    status, headers = ODD_ANSWERS[kind]
    hostile.answer = answer(status, b"{", headers, length=1_000_000 if kind == "too much" else 1000)
    async with store_at(hostile.url, ours=ours, max_connections=1) as store, asyncio.timeout(60):
        for _ in range(11):  # a client handed in has ten
            with pytest.raises(CheckpointError):
                await store.get("k", max_bytes=1000)
