"""Each role does on a server that enforces IAM what it is for, and is refused everything else by name."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from uuid import UUID

import pytest
from pydantic import BaseModel

from s3_checkpoint import (
    AccessDeniedError,
    ActiveSnapshot,
    RunAdmin,
    S3Checkpointer,
    S3Settings,
    StepConflictError,
    connect,
)
from s3_checkpoint._s3.client import client_for
from s3_checkpoint._s3.store import S3ObjectStore
from s3_checkpoint.policy import Role, iam_policy
from tests.infra.conftest import Cloud

RUN = UUID("6b1f8f6e-0c43-4cf0-9f0e-1d5a6b7c8d9e")
NO_GRACE = timedelta(0)
PREFIX = "team/app"
NEXT = [ActiveSnapshot(node_name="write", payload={"section": 2})]


class Note(BaseModel):
    text: str = ""


@pytest.fixture
async def bucket(cloud: Cloud) -> str:
    """A bucket with one committed run under our prefix and one under a sibling's."""
    name = cloud.new_bucket()
    async with client_for(cloud.settings(name)) as client:
        for prefix in (PREFIX, "team/apple"):
            async with connect(Note, cloud.settings(name, prefix), client=client) as checkpointer:
                await checkpointer.commit(RUN, 0, Note(text="begun"), NEXT)
    return name


@pytest.fixture
def as_role(cloud: Cloud, bucket: str) -> Callable[..., S3Settings]:
    """Settings of a new user with the policy of a role, IAM being enforced from then on."""

    def make(role: Role, **fields: object) -> S3Settings:
        tags = bool(fields.get("object_tags"))
        cloud.enforce(False)
        user = cloud.new_user(iam_policy(role, bucket, PREFIX, object_tags=tags, compatible_store=True))
        cloud.enforce(True)
        return cloud.settings(bucket, PREFIX, **user, **fields)

    return make


async def test_the_worker_can_make_every_call_of_a_worker(as_role: Callable[..., S3Settings]) -> None:
    """Reading, writing, committing, resuming, in a namespace too; what is not there is None, not 403."""
    async with connect(Note, as_role("worker")) as checkpointer:
        await checkpointer.save(RUN, 1, Note(text="saved"))
        await checkpointer.save_active(RUN, 1, NEXT)
        await checkpointer.commit(RUN, 2, Note(text="committed"), NEXT)
        await checkpointer.with_namespace("sub graph/1").commit(RUN, 0, Note(text="inner"), NEXT)

        resumed = await checkpointer.resume(RUN)
        assert resumed is not None
        assert (resumed.step, resumed.state, list(resumed.active)) == (2, Note(text="committed"), NEXT)
        assert await checkpointer.load(RUN, 1) == Note(text="saved")
        assert await checkpointer.load_active(RUN, 1) == NEXT
        assert await checkpointer.list(RUN) == [0, 1, 2]
        assert await checkpointer.load(RUN, 99) is None
        assert await checkpointer.load_active(RUN, 99) == []
        assert await checkpointer.load(UUID(int=0)) is None


async def test_the_worker_can_read_back_who_won(as_role: Callable[..., S3Settings]) -> None:
    """Reading back who won needs no more than the worker has."""
    async with connect(Note, as_role("worker")) as checkpointer:
        await checkpointer.commit(RUN, 1, Note(text="same"), NEXT)
        await checkpointer.commit(RUN, 1, Note(text="same"), NEXT)
        with pytest.raises(StepConflictError):
            await checkpointer.commit(RUN, 1, Note(text="other"), NEXT)

        assert await checkpointer.load(RUN) == Note(text="same")


async def test_the_worker_can_fork_a_run(as_role: Callable[..., S3Settings]) -> None:
    """A fork reads the source and writes the target, copied in the store or carried through here."""
    async with connect(Note, as_role("worker")) as checkpointer:
        admin = RunAdmin(checkpointer)

        copied = await admin.fork(RUN, 0)
        carried = await admin.fork(RUN, 0, UUID(int=1))

        for run_id in (copied, carried):
            resumed = await checkpointer.resume(run_id)
            assert resumed is not None
            assert (resumed.state, list(resumed.active)) == (Note(text="begun"), NEXT)


async def test_a_copy_reads_its_source(as_role: Callable[..., S3Settings]) -> None:
    """Nobody gets at an object of another prefix by copying it into their own."""
    settings = as_role("worker")

    async with client_for(settings) as client:
        store = S3ObjectStore(client, settings)
        source = (await store.list(f"{PREFIX}/runs/{RUN}/steps/")).objects[0].key
        with pytest.raises(AccessDeniedError):
            await store.copy(source.replace(PREFIX, "team/apple"), source)


@pytest.mark.parametrize("role", ["worker", "reader"])
async def test_the_janitor_alone_deletes(as_role: Callable[..., S3Settings], role: Role) -> None:
    """The worker not even what it wrote itself; the run is as it was."""
    async with connect(Note, as_role(role)) as checkpointer:
        with pytest.raises(AccessDeniedError) as denied:
            await RunAdmin(checkpointer).delete(RUN)

        assert denied.value.action == "s3:DeleteObject"
        assert str(RUN) in denied.value.key
        assert await checkpointer.resume(RUN) is not None


async def test_the_janitor_prunes_and_deletes(cloud: Cloud, bucket: str, as_role: Callable[..., S3Settings]) -> None:
    """Every call of a janitor: old steps go, the newest stays whole, and in the end the run goes too."""
    async with connect(Note, cloud.settings(bucket, PREFIX)) as writer:
        for step in (1, 2):
            await writer.commit(RUN, step, Note(text=str(step)), NEXT)

    async with connect(Note, as_role("janitor")) as checkpointer:
        admin = RunAdmin(checkpointer)
        pruned = await admin.prune(RUN, keep_last=1, grace=NO_GRACE)
        assert (pruned.steps, pruned.kept, pruned.snapshots) == ((0, 1), 1, 2)
        assert await admin.pruned_up_to(RUN) == 1, "the janitor has written down how far it went"
        resumed = await checkpointer.resume(RUN)
        assert resumed is not None
        assert (resumed.step, list(resumed.active)) == (2, NEXT)
        assert (await admin.prune_all(keep_last=1)).runs == 1
        await admin.delete(RUN, grace=NO_GRACE)
        assert [run_id async for run_id in admin.runs()] == []


async def test_the_reader_sees_what_an_operator_sees(as_role: Callable[..., S3Settings]) -> None:
    """Runs, their activity, history and usage are all reading."""
    async with connect(Note, as_role("reader")) as checkpointer:
        admin = RunAdmin(checkpointer)

        assert [run_id async for run_id in admin.runs()] == [RUN]
        assert [activity.run_id async for activity in admin.activity()] == [RUN]
        assert [entry.state async for entry in admin.history(RUN)] == [Note(text="begun")]
        assert [usage.objects async for usage in admin.usage()] == [2]
        with pytest.raises(AccessDeniedError):
            await admin.fork(RUN, 0)


CALLS: list[tuple[str, Callable[[S3Checkpointer[Note]], object]]] = [
    ("s3:PutObject", lambda c: c.save(RUN, 5, Note())),
    ("s3:PutObject", lambda c: c.save_active(RUN, 5, NEXT)),
    ("s3:PutObject", lambda c: c.commit(RUN, 5, Note(), NEXT)),  # after a look at how far the run has been pruned
    ("s3:GetObject", lambda c: c.load(RUN, 0)),
    ("s3:GetObject", lambda c: c.load_active(RUN, 0)),
    ("s3:ListBucket", lambda c: c.load(RUN)),
    ("s3:ListBucket", lambda c: c.list(RUN)),
    ("s3:ListBucket", lambda c: c.resume(RUN)),
]


LOOKS_FIRST = {CALLS[2][1]: "s3:ListBucket"}
"""Where not even listing is allowed, that is what a commit is denied."""


@pytest.mark.parametrize("role", ["worker", "reader", "janitor"])
async def test_no_role_gets_out_of_the_prefix_or_the_bucket(
    cloud: Cloud, as_role: Callable[..., S3Settings], role: Role
) -> None:
    """A sibling prefix, one above, none, another bucket: no call works, and each error names the action to grant."""
    other = cloud.new_bucket()
    settings = as_role(role)
    places: list[dict[str, str]] = [{"prefix": "team/apple"}, {"prefix": "team"}, {"prefix": ""}, {"bucket": other}]

    async with client_for(settings) as client:
        for place in places:
            async with connect(Note, settings.model_copy(update=place), client=client) as checkpointer:
                for action, call in CALLS:
                    with pytest.raises(AccessDeniedError) as denied:
                        await call(checkpointer)  # type: ignore[misc]
                    expected = LOOKS_FIRST.get(call, action)
                    assert denied.value.action == expected
                    assert f"grant {expected}" in str(denied.value)


async def test_the_worker_may_tag_what_it_writes_only_if_its_policy_says_so(
    cloud: Cloud, as_role: Callable[..., S3Settings]
) -> None:
    """Tags are a right of their own; the error names that right, not the one to write."""
    tags = {"s3-checkpoint-retention": "temporary", "team": "a b+c=d"}
    tagging = as_role("worker", object_tags=tags)
    plain = as_role("worker").model_copy(update={"object_tags": tags})

    async with connect(Note, tagging) as checkpointer:
        await checkpointer.commit(RUN, 1, Note(), NEXT)
    async with connect(Note, plain) as checkpointer:
        with pytest.raises(AccessDeniedError) as denied:
            await checkpointer.commit(RUN, 2, Note(), NEXT)

    assert denied.value.action == "s3:PutObjectTagging"
    cloud.enforce(False)
    s3 = cloud.client("s3")
    keys = [line["Key"] for line in s3.list_objects_v2(Bucket=tagging.bucket, Prefix=f"{PREFIX}/")["Contents"]]
    written = [key for key in keys if "00001." in key]
    assert len(written) == 2
    for key in written:
        found = s3.get_object_tagging(Bucket=tagging.bucket, Key=key)["TagSet"]
        assert {tag["Key"]: tag["Value"] for tag in found} == tags


async def test_the_janitor_deletes_within_its_prefix_and_a_refused_key_is_an_error(
    as_role: Callable[..., S3Settings],
) -> None:
    """In one batch: what is ours goes, and the key outside the prefix is named."""
    settings = as_role("janitor")
    other = f"team/apple/runs/{RUN}/steps/{0:020d}.json"

    async with client_for(settings) as client:
        store = S3ObjectStore(client, settings)
        key = (await store.list(f"{PREFIX}/runs/{RUN}/steps/")).objects[0].key
        with pytest.raises(AccessDeniedError) as denied:
            await store.delete([other, key])
        assert await store.head(key) is None

    assert (denied.value.action, denied.value.key) == ("s3:DeleteObject", other)


@pytest.mark.parametrize("role", ["reader", "janitor"])
async def test_a_reader_reads_everything_and_writes_nothing(as_role: Callable[..., S3Settings], role: Role) -> None:
    """The reader and the janitor see a run whole; no write of theirs lands."""
    async with connect(Note, as_role(role)) as checkpointer:
        for action, call in CALLS[:3]:
            with pytest.raises(AccessDeniedError) as denied:
                await call(checkpointer)  # type: ignore[misc]
            assert denied.value.action == action == "s3:PutObject"

        resumed = await checkpointer.resume(RUN)
        assert resumed is not None
        assert (resumed.step, resumed.state, list(resumed.active)) == (0, Note(text="begun"), NEXT)
        assert await checkpointer.list(RUN) == [0]
        assert await checkpointer.load_active(RUN, 0) == NEXT
        assert await checkpointer.load(RUN, 5) is None


async def test_a_wrong_secret_opens_nothing(as_role: Callable[..., S3Settings]) -> None:
    """The server does check who asks: the same user with another secret is refused."""
    settings = as_role("worker").model_copy(update={"max_attempts": 1})
    forged = S3Settings.model_validate({**settings.model_dump(), "secret_access_key": "guessed"})

    async with connect(Note, forged) as checkpointer:
        with pytest.raises(Exception, match="SignatureDoesNotMatch"):
            await checkpointer.load(RUN, 0)


async def test_moto_by_itself_refuses_what_concerns_objects(cloud: Cloud, as_role: Callable[..., S3Settings]) -> None:
    """The gate in front of the server is not what keeps the worker from other prefixes and from deleting."""
    settings = as_role("worker")
    cloud.gate.forget()

    async with connect(Note, settings) as checkpointer:
        await checkpointer.commit(RUN, 1, Note(), NEXT)
        with pytest.raises(AccessDeniedError) as denied:
            await RunAdmin(checkpointer).delete(RUN)
        assert denied.value.action == "s3:DeleteObject"
    async with connect(Note, settings.model_copy(update={"prefix": "team/apple"})) as checkpointer:
        for action, call in CALLS[:5]:
            with pytest.raises(AccessDeniedError) as denied:
                await call(checkpointer)  # type: ignore[misc]
            assert denied.value.action == action
