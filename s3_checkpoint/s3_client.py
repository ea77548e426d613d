"""An open S3 client from settings: one for the life of a checkpointer."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING

import aioboto3
from aiobotocore.config import AioConfig
from botocore.exceptions import BotoCoreError

from s3_checkpoint.errors import ConfigurationError
from s3_checkpoint.settings import S3Settings

if TYPE_CHECKING:
    from types_aiobotocore_s3 import S3Client


def client_for(settings: S3Settings) -> AbstractAsyncContextManager[S3Client]:
    """A client to be entered, made as the settings say. No request is made.

    Raises `ConfigurationError` for a profile that is not there and the like.
    """
    compatible = settings.endpoint_url is not None
    config = AioConfig(
        connect_timeout=settings.connect_timeout_s,
        read_timeout=settings.read_timeout_s,
        max_pool_connections=settings.max_connections,
        retries={"mode": "standard", "total_max_attempts": settings.max_attempts},
        # AWS checks what it receives; many compatible stores do not know the newer checksum headers.
        request_checksum_calculation="when_required" if compatible else "when_supported",
        response_checksum_validation="when_required" if compatible else "when_supported",
        s3={"addressing_style": "path"} if compatible else {},
    )
    secret, token = settings.secret_access_key, settings.session_token
    try:
        session = aioboto3.Session(
            profile_name=settings.profile_name,
            region_name=settings.region_name,
            aws_access_key_id=settings.access_key_id,
            aws_secret_access_key=secret.get_secret_value() if secret else None,
            aws_session_token=token.get_secret_value() if token else None,
        )
        # A compatible store ignores the region, but a signature needs one.
        region = session.region_name or ("us-east-1" if compatible else None)
        client: AbstractAsyncContextManager[S3Client] = session.client(
            "s3", endpoint_url=settings.endpoint_url, region_name=region, config=config
        )
    except (BotoCoreError, ValueError) as error:
        raise ConfigurationError(f"no S3 client can be made: {error}", settings.bucket) from error
    return client
