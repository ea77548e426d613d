"""Probes: what commits, resuming and listing rely on, seen through the store's six verbs."""

from __future__ import annotations

import gzip
import time
from dataclasses import replace
from datetime import UTC, datetime
from statistics import quantiles

from s3_checkpoint._format.keys import MAX_STEP, parse_run_prefix, runs_prefix
from s3_checkpoint._format.metadata import MAX_METADATA_BYTES, ObjectMetadata
from s3_checkpoint.doctor.findings import Patient, Status, Verdict, failed, passed, probe, skipped, warned
from s3_checkpoint.object_store import ObjectAttributes

LATENCY_REQUESTS = 20


@probe(
    "list-after-write",
    means="resume can miss the step committed last and run a superstep again, whose commit then conflicts",
    fix="use a strongly consistent store or replica; turn off a listing cache in front of it",
)
async def list_after_write(patient: Patient) -> Verdict:
    """Whether a listing right after a write or a delete shows it."""
    for number in range(8):
        await patient.put(f"fresh/{number}")
        names = await _listed(patient, "fresh/")
        if len(names) != number + 1:
            return failed(f"a listing right after the write shows {len(names)} of {number + 1} objects")
    return passed("8 writes, each seen at once")


async def _listed(patient: Patient, name: str) -> list[str]:
    head = patient.key(name)
    page = await patient.store.list(head)
    return [listed.key[len(head) :] for listed in page.objects]


_STEPS = (10, 9, 2, 1, 100, MAX_STEP, 0)
_NAMES = ("a", "Z", "b", "A", "0", "~", "é", "%2F")


@probe(
    "byte-order",
    means="the newest step of a long run is not found, so resume continues from an older one",
    fix="use a store that lists in the byte order of keys, as S3 does",
)
async def byte_order(patient: Patient) -> Verdict:
    """Whether listings come in the byte order of keys."""
    if not patient.store.ordered:
        return skipped("a directory bucket lists in no order; the library sorts by itself there")
    keys = patient.keys
    for step in _STEPS:
        await patient.store.put(keys.state(step), b"{}", ObjectAttributes(), mode="overwrite")
    for name in _NAMES:
        await patient.put(f"order/{name}")
    found = [keys.parse_state(listed.key) for listed in (await patient.store.list(keys.steps)).objects]
    if found != sorted(_STEPS):
        return failed(f"steps are listed as {found}")
    names = await _listed(patient, "order/")
    if names != sorted(_NAMES, key=str.encode):
        return failed(f"keys are listed as {names}")
    return passed(f"{len(_STEPS)} steps and {len(_NAMES)} names ascending by byte")


@probe(
    "start-after",
    means="the newest step of a run longer than 1,000 steps is not found, or listings have gaps",
    fix="upgrade the store, or remove the proxy in front of it, until ListObjectsV2 is served as S3 serves it",
)
async def start_after(patient: Patient) -> Verdict:
    """Whether a listing starts behind a key, comes in pages without gaps, and groups by delimiter."""
    names = [f"{number:02d}" for number in range(7)]
    for name in names:
        await patient.put(f"pages/{name}")
    head = patient.key("pages/")
    if patient.store.ordered:
        after = await patient.store.list(head, start_after=head + "02", limit=1)
        if [listed.key for listed in after.objects] != [head + "03"]:
            return failed("StartAfter is ignored: the newest step of a long run is not found")
    seen: list[str] = []
    token: str | None = None
    for _ in range(len(names)):
        page = await patient.store.list(head, limit=2, token=token)
        seen += [listed.key[len(head) :] for listed in page.objects]
        token = page.next_token
        if token is None:
            break
    if sorted(seen) != names:
        return failed(f"pages of 2 show {seen}")
    return passed("starts behind a key; pages of 2 without gap or repeat")


@probe(
    "delimiter",
    means="runs are not found: runs, prune --all and usage see nothing",
    fix="upgrade the store",
)
async def delimiter(patient: Patient) -> Verdict:
    """Whether a listing by delimiter shows the runs."""
    await patient.put("grouped/one")
    head = runs_prefix(patient.keys.prefix)
    page = await patient.store.list(patient.keys.run[: -len("/")], delimiter="/")
    runs = [parse_run_prefix(patient.keys.prefix, group) for group in page.prefixes]
    return passed("one group per run") if runs == [patient.keys.run_id] else failed(f"groups under {head} are missing")


@probe(
    "metadata",
    means="steps cannot be read back: digest, write id and the active tasks are in its metadata",
    fix="remove the proxy or gateway that drops x-amz-meta-… headers or unpacks bodies",
)
async def metadata(patient: Patient) -> Verdict:
    """Whether metadata, content headers and a compressed body come back as they were written."""
    body = gzip.compress(b'{"compressed": true}', mtime=0)
    least = ObjectMetadata("a-B_9", "0f" * 32, "a-B_9", "f0" * 32, active_inline="/", origin="x/18446744")
    room = MAX_METADATA_BYTES - least.size
    entries = replace(least, active_inline=("/+9=" * MAX_METADATA_BYTES)[: room + 1]).build()
    written = ObjectAttributes(content_encoding="gzip", metadata=entries)
    await patient.store.put(patient.key("metadata"), body, written, mode="overwrite")
    head = await patient.store.head(patient.key("metadata"))
    stored = await patient.get("metadata")
    if head is None or stored is None:
        return failed("an object just written is not there")
    for found in (head.attributes, stored.head.attributes):
        if dict(found.metadata) != entries:
            lost = sorted(name for name in entries if found.metadata.get(name) != entries[name])
            return failed(
                f"metadata does not come back as it was written: {', '.join(lost) or 'more than was written'}"
            )
        if found.content_encoding != "gzip" or found.content_type != "application/json":
            return failed(f"content headers come back as {found.content_type}, {found.content_encoding}")
    if stored.body != body:
        return failed("a compressed body comes back changed; is a proxy unpacking it?")
    return passed(f"{MAX_METADATA_BYTES:,} bytes of metadata, Content-Type, Content-Encoding, compressed body kept")


@probe(
    "clock",
    means="prune --older-than and --grace measure ages wrongly by that much",
    fix="set this machine's clock (NTP)",
    when_denied=Status.SKIP,
)
async def clock(patient: Patient) -> Verdict:
    """Whether the store's clock and ours agree: ages of steps are measured between the two."""
    await patient.put("clock")
    head = await patient.store.head(patient.key("clock"))
    if head is None:
        return failed("an object just written is not there")
    apart = abs((datetime.now(UTC) - head.last_modified).total_seconds())
    return passed("clocks agree within a minute") if apart < 60 else warned(f"the clocks are {apart:.0f} s apart")


@probe(
    "latency",
    means="supersteps wait for the store",
    fix="come nearer to the bucket",
    when_denied=Status.SKIP,
)
async def latency(patient: Patient) -> Verdict:
    """How long 20 requests take, one after another: 10 writes of 2 KB, 10 reads."""
    body = b" " * 2048
    took: list[float] = []
    for number in range(LATENCY_REQUESTS):
        begin = time.perf_counter()
        if number % 2:
            await patient.get("latency")
        else:
            await patient.put("latency", body)
        took.append((time.perf_counter() - begin) * 1000)
    cuts = quantiles(took, n=20, method="inclusive")
    found = f"p50 {cuts[9]:.0f} ms, p95 {cuts[18]:.0f} ms, max {max(took):.0f} ms of {LATENCY_REQUESTS} requests"
    limit = patient.settings.read_timeout_s * 1000 / 2
    return passed(found) if cuts[18] < limit else warned(found, "raise read_timeout_s, or come nearer to the bucket")


CONSISTENCY = (
    list_after_write,
    byte_order,
    start_after,
    delimiter,
    metadata,
    clock,
    latency,
)
