"""Requests and round trips of a process that has read a thread before, and of one that has not."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
from langchain_core.messages import HumanMessage
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import CheckpointTuple
from langgraph.checkpoint.memory import InMemorySaver

from s3_checkpoint import MemoryStore
from s3_checkpoint._format.thread_keys import parse_head
from s3_checkpoint.langgraph import S3Saver
from tests.langgraph.counting import Counting, at, chain, checkpoint, put
from tests.langgraph.graphs import TURN, agent
from tests.langgraph.test_delta_history import COUNTERS, grow
from tests.langgraph.test_delta_history import put as put_delta


def converse(saver: Any, turns: range, *, every: int = 100) -> RunnableConfig:
    config: RunnableConfig = {"configurable": {"thread_id": "t"}}
    graph = agent(every=every).compile(checkpointer=saver)
    for turn in turns:
        graph.invoke({"messages": [HumanMessage(f"question {turn}", id=f"h{turn}")]}, config)
    return config


def state(saver: Any, *, every: int = 100) -> Any:
    return agent(every=every).compile(checkpointer=saver).get_state({"configurable": {"thread_id": "t"}}).values


def newest_id(saver: S3Saver) -> str:
    found = saver.get_tuple(at("t"))
    assert found is not None
    return found.checkpoint["id"]


def stored_bytes(store: Counting, part: str = "") -> int:
    objects: dict[str, Any] = store.store._objects  # type: ignore[attr-defined]
    return sum(len(one.body) for key, one in objects.items() if part in key)


def test_a_warm_turn_with_delta_channels_reads_no_object_that_this_process_has_seen() -> None:
    """The goal is 6 GETs a turn; a process that wrote them needs none, at any length of the history."""
    store = Counting(MemoryStore())
    with S3Saver(store) as saver:
        for turn in range(30):
            store.reset()
            converse(saver, range(turn, turn + 1))
            assert store.requests["GET"] == store.requests["HEAD"] == 0, turn
            assert store.requests["LIST"] <= 2

        assert len(state(saver)["messages"]) == 30 * TURN


@pytest.mark.parametrize("turns", [3, 10, 18, 24])
def test_a_cold_process_reads_a_delta_history_with_about_log2_gets_in_two_round_trips(turns: int) -> None:
    """Whatever the number of ancestors since the last snapshot; here none, the bound being a hundred updates."""
    store = Counting(MemoryStore())
    with S3Saver(store) as saver:
        converse(saver, range(turns), every=1000)
        newest = newest_id(saver)
        whole = state(saver, every=1000)
        deep = len(list(saver.list(at("t"))))
    with S3Saver(store) as cold:
        store.reset()
        history = cold.get_delta_channel_history(config=at("t", checkpoint_id=newest), channels=["messages", "files"])

        assert (store.requests["LIST"], store.rounds) == (1, 2)
        assert store.requests["GET"] <= math.ceil(math.log2(deep)) + 4
        assert sum(len(value) for _, channel, value in history["messages"]["writes"]) == len(whole["messages"])
    with S3Saver(store) as cold:
        assert state(cold, every=1000) == whole


def test_every_ancestor_count_up_to_a_hundred_is_read_with_about_log2_gets() -> None:
    """Number by number: the path down the powers of two, and the seed."""
    store = Counting(MemoryStore())
    with S3Saver(store) as saver:
        configs = [put_delta(saver, at("t"), 1, ["seed"])]
        for version in range(2, 102):
            saver.put_writes(configs[-1], [("d", f"write {version}")], "task")
            configs.append(put_delta(saver, configs[-1], version))
    for ancestors in range(1, 101):
        with S3Saver(store) as cold:
            store.reset()
            found = cold.get_delta_channel_history(config=configs[ancestors], channels=["d"])["d"]

        assert [value for _, _, value in found["writes"]] == [f"write {v}" for v in range(2, ancestors + 2)]
        assert found["seed"].value == ["seed"]
        assert store.requests["GET"] <= math.log2(ancestors) + 4, ancestors
        assert (store.requests["LIST"], store.rounds) == (1, 2)


def test_twenty_states_of_a_warm_delta_history_take_at_most_150_requests() -> None:
    store = Counting(MemoryStore())
    with S3Saver(store) as saver:
        config = converse(saver, range(25))
        graph = agent().compile(checkpointer=saver)
        store.reset()

        found = list(graph.get_state_history(config, limit=20))

        assert len(found[0].values["messages"]) == 25 * TURN
        assert store.requests.total() <= 150
        assert store.requests["GET"] == 0


def test_stored_bytes_stay_within_five_times_the_deltas() -> None:
    """Copies included, over a hundred supersteps that no snapshot interrupts."""
    store = Counting(MemoryStore())
    with S3Saver(store) as saver:
        converse(saver, range(25), every=1000)

    assert stored_bytes(store) <= 5 * stored_bytes(store, "/w.")


@pytest.mark.parametrize("every", [7, 1000])
def test_states_at_every_checkpoint_are_those_of_the_in_memory_saver(every: int) -> None:
    """Read warm, cold, and without copies or cache; snapshots of two channels at different times among them."""
    store, theirs = MemoryStore(), InMemorySaver()
    converse(theirs, range(12), every=every)
    wanted = [one.values for one in agent(every=every).compile(checkpointer=theirs).get_state_history(_of("t"))]

    def states(saver: S3Saver) -> list[Any]:
        return [one.values for one in agent(every=every).compile(checkpointer=saver).get_state_history(_of("t"))]

    with S3Saver(store) as saver:
        converse(saver, range(5), every=every)
    with S3Saver(store) as saver:
        converse(saver, range(5, 12), every=every)
        assert states(saver) == wanted
    for cache_bytes in (0, 20_000, 10**8):
        with S3Saver(store, cache_bytes=cache_bytes) as saver:
            assert states(saver) == wanted
    with S3Saver(store) as saver:
        saver.copy_thread("t", "u")
        copied = agent(every=every).compile(checkpointer=saver).get_state_history(_of("u"))
        assert [one.values for one in copied] == wanted
        saver.prune(["t", "u"])
    with S3Saver(store) as saver:
        graph = agent(every=every).compile(checkpointer=saver)
        assert [graph.get_state(_of(thread)).values for thread in "tu"] == [wanted[0]] * 2


def _of(thread: str) -> RunnableConfig:
    return {"configurable": {"thread_id": thread}}


def test_savers_without_a_cache_write_no_copies_and_read_all_as_before() -> None:
    store = Counting(MemoryStore())
    with S3Saver(store, cache_bytes=0) as saver:
        converse(saver, range(4))

    heads = [parse_head(key.decode().rpartition("/")[2]) for key in store.store._keys]  # type: ignore[attr-defined]
    assert {head.covers for head in heads if head} == {0}


@pytest.mark.parametrize("history", [1, 10, 1_000])
def test_the_newest_checkpoint_of_a_warm_thread_takes_one_round_trip(history: int) -> None:
    """With large values and pending writes; written by this process or another."""
    store = Counting(MemoryStore())
    with S3Saver(store) as saver, S3Saver(store) as other:
        chain(saver, at("t"), history)
        config = put(saver, at("t"), {"a": "x" * 100_000, "n": 1})
        saver.put_writes(config, [("n", 1)], "task")
        other.get_tuple(at("t"))
        for one in (saver, other):
            store.reset()
            found = one.get_tuple(at("t"))

            assert found is not None
            assert found.pending_writes == [("task", "n", 1)]
            assert (store.requests, store.rounds) == ({"LIST": 1}, 1)


def test_changes_of_another_process_are_read_anew() -> None:
    """The checkpoint put again, its writes added to, the thread deleted: a LIST shows each of them."""
    store = Counting(MemoryStore())

    def newest(saver: S3Saver) -> CheckpointTuple | None:
        store.reset()
        return saver.get_tuple(at("t"))

    with S3Saver(store) as saver, S3Saver(store) as other:
        config = saver.put(at("t"), checkpoint({"n": 1}, checkpoint_id="1"), {}, {"n": 1})
        saver.put_writes(config, [("n", 1)], "task")

        other.put_writes(config, [("n", 9), ("m", 2)], "task")
        other.put(at("t"), checkpoint({"n": 7}, checkpoint_id="1"), {}, {"n": 1})
        found = newest(saver)
        assert found is not None
        assert found.checkpoint["channel_values"] == {"n": 7}
        assert found.pending_writes == [("task", "n", 1), ("task", "m", 2)]
        assert store.requests == {"LIST": 1, "GET": 2}

        other.delete_thread("t")
        assert newest(saver) is None


def test_a_value_is_trusted_in_the_cache_for_as_long_as_a_put_trusts_it() -> None:
    """Then it is read again: the one thing that can have happened to it is that it was removed with its thread."""
    store, passed = Counting(MemoryStore()), [0.0]
    with S3Saver(store, monotonic=lambda: passed[0]) as saver:
        put(saver, at("t"), {"a": "x" * 100_000})

        for seconds, gets in ((1799, 0), (1801, 1), (1799 + 1801, 0)):
            passed[0] = seconds
            store.reset()
            assert saver.get_tuple(at("t")) is not None
            assert store.requests["GET"] == gets


def test_copies_of_the_saver_share_the_cache() -> None:
    store = Counting(MemoryStore())
    with S3Saver(store) as saver:
        put(saver, at("t"), {"n": 1})
        store.reset()

        assert saver.with_allowlist([("module", "name")]).get_tuple(at("t")) is not None

        assert store.requests == {"LIST": 1}


def test_the_cache_holds_no_more_than_its_bytes() -> None:
    store = Counting(MemoryStore())
    with S3Saver(store, cache_bytes=100_000) as saver:
        for n in range(50):
            put(saver, at(f"t{n}"), {"text": "x" * 20_000})

        kept = 0
        for n in range(50):
            store.reset()
            assert saver.get_tuple(at(f"t{n}")) is not None
            kept += store.requests["GET"] == 0
        assert kept <= 100_000 // 20_000
        assert saver._opening.call(_cached_bytes) <= 100_000


async def _cached_bytes(threads: Any) -> int:
    return int(threads.cache._bytes)


def late_write(saver: S3Saver, configs: list[RunnableConfig]) -> None:
    """A write of a task that its process was late with: the child had been put already."""
    saver.put_writes(configs[2], [("d", "late")], "task-3", "~3")


def ancestor_put_again(saver: S3Saver, configs: list[RunnableConfig]) -> None:
    """The same id under another parent."""
    again = checkpoint({"plain": 4}, checkpoint_id=configs[3]["configurable"]["checkpoint_id"], d=4, plain=4)
    saver.put(configs[0], again, COUNTERS, {"d": 4})  # type: ignore[arg-type]


def run_deleted(saver: S3Saver, configs: list[RunnableConfig]) -> None:
    """An ancestor is gone, as `delete_for_runs` removes it."""
    name = saver._opening.call(_keys_under(configs[3]))
    saver._opening.call(lambda threads: threads.objects.delete(name))


def _keys_under(config: RunnableConfig) -> Callable[[Any], Any]:
    async def keys(threads: Any) -> list[str]:
        from s3_checkpoint._format.thread_keys import ThreadKeys

        root = ThreadKeys.of(threads.prefix, "t").namespace("").directory(config["configurable"]["checkpoint_id"])
        return [line.key for line in (await threads.objects.list(root)).objects]

    return keys


@pytest.mark.parametrize("change", [late_write, ancestor_put_again, run_deleted])
@pytest.mark.parametrize("depth", range(5, 11))
def test_copies_that_are_not_what_is_stored_any_more_are_not_used(
    change: Callable[[S3Saver, list[RunnableConfig]], None], depth: int
) -> None:
    """The history is that of a saver which knows of no copies, at each depth, warm and cold."""
    stores = [MemoryStore(), MemoryStore()]
    found = []
    for store, cache_bytes in zip(stores, (10**7, 0), strict=True):
        with S3Saver(store, cache_bytes=cache_bytes) as saver:
            configs: list[RunnableConfig] = [_numbered(saver, at("t"), 1, ["seed"])]
            for number in range(2, 12):
                saver.put_writes(configs[-1], [("d", f"{number}")], f"task-{number}")
                configs.append(_numbered(saver, configs[-1], number))
            change(saver, configs)
            histories = [saver.get_delta_channel_history(config=configs[depth], channels=["d", "plain"])]
        with S3Saver(store, cache_bytes=cache_bytes) as saver:
            histories.append(saver.get_delta_channel_history(config=configs[depth], channels=["d"]))
        found.append(histories)

    assert found[0] == found[1]


def _numbered(saver: S3Saver, parent: RunnableConfig, number: int, snapshot: Any = None) -> RunnableConfig:
    from langgraph.checkpoint.serde.types import _DeltaSnapshot

    values = {"plain": number} | ({} if snapshot is None else {"d": _DeltaSnapshot(snapshot)})
    new = checkpoint(values, checkpoint_id=f"{number:03}", d=number, plain=number)
    metadata: Any = COUNTERS if snapshot is None else {}
    return saver.put(parent, new, metadata, {"d": number, "plain": number})


def test_a_pruned_chain_is_found_with_a_few_reads() -> None:
    """`prune` reads what a reader would: not each checkpoint that it keeps."""
    store = Counting(MemoryStore())
    with S3Saver(store) as saver:
        grow(saver, put_delta(saver, at("t"), 1, ["seed"]), range(2, 66))
    with S3Saver(store) as cold:
        store.reset()
        cold.prune(["t"])

    assert store.requests["GET"] <= 12
    assert store.rounds <= 4
