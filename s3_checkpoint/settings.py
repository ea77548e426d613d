"""Settings: values with units, from arguments or from environment variables `S3_CHECKPOINT_…`."""

from __future__ import annotations

import json
from collections.abc import Iterable
from difflib import get_close_matches
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, TypedDict, Unpack
from urllib.parse import unquote, urlsplit

from pydantic import Field, SecretStr, ValidationError, field_serializer, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from s3_checkpoint._bucket_names import arn_in_front, bucket_name_fault, is_directory_bucket
from s3_checkpoint.errors import ConfigurationError, InvalidArgumentError
from s3_checkpoint.models import InlineTasks, SnapshotObjects

Compression = Literal["gzip", "zstd"]
AddressingStyle = Literal["path", "virtual", "auto"]
Transport = Literal["aiobotocore", "obstore"]
DRIP = 6
"""An exchange that is not over after this many read time-outs is given up: each byte may be in time, and each `100
Continue`, and the whole never."""
SLOWEST = 64 * 1024
"""Bytes per second: a body that is sent or received more slowly, on the whole, is given up."""


_TagKey = Annotated[str, Field(min_length=1, max_length=128)]
_TagValue = Annotated[str, Field(max_length=256)]


COMPATIBLE_REGION = "us-east-1"
"""Where a compatible store's is not set: it ignores the region, but a signature needs one."""


def check_endpoint(url: str | None, bucket: str) -> None:
    """Raises `ConfigurationError` for an endpoint whose URL holds a user or a password."""
    if url is not None and "@" in urlsplit(url).netloc:
        raise ConfigurationError(
            "the endpoint's URL holds a user or a password, and S3 has none: requests are signed with keys; "
            "take them out of `endpoint_url`, AWS_ENDPOINT_URL_S3 or AWS_ENDPOINT_URL",
            bucket,
        )


def _without_userinfo(url: str | None) -> str | None:
    parts = urlsplit(url) if url is not None else None
    if parts is None or "@" not in parts.netloc:
        return url
    return parts._replace(netloc="***@" + parts.netloc.rpartition("@")[2]).geturl()


class S3Options(TypedDict, total=False):
    """The fields of `S3Settings` but its bucket, as keywords: what each means is said there."""

    prefix: str
    transport: Transport
    region_name: str | None
    endpoint_url: str | None
    addressing_style: AddressingStyle | None
    profile_name: str | None
    access_key_id: str | None
    secret_access_key: SecretStr | str | None
    session_token: SecretStr | str | None
    expected_bucket_owner: str | None
    object_tags: dict[str, str]
    kms_key_id: str | None
    compression: Compression | None
    max_state_bytes: int
    connect_timeout_s: float
    read_timeout_s: float
    max_attempts: int
    max_connections: int
    inline_tasks: InlineTasks
    snapshot_objects: SnapshotObjects
    conditional_writes: bool


class S3Settings(BaseSettings):
    """Where checkpoints go and how requests are made. Frozen; secrets are never printed.

    Each field is read from `S3_CHECKPOINT_<FIELD>` where no argument gives it; an empty variable counts as unset.
    Without `access_key_id` the AWS credential chain applies (environment, profile, web identity, container, instance).

    Raises:
        ConfigurationError: A value is out of bounds, or no bucket is named. No request was sent; no value of a field
            but the bucket's name is in the message.
    """

    model_config: ClassVar[SettingsConfigDict] = SettingsConfigDict(
        env_prefix="S3_CHECKPOINT_", frozen=True, extra="forbid", env_ignore_empty=True, hide_input_in_errors=True
    )

    bucket: str = ""
    """A bucket's name by the rules of S3, a directory bucket's, or an access point's alias or ARN. Without a default:
    that neither an argument nor `S3_CHECKPOINT_BUCKET` gives it is an error."""
    prefix: str = ""
    """All keys begin with this; slashes at either end do not matter."""
    transport: Transport = "aiobotocore"
    """The library that sends the requests: the AWS SDK's, or `obstore` (Rust; the extra of that name), which takes a
    third of the CPU and reads no AWS configuration files: neither profiles nor SSO. It follows a redirect of a GET,
    HEAD or LIST to any host, without the signature, but with the session token: use it with `https`."""
    region_name: str | None = None
    """None: as the AWS chain says."""
    endpoint_url: str | None = None
    """An S3-compatible store (`https://…`), with checksums only when required; default: as the AWS configuration says
    (`AWS_ENDPOINT_URL_S3`, …), else AWS."""
    addressing_style: AddressingStyle | None = None
    """Where the bucket's name goes: into the `path` or, as a `virtual` host, in front of the endpoint's; `auto`: as the
    SDK sees fit. Default: as the AWS configuration says, else `path` for an `endpoint_url` and `auto` for AWS."""
    profile_name: str | None = None
    """A profile of the AWS configuration files; None: as the AWS chain says."""
    access_key_id: str | None = None
    secret_access_key: SecretStr | None = None
    session_token: SecretStr | None = None
    expected_bucket_owner: Annotated[str, Field(pattern=r"^[0-9]{12}$")] | None = None
    """AWS account id (12 digits) that must own the bucket; sent with every request."""
    object_tags: Annotated[dict[_TagKey, _TagValue], Field(max_length=10)] = {}
    """Tags of every object written, ten at most, for lifecycle rules and cost reports; in the environment a JSON
    object. Writing then needs `s3:PutObjectTagging` too."""
    kms_key_id: str | None = None
    """Encrypts every object with this KMS key (SSE-KMS); None: as the bucket's default says."""
    compression: Compression | None = None
    """How bodies are written. Reading goes by each object's own header. `zstd` needs the extra of that name."""
    max_state_bytes: Annotated[int, Field(ge=1, le=5 * 1024**3)] = 64 * 1024**2
    """Bytes of JSON, before compression: a larger state is neither written nor read."""
    connect_timeout_s: Annotated[float, Field(gt=0)] = 3.0
    """Seconds for one attempt to connect."""
    read_timeout_s: Annotated[float, Field(gt=0)] = 10.0
    """Seconds without a byte from the store, for one attempt."""
    max_attempts: Annotated[int, Field(ge=1, le=20)] = 4
    """Attempts per request in all, the first included (botocore's `standard` retry mode)."""
    max_connections: Annotated[int, Field(ge=1, le=1024)] = 64
    """Connections kept to the store at most; more calls at once wait for one."""
    inline_tasks: InlineTasks = "auto"
    """Whether a committed state carries its active tasks in its metadata, if they fit. S3 does not encrypt metadata
    with KMS: with `auto`, tasks with payloads are left out where `kms_key_id` is set."""
    snapshot_objects: SnapshotObjects = "always"
    """`when_large`: no active snapshot object beside tasks that the state carries; `commit` is then 1 PUT."""
    conditional_writes: bool = True
    """False: use a store that ignores `If-None-Match`, knowingly; `commit` is then refused."""

    if not TYPE_CHECKING:  # type checkers read the fields

        def __init__(self, **values: Any) -> None:
            try:
                super().__init__(**values)
            except ValueError as error:  # pydantic's, and that of pydantic-settings for a variable that is not JSON
                raise _our_error(error) from None

    @classmethod
    def from_url(cls, url: str, **options: Unpack[S3Options]) -> S3Settings:
        """Settings for `s3://bucket[/prefix]`.

        Args:
            url: The prefix may be percent-encoded. An access point's ARN may be in the place of the bucket's name.
            options: Other fields of `S3Settings`; those left out come from the environment.

        Raises:
            ConfigurationError: The URL is not of that form, or a value is out of bounds.
        """
        if not isinstance(url, str):
            raise ConfigurationError("the URL must read s3://bucket or s3://bucket/prefix", detail=type(url).__name__)
        scheme, mark, rest = url.partition("://")
        bucket = arn_in_front(rest) or rest.partition("/")[0]
        if scheme.lower() != "s3" or not mark or not bucket or "@" in bucket or "?" in rest or "#" in rest:
            raise ConfigurationError(
                "the URL must read s3://bucket or s3://bucket/prefix", detail=scheme if mark else "no scheme"
            )
        return cls.model_validate({"bucket": bucket, "prefix": unquote(rest[len(bucket) :]), **options})

    @classmethod
    def resolve(cls, where: S3Settings | str | None = None, **options: Unpack[S3Options]) -> S3Settings:
        """What `connect` makes of its second argument.

        Args:
            where: Settings, a bucket's name, or `s3://bucket[/prefix]`. None: the environment says.
            options: Other fields of `S3Settings`; they go before those of `where`.

        Raises:
            ConfigurationError: As when settings are made.
            InvalidArgumentError: `where` is something else.
        """
        if isinstance(where, S3Settings):
            return cls.model_validate({**dict(where), **options}) if options else where
        if isinstance(where, str) and "://" in where:
            return cls.from_url(where, **options)
        if where is None or isinstance(where, str):
            return cls.model_validate(options if where is None else {"bucket": where, **options})
        raise InvalidArgumentError(
            "settings",
            type(where).__name__,
            "must be S3Settings, a bucket's name or an s3:// URL; a store is given by keyword: store=...",
        )

    @field_validator("bucket")
    @classmethod
    def _is_a_bucket_name(cls, bucket: str) -> str:
        if fault := bucket_name_fault(bucket):
            raise ValueError(fault)
        return bucket

    @field_validator("prefix")
    @classmethod
    def _strip_slashes(cls, prefix: str) -> str:
        return prefix.strip("/")

    @field_validator("endpoint_url")
    @classmethod
    def _is_http_url(cls, url: str | None) -> str | None:
        if url is None:
            return None
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("must be an http:// or https:// URL")
        parts.port  # noqa: B018 - raises ValueError for one that is none
        return url

    @model_validator(mode="after")
    def _credentials_are_whole(self) -> S3Settings:
        if (self.access_key_id is None) != (self.secret_access_key is None):
            raise ValueError("access_key_id and secret_access_key go together: give both, or neither for the AWS chain")
        if self.session_token is not None and self.access_key_id is None:
            raise ValueError("session_token goes with access_key_id and secret_access_key")
        if self.profile_name is not None and self.access_key_id is not None:
            raise ValueError("give profile_name or explicit credentials, not both")
        return self

    @field_serializer("endpoint_url", when_used="json")
    def _serialize_endpoint_url(self, url: str | None) -> str | None:
        return _without_userinfo(url)

    def __repr_args__(self) -> Iterable[tuple[str | None, Any]]:
        """As pydantic's, without the user and password that a URL may hold."""
        for name, value in super().__repr_args__():
            yield name, _without_userinfo(value) if name == "endpoint_url" else value

    def environment(self) -> dict[str, str]:
        """Variables `S3_CHECKPOINT_…` that give these settings to another process: secrets in plain text."""
        variables = {}
        for name, value in self:
            if value not in (None, {}, ""):
                text = value.get_secret_value() if isinstance(value, SecretStr) else value
                variables[f"S3_CHECKPOINT_{name.upper()}"] = text if isinstance(text, str) else json.dumps(text)
        return variables

    @property
    def directory_bucket(self) -> bool:
        """Whether this is an S3 Express One Zone bucket: its listings have no order."""
        return is_directory_bucket(self.bucket)


OF_A_STORE = S3Settings.model_construct()
"""What is followed where a store is given instead of settings: the defaults of all, and no bucket."""


def _our_error(error: ValueError) -> ConfigurationError:
    """What pydantic found, without the values of fields: they may be secrets."""
    if not isinstance(error, ValidationError):
        return ConfigurationError(f"the settings cannot be read: {error}")
    problems = error.errors(include_url=False)
    of_bucket = next((problem["input"] for problem in problems if problem["loc"] == ("bucket",)), None)
    if of_bucket == "":
        return ConfigurationError(
            "no bucket is named; give its name, an s3:// URL or S3Settings(bucket=...), or set S3_CHECKPOINT_BUCKET"
        )
    shown = of_bucket[:80] if isinstance(of_bucket, str) and "@" not in of_bucket else ""
    told = "; ".join(_told(problem["loc"], problem["type"], problem["msg"]) for problem in problems)
    return ConfigurationError(f"the settings are not valid: {told}", shown)


def _told(loc: tuple[int | str, ...], kind: str, message: str) -> str:
    field = ".".join(map(str, loc))
    if kind == "extra_forbidden":
        near = get_close_matches(field, S3Settings.model_fields, 1)
        return f"there is no setting {field}" + (f" (did you mean {near[0]}?)" if near else "")
    message = message.removeprefix("Value error, ")
    return f"{field} {message[0].lower() + message[1:]}" if field else message
