"""Pending writes: which of several stays, in what order they come back, and when they may arrive."""

from __future__ import annotations

from collections import deque
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import WRITES_IDX_MAP
from langgraph.checkpoint.serde.types import ERROR, INTERRUPT, RESUME, SCHEDULED

from s3_checkpoint import InvalidArgumentError, MemoryStore, StateEncodingError
from s3_checkpoint.langgraph import S3Saver
from tests.langgraph.counting import Counting, at, checkpoint, put


def pending(saver: S3Saver, config: RunnableConfig) -> list[tuple[str, str, Any]]:
    found = saver.get_tuple(config)
    assert found is not None
    return found.pending_writes or []


def test_a_retry_does_not_replace_what_a_task_wrote_first(saver: S3Saver) -> None:
    config = put(saver, at())
    saver.put_writes(config, [("a", 1), ("b", 1)], "task")

    saver.put_writes(config, [("a", 2), ("b", 2)], "task")

    assert pending(saver, config) == [("task", "a", 1), ("task", "b", 1)]


@pytest.mark.parametrize("channel", [ERROR, SCHEDULED, INTERRUPT, RESUME])
def test_special_writes_keep_the_last_one(saver: S3Saver, channel: str) -> None:
    config = put(saver, at())
    saver.put_writes(config, [(channel, "first")], "task")

    saver.put_writes(config, [(channel, "last")], "task")

    assert pending(saver, config) == [("task", channel, "last")]


def test_first_or_last_is_decided_for_each_write_of_a_mixed_batch(saver: S3Saver) -> None:
    """LangGraph sends such batches for the null task: an update and a resume value in one command."""
    config = put(saver, at())
    saver.put_writes(config, [("a", "first"), (RESUME, "first")], "task")

    saver.put_writes(config, [("a", "last"), (RESUME, "last"), ("b", "new")], "task")

    assert pending(saver, config) == [("task", RESUME, "last"), ("task", "a", "first"), ("task", "b", "new")]


def test_a_later_call_adds_the_writes_that_are_new(saver: S3Saver) -> None:
    config = put(saver, at())
    saver.put_writes(config, [("a", 1)], "task")
    saver.put_writes(config, [("a", 2), ("b", 2)], "task")

    saver.put_writes(config, [("a", 3), ("b", 3), ("c", 3)], "task")

    assert pending(saver, config) == [("task", "a", 1), ("task", "b", 2), ("task", "c", 3)]


def test_special_writes_of_one_task_do_not_displace_each_other(saver: S3Saver) -> None:
    config = put(saver, at())
    saver.put_writes(config, [(INTERRUPT, "i")], "task")
    saver.put_writes(config, [(RESUME, ["r"])], "task")
    saver.put_writes(config, [(ERROR, "e")], "task")

    channels = [channel for _, channel, _ in pending(saver, config)]

    assert channels == sorted((ERROR, INTERRUPT, RESUME), key=WRITES_IDX_MAP.__getitem__)


def test_a_special_channel_twice_in_one_batch_counts_once_the_last_one(saver: S3Saver) -> None:
    config = put(saver, at())

    saver.put_writes(config, [(INTERRUPT, "i"), (RESUME, ["one"]), (RESUME, ["one", "two"])], "task")

    assert pending(saver, config) == [("task", RESUME, ["one", "two"]), ("task", INTERRUPT, "i")]


def test_writes_come_back_by_task_path_then_task_then_index(saver: S3Saver) -> None:
    """The order in which a run applies them: delta channels are replayed in it."""
    config = put(saver, at())
    saver.put_writes(config, [("x", "c0"), ("x", "c1")], "task-c", "~__pregel_pull, a")
    saver.put_writes(config, [("x", "a")], "task-a", "~__pregel_pull, b")
    saver.put_writes(config, [("x", "b")], "task-b")
    saver.put_writes(config, [("x", "d")], "task-0", "~__pregel_pull, b")

    values = [value for _, _, value in pending(saver, config)]

    assert values == ["b", "c0", "c1", "d", "a"]


def test_writes_may_arrive_before_their_checkpoint(saver: S3Saver) -> None:
    config = at("t")
    older = put(saver, config, {"n": 0})
    coming = checkpoint({"n": 1})
    saver.put_writes(at("t", checkpoint_id=coming["id"]), [("a", 1)], "task")

    before = saver.get_tuple(config)
    saver.put(older, coming, {}, {"n": 1})
    after = saver.get_tuple(config)

    assert before is not None
    assert before.config == older
    assert after is not None
    assert after.pending_writes == [("task", "a", 1)]


def test_writes_without_a_checkpoint_do_not_make_one(saver: S3Saver) -> None:
    config = at("t", checkpoint_id=checkpoint()["id"])

    saver.put_writes(config, [("a", 1)], "task")

    assert saver.get_tuple(config) is None
    assert saver.get_tuple(at("t")) is None
    assert list(saver.list(at("t"))) == []
    assert list(saver.list(None)) == []


def test_a_deque_of_lists_is_taken_as_cached_tasks_send_it(saver: S3Saver) -> None:
    config = put(saver, at())

    saver.put_writes(config, deque([["a", 1], ["b", 2]]), "task")  # type: ignore[list-item]

    assert pending(saver, config) == [("task", "a", 1), ("task", "b", 2)]


def test_writes_of_many_tasks_at_once_are_all_there(saver: S3Saver) -> None:
    config = put(saver, at())

    with ThreadPoolExecutor(10) as pool:
        calls = [pool.submit(saver.put_writes, config, [("x", n)], f"task-{n:02}") for n in range(30)]
    for call in calls:
        call.result()

    assert pending(saver, config) == [(f"task-{n:02}", "x", n) for n in range(30)]


def test_exactly_one_of_racing_calls_for_one_task_is_first_and_special_ones_lose_nothing() -> None:
    """Each slot is written once, so all readers agree, in whatever order they ask."""
    store = MemoryStore()
    config = put(S3Saver(store), at("t"))
    savers = [S3Saver(store) for _ in range(6)]

    with ThreadPoolExecutor(6) as pool:
        for call in [
            pool.submit(saver.put_writes, config, [("a", n), (f"only-{n}", n), (RESUME, n)], "task")
            for n, saver in enumerate(savers)
        ]:
            call.result()

    found = [pending(saver, config) for saver in savers]
    assert all(writes == found[0] for writes in found)
    assert [channel for _, channel, _ in found[0]] == [RESUME, "a", f"only-{found[0][1][2]}"]
    for saver in savers:
        saver.close()


def test_an_empty_batch_writes_nothing(saver: S3Saver) -> None:
    config = put(saver, at())

    saver.put_writes(config, [], "task")

    assert pending(saver, config) == []


def test_writes_that_name_no_checkpoint_are_refused(saver: S3Saver) -> None:
    with pytest.raises(InvalidArgumentError, match="checkpoint_id"):
        saver.put_writes(at("t"), [("a", 1)], "task")


def test_odd_task_ids_and_channels_keep_their_writes_apart(saver: S3Saver) -> None:
    config = put(saver, at())
    tasks = ["a", "a/b", "a.r000000", "", "é", "x" * 500, "x" * 501]

    for task in tasks:
        saver.put_writes(config, [("branch:to:x/y|z", task)], task)

    assert sorted(pending(saver, config)) == sorted((task, "branch:to:x/y|z", task) for task in tasks)


LIMIT = 20_000


def many_rows(count: int) -> list[tuple[str, Any]]:
    return [(f"a channel with a long name, number {n}" * 10, None) for n in range(count)]


BATCHES: dict[str, list[list[tuple[str, Any]]]] = {
    "a payload just below the limit": [[("x", "a" * (LIMIT - size))] for size in range(150)],
    "many small rows under long names": [many_rows(n) for n in range(40, 60)],
    "special writes": [[(RESUME, "a" * (LIMIT - size))] for size in range(150)],
    "a long task path and a long task id": [[("x", 1)]],
}


@pytest.mark.parametrize("compression", [None, "gzip", "zstd"])
@pytest.mark.parametrize("kind", BATCHES)
def test_writes_that_are_accepted_can_be_read(kind: str, compression: Any) -> None:
    """Story: payloads below the limit were accepted, and the object around them was too large for every reader."""
    outcomes = set()
    with S3Saver(MemoryStore(), compression=compression, max_state_bytes=LIMIT) as saver:
        config = put(saver, at("t"))
        for number, writes in enumerate(BATCHES[kind]):
            task, path = (f"task-{number}", "")
            if kind == "a long task path and a long task id":
                path = "p" * LIMIT
            try:
                saver.put_writes(config, writes, task, path)
            except StateEncodingError:
                outcomes.add("refused")
            else:
                outcomes.add("accepted")
            pending(saver, config)

    assert "refused" in outcomes
    assert "accepted" in outcomes or "long task" in kind


@pytest.mark.parametrize("compression", [None, "gzip"])
@pytest.mark.parametrize(
    "batches",
    [
        [[(INTERRUPT, "i" * 12_000)], [(RESUME, "r" * 12_000)]],
        [[("a", "a" * 12_000)], [("a", "ignored"), ("b", "b" * 12_000)]],
        [[("x", 1), (ERROR, "e" * 12_000)], [(INTERRUPT, "i" * 12_000)]],
    ],
)
def test_writes_of_two_calls_are_measured_together(batches: list[list[tuple[str, Any]]], compression: Any) -> None:
    """Story: a call whose writes were merged with those of an earlier one made an object that no reader takes."""
    with S3Saver(MemoryStore(), compression=compression, max_state_bytes=LIMIT) as saver:
        config = put(saver, at("t"))
        saver.put_writes(config, batches[0], "task")
        before = pending(saver, config)

        with pytest.raises(StateEncodingError, match="with what the task wrote before"):
            saver.put_writes(config, batches[1], "task")

        assert pending(saver, config) == before


def test_writes_that_are_too_large_cost_no_request_and_leave_the_others_of_the_call_out() -> None:
    """The regular ones and the special ones are two objects; neither is written if one is refused."""
    store = Counting(MemoryStore())
    with S3Saver(store, max_state_bytes=LIMIT) as saver:
        config = put(saver, at("t"))
        store.reset()

        with pytest.raises(StateEncodingError):
            saver.put_writes(config, [("x", 1), (RESUME, "r" * LIMIT)], "task")

    assert store.requests == {}
