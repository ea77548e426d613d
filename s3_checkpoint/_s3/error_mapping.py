"""The exceptions of the SDK, the HTTP library and the event loop → our errors: one table, `error_of`.

What S3's own codes mean is in `_error_codes`. Faults of this machine (settings, files, credentials, certificates,
missing packages) are told from those of the store: asking again does not help there, so they are `ConfigurationError`,
with the cause. What may pass by itself is none of them: a name that does not resolve, a connection refused, a proxy's
502.
"""

from __future__ import annotations

import errno
import re
import ssl
from collections.abc import Iterator
from itertools import islice
from urllib.parse import urlsplit

import aiohttp
from botocore import exceptions as sdk
from botocore.exceptions import BotoCoreError, ClientError
from botocore.parsers import ResponseParserError

from s3_checkpoint._error_codes import NO_TLS, PROXY_REFUSES, UNTRUSTED, WRITES, error_for
from s3_checkpoint.errors import (
    AccessDeniedError,
    CheckpointError,
    ConfigurationError,
    LifecycleError,
    StoreError,
    StoreUnavailableError,
)

EXCHANGE_ERRORS = (BotoCoreError, aiohttp.ClientError, TimeoutError, ConnectionError)
"""No answer, or none that can be understood: asking again may help."""

_FOR_CREDENTIALS = ("AssumeRole", "GetRoleCredentials", "GetSessionToken", "CreateToken", "CreateOAuth2Token")
"""How the operations begin that the SDK asks of other services, before it asks S3."""


class NotS3Error(Exception):
    """An answer with status 200 that S3 does not give: a proxy, a portal or another server may have sent it."""


_SETTINGS = "the request could not be made as configured"
_CREDENTIALS = "no usable credentials; check the profile, the role or the login they come from"
_INSTALL = "the SDK lacks a package or file that this configuration needs; install it"

PROBLEMS = {
    "NoCredentialsError": "no credentials were found; give a profile, a role, or an access key and its secret",
    "PartialCredentialsError": _CREDENTIALS,
    "CredentialRetrievalError": _CREDENTIALS,
    "UnknownCredentialError": _CREDENTIALS,
    "UnknownTokenProviderError": _CREDENTIALS,
    "NoAuthTokenError": _CREDENTIALS,
    "TokenRetrievalError": _CREDENTIALS,
    "SSOError": _CREDENTIALS,
    "LoginError": _CREDENTIALS,
    "RefreshWithMFAUnsupportedError": _CREDENTIALS,
    "ProfileNotFound": "the AWS configuration has no such profile; correct `profile_name` or AWS_PROFILE",
    "ConfigParseError": "the AWS configuration file cannot be read; correct it",
    "ConfigNotFound": "the AWS configuration file is not there; correct AWS_CONFIG_FILE",
    "InvalidConfigError": "the AWS configuration is not valid; correct it",
    "NoRegionError": "no region is configured; set `region_name`, AWS_REGION or the profile's region",
    "InvalidRegionError": "that is not a region; correct `region_name`",
    "UnknownRegionError": "that is not a region; correct `region_name`",
    "ServiceNotInRegionError": "S3 is not in that region; correct `region_name`",
    "MissingDependencyException": _INSTALL,
    "MD5UnavailableError": _INSTALL,
    "DataNotFoundError": _INSTALL,
    "ApiVersionNotFoundError": _INSTALL,
    "InvalidProxiesConfigError": "the proxy's CA bundle or client certificate cannot be used; correct `proxies_config`",
    **dict.fromkeys(
        (
            "BaseEndpointResolverError",
            "EndpointProviderError",
            "InvalidEndpointConfigurationError",
            "InvalidEndpointDiscoveryConfigurationError",
            "InvalidIMDSEndpointError",
            "InvalidIMDSEndpointModeError",
            "InvalidDefaultsMode",
            "InvalidChecksumConfigError",
            "InvalidRetryConfigurationError",
            "InvalidS3AddressingStyleError",
            "InvalidS3UsEast1RegionalEndpointConfigError",
            "InvalidSTSRegionalEndpointsConfigError",
            "InvalidDNSNameError",
            "InvalidHostLabelError",
            "MissingParametersError",
            "ParamValidationError",
            "ValidationError",
            "UnknownSignatureVersionError",
            "UnsupportedSignatureVersionError",
            "UnsupportedServiceProtocolsError",
            "UnsupportedOutpostResourceError",
            "UnsupportedS3ArnError",
            "UnsupportedS3ControlArnError",
            "UnsupportedS3ConfigurationError",
            "UnsupportedS3ControlConfigurationError",
            "UnsupportedS3AccesspointConfigurationError",
        ),
        _SETTINGS,
    ),
}
"""Error classes of the SDK by name (subclasses included; not every version has all) → what to do."""

_CLASSES = {cls: problem for name, problem in PROBLEMS.items() if isinstance(cls := getattr(sdk, name, None), type)}

_NOT_ALLOWED = frozenset({errno.EACCES, errno.EPERM, errno.EAFNOSUPPORT, errno.EPROTONOSUPPORT, errno.EPFNOSUPPORT})
_NOT_TLS = frozenset({"WRONG_VERSION_NUMBER", "HTTP_REQUEST", "UNSUPPORTED_PROTOCOL", "NO_PROTOCOLS_AVAILABLE"})
_USERINFO = re.compile(r"(?<=//)[^/?#\s'\"]*@")
_DEPTH = 10


def without_userinfo(text: str) -> str:
    """The text with user and password taken out of every URL in it."""
    return _USERINFO.sub("***@", text) if "@" in text else text


def machine_fault(error: BaseException) -> ConfigurationError | None:
    """Our error, if this one or one that it wraps is a fault of this machine; else None.

    A proxy that refuses to connect is one, with 407 or another 4xx; one that cannot (5xx) is not.
    """
    for inner in _wrapped(error):
        if problem := _problem(inner):
            return ConfigurationError(problem, detail=described(error))
    return None


def described(error: BaseException) -> str:
    """Class and text, and those of what it wraps, of a bounded length and without what URLs may hold."""
    told = f"{type(error).__name__}: {error}"
    inner = next(islice(_wrapped(error), 1, None), None)
    if inner is not None and str(inner) not in told:
        told = f"{told[:200]} ({type(inner).__name__}: {inner})"
    return without_userinfo(told)[:300]


def _wrapped(error: BaseException | None) -> Iterator[BaseException]:
    """The error, and what it was raised from: the SDK and the HTTP library keep it in several places."""
    for _ in range(_DEPTH):
        if error is None:
            return
        yield error
        fields = getattr(error, "kwargs", None)
        inside = fields.get("error") if isinstance(fields, dict) else None
        # The HTTP library keeps the event loop's error as an attribute, and raises from it too.
        inside = inside or getattr(error, "os_error", None) or error.__cause__
        error = inside if isinstance(inside, BaseException) and inside is not error else None


def _problem(error: BaseException) -> str | None:
    for cls in type(error).__mro__:
        if problem := _CLASSES.get(cls):
            return problem
    if isinstance(error, (ssl.SSLCertVerificationError, aiohttp.ClientConnectorCertificateError)):
        return UNTRUSTED
    if isinstance(error, ssl.SSLError):
        return _problem_of_tls(error)
    if isinstance(error, aiohttp.ClientHttpProxyError):
        refuses = 400 <= error.status < 500 and error.status not in (408, 429)
        return PROXY_REFUSES if refuses else None
    if isinstance(error, aiohttp.InvalidURL):
        return "an address is not a URL; correct `endpoint_url` or the proxy's (HTTPS_PROXY, HTTP_PROXY)"
    if isinstance(error, ImportError):
        return _INSTALL if (error.name or "").split(".")[0] == "awscrt" else None
    if isinstance(error, OSError):
        # TLS leaves out the name of a file that is not there.
        named = error.filename is not None or isinstance(error, (FileNotFoundError, IsADirectoryError))
        if named and not isinstance(error, aiohttp.ClientError):
            return "a file of the configuration cannot be used; correct the file, or the setting that names it"
        if error.errno in _NOT_ALLOWED:
            return "this machine does not allow the connection; look at its firewall, sandbox and network"
    return None


def _problem_of_tls(error: ssl.SSLError) -> str | None:
    """What is wrong with certificates and keys of this machine; None for a handshake that broke off."""
    # An error that the HTTP library makes has neither; the one it was made of has both.
    reason, library = getattr(error, "reason", None) or "", getattr(error, "library", None) or "SSL"
    if reason in _NOT_TLS:
        return NO_TLS
    if library != "SSL" or ("ALERT" in reason and "CERTIFICATE" in reason):
        return "a CA bundle, client certificate or key cannot be used; correct the file, or the setting that names it"
    return None


def error_of(error: Exception, operation: str, bucket: str, key: str) -> CheckpointError:
    """Our error for an exception that a request of the SDK's raised. The first case that knows it decides."""
    write = operation in WRITES

    def store_error(detail: str) -> StoreError:
        return StoreError(operation, bucket, key, detail[:300], outcome_unknown=write)

    def unavailable(detail: str) -> StoreUnavailableError:
        return StoreUnavailableError(operation, bucket, key, outcome_unknown=write, detail=detail)

    if isinstance(error, ClientError):
        return _error_of_answer(error, operation, bucket, key)
    if fault := machine_fault(error):
        return ConfigurationError(fault.problem, bucket, fault.detail)
    if _is_of_the_loop(error):
        return LifecycleError(
            "the client cannot be used here: it was opened in another event loop, or is closed; "
            "open it, and the checkpointer with it, inside this loop"
        )
    if isinstance(error, NotS3Error):
        detail = f"its answer is not S3's: {error}"
        return unavailable(detail) if write else store_error(detail)
    if not write and any(isinstance(inner, UnicodeDecodeError) for inner in _wrapped(error)):
        # Of a header, such as metadata of another program's: it is the same the next time.
        return store_error(f"its answer cannot be understood: {described(error)}")
    if isinstance(error, EXCHANGE_ERRORS):
        return unavailable(described(error))
    if isinstance(error, (ValueError, ResponseParserError)):
        # What the SDK's parsers stumble over and let through: a date that is none is a bare ValueError.
        return store_error(f"its answer cannot be understood: {described(error)}")
    if isinstance(error, TypeError) and _NOT_AWAITABLE.search(str(error)):
        # Moto's `mock_aws` answers in the place of the HTTP library, with bytes where the async SDK awaits them.
        return store_error(
            "internal: the SDK was answered by something that is not async; moto's mock_aws is for boto3 alone: use "
            f"moto.server.ThreadedMotoServer and `endpoint_url`, or MemoryStore ({described(error)})"
        )
    return store_error(f"internal: the SDK failed inside: {described(error)}")


_LOOP_WORDS = re.compile(r"\bloop\b|\bclosed\b|inside a task", re.IGNORECASE)
_NOT_AWAITABLE = re.compile(r"bytes.*\bawait")


def _is_of_the_loop(error: Exception) -> bool:
    """Whether it is what asyncio says of futures of another loop, or of a closed one, wrapped or not."""
    inner = error.__cause__ or error.__context__ if type(error) is sdk.HTTPClientError else error
    return type(inner) is RuntimeError and _LOOP_WORDS.search(str(inner)) is not None


def _error_of_answer(error: ClientError, operation: str, bucket: str, key: str) -> CheckpointError:
    """Our error for an answer: S3's, or of the service that the SDK had asked for credentials before."""
    code, status = code_of(error), status_of(error)
    message = without_userinfo(str(error.response.get("Error", {}).get("Message", "")))
    asked = error.operation_name
    if asked == "CreateSession" and (status == 403 or code == "AccessDenied"):
        return AccessDeniedError(bucket, key, "s3express:CreateSession", f"{code}: {message}"[:300])
    if str(asked).startswith(_FOR_CREDENTIALS):
        detail = f"{asked}: {code}: {message}"[:300]
        if status >= 500 or status == 429 or "Throttl" in code:
            return StoreUnavailableError(operation, bucket, key, outcome_unknown=False, detail=detail)
        return ConfigurationError(PROBLEMS["CredentialRetrievalError"], bucket, detail)
    headers = error.response.get("ResponseMetadata", {}).get("HTTPHeaders", {})
    region, location = headers.get("x-amz-bucket-region", ""), headers.get("location", "")
    host = urlsplit(location).hostname or "" if location else ""
    return error_for(operation, bucket, key, code, status, message, region=region, location=host[:100])


def code_of(error: ClientError) -> str:
    """S3's own word for what went wrong."""
    return str(error.response.get("Error", {}).get("Code", ""))


def status_of(error: ClientError) -> int:
    """The HTTP status, or 0."""
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
