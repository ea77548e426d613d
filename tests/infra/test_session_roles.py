"""The session store does under each of the three policies what the role is for, on a server that enforces IAM."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pytest

from s3_checkpoint import AccessDeniedError
from s3_checkpoint.claude import SyncS3SessionStore
from s3_checkpoint.policy import Role, iam_policy
from tests.infra.conftest import Cloud

PREFIX = "team/app"
KEY = {"project_key": "proj", "session_id": "old"}
SUB = {**KEY, "subpath": "subagents/agent-1"}


@pytest.fixture
def as_role(cloud: Cloud) -> Callable[[Role], SyncS3SessionStore]:
    """Stores of new users in one bucket that has the session `old`; IAM is enforced from then on."""
    bucket = cloud.new_bucket()
    with SyncS3SessionStore(cloud.settings(bucket, PREFIX)) as sessions:
        for n in range(4):
            sessions.append(KEY, [{"type": "x", "n": n}])
        sessions.append(SUB, [{"type": "x"}])

    def make(role: Role) -> SyncS3SessionStore:
        cloud.enforce(False)
        user = cloud.new_user(iam_policy(role, bucket, PREFIX, compatible_store=True))
        cloud.enforce(True)
        return SyncS3SessionStore(cloud.settings(bucket, PREFIX, **user), merge_parts=4)

    return make


def test_the_worker_appends_merges_and_reads_and_removes_nothing(
    as_role: Callable[[Role], SyncS3SessionStore],
) -> None:
    """A deletion of its own takes effect, and leaves the objects to the janitor."""
    with as_role("worker") as sessions:
        for n in range(4, 8):
            sessions.append(KEY, [{"type": "x", "n": n}])

        assert [dict(entry)["n"] for entry in sessions.load(KEY) or []] == list(range(8))
        assert sessions.list_subkeys(KEY) == ["subagents/agent-1"]
        assert len(sessions.list_session_summaries("proj")) == 1
        with pytest.raises(AccessDeniedError) as denied:
            sessions.delete(KEY)
        assert denied.value.action == "s3:DeleteObject"
        assert sessions.load(KEY) is None


def test_the_reader_reads_and_appends_nothing(as_role: Callable[[Role], SyncS3SessionStore]) -> None:
    """Nor deletes."""
    with as_role("reader") as sessions:
        assert len(sessions.load(KEY) or []) == 4
        assert [found["session_id"] for found in sessions.list_sessions("proj")] == ["old"]
        assert [found.session_id for found in sessions.sessions()] == ["old"]
        for refused in (
            lambda: sessions.append(KEY, [{"type": "x"}]),
            lambda: sessions.delete(KEY),
            lambda: sessions.compact(KEY),
        ):
            with pytest.raises(AccessDeniedError):
                refused()
        assert len(sessions.load(KEY) or []) == 4


def test_the_janitor_merges_prunes_and_deletes(as_role: Callable[[Role], SyncS3SessionStore]) -> None:
    """Every call of a janitor."""
    with as_role("janitor") as sessions:
        sessions.compact(KEY)
        assert len(sessions.load(KEY) or []) == 4
        sessions.delete(SUB)
        assert sessions.prune(timedelta(0)).sessions == (("proj", "old"),)
        assert list(sessions.sessions()) == []
