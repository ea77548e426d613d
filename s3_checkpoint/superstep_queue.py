"""The message that carries a run from one superstep to the next, and the SQS queue it travels in.

    {"run_id": "…", "initial": {…}}                         begin: `initial` becomes step 0
    {"run_id": "…", "step": 3}                              continue from step 3
    {"run_id": "…", "resume_from": 3, "update": {…}}        answer the interrupt at step 3; `update` may be left out

`"whole": true` beside `initial` or `update` says that a handler whose type would drop a member of it must not take it.

A message names the step it continues from, so that one that comes late or twice is recognised for what it is. The first
holds a state and the last what a human said; the others hold neither. Whatever is lost with a queue, the run is in the
bucket, and a message with its newest step sets it going again.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Annotated, Any, ClassVar
from urllib.parse import urlsplit
from uuid import UUID

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import InitErrorDetails, from_json

from s3_checkpoint._format.foreign_errors import misfit, without_values
from s3_checkpoint._format.keys import MAX_STEP, check_run_id, check_step
from s3_checkpoint._format.message_json import JsonText, encoded, inherits_fields, members
from s3_checkpoint.errors import ConfigurationError, StateEncodingError
from s3_checkpoint.settings import S3Settings

MAX_DELAY_S = 900
"""The longest SQS holds a message back, in seconds."""


_REGION = re.compile(r"(?:sqs|sqs-fips|[a-z0-9-]+\.sqs)\.([a-z]{2,}-[a-z-]+-[0-9]+)\.")


def _as_text(value: Any) -> JsonText | None:
    """What a member of a message is in it; a value that is not JSON text yet is written as its own type says."""
    text = value if isinstance(value, JsonText) or value is None else encoded(value)
    return None if text == "null" else text


class SuperstepMessage(BaseModel):
    """One superstep to be run: `begin`, `resume`, or `SuperstepMessage(run_id=…, step=…)` to continue.

    `model_dump_json()` is the body of the message, and `model_validate_json(body)` reads it: states and updates pass
    through both as the codec writes them, with all digits and without defaults taking the place of anything.
    """

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    run_id: UUID
    step: Annotated[int, Field(ge=0, le=MAX_STEP, strict=True)] | None = None
    """The newest step of the run as the sender knows it, to continue from."""
    resume_from: Annotated[int, Field(ge=0, le=MAX_STEP, strict=True)] | None = None
    """The step whose interrupt is answered."""
    initial_json: Annotated[Any, BeforeValidator(_as_text)] = Field(default=None, alias="initial", repr=False)
    """The state to begin with, as JSON text."""
    update_json: Annotated[Any, BeforeValidator(_as_text)] = Field(default=None, alias="update", repr=False)
    """What the human who answers has to say, as JSON text; merged into the state."""
    whole: Annotated[bool, Field(strict=True)] = False
    """Whether every member of the state or update is meant: a type that has no place for one must not read it."""
    echo: Annotated[int, Field(ge=0, strict=True)] = 0
    """How often in a row the message was sent only because nobody could know whether it had been sent."""

    @classmethod
    def begin(cls, run_id: UUID | str, state: Any, *, state_type: Any = None) -> SuperstepMessage:
        """The message that begins a run with `state` as its step 0. No request.

        Args:
            run_id: The run.
            state: The state, of any type that a checkpointer takes.
            state_type: The handler's state type, or a `TypeAdapter` of it. Default: the state's own type; in a `dict`
                (a `TypedDict` is one) the type of each value. So give it where the two differ: a union of types with
                the same JSON, an alias or serializer of a `TypedDict`. A state of a subclass of the handler's type is
                refused by the handler, if not here, rather than stored without the fields of the subclass.

        Returns:
            The message; `model_dump_json()` is its body.

        Raises:
            StateEncodingError: The state would not come back as it is, with the path.
            InvalidArgumentError: `run_id` is no run id.
        """
        run_id = check_run_id(run_id)
        if state is None:
            raise StateEncodingError("$", "null cannot be told from a step that is not there")
        return cls(run_id=run_id, initial=state if state_type is None else encoded(state, state_type))

    @classmethod
    def resume(cls, run_id: UUID | str, step: int, update: Any = None, *, update_type: Any = None) -> SuperstepMessage:
        """The message that answers the interrupt at `step`; sent twice, it is answered once. No request.

        Args:
            run_id: The run.
            step: The step of the `Interrupted`.
            update: What the human said, merged into the state before the waiting tasks see it; None: nothing.
            update_type: The handler's `update_type`, or a `TypeAdapter` of it. Default: as `state_type` of `begin`.

        Returns:
            The message; `model_dump_json()` is its body.

        Raises:
            StateEncodingError: The update would not come back as it is, with the path.
            InvalidArgumentError: `run_id` is no run id, or `step` is no step.
        """
        said = update if update is None or update_type is None else encoded(update, update_type)
        return cls(run_id=check_run_id(run_id), resume_from=check_step(step), update=said)

    @property
    def initial(self) -> Any:
        """The state to begin with, as plain JSON values: its numbers may have lost digits. None if there is none."""
        return None if self.initial_json is None else from_json(self.initial_json)

    @property
    def update(self) -> Any:
        """What the human has to say, as plain JSON values: its numbers may have lost digits. None if there is none."""
        return None if self.update_json is None else from_json(self.update_json)

    @model_validator(mode="before")
    @classmethod
    def _says_whether_it_is_whole(cls, given: Any) -> Any:
        if isinstance(given, dict) and any(inherits_fields(given.get(name)) for name in ("initial", "update")):
            return {**given, "whole": True}
        return given

    @model_validator(mode="after")
    def _is_one_of_the_three(self) -> SuperstepMessage:
        if [self.initial_json, self.step, self.resume_from].count(None) != 2:
            raise misfit("give initial to begin a run, step to continue from, or resume_from: one of them")
        if self.update_json is not None and self.resume_from is None:
            raise misfit("update goes with resume_from, the step it answers")
        return self

    def model_dump_json(self, **options: Any) -> str:
        """The body of the message, whatever the options: what is not said is left out, what is said is all there."""
        said = {
            "run_id": f'"{self.run_id}"',
            "step": self.step,
            "resume_from": self.resume_from,
            "initial": self.initial_json,
            "update": self.update_json,
            "whole": "true" if self.whole else None,
            "echo": self.echo or None,
        }
        return "{" + ",".join(f'"{name}":{value}' for name, value in said.items() if value is not None) + "}"

    @classmethod
    def model_validate_json(cls, json_data: str | bytes | bytearray, **options: Any) -> SuperstepMessage:
        """The message with this body; `pydantic.ValidationError`, without any input in it, if there is none."""
        try:
            found = members(json_data if isinstance(json_data, str) else json_data.decode())
            fields = {
                name: JsonText(text) if name in ("initial", "update") else from_json(text)
                for name, text in found.items()
            }
        except ValueError as error:
            line = InitErrorDetails(type="json_invalid", loc=(), input=None, ctx={"error": str(error)})
            raise ValidationError.from_exception_data(cls.__name__, [line], hide_input=True) from None
        try:
            return cls.model_validate(fields, **options)
        except ValidationError as error:
            raise without_values(error) from None


class SuperstepQueue:
    """Sends messages to one queue, through an open aiobotocore or aioboto3 SQS client that the caller closes."""

    def __init__(self, client: Any, url: str) -> None:
        self._client = client
        self._url = url

    @property
    def fifo(self) -> bool:
        """Whether it is a FIFO queue: it drops what was sent within five minutes, and delays nothing."""
        return self._url.endswith(".fifo")

    async def send(self, message: SuperstepMessage, *, delay_s: int = 0) -> None:
        """The message is in the queue, and can be received.

        In a FIFO queue it is in the group of its run, without delay, and not there twice within five minutes.

        Requests:
            1 SendMessage.

        Args:
            message: Sent as JSON, in one request.
            delay_s: Seconds before it can be received, 0 … 900; not for a FIFO queue.

        Raises:
            ConfigurationError: A fault of this machine. It is unknown whether the message is in the queue, as it is
                with what the SDK raises (`botocore.exceptions`).
        """
        options: dict[str, Any] = {"DelaySeconds": delay_s} if delay_s else {}
        if self.fifo:
            kind = "go" if message.resume_from is None else "resume"
            known = message.step if message.resume_from is None else message.resume_from
            options = {
                "MessageGroupId": str(message.run_id),
                "MessageDeduplicationId": f"{message.run_id}/{'begin' if known is None else known}/{kind}",
            }
        await self._client.send_message(QueueUrl=self._url, MessageBody=message.model_dump_json(), **options)


@asynccontextmanager
async def queue_client_for(url: str, settings: S3Settings) -> AsyncIterator[Any]:
    """An SQS client for the queue at `url`, open inside the block. No request but what the credential chain needs.

    Endpoint and region are those of the URL; credentials come from the AWS chain, time-outs and attempts from
    `settings`. Raises `ConfigurationError` if no client can be made.
    """
    from aiobotocore.config import AioConfig
    from botocore.exceptions import BotoCoreError

    from s3_checkpoint._s3.http_session import OneHostSession
    from s3_checkpoint._s3.sdk_internals import new_session, read_faster

    parts = urlsplit(url)
    host = parts.hostname or ""
    if parts.scheme not in ("http", "https") or not host:
        raise ConfigurationError("the queue URL must begin with https://", detail=url[:200])
    config = AioConfig(
        http_session_cls=OneHostSession,  # a message may hold a state, so nobody but the queue gets it
        connect_timeout=settings.connect_timeout_s,
        read_timeout=settings.read_timeout_s,
        retries={"mode": "standard", "total_max_attempts": settings.max_attempts},
    )
    async with AsyncExitStack() as stack:
        try:
            session = new_session(settings.profile_name)
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


class QueueClientOnDemand:
    """An SQS client that the first message opens, and `stack` closes. Sends messages, and does nothing else."""

    def __init__(self, stack: AsyncExitStack, url: str, settings: S3Settings) -> None:
        self._stack = stack
        self._url = url
        self._settings = settings
        self._opening = asyncio.Lock()
        self._client: Any = None

    async def send_message(self, **options: Any) -> Any:
        """What the SDK's method of that name gives; raises also what `queue_client_for` raises."""
        async with self._opening:
            if self._client is None:
                opened = await self._stack.enter_async_context(queue_client_for(self._url, self._settings))
                self._client = opened
        return await self._client.send_message(**options)
