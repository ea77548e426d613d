"""IAM policies for the three roles at a bucket: as little as the library's calls need, only under one prefix. Pure:

    role      may call                                               grants
    worker    every call that reads and writes, `fork` too           s3:GetObject, s3:PutObject, s3:ListBucket
    reader    load, load_active, list, resume, runs, history, usage  s3:GetObject, s3:ListBucket
    janitor   what the reader may, prune, prune_all and delete       s3:GetObject, s3:ListBucket, s3:DeleteObject;
                                                                     s3:PutObject of what marks a removal alone

Object actions are granted on the families of keys (`key_families`), `<prefix>/runs/*` and so on; `s3:ListBucket` on
the bucket with a condition on `s3:prefix`, so that other prefixes cannot even be listed. The condition costs nothing:
for an object that is not there, S3 answers 404 rather than 403 if `s3:ListBucket` is allowed with the key as the
prefix. `HeadBucket` carries no prefix and is refused; the calls above never send it.
No role may delete versions: in a bucket with versioning, what one of them overwrites or deletes can be recovered.
"""

from __future__ import annotations

import re
from typing import Literal, TypeAlias, get_args

from pydantic import JsonValue

from s3_checkpoint._bucket_names import is_directory_bucket
from s3_checkpoint._format.key_families import KEY_FAMILIES, RUNS, SESSIONS, THREADS
from s3_checkpoint._format.keys import join_prefix
from s3_checkpoint.errors import InvalidArgumentError

Role: TypeAlias = Literal["worker", "reader", "janitor"]
"""Who the policy is for."""

ROLES: tuple[Role, ...] = get_args(Role)

MARKS = (
    f"{RUNS}/*/pruned/0*",
    f"{RUNS}/*/pruned/1*",
    f"{THREADS}/*/*/values/*",
    f"{SESSIONS}/*/parts/*",
    f"{SESSIONS}/*/merged/*",
    f"{SESSIONS}/clock.json",
)
"""What the janitor may write: how far a run has been pruned; a large value of a thread, by a copy onto itself, before
it goes; of a session the empty part that ends it, and its parts merged (IAM sees no bodies, so any part). IAM's `*`
matches slashes too, so the first two hold for subgraphs as well; they end with the first of the step's 20 digits, so
that a subgraph named `pruned` is not opened. In the third, a thread and a namespace come before `values`, so that a
namespace of that name is not."""

_OBJECT_ACTIONS: dict[Role, list[str]] = {
    "worker": ["s3:GetObject", "s3:PutObject"],
    "reader": ["s3:GetObject"],
    "janitor": ["s3:DeleteObject", "s3:GetObject"],
}
_KMS_ACTIONS: dict[Role, list[str]] = {
    "worker": ["kms:Decrypt", "kms:GenerateDataKey"],
    "reader": ["kms:Decrypt"],
    "janitor": ["kms:Decrypt", "kms:GenerateDataKey"],
}
_TAG_ACTIONS = ["s3:GetObjectTagging", "s3:PutObjectTagging"]

_BUCKET_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,253}[A-Za-z0-9]")
_ACCESS_POINT = re.compile(r"arn:(aws[a-z-]*):s3:[a-z0-9-]+:[0-9]{12}:accesspoint/[a-z0-9-]+")
_KMS_KEY = re.compile(r"arn:(aws[a-z-]*):kms:([a-z0-9-]+):[0-9]{12}:key/[A-Za-z0-9-]+")
_PARTITION = re.compile(r"aws[a-z-]*")
_IAM_TEXT = re.compile(r"[\x20-\xff]*")
_IAM_SPECIAL = re.compile(r"[*?$]")


def iam_policy(
    role: Role,
    bucket: str,
    prefix: str = "",
    *,
    kms_key_arn: str | None = None,
    object_tags: bool = False,
    bucket_owner: str | None = None,
    partition: str = "aws",
    compatible_store: bool = False,
) -> dict[str, JsonValue]:
    """The identity policy of a role, as a JSON document for IAM. No request; the same arguments give the same document.

    Args:
        role: `worker`, `reader` or `janitor`; what each may call is at the head of this module.
        bucket: A bucket's name, or the ARN of an access point (the bucket must then delegate access control to it).
        prefix: As in `S3Settings.prefix`; slashes at either end do not matter. Wildcards in it are taken literally.
        kms_key_arn: The ARN of the key that encrypts the bucket's objects, if one does; adds what it takes to use that
            key through S3 and in no other way. An alias is not enough: IAM decides by the key itself.
        object_tags: Those who write may also tag what they write, which `S3Settings.object_tags` needs.
        bucket_owner: The AWS account (12 digits) that must own the bucket; one of the same name elsewhere is refused.
        partition: `aws`, `aws-cn` or `aws-us-gov`. An access point's ARN brings its own.
        compatible_store: The bucket is not on AWS. The janitor then gets `s3:DeleteObject` on the bucket itself too:
            it would grant nothing on AWS, but moto, for one, asks for it before a batch delete.

    Returns:
        `{"Version": "2012-10-17", "Statement": [...]}`: one for objects, one for listing, and those asked for.

    Raises:
        InvalidArgumentError: An argument is not of its form, or cannot be written in an IAM policy; also for an S3
            Express directory bucket, whose sessions are granted for whole buckets, so that no prefix would hold.
    """
    if role not in ROLES:
        raise InvalidArgumentError("role", ascii(role)[:80], f"must be one of {', '.join(ROLES)}")
    bucket_arn, objects_arn = _arns(bucket, partition)
    heads = [_literal(f"{join_prefix(prefix)}{kind}/") for kind in KEY_FAMILIES]
    owner: dict[str, JsonValue] = {}
    if bucket_owner is not None:
        if not re.fullmatch(r"[0-9]{12}", bucket_owner):
            raise InvalidArgumentError("bucket_owner", ascii(bucket_owner)[:80], "must be an account id of 12 digits")
        owner = {"StringEquals": {"aws:ResourceAccount": bucket_owner}}

    actions = [*_OBJECT_ACTIONS[role], *(_TAG_ACTIONS if object_tags and role == "worker" else [])]
    under_prefixes: dict[str, JsonValue] = {"StringLike": {"s3:prefix": [f"{head}*" for head in heads]}}
    statements: list[JsonValue] = [
        _allow("CheckpointObjects", [*sorted(actions)], [f"{objects_arn}/{head}*" for head in heads], owner),
        _allow("ListCheckpoints", "s3:ListBucket", bucket_arn, under_prefixes | owner),
    ]
    if role == "janitor":
        head = _literal(join_prefix(prefix))
        marking = ["s3:PutObject", *(_TAG_ACTIONS if object_tags else [])]
        marks = [f"{objects_arn}/{head}{mark}" for mark in MARKS]
        statements.append(_allow("MarkRemovals", [*marking], [*marks], owner))
    if compatible_store and role == "janitor":
        statements.append(_allow("BatchDelete", "s3:DeleteObject", bucket_arn))
    if kms_key_arn is not None:
        statements.append(_key_statement(role, kms_key_arn))
    return {"Version": "2012-10-17", "Statement": statements}


def _arns(bucket: str, partition: str) -> tuple[str, str]:
    """The ARN that listing is granted on, and the one that object keys are appended to."""
    if _ACCESS_POINT.fullmatch(bucket):
        return bucket, f"{bucket}/object"
    if is_directory_bucket(bucket):
        raise InvalidArgumentError(
            "bucket",
            bucket[:80],
            "is a directory bucket: s3express:CreateSession is granted for whole buckets, so no policy can hold a role "
            "to a prefix; give each application a bucket of its own",
        )
    if not _BUCKET_NAME.fullmatch(bucket):
        raise InvalidArgumentError(
            "bucket", ascii(bucket)[:80], "must be a bucket's name or the ARN of an access point"
        )
    if not _PARTITION.fullmatch(partition):
        raise InvalidArgumentError("partition", ascii(partition)[:80], "must be aws, aws-cn or aws-us-gov")
    arn = f"arn:{partition}:s3:::{bucket}"
    return arn, arn


def _literal(text: str) -> str:
    """`text` so that IAM matches it and nothing else: its wildcards and variables are escaped as `${*}`."""
    if not _IAM_TEXT.fullmatch(text):
        raise InvalidArgumentError(
            "prefix",
            ascii(text)[:80],
            "has characters that IAM policies cannot hold; they take Latin-1 without controls",
        )
    return _IAM_SPECIAL.sub(lambda match: f"${{{match[0]}}}", text)


def _allow(
    sid: str, action: JsonValue, resource: JsonValue, condition: dict[str, JsonValue] | None = None
) -> dict[str, JsonValue]:
    statement = {"Sid": sid, "Effect": "Allow", "Action": action, "Resource": resource}
    return {**statement, "Condition": condition} if condition else statement


def _key_statement(role: Role, kms_key_arn: str) -> dict[str, JsonValue]:
    """Use of the key, only by way of S3 in the key's region: the credentials cannot decrypt anything else with it."""
    match = _KMS_KEY.fullmatch(kms_key_arn)
    if match is None:
        raise InvalidArgumentError(
            "kms_key_arn", ascii(kms_key_arn)[:80], "must be the ARN of a key (arn:aws:kms:region:account:key/id)"
        )
    domain = "amazonaws.com.cn" if match[1] == "aws-cn" else "amazonaws.com"
    by_s3: dict[str, JsonValue] = {"StringEquals": {"kms:ViaService": f"s3.{match[2]}.{domain}"}}
    return _allow("CheckpointKey", [*_KMS_ACTIONS[role]], kms_key_arn, by_s3)
