"""Prepared requests are the SDK's own: the same on the wire, in what they raise, and after a redirect."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from io import BytesIO
from itertools import count
from typing import Any

import pytest
from aiobotocore.awsrequest import AioAWSResponse
from aiobotocore.session import AioSession
from botocore.exceptions import ClientError, ParamValidationError

from s3_checkpoint import S3Settings, connect
from s3_checkpoint._s3.client import client_for
from s3_checkpoint._s3.prepared_requests import PREPARED_BYTES, S3Requests
from tests.benchmarks.stub_process import StubProcess, running_stub
from tests.states import RUN, Counter

KEYS = {"access_key_id": "a", "secret_access_key": "b", "region_name": "eu-west-1"}
LOCAL = {**KEYS, "endpoint_url": "http://127.0.0.1:9"}
NEW_EACH_TIME = {"Authorization", "X-Amz-Date", "amz-sdk-invocation-id"}
CALLS: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("GetObject", {}, {"key": "p/runs/1/steps/7.json"}),
    ("HeadObject", {"ExpectedBucketOwner": "111122223333"}, {"key": "a b+c/ä%2E~/é.json"}),
    ("GetObject", {}, {"key": "/a//b/../c/./key?x#y"}),
    ("PutObject", {"ContentType": "application/json"}, {"key": "k", "body": b""}),
    (
        "PutObject",
        {"ContentType": "application/json", "IfNoneMatch": "*", "ContentEncoding": "zstd", "Tagging": "a=b%20c"},
        {"key": "p/k", "body": b"x" * 5000, "metadata": {"write-id": "1", "digest": "f" * 64}},
    ),
    (
        "PutObject",
        {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": "alias/key", "BucketKeyEnabled": True},
        {"key": "p/k", "body": b"{}", "metadata": {"format": "1"}},
    ),
    (
        "PutObject",
        {"ContentType": "application/json", "ContentEncoding": "gzip"},
        {
            "key": "p/k",
            "body": b"{}",
            "metadata": {"format": "1"},
            "checksum": "RBNvo1WzZ4oRRq0W9+hknpT7T8If536DEMBg9hyq/4o=",
        },
    ),
    ("PutObject", {"ContentType": "text/plain"}, {"key": "large", "body": b"y" * (PREPARED_BYTES + 1)}),
    ("ListObjectsV2", {}, {"query": {"Prefix": "a b/ü+&=", "MaxKeys": 1000}}),
    ("ListObjectsV2", {}, {"query": {"Prefix": "p/", "MaxKeys": 1, "StartAfter": "p/1", "Delimiter": "/"}}),
    ("ListObjectsV2", {"ExpectedBucketOwner": "111122223333"}, {"query": {"Prefix": "", "ContinuationToken": "+/="}}),
]


Answer = tuple[int, dict[str, str], bytes]
ELSEWHERE: Answer = (
    400,
    {},
    b"<Error><Code>AuthorizationHeaderMalformed</Code><Message>m</Message><Region>eu-north-1</Region></Error>",
)
MISSING: Answer = (404, {}, b"<Error><Code>NoSuchKey</Code><Message>m</Message></Error>")
SESSION: Answer = (
    200,
    {},
    b"<CreateSessionResult><Credentials><SessionToken>t</SessionToken><SecretAccessKey>s</SecretAccessKey>"
    b"<AccessKeyId>a</AccessKeyId><Expiration>2099-01-01T00:00:00Z</Expiration></Credentials></CreateSessionResult>",
)
OK: Answer = (200, {"etag": '"e"'}, b"")


class _Body:
    """The body of a canned answer."""

    def __init__(self, body: bytes = b"") -> None:
        self._body = body

    async def read(self) -> bytes:
        return self._body


class Recorder:
    """Keeps what a client would send, and gives canned answers."""

    def __init__(self, client: Any, *answers: Answer) -> None:
        self.sent: list[tuple[Any, ...]] = []
        self._answers = list(answers)
        client.meta.events.register("before-send.s3", self._send)

    async def _send(self, request: Any, event_name: str, **_: Any) -> AioAWSResponse:
        if event_name.endswith(".CreateSession"):
            status, headers, text = SESSION
            return AioAWSResponse(request.url, status, headers, _Body(text))
        headers = {name: value for name, value in request.headers.items() if name not in NEW_EACH_TIME}
        signed = str(request.headers["Authorization"]).split("SignedHeaders=")[1].split(",")[0]
        body = request.body
        if hasattr(body, "read"):
            read = body.read()
            body = read if isinstance(body, BytesIO) else await read
        address, _, query = request.url.partition("?")
        url = address + ("?" + "&".join(sorted(query.split("&"))) if query else "")  # its order means nothing
        self.sent.append((request.method, url, headers, signed, body or b""))
        status, answer_headers, text = self._answers.pop(0) if self._answers else OK
        return AioAWSResponse(request.url, status, answer_headers, _Body(text))


@pytest.fixture(scope="module")
def stub() -> Iterator[StubProcess]:
    """A server that counts requests."""
    with running_stub() as stub:
        yield stub


@pytest.mark.parametrize(
    "settings",
    [
        {"bucket": "bucket", **KEYS},
        {"bucket": "bucket.with.dots", **KEYS},
        {"bucket": "bucket", **KEYS, "session_token": "t"},
        {"bucket": "arn:aws:s3:eu-west-1:111122223333:accesspoint/team", **KEYS},
        {"bucket": "team--euw1-az1--x-s3", **KEYS},
        {"bucket": "bucket", **LOCAL},
    ],
    ids=["aws", "dots", "token", "access-point", "directory", "compatible"],
)
@pytest.mark.parametrize(("operation", "options", "what"), CALLS, ids=count())
async def test_prepared_requests_equal_sdk_requests_on_the_wire(
    settings: dict[str, Any], operation: str, options: dict[str, Any], what: dict[str, Any]
) -> None:
    """Address, headers, which of them are signed, and body, checksum included; twice, so that nothing sticks."""
    settings_ = S3Settings.model_validate(settings)
    common = {"Bucket": settings_.bucket, **options}
    async with client_for(settings_) as client:
        recorder = Recorder(client)
        for requests in (S3Requests(client, prepared=False), prepared := S3Requests(client, prepared=True), prepared):
            await requests.send(operation, common, **what)

    expected, first, second = recorder.sent
    assert first == expected
    assert second == expected
    assert ("x-amz-s3session-token" in expected[3]) == settings_.directory_bucket


async def test_rendering_a_template_sends_nothing_even_if_many_begin_at_once(stub: StubProcess) -> None:
    """Twenty first calls of a kind are twenty requests, each answered with its own."""
    settings = S3Settings.model_validate({"bucket": "many", **LOCAL, "endpoint_url": stub.url})
    async with client_for(settings) as client:
        requests = S3Requests(client, prepared=True)
        common = {"Bucket": "many"}
        await asyncio.gather(
            *(requests.send("PutObject", common, f"k{n}", body=b"x" * n, metadata={"n": str(n)}) for n in range(20))
        )
        stub.set()

        answers = await asyncio.gather(*(requests.send("HeadObject", common, f"k{n}") for n in range(20)))

    assert [(answer["ContentLength"], answer["Metadata"]["n"]) for answer in answers] == [
        (n, str(n)) for n in range(20)
    ]
    assert stub.counts()[0] == {"HeadObject": 20}


async def test_a_refusal_is_the_sdks_own_error() -> None:
    """Its class, code and answer."""
    async with client_for(S3Settings.model_validate({"bucket": "bucket", **LOCAL})) as client:
        Recorder(client, MISSING, MISSING)
        errors = []
        for requests in (S3Requests(client, prepared=prepared) for prepared in (False, True)):
            with pytest.raises(client.exceptions.NoSuchKey) as caught:
                await requests.send("GetObject", {"Bucket": "b"}, "k")
            errors.append(caught.value)

    assert str(errors[0]) == str(errors[1])
    assert errors[0].operation_name == errors[1].operation_name
    assert errors[0].response == errors[1].response


async def test_a_redirect_is_followed_once_and_then_known() -> None:
    """A bucket in another region: the SDK asks there, and what was prepared for the wrong one is forgotten."""
    settings = S3Settings.model_validate({"bucket": "bucket", **KEYS})
    async with client_for(settings) as client:
        recorder = Recorder(client, ELSEWHERE)
        requests = S3Requests(client, prepared=True)
        for key in ("one", "two"):
            await requests.send("PutObject", {"Bucket": "bucket"}, key, body=b"x", metadata={"a": "b"})

    assert [address for _, address, *_ in recorder.sent] == [
        "https://bucket.s3.eu-west-1.amazonaws.com/one",
        "https://bucket.s3.eu-north-1.amazonaws.com/one",
        "https://bucket.s3.eu-north-1.amazonaws.com/two",
    ]


async def test_concurrent_requests_are_redirected_each_by_itself() -> None:
    """What the SDK notes of one of them is not taken for another's."""
    async with client_for(S3Settings.model_validate({"bucket": "bucket", **KEYS})) as client:
        recorder = Recorder(client, OK, ELSEWHERE, ELSEWHERE)
        requests = S3Requests(client, prepared=True)
        await requests.send("PutObject", {"Bucket": "bucket"}, "first", body=b"x")
        await asyncio.gather(*(requests.send("PutObject", {"Bucket": "bucket"}, key, body=b"x") for key in "ab"))

    assert sorted(address for _, address, *_ in recorder.sent[3:]) == [
        "https://bucket.s3.eu-north-1.amazonaws.com/a",
        "https://bucket.s3.eu-north-1.amazonaws.com/b",
    ]


async def test_other_requests_are_sent_while_a_template_is_rendered() -> None:
    """Rendering may have to wait, for credentials say; another task's request is not taken for it."""
    waiting, continued = asyncio.Event(), asyncio.Event()

    async def hold(params: dict[str, Any], **_: Any) -> None:
        if params["Key"] != "other":
            waiting.set()
            await continued.wait()

    async with client_for(S3Settings.model_validate({"bucket": "bucket", **LOCAL})) as client:
        recorder = Recorder(client)
        client.meta.events.register("before-parameter-build.s3.HeadObject", hold)
        rendered = asyncio.ensure_future(S3Requests(client, prepared=True).send("HeadObject", {"Bucket": "b"}, "mine"))
        await waiting.wait()
        await client.head_object(Bucket="b", Key="other")
        continued.set()
        await rendered

    assert [url.rpartition("/")[2] for _, url, *_ in recorder.sent] == ["other", "mine"]


async def test_a_repeated_attempt_is_signed_and_sent_whole() -> None:
    """After a 503 the same body and metadata go out again."""
    async with client_for(S3Settings.model_validate({"bucket": "bucket", **LOCAL})) as client:
        recorder = Recorder(client, (503, {}, b""))
        await S3Requests(client, prepared=True).send(
            "PutObject", {"Bucket": "b"}, "k", body=b"body", metadata={"a": "b"}
        )

    first, second = recorder.sent
    assert first[2].pop("amz-sdk-request") != second[2].pop("amz-sdk-request")
    assert first == second
    assert (first[2]["x-amz-meta-a"], first[4]) == (b"b", b"body")


async def test_metadata_that_is_not_ascii_is_refused_as_the_sdk_refuses_it() -> None:
    """Before any request."""
    async with client_for(S3Settings.model_validate({"bucket": "bucket", **LOCAL})) as client:
        recorder = Recorder(client)
        with pytest.raises(ParamValidationError, match="ASCII"):
            await S3Requests(client, prepared=True).send(
                "PutObject", {"Bucket": "b"}, "k", body=b"", metadata={"a": "ä"}
            )

    assert recorder.sent == []


async def test_no_kind_is_remembered_for_an_etag() -> None:
    """There would be as many as there are objects."""
    async with client_for(S3Settings.model_validate({"bucket": "bucket", **LOCAL})) as client:
        recorder, requests = Recorder(client), S3Requests(client, prepared=True)
        for n in range(3):
            await requests.send("PutObject", {"Bucket": "b", "IfMatch": f'"{n}"'}, "k", body=b"")

    assert [headers["If-Match"] for _, _, headers, *_ in recorder.sent] == [b'"0"', b'"1"', b'"2"']
    assert requests._templates == {}


async def test_a_client_handed_in_is_used_by_its_methods_alone(stub: StubProcess) -> None:
    """Its owner's handlers see the parameters of every call."""
    seen: list[str] = []

    def note(params: dict[str, Any], **_: Any) -> None:
        seen.append(params["Key"])

    settings = S3Settings.model_validate({"bucket": "handed-in", **LOCAL, "endpoint_url": stub.url})
    session = AioSession()
    session.set_credentials("a", "b")
    async with session.create_client("s3", region_name="eu-west-1", endpoint_url=stub.url) as client:
        client.meta.events.register("before-parameter-build.s3.PutObject", note)
        async with connect(Counter, settings, client=client) as checkpointer:
            for step in range(3):
                await checkpointer.save(RUN, step, Counter(n=step))

    assert len(seen) == 3


async def test_an_error_of_rendering_is_that_of_the_call() -> None:
    """A bucket name that cannot be one is refused before any request, each time."""
    async with client_for(S3Settings.model_validate({"bucket": "bucket", **LOCAL})) as client:
        recorder, requests = Recorder(client), S3Requests(client, prepared=True)
        for _ in range(2):
            with pytest.raises((ParamValidationError, ClientError)):
                await requests.send("GetObject", {"Bucket": "not a bucket"}, "k")

    assert recorder.sent == []
