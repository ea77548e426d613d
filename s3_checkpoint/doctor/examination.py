"""The examination: every probe in order, under a run id of its own, which is removed at the end.

A probe that fails, or whose answers are lost or garbled, is made again with other keys: what fails twice is a failure,
what fails once and then passes is inconclusive. Inconclusive is neither safe nor unsafe.
"""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, aclosing
from dataclasses import replace
from typing import Any
from uuid import UUID, uuid4

from s3_checkpoint._format.keys import RunKeys
from s3_checkpoint._transports import open_store
from s3_checkpoint.doctor.access import ACCESS
from s3_checkpoint.doctor.bucket import BUCKET, IDENTITY
from s3_checkpoint.doctor.consistency import CONSISTENCY
from s3_checkpoint.doctor.exclusivity import EXCLUSIVITY
from s3_checkpoint.doctor.findings import Finding, Patient, Probe, Status, Verdict, unclear
from s3_checkpoint.errors import (
    AccessDeniedError,
    CheckpointError,
    ConfigurationError,
    StoreError,
    StoreUnavailableError,
)
from s3_checkpoint.object_store import PAGE_KEYS, ObjectStore, pages
from s3_checkpoint.settings import S3Settings

PROBES = (*IDENTITY, *ACCESS, *EXCLUSIVITY, *CONSISTENCY, *BUCKET)
GATES = ("credentials", "list", "put")
"""If one of these does not pass, what follows and writes cannot be seen."""
LOOKS = 3
"""How often a probe is made at most."""
_PAGES = 20
"""Full pages of what an examination wrote, at most: it writes some 60 objects, so more are no honest listing."""
_TRIES = 3
_RUN_AGAIN = "run it again; check endpoint_url, the network and what is between here and the store"
_S3_CODE = re.compile(r"[A-Z][A-Za-z0-9.]*:")


async def examine(
    settings: S3Settings, *, store: ObjectStore | None = None, client: Any | None = None, run_id: UUID | None = None
) -> AsyncGenerator[Finding, None]:
    """What each probe finds, as it finds it.

    Requests: about 200; twice as many of a probe that fails. Some 50 small objects are written under a run id of its
    own, and removed at the end, also when the iteration is closed early or fails.

    Args:
        settings: Where the bucket is; a client is opened and closed as `connect` does.
        store: Examine this store instead, for instance one with a fault around it; nothing is opened.
        client: The open S3 client of `store`, for what its six verbs do not show.
        run_id: A new run id, under which nothing is stored; default: a random one.

    Yields:
        One finding per probe, in the order of `PROBES`; and `clean-up` if what was written could not be removed.

    Raises:
        ConfigurationError: No client can be made of the settings; nothing was sent. Whatever happens after that is a
            finding.
    """
    async with AsyncExitStack() as stack:
        if store is None:
            from s3_checkpoint._s3.client import client_for

            # With the other transport too: the bucket's configuration is asked for through the SDK.
            client = await stack.enter_async_context(client_for(settings))
            with_sdk = settings.transport == "aiobotocore"
            store = await stack.enter_async_context(open_store(settings, client=client if with_sdk else None))
        patient = Patient(store, RunKeys(settings.prefix, run_id or uuid4()), settings, client)
        closed = ""
        wrote = False
        try:
            for probe in PROBES:
                if closed and probe not in BUCKET:
                    yield Finding(probe.name, Status.SKIP, f"not probed: {closed} did not pass", probe.means, "")
                    continue
                wrote = wrote or probe.name == "put"
                finding = await run_probe(probe, patient)
                if probe.name in GATES and finding.status in (Status.FAIL, Status.INCONCLUSIVE):
                    closed = probe.name
                yield finding
        finally:
            left = await _clean_up(patient) if wrote else None
        if left is not None:
            yield left


async def run_probe(probe: Probe, patient: Patient) -> Finding:
    """Makes one probe, again where it does not pass; whatever it meets becomes a finding."""
    verdict = await _settled(probe, patient)
    fine = verdict.status in (Status.PASS, Status.SKIP)
    fix = "" if fine else verdict.fix or (_RUN_AGAIN if verdict.status == Status.INCONCLUSIVE else probe.fix)
    fix = fix.replace("{bucket}", patient.store.bucket)
    return Finding(probe.name, verdict.status, verdict.found, probe.means, fix, verdict.unsafe, verdict.absent)


async def _settled(probe: Probe, patient: Patient) -> Verdict:
    failures: list[Verdict] = []
    unanswered: list[Verdict] = []
    for look in range(LOOKS):
        verdict = await _look(probe, replace(patient, look=look))
        if verdict.status == Status.FAIL:
            failures.append(verdict)
            if verdict.sure or len(failures) == 2:
                return verdict
        elif verdict.status == Status.INCONCLUSIVE:
            unanswered.append(verdict)
            if len(unanswered) == 2:
                break
        elif not failures:
            return verdict
    if failures:
        return unclear(f"{failures[0].found}; but not so when it was looked at again")
    return unanswered[-1]


async def _look(probe: Probe, patient: Patient) -> Verdict:
    """One verdict, for whatever the probe gives or raises."""
    try:
        return await probe.check(patient)
    except AccessDeniedError as error:
        return Verdict(probe.when_denied, f"denied: {error.action}", probe.fix)
    except ConfigurationError as error:
        found = f"{error.problem} {error.detail}".strip()
        return Verdict(Status.FAIL, found, error.problem, absent=error.detail.startswith("NoSuchBucket"))
    except StoreUnavailableError as error:
        return unclear(f"no answer: {error.detail}")
    except StoreError as error:
        if _S3_CODE.match(error.detail):
            return Verdict(Status.FAIL, error.detail)
        return unclear(f"no answer that makes sense: {error.detail}")
    except CheckpointError as error:
        return unclear(str(error))
    except Exception as error:  # noqa: BLE001 - an answer that trips the SDK or a probe is an answer without sense
        return unclear(f"an answer that cannot be understood ({type(error).__name__}: {error})"[:300])


async def _clean_up(patient: Patient) -> Finding | None:
    """Removes what was written; a finding if it is still there, or if that cannot be seen."""
    cause = ""
    for _ in range(_TRIES):
        try:
            if keys := await _written(patient):
                await patient.store.delete(keys)
            left = len(await _written(patient))
            if not left:
                return None
            cause = f"{left} objects are there after DeleteObjects was answered with success"
        except CheckpointError as error:
            cause = f"{error.code}: {getattr(error, 'detail', '') or error}"
            if isinstance(error, (AccessDeniedError, ConfigurationError)):
                break
        except Exception as error:  # noqa: BLE001 - as in `_look`
            cause = f"{type(error).__name__}: {error}"
    where = f"s3://{patient.store.bucket}/{patient.keys.run}"
    return Finding(
        "clean-up",
        Status.WARN,
        f"what this examination wrote is still there, or may be ({cause})"[:300],
        "a run that is none: runs lists it, usage counts it",
        f"remove it with credentials that may: aws s3 rm --recursive {where}",
    )


async def _written(patient: Patient) -> list[str]:
    keys: list[str] = []
    async with aclosing(pages(patient.store, patient.keys.run)) as listing:
        async for page in listing:
            keys += page.keys
            if len(keys) >= _PAGES * PAGE_KEYS:
                break
    return keys
