"""What a store and a network can do to a saver, by the wrappers of the fault tests."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from langgraph.checkpoint.serde.types import RESUME

from s3_checkpoint import AccessDeniedError, MemoryStore, S3Settings, StoreUnavailableError
from s3_checkpoint._s3.store import S3ObjectStore
from s3_checkpoint.langgraph import S3Saver
from s3_checkpoint.object_store import ObjectStore
from s3_checkpoint.request_events import RequestEvent
from s3_checkpoint.testing import (
    Aim,
    AnswerLost,
    Conflict409,
    Crash,
    CrashAfter,
    CrashBefore,
    Denied,
    SlowDown503,
    SmallPages,
)
from tests.langgraph.counting import Counting, at, chain, checkpoint, put

BIG = "x" * 100_000


@pytest.mark.parametrize("crash", [CrashBefore, CrashAfter])
@pytest.mark.parametrize("put_number", [1, 2, 3, 4])
def test_a_crash_anywhere_in_a_put_leaves_the_whole_checkpoint_or_none(
    crash: Callable[[ObjectStore, Aim], ObjectStore], put_number: int
) -> None:
    """Two large values, the entry of the run, and the checkpoint: four PUTs."""
    store = MemoryStore()
    with S3Saver(store) as saver:
        first = put(saver, at("t"), {"n": 1})
    second = checkpoint({"a": BIG, "b": BIG + "b"})
    with S3Saver(crash(store, Aim("PutObject", first=put_number))) as saver, pytest.raises(Crash):
        saver.put(first, second, {"run_id": "run"}, second["channel_versions"])

    with S3Saver(store) as saver:
        found = saver.get_tuple(at("t"))
        assert found is not None
        if crash is CrashAfter and put_number == 4:
            assert found.checkpoint["channel_values"] == second["channel_values"]
        else:
            assert found.config == first
        again = saver.put(first, second, {"run_id": "run"}, second["channel_versions"])
        found = saver.get_tuple(at("t"))
        assert found is not None
        assert found.config == again
        saver.delete_for_runs(["run"])
        found = saver.get_tuple(at("t"))
        assert found is not None
        assert found.config == first


@pytest.mark.parametrize("times", [1, 2, 5])
def test_a_409_with_nothing_there_is_tried_again(times: int) -> None:
    with S3Saver(Conflict409(MemoryStore(), Aim("PutObject", "/w.", times=times))) as saver:
        config = put(saver, at("t"))

        saver.put_writes(config, [("x", 1), (RESUME, 2)], "task")

        found = saver.get_tuple(config)
        assert found is not None
        assert found.pending_writes == [("task", RESUME, 2), ("task", "x", 1)]


@pytest.mark.parametrize("put_number", [1, 2, 3])
def test_a_lost_answer_changes_nothing(put_number: int) -> None:
    with S3Saver(AnswerLost(MemoryStore(), Aim("PutObject", first=put_number))) as saver:
        config = put(saver, at("t"), {"big": BIG})
        saver.put_writes(config, [("x", 1)], "task")

        found = saver.get_tuple(config)
        assert found is not None
        assert found.checkpoint["channel_values"] == {"big": BIG}
        assert found.pending_writes == [("task", "x", 1)]


def test_errors_of_the_store_reach_the_caller_and_the_call_can_be_repeated() -> None:
    """An error of `put` or `put_writes` fails the run; one that is swallowed loses state."""
    with S3Saver(SlowDown503(Denied(MemoryStore(), Aim("PutObject", "/w.")), Aim("PutObject", "/c."))) as saver:
        new = checkpoint()
        with pytest.raises(StoreUnavailableError):
            saver.put(at("t"), new, {}, {})
        config = saver.put(at("t"), new, {}, {})
        with pytest.raises(AccessDeniedError):
            saver.put_writes(config, [("x", 1)], "task")
        saver.put_writes(config, [("x", 1)], "task")

        found = saver.get_tuple(config)
        assert found is not None
        assert found.pending_writes == [("task", "x", 1)]


@pytest.mark.parametrize("keys", [1, 2, 3, 7])
def test_page_boundaries_make_no_difference(keys: int) -> None:
    """Wherever a page ends: inside a checkpoint, between two, before the large values."""
    store = MemoryStore()
    answers = []
    for wrapped in (store, SmallPages(store, keys)):
        with S3Saver(wrapped) as saver:
            if wrapped is store:
                for config in chain(saver, put(saver, at("t"), {"big": BIG}), 5):
                    for task in ("a", "b"):
                        saver.put_writes(config, [("x", task), (RESUME, task)], task)
            answers.append(
                [
                    saver.get_tuple(at("t")),
                    list(saver.list(at("t"))),
                    list(saver.list(None)),
                    list(saver.list(None, limit=2)),
                ]
            )

    assert answers[0] == answers[1]
    with S3Saver(SmallPages(store, keys)) as saver:
        saver.copy_thread("t", "u")
        saver.prune(["u"])
        assert len(list(saver.list(at("u")))) == 1
        saver.delete_thread("t")
        saver.delete_thread("u")
    assert store._keys == []


async def test_a_wrapped_store_is_used_in_the_loop_that_the_inner_one_belongs_to(s3_store: S3ObjectStore) -> None:
    async with S3Saver(Counting(Counting(s3_store))) as saver:
        stored = await saver.aput(at("t"), checkpoint({"n": 1}), {}, {"n": 1})

        assert await saver.aget_tuple(stored) is not None


def test_requests_can_be_watched(shared_settings: S3Settings) -> None:
    seen: list[RequestEvent] = []
    with S3Saver(shared_settings, prefix="watched", on_request=seen.append) as saver:
        put(saver, at("t"))

    assert [(event.operation, event.outcome) for event in seen] == [("PutObject", "ok")]
