"""The bucket's own policy: it shuts out plain HTTP and, where asked to, unconditional writes; no role breaks."""

from __future__ import annotations

from uuid import UUID

import pytest
from pydantic import BaseModel

from s3_checkpoint import AccessDeniedError, ActiveSnapshot, RunAdmin, S3Settings, StepConflictError, connect
from s3_checkpoint.policy import iam_policy
from tests.infra.conftest import Cloud
from tests.infra.stack import read, resolved

RUN = UUID("6b1f8f6e-0c43-4cf0-9f0e-1d5a6b7c8d9e")
NEXT = [ActiveSnapshot(node_name="write")]


class Note(BaseModel):
    text: str = ""


def worker_in_bucket_with_policy(cloud: Cloud, **parameters: str) -> S3Settings:
    """A worker of the prefix `checkpoints`, in a bucket with the policy that bucket.yaml makes of `parameters`."""
    bucket = cloud.new_bucket()
    resources = resolved(read("bucket.yaml"), {"CheckpointBucket": bucket}, **parameters)
    cloud.gate.bucket_policies[bucket] = resources["CheckpointBucketPolicy"]["Properties"]["PolicyDocument"]
    user = cloud.new_user(iam_policy("worker", bucket, "checkpoints"))
    cloud.enforce(True)
    return cloud.settings(bucket, "checkpoints", **user)


@pytest.mark.parametrize("required", ["false", "true"])
async def test_the_worker_works_under_the_bucket_policy(cloud: Cloud, required: str) -> None:
    """Commit, conflict and resume, with and without the statement that requires a condition."""
    settings = worker_in_bucket_with_policy(cloud, RequireConditionalCommits=required)

    async with connect(Note, settings) as checkpointer:
        await checkpointer.commit(RUN, 0, Note(text="a"), NEXT)
        await checkpointer.with_namespace("inner").commit(RUN, 0, Note(text="b"), NEXT)
        await checkpointer.save_active(RUN, 0, NEXT)
        with pytest.raises(StepConflictError):
            await checkpointer.commit(RUN, 0, Note(text="other"), NEXT)

        resumed = await checkpointer.resume(RUN)

    assert resumed is not None
    assert resumed.state == Note(text="a")
    assert cloud.gate.denied == []


async def test_nothing_works_without_tls(cloud: Cloud) -> None:
    """Every call over plain HTTP is refused, whatever the caller's own policy grants."""
    settings = worker_in_bucket_with_policy(cloud)
    cloud.gate.tls = False

    async with connect(Note, settings) as checkpointer:
        for call in (checkpointer.save(RUN, 0, Note()), checkpointer.load(RUN, 0), checkpointer.list(RUN)):
            with pytest.raises(AccessDeniedError):
                await call

    assert cloud.gate.denied == ["s3:PutObject", "s3:GetObject", "s3:ListBucket"]


async def test_where_conditions_are_required_a_state_is_never_overwritten(cloud: Cloud) -> None:
    """`save` is refused, over a committed step and anywhere else; what was committed is unchanged."""
    settings = worker_in_bucket_with_policy(cloud, RequireConditionalCommits="true")

    async with connect(Note, settings) as checkpointer:
        await checkpointer.commit(RUN, 0, Note(text="committed"), NEXT)
        inner = checkpointer.with_namespace("inner")
        for call in (checkpointer.save(RUN, 0, Note()), checkpointer.save(RUN, 1, Note()), inner.save(RUN, 0, Note())):
            with pytest.raises(AccessDeniedError) as denied:
                await call
            assert denied.value.action == "s3:PutObject"

        assert await checkpointer.load(RUN, 0) == Note(text="committed")
        assert await checkpointer.list(RUN) == [0]


async def test_where_conditions_are_required_a_fork_works(cloud: Cloud) -> None:
    """Its step 0 is created like a committed one, with an id given and without."""
    settings = worker_in_bucket_with_policy(cloud, RequireConditionalCommits="true")

    async with connect(Note, settings) as checkpointer:
        await checkpointer.commit(RUN, 0, Note(text="a"), NEXT)
        forked = [await RunAdmin(checkpointer).fork(RUN, 0), await RunAdmin(checkpointer).fork(RUN, 0, UUID(int=1))]

        assert [await checkpointer.load(run) for run in forked] == [Note(text="a")] * 2


async def test_conditions_are_not_required_unless_asked_for(cloud: Cloud) -> None:
    """By default the trait's `save` replaces what is there."""
    settings = worker_in_bucket_with_policy(cloud)

    async with connect(Note, settings) as checkpointer:
        await checkpointer.save(RUN, 0, Note(text="first"))
        await checkpointer.save(RUN, 0, Note(text="second"))

        assert await checkpointer.load(RUN, 0) == Note(text="second")
