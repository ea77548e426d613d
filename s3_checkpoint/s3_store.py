"""The object store on S3. Its requests, and the one door through which the SDK's errors become ours."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

import aiohttp
from botocore import exceptions as sdk
from botocore.exceptions import BotoCoreError, ClientError

from s3_checkpoint.errors import ConfigurationError, LifecycleError, StateDecodingError, StoreUnavailableError
from s3_checkpoint.object_store import (
    PAGE_KEYS,
    ListedObject,
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
from s3_checkpoint.s3_errors import ABSENT_CODES, WRITES, error_for, is_refusal
from s3_checkpoint.s3_listing import LINES
from s3_checkpoint.settings import S3Settings

if TYPE_CHECKING:
    from types_aiobotocore_s3 import S3Client

_CONFIGURATION_ERRORS = (
    sdk.NoCredentialsError,
    sdk.PartialCredentialsError,
    sdk.CredentialRetrievalError,
    sdk.TokenRetrievalError,
    sdk.SSOError,
    sdk.ProfileNotFound,
    sdk.NoRegionError,
    sdk.InvalidRegionError,
    sdk.EndpointProviderError,
    sdk.ParamValidationError,
    sdk.SSLError,
    sdk.ProxyConnectionError,
    sdk.UnsupportedS3ConfigurationError,
    sdk.UnsupportedS3AccesspointConfigurationError,
)
"""What the SDK raises before, or instead of, asking the store; every other `BotoCoreError` is a failed exchange."""

_EACH_ATTEMPT = "before-send.s3"
_COUNTER = "s3-checkpoint-attempts"
_EXCHANGE_ERRORS = (BotoCoreError, aiohttp.ClientError, TimeoutError, ConnectionError)


class S3ObjectStore:
    """`ObjectStore` on one bucket, through an open client that belongs to somebody else.

    Belongs to the event loop it is made in, as the client does: used from another loop it raises `LifecycleError`.
    """

    def __init__(self, client: S3Client, settings: S3Settings, on_request: OnRequest | None = None) -> None:
        self._client = client
        self._observer = RequestObserver(settings.bucket, on_request)
        client.meta.events.register(_EACH_ATTEMPT, count_attempt, unique_id=_COUNTER, unique_id_uses_count=True)
        self._settings = settings
        self._loop = asyncio.get_running_loop()
        self._closed = False
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
        return self._loop

    def close(self) -> None:
        """From now on every call raises `LifecycleError`. The client is left to its owner."""
        if not self._closed:
            self._client.meta.events.unregister(_EACH_ATTEMPT, unique_id=_COUNTER, unique_id_uses_count=True)
        self._closed = True

    async def get(self, key: str, *, max_bytes: int) -> StoredObject | None:
        """See `ObjectStore.get`."""
        with self._door("GetObject", key) as exchange:
            try:
                answer = await self._client.get_object(**self._common, Key=key)
            except ClientError as error:
                if _is_absent(error, exchange):
                    return None
                raise
            exchange.answer = answer
            size = answer["ContentLength"]
            if size > max_bytes:
                answer["Body"].close()
                raise StateDecodingError(self.bucket, key, f"it is {size} bytes, more than {max_bytes} allowed")
            async with answer["Body"] as stream:
                body = await stream.read()
            exchange.bytes = len(body)
        return StoredObject(body, _head(answer))

    async def head(self, key: str) -> ObjectHead | None:
        """See `ObjectStore.head`. S3 answers alike for a missing key and a missing bucket: None for both."""
        with self._door("HeadObject", key) as exchange:
            try:
                exchange.answer = answer = await self._client.head_object(**self._common, Key=key)
            except ClientError as error:
                if _is_absent(error, exchange):
                    return None
                raise
        return _head(answer)

    async def put(self, key: str, body: bytes, attributes: ObjectAttributes, *, mode: PutMode) -> Written | Refused:
        """See `ObjectStore.put`."""
        precondition: dict[str, Any] = {}
        if mode == "create":
            precondition["IfNoneMatch"] = "*"
        elif isinstance(mode, Match):
            precondition["IfMatch"] = mode.etag
        with self._door("PutObject", key) as exchange:
            exchange.bytes = len(body)
            try:
                exchange.answer = answer = await self._client.put_object(
                    **self._common,
                    **self._encryption,
                    **self._tagging,
                    **precondition,
                    **_headers(attributes),
                    Key=key,
                    Body=body,
                )
            except ClientError as error:
                if precondition and (is_refusal(_code(error), _status(error)) or _code(error) in ABSENT_CODES):
                    exchange.answer, exchange.outcome = error.response, "refused"
                    return Refused(_code(error))
                raise
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
        options: dict[str, Any] = {"Prefix": prefix, "MaxKeys": limit}
        if token is not None:
            options["ContinuationToken"] = token
        elif start_after and self.ordered:
            options["StartAfter"] = start_after
        if delimiter:
            options["Delimiter"] = delimiter
        with self._door("ListObjectsV2", prefix) as exchange:
            exchange.answer = answer = await self._client.list_objects_v2(**self._common, **options)
        lines: Any = answer.get(LINES)
        if lines is None:
            lines = [(line["Key"], line["Size"], line["LastModified"]) for line in answer.get("Contents", ())]
        return Page(
            list(map(ListedObject._make, lines)),
            [group["Prefix"] for group in answer.get("CommonPrefixes", ())],
            answer.get("NextContinuationToken"),
        )

    async def delete(self, keys: Sequence[str]) -> None:
        """See `ObjectStore.delete`. The first key that S3 refuses is raised; the others of its batch are gone."""
        for start in range(0, len(keys), PAGE_KEYS):
            batch = keys[start : start + PAGE_KEYS]
            with self._door("DeleteObjects", batch[0]) as exchange:
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
            options = {"MetadataDirective": "REPLACE", **_headers(attributes)}
        if "ExpectedBucketOwner" in self._common:
            options["ExpectedSourceBucketOwner"] = self._common["ExpectedBucketOwner"]
        with self._door("CopyObject", target) as exchange:
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

    @contextmanager
    def _door(self, operation: str, key: str) -> Iterator[Exchange]:
        """Every request goes through here: usable at all before it, our errors only behind it."""
        if self._closed:
            raise LifecycleError("this checkpointer is closed; use it inside its `async with connect(...)` block")
        if asyncio.get_running_loop() is not self._loop:
            raise LifecycleError(
                "this checkpointer was opened in another event loop; open one inside this loop with "
                "`async with connect(...)`, or use SyncS3Checkpointer, which has a loop of its own"
            )
        with self._observer.exchange(operation, key) as exchange:
            try:
                yield exchange
            except ClientError as error:
                exchange.answer = error.response
                message = str(error.response.get("Error", {}).get("Message", ""))
                raise error_for(operation, self.bucket, key, _code(error), _status(error), message) from error
            except _CONFIGURATION_ERRORS as error:
                problem = "the request could not be made as configured"
                if isinstance(error, sdk.NoCredentialsError):
                    problem = "no credentials were found; give a profile, a role, or an access key and its secret"
                raise ConfigurationError(problem, self.bucket, str(error)) from error
            except _EXCHANGE_ERRORS as error:
                detail = f"{type(error).__name__}: {error}"[:300]
                raise StoreUnavailableError(
                    operation, self.bucket, key, outcome_unknown=operation in WRITES, detail=detail
                ) from error


def _is_absent(error: ClientError, exchange: Exchange) -> bool:
    if _code(error) not in ABSENT_CODES:
        return False
    exchange.answer, exchange.outcome = error.response, "absent"
    return True


def _code(error: ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))


def _status(error: ClientError) -> int:
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def _headers(attributes: ObjectAttributes) -> dict[str, Any]:
    headers: dict[str, Any] = {"ContentType": attributes.content_type, "Metadata": dict(attributes.metadata)}
    if attributes.content_encoding:
        headers["ContentEncoding"] = attributes.content_encoding
    return headers


def _head(answer: Any) -> ObjectHead:
    # Names of metadata have no case; MinIO, for one, hands them back capitalised.
    metadata = {name.lower(): value for name, value in answer.get("Metadata", {}).items()}
    attributes = ObjectAttributes(answer.get("ContentType", ""), answer.get("ContentEncoding") or None, metadata)
    return ObjectHead(attributes, answer.get("ETag", ""), answer["ContentLength"], answer["LastModified"])
