"""The message that carries a run from one superstep to the next, and the SQS queue it travels in.

    {"run_id": "…", "initial": {…}}                                  begin: `initial` becomes step 0
    {"run_id": "…", "step": 3}                                       go on from step 3
    {"run_id": "…", "step": 3, "resume": true, "update": {…}}        go on past the interrupt at step 3

A message names the step it goes on from, so that one that comes late or twice is recognised for what it is. It holds no
state: whatever is lost with a queue, the run is in the bucket, and a message with its newest step sets it going again.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Annotated, Any
from urllib.parse import urlsplit
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, model_validator

from s3_checkpoint.errors import ConfigurationError
from s3_checkpoint.keys import MAX_STEP
from s3_checkpoint.s3_models import read_faster
from s3_checkpoint.settings import S3Settings

MAX_DELAY_S = 900
"""The longest SQS holds a message back, in seconds."""


_REGION = re.compile(r"(?:sqs|sqs-fips|[a-z0-9-]+\.sqs)\.([a-z]{2,}-[a-z-]+-[0-9]+)\.")


class SuperstepMessage(BaseModel):
    """One superstep to be run. `model_dump_json(exclude_defaults=True)` is the body of the message."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    run_id: UUID
    step: Annotated[int, Field(ge=0, le=MAX_STEP)] | None = None
    """The newest step of the run as the sender knows it; None for a run that is to begin."""
    initial: Any = None
    """The state to begin with, or its JSON value."""
    resume: bool = False
    """Whether to go on past an interrupt."""
    update: Any = None
    """What the human who resumes has to say, or its JSON value; merged into the state."""
    echo: Annotated[int, Field(ge=0)] = 0
    """How often in a row the message was sent only because nobody could know whether it had been sent."""

    @model_validator(mode="after")
    def _is_one_of_the_three(self) -> SuperstepMessage:
        if (self.step is None) != (self.initial is not None):
            raise ValueError("give initial to begin a run, or step to go on from: one of them")
        if self.resume and self.step is None:
            raise ValueError("resume goes with step: without it, a second delivery would resume once more")
        if self.update is not None and not self.resume:
            raise ValueError("update goes with resume")
        return self


class SuperstepQueue:
    """Sends messages to one queue, through an open aioboto3 or aiobotocore SQS client that belongs to somebody else."""

    def __init__(self, client: Any, url: str) -> None:
        self._client = client
        self._url = url

    @property
    def fifo(self) -> bool:
        """Whether it is a FIFO queue: it drops what was sent within five minutes, and delays nothing."""
        return self._url.endswith(".fifo")

    async def send(self, message: SuperstepMessage, *, delay_s: int = 0) -> None:
        """The message is in the queue, and can be received in `delay_s` (0 … 900) seconds. 1 request.

        In a FIFO queue it is in the group of its run, without delay, and not there twice within five minutes. Raises
        what the SDK raises (`botocore.exceptions`); then it is unknown whether the message is in the queue.
        """
        options: dict[str, Any] = {"DelaySeconds": delay_s} if delay_s else {}
        if self.fifo:
            kind = "resume" if message.resume else "go"
            place = "begin" if message.step is None else message.step
            options = {
                "MessageGroupId": str(message.run_id),
                "MessageDeduplicationId": f"{message.run_id}/{place}/{kind}",
            }
        await self._client.send_message(
            QueueUrl=self._url, MessageBody=message.model_dump_json(exclude_defaults=True), **options
        )


@asynccontextmanager
async def queue_client_for(url: str, settings: S3Settings) -> AsyncIterator[Any]:
    """An SQS client for the queue at `url`, open inside the block. No request but what the credential chain needs.

    Endpoint and region are those of the URL; credentials come from the AWS chain, time-outs and attempts from
    `settings`. Raises `ConfigurationError` if no client can be made.
    """
    from aiobotocore.config import AioConfig
    from aiobotocore.session import AioSession
    from botocore.exceptions import BotoCoreError

    parts = urlsplit(url)
    host = parts.hostname or ""
    if parts.scheme not in ("http", "https") or not host:
        raise ConfigurationError("the queue URL must begin with https://", detail=url[:200])
    config = AioConfig(
        connect_timeout=settings.connect_timeout_s,
        read_timeout=settings.read_timeout_s,
        retries={"mode": "standard", "total_max_attempts": settings.max_attempts},
    )
    async with AsyncExitStack() as stack:
        try:
            session = AioSession(profile=settings.profile_name)
            read_faster(session.get_component("data_loader"))
            # A queue is in the region that its URL names, wherever the bucket is; one that is not of AWS is in none.
            named = _REGION.match(host)
            region = named[1] if named else session.get_config_variable("region") or settings.region_name
            if not region and ".amazonaws." not in host:
                region = "us-east-1"
            client = await stack.enter_async_context(
                session.create_client(
                    "sqs",
                    region_name=region,
                    endpoint_url=f"{parts.scheme}://{parts.netloc}",
                    config=config,
                )
            )
        except (BotoCoreError, ValueError) as error:
            raise ConfigurationError(f"no SQS client can be made: {error}", detail=url[:200]) from error
        yield client
