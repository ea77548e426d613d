"""The object store on S3: six verbs, each a request in a scope of its own (`request_scope`)."""

from __future__ import annotations

import asyncio
import hashlib
import re
from base64 import b64encode
from collections.abc import Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

from botocore.exceptions import ClientError

from s3_checkpoint._concurrency.offload import off_loop
from s3_checkpoint._error_codes import ABSENT_CODES, error_for, is_absent, is_refusal, odd_answer
from s3_checkpoint._s3.error_mapping import EXCHANGE_ERRORS, code_of, status_of
from s3_checkpoint._s3.http_session import bodies_closed_on_error
from s3_checkpoint._s3.list_parser import COLUMNS
from s3_checkpoint._s3.prepared_requests import S3Requests
from s3_checkpoint._s3.request_scope import RequestScopes
from s3_checkpoint._s3.sdk_internals import one_host, vet_region
from s3_checkpoint._s3.tuning import may_prepare, sends_own_checksums
from s3_checkpoint.errors import StoreError
from s3_checkpoint.object_store import (
    PAGE_KEYS,
    Match,
    ObjectAttributes,
    ObjectHead,
    ObjectTooLargeError,
    Page,
    PutMode,
    Refused,
    StoredObject,
    Written,
    check_prefix,
)
from s3_checkpoint.request_events import Exchange, OnRequest, RequestObserver, count_attempt
from s3_checkpoint.settings import DRIP, SLOWEST, S3Settings

if TYPE_CHECKING:
    from types_aiobotocore_s3 import S3Client

_EACH_ATTEMPT = "before-send.s3"
_COUNTER = "s3-checkpoint-attempts"
_EACH_ANSWER = "needs-retry.s3"
_REGIONS = "s3-checkpoint-regions"
_CHUNK = 256 * 1024
_HASHED_AT_ONCE = 1024**2
"""Bytes up to which a SHA-256 takes no more than 1 to 3 ms, and is not worth a thread."""
_OF_A_LISTING = frozenset({"IsTruncated", "KeyCount", "Name", "MaxKeys", "Contents"})


_NOT_FOR_XML = re.compile("[\\x00-\\x1f\\ufffe\\uffff]")
"""Characters that XML 1.0 does not have, and white space that a reader of XML may change."""


class S3ObjectStore:
    """`ObjectStore` on one bucket, through an open client that the caller closes.

    Belongs to the event loop it is made in, as the client does: used from another loop it raises `LifecycleError`.
    """

    def __init__(self, client: S3Client, settings: S3Settings, on_request: OnRequest | None = None) -> None:
        self._client = client
        self._scopes = RequestScopes(settings.bucket, RequestObserver(settings.bucket, on_request))
        events = client.meta.events
        events.register(_EACH_ATTEMPT, count_attempt, unique_id=_COUNTER, unique_id_uses_count=True)
        self._asked = one_host(client)
        events.register_first(_EACH_ANSWER, vet_region, unique_id=_REGIONS, unique_id_uses_count=True)
        self._settings = settings
        self._requests = S3Requests(self._asked, prepared=may_prepare(client))
        self._own_checksums = sends_own_checksums(client)
        self._common: dict[str, Any] = {"Bucket": settings.bucket}
        if settings.expected_bucket_owner:
            self._common["ExpectedBucketOwner"] = settings.expected_bucket_owner
        self._tagging: dict[str, Any] = {}
        if settings.object_tags:
            self._tagging = {"Tagging": urlencode(settings.object_tags, quote_via=quote)}
        self._encryption: dict[str, Any] = {}
        if settings.kms_key_id:
            self._encryption = {
                "ServerSideEncryption": "aws:kms",
                "SSEKMSKeyId": settings.kms_key_id,
                "BucketKeyEnabled": True,
            }

    @property
    def bucket(self) -> str:
        """The bucket's name."""
        return self._settings.bucket

    @property
    def ordered(self) -> bool:
        """False for a directory bucket."""
        return not self._settings.directory_bucket

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The event loop it belongs to."""
        return self._scopes.loop

    def close(self) -> None:
        """From now on every call raises `LifecycleError`, calls in progress too. The client is left to its owner."""
        if not self._scopes.closed:
            events = self._client.meta.events
            events.unregister(_EACH_ATTEMPT, unique_id=_COUNTER, unique_id_uses_count=True)
            events.unregister(_EACH_ANSWER, unique_id=_REGIONS, unique_id_uses_count=True)
        self._scopes.close()

    async def get(self, key: str, *, max_bytes: int) -> StoredObject | None:
        """See `ObjectStore.get`."""
        with self._scopes.request("GetObject", key) as exchange, bodies_closed_on_error():
            for attempt in range(1, self._settings.max_attempts + 1):
                try:
                    exchange.answer = answer = await self._requests.send("GetObject", self._common, key)
                except ClientError as error:
                    if _says_absent("GetObject", error, exchange):
                        return None
                    raise
                self._check_status(answer, "GetObject", key)
                try:
                    body = await self._body(answer, key, max_bytes)
                except EXCHANGE_ERRORS:
                    # The SDK repeats a request until its answer begins; a body that breaks off is left to us.
                    if attempt == self._settings.max_attempts:
                        raise
                else:
                    break
            exchange.bytes = len(body)
            return StoredObject(body, self._head(answer, "GetObject", key, len(body)))

    async def head(self, key: str) -> ObjectHead | None:
        """See `ObjectStore.head`. S3 answers alike for a missing key and a missing bucket: None for both.

        So does whatever else answers HTTP with a 404: conclude nothing from None that a GET must confirm.
        """
        with self._scopes.request("HeadObject", key) as exchange:
            try:
                exchange.answer = answer = await self._requests.send("HeadObject", self._common, key)
            except ClientError as error:
                if _says_absent("HeadObject", error, exchange):
                    return None
                raise
            self._check_status(answer, "HeadObject", key)
            return self._head(answer, "HeadObject", key, answer.get("ContentLength"))

    async def put(self, key: str, body: bytes, attributes: ObjectAttributes, *, mode: PutMode) -> Written | Refused:
        """See `ObjectStore.put`."""
        precondition: dict[str, Any] = {}
        if mode == "create":
            precondition["IfNoneMatch"] = "*"
        elif isinstance(mode, Match):
            precondition["IfMatch"] = mode.etag
        options = {
            **self._common,
            **self._encryption,
            **self._tagging,
            **precondition,
            **_content_headers(attributes),
        }
        with self._scopes.request("PutObject", key) as exchange:
            exchange.bytes = len(body)
            checksum = None
            if self._own_checksums:
                checksum = await off_loop(len(body) > _HASHED_AT_ONCE, _checksum, body)
            try:
                exchange.answer = answer = await self._requests.send(
                    "PutObject", options, key, body=body, metadata=attributes.metadata, checksum=checksum
                )
            except ClientError as error:
                # S3 answers 404 where `If-Match` finds no object.
                code, status = code_of(error), status_of(error)
                gone = isinstance(mode, Match) and is_absent("PutObject", code, status)
                if precondition and (gone or is_refusal(code, status)):
                    exchange.answer, exchange.outcome = error.response, "refused"
                    return Refused(code, status)
                raise
            self._check_status(answer, "PutObject", key)
            if not answer.get("ETag"):
                raise odd_answer("PutObject", self.bucket, key, "it has no ETag")
        return Written(answer["ETag"], repeated=answer.get("ResponseMetadata", {}).get("RetryAttempts", 0) > 0)

    async def list(
        self,
        prefix: str,
        *,
        start_after: str = "",
        token: str | None = None,
        delimiter: str = "",
        limit: int = PAGE_KEYS,
    ) -> Page:
        """See `ObjectStore.list`."""
        query: dict[str, Any] = {"Prefix": prefix, "MaxKeys": limit}
        if token is not None:
            query["ContinuationToken"] = token
        elif start_after and self.ordered:
            query["StartAfter"] = start_after
        if delimiter:
            query["Delimiter"] = delimiter
        with self._scopes.request("ListObjectsV2", prefix) as exchange:
            exchange.answer = answer = await self._requests.send("ListObjectsV2", self._common, query=query)
            self._check_status(answer, "ListObjectsV2", prefix)
            # What is no listing must not pass for an empty one, nor a page that is not the last for the last.
            if not _OF_A_LISTING & answer.keys():
                raise odd_answer("ListObjectsV2", self.bucket, prefix, "it is not a listing")
            next_token = answer["NextContinuationToken"] if answer.get("IsTruncated") else None
            if next_token is not None and next_token == token:
                # Here too, as not every caller continues with `pages`.
                raise StoreError("ListObjectsV2", self.bucket, prefix, "its listing never ends: a token came twice")
            keys, sizes, times, etags = answer.get(COLUMNS) or _columns(answer.get("Contents", ()))
            groups = [group["Prefix"] for group in answer.get("CommonPrefixes", ())]
            page = Page(keys, sizes, times, etags, groups, next_token)
            check_prefix(self, prefix, page)
            return page

    async def delete(self, keys: Sequence[str]) -> None:
        """See `ObjectStore.delete`. The first key that S3 refuses is raised; the others of its batch are gone.

        A key that XML cannot say (one with a control character) would spoil its batch, and takes a request of its own.
        """
        batched = [key for key in keys if not _NOT_FOR_XML.search(key)]
        for key in keys if len(batched) < len(keys) else ():
            if _NOT_FOR_XML.search(key):
                await self._delete_alone(key)
        for start in range(0, len(batched), PAGE_KEYS):
            batch = batched[start : start + PAGE_KEYS]
            with self._scopes.request("DeleteObjects", batch[0]) as exchange:
                exchange.answer = answer = await self._asked.delete_objects(
                    **self._common, Delete={"Objects": [{"Key": key} for key in batch], "Quiet": True}
                )
                self._check_status(answer, "DeleteObjects", batch[0])
                if _headers(answer).get("content-length") == "0":
                    raise odd_answer("DeleteObjects", self.bucket, batch[0], "it is empty")
            for failed in answer.get("Errors", ()):
                code, message = failed.get("Code", ""), failed.get("Message", "")
                if code not in ABSENT_CODES:
                    raise error_for("DeleteObjects", self.bucket, failed.get("Key", ""), code, 200, message)

    async def _delete_alone(self, key: str) -> None:
        with self._scopes.request("DeleteObjects", key) as exchange:
            exchange.answer = answer = await self._asked.delete_object(**self._common, Key=key)
            self._check_status(answer, "DeleteObjects", key, success=204)

    async def copy(self, source: str, target: str, *, attributes: ObjectAttributes | None = None) -> bool:
        """See `ObjectStore.copy`."""
        options: dict[str, Any] = {"MetadataDirective": "COPY"}
        if attributes is not None:
            options = {"MetadataDirective": "REPLACE", "Metadata": dict(attributes.metadata)}
            options |= _content_headers(attributes)
        if "ExpectedBucketOwner" in self._common:
            options["ExpectedSourceBucketOwner"] = self._common["ExpectedBucketOwner"]
        with self._scopes.request("CopyObject", target) as exchange:
            exchange.copy_source = f"{self.bucket}/{source}"
            try:
                exchange.answer = answer = await self._asked.copy_object(
                    **self._common,
                    **self._encryption,
                    **options,
                    Key=target,
                    CopySource={"Bucket": self.bucket, "Key": source},
                )
            except ClientError as error:
                if _says_absent("CopyObject", error, exchange):
                    return False
                raise
            self._check_status(answer, "CopyObject", target)
            if not answer.get("CopyObjectResult", {}).get("ETag"):
                raise odd_answer("CopyObject", self.bucket, target, "it has no ETag")
        return True

    async def _body(self, answer: Any, key: str, max_bytes: int) -> bytes:
        """The body, of which no more than `max_bytes` are ever held. A chunked answer does not tell its size."""
        body, size = answer["Body"], answer.get("ContentLength")
        seconds = DRIP * self._settings.read_timeout_s + (max_bytes if size is None else min(size, max_bytes)) / SLOWEST
        async with body, asyncio.timeout(seconds):
            if size is not None and size <= max_bytes:
                return bytes(await body.read())
            read = bytearray()
            while size is None and len(read) <= max_bytes:
                chunk = await body.read(_CHUNK)
                if not chunk:
                    return bytes(read)
                read += chunk
            body.close()  # so that the rest is not read only to be thrown away
        raise ObjectTooLargeError(self.bucket, key, size, max_bytes)

    def _check_status(self, answer: Any, operation: str, key: str, *, success: int = 200) -> None:
        """S3 answers with this status or an error; a 206 holds a part of an object, a 202 comes from elsewhere."""
        status = answer.get("ResponseMetadata", {}).get("HTTPStatusCode", success)
        if status != success:
            raise odd_answer(operation, self.bucket, key, f"its status is {status}")

    def _head(self, answer: Any, operation: str, key: str, size: int | None) -> ObjectHead:
        if size is None or "LastModified" not in answer:
            raise odd_answer(operation, self.bucket, key, "it has no length or no date")
        # Names of metadata have no case; MinIO, for one, hands them back capitalised.
        metadata = {name.lower(): value for name, value in answer.get("Metadata", {}).items()}
        attributes = ObjectAttributes(answer.get("ContentType", ""), answer.get("ContentEncoding") or None, metadata)
        date = _date(_headers(answer).get("date", ""))
        return ObjectHead(attributes, answer.get("ETag", ""), size, answer["LastModified"], date)


def _says_absent(operation: str, error: ClientError, exchange: Exchange) -> bool:
    if not is_absent(operation, code_of(error), status_of(error)):
        return False
    exchange.answer, exchange.outcome = error.response, "absent"
    return True


def _checksum(body: bytes) -> str:
    """What S3 compares the body with that it receives.

    Source: "PutObject", `x-amz-checksum-sha256`, Amazon S3 API reference.
    """
    return b64encode(hashlib.sha256(body).digest()).decode()


def _columns(contents: Any) -> Any:
    """Keys, sizes, times and ETags of a listing that the SDK has parsed."""
    columns = [[entry[name] for entry in contents] for name in ("Key", "Size", "LastModified")]
    return *columns, [str(entry.get("ETag", "")).strip('"') for entry in contents]


def _content_headers(attributes: ObjectAttributes) -> dict[str, str]:
    headers = {"ContentType": attributes.content_type}
    if attributes.content_encoding:
        headers["ContentEncoding"] = attributes.content_encoding
    return headers


@lru_cache(maxsize=16)  # the answers of a second share theirs
def _date(header: str) -> datetime | None:
    """The time in a `Date` header; None if it holds none."""
    try:
        date = parsedate_to_datetime(header)
    except ValueError:
        return None
    return date if date.tzinfo else date.replace(tzinfo=UTC)


def _headers(answer: Any) -> Any:
    return answer.get("ResponseMetadata", {}).get("HTTPHeaders", {})
