"""The examination: every probe in order, under a run id of its own, which is removed at the end."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any
from uuid import UUID

from s3_checkpoint.doctor.access import ACCESS
from s3_checkpoint.doctor.bucket import BUCKET, IDENTITY
from s3_checkpoint.doctor.consistency import CONSISTENCY
from s3_checkpoint.doctor.findings import Finding, Patient, Probe, Status, Verdict
from s3_checkpoint.errors import (
    AccessDeniedError,
    CheckpointError,
    ConfigurationError,
    StoreUnavailableError,
)
from s3_checkpoint.keys import RunKeys
from s3_checkpoint.object_store import ObjectStore
from s3_checkpoint.retention import delete_in_order, objects_of_run
from s3_checkpoint.settings import S3Settings

PROBES = (*IDENTITY, *ACCESS, *CONSISTENCY, *BUCKET)
GATES = ("credentials", "list", "put")
"""If one of these does not pass, what follows and writes cannot be seen."""


async def examine(
    store: ObjectStore, settings: S3Settings, run_id: UUID, *, client: Any | None = None
) -> AsyncGenerator[Finding, None]:
    """What each probe finds, as it finds it. About 200 requests; some 40 small objects under `run_id`, removed after.

    `run_id` must be new: everything under it is removed at the end, also when the iteration is closed early or fails.
    `client` is the open S3 client of `store`, for what its six verbs do not show. Raises nothing of its own: a probe
    that meets an error is a finding. If what it wrote cannot be removed, that is a finding too.
    """
    patient = Patient(store, RunKeys(settings.prefix, run_id), settings, client)
    closed = ""
    wrote = False
    try:
        for probe in PROBES:
            if closed and probe not in BUCKET:
                yield Finding(probe.name, Status.SKIP, f"not probed: {closed} failed", probe.means, "")
                continue
            finding = await run_probe(probe, patient)
            wrote = wrote or probe.name == "put"
            if probe.name in GATES and finding.status == Status.FAIL:
                closed = probe.name
            yield finding
    finally:
        left = await _clean_up(patient) if wrote else None
    if left is not None:
        yield left


async def run_probe(probe: Probe, patient: Patient) -> Finding:
    """Runs one probe; whatever it meets becomes a finding."""
    try:
        verdict = await probe.check(patient)
    except AccessDeniedError as error:
        verdict = Verdict(probe.when_denied, f"denied: {error.action}", probe.fix)
    except ConfigurationError as error:
        verdict = Verdict(Status.FAIL, f"{error.problem} {error.detail}".strip(), error.problem)
    except StoreUnavailableError as error:
        verdict = Verdict(Status.FAIL, f"no answer: {error.detail}", "run it again; check endpoint_url and network")
    except CheckpointError as error:
        verdict = Verdict(Status.FAIL, str(error))
    fix = "" if verdict.status in (Status.PASS, Status.SKIP) else verdict.fix or probe.fix
    fix = fix.replace("{bucket}", patient.store.bucket)
    return Finding(probe.name, verdict.status, verdict.found, probe.means, fix)


async def _clean_up(patient: Patient) -> Finding | None:
    try:
        objects = await objects_of_run(patient.store, patient.keys)
        await delete_in_order(patient.store, [listed.key for listed in objects])
    except CheckpointError as error:
        where = f"s3://{patient.store.bucket}/{patient.keys.run}"
        return Finding(
            "clean-up",
            Status.WARN,
            f"what this examination wrote is still there ({error.code})",
            "a run that is none: runs lists it, usage counts it",
            f"remove it with credentials that may: aws s3 rm --recursive {where}",
        )
    return None
