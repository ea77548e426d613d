"""Deleting, copying and pruning: what goes, what stays, and what happens when the store refuses."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import pytest
from langgraph.checkpoint.serde.types import RESUME

from s3_checkpoint import AccessDeniedError, InvalidArgumentError, MemoryStore
from s3_checkpoint.langgraph import S3Saver
from s3_checkpoint.object_store import ObjectStore
from tests.langgraph.counting import Counting, at, chain, checkpoint, put

BIG = "x" * 100_000


def everything(store: MemoryStore) -> list[str]:
    return sorted(key.decode() for key in store._keys)


def contents(saver: S3Saver, thread_id: str) -> list[Any]:
    listed = saver.list({"configurable": {"thread_id": thread_id}})
    return [
        (item.config["configurable"]["checkpoint_ns"], item.checkpoint, item.metadata, item.pending_writes)
        for item in listed
    ]


def test_deleting_a_thread_leaves_its_neighbours_alone(saver: S3Saver) -> None:
    neighbours = ["a/b", "ab", "a|", "A", "", "a" * 300]
    for thread in ["a", *neighbours]:
        chain(saver, at(thread), 2)
        put(saver, at(thread, "a"), {"big": BIG})

    saver.delete_thread("a")

    assert contents(saver, "a") == []
    assert [len(contents(saver, thread)) for thread in neighbours] == [3] * len(neighbours)


def test_a_deleted_thread_leaves_nothing_behind() -> None:
    store = MemoryStore()
    with S3Saver(store) as saver:
        for thread in ("a", "long" * 100):
            config = put(saver, at(thread, "x" * 900), {"big": BIG}, run_id="run")
            saver.put_writes(config, [("a", 1), (RESUME, 2)], "task")

            saver.delete_thread(thread)

    assert everything(store) == []


def test_a_thread_can_begin_again_after_it_was_deleted(saver: S3Saver) -> None:
    """What the saver remembers of large values and runs it forgets with them."""
    parent = put(saver, at("t"), {"big": BIG}, run_id="run")
    saver.delete_thread("t")
    child = checkpoint({"big": BIG})

    stored = saver.put(parent, child, {"run_id": "run"}, {})

    found = saver.get_tuple(stored)
    assert found is not None
    assert found.checkpoint["channel_values"] == {"big": BIG}
    saver.delete_for_runs(["run"])
    assert saver.get_tuple(at("t")) is None


def test_a_run_is_deleted_from_all_threads_and_namespaces_and_nothing_else_is(saver: S3Saver) -> None:
    keep = put(saver, at("t"), {"big": BIG}, run_id="keep")
    gone = put(saver, keep, {"n": 1}, run_id="gone")
    saver.put_writes(gone, [("a", 1)], "task")
    put(saver, at("t", "inner"), run_id="gone")
    put(saver, at("u"), run_id="gone")
    put(saver, at("u"), run_id="keep")
    put(saver, at("u"))

    saver.delete_for_runs(["gone", "unknown"])

    assert [item[2].get("run_id") for item in contents(saver, "t")] == ["keep"]
    assert [item[2].get("run_id") for item in contents(saver, "u")] == [None, "keep"]


def test_deleting_a_run_keeps_the_large_values_that_others_refer_to() -> None:
    store = MemoryStore()
    with S3Saver(store, grace=timedelta(0)) as saver:
        first = put(saver, at("t"), {"big": BIG}, run_id="first")
        own = checkpoint({"big": BIG, "other": "y" * 100_000})
        second = saver.put(first, own, {"run_id": "second"}, {"other": 1})
        assert sum("/values/" in key for key in everything(store)) == 2

        saver.delete_for_runs(["first"])

        found = saver.get_tuple(second)
        assert found is not None
        assert found.checkpoint["channel_values"] == own["channel_values"]
        saver.delete_for_runs(["second"])
    assert everything(store) == []


def test_a_copy_has_everything_and_continues_its_own_way(saver: S3Saver) -> None:
    first = put(saver, at("a"), {"big": BIG}, run_id="run")
    second = put(saver, first, {"n": 2}, run_id="run")
    saver.put_writes(second, [("x", "second")], "task-a", "~path 2")
    saver.put_writes(second, [("x", "first"), (RESUME, 1)], "task-b", "~path 1")
    put(saver, at("a", "inner|child"), {"n": 3})
    before = contents(saver, "a")

    saver.copy_thread("a", "copy/of a")

    assert contents(saver, "copy/of a") == before
    assert [value for _, _, value in contents(saver, "copy/of a")[1][3]] == [1, "first", "second"]
    saver.delete_for_runs(["run"])
    assert len(contents(saver, "copy/of a")) == 1, "a run is found in copies too"
    put(saver, at("copy/of a"), {"n": 9})
    saver.delete_thread("a")
    assert len(contents(saver, "copy/of a")) == 2


def test_copying_moves_no_bytes_through_the_client() -> None:
    store = Counting(MemoryStore())
    with S3Saver(store) as saver:
        config = put(saver, at("a"), {"big": BIG})
        saver.put_writes(config, [("x", 1)], "task")
        store.reset()

        saver.copy_thread("a", "b")

        assert store.requests == {"LIST": 1, "COPY": 3}


@pytest.mark.parametrize("target", ["a", "b"])
def test_copying_nothing_or_onto_itself_is_no_error(saver: S3Saver, target: str) -> None:
    saver.copy_thread("none", "b")
    chain(saver, at("a"), 2)
    before = contents(saver, "a")

    saver.copy_thread("a", target)

    assert contents(saver, "a") == before


@pytest.mark.parametrize(("grace", "values"), [(timedelta(0), 3), (timedelta(hours=1), 12)])
def test_pruning_keeps_the_newest_of_each_namespace_with_writes_and_values(grace: timedelta, values: int) -> None:
    """Values that nothing refers to any more are kept for the grace period."""
    store = MemoryStore()
    with S3Saver(store, grace=grace) as saver:
        for namespace in ("", "inner", "inner|deep"):
            config = at("t", namespace)
            for n in range(4):
                config = put(saver, config, {"big": f"{n}{BIG}", "n": n})
                saver.put_writes(config, [("x", n)], "task")
        put(saver, at("other"))

        saver.prune(["t", "unknown"])

        for namespace in ("", "inner", "inner|deep"):
            found = list(saver.list(at("t", namespace)))
            assert [item.checkpoint["channel_values"] for item in found] == [{"big": f"3{BIG}", "n": 3}]
            assert found[0].pending_writes == [("task", "x", 3)]
        assert len(contents(saver, "other")) == 1
    assert sum("/values/" in key for key in everything(store)) == values


def test_pruning_leaves_no_entry_of_a_run_that_has_no_checkpoint_any_more() -> None:
    store = MemoryStore()
    with S3Saver(store) as saver:
        config = put(saver, at("t"), run_id="first")
        put(saver, config, run_id="second")
        put(saver, at("t", "inner"), run_id="first")
        assert sum("/!runs/" in key for key in everything(store)) == 3

        saver.prune(["t"])

        assert sum("/!runs/" in key for key in everything(store)) == 2
        saver.delete_thread("t")
    assert everything(store) == []


def test_pruning_leaves_writes_whose_checkpoint_is_still_to_come(saver: S3Saver) -> None:
    chain(saver, at("t"), 2)
    coming = checkpoint()
    saver.put_writes(at("t", checkpoint_id=coming["id"]), [("x", 1)], "task")

    saver.prune(["t"])
    config = saver.put(at("t"), coming, {}, {})

    found = saver.get_tuple(config)
    assert found is not None
    assert found.pending_writes == [("task", "x", 1)]


@pytest.mark.parametrize("strategy", ["delete", "delete_all"])
def test_pruning_everything_has_two_names(saver: S3Saver, strategy: str) -> None:
    """The documentation says `delete`, the Agent Server `delete_all`."""
    chain(saver, at("t"), 2)
    chain(saver, at("u"), 2)

    saver.prune(["t"], strategy=strategy)

    assert contents(saver, "t") == []
    assert len(contents(saver, "u")) == 2


def test_another_strategy_or_one_id_for_many_is_refused(saver: S3Saver) -> None:
    """A bare str would be taken for the ids of its characters."""
    chain(saver, at("t"), 2)

    with pytest.raises(InvalidArgumentError, match="keep_latest"):
        saver.prune(["t"], strategy="keep_none")
    with pytest.raises(TypeError, match="sequence"):
        saver.prune("t")
    with pytest.raises(TypeError, match="sequence"):
        saver.delete_for_runs("t")

    assert len(contents(saver, "t")) == 2


class RefusesKeys(Counting):
    """Does of a batch delete what it may, and reports one key that it may not: as S3 does, with status 200."""

    def __init__(self, store: ObjectStore, part: str) -> None:
        super().__init__(store)
        self.part = part

    async def delete(self, keys: Sequence[str]) -> None:
        refused = [key for key in keys if self.part in key]
        await super().delete([key for key in keys if key not in refused])
        if refused:
            raise AccessDeniedError(self.bucket, refused[0], "s3:DeleteObject")


@pytest.mark.parametrize("call", ["delete_thread", "prune", "delete_for_runs"])
def test_a_key_that_the_store_does_not_delete_is_an_error(call: str) -> None:
    store = RefusesKeys(MemoryStore(), "/w.")
    with S3Saver(store) as saver:
        for config in chain(saver, put(saver, at("t"), run_id="run"), 2):
            saver.put_writes(config, [("x", 1)], "task")
        put(saver, at("t"), run_id="run")
        for item in list(saver.list(at("t"))):
            saver.put_writes(item.config, [("x", 1)], "task")

        with pytest.raises(AccessDeniedError, match="s3:DeleteObject"):
            saver.delete_thread("t") if call == "delete_thread" else (
                saver.prune(["t"]) if call == "prune" else saver.delete_for_runs(["run"])
            )

        store.part = "nothing is refused any more"
        saver.delete_for_runs(["run"])
        assert all("run_id" not in item[2] for item in contents(saver, "t")), "the call can be made again"


def test_empty_lists_make_no_request() -> None:
    store = Counting(MemoryStore())
    with S3Saver(store) as saver:
        saver.prune([])
        saver.delete_for_runs([])
        assert saver.get_delta_channel_history(config=at("t"), channels=[]) == {}

    assert store.requests == {}
