"""Delta channels on the saver itself: history, seeds, forks, and pruning that never cuts a chain."""

from __future__ import annotations

from typing import Any

import pytest
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.serde.types import _DeltaSnapshot

from s3_checkpoint import MemoryStore
from s3_checkpoint.langgraph import S3Saver
from tests.langgraph.counting import Counting, at, checkpoint, id_of
from tests.langgraph.reference import ordered_reference

COUNTERS = {"counters_since_delta_snapshot": {"d": (1, 1)}}


def put(
    saver: BaseCheckpointSaver[Any], parent: RunnableConfig, version: int, snapshot: Any = None, *, counted: bool = True
) -> RunnableConfig:
    """A checkpoint with delta channel `d` at `version`; its value is only there if it is a snapshot."""
    values = {"plain": version} | ({} if snapshot is None else {"d": _DeltaSnapshot(snapshot)})
    new = checkpoint(values, d=version, plain=version)
    metadata: Any = COUNTERS if counted and snapshot is None else {}
    return saver.put(parent, new, metadata, {"d": version, "plain": version})


def grow(saver: BaseCheckpointSaver[Any], parent: RunnableConfig, versions: range) -> list[RunnableConfig]:
    """Checkpoints whose writes to `d` are two tasks', in an order that only the task path tells."""
    configs = []
    for version in versions:
        saver.put_writes(parent, [("d", f"{version}b"), ("plain", version)], "task-1", "~2") if version > 1 else None
        saver.put_writes(parent, [("d", f"{version}a")], "task-2", "~1") if version > 1 else None
        parent = put(saver, parent, version)
        configs.append(parent)
    return configs


def test_writes_come_back_oldest_first_down_to_the_seed_whose_own_writes_count(saver: S3Saver) -> None:
    seed = put(saver, at("t"), 1, ["seed"])
    configs = grow(saver, seed, range(2, 12))
    saver.put_writes(configs[-1], [("d", "pending")], "task-9")

    history = saver.get_delta_channel_history(config=configs[-1], channels=["d", "plain", "unknown"])

    assert history["d"]["seed"] == _DeltaSnapshot(["seed"])
    assert [value for _, _, value in history["d"]["writes"]] == [f"{v}{x}" for v in range(2, 12) for x in "ab"]
    assert history["plain"]["seed"] == 10
    assert [value for _, _, value in history["plain"]["writes"]] == [11]
    assert history["unknown"] == {"writes": []}


def test_history_without_a_seed_goes_back_to_the_root(saver: S3Saver) -> None:
    configs = grow(saver, at("t"), range(1, 4))

    history = saver.get_delta_channel_history(config=at("t"), channels=["d"])

    assert history == {
        "d": {"writes": [(f"task-{n}", "d", f"{v}{x}") for v in (2, 3) for n, x in ((2, "a"), (1, "b"))]}
    }
    assert saver.get_delta_channel_history(config=configs[0], channels=["d"]) == {"d": {"writes": []}}
    assert saver.get_delta_channel_history(config=at("unknown"), channels=["d"]) == {"d": {"writes": []}}


def test_history_of_a_fork_is_its_own_branch_alone(saver: S3Saver) -> None:
    seed = put(saver, at("t"), 1, [])
    left = grow(saver, seed, range(2, 5))
    right = put(saver, left[0], 3)

    history = saver.get_delta_channel_history(config=right, channels=["d"])

    assert {value for _, _, value in history["d"]["writes"]} == {"2a", "2b", "3a", "3b"}


@ordered_reference
@pytest.mark.parametrize("target", [0, 1, 7, 20, 21])
def test_the_history_is_that_of_the_in_memory_saver(saver: S3Saver, target: int) -> None:
    """Target by target, with a snapshot on the way."""
    configs = {}
    for name, one in (("ours", saver), ("theirs", InMemorySaver())):
        first = grow(one, put(one, at("t"), 1, ["old"]), range(2, 12))
        second = grow(one, put(one, first[-1], 12, ["new"]), range(13, 23))
        found = [*first, *second]
        configs[name] = one.get_delta_channel_history(config=found[min(target, len(found) - 1)], channels=["d"])

    assert configs["ours"] == configs["theirs"]


async def test_the_async_form_gives_the_same(saver: S3Saver) -> None:
    configs = grow(saver, put(saver, at("t"), 1, ["seed"]), range(2, 6))

    history = await saver.aget_delta_channel_history(config=configs[-1], channels=["d"])

    assert history == saver.get_delta_channel_history(config=configs[-1], channels=["d"])


def test_a_snapshot_still_stands_in_later_checkpoints_of_the_same_version(saver: S3Saver) -> None:
    """LangGraph leaves it out of them; savers that keep values by version show it."""
    seed = put(saver, at("t"), 1, ["seed"])
    later = checkpoint({"plain": 2}, plain=2, d=1)

    config = saver.put(seed, later, {}, {"plain": 2})

    found = saver.get_tuple(config)
    assert found is not None
    assert found.checkpoint["channel_values"] == {"plain": 2, "d": _DeltaSnapshot(["seed"])}


def test_ancestors_are_read_together() -> None:
    """Without copies, 7 of them: 1 LIST, and the reads with the seed. 40: a few rounds, not 40."""
    store = Counting(MemoryStore())
    with S3Saver(store, cache_bytes=0) as saver:
        configs = grow(saver, put(saver, at("t"), 1, ["seed"]), range(2, 42))
        store.reset()

        saver.get_delta_channel_history(config=configs[5], channels=["d"])
        assert (store.requests["LIST"], store.rounds) == (1, 2)
        store.reset()
        saver.get_delta_channel_history(config=configs[-1], channels=["d"])
        assert (store.requests["LIST"], store.rounds) == (1, 3)


def test_pruning_never_cuts_a_delta_chain(saver: S3Saver) -> None:
    """It keeps the ancestors back to the seed, and the history is what it was."""
    old = grow(saver, put(saver, at("t"), 1, ["old"]), range(2, 6))
    seed = put(saver, old[-1], 6, ["seed"])
    configs = grow(saver, seed, range(7, 11))
    before = saver.get_delta_channel_history(config=configs[-1], channels=["d"])

    saver.prune(["t"])

    kept = [id_of(item.config) for item in saver.list(at("t"))]
    assert kept == [id_of(config) for config in reversed([seed, *configs])]
    assert saver.get_delta_channel_history(config=configs[-1], channels=["d"]) == before
    saver.prune(["t"])
    assert saver.get_delta_channel_history(config=configs[-1], channels=["d"]) == before


def test_pruning_a_chain_without_a_seed_keeps_all_of_it(saver: S3Saver) -> None:
    configs = grow(saver, at("t"), range(1, 6))
    fork = put(saver, configs[1], 3)

    saver.prune(["t"])

    kept = {id_of(item.config) for item in saver.list(at("t"))}
    assert kept == {id_of(config) for config in (*configs[:2], fork)}


def test_pruning_at_a_snapshot_keeps_only_that(saver: S3Saver) -> None:
    old = grow(saver, put(saver, at("t"), 1, ["old"]), range(2, 6))
    newest = put(saver, old[-1], 6, ["new"])

    saver.prune(["t"])

    assert [item.config for item in saver.list(at("t"))] == [newest]


@pytest.mark.parametrize("seed_at", [0, 3])
def test_a_snapshot_anywhere_tells_that_a_channel_is_delta(saver: S3Saver, seed_at: int) -> None:
    """Checkpoints that neither count nor version the channel, as other writers of this data make them."""
    config, configs = at("t"), []
    for step in range(6):
        snapshot = {"d": _DeltaSnapshot(step)} if step in (0, seed_at) else {}
        new = checkpoint(snapshot)
        config = saver.put(config, new, {}, new["channel_versions"])
        saver.put_writes(config, [("d", step)], f"task-{step}")
        configs.append(config)
    before = saver.get_delta_channel_history(config=config, channels=["d"])

    saver.prune(["t"])

    assert saver.get_delta_channel_history(config=config, channels=["d"]) == before
    assert before["d"]["seed"] == _DeltaSnapshot(seed_at)
    assert [value for _, _, value in before["d"]["writes"]] == list(range(seed_at, 5))
    assert [item.config for item in saver.list(at("t"))] == configs[: seed_at - 1 : -1] if seed_at else configs[::-1]


def test_a_delta_channel_that_was_never_written_keeps_no_ancestors(saver: S3Saver) -> None:
    """LangGraph counts its supersteps nevertheless."""
    config = at("t")
    for _ in range(3):
        config = saver.put(config, checkpoint({"plain": 1}), COUNTERS, {"plain": 1})  # type: ignore[arg-type]

    saver.prune(["t"])

    assert [item.config for item in saver.list(at("t"))] == [config]


def test_the_seed_reads_back_from_a_copy(saver: S3Saver) -> None:
    configs = grow(saver, put(saver, at("t"), 1, ["seed"]), range(2, 6))
    before = saver.get_delta_channel_history(config=configs[-1], channels=["d"])

    saver.copy_thread("t", "u")

    assert saver.get_delta_channel_history(config=at("u"), channels=["d"]) == before
