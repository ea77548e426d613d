"""What obstore's exceptions tell: of an answer its status, code and message; else why there was none.

obstore tells most of it in an exception's text alone. The words relied on are in this file, and tests on the wire hold
each of them. Where none of them is found, nothing is concluded: the error is one of an exchange that failed, and a
write's outcome is unknown.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from html import unescape
from typing import Final

from s3_checkpoint._error_codes import NO_TLS, PROXY_REFUSES, UNTRUSTED, WRITES, error_for, odd_answer
from s3_checkpoint.errors import CheckpointError, ConfigurationError, StoreError, StoreUnavailableError

_TOLD_BYTES = 256 * 1024
"""Of a text no more is looked at; S3's errors have less than 2 KB."""
_DEBUG: Final = "\n\nDebug source:"
_STATUS = re.compile(r"Server returned non-2xx status code: ([0-9]{3})[^:]*: ?(.*)", re.DOTALL)
_ERROR_IN_SUCCESS = re.compile(r"Server returned error response: (.*)", re.DOTALL)
_OF_A_KEY = re.compile(r"DeleteObjects request failed for key (.*): (.*) \(code: ([^)]*)\)", re.DOTALL)
_S3_ERROR = re.compile(r"\ufeff?\s*(?:<\?xml[^>]*\?>\s*)?<Error[\s>]")
_ELEMENTS = {
    name: re.compile(rf"<{name}>([^<]{{0,2000}})</{name}>")
    for name in ("Code", "Message", "RequestId", "HostId", "Key")
}
_CREDENTIALS = re.compile(r"token request|credentials|InstanceCredential|WebIdentity|TaskCredential|metadata token")
_TLS = re.compile(
    r"invalid peer certificate|UnknownIssuer|NotValidForName|CertExpired|UnknownCA|certificate", re.IGNORECASE
)
_NOT_TLS = re.compile(r"InvalidMessage|InvalidContentType|corrupt message", re.IGNORECASE)
_PROXY_REFUSED = re.compile(r"ProxyAuthRequired|TunnelUnsuccessful|unsuccessful tunnel", re.IGNORECASE)
_ODD = re.compile(
    r"Header missing from response|invalid list response|invalid DeleteObjects response|invalid \w+ response|"
    r"Unable to extract metadata|Unable to parse|InvalidMetadata",
    re.IGNORECASE,
)
_BARE_REDIRECT = "Received redirect without LOCATION"


@dataclass(frozen=True, slots=True)
class Told:
    """What an exception tells of an answer. `status` is 0 where there was none."""

    status: int
    code: str
    message: str
    request_id: str = ""
    host_id: str = ""
    key: str = ""
    """Of a batch of deletes: the key refused."""


def told_by(error: BaseException) -> Told | None:
    """What the exception tells of an answer; None if there was none, or none of the store's."""
    text = str(error)[:_TOLD_BYTES].partition(_DEBUG)[0]
    if found := _STATUS.search(text):
        return _read(int(found[1]), found[2])
    if found := _ERROR_IN_SUCCESS.search(text):
        return _read(200, found[1])
    if found := _OF_A_KEY.search(text):
        return Told(200, found[3], found[2], key=found[1])
    if _BARE_REDIRECT in text:
        # S3's word for a bucket of another region, which obstore reads and does not hand on.
        return Told(301, "PermanentRedirect", "a redirect without a location")
    return None


def _read(status: int, body: str) -> Told:
    if not _S3_ERROR.match(body):
        # As the SDK does it: an answer without S3's error has its status as its code.
        return Told(status, str(status), " ".join(re.sub(r"<[^>]*>", " ", body[:1000]).split())[:200])
    parts = {name: unescape(found[1]) if (found := regex.search(body)) else "" for name, regex in _ELEMENTS.items()}
    return Told(
        status,
        parts["Code"] or str(status),
        parts["Message"],
        parts["RequestId"],
        parts["HostId"],
        parts["Key"],
    )


def error_of(error: BaseException, told: Told | None, operation: str, bucket: str, key: str) -> CheckpointError:
    """Our error for an exception of obstore's that is neither an absence nor a refusal. Never raises."""
    if told is not None:
        return error_for(operation, bucket, told.key or key, told.code, told.status, told.message)
    write = operation in WRITES
    text = str(error)[:_TOLD_BYTES]
    sentence = text.partition(_DEBUG)[0]
    detail = _short(error, text)
    if "InvalidPath" in text:
        return StoreError(
            operation, bucket, key, f"{detail}: obstore cannot list such keys; transport='aiobotocore' can"[:300]
        )
    if not isinstance(error, Exception):
        return StoreError(operation, bucket, key, f"internal: obstore failed inside: {detail}", outcome_unknown=write)
    if problem := _problem(text, sentence):
        return ConfigurationError(problem, bucket, detail)
    if _ODD.search(text):
        return odd_answer(operation, bucket, key, detail)
    return StoreUnavailableError(operation, bucket, key, outcome_unknown=write, detail=detail)


def _problem(text: str, sentence: str) -> str | None:
    """What is wrong with the settings, the credentials, the proxy or certificates; None if nothing of that is told."""
    if "kind: Builder" in text:
        return "the address is not a URL; correct `endpoint_url` or the proxy's"
    if _PROXY_REFUSED.search(text):
        return PROXY_REFUSES
    if _CREDENTIALS.search(sentence):
        return (
            "no usable credentials; obstore takes them from the environment, a web identity, the container or the "
            "instance, not from profiles or SSO: set AWS_ACCESS_KEY_ID, or use transport='aiobotocore'"
        )
    if _TLS.search(text):
        return UNTRUSTED
    return NO_TLS if "kind: Connect" in text and _NOT_TLS.search(text) else None


_KIND = re.compile(r"kind: ([A-Z][A-Za-z]+)")


def _short(error: BaseException, text: str) -> str:
    """The sentence of an exception and what kind of failure it was, of a bounded length."""
    sentence, _, debug = text.partition(_DEBUG)
    kinds = _KIND.findall(debug)
    kind = f" ({kinds[0]})" if kinds else ""
    return f"{type(error).__name__}: {' '.join(sentence.split())}"[:260] + kind
