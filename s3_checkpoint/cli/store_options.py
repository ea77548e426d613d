"""Where the checkpoints are, as the options of every command say, before the command or after it."""

from __future__ import annotations

import functools
import inspect
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated, Any, cast, get_type_hints

import typer

from s3_checkpoint.cli.exit_codes import CommandError, ExitCode

if TYPE_CHECKING:
    from s3_checkpoint.settings import S3Options, S3Settings


def _option(*flags: str, told: str) -> object:
    panel = "Where the checkpoints are"
    return Annotated[str | None, typer.Option(*flags, help=told, rich_help_panel=panel)]


_SHARED = {
    "bucket": _option("--bucket", "-b", told="Bucket, or s3://bucket/prefix. [S3_CHECKPOINT_BUCKET]"),
    "prefix": _option("--prefix", told="All keys begin with this. [S3_CHECKPOINT_PREFIX]"),
    "profile": _option("--profile", told="Profile of the AWS configuration. [AWS_PROFILE]"),
    "region": _option("--region", told="AWS region. [S3_CHECKPOINT_REGION_NAME, AWS_REGION]"),
    "endpoint_url": _option("--endpoint-url", told="An S3-compatible store. [S3_CHECKPOINT_ENDPOINT_URL]"),
}


@dataclass(frozen=True, slots=True)
class StoreOptions:
    """The shared options as given; None where not given."""

    bucket: str | None = None
    prefix: str | None = None
    profile: str | None = None
    region: str | None = None
    endpoint_url: str | None = None

    def over(self, other: StoreOptions | None) -> StoreOptions:
        """These, and what `other` says where they say nothing."""
        if other is None:
            return self
        mine = {name: value for name, value in asdict(self).items() if value is not None}
        return StoreOptions(**{**asdict(other), **mine})

    def settings(self) -> S3Settings:
        """Settings from these and the environment. `CommandError` if no bucket is named, else `ConfigurationError`."""
        from s3_checkpoint.settings import S3Settings

        given = {
            "prefix": self.prefix,
            "profile_name": self.profile,
            "region_name": self.region,
            "endpoint_url": self.endpoint_url,
        }
        if not (self.bucket or os.environ.get("S3_CHECKPOINT_BUCKET")):
            raise CommandError("no bucket is named; give --bucket NAME, or set S3_CHECKPOINT_BUCKET", ExitCode.USAGE)
        values = cast("S3Options", {name: value for name, value in given.items() if value is not None})
        return S3Settings.resolve(self.bucket, **values)


def with_store_options(function: Callable[..., None]) -> Callable[..., None]:
    """`function(options, …)` as a command that takes the shared options too: `options` are those given anywhere."""

    @functools.wraps(function)
    def run(*, context: typer.Context, **arguments: Any) -> None:
        own = StoreOptions(**{name: arguments.pop(name) for name in _SHARED})
        context.obj = own.over(context.find_root().obj)
        function(context.obj, **arguments)

    keyword = inspect.Parameter.KEYWORD_ONLY
    hints = get_type_hints(function, include_extras=True)
    parameters = list(inspect.signature(function).parameters.values())[1:]
    signature = inspect.Signature(
        [
            inspect.Parameter("context", keyword, annotation=typer.Context),
            *(p.replace(kind=keyword, annotation=hints[p.name]) for p in parameters),
            *(inspect.Parameter(name, keyword, default=None, annotation=kind) for name, kind in _SHARED.items()),
        ]
    )
    run.__signature__ = signature  # type: ignore[attr-defined]
    run.__annotations__ = {p.name: p.annotation for p in signature.parameters.values()}
    return run
