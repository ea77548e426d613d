"""The LangGraph saver does with each role, on a server that enforces IAM, what the role is for."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from langgraph.checkpoint.serde.types import RESUME

from s3_checkpoint import AccessDeniedError, S3Settings
from s3_checkpoint.langgraph import S3Saver
from s3_checkpoint.policy import Role, iam_policy
from tests.infra.conftest import Cloud
from tests.langgraph.counting import at, chain, put

PREFIX = "team/app"


@pytest.fixture
def as_role(cloud: Cloud) -> Callable[[Role], S3Settings]:
    """Settings of a new user with the policy of a role, IAM being enforced from then on."""
    bucket = cloud.new_bucket()

    def make(role: Role) -> S3Settings:
        cloud.enforce(False)
        user = cloud.new_user(iam_policy(role, bucket, PREFIX, compatible_store=True))
        cloud.enforce(True)
        return cloud.settings(bucket, PREFIX, **user)

    return make


def write(saver: S3Saver) -> None:
    config = put(saver, at("long" * 100, "inner|child"), {"big": "x" * 100_000}, run_id="run")
    saver.put_writes(config, [("x", 1)], "task")
    saver.put_writes(config, [("x", 2), (RESUME, 3)], "task")
    chain(saver, at("t"), 3)


def test_the_worker_can_make_every_call_that_deletes_nothing(as_role: Callable[[Role], S3Settings]) -> None:
    with S3Saver(as_role("worker")) as saver:
        saver.setup()
        write(saver)
        saver.copy_thread("t", "u")

        assert len(list(saver.list(None))) == 7
        assert saver.get_tuple(at("u")) is not None
        assert saver.get_delta_channel_history(config=at("t"), channels=["n"])["n"]["seed"] == 1
        with pytest.raises(AccessDeniedError, match="s3:DeleteObject"):
            saver.delete_thread("t")
        with pytest.raises(AccessDeniedError, match="s3:DeleteObject"):
            saver.prune(["t"])
        assert len(list(saver.list(at("t")))) == 3


def test_the_reader_reads_and_the_janitor_deletes(as_role: Callable[[Role], S3Settings]) -> None:
    with S3Saver(as_role("worker")) as saver:
        write(saver)
    with S3Saver(as_role("reader")) as saver:
        assert len(list(saver.list(None))) == 4
        with pytest.raises(AccessDeniedError, match="s3:PutObject"):
            put(saver, at("t"))

    with S3Saver(as_role("janitor")) as saver:
        saver.prune(["t"])
        assert len(list(saver.list(at("t")))) == 1
        saver.delete_for_runs(["run"])
        saver.delete_thread("t")
        assert list(saver.list(None)) == []
