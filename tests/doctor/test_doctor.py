"""The examination: a good store passes, each fault is found by its probe, and nothing is left behind."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import replace
from typing import Any
from uuid import UUID, uuid4

import pytest
from botocore.exceptions import HTTPClientError

from s3_checkpoint import (
    AccessDeniedError,
    ActiveSnapshot,
    CheckpointError,
    ConfigurationError,
    MemoryStore,
    S3Checkpointer,
    S3Settings,
    StoreError,
    StoreUnavailableError,
)
from s3_checkpoint._format.keys import RunKeys
from s3_checkpoint._s3.client import client_for
from s3_checkpoint._s3.store import S3ObjectStore
from s3_checkpoint.cli.exit_codes import ExitCode
from s3_checkpoint.doctor import Finding, Status, examine
from s3_checkpoint.doctor.bucket import BUCKET
from s3_checkpoint.doctor.examination import PROBES, run_probe
from s3_checkpoint.doctor.findings import Patient
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
from s3_checkpoint.testing import (
    Aim,
    AnswerLost,
    Conflict409,
    CorruptBody,
    StoreWrapper,
    Unanswered,
)
from tests.command_line import Cli

SETTINGS = S3Settings(bucket="memory")


class IgnoresConditions(StoreWrapper):
    """As stores do that do not know If-None-Match: every write is taken."""

    async def put(self, key: str, body: bytes, attributes: ObjectAttributes, *, mode: PutMode) -> Written | Refused:
        return await self.store.put(key, body, attributes, mode="overwrite")


class RefusesConditions(StoreWrapper):
    """As stores do that answer 501."""

    async def put(self, key: str, body: bytes, attributes: ObjectAttributes, *, mode: PutMode) -> Written | Refused:
        if mode != "overwrite":
            raise ConfigurationError("the store does not implement this", "memory", "NotImplemented")
        return await self.store.put(key, body, attributes, mode=mode)


class ReordersListings(StoreWrapper):
    """Lists as a dictionary sorts: capitals among small letters."""

    async def list(self, prefix: str, **options: Any) -> Page:
        page = await self.store.list(prefix, **options)
        entries = sorted(page.objects, key=lambda listed: listed.key.casefold())
        return Page.of(entries, page.prefixes, page.next_token)


class IgnoresStartAfter(StoreWrapper):
    """Lists from the beginning, whatever it is asked."""

    async def list(self, prefix: str, **options: Any) -> Page:
        return await self.store.list(prefix, **options | {"start_after": ""})


class RepeatsPages(StoreWrapper):
    """Gives the same page whatever the token."""

    async def list(self, prefix: str, **options: Any) -> Page:
        return await self.store.list(prefix, **options | {"token": None})


class ForgetsDelimiter(StoreWrapper):
    """Lists everything, in no groups."""

    async def list(self, prefix: str, **options: Any) -> Page:
        return await self.store.list(prefix, **options | {"delimiter": ""})


class ListsLate(StoreWrapper):
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
        return Page.of(seen, page.prefixes, page.next_token)


class DropsMetadata(StoreWrapper):
    """As a gateway does that passes only the headers it knows."""

    async def put(self, key: str, body: bytes, attributes: ObjectAttributes, *, mode: PutMode) -> Written | Refused:
        return await self.store.put(key, body, replace(attributes, metadata={}), mode=mode)


class DropsEncoding(StoreWrapper):
    """As a proxy does that means to unpack what passes."""

    async def put(self, key: str, body: bytes, attributes: ObjectAttributes, *, mode: PutMode) -> Written | Refused:
        return await self.store.put(key, body, replace(attributes, content_encoding=None), mode=mode)


class DeniesAbsence(StoreWrapper):
    """As S3 does without s3:ListBucket on the key."""

    async def get(self, key: str, *, max_bytes: int) -> StoredObject | None:
        found = await self.store.get(key, max_bytes=max_bytes)
        if found is None:
            raise AccessDeniedError("memory", key, "s3:GetObject")
        return found


class DeniesDeletes(StoreWrapper):
    """As S3 does for a worker's credentials."""

    async def delete(self, keys: Any) -> None:
        raise AccessDeniedError("memory", keys[0], "s3:DeleteObject")


class DeniesPuts(StoreWrapper):
    """As S3 does for a reader's credentials."""

    async def put(self, key: str, body: bytes, attributes: ObjectAttributes, *, mode: PutMode) -> Written | Refused:
        raise AccessDeniedError("memory", key, "s3:PutObject")


class DeniesLists(StoreWrapper):
    async def list(self, prefix: str, **options: Any) -> Page:
        raise AccessDeniedError("memory", prefix, "s3:ListBucket")


class SaysNothing(StoreWrapper):
    async def list(self, prefix: str, **options: Any) -> Page:
        raise StoreUnavailableError("ListObjectsV2", "memory", prefix, outcome_unknown=False, detail="timed out")


class WrongClock(StoreWrapper):
    async def head(self, key: str) -> ObjectHead | None:
        found = await self.store.head(key)
        return found and replace(found, last_modified=found.last_modified.replace(year=2020))


class CopiesNothingBeside(StoreWrapper):
    async def copy(self, source: str, target: str, *, attributes: ObjectAttributes | None = None) -> bool:
        return await self.store.copy(source, target)


async def findings(store: ObjectStore, settings: S3Settings = SETTINGS) -> dict[str, Finding]:
    return {finding.probe: finding async for finding in examine(settings, store=store, run_id=UUID(int=9))}


async def test_a_true_store_passes_and_nothing_is_left() -> None:
    """Every probe of the six verbs, in the order given; those that need a client are skipped."""
    memory = MemoryStore()

    found = await findings(memory)

    assert list(found) == [probe.name for probe in PROBES]
    without_client = {
        "credentials",
        "transport",
        "delete-etag",
        "checksums",
        "versioning",
        "lifecycle",
        "encryption",
        "public-access",
    }
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
        (SaysNothing, "list", Status.INCONCLUSIVE),
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


async def test_the_rest_is_not_guessed_where_writing_is_denied() -> None:
    """A reader's credentials: what could not be probed says so."""
    found = await findings(DeniesPuts(MemoryStore()))

    assert found["create-exclusive"].status == Status.SKIP
    assert found["create-exclusive"].found == "not probed: put did not pass"


async def test_objects_that_cannot_be_removed_are_named() -> None:
    """With where it is."""
    found = await findings(DeniesDeletes(MemoryStore()))

    assert found["clean-up"].status == Status.WARN
    assert f"runs/{UUID(int=9)}/" in found["clean-up"].fix


async def test_an_examination_that_is_broken_off_cleans_up() -> None:
    """Ctrl-C in the middle leaves nothing."""
    memory = MemoryStore()

    async with aclosing(examine(SETTINGS, store=memory, run_id=UUID(int=9))) as found:
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


async def test_doctor_examines_what_the_transport_of_the_settings_does(settings_by_transport: S3Settings) -> None:
    """And says which it was; the bucket's configuration comes through the SDK with both."""
    findings = {finding.probe: finding async for finding in examine(settings_by_transport)}

    assert findings["transport"].found.endswith(f"by {settings_by_transport.transport}")
    assert not [f for f in findings.values() if f.status in (Status.FAIL, Status.INCONCLUSIVE)]
    assert findings["create-exclusive"].status == Status.PASS
    assert "clean-up" not in findings


def test_doctor_on_aws_names_the_caller(three_runs: Cli) -> None:
    """Where no endpoint is set, the credentials' ARN comes from STS (here, moto's)."""
    url = three_runs.env["S3_CHECKPOINT_ENDPOINT_URL"]

    result = three_runs("doctor", S3_CHECKPOINT_ENDPOINT_URL="", AWS_ENDPOINT_URL=url)

    assert result.exit_code == 0
    assert "arn:aws:sts::123456789012:user/moto" in result.stdout


def test_doctor_on_a_bucket_that_is_not_there_leaves_with_1(cli: Cli) -> None:
    """And says that nothing could be checked, not that commits are unsafe there."""
    result = cli("doctor", "--bucket", "no-such-bucket-here")

    assert result.exit_code == ExitCode.NO
    assert "s3://no-such-bucket-here: nothing could be checked, because the bucket is not there" in result.stderr
    assert "UNSAFE" not in result.stdout + result.stderr
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
        rule: Any = {
            "ID": "r",
            "Status": "Enabled",
            "Filter": {"Prefix": "memories/users/"},
            "Expiration": {"Days": 30},
        }
        await client.put_bucket_lifecycle_configuration(
            Bucket=settings.bucket, LifecycleConfiguration={"Rules": [rule]}
        )
        [lifecycle] = [probe for probe in BUCKET if probe.name == "lifecycle"]
        forgetful = await run_probe(lifecycle, patient)

    assert (expiring["versioning"], expiring["lifecycle"], expiring["public-access"]) == ("warn", "warn", "warn")
    assert frozen["lifecycle"] == Status.FAIL
    assert (tidy["versioning"], tidy["lifecycle"], tidy["public-access"]) == ("pass", "pass", "pass")
    assert (forgetful.status, forgetful.found) == (Status.WARN, "rule 'r' deletes by age what is under memories/")


async def test_a_fix_names_the_bucket_it_is_for(settings: S3Settings) -> None:
    """It can be pasted as it is."""
    async with client_for(settings) as client:
        patient = Patient(S3ObjectStore(client, settings), RunKeys("", UUID(int=9)), settings, client)
        [public_access] = [probe for probe in BUCKET if probe.name == "public-access"]

        finding = await run_probe(public_access, patient)

    assert f"--bucket {settings.bucket} " in finding.fix


class FailsDeletes(StoreWrapper):
    """A store whose DeleteObjects fails with one of S3's codes."""

    def __init__(self, inner: ObjectStore, error: CheckpointError) -> None:
        super().__init__(inner)
        self._error = error

    async def delete(self, keys: Any) -> None:
        raise self._error


class DeletesNothing(StoreWrapper):
    """Answers a batch delete with success, and removes nothing."""

    async def delete(self, keys: Any) -> None:
        pass


class DeletesTheFirst(StoreWrapper):
    """Answers a batch delete with success, and removes one of the keys."""

    async def delete(self, keys: Any) -> None:
        await self.store.delete(keys[:1])


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (StoreError("DeleteObjects", "memory", "k", "MissingContentMD5: Missing required header"), "Content-MD5"),
        (StoreError("DeleteObjects", "memory", "k", "InvalidRequest: Missing required header: Content-MD5"), "MD5"),
        (StoreError("DeleteObjects", "memory", "k", "MethodNotAllowed: not allowed"), "does not implement"),
        (ConfigurationError("the store does not implement this", "memory", "NotImplemented: no"), "does not implement"),
    ],
)
async def test_why_objects_cannot_be_removed_is_said(error: CheckpointError, cause: str) -> None:
    """A store that wants Content-MD5, or has no DeleteObjects, is no matter of rights; what is left is told."""
    found = await findings(FailsDeletes(MemoryStore(), error))

    assert found["delete"].status == Status.FAIL
    assert cause in found["delete"].found
    assert "grant" not in found["delete"].fix
    assert found["clean-up"].status == Status.WARN
    assert f"runs/{UUID(int=9)}/" in found["clean-up"].fix


@pytest.mark.parametrize(("fault", "left"), [(DeletesNothing, "3 of 3"), (DeletesTheFirst, "2 of 3")])
async def test_a_delete_that_is_answered_and_not_made_is_found(
    fault: Callable[[ObjectStore], ObjectStore], left: str
) -> None:
    """Success is not believed unread; and what this examination wrote is told."""
    found = await findings(fault(MemoryStore()))

    assert found["delete"].status == Status.FAIL
    assert f"{left} objects are still there" in found["delete"].found
    assert found["clean-up"].status == Status.WARN
    assert "answered with success" in found["clean-up"].found


class LosesExclusivity(StoreWrapper):
    """As Ceph 20.2 with versioning: of those who create a key at the same moment, some win; alone, one is refused."""

    def __init__(self, inner: ObjectStore, every: int = 3) -> None:
        super().__init__(inner)
        self._every = every
        self._creates = 0

    async def put(self, key: str, body: bytes, attributes: ObjectAttributes, *, mode: PutMode) -> Written | Refused:
        if mode == "create" and b"late" not in body:
            self._creates += 1
            mode = "overwrite" if self._creates % self._every == 0 else mode
        return await self.store.put(key, body, attributes, mode=mode)


async def test_a_store_that_loses_exclusivity_with_versioning_is_told_so(settings: S3Settings) -> None:
    """The cause is named, and what to do: without it, the report reads as if the store knew no conditions."""
    async with client_for(settings) as client:
        store = LosesExclusivity(S3ObjectStore(client, settings))
        await client.put_bucket_versioning(Bucket=settings.bucket, VersioningConfiguration={"Status": "Enabled"})

        found = {one.probe: one async for one in examine(settings, store=store, client=client)}

        await client.put_bucket_versioning(Bucket=settings.bucket, VersioningConfiguration={"Status": "Suspended"})
        suspended = {one.probe: one async for one in examine(settings, store=store, client=client)}

    one, other = found["create-exclusive"], suspended["create-exclusive"]
    assert (one.status, one.unsafe) == (Status.FAIL, True)
    assert "versioning is on, and this store then loses exclusivity" in one.found
    assert f"put-bucket-versioning --bucket {settings.bucket} " in one.fix
    assert other.unsafe
    assert "versioning" not in other.found


async def test_more_races_are_run_where_versioning_is_on(settings: S3Settings) -> None:
    """A store that is broken only there is not broken in every race."""
    async with client_for(settings) as client:
        await client.put_bucket_versioning(Bucket=settings.bucket, VersioningConfiguration={"Status": "Enabled"})

    found = {one.probe: one async for one in examine(settings)}

    assert found["create-exclusive"].found == "12 races of 16 writers, one winner each"


async def test_the_bucket_s_own_kms_default_is_warned_of(new_settings: Callable[..., S3Settings]) -> None:
    """It encrypts bodies, and no metadata: the payloads of small tasks are there."""
    settings = new_settings()
    rule: Any = {"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "aws:kms"}}
    async with client_for(settings) as client:
        await client.put_bucket_encryption(Bucket=settings.bucket, ServerSideEncryptionConfiguration={"Rules": [rule]})
        [probe] = [probe for probe in BUCKET if probe.name == "encryption"]
        store = S3ObjectStore(client, settings)
        own_key = settings.model_copy(update={"kms_key_id": "k"})

        warned = await run_probe(probe, Patient(store, RunKeys("", UUID(int=9)), settings, client))
        fine = await run_probe(probe, Patient(store, RunKeys("", UUID(int=9)), own_key, client))
        always = own_key.model_copy(update={"inline_tasks": "always"})
        knowingly = await run_probe(probe, Patient(store, RunKeys("", UUID(int=9)), always, client))

    assert warned.status == Status.WARN
    assert "does not encrypt metadata" in warned.found
    assert "inline_tasks" in warned.fix
    assert fine.status == Status.PASS
    assert knowingly.status == Status.WARN


async def test_metadata_of_the_full_2048_bytes_is_written() -> None:
    """So a store or proxy that takes less is found before the first large commit is refused."""
    memory = MemoryStore()
    sizes: list[int] = []

    class Measures(StoreWrapper):
        async def put(self, key: str, body: bytes, attributes: ObjectAttributes, *, mode: PutMode) -> Written | Refused:
            sizes.append(sum(len(f"x-amz-meta-{name}{value}") for name, value in attributes.metadata.items()))
            return await self.store.put(key, body, attributes, mode=mode)

    found = await findings(Measures(memory))

    assert max(sizes) == 2048
    assert found["metadata"].status == Status.PASS


class Malformed:
    """A client whose answers about the bucket are not what S3 would say."""

    def __init__(self, client: Any, outcome: Any) -> None:
        self._client, self._outcome = client, outcome

    def __getattr__(self, name: str) -> Any:
        if not name.startswith(("get_bucket", "get_public", "delete_objects", "put_object")):
            return getattr(self._client, name)

        async def answer(**_: Any) -> Any:
            if isinstance(self._outcome, BaseException):
                raise self._outcome
            return self._outcome

        return answer


def without_response(response: Any) -> Exception:
    error: Exception = HTTPClientError(error=ValueError("no"))
    vars(error)["response"] = response
    return error


@pytest.mark.parametrize(
    "outcome",
    [
        without_response(None),
        without_response({}),
        without_response({"Error": None, "ResponseMetadata": None}),
        without_response({"Error": {"Code": None}, "ResponseMetadata": {"HTTPStatusCode": "x"}}),
        without_response("text"),
        ValueError("time data does not match"),
        RuntimeError(),
        None,
        "text",
        [],
        {},
        {"Status": "Enabled", "Rules": None, "PublicAccessBlockConfiguration": None},
        {"Rules": [None, {"Status": "Enabled", "Filter": [], "Expiration": 3, "Transitions": "x", "Prefix": 1}]},
        {"ServerSideEncryptionConfiguration": {"Rules": [{"ApplyServerSideEncryptionByDefault": "kms"}, 3]}},
    ],
    ids=lambda outcome: repr(outcome)[:40],
)
async def test_a_malformed_or_missing_answer_to_a_bucket_probe_is_a_finding(settings: S3Settings, outcome: Any) -> None:
    """Always: `error.response` was None, and the table was lost to a traceback."""
    async with client_for(settings) as client:
        found = [one async for one in examine(settings, store=MemoryStore(), client=Malformed(client, outcome))]

    assert [one.probe for one in found] == [probe.name for probe in PROBES]
    assert not [one for one in found if one.status == Status.FAIL]


class FailsOnce(StoreWrapper):
    """Lists late once, and never again."""

    def __init__(self, inner: ObjectStore) -> None:
        super().__init__(inner)
        self._failed = False

    async def list(self, prefix: str, **options: Any) -> Page:
        page = await self.store.list(prefix, **options)
        if "fresh" in prefix and not self._failed:
            self._failed = True
            return Page.of(page.objects[:-1], page.prefixes, page.next_token)
        return page


async def test_a_probe_that_fails_once_and_then_passes_is_inconclusive() -> None:
    """Neither safe nor unsafe: a store that is late now and then, or an answer that was garbled."""
    found = await findings(FailsOnce(MemoryStore()))

    assert found["list-after-write"].status == Status.INCONCLUSIVE
    assert "not so when it was looked at again" in found["list-after-write"].found


def test_an_inconclusive_examination_leaves_with_6(cli: Cli) -> None:
    """No store answers: neither "unsafe" nor "every promise holds" is said of it."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]

    result = cli("doctor", "--output", "json", "--endpoint-url", f"http://127.0.0.1:{port}")

    rows = {row["probe"]: row["status"] for row in json.loads(result.stdout)}
    assert result.exit_code == ExitCode.UNAVAILABLE
    assert rows["list"] == "inconclusive"
    assert rows["create-exclusive"] == "skip"
    assert "unsafe" not in result.stdout.lower() + result.stderr.lower()
    assert "every promise holds" not in result.stderr


class RefusesWithWordsOfItsOwn(StoreWrapper):
    """A store that takes a condition for a wrong argument."""

    async def put(self, key: str, body: bytes, attributes: ObjectAttributes, *, mode: PutMode) -> Written | Refused:
        if mode == "create":
            raise StoreError("PutObject", "memory", key, "InvalidArgument: If-None-Match")
        return await self.store.put(key, body, attributes, mode=mode)


async def test_a_store_that_refuses_every_condition_fails() -> None:
    """No commit can be made there; that is not the same as two that both succeed."""
    found = await findings(RefusesWithWordsOfItsOwn(MemoryStore()))

    assert found["create-exclusive"].status == Status.FAIL
    assert "every conditional create is refused: InvalidArgument" in found["create-exclusive"].found
    assert not found["create-exclusive"].unsafe


class AnswersDeletesWithNothing(StoreWrapper):
    """200 with an empty body, and nothing removed: as a gateway does that knows no POST."""

    async def delete(self, keys: Any) -> None:
        detail = "its answer is not S3's: it is empty; is a proxy, a portal or another server answering?"
        raise StoreUnavailableError("DeleteObjects", "memory", keys[0], outcome_unknown=True, detail=detail)


async def test_an_empty_answer_to_a_delete_that_removes_nothing_is_a_failure() -> None:
    """It is no lost answer: what is still there tells."""
    found = await findings(AnswersDeletesWithNothing(MemoryStore()))

    assert found["delete"].status == Status.FAIL
    assert "3 of 3 objects are still there" in found["delete"].found
    assert found["clean-up"].status == Status.WARN


@pytest.mark.parametrize(
    ("faulty", "status"),
    [
        (lambda store: AnswerLost(store, Aim("PutObject", "race-", times=10_000)), Status.PASS),
        (lambda store: AnswerLost(store, Aim("PutObject", "race-1", first=1)), Status.PASS),
        (lambda store: Unanswered(store, Aim("PutObject", "race-0", first=1), landed=True), Status.PASS),
        (lambda store: Unanswered(store, Aim("PutObject", "race-0", first=17), landed=False), Status.PASS),
        (lambda store: Unanswered(store, Aim("PutObject", "race-", times=10_000), landed=True), Status.INCONCLUSIVE),
        (lambda store: Unanswered(store, Aim("GetObject", "race-", times=10_000), landed=True), Status.INCONCLUSIVE),
        (lambda store: Conflict409(store, Aim("PutObject", "race-0", times=17)), Status.PASS),
        (lambda store: Conflict409(store, Aim("PutObject", "race-", times=10_000)), Status.INCONCLUSIVE),
        (lambda store: CorruptBody(store, lambda body: body[:-1], Aim("GetObject", "race-", times=9)), Status.PASS),
    ],
)
async def test_a_race_of_a_sound_store_is_read_back_and_run_again(
    faulty: Callable[[ObjectStore], ObjectStore], status: Status
) -> None:
    """Lost answers, repeats refused by their own success, conflicts in which nobody wins, damaged bodies."""
    [probe] = [probe for probe in PROBES if probe.name == "create-exclusive"]
    patient = Patient(faulty(MemoryStore()), RunKeys("", UUID(int=9)), SETTINGS)

    finding = await run_probe(probe, patient)

    assert finding.status == status
    assert not finding.unsafe
    assert "UNSAFE" not in finding.fix


class HonoursETags:
    """A client of a store that spares an object whose ETag is another; the real one deletes."""

    def __init__(self, client: Any, *, honours: bool) -> None:
        self._client, self._honours = client, honours

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    async def delete_objects(self, **arguments: Any) -> Any:
        self.asked = arguments["Delete"]["Objects"]
        if self._honours:
            return {"Errors": [{"Key": self.asked[0]["Key"], "Code": "PreconditionFailed"}]}
        for item in self.asked:
            await self._client.delete_object(Bucket=arguments["Bucket"], Key=item["Key"])
        return {}


@pytest.mark.parametrize(("honours", "said"), [(True, "is honoured"), (False, "is ignored")])
async def test_whether_a_batch_delete_honours_an_etag_per_object_is_said(
    settings: S3Settings, *, honours: bool, said: str
) -> None:
    """It is told, and nothing rests on it: neither answer is a failure or a warning."""
    [probe] = [probe for probe in PROBES if probe.name == "delete-etag"]
    async with client_for(settings) as client:
        spying = HonoursETags(client, honours=honours)
        patient = Patient(S3ObjectStore(client, settings), RunKeys("", UUID(int=9)), settings, spying)

        finding = await run_probe(probe, patient)

    assert "ETag" in spying.asked[0]
    assert finding.status == Status.PASS
    assert said in finding.found
