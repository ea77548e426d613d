"""The LangGraph saver under the same three policies, on a server that enforces IAM."""

from __future__ import annotations

from collections.abc import Callable

import pytest

pytest.importorskip("langgraph.checkpoint.base")

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import CheckpointMetadata, empty_checkpoint

from s3_checkpoint import AccessDeniedError
from s3_checkpoint.langgraph import S3Saver
from s3_checkpoint.policy import Role, iam_policy
from tests.infra.conftest import Cloud

PREFIX = "team/app"
METADATA: CheckpointMetadata = {"source": "loop", "step": 0, "run_id": "run-1"}


def thread(name: str) -> RunnableConfig:
    return {"configurable": {"thread_id": name, "checkpoint_ns": ""}}


def put(saver: S3Saver, name: str) -> RunnableConfig:
    """A checkpoint with a value large enough to be stored by itself, and a pending write."""
    checkpoint = empty_checkpoint()
    checkpoint["channel_values"] = {"text": "x" * 70_000}
    checkpoint["channel_versions"] = {"text": "1"}
    config = saver.put(thread(name), checkpoint, METADATA, {"text": "1"})
    saver.put_writes(config, [("text", "y")], "task-1")
    return config


@pytest.fixture
def as_role(cloud: Cloud) -> Callable[[Role], S3Saver]:
    """Savers of new users in one bucket that has a thread; IAM is enforced from then on."""
    bucket = cloud.new_bucket()
    with S3Saver(cloud.settings(bucket, PREFIX)) as saver:
        put(saver, "old")

    def make(role: Role) -> S3Saver:
        cloud.enforce(False)
        user = cloud.new_user(iam_policy(role, bucket, PREFIX, compatible_store=True))
        cloud.enforce(True)
        return S3Saver(cloud.settings(bucket, PREFIX, **user))

    return make


def test_the_worker_reads_and_writes_threads_and_deletes_none(as_role: Callable[[Role], S3Saver]) -> None:
    """Everything LangGraph does in a run; a thread with a name too long for a key, and one that is not there, too."""
    with as_role("worker") as saver:
        saver.setup()
        put(saver, "new")
        put(saver, "long" * 100)
        saver.copy_thread("new", "copy")

        found = saver.get_tuple(thread("copy"))
        assert found is not None
        assert found.checkpoint["channel_values"] == {"text": "x" * 70_000}
        assert found.pending_writes == [("task-1", "text", "y")]
        assert len(list(saver.list(None))) == 4
        assert saver.get_tuple(thread("absent")) is None
        with pytest.raises(AccessDeniedError) as denied:
            saver.delete_thread("old")
        assert denied.value.action == "s3:DeleteObject"
        assert saver.get_tuple(thread("old")) is not None


def test_the_reader_reads_threads_and_writes_none(as_role: Callable[[Role], S3Saver]) -> None:
    """Not a checkpoint, nor a pending write."""
    with as_role("reader") as saver:
        found = saver.get_tuple(thread("old"))
        assert found is not None
        with pytest.raises(AccessDeniedError) as denied:
            put(saver, "new")
        assert denied.value.action == "s3:PutObject"
        with pytest.raises(AccessDeniedError):
            saver.put_writes(found.config, [("text", "z")], "task-2")


def test_the_janitor_prunes_and_deletes_threads(as_role: Callable[[Role], S3Saver]) -> None:
    """By thread and by run."""
    with as_role("worker") as saver:
        put(saver, "new")

    with as_role("janitor") as saver:
        saver.prune(["old"], strategy="keep_latest")
        assert saver.get_tuple(thread("old")) is not None
        saver.delete_thread("old")
        assert saver.get_tuple(thread("old")) is None
        saver.delete_for_runs(["run-1"])
        assert list(saver.list(None)) == []
