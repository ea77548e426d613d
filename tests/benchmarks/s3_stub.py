"""A small S3 for measuring: in a process of its own, in memory, counting requests, with a set latency.

It checks no signature and keeps no metadata but what it was sent. A request costs it about 0.1 ms of CPU, so that what
is measured is the client. Run as a program it prints its ports, for HTTP and for TLS, and serves until its standard
input is closed; TLS needs an argument, the file with certificate and key.

    GET /-/set?latency_ms=20      every request from now on is answered that much later, and counts start from zero
    GET /-/copy?bucket=b&key=k&count=9   the object at `k`, whose name holds a 20-digit number, also at 0 … 8
    GET /-/counts                 {"requests": {"PutObject": 2, …}, "round_trips": 2}
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
import ssl
import sys
import time
from bisect import bisect_left, bisect_right, insort
from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import formatdate
from functools import lru_cache
from urllib.parse import parse_qsl, quote, unquote
from xml.etree import ElementTree as ET
from xml.sax.saxutils import escape

NAMESPACE = "http://s3.amazonaws.com/doc/2006-03-01/"
LISTED_AT = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")
"""When every object was stored, as listings tell it."""

Answer = tuple[int, dict[str, str], bytes]


@lru_cache(4)
def _http_date(second: int) -> str:
    """As in the headers `Date` and `Last-Modified`; written once a second."""
    return formatdate(second, usegmt=True)


class Bucket:
    """Objects by key, in key order."""

    def __init__(self) -> None:
        self.objects: dict[str, tuple[bytes, dict[str, str]]] = {}
        self.keys: list[str] = []
        self._lines: dict[str, str] = {}

    def put(self, key: str, body: bytes, headers: Mapping[str, str]) -> str:
        """Stores an object with the headers that a GET gives back."""
        if key not in self.objects:
            insort(self.keys, key)
        self._lines.pop(key, None)
        etag = f'"{hashlib.md5(body, usedforsecurity=False).hexdigest()}"'
        kept = {n: v for n, v in headers.items() if n.startswith(("x-amz-meta-", "content-type", "content-enc"))}
        self.objects[key] = (body, {**kept, "etag": etag, "last-modified": _http_date(int(time.time()))})
        return etag

    def delete(self, key: str) -> None:
        """Removes an object, if it is there."""
        self._lines.pop(key, None)
        if self.objects.pop(key, None) is not None:
            del self.keys[bisect_left(self.keys, key)]

    def list(self, query: Mapping[str, str]) -> bytes:
        """A ListObjectsV2 answer, written as AWS writes it."""
        prefix, delimiter = query.get("prefix", ""), query.get("delimiter", "")
        limit = min(int(query.get("max-keys", "1000")), 1000)
        after = query.get("continuation-token") or query.get("start-after", "")
        start = max(bisect_left(self.keys, prefix), bisect_right(self.keys, after))
        lines: list[str] = []
        last, truncated = "", False
        for index in range(start, len(self.keys)):
            key = self.keys[index]
            if not key.startswith(prefix):
                break
            cut = key.find(delimiter, len(prefix)) if delimiter else -1
            group = key[: cut + len(delimiter)] if cut >= 0 else ""
            if group and (group == last or after.startswith(group)):
                continue
            if len(lines) == limit:
                truncated = True
                break
            last = group or key
            if group:
                lines.append(f"<CommonPrefixes><Prefix>{quote(group)}</Prefix></CommonPrefixes>")
                continue
            lines.append(self._lines.get(key) or self._line(key))
        token = f"<NextContinuationToken>{escape(last)}</NextContinuationToken>" if truncated else ""
        return (
            f'<?xml version="1.0" encoding="UTF-8"?>\n<ListBucketResult xmlns="{NAMESPACE}"><Name>bucket</Name>'
            f"<Prefix>{quote(prefix)}</Prefix><KeyCount>{len(lines)}</KeyCount><MaxKeys>{limit}</MaxKeys>"
            f"<EncodingType>url</EncodingType><IsTruncated>{str(truncated).lower()}</IsTruncated>{token}"
            f"{''.join(lines)}</ListBucketResult>"
        ).encode()

    def _line(self, key: str) -> str:
        """A line of a listing, written once: a client is measured, and not how fast this writes XML."""
        body, headers = self.objects[key]
        line = self._lines[key] = (
            f"<Contents><Key>{quote(key)}</Key><LastModified>{LISTED_AT}</LastModified>"
            f"<ETag>{escape(headers['etag'], {chr(34): '&quot;'})}</ETag>"
            "<ChecksumAlgorithm>CRC32</ChecksumAlgorithm>"
            f"<ChecksumType>FULL_OBJECT</ChecksumType><Size>{len(body)}</Size><StorageClass>STANDARD</StorageClass>"
            "</Contents>"
        )
        return line


class Stub:
    """The buckets, the counts and the latency."""

    def __init__(self) -> None:
        self.buckets: dict[str, Bucket] = {}
        self.reset(0)

    def reset(self, latency_s: float) -> None:
        """Counts from zero; answers come `latency_s` later."""
        self.latency_s = latency_s
        self.requests: Counter[str] = Counter()
        self.round_trips = 0

    def copy(self, bucket: str, key: str, count: str) -> None:
        """Makes a long history of one object, faster than any client could put it there."""
        held = self.buckets[bucket]
        made = [re.sub(r"[0-9]{20}", f"{number:020d}", key) for number in range(int(count))]
        held.objects |= dict.fromkeys(made, held.objects[key])
        held.keys = sorted(held.objects)

    def answer(self, method: str, target: str, headers: dict[str, str], body: bytes) -> tuple[str, Answer]:
        """The operation's name, and its answer."""
        path, _, raw_query = target.partition("?")
        query = dict(parse_qsl(raw_query, keep_blank_values=True))
        name, _, key = unquote(path.lstrip("/")).partition("/")
        bucket = self.buckets.setdefault(name, Bucket())
        if method == "GET" and not key:
            known = "ListObjectsV2" if query.get("list-type") == "2" else "GetBucket"
            return known, (200, {"content-type": "application/xml"}, bucket.list(query))
        if method == "POST" and "delete" in query:
            for element in ET.fromstring(body).iter():
                if element.tag.endswith("Key"):
                    bucket.delete(element.text or "")
            return "DeleteObjects", (200, {}, f'<DeleteResult xmlns="{NAMESPACE}"/>'.encode())
        if method == "PUT" and not key:
            return "CreateBucket", (200, {}, b"")
        if method == "HEAD" and not key:
            return "HeadBucket", (200, {}, b"")
        if method == "PUT":
            if headers.get("if-none-match") == "*" and key in bucket.objects:
                return "PutObject", _error(412, "PreconditionFailed")
            return "PutObject", (200, {"etag": bucket.put(key, body, headers)}, b"")
        if method == "DELETE":
            bucket.delete(key)
            return "DeleteObject", (204, {}, b"")
        operation = {"GET": "GetObject", "HEAD": "HeadObject"}[method]
        if key not in bucket.objects:
            return operation, _error(404, "NoSuchKey")
        found, kept = bucket.objects[key]
        return operation, (200, kept, found)


class Connection(asyncio.Protocol):
    """HTTP/1.1 with keep-alive, as far as an S3 client needs it."""

    def __init__(self, stub: Stub) -> None:
        self._stub = stub
        self._buffer = bytearray()
        self._asked_to_continue = False
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client has connected."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Answers every request that is there whole."""
        self._buffer += data
        while (end := self._buffer.find(b"\r\n\r\n")) >= 0:
            first, *lines = self._buffer[:end].decode("latin-1").split("\r\n")
            method, target, _ = first.split(" ")
            headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
            size = int(headers.get("content-length", "0"))
            chunked = headers.get("transfer-encoding") == "chunked"
            if chunked:
                size = _chunked_size(self._buffer, end + 4)
            if len(self._buffer) < end + 4 + size:
                if headers.get("expect") == "100-continue" and not self._asked_to_continue:
                    self._asked_to_continue = True
                    asyncio.get_running_loop().call_later(self._stub.latency_s, self._continue)
                return
            body = bytes(self._buffer[end + 4 : end + 4 + size])
            del self._buffer[: end + 4 + size]
            if chunked:
                body = _unchunked(body)
            if headers.get("content-encoding", "").startswith("aws-chunked"):
                body = _unchunked(body)
            self._serve(method, target, headers, body)

    def _continue(self) -> None:
        # What follows could only be sent after this answer: a round trip of its own.
        self._stub.round_trips += 1
        self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def _serve(self, method: str, target: str, headers: dict[str, str], body: bytes) -> None:
        self._asked_to_continue = False
        stub = self._stub
        if target.startswith("/-/set"):
            stub.reset(float(target.partition("latency_ms=")[2]) / 1000)
            return self._send(method, (200, {}, b""))
        if target.startswith("/-/copy"):
            stub.copy(**dict(parse_qsl(target.partition("?")[2])))
            return self._send(method, (200, {}, b""))
        if target == "/-/counts":
            counts = {"requests": stub.requests, "round_trips": stub.round_trips}
            return self._send(method, (200, {}, json.dumps(counts).encode()))
        operation, answer = stub.answer(method, target, headers, body)
        stub.requests[operation] += 1
        asyncio.get_running_loop().call_later(stub.latency_s, self._finish, method, answer, stub.round_trips + 1)
        return None

    def _finish(self, method: str, answer: Answer, depth: int) -> None:
        # A request that came after another's answer may depend on it; those in flight together do not.
        self._stub.round_trips = max(self._stub.round_trips, depth)
        self._send(method, answer)

    def _send(self, method: str, answer: Answer) -> None:
        if self._transport.is_closing():
            return
        status, headers, body = answer
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        length = "" if status == 204 else f"content-length: {len(body)}\r\n"
        head = (
            f"HTTP/1.1 {status} X\r\n{lines}{length}x-amz-request-id: 0\r\ndate: {_http_date(int(time.time()))}\r\n\r\n"
        )
        self._transport.write(head.encode("latin-1") + (b"" if method == "HEAD" else body))


def _error(status: int, code: str) -> Answer:
    return status, {}, f"<Error><Code>{code}</Code><Message>{code}</Message></Error>".encode()


def _chunked_size(buffer: bytearray, start: int) -> int:
    """Bytes of the chunked body that begins at `start`; more than there are, if it is not there whole."""
    at = start
    while (end := buffer.find(b"\r\n", at)) >= 0:
        length = int(buffer[at:end].partition(b";")[0], 16)
        at = end + 2 + length + 2
        if at > len(buffer):
            break
        if not length:
            return at - start
    return len(buffer) + 1


def _unchunked(body: bytes) -> bytes:
    parts: list[bytes] = []
    rest = body
    while True:
        size, _, rest = rest.partition(b"\r\n")
        length = int(size.partition(b";")[0], 16)
        if not length:
            return b"".join(parts)
        parts.append(rest[:length])
        rest = rest[length + 2 :]


async def serve() -> None:
    """Serves on free loopback ports until standard input is closed."""
    stub = Stub()
    loop = asyncio.get_running_loop()
    servers = [await loop.create_server(lambda: Connection(stub), "127.0.0.1", 0)]
    for chain in sys.argv[1:]:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(chain)
        servers.append(await loop.create_server(lambda: Connection(stub), "127.0.0.1", 0, ssl=context))
    print(*(server.sockets[0].getsockname()[1] for server in servers), flush=True)
    await loop.run_in_executor(None, sys.stdin.read)
    for server in servers:
        server.close()


if __name__ == "__main__":
    asyncio.run(serve())
