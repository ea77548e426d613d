"""Probes: who are we, how do we get there, and what may we do."""

from __future__ import annotations

from ipaddress import ip_address
from urllib.parse import urlsplit

from s3_checkpoint.doctor.bucket import NOT_OFFERED, answer_of
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
from s3_checkpoint.errors import ConfigurationError, StoreError, StoreUnavailableError
from s3_checkpoint.object_store import ObjectAttributes

_NOT_S3 = "not S3's"
"""What the store's errors say of an answer that means success elsewhere, an empty one for instance."""


@probe(
    "transport",
    means="states and active tasks can be read and changed on the way",
    fix="use an https:// endpoint_url",
)
async def transport(patient: Patient) -> Verdict:
    """Whether states travel encrypted, and which library sends them."""
    if patient.client is None:
        return skipped("no network")
    url = urlsplit(patient.client.meta.endpoint_url)
    by = patient.settings.transport
    if url.scheme == "https":
        return passed(f"https to {url.hostname}, by {by}")
    if _is_loopback(url.hostname or ""):
        return warned(f"http, to this machine only ({url.hostname}), by {by}")
    return failed(f"http to {url.hostname}, by {by}: states can be read on the way")


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


@probe(
    "list",
    means="load() and resume() cannot find the newest step, list() and every operator's call fail",
    fix="check bucket, region and credentials; grant s3:ListBucket on the bucket (`s3-checkpoint policy reader`)",
)
async def listing(patient: Patient) -> Verdict:
    """Whether the bucket is there and can be listed."""
    await patient.store.list(patient.keys.run, limit=1)
    region = patient.client.meta.region_name if patient.client is not None else None
    return passed(f"bucket {patient.store.bucket}" + (f", region {region}" if region else ""))


@probe(
    "put",
    means="save and commit fail; nothing else can be probed",
    fix="grant s3:PutObject on the prefix (`s3-checkpoint policy worker`)",
)
async def writing(patient: Patient) -> Verdict:
    """Whether an object can be written."""
    await patient.put("permission")
    return passed("an object was written")


@probe(
    "get",
    means="load and resume fail",
    fix="grant s3:GetObject on the prefix (`s3-checkpoint policy reader`)",
)
async def reading(patient: Patient) -> Verdict:
    """Whether an object reads back as it was written."""
    body = b'{"written": "a moment ago"}'
    await patient.put("permission", body)
    found = await patient.get("permission")
    if found is None or found.body != body:
        return failed("an object just written does not read back as it was")
    return passed("an object just written reads back")


@probe(
    "absence",
    means="a step that was never saved raises AccessDeniedError instead of giving None",
    fix="grant s3:ListBucket on the bucket: without it S3 answers 403 for a key that is not there",
)
async def absence(patient: Patient) -> Verdict:
    """Whether a key that is not there is answered with 404 and not with 403."""
    missing = "nothing-is-here"
    found = (await patient.get(missing), await patient.store.head(patient.key(missing)))
    return passed("404 for a key that is not there") if found == (None, None) else failed("something is there")


@probe(
    "delete",
    means="prune and delete fail; workers do not need it. What this examination wrote stays, under its run id",
    fix="grant s3:DeleteObject to those who prune (`s3-checkpoint policy janitor`); a worker can do without",
    when_denied=Status.WARN,
)
async def deleting(patient: Patient) -> Verdict:
    """Whether objects can be removed, several in one request."""
    names = [f"deleted-{number}" for number in range(3)]
    for name in names:
        await patient.put(name)
    try:
        await patient.store.delete([patient.key(name) for name in names])
    except (StoreError, ConfigurationError) as error:
        cause = _why_not_deleted(error.detail)
        if cause is None:
            raise
        return failed(f"{cause[0]} ({error.detail})"[:300], cause[1])
    except StoreUnavailableError as error:
        if _NOT_S3 not in error.detail or not await _left(patient, names):
            raise
    left = await _left(patient, names)
    if left:
        return failed(
            f"DeleteObjects is answered with success, and {len(left)} of {len(names)} objects are still there",
            "upgrade the store, or remove the proxy in front of it; until then prune and delete remove nothing and say "
            "that they did. Workers do not need it",
        )
    return passed(f"{len(names)} objects, 1 request")


async def _left(patient: Patient, names: list[str]) -> list[str]:
    """The objects that are still there, asked one by one: a listing could be old, and has a probe of its own."""
    return [name for name in names if await patient.get(name) is not None]


def _why_not_deleted(detail: str) -> tuple[str, str] | None:
    """What is wrong with DeleteObjects itself, and what to do; None if the store's words name nothing of the kind."""
    code = detail.partition(":")[0]
    if code in ("MissingContentMD5", "InvalidDigest") or "content-md5" in detail.lower():
        return (
            "the store wants a Content-MD5 with DeleteObjects, where SDKs since 2025 send another checksum",
            "upgrade the store; no policy helps. Until then remove runs with a tool that deletes key by key "
            "(aws s3 rm --recursive). Workers do not need it",
        )
    if code in NOT_OFFERED:
        return (
            "the store does not implement DeleteObjects",
            "remove runs with a tool that deletes key by key (aws s3 rm --recursive); no policy helps. Workers do not "
            "need it",
        )
    return None


@probe(
    "delete-etag",
    means="none of the library's calls rests on it",
    fix="nothing needs to be done",
    when_denied=Status.SKIP,
)
async def deleting_by_etag(patient: Patient) -> Verdict:
    """Whether a batch delete spares an object that is not the one named by its ETag. Nothing rests on it."""
    if patient.client is None:
        return skipped("not an S3 client")
    await patient.put("deleted-by-etag")
    stale = {"Key": patient.key("deleted-by-etag"), "ETag": f'"{"0" * 32}"'}
    try:
        await patient.client.delete_objects(**patient.bucket, Delete={"Objects": [stale], "Quiet": True})
    except Exception as error:  # noqa: BLE001 - as for the bucket's own answers
        code, status = answer_of(error)
        refused = 400 <= status < 500 or status == 501
        return skipped(f"refused ({code})") if refused else unclear(f"no answer ({code or type(error).__name__})")
    kept = await patient.get("deleted-by-etag") is not None
    return passed(
        "an ETag per object is honoured in DeleteObjects"
        if kept
        else "an ETag per object is ignored in DeleteObjects; no call of the library relies on it"
    )


@probe(
    "copy",
    means="pruning and copying threads of the LangGraph saver fails; runs do not need it",
    fix="upgrade the store; until then delete threads whole",
)
async def copying(patient: Patient) -> Verdict:
    """Whether a copy inside the store has the body, and the attributes it was given."""
    await patient.put("copied-from", b'{"copied": true}')
    attributes = ObjectAttributes(metadata={"origin": "somewhere/7"})
    await patient.store.copy(patient.key("copied-from"), patient.key("copied-to"), attributes=attributes)
    found = await patient.get("copied-to")
    if (
        found is None
        or found.body != b'{"copied": true}'
        or dict(found.head.attributes.metadata) != attributes.metadata
    ):
        return failed("a copy differs from its source, or has lost its metadata")
    return passed("body and metadata arrive")


ACCESS = (
    transport,
    listing,
    writing,
    reading,
    absence,
    deleting,
    deleting_by_etag,
    copying,
)
