"""Foreign errors are mapped in one place, and ours carry their details wherever they are sent."""

from __future__ import annotations

import copy
import pickle
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any
from uuid import UUID

import aiohttp
import pytest
from botocore import exceptions as sdk
from botocore.exceptions import ClientError
from pydantic import SecretStr

import s3_checkpoint
from s3_checkpoint import (
    AccessDeniedError,
    CheckpointError,
    ConfigurationError,
    InvalidArgumentError,
    LeaseHeldError,
    LifecycleError,
    S3Settings,
    StateDecodingError,
    StateEncodingError,
    StepConflictError,
    StoreError,
    StoreUnavailableError,
)
from s3_checkpoint._error_codes import ABSENT_CODES, KNOWN_CODES, error_for
from s3_checkpoint._printable import printable
from s3_checkpoint._s3.store import S3ObjectStore
from s3_checkpoint.object_store import ObjectAttributes, ObjectTooLargeError, Refused
from tests.s3.sdk_requests import RequestLog, logged_client

SAMPLES: list[CheckpointError] = [
    InvalidArgumentError("step", "-1", "must be an int"),
    StateEncodingError("$.a", "it is odd"),
    StateDecodingError("bucket", "key", "it is odd"),
    StepConflictError(UUID(int=1), 7, "w1"),
    LeaseHeldError("bucket", "key", "worker-7", "step 4", 12.5),
    AccessDeniedError("bucket", "key", "s3:GetObject", "AccessDenied: no"),
    ConfigurationError("the bucket does not exist", "bucket", "NoSuchBucket"),
    StoreUnavailableError("PutObject", "bucket", "key", outcome_unknown=True, detail="SlowDown"),
    LifecycleError("not open"),
    StoreError("PutObject", "bucket", "key", "Odd: odd"),
]


def test_every_class_is_sampled_and_exported() -> None:
    """A new error class needs a new action of the caller; there are ten at most."""
    classes = {value for value in vars(s3_checkpoint).values() if isinstance(value, type)}
    errors = {value for value in classes if issubclass(value, CheckpointError)} - {CheckpointError}

    assert errors == {type(sample) for sample in SAMPLES}
    assert len(errors) <= 10
    assert len({sample.code for sample in SAMPLES}) == len(SAMPLES)


@pytest.mark.parametrize("error", SAMPLES, ids=lambda error: error.code)
def test_pickle_and_copy_keep_an_error_whole(error: CheckpointError) -> None:
    """A process pool hands them on."""
    for other in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert type(other) is type(error)
        assert str(other) == str(error)
        assert vars(other) == vars(error)


@pytest.mark.parametrize("size", [101, None])
def test_pickle_keeps_an_object_too_large_error_whole(size: int | None) -> None:
    """The error of a store, which readers of states turn into one of theirs."""
    error = ObjectTooLargeError("bucket", "key", size, 100)

    copied = pickle.loads(pickle.dumps(error))

    assert (type(copied), str(copied), vars(copied)) == (ObjectTooLargeError, str(error), vars(error))
    assert isinstance(error, StoreError)


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda error: error.code)
@pytest.mark.parametrize("word", ["\x1b]0;x\x07", "\x9b31m", "\u202e\u2066", "a\nb\x85\u2028", "\ud800"])
def test_foreign_words_are_escaped_in_the_sentence_and_whole_in_the_attributes(
    sample: CheckpointError, word: str
) -> None:
    """Keys and servers' words reach a log as text; the attributes keep them for programs."""
    fields = {name: word if isinstance(value, str) else value for name, value in vars(sample).items()}
    error = copy.copy(sample)
    vars(error).update(fields)

    assert str(error).isprintable()
    assert printable(word) in str(error) or word not in fields.values()
    assert repr(type(sample)(*[word if isinstance(a, str) else a for a in sample.args], **_more(sample))).isprintable()


def _more(sample: CheckpointError) -> dict[str, bool]:
    return {"outcome_unknown": True} if isinstance(sample, StoreUnavailableError) else {}


def test_unavailability_and_a_held_lease_alone_are_retryable() -> None:
    """Everything else needs a change first."""
    assert {type(sample) for sample in SAMPLES if sample.retryable} == {StoreUnavailableError, LeaseHeldError}


def test_an_unknown_outcome_is_said_to_be_unknown() -> None:
    """And that repeating is safe."""
    write = StoreUnavailableError("PutObject", "b", "k", outcome_unknown=True)
    read = StoreUnavailableError("GetObject", "b", "k", outcome_unknown=False)

    assert "may or may not have been written" in str(write)
    assert "nothing was written" in str(read)
    assert "calling again with the same arguments is safe" in str(write)


SETTINGS = S3Settings(
    bucket="bucket",
    endpoint_url="http://127.0.0.1:9",
    access_key_id="x",
    secret_access_key=SecretStr("y"),
    max_attempts=1,
)


class Failing:
    """A store whose requests all end in the error set, raised where the SDK sends them."""

    def __init__(self, log: RequestLog) -> None:
        self.store = S3ObjectStore(log.client, SETTINGS)
        self.error: Exception = AssertionError("no error set")
        log.client.meta.events.register("before-send.s3", self._fail)

    def answer(self, operation: str, code: str, status: int) -> None:
        """From now on S3 answers with this code."""
        answer = {"Error": {"Code": code, "Message": "words"}, "ResponseMetadata": {"HTTPStatusCode": status}}
        self.error = ClientError(answer, operation)

    def _fail(self, **_: Any) -> None:
        raise self.error


@pytest.fixture
async def failing() -> AsyncIterator[Failing]:
    async with logged_client(SETTINGS) as log:
        yield Failing(log)


CALLS: dict[str, Callable[[S3ObjectStore], Awaitable[object]]] = {
    "GetObject": lambda store: store.get("k", max_bytes=10),
    "HeadObject": lambda store: store.head("k"),
    "PutObject": lambda store: store.put("k", b"", ObjectAttributes(), mode="overwrite"),
    "ListObjectsV2": lambda store: store.list("k"),
    "DeleteObjects": lambda store: store.delete(["k"]),
    "CopyObject": lambda store: store.copy("k", "l"),
}


@pytest.mark.parametrize("operation", CALLS)
async def test_every_code_of_the_table_becomes_its_error(failing: Failing, operation: str) -> None:
    """For every operation, with the original chained; an unknown code is a `StoreError`."""
    for code in [*sorted(KNOWN_CODES - ABSENT_CODES), "SomethingNew"]:
        status = int(code) if code.isdigit() else 400
        failing.answer(operation, code, status)
        expected = error_for(operation, "b", "k", code, status, "words")

        with pytest.raises(CheckpointError) as caught:
            await CALLS[operation](failing.store)

        assert type(caught.value) is type(expected), code
        assert isinstance(caught.value, StoreError) == (code == "SomethingNew"), code
        assert isinstance(caught.value.__cause__, ClientError)
        if isinstance(caught.value, StoreUnavailableError):
            assert caught.value.outcome_unknown == (operation in ("PutObject", "DeleteObjects", "CopyObject"))


@pytest.mark.parametrize(
    ("code", "status", "word"),
    [
        ("QuotaExceeded", 403, "quota"),
        ("ObjectQuotaExceeded", 403, "quota"),
        ("XMinioAdminBucketQuotaExceeded", 400, "quota"),
        ("KMS.KMSInvalidStateException", 400, "KMS key"),
    ],
)
def test_a_quota_or_a_key_out_of_use_is_not_told_as_a_missing_right(code: str, status: int, word: str) -> None:
    """Story: a full bucket of Ceph's asked for s3:PutObject, which was granted."""
    told = error_for("PutObject", "b", "k", code, status, "words")

    assert isinstance(told, ConfigurationError)
    assert word in told.problem


class _Words(dict[str, str]):
    """Fills every placeholder of an SDK error's text."""

    def __missing__(self, name: str) -> str:
        return "x"


def _foreign_errors() -> list[Exception]:
    made: list[Exception] = [
        TimeoutError("slow"),
        ConnectionResetError("reset"),
        aiohttp.ClientPayloadError("cut"),
        aiohttp.ServerDisconnectedError(),
    ]
    classes: list[Any] = [value for value in vars(sdk).values() if isinstance(value, type)]
    for class_ in classes:
        if issubclass(class_, sdk.BotoCoreError):
            error = class_.__new__(class_)
            Exception.__init__(error, class_.fmt.format_map(_Words()))
            made.append(error)
    return made


async def test_every_exception_of_the_sdk_is_mapped_to_one_of_ours(failing: Failing) -> None:
    """Every error class of botocore, and those of the HTTP library: callers see ours, caused by the foreign one."""
    foreign = _foreign_errors()
    assert len(foreign) > 60

    for error in foreign:
        failing.error = error
        with pytest.raises((ConfigurationError, StoreUnavailableError)) as caught:
            await failing.store.head("k")
        assert caught.value.__cause__ is error


async def test_asyncios_errors_about_a_wrong_loop_are_lifecycle_errors(failing: Failing) -> None:
    """It says so with a bare `RuntimeError`; a bare `ValueError` is an answer that cannot be understood."""
    failing.error = RuntimeError("Event loop is closed")
    with pytest.raises(LifecycleError):
        await failing.store.head("k")

    failing.error = ValueError("no date")
    with pytest.raises(StoreError, match="no date"):
        await failing.store.head("k")


@pytest.mark.parametrize(
    ("code", "status"),
    [("PreconditionFailed", 412), ("ConditionalRequestConflict", 409), ("ConcurrentModification", 409), ("Odd", 409)],
)
async def test_a_refusal_is_told_from_an_error(failing: Failing, code: str, status: int) -> None:
    """Any 412 and any 409 of a conditional write, whatever the code."""
    failing.answer("PutObject", code, status)

    assert await failing.store.put("k", b"", ObjectAttributes(), mode="create") == Refused(code)
    with pytest.raises(CheckpointError):
        await failing.store.put("k", b"", ObjectAttributes(), mode="overwrite")


async def test_a_403_names_the_action_and_the_missing_list_permission(failing: Failing) -> None:
    """Without s3:ListBucket, S3 answers 403 for a key that is not there."""
    failing.answer("HeadObject", "403", 403)

    with pytest.raises(AccessDeniedError, match="s3:ListBucket") as caught:
        await failing.store.head("k")

    assert caught.value.action == "s3:GetObject"


async def test_a_denied_listing_is_never_an_empty_one(failing: Failing) -> None:
    """It names s3:ListBucket."""
    failing.answer("ListObjectsV2", "AccessDenied", 403)

    with pytest.raises(AccessDeniedError) as caught:
        await failing.store.list("runs/")

    assert caught.value.action == "s3:ListBucket"
