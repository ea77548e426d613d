"""`list`: which checkpoints, in which order, how many."""

from __future__ import annotations

from typing import Any

import pytest
from langchain_core.runnables import RunnableConfig

from s3_checkpoint.langgraph import S3Saver
from tests.langgraph.counting import at, chain, checkpoint, id_of, put


def steps(found: Any) -> list[int]:
    return [item.metadata["step"] for item in found]


def in_thread(thread_id: str) -> RunnableConfig:
    return {"configurable": {"thread_id": thread_id}}


def test_list_without_a_namespace_gives_all_and_an_empty_one_is_the_root_alone(saver: S3Saver) -> None:
    for step, namespace in enumerate(["", "a", "a|b", ""]):
        put(saver, at("t", namespace), step=step)

    assert steps(saver.list(in_thread("t"))) == [3, 2, 1, 0]
    assert steps(saver.list(at("t", ""))) == [3, 0]
    assert steps(saver.list(at("t", "a"))) == [1]
    assert steps(saver.list({"configurable": {"thread_id": "t", "checkpoint_ns": None}})) == [3, 2, 1, 0]


def test_list_without_a_config_gives_all_threads_and_options_apply(saver: S3Saver) -> None:
    configs = [put(saver, at(thread), step=step, kind=thread) for step, thread in enumerate("abab")]

    assert steps(saver.list(None)) == [3, 2, 1, 0]
    assert steps(saver.list(None, filter={"kind": "a"})) == [2, 0]
    assert steps(saver.list(None, limit=3)) == [3, 2, 1]
    assert steps(saver.list(None, before=configs[2])) == [1, 0]


def test_before_is_exclusive_and_needs_no_thread(saver: S3Saver) -> None:
    configs = chain(saver, at("t"), 5)

    assert steps(saver.list(at("t"), before=configs[3])) == [2, 1, 0]
    assert steps(saver.list(at("t"), before={"configurable": {"checkpoint_id": id_of(configs[1])}})) == [0]
    assert steps(saver.list(at("t"), before=configs[0])) == []
    assert steps(saver.list(at("t"), before={"configurable": {"checkpoint_id": "\x7f"}})) == [4, 3, 2, 1, 0]


def test_limit_counts_after_the_filter_and_zero_gives_none(saver: S3Saver) -> None:
    config = at("t")
    for step in range(30):
        config = put(saver, config, step=step, even=step % 2 == 0)

    assert steps(saver.list(at("t"), filter={"even": True}, limit=3)) == [28, 26, 24]
    assert steps(saver.list(at("t"), filter={"even": True})) == list(range(28, -1, -2))
    assert steps(saver.list(at("t"), limit=0)) == []
    assert steps(saver.list(at("t"), limit=100)) == list(range(29, -1, -1))


def test_every_key_of_the_filter_must_be_equal(saver: S3Saver) -> None:
    put(saver, at("t"), step=1, kind="a", nested={"k": [1]})
    put(saver, at("t"), step=2, kind="a")

    assert steps(saver.list(at("t"), filter={"kind": "a", "step": 1})) == [1]
    assert steps(saver.list(at("t"), filter={"nested": {"k": [1]}})) == [1]
    assert steps(saver.list(at("t"), filter={"kind": "b"})) == []
    assert steps(saver.list(at("t"), filter={})) == [2, 1]


def test_a_config_with_a_checkpoint_lists_that_one(saver: S3Saver) -> None:
    configs = chain(saver, at("t"), 3)

    assert steps(saver.list(configs[1])) == [1]
    assert steps(saver.list(configs[1], before=configs[1])) == []
    del configs[1]["configurable"]["checkpoint_ns"]
    assert steps(saver.list(configs[1])) == [1]
    assert steps(saver.list(at("t", checkpoint_id=checkpoint()["id"]))) == []


@pytest.mark.parametrize("options", [{}, {"limit": 2}, {"filter": {"source": "loop"}}])
def test_every_tuple_carries_writes_values_and_parent(saver: S3Saver, options: dict[str, Any]) -> None:
    first = put(saver, at("t"), {"big": "x" * 100_000})
    second = put(saver, first, {"small": 1})
    saver.put_writes(first, [("a", 1)], "task-1")
    saver.put_writes(second, [("b", 2)], "task-2")

    found = list(saver.list(at("t"), **options))

    assert [item.config for item in found] == [second, first]
    assert [item.parent_config for item in found] == [first, None]
    assert [item.pending_writes for item in found] == [[("task-2", "b", 2)], [("task-1", "a", 1)]]
    assert [item.checkpoint["channel_values"] for item in found] == [{"small": 1}, {"big": "x" * 100_000}]


async def test_the_async_form_gives_the_same(saver: S3Saver) -> None:
    configs = chain(saver, at("t"), 20)

    found = [item async for item in saver.alist(at("t"), before=configs[15], filter={"source": "loop"}, limit=12)]

    assert steps(found) == list(range(14, 2, -1))
    assert found == list(saver.list(at("t"), before=configs[15], filter={"source": "loop"}, limit=12))


def test_an_iteration_can_be_given_up(saver: S3Saver) -> None:
    chain(saver, at("t"), 12)

    assert next(iter(saver.list(at("t")))).metadata["step"] == 11
    assert steps(saver.list(at("t"), limit=1)) == [11]
