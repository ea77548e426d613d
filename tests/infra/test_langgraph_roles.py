"""LangGraph's saver and store do under each policy what the role is for, on a server that enforces IAM."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest

pytest.importorskip("langgraph.checkpoint.base")

from langgraph.checkpoint.serde.types import RESUME

from s3_checkpoint import AccessDeniedError
from s3_checkpoint.langgraph import S3Saver, S3Store
from s3_checkpoint.policy import Role, iam_policy
from tests.infra.conftest import Cloud
from tests.langgraph.counting import at, chain, put

PREFIX = "team/app"
LARGE = {"text": "x" * 70_000}
"""Stored as an object of its own."""


@pytest.fixture
def as_role(cloud: Cloud) -> Callable[[Role], S3Saver]:
    """Savers of new users in one bucket that has a thread `old`; IAM is enforced from then on."""
    bucket = cloud.new_bucket()
    with S3Saver(cloud.settings(bucket, PREFIX)) as saver:
        write(saver, "old")

    def make(role: Role) -> S3Saver:
        cloud.enforce(False)
        user = cloud.new_user(iam_policy(role, bucket, PREFIX, compatible_store=True))
        cloud.enforce(True)
        return S3Saver(cloud.settings(bucket, PREFIX, **user))

    return make


def write(saver: S3Saver, thread: str) -> None:
    """A checkpoint of `run`, and writes of a task that comes twice, the second time with an answer."""
    config = put(saver, at(thread), LARGE, run_id="run")
    saver.put_writes(config, [("text", "y")], "task")
    saver.put_writes(config, [("text", "z"), (RESUME, 3)], "task")


def test_the_worker_reads_and_writes_threads_and_deletes_none(as_role: Callable[[Role], S3Saver]) -> None:
    """Everything LangGraph does in a run; a thread with a name too long for a key, and one that is not there, too."""
    with as_role("worker") as saver:
        saver.setup()
        write(saver, "new")
        put(saver, at("long" * 100, "inner|child"), LARGE)
        chain(saver, at("t"), 3)
        saver.copy_thread("new", "copy")

        found = saver.get_tuple(at("copy"))
        assert found is not None
        assert found.checkpoint["channel_values"] == LARGE
        assert found.pending_writes is not None
        assert {channel for _, channel, _ in found.pending_writes} == {"text", RESUME}
        assert len(list(saver.list(None))) == 7
        assert saver.get_delta_channel_history(config=at("t"), channels=["n"])["n"]["seed"] == 1
        assert saver.get_tuple(at("absent")) is None
        with pytest.raises(AccessDeniedError) as denied:
            saver.delete_thread("old")
        assert denied.value.action == "s3:DeleteObject"
        with pytest.raises(AccessDeniedError, match="s3:DeleteObject"):
            saver.prune(["t"])
        assert saver.get_tuple(at("old")) is not None
        assert len(list(saver.list(at("t")))) == 3


def test_the_reader_reads_threads_and_writes_none(as_role: Callable[[Role], S3Saver]) -> None:
    """Not a checkpoint, nor a pending write."""
    with as_role("reader") as saver:
        found = saver.get_tuple(at("old"))
        assert found is not None
        assert len(list(saver.list(None))) == 1
        with pytest.raises(AccessDeniedError) as denied:
            put(saver, at("new"))
        assert denied.value.action == "s3:PutObject"
        with pytest.raises(AccessDeniedError, match="s3:PutObject"):
            saver.put_writes(found.config, [("text", "z")], "other")


def test_the_janitor_prunes_and_deletes_threads(as_role: Callable[[Role], S3Saver]) -> None:
    """By thread and by run; it writes none."""
    with as_role("worker") as saver:
        write(saver, "new")
        chain(saver, at("t"), 3)

    with as_role("janitor") as saver:
        saver.prune(["t"], strategy="keep_latest")
        assert len(list(saver.list(at("t")))) == 1
        saver.delete_thread("t")
        assert saver.get_tuple(at("t")) is None
        saver.delete_for_runs(["run"])
        assert list(saver.list(None)) == []
        with pytest.raises(AccessDeniedError):
            put(saver, at("mine"))


def test_memories_are_put_by_the_worker_read_by_the_reader_and_removed_by_the_janitor(cloud: Cloud) -> None:
    """Each does its part and no other's; what is over is read without being renewed by who may not write."""
    bucket = cloud.new_bucket()
    users = {
        role: cloud.new_user(iam_policy(role, bucket, PREFIX, compatible_store=True))
        for role in ("worker", "reader", "janitor")
    }
    cloud.enforce(True)

    an_hour_ago = datetime.now(UTC) - timedelta(hours=1)
    with S3Store(cloud.settings(bucket, PREFIX, **users["worker"]), now=lambda: an_hour_ago) as memories:
        memories.put(("users", "7"), "over", {"n": 1}, ttl=1)
    with S3Store(cloud.settings(bucket, PREFIX, **users["worker"])) as memories:
        memories.setup()
        memories.put(("users", "7"), "kept", {"n": 1})
        memories.put(("users", "7"), "kept", {"n": 2})
        assert memories.get(("users", "7"), "absent") is None
        with pytest.raises(AccessDeniedError, match="s3:DeleteObject"):
            memories.delete(("users", "7"), "kept")
    with S3Store(cloud.settings(bucket, PREFIX, **users["reader"])) as memories:
        assert [found.value for found in memories.search(())] == [{"n": 2}]
        assert memories.list_namespaces() == [("users", "7")]
        with pytest.raises(AccessDeniedError, match="s3:PutObject"):
            memories.put(("users", "7"), "kept", {"n": 3})
    with S3Store(cloud.settings(bucket, PREFIX, **users["janitor"])) as memories:
        assert memories.sweep_ttl(grace=timedelta(0)) == 1
        with pytest.raises(AccessDeniedError, match="s3:PutObject"):
            memories.put(("users", "7"), "kept", {"n": 3})
        memories.delete(("users", "7"), "kept")
        assert memories.list_namespaces() == []
