"""`s3-checkpoint policy`: prints the IAM policy of those who use the bucket. Sends no request."""

from __future__ import annotations

from typing import Annotated

import typer

from s3_checkpoint.cli.output import write_document
from s3_checkpoint.cli.session import Session, session_command
from s3_checkpoint.policy import Role, iam_policy

_ACCOUNT = "Account of 12 digits that must own the bucket. [S3_CHECKPOINT_EXPECTED_BUCKET_OWNER]"


@session_command
async def command(
    session: Session,
    role: Annotated[
        Role,
        typer.Argument(help="worker: reads and writes. reader: reads. janitor: reads, prunes and deletes."),
    ],
    *,
    kms_key: Annotated[
        str | None,
        typer.Option("--kms-key", help="ARN of the key that encrypts the bucket. [S3_CHECKPOINT_KMS_KEY_ID]"),
    ] = None,
    bucket_owner: Annotated[str | None, typer.Option("--bucket-owner", help=_ACCOUNT)] = None,
    object_tags: Annotated[
        bool, typer.Option("--object-tags", help="Who writes may tag what it writes. [S3_CHECKPOINT_OBJECT_TAGS]")
    ] = False,
    partition: Annotated[str, typer.Option("--partition", help="aws, aws-cn or aws-us-gov.")] = "aws",
) -> None:
    """Print the least IAM policy a worker, a reader or a janitor needs, limited to the bucket and prefix.

    Nothing is sent: pipe it to `aws iam put-role-policy --policy-document file:///dev/stdin`.
    """
    settings = session.settings
    document = iam_policy(
        role,
        settings.bucket,
        settings.prefix,
        kms_key_arn=kms_key or settings.kms_key_id,
        object_tags=object_tags or bool(settings.object_tags),
        bucket_owner=bucket_owner or settings.expected_bucket_owner,
        partition=partition,
        compatible_store=settings.endpoint_url is not None,
    )
    write_document(session, document, None)
