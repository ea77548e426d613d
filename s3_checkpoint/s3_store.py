"""The object store on S3: its requests, each through the door behind which the SDK's errors are ours."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

from botocore.exceptions import ClientError

from s3_checkpoint.errors import StateDecodingError, StoreError, StoreUnavailableError
from s3_checkpoint.object_store import (
    PAGE_KEYS,
    ListedLines,
    Match,
    ObjectAttributes,
    ObjectHead,
    Page,
    PutMode,
    Refused,
    StoredObject,
    Written,
)
from s3_checkpoint.request_events import Exchange, OnRequest, RequestObserver, count_attempt
from s3_checkpoint.s3_door import EXCHANGE_ERRORS, S3Door, code_of, status_of
from s3_checkpoint.s3_errors import ABSENT_CODES, error_for, is_refusal
from s3_checkpoint.s3_listing import LINES
from s3_checkpoint.s3_requests import S3Requests
from s3_checkpoint.s3_tuning import is_tuned
from s3_checkpoint.settings import S3Settings

if TYPE_CHECKING:
    from types_aiobotocore_s3 import S3Client

_EACH_ATTEMPT = "before-send.s3"
_COUNTER = "s3-checkpoint-attempts"
_CHUNK = 256 * 1024
_OF_A_LISTING = frozenset({"IsTruncated", "KeyCount", "Name", "MaxKeys", "Contents"})


class S3ObjectStore:
    """`ObjectStore` on one bucket, through an open client that belongs to somebody else.

    Belongs to the event loop it is made in, as the client does: used from another loop it raises `LifecycleError`.
    """

    def __init__(self, client: S3Client, settings: S3Settings, on_request: OnRequest | None = None) -> None:
        self._client = client
        self._door = S3Door(settings.bucket, RequestObserver(settings.bucket, on_request))
        client.meta.events.register(_EACH_ATTEMPT, count_attempt, unique_id=_COUNTER, unique_id_uses_count=True)
        self._settings = settings
        self._requests = S3Requests(client, prepared=is_tuned(client))
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
        return self._door.loop

    def close(self) -> None:
        """From now on every call raises `LifecycleError`, calls under way too. The client is left to its owner."""
        if not self._door.closed:
            self._client.meta.events.unregister(_EACH_ATTEMPT, unique_id=_COUNTER, unique_id_uses_count=True)
        self._door.close()

    async def get(self, key: str, *, max_bytes: int) -> StoredObject | None:
        """See `ObjectStore.get`."""
        with self._door.request("GetObject", key) as exchange:
            for attempt in range(1, self._settings.max_attempts + 1):
                try:
                    exchange.answer = answer = await self._requests.send("GetObject", self._common, key)
                except ClientError as error:
                    if _is_absent(error, exchange):
                        return None
                    raise
                try:
                    body = await self._body(answer, key, max_bytes)
                except EXCHANGE_ERRORS:
                    # The SDK repeats a request until its answer begins; a body that breaks off is left to us.
                    if attempt == self._settings.max_attempts:
                        raise
                else:
                    break
            exchange.bytes = len(body)
            return StoredObject(body, _head(answer, len(body)))

    async def head(self, key: str) -> ObjectHead | None:
        """See `ObjectStore.head`. S3 answers alike for a missing key and a missing bucket: None for both."""
        with self._door.request("HeadObject", key) as exchange:
            try:
                exchange.answer = answer = await self._requests.send("HeadObject", self._common, key)
            except ClientError as error:
                if _is_absent(error, exchange):
                    return None
                raise
            return _head(answer, answer["ContentLength"])

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
        with self._door.request("PutObject", key) as exchange:
            exchange.bytes = len(body)
            try:
                exchange.answer = answer = await self._requests.send(
                    "PutObject", options, key, body=body, metadata=attributes.metadata
                )
            except ClientError as error:
                if precondition and (is_refusal(code_of(error), status_of(error)) or code_of(error) in ABSENT_CODES):
                    exchange.answer, exchange.outcome = error.response, "refused"
                    return Refused(code_of(error))
                raise
            if not answer.get("ETag"):
                problem = "its answer has no ETag; is something else than an S3 answering there?"
                raise StoreUnavailableError("PutObject", self.bucket, key, outcome_unknown=True, detail=problem)
        return Written(answer["ETag"])

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
        with self._door.request("ListObjectsV2", prefix) as exchange:
            exchange.answer = answer = await self._requests.send("ListObjectsV2", self._common, query=query)
            # What is no listing must not pass for an empty one, nor a page that is not the last for the last.
            if not _OF_A_LISTING & answer.keys():
                raise StoreError("ListObjectsV2", self.bucket, prefix, "its answer is not a listing")
            next_token = answer["NextContinuationToken"] if answer.get("IsTruncated") else None
            columns: Any = answer.get(LINES)
            if columns is None:
                contents = answer.get("Contents", ())
                columns = ([line[name] for line in contents] for name in ("Key", "Size", "LastModified"))
            groups = [group["Prefix"] for group in answer.get("CommonPrefixes", ())]
            return Page(ListedLines(*columns), groups, next_token)

    async def delete(self, keys: Sequence[str]) -> None:
        """See `ObjectStore.delete`. The first key that S3 refuses is raised; the others of its batch are gone."""
        for start in range(0, len(keys), PAGE_KEYS):
            batch = keys[start : start + PAGE_KEYS]
            with self._door.request("DeleteObjects", batch[0]) as exchange:
                exchange.answer = answer = await self._client.delete_objects(
                    **self._common, Delete={"Objects": [{"Key": key} for key in batch], "Quiet": True}
                )
            for failed in answer.get("Errors", ()):
                code, message = failed.get("Code", ""), failed.get("Message", "")
                if code not in ABSENT_CODES:
                    raise error_for("DeleteObjects", self.bucket, failed.get("Key", ""), code, 200, message)

    async def copy(self, source: str, target: str, *, attributes: ObjectAttributes | None = None) -> bool:
        """See `ObjectStore.copy`."""
        options: dict[str, Any] = {"MetadataDirective": "COPY"}
        if attributes is not None:
            options = {"MetadataDirective": "REPLACE", "Metadata": dict(attributes.metadata)}
            options |= _content_headers(attributes)
        if "ExpectedBucketOwner" in self._common:
            options["ExpectedSourceBucketOwner"] = self._common["ExpectedBucketOwner"]
        with self._door.request("CopyObject", target) as exchange:
            exchange.copy_source = f"{self.bucket}/{source}"
            try:
                exchange.answer = await self._client.copy_object(
                    **self._common,
                    **self._encryption,
                    **options,
                    Key=target,
                    CopySource={"Bucket": self.bucket, "Key": source},
                )
            except ClientError as error:
                if _is_absent(error, exchange):
                    return False
                raise
        return True

    async def _body(self, answer: Any, key: str, max_bytes: int) -> bytes:
        """The body, of which no more than `max_bytes` are ever held. A chunked answer does not tell its size."""
        body, size = answer["Body"], answer.get("ContentLength")
        async with body:
            if size is not None and size <= max_bytes:
                return bytes(await body.read())
            read = bytearray()
            while size is None and len(read) <= max_bytes:
                chunk = await body.read(_CHUNK)
                if not chunk:
                    return bytes(read)
                read += chunk
            body.close()  # so that the rest is not read only to be thrown away
        told = "streamed, and holds" if size is None else f"{size} bytes,"
        raise StateDecodingError(self.bucket, key, f"it is {told} more than {max_bytes} allowed")


def _is_absent(error: ClientError, exchange: Exchange) -> bool:
    if code_of(error) not in ABSENT_CODES:
        return False
    exchange.answer, exchange.outcome = error.response, "absent"
    return True


def _content_headers(attributes: ObjectAttributes) -> dict[str, str]:
    headers = {"ContentType": attributes.content_type}
    if attributes.content_encoding:
        headers["ContentEncoding"] = attributes.content_encoding
    return headers


def _head(answer: Any, size: int) -> ObjectHead:
    # Names of metadata have no case; MinIO, for one, hands them back capitalised.
    metadata = {name.lower(): value for name, value in answer.get("Metadata", {}).items()}
    attributes = ObjectAttributes(answer.get("ContentType", ""), answer.get("ContentEncoding") or None, metadata)
    return ObjectHead(attributes, answer.get("ETag", ""), size, answer["LastModified"])
