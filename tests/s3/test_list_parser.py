"""The entries of a listing: what is taken out is what the SDK's parser finds, and what is unknown is left to it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote_plus
from xml.sax.saxutils import escape

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from s3_checkpoint import S3Settings
from s3_checkpoint._s3.client import client_for
from s3_checkpoint._s3.list_parser import COLUMNS, split_listing, take_entries_out
from s3_checkpoint._s3.store import S3ObjectStore
from s3_checkpoint.object_store import ListedObject, ListedObjects, ObjectAttributes, Page
from tests.s3.sdk_requests import new_session

ODD_KEYS = ["a b", "a+b", "a%20b", "a&b<c>", "ä/ö", "'quoted'", "a/1", "a/2", "b/1", "日本"]
TIME = "2026-01-02T03:04:05.678Z"
ELEMENTS = {"Key": "k", "Size": "7", "LastModified": TIME, "ETag": "&quot;x&quot;", "StorageClass": "STANDARD"}


def _answer(*lines: str, head: str = "<EncodingType>url</EncodingType>", tail: str = "") -> bytes:
    xml = '<?xml version="1.0" encoding="UTF-8"?>\n<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
    return f"{xml}{head}{''.join(lines)}{tail}</ListBucketResult>".encode()


def _line(**elements: str) -> str:
    inside = "".join(f"<{name}>{text}</{name}>" for name, text in {**ELEMENTS, **elements}.items())
    return f"<Contents>{inside}</Contents>"


@hypothesis_settings(max_examples=50)
@given(
    keys=st.lists(st.text(st.characters(exclude_categories=["Cs"]), min_size=1), min_size=1, max_size=5),
    order=st.permutations(sorted(ELEMENTS)),
    space=st.sampled_from(["", "\n", "\n    "]),
    behind=st.sampled_from(["", "<CommonPrefixes><Prefix>p/</Prefix></CommonPrefixes>", "<Name>n</Name>"]),
)
def test_lines_are_read_in_whatever_order_their_elements_stand(
    keys: list[str], order: list[str], space: str, behind: str
) -> None:
    """Any key, URL-encoded as S3 does it; white space and other elements between the lines."""
    lines = []
    for size, key in enumerate(keys):
        texts = {**ELEMENTS, "Key": quote_plus(key), "Size": str(size)}
        lines.append("<Contents>" + space.join(f"<{n}>{texts[n]}</{n}>" for n in order) + f"</Contents>{space}{behind}")

    split = split_listing(_answer(*lines))

    moment = datetime(2026, 1, 2, 3, 4, 5, 678000, tzinfo=UTC)
    assert split is not None
    assert split[0] == (keys, list(range(len(keys))), [moment] * len(keys), ["x"] * len(keys))
    assert split[1] == _answer(*[space + behind for _ in keys])


@pytest.mark.parametrize(
    "body",
    [
        _answer(),
        _answer(_line(Key="a&amp;b"), head=""),
        _answer(_line(Key="")),
        _answer(_line(Size="many")),
        _answer(_line(LastModified="Fri, 02 Jan 2026 03:04:05 GMT")),
        _answer(_line(LastModified="2026-13-02T03:04:05Z")),
        _answer(_line(LastModified="2026-01-02T03:04:05+02:00")),
        _answer(_line(Key="%FF")),
        _answer(_line(Key="one\ntwo"), head=""),
        _answer(_line(), "<Contents><Key>no-more</Key></Contents>"),
        _answer(_line().replace("</Contents>", "")),
        _answer(_line().replace("</Contents>", ""), _line()),
        _answer("<!-- <Contents> -->", _line()),
        _answer(f"<!-- {_line()} -->", _line()),
        _answer(_line(Key="<![CDATA[k]]>")),
        _answer(_line()).replace(b"<Key>", b"<Key xml:space='preserve'>"),
        _answer(_line()).replace(b"Contents>", b"s3:Contents>"),
        _answer(_line()).replace(b"ListBucketResult", b"Error"),
        b"<Error><Code>SlowDown</Code></Error>",
        b"not XML",
        b"",
    ],
)
def test_an_answer_written_otherwise_is_left_to_the_sdk(body: bytes) -> None:
    """Whole and unchanged."""
    response: dict[str, Any] = {"status_code": 200, "body": body}
    found: dict[str, Any] = {}

    take_entries_out(response, found)

    assert (response, found) == ({"status_code": 200, "body": body}, {})


@pytest.mark.parametrize(
    ("written", "told"),
    [("&quot;a-2&quot;", "a-2"), ("&#34;b&#34;", "b"), ('"c"', "c"), ("d", "d"), ("", ""), ("e&amp;", ""), ("é", "é")],
)
def test_etags_are_told_without_quotes_and_left_empty_where_they_are_odd(written: str, told: str) -> None:
    """A store that lists no ETags, or odd ones, is listed all the same."""
    split = split_listing(_answer(_line(ETag=written), _line(ETag=written)))

    assert split is not None
    assert split[0][3] == [told, told]


def test_a_success_alone_is_read() -> None:
    """An error is the SDK's to read."""
    response: dict[str, Any] = {"status_code": 503, "body": _answer(_line())}
    found: dict[str, Any] = {}

    take_entries_out(response, found)

    assert found == {}
    response["status_code"] = 200
    take_entries_out(response, found)
    assert found[COLUMNS][0] == ["k"]


@pytest.mark.parametrize("delimiter", ["", "/"])
@pytest.mark.parametrize("limit", [1, 3, 1000])
async def test_a_tuned_client_and_the_sdks_own_list_alike(
    new_settings: Callable[..., S3Settings], delimiter: str, limit: int
) -> None:
    """Keys with every kind of odd character, page by page, with and without common prefixes."""
    settings = new_settings()
    session = new_session("testing")
    plain_client = session.create_client("s3", region_name="us-east-1", endpoint_url=settings.endpoint_url)
    async with client_for(settings) as tuned, plain_client as plain:
        stores = [S3ObjectStore(tuned, settings), S3ObjectStore(plain, settings)]
        for key in ODD_KEYS:
            await stores[0].put(key, key.encode(), ObjectAttributes(), mode="overwrite")
        token = None
        seen: list[str] = []
        while True:
            ours, theirs = [await store.list("", delimiter=delimiter, limit=limit, token=token) for store in stores]
            assert ours == theirs
            seen += [line.key for line in ours.objects] + list(ours.prefixes)
            token = ours.next_token
            if token is None:
                break

    groups = {key.partition("/")[0] + "/" if "/" in key and delimiter else key for key in ODD_KEYS}
    assert sorted(seen) == sorted(groups)


def test_the_entries_of_a_page_are_a_sequence_like_any_other() -> None:
    """Length, index, slice, order and equality are those of a list of entries."""
    times = [datetime(2026, 1, day, tzinfo=UTC) for day in (1, 2, 3)]
    entries = [ListedObject(*entry) for entry in zip("abc", (1, 2, 3), times, strict=True)]

    listed = Page(["a", "b", "c"], [1, 2, 3], times).objects

    assert list(listed) == entries
    assert (len(listed), listed[0], listed[-1]) == (3, entries[0], entries[2])
    assert listed[1:] == entries[1:]
    assert listed == ListedObjects(["a", "b", "c"], [1, 2, 3], times)
    assert listed != entries[:2]
    assert Page.of(entries) == Page(["a", "b", "c"], [1, 2, 3], times, ["", "", ""])
    assert Page.of(()) == Page([], [], [], [])


def test_escaping_is_needed_for_what_is_tested() -> None:
    """The odd keys are odd: XML or URL encoding changes each of them, or their order."""
    assert sum(escape(key) != key or quote_plus(key) != key for key in ODD_KEYS) == len(ODD_KEYS)
