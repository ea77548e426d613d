"""The examination: a good store passes, each fault is found by its probe, and nothing is left behind."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import aclosing
from dataclasses import replace
from typing import Any
from uuid import UUID, uuid4

import pytest

from s3_checkpoint import (
    AccessDeniedError,
    ActiveSnapshot,
    ConfigurationError,
    MemoryStore,
    S3Checkpointer,
    S3Settings,
    StoreUnavailableError,
)
from s3_checkpoint.cli.exit_codes import ExitCode
from s3_checkpoint.doctor import Finding, Status, examine
from s3_checkpoint.doctor.bucket import BUCKET
from s3_checkpoint.doctor.examination import PROBES, run_probe
from s3_checkpoint.doctor.findings import Patient
from s3_checkpoint.keys import RunKeys
from s3_checkpoint.object_store import (
    ListedObject,
    ObjectAttributes,
    ObjectHead,
    ObjectStore,
    Page,
    PutMode,
    Refused,
    StoredObject,
    Written,
)
from s3_checkpoint.s3_client import client_for
from s3_checkpoint.s3_store import S3ObjectStore
from tests.faults import Wrapper
from tests.operator.conftest import Cli

SETTINGS = S3Settings(bucket="memory")


class IgnoresConditions(Wrapper):
    """As stores do that do not know If-None-Match: every write is taken."""

    async def put(self, key: str, body: bytes, attributes: ObjectAttributes, *, mode: PutMode) -> Written | Refused:
        return await self.store.put(key, body, attributes, mode="overwrite")


class RefusesConditions(Wrapper):
    """As stores do that answer 501."""

    async def put(self, key: str, body: bytes, attributes: ObjectAttributes, *, mode: PutMode) -> Written | Refused:
        if mode != "overwrite":
            raise ConfigurationError("the store does not implement this", "memory", "NotImplemented")
        return await self.store.put(key, body, attributes, mode=mode)


class ReordersListings(Wrapper):
    """Lists as a dictionary sorts: capitals beside small letters."""

    async def list(self, prefix: str, **options: Any) -> Page:
        page = await self.store.list(prefix, **options)
        return replace(page, objects=sorted(page.objects, key=lambda listed: listed.key.casefold()))


class IgnoresStartAfter(Wrapper):
    """Lists from the beginning, whatever it is asked."""

    async def list(self, prefix: str, **options: Any) -> Page:
        return await self.store.list(prefix, **options | {"start_after": ""})


class RepeatsPages(Wrapper):
    """Gives the same page whatever the token."""

    async def list(self, prefix: str, **options: Any) -> Page:
        return await self.store.list(prefix, **options | {"token": None})


class ForgetsDelimiter(Wrapper):
    """Lists everything, in no groups."""

    async def list(self, prefix: str, **options: Any) -> Page:
        return await self.store.list(prefix, **options | {"delimiter": ""})


class ListsLate(Wrapper):
    """Shows an object only once another one has been written."""

    def __init__(self, inner: ObjectStore) -> None:
        super().__init__(inner)
        self._last = ""

    async def put(self, key: str, body: bytes, attributes: ObjectAttributes, *, mode: PutMode) -> Written | Refused:
        self._last = key
        return await self.store.put(key, body, attributes, mode=mode)

    async def list(self, prefix: str, **options: Any) -> Page:
        page = await self.store.list(prefix, **options)
        seen: list[ListedObject] = [listed for listed in page.objects if listed.key != self._last]
        self._last = ""
        return replace(page, objects=seen)


class DropsMetadata(Wrapper):
    """As a gateway does that passes only the headers it knows."""

    async def put(self, key: str, body: bytes, attributes: ObjectAttributes, *, mode: PutMode) -> Written | Refused:
        return await self.store.put(key, body, replace(attributes, metadata={}), mode=mode)


class DropsEncoding(Wrapper):
    """As a proxy does that means to unpack what passes."""

    async def put(self, key: str, body: bytes, attributes: ObjectAttributes, *, mode: PutMode) -> Written | Refused:
        return await self.store.put(key, body, replace(attributes, content_encoding=None), mode=mode)


class DeniesAbsence(Wrapper):
    """As S3 does without s3:ListBucket on the key."""

    async def get(self, key: str, *, max_bytes: int) -> StoredObject | None:
        found = await self.store.get(key, max_bytes=max_bytes)
        if found is None:
            raise AccessDeniedError("memory", key, "s3:GetObject")
        return found


class DeniesDeletes(Wrapper):
    """As S3 does for a worker's credentials."""

    async def delete(self, keys: Any) -> None:
        raise AccessDeniedError("memory", keys[0], "s3:DeleteObject")


class DeniesPuts(Wrapper):
    """As S3 does for a reader's credentials."""

    async def put(self, key: str, body: bytes, attributes: ObjectAttributes, *, mode: PutMode) -> Written | Refused:
        raise AccessDeniedError("memory", key, "s3:PutObject")


class DeniesLists(Wrapper):
    async def list(self, prefix: str, **options: Any) -> Page:
        raise AccessDeniedError("memory", prefix, "s3:ListBucket")


class SaysNothing(Wrapper):
    async def list(self, prefix: str, **options: Any) -> Page:
        raise StoreUnavailableError("ListObjectsV2", "memory", prefix, outcome_unknown=False, detail="timed out")


class WrongClock(Wrapper):
    async def head(self, key: str) -> ObjectHead | None:
        found = await self.store.head(key)
        return found and replace(found, last_modified=found.last_modified.replace(year=2020))


class CopiesNothingBeside(Wrapper):
    async def copy(self, source: str, target: str, *, attributes: ObjectAttributes | None = None) -> bool:
        return await self.store.copy(source, target)


async def findings(store: ObjectStore, settings: S3Settings = SETTINGS) -> dict[str, Finding]:
    return {finding.probe: finding async for finding in examine(store, settings, UUID(int=9))}


async def test_a_true_store_passes_and_nothing_is_left() -> None:
    """Every probe of the six verbs, in the order given; those that need a client are skipped."""
    memory = MemoryStore()

    found = await findings(memory)

    assert list(found) == [probe.name for probe in PROBES]
    without_client = {"credentials", "transport", "checksums", "versioning", "lifecycle", "public-access"}
    assert {name for name, one in found.items() if one.status == Status.SKIP} == without_client
    assert {one.status for one in found.values()} == {Status.PASS, Status.SKIP}
    assert (await memory.list("")).objects == []


@pytest.mark.parametrize(
    ("fault", "probe", "status"),
    [
        (IgnoresConditions, "create-exclusive", Status.FAIL),
        (IgnoresConditions, "if-match", Status.WARN),
        (RefusesConditions, "create-exclusive", Status.FAIL),
        (ReordersListings, "byte-order", Status.FAIL),
        (IgnoresStartAfter, "start-after", Status.FAIL),
        (RepeatsPages, "start-after", Status.FAIL),
        (ForgetsDelimiter, "delimiter", Status.FAIL),
        (ListsLate, "list-after-write", Status.FAIL),
        (DropsMetadata, "metadata", Status.FAIL),
        (DropsEncoding, "metadata", Status.FAIL),
        (DeniesAbsence, "absence", Status.FAIL),
        (DeniesDeletes, "delete", Status.WARN),
        (DeniesPuts, "put", Status.FAIL),
        (DeniesLists, "list", Status.FAIL),
        (SaysNothing, "list", Status.FAIL),
        (WrongClock, "clock", Status.WARN),
        (CopiesNothingBeside, "copy", Status.FAIL),
    ],
)
async def test_each_fault_is_found_by_its_probe(
    fault: Callable[[ObjectStore], ObjectStore], probe: str, status: Status
) -> None:
    """With what it means and what to do; the other probes are not misled."""
    found = await findings(fault(MemoryStore()))

    assert found[probe].status == status
    assert found[probe].means
    assert found[probe].fix
    led_astray = {name for name, one in found.items() if one.status == Status.FAIL} - {probe}
    assert led_astray <= {"create-exclusive"} | ({"start-after"} if fault is ListsLate else set())


async def test_a_store_without_conditions_is_unsafe_for_commit() -> None:
    """The report says so, and how to use it knowingly."""
    found = await findings(IgnoresConditions(MemoryStore()))

    assert "UNSAFE FOR COMMIT" in found["create-exclusive"].fix
    assert "conditional_writes=False" in found["create-exclusive"].fix
    assert "16 of 16 writers" in found["create-exclusive"].found


async def test_used_knowingly_it_saves_and_refuses_to_commit() -> None:
    """With `conditional_writes=False` the trait's calls work, and `commit` raises before any request."""
    store = IgnoresConditions(MemoryStore())
    settings = S3Settings(bucket="memory", conditional_writes=False)
    checkpointer = S3Checkpointer(dict[str, int], store, conditional_writes=settings.conditional_writes)
    run, task = uuid4(), [ActiveSnapshot(node_name="next")]

    found = await findings(store, settings)
    await checkpointer.save(run, 1, {"n": 1})
    await checkpointer.save_active(run, 1, task)
    with pytest.raises(ConfigurationError, match="conditional_writes=False"):
        await checkpointer.commit(run, 2, {"n": 2}, [])

    assert found["create-exclusive"].status == Status.WARN
    assert not [one for one in found.values() if one.status == Status.FAIL]
    assert await checkpointer.load(run) == {"n": 1}
    assert await checkpointer.load_active(run, 1) == task
    assert await checkpointer.list(run) == [1]


async def test_without_leave_to_write_the_rest_is_not_guessed() -> None:
    """A reader's credentials: what could not be probed says so."""
    found = await findings(DeniesPuts(MemoryStore()))

    assert found["create-exclusive"].status == Status.SKIP
    assert found["create-exclusive"].found == "not probed: put failed"


async def test_what_cannot_be_removed_is_said() -> None:
    """With where it is."""
    found = await findings(DeniesDeletes(MemoryStore()))

    assert found["clean-up"].status == Status.WARN
    assert f"runs/{UUID(int=9)}/" in found["clean-up"].fix


async def test_an_examination_that_is_broken_off_cleans_up() -> None:
    """Ctrl-C in the middle leaves nothing."""
    memory = MemoryStore()

    async with aclosing(examine(memory, SETTINGS, UUID(int=9))) as found:
        async for finding in found:
            if finding.probe == "create-exclusive":
                assert (await memory.list("")).objects
                break

    assert (await memory.list("")).objects == []


async def test_a_directory_bucket_need_not_list_in_order() -> None:
    """The library sorts by itself there."""
    found = await findings(MemoryStore(ordered=False))

    assert found["byte-order"].status == Status.SKIP
    assert not [one for one in found.values() if one.status == Status.FAIL]


def test_doctor_on_a_sound_bucket_leaves_with_0(three_runs: Cli) -> None:
    """The moto server keeps every promise; what it does not check is a warning. Other runs are not touched."""
    before = three_runs("runs").stdout

    rows = {row["probe"]: row for row in three_runs.json("doctor")}

    assert {row["status"] for row in rows.values()} == {"pass", "warn"}
    assert {name for name, row in rows.items() if row["status"] == "warn"} == {
        "transport",
        "checksums",
        "public-access",
    }
    assert "…ting" in rows["credentials"]["found"]
    assert "20 requests" in rows["latency"]["found"]
    assert three_runs("runs").stdout == before


def test_doctor_on_aws_names_the_caller(three_runs: Cli) -> None:
    """Where no endpoint is set, the credentials' ARN comes from STS (here, moto's)."""
    url = three_runs.env["S3_CHECKPOINT_ENDPOINT_URL"]

    result = three_runs("doctor", S3_CHECKPOINT_ENDPOINT_URL="", AWS_ENDPOINT_URL=url)

    assert result.exit_code == 0
    assert "arn:aws:sts::123456789012:user/moto" in result.stdout


def test_doctor_on_a_bucket_that_is_not_there_leaves_with_1(cli: Cli) -> None:
    """And names it."""
    result = cli("doctor", "--bucket", "no-such-bucket-here")

    assert result.exit_code == ExitCode.NO
    assert "UNSAFE FOR COMMIT" in result.stderr
    assert "the bucket does not exist" in result.stdout


async def test_the_bucket_probes_see_how_it_is_set_up(settings: S3Settings) -> None:
    """Versioning without expiry, a rule that deletes steps, one that freezes them, and public access."""
    async with client_for(settings) as client:
        patient = Patient(S3ObjectStore(client, settings), RunKeys("", UUID(int=9)), settings, client)

        async def with_rule(**action: Any) -> dict[str, Status]:
            rule: Any = {"ID": "old", "Status": "Enabled", "Filter": {"Prefix": "runs/"}, **action}
            await client.put_bucket_lifecycle_configuration(
                Bucket=settings.bucket, LifecycleConfiguration={"Rules": [rule]}
            )
            return {probe.name: (await run_probe(probe, patient)).status for probe in BUCKET}

        await client.put_bucket_versioning(Bucket=settings.bucket, VersioningConfiguration={"Status": "Enabled"})
        expiring = await with_rule(Expiration={"Days": 30})
        frozen = await with_rule(Transitions=[{"Days": 30, "StorageClass": "GLACIER"}])
        await client.put_public_access_block(
            Bucket=settings.bucket,
            PublicAccessBlockConfiguration={
                "BlockPublicAcls": True,
                "IgnorePublicAcls": True,
                "BlockPublicPolicy": True,
                "RestrictPublicBuckets": True,
            },
        )
        tidy = await with_rule(NoncurrentVersionExpiration={"NoncurrentDays": 7})

    assert (expiring["versioning"], expiring["lifecycle"], expiring["public-access"]) == ("warn", "warn", "warn")
    assert frozen["lifecycle"] == Status.FAIL
    assert (tidy["versioning"], tidy["lifecycle"], tidy["public-access"]) == ("pass", "pass", "pass")


async def test_a_fix_names_the_bucket_it_is_for(settings: S3Settings) -> None:
    """It can be pasted as it stands."""
    async with client_for(settings) as client:
        patient = Patient(S3ObjectStore(client, settings), RunKeys("", UUID(int=9)), settings, client)
        [public_access] = [probe for probe in BUCKET if probe.name == "public-access"]

        finding = await run_probe(public_access, patient)

    assert f"--bucket {settings.bucket} " in finding.fix
