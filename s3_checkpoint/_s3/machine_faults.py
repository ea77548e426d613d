"""Faults of this machine, told from those of the store: settings, files, credentials, certificates, missing packages.

Asking again does not help there, so they are `ConfigurationError`, with the cause. What may pass by itself is not here:
a name that does not resolve, a connection refused, a proxy's 502.
"""

from __future__ import annotations

import errno
import re
import ssl
from collections.abc import Iterator
from itertools import islice

import aiohttp
from botocore import exceptions as sdk

from s3_checkpoint.errors import ConfigurationError

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
        facts = getattr(error, "kwargs", None)
        inside = facts.get("error") if isinstance(facts, dict) else None
        # The HTTP library keeps the event loop's error as an attribute, and raises from it too.
        inside = inside or getattr(error, "os_error", None) or error.__cause__
        error = inside if isinstance(inside, BaseException) and inside is not error else None


def _problem(error: BaseException) -> str | None:
    for cls in type(error).__mro__:
        if problem := _CLASSES.get(cls):
            return problem
    if isinstance(error, (ssl.SSLCertVerificationError, aiohttp.ClientConnectorCertificateError)):
        return (
            "the server's certificate is not one to believe: set a CA bundle that knows its issuer (AWS_CA_BUNDLE), or "
            "correct `endpoint_url`; something between may be answering in its name"
        )
    if isinstance(error, ssl.SSLError):
        return _problem_of_tls(error)
    if isinstance(error, aiohttp.ClientHttpProxyError):
        refuses = 400 <= error.status < 500 and error.status not in (408, 429)
        return "the proxy refuses to connect to the store; correct the proxy or its credentials" if refuses else None
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
    reason = error.reason or ""
    if reason in _NOT_TLS:
        return (
            "the server does not speak TLS as this machine does; correct `endpoint_url` (http or https, and the port)"
        )
    if (error.library or "SSL") != "SSL" or ("ALERT" in reason and "CERTIFICATE" in reason):
        return "a CA bundle, client certificate or key cannot be used; correct the file, or the setting that names it"
    return None
