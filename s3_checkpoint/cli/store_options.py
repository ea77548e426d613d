"""Where the checkpoints are, as the options of every command say, before the command or after it."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated, cast

import typer

from s3_checkpoint.cli.exit_codes import CommandError, ExitCode

if TYPE_CHECKING:
    from s3_checkpoint.settings import S3Options, S3Settings

_PANEL = "Where the checkpoints are"

BucketOption = Annotated[
    str | None,
    typer.Option(
        "--bucket", "-b", help="Bucket, or s3://bucket/prefix. [S3_CHECKPOINT_BUCKET]", rich_help_panel=_PANEL
    ),
]
PrefixOption = Annotated[
    str | None,
    typer.Option("--prefix", help="All keys begin with this. [S3_CHECKPOINT_PREFIX]", rich_help_panel=_PANEL),
]
ProfileOption = Annotated[
    str | None,
    typer.Option("--profile", help="Profile of the AWS configuration. [AWS_PROFILE]", rich_help_panel=_PANEL),
]
RegionOption = Annotated[
    str | None,
    typer.Option("--region", help="AWS region. [S3_CHECKPOINT_REGION_NAME, AWS_REGION]", rich_help_panel=_PANEL),
]
EndpointOption = Annotated[
    str | None,
    typer.Option("--endpoint-url", help="An S3-compatible store. [S3_CHECKPOINT_ENDPOINT_URL]", rich_help_panel=_PANEL),
]
SHARED = {
    "bucket": BucketOption,
    "prefix": PrefixOption,
    "profile": ProfileOption,
    "region": RegionOption,
    "endpoint_url": EndpointOption,
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
