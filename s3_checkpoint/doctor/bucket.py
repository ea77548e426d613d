"""Probes: what only the S3 client shows, of credentials and of how the bucket is set up."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

from s3_checkpoint._format.key_families import KEY_FAMILIES, RUNS
from s3_checkpoint._format.keys import join_prefix
from s3_checkpoint.doctor.findings import (
    Patient,
    Status,
    Verdict,
    failed,
    passed,
    probe,
    skipped,
    unclear,
    warned,
)

_FROZEN = {"GLACIER", "DEEP_ARCHIVE"}
_NOT_THERE = {
    "NoSuchLifecycleConfiguration",
    "NoSuchPublicAccessBlockConfiguration",
    "ServerSideEncryptionConfigurationNotFoundError",
}
NOT_OFFERED = {"NotImplemented", "MethodNotAllowed", "501", "405", "XNotImplemented", "UnsupportedOperation"}


def answer_of(error: Exception) -> tuple[str, int]:
    """S3's own code and status in an SDK error; nothing for an error that is no answer, or a malformed one."""
    response = getattr(error, "response", None)
    status = _part(_part(response, "ResponseMetadata"), "HTTPStatusCode")
    return str(_part(_part(response, "Error"), "Code") or ""), status if isinstance(status, int) else 0


def _part(value: object, name: str) -> Any:
    """A member of a mapping; None of anything else. What a store or a proxy answers need not have S3's form."""
    return value.get(name) if isinstance(value, Mapping) else None


def _parts(value: object, name: str) -> list[Any]:
    found = _part(value, name)
    return [part for part in found if isinstance(part, Mapping)] if isinstance(found, list | tuple) else []


async def _ask(patient: Patient, operation: str) -> Mapping[str, Any] | Verdict:
    """An answer about the bucket, or the verdict that there is none to be had."""
    if patient.client is None:
        return skipped("not an S3 client")
    try:
        answer = await getattr(patient.client, operation)(**patient.bucket)
    except Exception as error:  # noqa: BLE001 - any answer but the one asked for means: it cannot be seen
        code, status = answer_of(error)
        if code in _NOT_THERE:
            return {}
        if code in NOT_OFFERED or status in (405, 501):
            return skipped("the store does not offer this")
        if status == 403:
            return skipped("these credentials may not look")
        return unclear(f"no answer ({code or type(error).__name__})")
    if not isinstance(answer, Mapping):
        return unclear(f"no answer that makes sense ({type(answer).__name__})")
    told = [value for name, value in answer.items() if name != "ResponseMetadata" and value]
    if not told and not _is_empty_xml(operation, answer):
        return unclear("an answer that is not S3's; is a proxy or a portal answering?")
    return answer


def _is_empty_xml(operation: str, answer: Mapping[str, Any]) -> bool:
    """Whether an answer in which nothing was found can be S3's: a portal's page is read as one without members."""
    headers = _part(_part(answer, "ResponseMetadata"), "HTTPHeaders")
    kind = str(_part(headers, "content-type") or "").lower()
    if operation == "get_bucket_versioning":  # of a bucket that never had versions, some stores say nothing at all
        return "html" not in kind
    return "xml" in kind and "html" not in kind and _part(headers, "content-length") != "0"


async def is_versioned(patient: Patient) -> bool:
    """Whether the bucket is known to keep versions."""
    return bool(_part(await _ask(patient, "get_bucket_versioning"), "Status") == "Enabled")


@probe(
    "credentials",
    means="no request can be made",
    fix="set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, a profile (--profile), or a role",
)
async def credentials(patient: Patient) -> Verdict:
    """Who the store takes us for."""
    if patient.client is None:
        return skipped("no network")
    from aiobotocore.session import AioSession
    from botocore.exceptions import BotoCoreError, ClientError

    settings = patient.settings
    if settings.access_key_id is not None:
        source, key = "settings", settings.access_key_id
    else:
        try:
            found = await AioSession(profile=settings.profile_name).get_credentials()
            frozen = await found.get_frozen_credentials() if found is not None else None
        except (BotoCoreError, ClientError) as error:
            return failed(f"{type(error).__name__}: {error}"[:200])
        if found is None or frozen is None:
            return failed("none found, by settings or by the AWS chain")
        source, key = found.method, frozen.access_key
    shown = f"access key …{key[-4:]}, from {source}"
    if settings.endpoint_url is not None:
        return passed(shown)
    return passed(f"{shown}{await _caller(patient)}")


async def _caller(patient: Patient) -> str:
    """The ARN the credentials belong to, as AWS STS tells it; empty if it does not."""
    from aiobotocore.session import AioSession
    from botocore.exceptions import BotoCoreError, ClientError

    settings = patient.settings
    secret, token = settings.secret_access_key, settings.session_token
    options = {
        "region_name": patient.client.meta.region_name if patient.client is not None else None,
        "aws_access_key_id": settings.access_key_id,
        "aws_secret_access_key": secret.get_secret_value() if secret else None,
        "aws_session_token": token.get_secret_value() if token else None,
    }
    try:
        async with AioSession(profile=settings.profile_name).create_client("sts", **options) as sts:
            return f", {(await sts.get_caller_identity())['Arn']}"
    except (BotoCoreError, ClientError) as error:
        return f", identity unknown ({type(error).__name__})"


@probe(
    "checksums",
    means="a body damaged on the way is stored; the library notices when it reads, by the digest, but the step is lost",
    fix="use https, which notices damage by itself, or a store that checks x-amz-checksum-sha256",
    when_denied=Status.SKIP,
)
async def checksums(patient: Patient) -> Verdict:
    """Whether a body that does not match its checksum is refused."""
    if patient.client is None:
        return skipped("not an S3 client")
    wrong = base64.b64encode(hashlib.sha256(b"something else").digest()).decode()
    try:
        await patient.client.put_object(
            Bucket=patient.settings.bucket, Key=patient.key("checksum"), Body=b"{}", ChecksumSHA256=wrong
        )
    except Exception as error:  # noqa: BLE001 - a refusal is what is hoped for
        code, status = answer_of(error)
        if status == 400:
            return passed(f"a wrong SHA-256 is refused ({code})")
        return unclear(f"no answer to a wrong checksum ({code or type(error).__name__})")
    return warned("a body with a wrong SHA-256 was stored")


@probe(
    "versioning",
    means="removed steps are kept as old versions, and paid for",
    fix="add a lifecycle rule with NoncurrentVersionExpiration to the bucket",
)
async def versioning(patient: Patient) -> Verdict:
    """Whether what is overwritten or deleted can be recovered, and whether that is cleaned up."""
    answer = await _ask(patient, "get_bucket_versioning")
    if isinstance(answer, Verdict):
        return answer
    if answer.get("Status") != "Enabled":
        off = "off: what is overwritten or deleted is gone"
        return passed(off if patient.settings.endpoint_url is None else f"{off}. Ask again once it is on")
    rules = await _ask(patient, "get_bucket_lifecycle_configuration")
    if isinstance(rules, Verdict) and rules.status == Status.INCONCLUSIVE:
        return rules
    if any("NoncurrentVersionExpiration" in rule for rule in _active_rules(rules)):
        return passed("on, and old versions expire")
    return warned("on, and old versions never expire: what prune removes is still paid for")


@probe(
    "lifecycle",
    means="runs that pause longer than the rule cannot be resumed",
    fix="limit the rule to other prefixes, and use `s3-checkpoint prune`, which never removes a run's newest step",
)
async def lifecycle(patient: Patient) -> Verdict:
    """Whether a lifecycle rule removes steps, or puts them where they cannot be read."""
    answer = await _ask(patient, "get_bucket_lifecycle_configuration")
    if isinstance(answer, Verdict):
        return answer
    head = join_prefix(patient.settings.prefix)
    touched = [
        (rule, [name for name in KEY_FAMILIES if _touches(rule, f"{head}{name}/")]) for rule in _active_rules(answer)
    ]
    rules = [rule for rule, families in touched if RUNS in families]
    for rule in rules:
        frozen = [t for t in _parts(rule, "Transitions") if t.get("StorageClass") in _FROZEN]
        if frozen:
            return failed(f"rule {rule.get('ID', '?')!r} moves steps to {frozen[0]['StorageClass']}")
    for rule in rules:
        days = _part(_part(rule, "Expiration"), "Days")
        if days:
            return warned(f"rule {rule.get('ID', '?')!r} deletes steps after {days} days, the newest of a run included")
    for rule, families in touched:
        if families and RUNS not in families and (removed := _removed_or_frozen(rule)):
            return warned(f"rule {rule.get('ID', '?')!r} {removed} what is under {', '.join(families)}/")
    return passed(f"{len(rules)} rules, none removes or freezes steps" if rules else "no rule touches the steps")


def _removed_or_frozen(rule: Mapping[str, Any]) -> str | None:
    """What the rule does to objects because of their age; None if it leaves them readable."""
    if _part(_part(rule, "Expiration"), "Days"):
        return "deletes by age"
    return "freezes" if any(t.get("StorageClass") in _FROZEN for t in _parts(rule, "Transitions")) else None


def _active_rules(answer: object) -> Iterable[Mapping[str, Any]]:
    return [rule for rule in _parts(answer, "Rules") if rule.get("Status") == "Enabled"]


def _touches(rule: Mapping[str, Any], ours: str) -> bool:
    scope = _part(rule, "Filter")
    prefix = str(_part(rule, "Prefix") or _part(scope, "Prefix") or _part(_part(scope, "And"), "Prefix") or "")
    return ours.startswith(prefix) or prefix.startswith(ours)


@probe(
    "encryption",
    means="the payloads of a step's tasks are in the metadata of its state object if they are small, and S3 encrypts "
    "no metadata with KMS: a HEAD request shows them without the key",
    fix='set inline_tasks="never" (S3_CHECKPOINT_INLINE_TASKS=never), or kms_key_id to the bucket\'s key',
)
async def encryption(patient: Patient) -> Verdict:
    """Whether the bucket encrypts with KMS by default, which leaves out what is in metadata."""
    answer = await _ask(patient, "get_bucket_encryption")
    if isinstance(answer, Verdict):
        return answer
    rules = _parts(_part(answer, "ServerSideEncryptionConfiguration"), "Rules")
    kms = [
        name
        for rule in rules
        if str(name := _part(_part(rule, "ApplyServerSideEncryptionByDefault"), "SSEAlgorithm")).startswith("aws:kms")
    ]
    if not kms:
        return passed("the bucket's default is not KMS")
    inline = patient.settings.inline_tasks
    if inline == "never" or (inline == "auto" and patient.settings.kms_key_id is not None):
        return passed(f"by default {kms[0]}; tasks with payloads are kept out of metadata")
    return warned(f"by default {kms[0]}, which does not encrypt metadata: payloads of small tasks are stored there")


@probe(
    "public-access",
    means="a policy or ACL can make states readable to everybody",
    fix="aws s3api put-public-access-block --bucket {bucket} --public-access-block-configuration "
    "BlockPublicAcls=true,IgnorePublicAcls=true,BlockPublicPolicy=true,RestrictPublicBuckets=true",
)
async def public_access(patient: Patient) -> Verdict:
    """Whether nobody can make the bucket public."""
    answer = await _ask(patient, "get_public_access_block")
    if isinstance(answer, Verdict):
        return answer
    block = _part(answer, "PublicAccessBlockConfiguration")
    names = ("BlockPublicAcls", "IgnorePublicAcls", "BlockPublicPolicy", "RestrictPublicBuckets")
    off = [name for name in names if not _part(block, name)]
    return warned(f"not blocked: {', '.join(off)}") if off else passed("all public access is blocked")


IDENTITY = (credentials,)
BUCKET = (
    checksums,
    versioning,
    lifecycle,
    encryption,
    public_access,
)
