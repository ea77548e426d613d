"""An open S3 client from settings: one for the life of a checkpointer.

The session is aiobotocore's, or one that the caller gives: aiobotocore's too, or aioboto3's, which holds one of those.
The AWS configuration holds wherever the settings say nothing: endpoint, addressing style, checksums, FIPS and
dual-stack endpoints, proxies, CA bundle.
"""

from __future__ import annotations

import logging
import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any

from aiobotocore.config import AioConfig
from aiobotocore.session import AioSession
from botocore.exceptions import BotoCoreError

from s3_checkpoint._s3.error_mapping import described, machine_fault
from s3_checkpoint._s3.http_session import OneHostSession
from s3_checkpoint._s3.sdk_internals import needs_shared_endpoints, new_session, read_faster, sdk_session
from s3_checkpoint._s3.tuning import tune
from s3_checkpoint.errors import ConfigurationError
from s3_checkpoint.settings import COMPATIBLE_REGION, S3Settings, check_endpoint

if TYPE_CHECKING:
    from types_aiobotocore_s3 import S3Client

_logger = logging.getLogger("s3_checkpoint.requests")


@asynccontextmanager
async def client_for(settings: S3Settings, session: object | None = None) -> AsyncIterator[S3Client]:
    """An S3 client made from the settings, open inside the block.

    Requests: none to S3; those of the credential chain.

    Args:
        settings: Where to, and how.
        session: An `aioboto3.Session` or an aiobotocore `AioSession`, used for credentials and configuration and
            otherwise left as it is. Default: a new one, with the credentials or profile of the settings.

    Yields:
        The client; it is closed on leaving.

    Raises:
        ConfigurationError: No such profile, a session of another kind, settings that contradict the session, or
            anything else on this machine that keeps a client from being made.
    """
    async with AsyncExitStack() as stack:
        try:
            if session is not None:
                client, rules = await _open_with(stack, settings, session)
            else:
                try:
                    client, rules = await _open(stack, settings, faster=True)
                except (AttributeError, TypeError, LookupError) as error:
                    # Reading faster reaches into the SDK; where that is not as expected, it is left as it is.
                    _logger.warning("descriptions are not read faster: %s", type(error).__name__)
                    client, rules = await _open(stack, settings, faster=False)
        except ConfigurationError as error:
            raise ConfigurationError(error.problem, settings.bucket, error.detail) from error.__cause__
        except Exception as error:
            # Nothing is sent yet: whatever it is, it is of this machine.
            fault = machine_fault(error)
            known = fault is not None or isinstance(error, (BotoCoreError, ValueError, OSError))
            problem = (fault.problem if fault else "") or (
                "check the settings and the AWS configuration"
                if known
                else "internal: the SDK failed inside; is the AWS configuration as it should be?"
            )
            raise ConfigurationError(
                f"no S3 client can be made: {described(error)}; {problem}", settings.bucket
            ) from error
        # A session that was given may have handlers of its own for the events that prepared requests leave out.
        tune(client, rules, prepared=session is None)
        yield client


async def _open(stack: AsyncExitStack, settings: S3Settings, *, faster: bool) -> tuple[S3Client, object]:
    """The client, and the rules its endpoints follow (None if the SDK has none that can be read)."""
    session = new_session(settings.profile_name) if faster else AioSession(profile=settings.profile_name)
    loader = session.get_component("data_loader")
    if faster:
        read_faster(loader)
    secret, token = settings.secret_access_key, settings.session_token
    if settings.access_key_id is not None:
        session.set_credentials(
            settings.access_key_id,
            secret.get_secret_value() if secret else None,
            token.get_secret_value() if token else None,
        )
    user_agent = _user_agent(session)
    client = await stack.enter_async_context(
        session.create_client("s3", **_options(session, settings), config=_config(session, settings, user_agent))
    )
    return client, _endpoint_rules(session) if faster else None


async def _open_with(stack: AsyncExitStack, settings: S3Settings, session: object) -> tuple[S3Client, object]:
    """The same through a session that the caller made and may use for other things."""
    if settings.access_key_id is not None or settings.profile_name is not None:
        raise ConfigurationError(
            "credentials come from the session or from the settings, not from both; leave out `session`, or "
            "`access_key_id` and `profile_name` (S3_CHECKPOINT_ACCESS_KEY_ID, S3_CHECKPOINT_PROFILE_NAME)"
        )
    inside = sdk_session(session)
    if inside is None:
        raise ConfigurationError(
            "`session` must be an aioboto3.Session, or a session of aiobotocore (aiobotocore.session.get_session())",
            detail=f"{type(session).__module__}.{type(session).__qualname__}",
        )
    client = await stack.enter_async_context(
        inside.create_client("s3", **_options(inside, settings), config=_config(inside, settings, None))
    )
    return client, _endpoint_rules(inside)


def _endpoint_rules(session: AioSession) -> object:
    if not needs_shared_endpoints():
        return None
    return session.get_component("data_loader").load_service_model("s3", "endpoint-rule-set-1").get("rules")


def _is_compatible(session: AioSession, settings: S3Settings) -> bool:
    """Whether the client is one for an S3-compatible store, named by the settings or by the AWS configuration."""
    return settings.endpoint_url is not None or _aws_endpoint_url(session) is not None


def _options(session: AioSession, settings: S3Settings) -> dict[str, str | None]:
    for url in (settings.endpoint_url, _aws_endpoint_url(session)):
        check_endpoint(url, settings.bucket)
    region = settings.region_name or session.get_config_variable("region")
    if not region and _is_compatible(session, settings):
        region = COMPATIBLE_REGION
    return {"region_name": region, "endpoint_url": settings.endpoint_url}


def _config(session: AioSession, settings: S3Settings, user_agent: str | None) -> AioConfig:
    compatible = _is_compatible(session, settings)
    addressing = _addressing(session, settings, compatible=compatible)
    return AioConfig(
        http_session_cls=OneHostSession,
        connect_timeout=settings.connect_timeout_s,
        read_timeout=settings.read_timeout_s,
        max_pool_connections=settings.max_connections,
        retries={"mode": "standard", "total_max_attempts": settings.max_attempts},
        **{"user_agent": user_agent} if user_agent else {},
        **_checksums(session, compatible=compatible),
        **{"s3": addressing} if addressing else {},  # one without a style would hide the session's own
    )


def _aws_endpoint_url(session: AioSession) -> str | None:
    """The endpoint that the AWS configuration gives for S3, if any: AWS_ENDPOINT_URL_S3, AWS_ENDPOINT_URL, a profile.

    Source: "Service-specific endpoints" of the AWS SDKs and Tools reference.
    """
    if session.get_config_variable("ignore_configured_endpoint_urls"):
        return None
    profile = session.get_scoped_config()
    services = session.full_config.get("services", {}).get(str(profile.get("services")), {})
    of_s3 = services.get("s3") if isinstance(services, dict) else None
    places: list[Any] = [
        os.environ.get("AWS_ENDPOINT_URL_S3"),
        os.environ.get("AWS_ENDPOINT_URL"),
        of_s3.get("endpoint_url") if isinstance(of_s3, dict) else None,
        profile.get("endpoint_url"),
    ]
    return next((str(url) for url in places if url), None)


def _checksums(session: AioSession, *, compatible: bool) -> dict[str, str]:
    """Which checksums requests have, unless the AWS configuration says otherwise.

    AWS checks what it receives; many compatible stores do not know the newer checksum headers. What is read has a
    digest of ours, so that no second one is asked for.
    """
    profile = session.get_scoped_config()
    names = ["response_checksum_validation"]
    if compatible:
        names.append("request_checksum_calculation")
    return {name: "when_required" for name in names if not (os.environ.get(f"AWS_{name.upper()}") or profile.get(name))}


def _addressing(session: AioSession, settings: S3Settings, *, compatible: bool) -> dict[str, str]:
    """The addressing style: of the settings, else of the AWS configuration, else path for a compatible store."""
    if settings.addressing_style is not None:
        return {"addressing_style": settings.addressing_style}
    of_aws = session.get_scoped_config().get("s3")
    if not compatible or (isinstance(of_aws, dict) and of_aws.get("addressing_style")):
        return {}
    return {"addressing_style": "path"}


def _user_agent(session: AioSession) -> str:
    """What the session says of itself, put together once; the SDK would put more together twice for every request."""
    application = session.get_config_variable("user_agent_appid")
    text = f"s3-checkpoint {session.user_agent()}" + (f" app/{application}" if application else "")
    session.user_agent_extra = ""  # is in `text`; the SDK would append it once more
    return text
