"""obstore's client from settings: where it sends requests, with which credentials, and what it cannot do.

obstore reads credentials from the environment (`AWS_ACCESS_KEY_ID`, …), web identity, containers and instances. It does
not read the AWS configuration files: profiles, roles in profiles and SSO are the other transport's. What it cannot do
is refused here, with the name of the setting that changes it, before any request.

Source: `S3Config` and `ClientConfig` of obstore 0.12; "Settings reference" of the AWS SDKs and Tools guide.
"""

from __future__ import annotations

import os
import re
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from obstore.store import S3Store

from s3_checkpoint.errors import ConfigurationError
from s3_checkpoint.settings import COMPATIBLE_REGION, DRIP, SLOWEST, S3Settings, check_endpoint

if TYPE_CHECKING:
    from obstore.store import ClientConfig

OTHER = "or use transport='aiobotocore'"
LARGE_BYTES = 256 * 1024
"""A larger body may take longer to send than `read_timeout_s`, which counts from the first byte sent."""
_IDLE_S = 12
"""Seconds that a connection is kept without a request; S3 closes one that has had none for about twenty."""


_REFUSED = re.compile(r"(?:^|/)\.{0,2}(?:/|$)|[\x00-\x1f\x7f\ud800-\udfff]")


def check_key(bucket: str, key: str) -> None:
    """Raises `ConfigurationError` for a key (or a prefix without its last slash) that obstore refuses or changes."""
    if _REFUSED.search(key):
        raise ConfigurationError(
            "obstore refuses keys with an empty segment, with `.` or `..` as one, or with control characters; change "
            "`prefix`, or use transport='aiobotocore' for what other writers have stored there",
            bucket,
            ascii(key)[:200],
        )


def longest_s(settings: S3Settings) -> float:
    """Seconds that one attempt may take at most: connecting, then `DRIP` read time-outs and the body's own time."""
    return settings.connect_timeout_s + DRIP * settings.read_timeout_s + settings.max_state_bytes / SLOWEST


def client_for(settings: S3Settings, *, large: bool = False) -> S3Store:
    """A client made as the settings say. No request is made.

    Args:
        settings: Where the bucket is, and how it is asked.
        large: For bodies of more than `LARGE_BYTES`: the read time-out leaves room for sending them.

    Raises:
        ConfigurationError: The settings or the environment ask for what obstore cannot do; or no region, no
            credentials, or no usable CA bundle is configured.
    """
    _refuse_what_it_cannot(settings)
    endpoint = settings.endpoint_url or _aws_endpoint_url()
    check_endpoint(endpoint, settings.bucket)
    config: Any = {"region": _region(settings, compatible=endpoint is not None)}
    style = settings.addressing_style or ("path" if endpoint else "auto")
    virtual = style == "virtual" or (style == "auto" and "." not in settings.bucket)
    if endpoint is not None:
        parts = urlsplit(endpoint)
        host = f"{settings.bucket}.{parts.netloc}" if virtual else parts.netloc
        config["endpoint"] = parts._replace(netloc=host).geturl().rstrip("/")
    else:
        config["checksum_algorithm"] = "SHA256"  # many compatible stores do not know the checksum headers
    config["virtual_hosted_style_request"] = virtual
    config |= _credentials(settings)
    if settings.kms_key_id:
        config |= {
            "server_side_encryption": "aws:kms",
            "sse_kms_key_id": settings.kms_key_id,
            "sse_bucket_key_enabled": True,
        }
    try:
        return S3Store(
            settings.bucket,
            config=config,
            client_options=_options(settings, large=large),
            retry_config={"max_retries": 0, "retry_timeout": timedelta(seconds=1)},
        )
    except Exception as error:
        raise ConfigurationError(
            f"no S3 client can be made: {type(error).__name__}: {str(error)[:200]}; check the settings and the AWS_… "
            "environment variables",
            settings.bucket,
        ) from error


def _options(settings: S3Settings, *, large: bool) -> ClientConfig:
    from s3_checkpoint import __version__

    more = settings.max_state_bytes / SLOWEST if large else 0
    options: ClientConfig = {
        "allow_http": True,
        "connect_timeout": timedelta(seconds=settings.connect_timeout_s),
        "read_timeout": timedelta(seconds=settings.read_timeout_s + more),
        "timeout": timedelta(seconds=longest_s(settings)),
        "pool_idle_timeout": timedelta(seconds=_IDLE_S),
        "user_agent": f"s3-checkpoint/{__version__} obstore",
    }
    if settings.expected_bucket_owner:
        options["default_headers"] = {"x-amz-expected-bucket-owner": settings.expected_bucket_owner}
    if bundle := os.environ.get("AWS_CA_BUNDLE"):
        try:
            options["root_certificate"] = Path(bundle).read_bytes()
        except OSError as error:
            raise ConfigurationError(
                "the CA bundle cannot be read; correct AWS_CA_BUNDLE", settings.bucket, f"{error}"
            ) from error
    return options


def _refuse_what_it_cannot(settings: S3Settings) -> None:
    profile = settings.profile_name or (not settings.access_key_id and os.environ.get("AWS_PROFILE"))
    if profile:
        raise ConfigurationError(
            "obstore does not read the AWS configuration files: neither profiles nor SSO. Give credentials in the "
            f"environment or in the settings (unset `profile_name` and AWS_PROFILE), {OTHER}",
            settings.bucket,
        )
    if settings.directory_bucket:
        raise ConfigurationError(
            f"with obstore the listing of a directory bucket cannot be continued; {OTHER[3:]}", settings.bucket
        )
    if settings.bucket.startswith("arn:"):
        raise ConfigurationError(
            f"obstore knows no access point by its ARN; give its alias as `bucket`, {OTHER}", settings.bucket
        )
    if settings.prefix:
        check_key(settings.bucket, settings.prefix)


def _region(settings: S3Settings, *, compatible: bool) -> str:
    region = settings.region_name or os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    if region:
        return region
    if compatible:
        return COMPATIBLE_REGION
    raise ConfigurationError(
        f"no region is configured, and obstore reads no profile; set `region_name` or AWS_REGION, {OTHER}",
        settings.bucket,
    )


def _credentials(settings: S3Settings) -> dict[str, str]:
    if settings.access_key_id is None or settings.secret_access_key is None:
        _look_for_credentials(settings)
        return {}
    given = {
        "access_key_id": settings.access_key_id,
        "secret_access_key": settings.secret_access_key.get_secret_value(),
    }
    if settings.session_token is not None:
        return given | {"session_token": settings.session_token.get_secret_value()}
    if os.environ.get("AWS_SESSION_TOKEN") or os.environ.get("AWS_TOKEN"):
        raise ConfigurationError(
            "obstore would send the session token of the environment with the keys of the settings; give "
            f"`session_token`, or unset AWS_SESSION_TOKEN, {OTHER}",
            settings.bucket,
        )
    return given


def _look_for_credentials(settings: S3Settings) -> None:
    """Raises `ConfigurationError` if the environment names no source of credentials and the instance may not be asked.

    Else obstore would ask an instance metadata service that the environment rules out.
    """
    named = (
        "AWS_ACCESS_KEY_ID",
        "AWS_WEB_IDENTITY_TOKEN_FILE",
        "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
        "AWS_CONTAINER_CREDENTIALS_FULL_URI",
        "AWS_SKIP_SIGNATURE",
    )
    off = os.environ.get("AWS_EC2_METADATA_DISABLED", "").lower() == "true"
    if off and not any(os.environ.get(name) for name in named):
        raise ConfigurationError(
            "no credentials were found; obstore reads no profile: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or "
            f"`access_key_id` and `secret_access_key`, {OTHER}",
            settings.bucket,
        )


def _aws_endpoint_url() -> str | None:
    if os.environ.get("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS", "").lower() == "true":
        return None
    return os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or None
