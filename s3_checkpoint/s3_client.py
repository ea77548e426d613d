"""An open S3 client from settings: one for the life of a checkpointer.

The session is aiobotocore's own, the one inside aioboto3's: the same credential chain, profiles and configuration
files, without importing boto3's resources. A cold start feels the difference.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING

from aiobotocore.config import AioConfig
from aiobotocore.session import AioSession
from botocore.exceptions import BotoCoreError

from s3_checkpoint.errors import ConfigurationError
from s3_checkpoint.s3_models import read_faster
from s3_checkpoint.s3_tuning import tune
from s3_checkpoint.settings import S3Settings

if TYPE_CHECKING:
    from types_aiobotocore_s3 import S3Client


@asynccontextmanager
async def client_for(settings: S3Settings) -> AsyncIterator[S3Client]:
    """A client made as the settings say, open inside the block. No request is made but what the credential chain needs.

    Raises `ConfigurationError` for a profile that is not there and the like.
    """
    compatible = settings.endpoint_url is not None
    secret, token = settings.secret_access_key, settings.session_token
    async with AsyncExitStack() as stack:
        try:
            session = AioSession(profile=settings.profile_name)
            loader = session.get_component("data_loader")
            read_faster(loader)
            if settings.access_key_id is not None:
                session.set_credentials(
                    settings.access_key_id,
                    secret.get_secret_value() if secret else None,
                    token.get_secret_value() if token else None,
                )
            # A compatible store ignores the region, but a signature needs one.
            region = settings.region_name or session.get_config_variable("region")
            config = AioConfig(
                connect_timeout=settings.connect_timeout_s,
                read_timeout=settings.read_timeout_s,
                max_pool_connections=settings.max_connections,
                retries={"mode": "standard", "total_max_attempts": settings.max_attempts},
                # AWS checks what it receives; many compatible stores do not know the newer checksum headers.
                request_checksum_calculation="when_required" if compatible else "when_supported",
                response_checksum_validation="when_required" if compatible else "when_supported",
                s3={"addressing_style": "path"} if compatible else {},
                user_agent=_user_agent(session),
            )
            client: S3Client = await stack.enter_async_context(
                session.create_client(
                    "s3",
                    region_name=region or ("us-east-1" if compatible else None),
                    endpoint_url=settings.endpoint_url,
                    config=config,
                )
            )
        except (BotoCoreError, ValueError) as error:
            raise ConfigurationError(f"no S3 client can be made: {error}", settings.bucket) from error
        tune(client, loader.load_service_model("s3", "endpoint-rule-set-1").get("rules"))
        yield client


def _user_agent(session: AioSession) -> str:
    """What the session says of itself, put together once; the SDK would put more together twice for every request."""
    application = session.get_config_variable("user_agent_appid")
    text = f"s3-checkpoint {session.user_agent()}" + (f" app/{application}" if application else "")
    session.user_agent_extra = ""  # stands in `text`; the SDK would put it behind that once more
    return text
