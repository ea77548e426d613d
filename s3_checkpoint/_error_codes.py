"""S3's answers → our errors: one table. Knows codes and status numbers, not the SDK.

A status without a code of S3's may come from a proxy, a portal or another server; nothing is concluded from it that
only S3 can say: not that an object is absent, nor that a bucket is elsewhere.

Source: "Error responses" and "List of error codes" of the Amazon S3 API reference; `ConcurrentModification` is Ceph
RGW's word where S3 says `ConditionalRequestConflict`; `QuotaExceeded` (with status 403) is Ceph's and others', the two
longer names of quotas are NooBaa's and MinIO's.
"""

from __future__ import annotations

import re

from s3_checkpoint.errors import (
    AccessDeniedError,
    CheckpointError,
    ConfigurationError,
    StoreError,
    StoreUnavailableError,
)

ABSENT_CODES = frozenset({"NoSuchKey", "NotFound", "404"})
"""What an answer may say where there is no such object: see `is_absent`."""

ACTIONS = {
    "GetObject": "s3:GetObject",
    "HeadObject": "s3:GetObject",
    "PutObject": "s3:PutObject",
    "ListObjectsV2": "s3:ListBucket",
    "DeleteObjects": "s3:DeleteObject",
    "CopyObject": "s3:GetObject on the source and s3:PutObject on the target",
}
"""The IAM action each operation needs."""

WRITES = frozenset({"PutObject", "DeleteObjects", "CopyObject"})

_DENIED_CODES = frozenset(
    {"AccessDenied", "Forbidden", "403", "AllAccessDisabled", "AccountProblem", "UnauthorizedAccess"}
)

_KEY_STATE = "the KMS key cannot be used in its state; enable it, or correct `kms_key_id`"
_QUOTA = "the quota of the bucket or account is used up; raise it, or prune and delete runs"

_CONFIGURATION = {
    "NoSuchBucket": "the bucket does not exist; create it, or correct `bucket`, `region_name` or `endpoint_url`",
    "NoSuchAccessPoint": "the access point does not exist; create it, or correct `bucket`",
    "NoSuchMultiRegionAccessPoint": "the access point does not exist; create it, or correct `bucket`",
    "InvalidBucketName": "that is not a valid bucket name; correct `bucket`",
    "PermanentRedirect": "the bucket is in another region; set `region_name` to the bucket's own",
    "TemporaryRedirect": "the bucket is in another region; set `region_name` to the bucket's own",
    "AuthorizationHeaderMalformed": "the request was signed for another region; set `region_name` to the bucket's own",
    "IllegalLocationConstraintException": "the bucket is in another region; set `region_name` to the bucket's own",
    "InvalidAccessKeyId": "the store does not know this access key; check the credentials",
    "SignatureDoesNotMatch": "the secret access key is wrong; check the credentials",
    "InvalidToken": "the session token is not valid; check the credentials",
    "TokenRefreshRequired": "the session token has expired; refresh the credentials",
    "ExpiredToken": "the session token has expired; refresh the credentials",
    "ExpiredTokenException": "the session token has expired; refresh the credentials",
    "InvalidClientTokenId": "the store does not know these credentials; check them",
    "UnrecognizedClientException": "the store does not know these credentials; check them",
    "AuthFailure": "the store does not accept these credentials; check them",
    "NotSignedUp": "the account is not signed up for S3",
    "RequestTimeTooSkewed": "this machine's clock is wrong; set it",
    "KMS.NotFoundException": "the KMS key does not exist; correct `kms_key_id`",
    "KMS.DisabledException": "the KMS key is disabled; enable it, or correct `kms_key_id`",
    "KMS.InvalidStateException": _KEY_STATE,
    "KMS.KMSInvalidStateException": _KEY_STATE,
    "QuotaExceeded": _QUOTA,
    "ObjectQuotaExceeded": _QUOTA,
    "XMinioAdminBucketQuotaExceeded": _QUOTA,
    "NotImplemented": "the store does not implement what this request relies on (a conditional write, perhaps)",
    "501": "the store does not implement what this request relies on (a conditional write, perhaps)",
}

_UNAVAILABLE_CODES = frozenset({
    "SlowDown",
    "SlowDownRead",
    "SlowDownWrite",
    "InternalError",
    "InternalFailure",
    "ServiceUnavailable",
    "RequestTimeout",
    "RequestTimeoutException",
    "Throttling",
    "ThrottlingException",
    "TooManyRequests",
    "RequestLimitExceeded",
    "BandwidthLimitExceeded",
    "KMS.ThrottlingException",
    "KMS.InternalException",
    "IncompleteBody",
    "BadDigest",
    "XAmzContentChecksumMismatch",
    "OperationAborted",
    "ConditionalRequestConflict",
    "ConcurrentModification",
})  # fmt: skip
"""What passes by itself. A conflict is among them for the operations that carry no precondition."""

_NAMED_ACTION = re.compile(r"(?:^|[\s:(])((?:s3|kms):[A-Z][A-Za-z]+)\b")

UNTRUSTED = (
    "the server's certificate is not one to believe: set a CA bundle that knows its issuer (AWS_CA_BUNDLE), or "
    "correct `endpoint_url`; something between may be answering in its name"
)
NO_TLS = "the server does not speak TLS as this machine does; correct `endpoint_url` (http or https, and the port)"
PROXY_REFUSES = "the proxy refuses to connect to the store; correct the proxy or its credentials"
_ANOTHER_SERVER = "is a proxy, a portal or another server answering?"

KNOWN_CODES = frozenset(_CONFIGURATION) | _DENIED_CODES | _UNAVAILABLE_CODES | ABSENT_CODES


def is_absent(operation: str, code: str, status: int) -> bool:
    """Whether this answer says that there is no such object: S3's own code; a HEAD has no body, and so only the status.

    A 404 of anything else that answers HTTP says nothing about an object.
    """
    return status == 404 and (code in ABSENT_CODES if operation == "HeadObject" else code == "NoSuchKey")


def is_refusal(code: str, status: int) -> bool:
    """Whether a conditional write was turned down: any 412, and any 409 whatever its code."""
    return status in (409, 412) or code in ("PreconditionFailed", "412", "409")


def error_for(
    operation: str, bucket: str, key: str, code: str, status: int, message: str, *, region: str = "", location: str = ""
) -> CheckpointError:
    """Our error for an answer that is neither success, absence nor refusal. An unknown code is a `StoreError`.

    `region` and `location`: what S3's header `x-amz-bucket-region` and a redirect's `Location` say.
    """
    detail = f"{code}: {message}"[:300]
    if code in _CONFIGURATION:
        return ConfigurationError(_CONFIGURATION[code], bucket, detail)
    if code in _DENIED_CODES:
        # AWS says which right is missing, and it is not always the one the operation is named for: a key's, or a tag's.
        named = _NAMED_ACTION.search(message)
        action = named[1] if named else ACTIONS.get(operation, f"s3:{operation}")
        return AccessDeniedError(bucket, key, action, detail)
    if code in _UNAVAILABLE_CODES or status >= 500 or status in (408, 429):
        return StoreUnavailableError(operation, bucket, key, outcome_unknown=operation in WRITES, detail=detail)
    if status == 403 and code != "InvalidObjectState":  # that one is archived: no right is missing
        return AccessDeniedError(bucket, key, ACTIONS.get(operation, f"s3:{operation}"), detail)
    if 300 <= status < 400 and status != 304:
        if region:
            return ConfigurationError(_CONFIGURATION["PermanentRedirect"], bucket, f"{detail} ({region})")
        to = f" to {location}" if location else ""
        detail = f"{detail}: a redirect{to}, which is not followed; {_ANOTHER_SERVER}"
    elif status == 407:
        return ConfigurationError("the proxy asks for credentials; give them in its URL", bucket, detail)
    elif status == 404:
        detail = f"{detail}: a 404 without S3's NoSuchKey; {_ANOTHER_SERVER}"
    # A server that answers a write with a redirect may have taken it all the same (303 says so).
    return StoreError(operation, bucket, key, detail, outcome_unknown=operation in WRITES and status < 400)


def odd_answer(operation: str, bucket: str, key: str, problem: str) -> CheckpointError:
    """Our error for an answer that says success as S3 does not: whether a write has landed is unknown."""
    detail = f"its answer is not S3's: {problem}; {_ANOTHER_SERVER}"[:300]
    if operation in WRITES:
        return StoreUnavailableError(operation, bucket, key, outcome_unknown=True, detail=detail)
    return StoreError(operation, bucket, key, detail)
