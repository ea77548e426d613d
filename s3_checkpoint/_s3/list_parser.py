"""The entries of a ListObjectsV2 answer, read at a tenth of the CPU that the SDK's own parser takes for a full page.

The SDK parses what is left of the answer. Where an answer is not written as expected, nothing is taken out of it, and
the SDK parses it all: so a store with habits of its own costs time, and is never misread.

Source: "ListObjectsV2", Amazon S3 API reference; `before-parse`, the SDK's event between an answer and its parser.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime
from typing import Any
from urllib.parse import unquote_plus

COLUMNS = "s3_checkpoint_columns"
"""The member of a parsed answer that holds the entries taken out before: all keys, sizes, times and ETags."""

Columns = tuple[list[str], list[int], list[datetime], list[str]]

_ENTRY = re.compile(
    rb"<Contents><Key>([^<]+)</Key><LastModified>([0-9T:.-]+Z)</LastModified><ETag>([^<]+)</ETag>"
    rb"(?:<ChecksumAlgorithm>[^<]*</ChecksumAlgorithm>)?(?:<ChecksumType>[^<]*</ChecksumType>)?<Size>([0-9]+)</Size>"
)
"""An entry as S3 begins it: one pass over the answer instead of four."""
_KEY = re.compile(rb"<Key>([^<]+)</Key>")
_SIZE = re.compile(rb"<Size>([0-9]+)</Size>")
_ETAG = re.compile(rb"<ETag>([^<]+)</ETag>")
_QUOTES = (b"&quot;", b"&#34;", b'"')
_TIME = re.compile(rb"<LastModified>([0-9T:.-]+Z)</LastModified>")


def take_entries_out(response_dict: dict[str, Any], customized_response_dict: dict[str, Any], **_: Any) -> None:
    """Handler of the event `before-parse` of `ListObjectsV2`."""
    body = response_dict.get("body")
    if response_dict.get("status_code") == 200 and isinstance(body, bytes) and (split := split_listing(body)):
        customized_response_dict[COLUMNS], response_dict["body"] = split


def split_listing(body: bytes) -> tuple[Columns, bytes] | None:
    """The entries of the listing in columns, and the answer without them; None if it has none or is not as expected."""
    count = body.count(b"<Contents>")
    start, end = body.find(b"<Contents>"), body.rfind(b"</Contents>")
    if not count or end < start or b"<ListBucketResult" not in body[:start]:
        return None
    if b"!" in body and b"<!" in body:  # looked for in this order, as brackets are everywhere
        return None
    rest = body[:start] + body[end + len(b"</Contents>") :]
    if body.count(b"</Contents><Contents>") != count - 1:  # white space or other elements between them
        head, *blocks = body.split(b"<Contents>")
        ends = [block.partition(b"</Contents>") for block in blocks]
        rest = head + b"".join(behind for _, _, behind in ends)
        if body.count(b"</Contents>") != count:
            return None
    keys, sizes, times, etags = _elements(body, count)
    if not count == len(keys) == len(sizes) == len(times):
        return None
    joined = b"\n".join(keys)
    if b"&" in joined or joined.count(b"\n") != count - 1:  # an entity, or a line break that is not encoded
        return None
    try:
        text = joined.decode()
        names = text.split("\n")
        if b"<EncodingType>url</EncodingType>" in rest and ("%" in text or "+" in text):
            decoded = unquote_plus(text, errors="strict").split("\n")
            # A key with a line break in it is rare, and worth decoding each by itself.
            names = decoded if len(decoded) == count else [unquote_plus(name, errors="strict") for name in names]
        moments = list(map(datetime.fromisoformat, b"\n".join(times).decode().split("\n")))
    except ValueError:
        return None
    return (names, list(map(int, sizes)), moments, _unquoted(etags, count)), rest


def _elements(body: bytes, count: int) -> tuple[Sequence[bytes], Sequence[bytes], Sequence[bytes], Sequence[bytes]]:
    """Keys, sizes, times and ETags as written. Entities, empty keys and other forms of time are among none of them."""
    parts = _ENTRY.split(body)  # one list and no tuples, which the garbage collector would look at
    if len(parts) == 5 * count + 1:
        return parts[1::5], parts[4::5], parts[2::5], parts[3::5]
    # Each element once per entry, whatever their order.
    return _KEY.findall(body), _SIZE.findall(body), _TIME.findall(body), _ETAG.findall(body)


def _unquoted(etags: Sequence[bytes], count: int) -> list[str]:
    """The ETags without their quotes; all empty where one of them is odd, or not told."""
    joined = b"\n".join(etags)
    quote = next((quote for quote in _QUOTES if joined.startswith(quote)), None)
    if quote is not None and joined.count(quote) == 2 * count:
        joined = joined.replace(quote, b"")
    told = joined.decode(errors="replace").split("\n")
    odd = len(told) != count or b"&" in joined or b'"' in joined
    return [""] * count if odd else told
