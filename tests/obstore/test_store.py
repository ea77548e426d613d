"""What obstore cannot do is refused where it is opened, with what to change; what the settings say is sent."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from s3_checkpoint import CheckpointError, ConfigurationError, LifecycleError, S3Settings, connect
from s3_checkpoint._obstore.store import ObstoreObjectStore
from s3_checkpoint._transports import open_store
from s3_checkpoint.object_store import Match, ObjectAttributes, Refused, Written, pages
from s3_checkpoint.request_events import RequestEvent
from tests.obstore.raw_server import Answered, answer, listing, raw_server, s3_error

BASE = {
    "bucket": "bucket",
    "endpoint_url": "http://127.0.0.1:1",
    "access_key_id": "a",
    "secret_access_key": "b",
    "transport": "obstore",
}
NO_KEYS = {"access_key_id": None, "secret_access_key": None}
PLAIN = ObjectAttributes()


@pytest.mark.parametrize(
    ("fields", "environment", "told"),
    [
        ({"profile_name": "team", **NO_KEYS}, {}, "profiles nor SSO.*aiobotocore"),
        (NO_KEYS, {"AWS_PROFILE": "team"}, "AWS_PROFILE.*aiobotocore"),
        (NO_KEYS, {}, "no credentials.*AWS_ACCESS_KEY_ID.*aiobotocore"),
        ({"endpoint_url": None}, {}, "no region.*region_name.*aiobotocore"),
        ({"bucket": "express--use1-az4--x-s3"}, {}, "directory bucket.*aiobotocore"),
        ({"bucket": "arn:aws:s3:eu-west-1:123456789012:accesspoint/team"}, {}, "alias.*aiobotocore"),
        ({"prefix": "a//b"}, {}, "empty segment.*prefix.*aiobotocore"),
        ({"prefix": "a/../b"}, {}, "empty segment.*prefix.*aiobotocore"),
        ({"prefix": "a\tb"}, {}, "control characters.*prefix.*aiobotocore"),
        ({}, {"AWS_SESSION_TOKEN": "t"}, "session_token.*aiobotocore"),
        ({}, {"AWS_CA_BUNDLE": "/no/such/file"}, "AWS_CA_BUNDLE"),
        ({"endpoint_url": "http://user:secret@127.0.0.1:1"}, {}, "holds a user or a password"),
    ],
)
async def test_settings_that_obstore_cannot_honour_are_refused_on_opening(
    fields: dict[str, Any], environment: dict[str, str], told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is sent, and the other transport is named where it can do it."""
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    settings = S3Settings.model_validate({**BASE, **fields})

    with pytest.raises(ConfigurationError) as caught:
        async with connect(dict, settings):
            pass

    assert re.search(told, str(caught.value)), str(caught.value)
    assert "user:secret" not in str(caught.value)


async def test_a_client_or_a_session_of_the_sdk_is_refused() -> None:
    """obstore would not use it."""
    client: Any = object()

    with pytest.raises(ConfigurationError, match="client"):
        async with open_store(S3Settings.model_validate(BASE), client):
            pass


async def test_a_missing_extra_is_told_with_the_command_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """`import obstore` fails as it does where it is not installed."""
    monkeypatch.setitem(__import__("sys").modules, "obstore", None)

    with pytest.raises(ConfigurationError, match=re.escape("pip install 's3-checkpoint[obstore]'")):
        async with open_store(S3Settings.model_validate(BASE)):
            pass


async def test_a_write_carries_encryption_tags_owner_and_metadata() -> None:
    """All headers but the authorization's own are signed; on AWS a SHA-256 of the body is among them."""
    more = {
        "kms_key_id": "arn:k",
        "object_tags": {"team": "a b"},
        "expected_bucket_owner": "123456789012",
        "session_token": "TOKEN",
    }
    async with raw_server(lambda _: answer("200 OK", 'ETag: "e"')) as server, _store(server.url, **more) as store:
        written = await store.put("k", b"{}", ObjectAttributes("application/json", "gzip", {"a": "b"}), mode="create")

    head = server.seen[0].head
    assert written == Written('"e"')
    for line in (
        "x-amz-server-side-encryption: aws:kms",
        "x-amz-server-side-encryption-aws-kms-key-id: arn:k",
        "x-amz-server-side-encryption-bucket-key-enabled: true",
        "x-amz-tagging: team=a+b",
        "x-amz-expected-bucket-owner: 123456789012",
        "x-amz-meta-a: b",
        "content-encoding: gzip",
        "if-none-match: *",
        "x-amz-security-token: token",
    ):
        assert line in head.lower()
    signed = re.search(r"SignedHeaders=([^,]*)", head)
    assert signed
    assert {"x-amz-expected-bucket-owner", "x-amz-tagging", "if-none-match", "x-amz-meta-a"} <= {*signed[1].split(";")}


def _store(url: str, **more: Any) -> Any:
    values = {**BASE, "endpoint_url": url, "max_attempts": 1, "read_timeout_s": 5.0, **more}
    return open_store(S3Settings.model_validate(values))


CALLS: dict[str, Callable[[ObstoreObjectStore], Any]] = {
    "get": lambda store: store.get("p/k", max_bytes=10),
    "head": lambda store: store.head("p/k"),
    "save": lambda store: store.put("p/k", b"x", PLAIN, mode="overwrite"),
    "create": lambda store: store.put("p/k", b"x", PLAIN, mode="create"),
    "match": lambda store: store.put("p/k", b"x", PLAIN, mode=Match('"e"')),
    "list": lambda store: store.list("p/"),
    "groups": lambda store: store.list("p/", delimiter="/"),
    "delete": lambda store: store.delete(["p/k", "p/l"]),
    "copy": lambda store: store.copy("p/k", "p/l"),
}
ANSWERS: dict[str, tuple[bytes, dict[str, str]]] = {
    "409": (s3_error("409 Conflict", "ConditionalRequestConflict"), {"create": "409", "match": "409"}),
    "412": (s3_error("412 Precondition Failed", "PreconditionFailed"), {"create": "412", "match": "412"}),
    "403": (s3_error("403 Forbidden", "AccessDenied"), dict.fromkeys(CALLS, "access-denied")),
    "no key": (
        s3_error("404 Not Found", "NoSuchKey"),
        {"get": "None", "head": "None", "copy": "False", "match": "404"},
    ),
    "no bucket": (s3_error("404 Not Found", "NoSuchBucket"), dict.fromkeys(CALLS, "configuration") | {"head": "None"}),
    "a 404 of another": (answer("404 Not Found", body=b"<html>"), dict.fromkeys(CALLS, "store") | {"head": "None"}),
    "expired": (s3_error("400 Bad Request", "ExpiredToken"), dict.fromkeys(CALLS, "configuration")),
    "slow down": (s3_error("503 Slow Down", "SlowDown"), dict.fromkeys(CALLS, "store-unavailable")),
    "another region": (
        s3_error("301 Moved Permanently", "PermanentRedirect"),
        dict.fromkeys(CALLS, "configuration"),
    ),
    "not implemented": (s3_error("501 Not Implemented", "NotImplemented"), dict.fromkeys(CALLS, "configuration")),
    "a portal": (
        answer("200 OK", body=b"<html><body>Please log in</body></html>"),
        dict.fromkeys(("save", "create", "match", "delete"), "store-unavailable")
        | dict.fromkeys(("get", "head", "list", "groups", "copy"), "store"),
    ),
    "nothing": (b"", dict.fromkeys(CALLS, "store-unavailable")),
}  # fmt: skip
WITHOUT_BODY = {"expired", "another region", "slow down", "not implemented", "403"}


@pytest.mark.parametrize("name", ANSWERS)
async def test_an_answer_is_the_same_error_as_with_the_sdk(name: str) -> None:
    """Status, code and message are read from obstore's text; where they are not there, nothing is concluded."""
    sent, expected = ANSWERS[name]
    async with raw_server(lambda _: sent) as server, _store(server.url) as store:
        told = {}
        for call_name, call in CALLS.items():
            if call_name not in expected or (call_name == "head" and name in WITHOUT_BODY):
                continue
            try:
                found = await call(store)
            except CheckpointError as error:
                told[call_name] = error.code
            else:
                told[call_name] = str(found.status) if isinstance(found, Refused) else str(found)

    assert told == {call: code for call, code in expected.items() if call in told}
    assert told


async def test_a_refusal_keeps_the_stores_own_word() -> None:
    """409 and 412 are told apart by it: only the latter says that something was there."""
    codes = iter(["ConditionalRequestConflict", "PreconditionFailed"])
    statuses = iter(["409 Conflict", "412 Precondition Failed"])
    async with raw_server(lambda _: s3_error(next(statuses), next(codes))) as server, _store(server.url) as store:
        conflict = await store.put("k", b"", PLAIN, mode="create")
        there = await store.put("k", b"", PLAIN, mode="create")

    assert (conflict, conflict.was_there) == (Refused("ConditionalRequestConflict"), False)
    assert (there, there.was_there) == (Refused("PreconditionFailed"), True)


async def test_attempts_are_ours_and_counted() -> None:
    """obstore makes none of its own: what is sent is what the event tells."""
    events: list[RequestEvent] = []
    answers = iter([b"", s3_error("500 Oops", "InternalError", request_id="R1"), answer("200 OK", 'ETag: "e"')])
    async with raw_server(lambda _: next(answers)) as server:
        settings = S3Settings.model_validate({**BASE, "endpoint_url": server.url, "max_attempts": 3})
        store = ObstoreObjectStore(settings, events.append, backoff=lambda _: 0)
        written = await store.put("k", b"xyz", PLAIN, mode="overwrite")
        store.close()

    assert written == Written('"e"', repeated=True)
    assert len(server.seen) == 3
    assert [(e.operation, e.key, e.bytes, e.attempts, e.outcome, e.status) for e in events] == [
        ("PutObject", "k", 3, 3, "ok", 200)
    ]


async def test_an_error_of_s3s_is_told_with_its_request_id() -> None:
    """It is in the body of the error, the one place where obstore shows it."""
    events: list[RequestEvent] = []
    async with raw_server(lambda _: s3_error("403 Forbidden", "AccessDenied", request_id="R1")) as server:
        settings = S3Settings.model_validate({**BASE, "endpoint_url": server.url})
        async with open_store(settings, on_request=events.append) as store:
            with pytest.raises(CheckpointError):
                await store.get("k", max_bytes=1)

    assert [(event.outcome, event.status, event.request_id) for event in events] == [("access-denied", 403, "R1")]


async def test_an_empty_listing_is_believed_only_if_the_server_answers_like_s3() -> None:
    """Story: a page of HTML was a listing without keys, and so a run without steps."""

    def serve(request: Answered) -> bytes:
        return listing([]) if "list-type=2" in request.head else s3_error("404 Not Found", "NoSuchKey")

    async with raw_server(serve) as server, _store(server.url) as store:
        assert not (await store.list("p/")).keys

    assert ["list-type=2" in request.head for request in server.seen] == [True, False]


async def test_a_marker_of_a_folder_is_no_key_outside_the_prefix() -> None:
    """obstore drops the last slash of `p/`; what a console makes as a folder would be outside of itself."""
    async with raw_server(lambda _: listing(["p/", "p/a"])) as server, _store(server.url) as store:
        page = await store.list("p/")

    assert list(page.keys) == ["p/a"]


async def test_a_listing_that_never_ends_is_an_error_in_the_end() -> None:
    """obstore follows empty pages by itself; the call has the time of one exchange, and no thread keeps the process."""
    endless = listing([], token="next")
    async with raw_server(lambda _: endless) as server:
        settings = S3Settings.model_validate({**BASE, "endpoint_url": server.url, "max_state_bytes": 1})
        quick = settings.model_copy(update={"connect_timeout_s": 0.2, "read_timeout_s": 0.2})
        async with open_store(quick) as store:
            with pytest.raises(CheckpointError, match="never ends"):
                await store.list("p/")
        server.answer = lambda _: listing([])


async def test_a_redirect_of_a_write_is_not_followed() -> None:
    """No body reaches another host. A GET is followed by obstore's HTTP library: see the guide of the transports."""
    async with raw_server(lambda _: answer("200 OK", 'ETag: "x"')) as other:
        to = f"Location: http://localhost:{other.url.rpartition(':')[2]}/other/k"
        async with raw_server(lambda _: answer("307 Temporary Redirect", to)) as server, _store(server.url) as store:
            for call in ("save", "create", "match"):
                with pytest.raises(CheckpointError):
                    await CALLS[call](store)

    assert other.seen == []


@pytest.mark.parametrize("call", ["get", "head", "list"])
async def test_a_redirect_of_a_read_takes_the_session_token_along_and_no_signature(call: str) -> None:
    """A limit that the docs name, for obstore has no option against it. If this fails, the docs are to be changed."""
    async with raw_server(lambda _: answer("404 Not Found")) as other:
        to = f"Location: http://localhost:{other.url.rpartition(':')[2]}/other/k"
        async with (
            raw_server(lambda _: answer("307 Temporary Redirect", to)) as server,
            _store(server.url, session_token="t0ken") as store,
        ):
            with contextlib.suppress(CheckpointError):
                await CALLS[call](store)

    assert other.seen
    assert all("\r\nauthorization:" not in request.head.lower() for request in other.seen)
    assert all("t0ken" in request.head for request in other.seen)


async def test_a_body_larger_than_a_read_time_out_allows_is_sent(settings: S3Settings) -> None:
    """For a large body the time-out leaves room: obstore counts it from the first byte sent."""
    light = settings.model_copy(update={"transport": "obstore"})
    body = os.urandom(400_000)
    async with open_store(light) as store:
        assert isinstance(await store.put("k", body, PLAIN, mode="create"), Written)
        stored = await store.get("k", max_bytes=400_000)

    assert stored is not None
    assert stored.body == body


def test_a_store_is_of_its_loop_and_its_life(tmp_path: Path) -> None:
    """Used elsewhere or later it is a clear error, and nothing is sent."""
    settings = S3Settings.model_validate(BASE)

    async def make() -> ObstoreObjectStore:
        return ObstoreObjectStore(settings)

    store = asyncio.run(make())
    with pytest.raises(LifecycleError, match="another event loop"):
        asyncio.run(store.head("k"))
    store.close()
    with pytest.raises(LifecycleError, match="closed"):
        asyncio.run(store.head("k"))


KEYS = [
    "t/!h/1",
    "t/!h/2",
    "t/%7E/1",
    "t/0/1",
    "t/abc/1",
    "t/x",
    "t/xxx/1",
    "t/xxx/2",
    "t/xxxx/1",
    "t/xyz/1",
    "t/~",
    "t/é/1",
]
PREFIXES = ["", "t", "t/", "t/!", "t/%", "t/0", "t/a", "t/x", "t/xx", "t/xxx", "t/xxx/", "t/z", "t/~", "t/é"]


@pytest.mark.parametrize("every", [False, pytest.param(True, marks=pytest.mark.long)], ids=["some", "every"])
async def test_listings_are_those_of_the_sdk_at_any_prefix(settings: S3Settings, *, every: bool) -> None:
    """Inside a segment too, grouped or not, from any key on, page by page.

    Story: the threads whose ids are too long for a key, under `!`, were passed over as a group of their own.
    """
    async with open_store(settings) as sdk, open_store(settings.model_copy(update={"transport": "obstore"})) as light:
        for key in KEYS:
            await sdk.put(key, b"", PLAIN, mode="overwrite")
        for at, prefix in enumerate(PREFIXES):
            cases = itertools.product(("", "/"), ("", "t/x", "t/xxx/", "t/é"))
            for number, (delimiter, start_after) in enumerate(cases):
                if delimiter and prefix in ("", "t") and start_after:
                    continue  # a key inside the one group: stores differ in whether it is listed
                page = await sdk.list(prefix, delimiter=delimiter, start_after=start_after)
                expected = sorted([*page.keys, *page.prefixes])

                whole = await light.list(prefix, delimiter=delimiter, start_after=start_after)
                case = (prefix, delimiter, start_after)
                assert (case, sorted([*whole.keys, *whole.prefixes])) == (case, expected)
                if not every and (at + number) % 3:
                    continue  # key by key takes as many LISTs as there are keys: a third of the cases
                one_by_one = [
                    name
                    async for part in pages(light, prefix, delimiter=delimiter, start_after=start_after, limit=1)
                    for name in (*part.keys, *part.prefixes)
                ]

                assert (case, one_by_one) == (case, expected)
